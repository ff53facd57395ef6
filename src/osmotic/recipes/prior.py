"""What a model knew, kept in its training data: samples of the base beside those of the subject (DreamBooth)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from osmotic.data.dataset import Dataset
from osmotic.data.spec import Spec
from osmotic.data.words import likened
from osmotic.distill import making, pairs
from osmotic.distill.pairs import Pairs
from osmotic.training.distributed import World
from osmotic.training.feed import Samples
from osmotic.training.model import Model
from osmotic.training.recipe import Adapted

COUNT = 200
"""Where a new word is learned with other weights and nothing is said. On modes in the plane, after 600 steps, what the
base knew was 10 times (LoRA) and 30 times (whole) nearer to its truth than without, summed over the classes in energy
distance, and the subject was as near to its own."""

FOLDER = "prior"
"""In the run: shards of safetensors, made once."""


class Mixed:
    """Two sets as one, half and half: sample 2 i is of the first, 2 i + 1 of the second.

    The mean loss over it is the mean of both sets' mean losses, so each has the same weight however many samples it has
    (lambda = 1 in Ruiz et al. 2022, arXiv 2208.12242, equation 2). All samples of a set come equally often, to one.

    Args:
        first, second: of the same shape, told the same ports.
    """

    def __init__(self, first: Samples, second: Samples) -> None:
        self.sets, self.each = (first, second), max(len(first), len(second))

    def __len__(self) -> int:
        return 2 * self.each

    def _own(self, indices: np.ndarray) -> list[tuple[Samples, np.ndarray]]:
        """Each set that any of the indices falls into, with the numbers of its samples."""
        parts = [(samples, indices[indices % 2 == which] // 2) for which, samples in enumerate(self.sets)]
        return [(samples, own * len(samples) // self.each) for samples, own in parts if len(own)]

    def batch(self, indices: np.ndarray) -> tuple[Tensor, None]:
        """Samples ``(B, *S)``."""
        return _in_order(indices, [samples.batch(own)[0] for samples, own in self._own(indices)]), None

    def told(self, indices: np.ndarray) -> dict[str, Tensor]:
        """What is known of them, by port."""
        each = [samples.told(own) for samples, own in self._own(indices)]
        return {port: _in_order(indices, [known[port] for known in each]) for port in each[0]}

    def name(self, index: int) -> str:
        """How a sample is called in messages."""
        ((samples, own),) = self._own(np.array([index]))
        return samples.name(int(own[0]))


def _in_order(indices: np.ndarray, parts: list[Tensor]) -> Tensor:
    """Rows of the first set and then of the second, brought into the order of the indices."""
    back = np.argsort(np.argsort(indices % 2, kind="stable"))
    return torch.cat(parts)[torch.from_numpy(back)]


class Drawn:
    """The samples of pairs, without their noise."""

    def __init__(self, found: Pairs) -> None:
        self.pairs = found

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, None]:
        """Some samples ``(B, *S)``."""
        return self.pairs.batch(indices)[0][:, 0], None

    def told(self, indices: np.ndarray) -> dict[str, Tensor]:
        """What they were drawn under."""
        return self.pairs.told(indices)

    def name(self, index: int) -> str:
        """How a sample is called in messages."""
        return f"prior sample {index}"


def drawn(model: Model, training: Dataset, how: Adapted, seed: int, folder: Path, world: World) -> Drawn:
    """The samples of the base that keep what it knew; those that are missing are made now.

    Args:
        model: the base.
        training: the subject, as the adapted model is told it.
        how: the adaption; ``how.prior`` says how many.
        seed: of their noise.
        folder: where they are kept.
        world: the processes.

    Raises:
        RunError: if the folder holds those of another base, seed or subject.
        SaveFailed: if the disk is full.
    """
    assert how.prior is not None
    count, shape, known = how.prior, model.seen.shape, told_base(training, model.spec, how, how.prior)
    name = pairs.fingerprint(model.denoiser)
    world.from_main(lambda: pairs.claim(folder, name, shape, count, seed, known))
    with tqdm(total=count, desc="drawing what the base knows", delay=2, leave=False, disable=not world.main) as bar:

        def told(made: int, in_all: int) -> None:
            bar.update(made - bar.n)

        start, part = making.started(model.recipe, model.seen), (world.rank, world.size)
        base = model.denoiser.to(world.device)
        pairs.fill(folder, base, shape, start, count, seed, known, part=part, progress=told)
    world.sum(torch.zeros(1, device=world.device))  # nobody reads before everybody has written
    return Drawn(pairs.read(folder))


def told_base(training: Dataset, spec: Spec, how: Adapted, count: int) -> dict[str, Tensor]:
    """What the base is told of ``count`` samples: what it knew that the subject could overwrite.

    Of a model of texts that is what is said of the subject, in turn, without the new word, as in the paper. Of a model
    of classes it is every class in turn: samples of the subject's own class alone keep that one, and let the others
    drift further than without any. Of a model that is told nothing it is nothing.

    Args:
        training: the subject, as the adapted model is told it.
        spec: of the base's data.
        how: the adaption.
        count: how many.
    """
    rows = np.arange(count)
    known = training.told(rows % len(training))
    if spec.captions is not None:
        if how.word is None or how.like is None or training.texts is None:
            return known
        texts = [likened(training.texts[row], how.word, how.like) for row in (rows % len(training)).tolist()]
        tokens, mask = spec.captions.encode(texts)
        return known | {"tokens": torch.from_numpy(tokens), "mask": torch.from_numpy(mask)}
    if spec.classes is None:
        return known
    vector = known["vector"].clone()
    (vector if vector.ndim == 1 else vector[:, 0])[:] = torch.from_numpy(rows % len(spec.classes))
    if "keep" in known:
        shown = known["keep"].clone()
        shown[:, 0] = True
        known |= {"keep": shown}
    return known | {"vector": vector}
