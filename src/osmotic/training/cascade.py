"""A cascade: a model of small pictures, and others that enlarge what it draws, sampled as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.data.controls import LEVEL, Low
from osmotic.data.errors import listed
from osmotic.data.spec import Spec
from osmotic.noise import generator, generators, normal_like
from osmotic.samplers import Sampler
from osmotic.training.conditions import rows as each_row
from osmotic.training.enlarging import shown
from osmotic.training.errors import RunError
from osmotic.training.model import Model, Told
from osmotic.training.model import load as load_run
from osmotic.training.run import is_cascade, stage_folders

AUGMENTATION = 0.1
"""The level of the noise over what a stage enlarges, where nothing is said (benchmarks/results/upscale.md)."""

BLUR = 0xB10  # keeps that noise apart from the samples' own


class Cascade:
    """Stages that are sampled one after the other, each given what the one before drew, under a little noise.

    Ho et al. 2021 (arXiv 2106.15282). It is sampled, decoded and loaded as a :class:`~osmotic.training.model.Model` is.

    Args:
        stages: a model of small pictures, then models trained with ``--upscale``, distilled or not.
        names: of the stages, for messages.

    Attributes:
        spec: the data of the last stage.

    Raises:
        RunError: for stages that do not fit each other.
    """

    def __init__(self, stages: Sequence[Model], names: Sequence[str] | None = None) -> None:
        self.stages = list(stages)
        self.names = list(names or (f"stage {i}" for i in range(len(stages))))
        if not stages:
            raise RunError("A cascade has at least one stage; this one has none.")
        before: Spec | None = None
        for name, stage in zip(self.names, self.stages, strict=True):
            _refuse_unfit(name, before, stage.spec)
            before = stage.spec
        self.spec = self.stages[-1].spec

    @property
    def device(self) -> torch.device:
        """Where the last stage is."""
        return self.stages[-1].device

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what at least one stage can be told by a person."""
        names = [name for stage in self.stages for name in stage.spec.parts if name not in (LEVEL, "image")]
        return tuple(dict.fromkeys(names))

    def sample(
        self,
        n: int,
        cond: Told | None = None,
        guidance: float = 1.0,
        sampler: str | Sampler | None = None,
        steps: int | Sequence[int | None] | None = None,
        seed: int = 0,
        *,
        augmentation: float = AUGMENTATION,
        first: int = 0,
        batch_size: int = 256,
        progress: Callable[[int], object] | None = None,
    ) -> Tensor:
        """n samples of the last stage; sample i of a seed is the same whatever the batch size or the number asked for.

        Args:
            n: how many.
            cond: as in :meth:`osmotic.training.model.Model.sample`, but no finished condition; each stage is told what
                it knows of.
            guidance: the classifier-free scale, of the stages that can be guided by what they are told.
            sampler: of all stages but few-step ones, which have their own.
            steps: likewise; or one number for each stage, None for its own.
            seed: with the sample's number and the stage it keys all noise.
            augmentation: the level of the noise over what is enlarged, from 0 (none) to 1 (nothing else); models are
                trained with levels up to 0.5.
            first: number of the first sample.
            batch_size: samples at a time; it changes memory, not results.
            progress: called with the number of samples that were finished.

        Returns:
            ``(n, *S)`` float32; :meth:`decode` turns them into pictures.
        """
        done = [torch.empty(0, *self.spec.shape)]
        for start in range(0, n, batch_size):
            count = min(batch_size, n - start)
            *_, last = self.resolutions(
                count,
                self._rows(cond, n, slice(start, start + count)),
                guidance,
                sampler,
                steps,
                seed,
                augmentation=augmentation,
                first=first + start,
            )
            done.append(last.cpu())
            if progress is not None:
                progress(count)
        return torch.cat(done)

    def resolutions(
        self,
        n: int,
        cond: Told | None = None,
        guidance: float = 1.0,
        sampler: str | Sampler | None = None,
        steps: int | Sequence[int | None] | None = None,
        seed: int = 0,
        *,
        augmentation: float = AUGMENTATION,
        first: int = 0,
    ) -> Iterator[Tensor]:
        """What each stage draws, the smallest first, each ``(n, C, H, W)``; arguments as in :meth:`sample`.

        Raises:
            ValueError: for what no stage is told, other numbers of steps than stages, or a level that is none.
        """
        if not 0 <= augmentation <= 1:
            raise ValueError(f"The augmentation is a level from 0 (none) to 1; got {augmentation}.")
        said, each = self._named(cond), self._steps(steps)
        low: Tensor | None = None
        for number, (stage, count) in enumerate(zip(self.stages, each, strict=True)):
            own = {name: value for name, value in said.items() if name in stage.spec.parts}
            few = stage.recipe.student is not None
            low = stage.sample(
                n,
                own or None if low is None else self._told(number, own, low, augmentation, seed, first),
                guidance if number == 0 or _guided(stage, own) else 1.0,
                None if few else sampler,
                None if few and not isinstance(steps, Sequence) else count,
                stage_seed(seed, number),
                first=first,
                batch_size=n,
            )
            yield low

    def decode(self, x: Tensor) -> np.ndarray[Any, Any]:
        """Samples ``(n, C, H, W)`` as pictures (n, H, W, C) uint8."""
        return self.stages[-1].decode(x)

    def _told(
        self, number: int, own: Mapping[str, Any], low: Tensor, augmentation: float, seed: int, first: int
    ) -> Condition:
        """What a stage is told of what the one before drew."""
        stage, control = self.stages[number], self.stages[number].spec.control
        assert isinstance(control, Low)
        low = low.to(stage.device)
        known = stage.condition({**own, "image": low}, len(low), 0, len(low))
        assert known is not None
        keyed = generators(stage_seed(seed, number, BLUR), range(first, first + len(low)), stage.device)
        return shown(known, low, control.factor, augmentation, normal_like(low, keyed))

    def _named(self, cond: Told | None) -> dict[str, Any]:
        """What is said, by name."""
        if isinstance(cond, Condition):
            raise ValueError("Each stage of a cascade has a condition of its own; say what is wanted by name.")
        if cond is None:
            return {}
        usual = "text" if "text" in self.parts and "class" not in self.parts else "class"
        said = dict(cond) if isinstance(cond, Mapping) else {usual: cond}
        for name in said:
            if name not in self.parts:
                known = f"they are told {listed(self.parts, 20)}" if self.parts else "leave it out"
                raise ValueError(f"No stage of this cascade is told {name!r}; {known}.")
        return said

    def _rows(self, cond: Told | None, n: int, rows: slice) -> Told | None:
        """What is said of some of n samples."""
        if cond is None:
            return None
        return {name: each_row(name, value, n)[rows] for name, value in self._named(cond).items()}

    def _steps(self, steps: int | Sequence[int | None] | None) -> list[int | None]:
        if not isinstance(steps, Sequence):
            return [steps] * len(self.stages)
        if len(steps) != len(self.stages):
            raise ValueError(f"Steps were given for {len(steps)} of {len(self.stages)} stages; give a number for each.")
        return list(steps)


