"""Features of a small classifier that is trained on the data themselves, in bounded work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .base import ROOM, Array, Features, Vectors, check_images
from .planes import planes
from .raw import Raw

WIDTH = 96
BATCH = 64
RATE = 3e-3
DECAY = 0.05
SIDE = 32  # pixels to which larger images are averaged
STEPS = (250, 1000)
WORK = STEPS[0] * SIDE * SIDE  # steps times pixels
FEWEST = 20  # samples
TURNS = 4
HELD_OUT = 0.1

Prepare = Callable[[Array], Tensor]


class Learned(Features):
    """The layer before the last of a network trained on the data, 96 numbers; `Learned.trained` makes them.

    Features that separate the classes of the data see what people would look for in samples of them. They are made from
    the training data, so distances compare only within one set of data and one seed.

    Args:
        trunk: ``(B, ...)`` as `prepare` makes it to ``(B, 96)``.
        prepare: samples to a tensor.
        shape: of one sample.
        name: of the features.
        accuracy: share of a held-out tenth of the training data for which it answered rightly, in [0, 1].
    """

    dimensions = WIDTH

    def __init__(self, trunk: nn.Module, prepare: Prepare, shape: tuple[int, ...], name: str, accuracy: float) -> None:
        self.trunk = trunk
        self.prepare = prepare
        self.shape = shape
        self.name = name
        self.accuracy = accuracy

    @staticmethod
    def trained(
        training: Array, labels: ArrayLike | None = None, seed: int = 0, progress: str | None = None
    ) -> Learned:
        """Features of a classifier of the labels; without labels, of one that tells how an image was turned.

        Turns as a task: Gidaris et al. 2018 (arXiv 1803.07728). The same seed, data, machine and number of threads give
        the same features.

        Args:
            training: images ``(N, H, W, 1 or 3)`` uint8, or with labels any numbers ``(N, ...)``.
            labels: ``(N,)`` integers.
            seed: of the weights and the order of the samples.
            progress: title of a bar; None for no bar.

        Returns:
            A `Classifier` where there are labels.

        Raises:
            ValueError: too few samples, a single class, or data that are neither images nor labelled.
        """
        images = training.dtype == np.uint8 and training.ndim == 4
        if len(training) < FEWEST:
            raise ValueError(f"{len(training)} samples are too few to train features on: give {FEWEST} at least.")
        if labels is None and not images:
            raise ValueError(
                "Features are learned without labels from images only: give labels, or use other features."
            )
        prepare, trunk = _image_parts(training) if images else _value_parts(training)
        task = _Turns(prepare, training.shape[1:3]) if labels is None else _Classes(prepare, labels, len(training))
        order = np.random.default_rng(seed).permutation(len(training))
        cut = int(HELD_OUT * len(training))
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            network = nn.Sequential(trunk(), nn.Linear(WIDTH, task.count))
        _fit(network, task, training, np.sort(order[cut:]), seed, progress)
        accuracy = _accuracy(network, task, training, np.sort(order[:cut]))
        name = f"{WIDTH} features of a classifier trained on these data ({task.name}, seed {seed})"
        learned = Learned(network[0], prepare, training.shape[1:], name, accuracy)
        return Classifier(learned, network[1], task.classes) if isinstance(task, _Classes) else learned

    def _check(self, x: Array) -> None:
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"Samples of shape {x.shape[1:]} do not fit training data of shape {self.shape}: give samples alike."
            )

    def _batch(self, shape: tuple[int, ...]) -> int:
        return 256

    def _block(self, x: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(self.trunk(self.prepare(x)).numpy())


class Classifier(Learned):
    """Learned features with the probabilities of the classes that they were learned from.

    Args:
        learned: the features.
        head: the last layer, ``(B, 96)`` to ``(B, K)`` logits.
        classes: ``(K,)`` labels in the order of the logits.
    """

    def __init__(self, learned: Learned, head: nn.Module, classes: NDArray[np.int64]) -> None:
        super().__init__(learned.trunk, learned.prepare, learned.shape, learned.name, learned.accuracy)
        self.head = head
        self.classes = classes

    def probabilities(self, x: Array) -> Vectors:
        """Probabilities of `classes`, ``(N, K)``."""
        with torch.inference_mode():
            logits: Tensor = self.head(torch.from_numpy(self(x)).float())
        return np.asarray(logits.double().softmax(1).numpy())

    def predict(self, x: Array) -> NDArray[np.int64]:
        """The most probable class of each sample, ``(N,)``."""
        return np.asarray(self.classes[self.probabilities(x).argmax(1)])


class _Classes:
    """The labels that the data have."""

    copies = 1

    def __init__(self, prepare: Prepare, labels: ArrayLike, count: int) -> None:
        given = np.asarray(labels)
        if given.shape != (count,) or given.dtype.kind not in "iu":
            raise ValueError(f"Labels must be ({count},) integers, one a sample, not {given.shape} {given.dtype}.")
        self.classes, numbers = np.unique(given.astype(np.int64), return_inverse=True)
        self.count = len(self.classes)
        if self.count < 2:
            raise ValueError("All labels are the same, so there is nothing to learn: leave them out.")
        self.name = f"{self.count} classes"
        self.prepare = prepare
        self.numbers = torch.from_numpy(numbers.reshape(-1))

    def __call__(self, x: Array, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return self.prepare(x[rows]), self.numbers[torch.from_numpy(rows)]


class _Turns:
    """Which of four ways an image was turned: by quarters if it is square, else by mirrors."""

    copies = count = TURNS
    name = f"{TURNS} turns of them"

    def __init__(self, prepare: Prepare, sides: Sequence[int]) -> None:
        self.prepare = prepare
        self.square = sides[0] == sides[1]

    def __call__(self, x: Array, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        pixels = self.prepare(x[rows])
        if self.square:
            turned = [torch.rot90(pixels, k, (2, 3)) for k in range(TURNS)]
        else:
            turned = [pixels, pixels.flip(2), pixels.flip(3), pixels.flip(2, 3)]
        return torch.cat(turned), torch.arange(TURNS).repeat_interleave(len(pixels))


def _image_parts(training: Array) -> tuple[Prepare, Callable[[], nn.Module]]:
    check_images(training)
    factor = -(-max(training.shape[1:3]) // SIDE)

    def prepare(x: Array) -> Tensor:
        check_images(x)
        size = max(1, ROOM // 4 // x[0].size) if len(x) else 1
        starts = range(0, max(1, len(x)), size)  # whole batches of large images would not fit in memory
        return torch.cat([F.avg_pool2d(2 * planes(x[i : i + size]) - 1, factor, ceil_mode=True) for i in starts])

    def trunk() -> nn.Module:
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, WIDTH)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.ReLU()]
            layers += [nn.AvgPool2d(2, ceil_mode=True)]
        return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())

    return prepare, trunk


def _value_parts(training: Array) -> tuple[Prepare, Callable[[], nn.Module]]:
    raw = Raw.fitted(training)

    def prepare(x: Array) -> Tensor:
        return torch.from_numpy(raw(x)).float()

    def trunk() -> nn.Module:
        return nn.Sequential(nn.Linear(raw.dimensions, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())

    return prepare, trunk


def _steps(x: Tensor) -> int:
    """Steps that bound the work: fewer where a sample has more pixels."""
    return min(STEPS[1], max(STEPS[0], WORK // (x[0, 0].numel() if x.ndim == 4 else 1)))


def _fit(
    network: nn.Module,
    task: _Classes | _Turns,
    x: Array,
    rows: NDArray[np.int64],
    seed: int,
    progress: str | None,
) -> None:
    rng = np.random.default_rng([seed, 1])
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    steps = _steps(task(x, rows[:1])[0])
    for step in tqdm(range(steps), desc=progress, unit="step", delay=2, leave=False, disable=progress is None):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
        inputs, wanted = task(x, rng.choice(rows, BATCH // task.copies))
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), wanted).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval().requires_grad_(False)


def _accuracy(network: nn.Module, task: _Classes | _Turns, x: Array, rows: NDArray[np.int64]) -> float:
    right = total = 0
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            inputs, wanted = task(x, rows[start : start + BATCH])
            right += int((network(inputs).argmax(1) == wanted).sum())
            total += len(wanted)
    return right / total
