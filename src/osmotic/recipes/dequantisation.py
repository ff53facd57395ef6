"""A dequantisation learned for a run, from the data that it was trained on and from its own scores."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from osmotic.data.counter import permutation
from osmotic.data.dataset import Dataset
from osmotic.data.errors import plural
from osmotic.dequantize import Dequantizer, Exponents, Variational, surrogate
from osmotic.likelihood import score
from osmotic.noise import generator
from osmotic.recipes.draws import Progress, condition
from osmotic.training.model import Model

# What the noises and the order of the fit are keyed by, beside those of the measurement.
STREAM = 2


@dataclass(frozen=True)
class Fitted:
    """A learned dequantisation and how it came about.

    Args:
        dequantizer: it.
        steps: of the optimizer, that were taken.
        samples: of the training data, that it could see.
        seconds: that it took.
        cut: whether the time was over before all steps were taken.
    """

    dequantizer: Dequantizer
    steps: int
    samples: int
    seconds: float
    cut: bool

    def __str__(self) -> str:
        over = ", when the time was over" if self.cut else ""
        seen = plural(self.samples, "training sample")
        return f"variational, fitted in {plural(self.steps, 'step')} on {seen}{over}"


@dataclass(frozen=True)
class Learned:
    """How :class:`~osmotic.dequantize.Variational` is fitted to a run: a small network, by Adam.

    The loss is minus the bound on the log-probability of the training data, of which only the score is asked
    (:func:`osmotic.dequantize.surrogate`), so a step costs one evaluation of the denoiser on a batch. The bound is one
    for any dequantisation; a fit that is cut short, or too sure of the training data, only makes it looser.

    Args:
        steps: of the optimizer, at most.
        seconds: after which no further step begins: then the result depends on the machine.
        width: of the small network's hidden layer.
        rate: of learning; it falls to zero in the steps, linearly.
    """

    steps: int = 1000
    seconds: float = 30.0
    width: int = 64
    rate: float = 0.01

    def fit(
        self,
        model: Model,
        train: Dataset,
        spacing: float,
        noise: float,
        seed: int,
        conditional: bool = False,
        batch_size: int = 128,
        progress: Progress | None = None,
    ) -> Fitted:
        """Learn it; a function of the seed, unless the time is over.

        Args:
            model: whose score is climbed.
            train: the data it was trained on, on the lattice.
            spacing: between neighbouring values.
            noise: at which data are read, as in :func:`osmotic.likelihood.density`.
            seed: of the network, the order and the noises.
            conditional: given each sample's class.
            batch_size: samples of a step.
            progress: called with the samples seen and how many there will be.
        """
        begun = time.monotonic()
        dequantizer = self._new(model, seed)
        optimizer = torch.optim.Adam(dequantizer.parameters(), self.rate)
        taken = 0
        for taken, part in zip(range(self.steps), batches(len(train), batch_size, seed), strict=False):
            if time.monotonic() - begun > self.seconds:
                break
            for group in optimizer.param_groups:
                group["lr"] = self.rate * (1 - taken / self.steps)
            x, cond = train.batch(part)[0].to(model.device), condition(model, train, part, conditional)

            def slope(y: Tensor, cond: object = cond) -> Tensor:
                return score(model.denoiser, y, cond, noise)

            optimizer.zero_grad()
            keyed = generator(seed, STREAM, taken, device=model.device)
            loss = surrogate(slope, dequantizer, x, spacing, keyed).mean()
            torch.autograd.backward(loss)
            optimizer.step()
            if progress is not None:
                progress(len(part), self.steps * len(part))
        else:
            taken = self.steps
        return Fitted(dequantizer.eval(), taken, len(train), time.monotonic() - begun, taken < self.steps)

    def _new(self, model: Model, seed: int) -> Variational:
        """Uniform noise at first; the global random state is left as it was."""
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            network = Exponents(model.spec.shape, self.width)
        return Variational(network).to(model.device)


def batches(count: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of batches without end: each epoch in a random order of its own, batches whole."""
    size = min(size, count)
    for epoch in itertools.count():
        order = permutation(seed, epoch, count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]
