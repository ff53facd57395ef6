"""What the pieces of guidance share: a denoiser that is led, and the same without what leads it."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, combine
from osmotic.schedules import Number, Schedule


class Guidance(Denoiser):
    """A denoiser that leads another one, and can give the estimate that it leads beside its own.

    Pieces that switch guidance on and off (:class:`~osmotic.guidance.Interval`) or measure it against the plain
    conditional (:class:`~osmotic.guidance.Rescale`) are put around one, and are such themselves, so they stack in any
    order.
    """

    @property
    @abstractmethod
    def plain(self) -> Denoiser | None:
        """The denoiser without this guidance; None where there is none inside."""

    @abstractmethod
    def both(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> tuple[Estimate, Estimate]:
        """``(plain, guided)`` at noisy samples ``(B, *S)``, with no forward pass but those that the guided one takes
        where the plain one is among them.
        """

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        return self.both(x, t, cond, s)[1]


def led(denoiser: Denoiser, name: str) -> tuple[Guidance, Denoiser]:
    """The denoiser as a guidance, and what it leads.

    Raises:
        TypeError: for a denoiser that leads nothing.
    """
    plain = denoiser.plain if isinstance(denoiser, Guidance) else None
    if plain is None or not isinstance(denoiser, Guidance):
        raise TypeError(
            f"{name} goes around a guidance such as ClassifierFree, and {type(denoiser).__name__} leads nothing; put "
            f"{name} inside of it."
        )
    return denoiser, plain


def refuse_matrices(denoiser: Denoiser, name: str) -> None:
    """Refuse, by its name, a piece that needs alpha and sigma to be numbers where they are matrices."""
    if denoiser.schedule.matrix_valued:
        raise ValueError(
            f"{name} needs a path of two numbers, and on {type(denoiser.schedule).__name__} they are matrices; give it "
            "a denoiser of data alone, and lift the guided one."
        )


def refuse_renoised(denoiser: Denoiser, name: str) -> None:
    """Refuse, by its name, a piece that finds eps from x0 around a denoiser whose two do not belong together."""
    if not denoiser.consistent:
        raise ValueError(
            f"{name} finds eps from x = alpha x0 + sigma eps, which would undo CFGPlusPlus; put {name} inside of it."
        )


def completed(schedule: Schedule, x: Tensor, t: Tensor, x0: Tensor, v: Tensor | None) -> Estimate:
    """The estimate with this x0 that meets the path's equation: ``eps = (x - alpha x0) / sigma``."""
    alpha, sigma = schedule.numbers(t)
    return Estimate(x0, combine(x, x0, 1 / sigma, -alpha / sigma), v)
