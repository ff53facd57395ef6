"""Training-time laws: how often each time is trained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from osmotic.schedules import Schedule


class Law(nn.Module, ABC):
    """A distribution of training times, given by its quantile function. A new law is one class with one method."""

    @abstractmethod
    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        """The time below which a share u of the draws lies; increasing in u, ``(n,)`` to ``(n,)`` in [0, 1]."""

    def draw(self, schedule: Schedule, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n training times and the importance weight of each.

        The mean of importance times loss is the loss under the law that the objective is stated for, whatever is drawn.

        Returns:
            ``(t, importance)``, each ``(n,)`` float64 on the CPU; t in (0, 1].
        """
        t = self.quantile(schedule, self.shares(n, generator))
        return t, self.importance(schedule, t)

    def importance(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The density of the law that the objective is stated for over this one's, at times ``(n,)``: 1 where they are
        the same.
        """
        return torch.ones_like(t)

    def shares(self, n: int, generator: torch.Generator | None) -> Tensor:
        """n numbers in (0, 1): independent and uniform."""
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        # rand can give exactly 0, which would be the data itself.
        return u.clamp_min(torch.finfo(torch.float64).tiny)

    def update(self, schedule: Schedule, t: Tensor, loss: Tensor) -> None:
        """Learn from the losses ``(n,)`` seen at times t ``(n,)``; only an adaptive law does."""


class Uniform(Law):
    """``t`` uniform on (0, 1)."""

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        return u


class Steps(Law):
    """``t`` uniform on the levels ``i/T, i = 1..T`` of discrete DDPM (Ho et al. 2020, arXiv 2006.11239).

    Args:
        levels: T, positive.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        return torch.ceil(u * self.levels).clamp(1, self.levels) / self.levels


class Ladder(Law):
    """``t`` uniform on given levels: NCSN's training law over a geometric ladder of noise (Song & Ermon 2019, arXiv
    1907.05600).

    The ladder itself is a grid, ``times.LogSNR(rho_min, rho_max)(schedule, n)``.

    Args:
        levels: times in any order, ``(n,)``; 0 is left out, for there is nothing to train at.
    """

    levels: Tensor

    def __init__(self, levels: Tensor) -> None:
        super().__init__()
        self.register_buffer("levels", _rungs(levels), persistent=False)

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        index = (torch.ceil(u * len(self.levels)) - 1).clamp(0, len(self.levels) - 1)
        return self.levels[index.long()].to(u)


class Rounded(Law):
    """Another law with each time rounded up to the next of given levels, for objectives stated on a grid.

    Times above the noisiest level become that level.

    Args:
        law: the law to round; its importance weights and its learning are kept.
        levels: times in any order, ``(n,)``; 0 is left out.
    """

    levels: Tensor

    def __init__(self, law: Law, levels: Tensor) -> None:
        super().__init__()
        self.law = law
        self.register_buffer("levels", _rungs(levels), persistent=False)

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        return self._up(self.law.quantile(schedule, u))

    def draw(self, schedule: Schedule, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        t, importance = self.law.draw(schedule, n, generator)
        return self._up(t), importance

    def update(self, schedule: Schedule, t: Tensor, loss: Tensor) -> None:
        self.law.update(schedule, t, loss)

    def _up(self, t: Tensor) -> Tensor:
        # A level that was rounded in its last bits is still that level.
        index = torch.searchsorted(self.levels, (t.double() * (1 - 1e-12)).contiguous())
        return self.levels[index.clamp(max=len(self.levels) - 1)].to(t)


def _rungs(levels: Tensor) -> Tensor:
    """The noisy levels in rising order, float64.

    Raises:
        ValueError: if there is none, or one lies outside [0, 1].
    """
    rungs: Tensor = torch.as_tensor(levels).detach().cpu().double().sort().values
    if len(rungs):
        rungs = rungs[torch.cat([rungs.new_ones(1), rungs.diff()]) > 0]
    if not len(rungs) or not 0 <= rungs[0] <= rungs[-1] <= 1 or rungs[-1] == 0:
        raise ValueError("Levels to train at must be times in [0, 1], at least one of them noisy.")
    noisy: Tensor = rungs[rungs > 0]
    return noisy


class LogitNormal(Law):
    """``logit(t)`` normal (Esser et al. 2024, arXiv 2403.03206).

    Args:
        mean: of logit(t); 0 centres on t = 1/2.
        deviation: of logit(t), positive.
    """

    def __init__(self, mean: float = 0.0, deviation: float = 1.0) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.deviation * torch.special.ndtri(u))


class LogNormal(Law):
    """``log(sigma / alpha)`` normal, cut at the schedule's noisiest level (Karras et al. 2022, arXiv 2206.00364).

    Args:
        mean: of log(sigma / alpha), EDM's P_mean.
        deviation: EDM's P_std, positive.
    """

    def __init__(self, mean: float = -1.2, deviation: float = 1.2) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        last = (-schedule.log_snr(1.0) / 2 - self.mean) / self.deviation
        # The paper's law has no upper end; scaling u by the share below t = 1 makes it the conditional law on the path.
        normal = torch.special.ndtri(u * torch.special.ndtr(last))
        return schedule.time(-2 * (self.mean + self.deviation * normal)).clamp(max=1.0)


class NoiseShare(Law):
    """``log(sigma^2 / (sigma^2 + alpha^2 sd^2))``, the noise's share, uniform between a first time and t = 1.

    For objectives that are stated for uniform times on [first, 1] and weighted by the likelihood. Were the data N(0,
    sd^2), every draw would have the same expected loss; on variance-preserving paths with sd = 1 this is LSGM's
    geometric law of sigma^2 (Vahdat et al. 2021, arXiv 2106.05931, section 3.3).

    Args:
        first: the least time, in (0, 1).
        deviation: sd, of the data, positive.
    """

    def __init__(self, first: float, deviation: float = 1.0) -> None:
        super().__init__()
        if not (0 < first < 1 and deviation > 0):
            raise ValueError(
                f"NoiseShare needs a first time in (0, 1) and a positive deviation; got {first} and {deviation}."
            )
        self.first, self.deviation = first, deviation

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        start, end = self._ends(schedule)
        # log(1 + sd^2 snr) = start + u (end - start), solved for the snr.
        log_snr = torch.expm1(start + u * (end - start)).log() - 2 * math.log(self.deviation)
        return schedule.time(log_snr).clamp(self.first, 1.0)

    def importance(self, schedule: Schedule, t: Tensor) -> Tensor:
        start, end = self._ends(schedule)
        (alpha, sigma), (dalpha, dsigma) = schedule(t), schedule.rates(t)
        power = (alpha * self.deviation) ** 2
        # The rate of -log(1 + sd^2 snr), without dividing by alpha.
        rate = 2 * alpha * self.deviation**2 * (dsigma * alpha - sigma * dalpha) / (sigma * (power + sigma**2))
        importance: Tensor = (start - end) / ((1 - self.first) * rate)
        return importance

    def _ends(self, schedule: Schedule) -> Tensor:
        times = torch.tensor([self.first, 1.0], dtype=torch.float64)
        ends: Tensor = nn.functional.softplus(schedule.log_snr(times) + 2 * math.log(self.deviation))
        return ends


class Stratified(Law):
    """Another law with one draw in each of n equal shares: the same marginal, less variance (Kingma et al. 2021, arXiv
    2107.00630).

    ``u_i = (i + u) / n`` with one common u, so that each draw alone is still exactly of the law.

    Args:
        law: the law to stratify.
    """

    def __init__(self, law: Law) -> None:
        super().__init__()
        self.law = law

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        return self.law.quantile(schedule, u)

    def importance(self, schedule: Schedule, t: Tensor) -> Tensor:
        return self.law.importance(schedule, t)

    def shares(self, n: int, generator: torch.Generator | None) -> Tensor:
        first = super().shares(1, generator)
        return (torch.arange(n, dtype=torch.float64) + first) / n


class Adaptive(Law):
    """Another law drawn more often where the loss is large, with importance weights that keep the objective's mean.

    The law's shares u are cut in bins; a bin is drawn in proportion to ``sqrt(E[loss^2])``, as in Improved DDPM's
    importance sampling (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 18), here with a running mean and for continuous
    time.

    Args:
        law: the law for which the objective is stated.
        bins: how many, at least 2.
        floor: the share of draws that stays with the law itself, in (0, 1].
        memory: how many observations of a bin the running mean remembers.
    """

    square: Tensor
    seen: Tensor

    def __init__(self, law: Law, bins: int = 64, floor: float = 0.1, memory: int = 1000) -> None:
        super().__init__()
        self.law, self.bins, self.floor, self.memory = law, bins, floor, memory
        self.register_buffer("square", torch.ones(bins, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(bins, dtype=torch.float64))
        self._edges: tuple[Schedule, Tensor] | None = None

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        return self.law.quantile(schedule, u)

    @property
    def probabilities(self) -> Tensor:
        """The share of draws in each bin; the law's own until every bin has been seen."""
        if not bool((self.seen > 0).all()):
            return torch.full_like(self.square, 1 / self.bins)
        share = self.square.sqrt()
        return self.floor / self.bins + (1 - self.floor) * share / share.sum()

    def draw(self, schedule: Schedule, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        u = self.law.shares(n, generator)
        share = self.probabilities.cpu()
        ends = torch.cat([torch.zeros(1, dtype=torch.float64), share.cumsum(0)])
        index = torch.searchsorted(ends[1:-1].contiguous(), u, right=True)
        # Inside a bin the law's own shape is kept: u is mapped linearly from the bin's drawn share to its own share.
        inside = ((u - ends[index]) / share[index]).clamp(0, 1)
        own = ((index + inside) / self.bins).clamp(torch.finfo(torch.float64).tiny, 1.0)
        t = self.law.quantile(schedule, own)
        return t, self.law.importance(schedule, t) / (self.bins * share[index])

    @torch.no_grad()
    def update(self, schedule: Schedule, t: Tensor, loss: Tensor) -> None:
        """Move each bin's mean square towards the squared losses seen in it; non-finite losses are left out."""
        if self._edges is None or self._edges[0] is not schedule:
            shares = torch.arange(1, self.bins, dtype=torch.float64) / self.bins
            self._edges = (schedule, self.law.quantile(schedule, shares))
        index = torch.searchsorted(self._edges[1], t.detach().cpu().double().contiguous(), right=False)
        square = loss.detach().cpu().double() ** 2
        good = torch.isfinite(square)
        count = torch.zeros_like(self.seen).index_add_(0, index[good], torch.ones_like(square[good]))
        total = torch.zeros_like(self.square).index_add_(0, index[good], square[good])
        # A running mean over at most ``memory`` observations: exact mean first, exponential afterwards.
        weight = count / (self.seen + count).clamp(min=1, max=self.memory)
        mean = total / count.clamp(min=1)
        self.square.copy_(torch.where(count > 0, torch.lerp(self.square, mean, weight.clamp(max=1)), self.square))
        self.seen.add_(count)


# Laws by name, for data of a given standard deviation; enter a new law here and the conformance tests pick it up.
LAWS: dict[str, Callable[[float], Law]] = {
    "uniform": lambda sigma_data: Stratified(Uniform()),
    "levels": lambda sigma_data: Stratified(Steps(1000)),
    "logit-normal": lambda sigma_data: Stratified(LogitNormal()),
    # EDM's mean -1.2 is for data of deviation 0.5; what matters is the noise relative to the data.
    "log-normal": lambda sigma_data: Stratified(LogNormal(mean=-1.2 + math.log(sigma_data / 0.5))),
    "adaptive": lambda sigma_data: Adaptive(Stratified(Uniform())),
}