def stage_seed(seed: int, number: int, stream: int = 0) -> int:
    """The seed of a stage's noise: the first stage's is the cascade's own, and no two share any noise."""
    return seed if number == 0 else generator(seed, stream, number).initial_seed()


def _guided(stage: Model, said: Mapping[str, Any]) -> bool:
    """Whether a stage can be led to what it is told."""
    student, dropout = stage.recipe.student, stage.recipe.process.condition_dropout
    if student is not None and student.scales is None and not stage.denoiser.diagonal:
        return False
    return bool(said) and (dropout > 0 or student is not None)


def _refuse_unfit(name: str, before: Spec | None, spec: Spec) -> None:
    """Refuse a stage that does not enlarge what the one before draws."""
    if spec.kind != "images":
        raise RunError(f"A cascade is of pictures, and {name} draws {spec.kind}; name other stages.")
    control = spec.control
    if before is None:
        if control is not None:
            raise RunError(f"The first stage of a cascade draws from noise alone, and {name} needs a picture.")
        return
    if not isinstance(control, Low):
        raise RunError(f"{name} does not enlarge pictures; a later stage is trained with --upscale.")
    channels, *sides = before.shape
    wanted = (channels, *(side * control.factor for side in sides))
    if wanted != spec.shape:
        raise RunError(
            f"{name} makes pictures of shape {spec.shape} out of others {control.factor} times smaller, and the stage "
            f"before it draws {before.shape}; the stages do not fit."
        )


def load(
    directory: str | Path, weights: str | None = None, device: torch.device | str | None = None
) -> Model | Cascade:
    """The model of a run, as :func:`osmotic.training.model.load`, or the cascade in a folder of one.

    Raises:
        RunError: as there, and for stages that do not fit each other.
    """
    if not is_cascade(directory):
        return load_run(directory, weights, device)
    folders = stage_folders(directory)
    return Cascade([load_run(folder, weights, device) for folder in folders], [str(folder) for folder in folders])
