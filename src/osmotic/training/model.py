"""A trained model: what a run directory gives when it is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from osmotic.codecs import Codec, Decoded, Tiled
from osmotic.condition import Condition
from osmotic.data.spec import Spec
from osmotic.denoiser import Denoiser, Rescheduled
from osmotic.guidance import ClassifierFree, Scaled
from osmotic.noise import generators
from osmotic.samplers import Sampler, prior, trajectory
from osmotic.schedules import Schedule
from osmotic.times import Grid
from osmotic.training import build, coding, lsgm
from osmotic.training.chosen import Plan, choose, suggested_grid
from osmotic.training.conditions import Told, asked, class_number, refuse_unlearned
from osmotic.training.loading import filled, load_classifier, refuse_other, stored
from osmotic.training.recipe import Recipe
from osmotic.training.run import Run
from osmotic.training.sampling import Tuning

__all__ = ["Model", "Told", "class_number", "load", "load_classifier", "stored", "suggested_grid"]

Guide = Callable[[Denoiser], Denoiser]


class Model:
    """A denoiser with the description of the data it was trained on.

    Attributes:
        denoiser: the trained denoiser, in evaluation mode.
        spec: the data; ``spec.decode`` gives samples in the user's own format.
        recipe: how it was trained.
        step: optimizer steps it was trained for.
        weights: the name of its weights.
        tuning: the solvers and grids that ``osmotic tune`` stored with its run; None for a model of no run.
        codec: of the data, where the denoiser is one of latents; None where it is one of the data.
        seen: the data's description as the denoiser knows them: of latents, where there is a codec.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        spec: Spec,
        recipe: Recipe,
        step: int,
        weights: str = "model",
        tuning: Tuning | None = None,
        codec: Codec | None = None,
    ) -> None:
        self.denoiser, self.spec, self.recipe, self.step = denoiser.eval(), spec, recipe, step
        self.weights, self.tuning, self.codec = weights, tuning, codec
        self.seen = spec if codec is None else coding.seen(spec, recipe.codec)

    def at(self, size: Sequence[int]) -> Model:
        """This model of samples of another size: they are drawn, decoded, told and edited as usual.

        Args:
            size: numbers of positions, for pictures (height, width); best one of ``spec.sizes``, which it was trained
                on.

        Raises:
            ValueError: for a size that the network does not take.
        """
        size, axes = tuple(int(n) for n in size), self.spec.shape[1:]
        if size != axes and self.recipe.architecture.network == "mlp":
            raise ValueError("This model is an mlp, which has one size; train a unet or dit to draw others.")
        if len(size) != len(axes) or min(size, default=0) < 1:
            raise ValueError(f"This model's samples have {len(axes)} position axes, none of them empty; got {size}.")
        shape, recipe, codec = (self.spec.shape[0], *size), self.recipe, self.codec
        if codec is not None and recipe.codec is not None:
            codec, coded = coding.resized(codec, recipe.codec, shape, self.device)
            recipe = recipe.model_copy(update={"codec": coded})
        spec = self.spec.model_copy(update={"shape": shape})
        return Model(self.denoiser, spec, recipe, self.step, self.weights, self.tuning, codec)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    def sample(
        self,
        n: int,
        cond: Told | None = None,
        guidance: float = 1.0,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        seed: int = 0,
        *,
        grid: str | Grid | None = None,
        nfe: int | None = None,
        schedule: Schedule | None = None,
        negative: Told | None = None,
        guide: Guide | None = None,
        first: int = 0,
        batch_size: int = 256,
        progress: Callable[[int], object] | None = None,
    ) -> Tensor:
        """n samples; sample i of a seed is the same whatever the batch size or the number asked for.

        Args:
            n: how many.
            cond: one class (name or number) for all or one per sample (a text where the data have no classes but
                captions); or a mapping that says several things, ``{"text": "a red circle", "size": 3.5}``, by the
                names ``spec.parts``, of which any may be left out; or a :class:`~osmotic.condition.Condition`; None is
                unconditional.
            guidance: classifier-free scale; 1 is plain conditional, 0 unconditional, above 1 sharpens.
            sampler: a name of ``osmotic.samplers.CATALOG`` or a sampler; by default see :meth:`plan`.
            steps: of the sampler, at least 1; likewise.
            seed: with the sample's number it keys all noise.
            grid: a grid, a name of ``osmotic.times.GRIDS``, or one made for this model's data (``"suggested"``,
                ``"cosine-data"``, ... see :func:`osmotic.training.chosen.grids`); likewise.
            nfe: sample as the run was tuned for this budget of evaluations.
            schedule: sample on this path instead of the one it was trained on.
            negative: what guidance leads away from, as ``cond``; "nothing" by default.
            guide: puts pieces of :mod:`osmotic.guidance` around the denoiser (with ``guidance`` other than 1 around its
                classifier-free guidance): ``lambda inner: Interval(inner, 0.2, 1.6)``.
            first: number of the first sample.
            batch_size: samples at a time; it changes memory, not results.
            progress: called with the number of samples that were finished.

        Returns:
            ``(n, *S)`` float32 in the network's own scale; :meth:`decode` turns them into the user's format.

        Raises:
            ValueError: for an unknown name, class, or a count that does not fit.
        """
        plan = self._warned(self.plan(sampler, steps, grid, nfe, schedule))
        done = []
        for start in range(0, n, batch_size):
            count = min(batch_size, n - start)
            *_, last = self.points(
                count,
                self.condition(cond, n, start, count),
                guidance,
                plan.sampler,
                plan.steps,
                seed,
                grid=plan.grid,
                schedule=schedule,
                negative=self.condition(negative, n, start, count),
                guide=guide,
                first=first + start,
            )
            done.append(self.out(last))
            if progress is not None:
                progress(count)
        return torch.cat(done) if done else torch.empty(0, *self.spec.shape)

    def trajectory(
        self,
        n: int,
        cond: Told | None = None,
        guidance: float = 1.0,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        seed: int = 0,
        *,
        grid: str | Grid | None = None,
        nfe: int | None = None,
        schedule: Schedule | None = None,
        negative: Told | None = None,
        guide: Guide | None = None,
        first: int = 0,
    ) -> Iterator[Tensor]:
        """The ``steps + 1`` points from noise to samples, each ``(n, *S)``; arguments as in :meth:`sample`.

        Latents are decoded at every point, which costs what it costs: ask for :meth:`points` where nobody looks.
        """
        for x in self.points(
            n,
            cond,
            guidance,
            sampler,
            steps,
            seed,
            grid=grid,
            nfe=nfe,
            schedule=schedule,
            negative=negative,
            guide=guide,
            first=first,
        ):
            yield self.out(x)

    def points(
        self,
        n: int,
        cond: Told | None = None,
        guidance: float = 1.0,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        seed: int = 0,
        *,
        grid: str | Grid | None = None,
        nfe: int | None = None,
        schedule: Schedule | None = None,
        negative: Told | None = None,
        guide: Guide | None = None,
        first: int = 0,
    ) -> Iterator[Tensor]:
        """:meth:`trajectory` as the denoiser sees it: of a latent model ``(n, *Z)``."""
        shown = self.condition(cond, n, 0, n)
        denoiser = self.guided(shown, guidance, schedule, self.condition(negative, n, 0, n))
        denoiser = denoiser if guide is None else guide(denoiser)
        plan = self._warned(self.plan(sampler, steps, grid, nfe, schedule))
        times = plan.grid(denoiser.schedule, plan.steps, denoiser.start)
        keyed = generators(seed, range(first, first + n), self.device)
        with torch.no_grad():
            x = prior(denoiser, (n, *self.seen.shape), keyed, self.device)
            yield from trajectory(plan.sampler, denoiser, x, times, shown, keyed)

    def plan(
        self,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        grid: str | Grid | None = None,
        nfe: int | None = None,
        schedule: Schedule | None = None,
    ) -> Plan:
        """How samples are drawn when this much is said.

        With nothing said, or nothing that differs from it, the choice that ``osmotic tune`` stored last is taken as a
        whole. Otherwise what is not said is the ordinary default: ``SAMPLER`` and ``STEPS`` (or the grid's own number)
        of :mod:`osmotic.training.sampling`, even in log-SNR over the levels that matter for data of this size
        (:func:`suggested_grid`).

        Args:
            sampler: a name or a sampler.
            steps: how many.
            grid: a name or a grid.
            nfe: take the choice stored for this budget; nothing else may be said then.
            schedule: the path, if it is not the model's own; a stored grid that begins before its start is left aside.

        Raises:
            ValueError: for an unknown name, a budget that was not tuned for, or one named beside a solver.
        """
        return choose(self.seen, self.recipe, self.tuning, sampler, steps, grid, nfe, schedule)

    def _warned(self, plan: Plan) -> Plan:
        """The plan, after a warning if it was tuned on other weights."""
        stale = None if plan.tuned is None else plan.tuned.stale(self.step, self.weights)
        if stale is not None:
            warnings.warn(f"The stored choice of solver may not be the best. {stale}", stacklevel=3)
        return plan

    def guided(
        self,
        shown: Condition | None,
        guidance: float = 1.0,
        schedule: Schedule | None = None,
        negative: Condition | None = None,
    ) -> Denoiser:
        """The denoiser under guidance, on its own path or another.

        Args:
            shown: what it will be told.
            guidance: the scale.
            schedule: the path.
            negative: what to lead away from; None for "nothing".

        Raises:
            ValueError: for guidance that the model never learned.
        """
        refuse_unlearned(self.spec, self.recipe, self.denoiser.diagonal, shown, guidance)
        if negative is not None and guidance == 1:
            raise ValueError("A negative condition acts through guidance; give a guidance scale above 1.")
        denoiser = self.denoiser if schedule is None else Rescheduled(self.denoiser, schedule)
        if self.recipe.student is not None and self.recipe.student.scales is not None:
            if negative is not None:
                raise ValueError("This student learned to lead away from nothing alone; leave out the negative.")
            return Scaled(denoiser, guidance)
        return denoiser if guidance == 1 else ClassifierFree(denoiser, guidance, negative)

    def out(self, z: Tensor) -> Tensor:
        """What the denoiser draws ``(B, *Z)`` as samples ``(B, *S)`` in the network's scale: latents are decoded."""
        if self.codec is None:
            return z
        with torch.no_grad():
            return self.codec.decode(z)

    def into(self, x: Tensor) -> Tensor:
        """The way back of :meth:`out`: samples ``(B, *S)`` as the denoiser sees them, ``(B, *Z)``."""
        if self.codec is None:
            return x
        with torch.no_grad():
            return self.codec.encode(x.to(self.device))

    def of_data(self) -> Model:
        """The same model as one of the data, for what is known in their space: gaps, measurements, likelihoods.

        Raises:
            ValueError: where white noise in latents is none in the data, so that there is no such denoiser.
        """
        if self.codec is None:
            return self
        if not self.codec.orthonormal:
            raise ValueError(
                "This model draws latents of a codec that is no rotation, so it has no exact denoiser of the data, "
                "which this needs; train one on the data themselves, or on --codec haar, dct or pca."
            )
        decoded = Decoded(self.denoiser, self.codec.codec if isinstance(self.codec, Tiled) else self.codec)
        return Model(decoded, self.spec, self.recipe, self.step, self.weights)

    def decode(self, x: Tensor) -> np.ndarray[Any, Any]:
        """Samples ``(n, *S)`` in the user's format: pictures (n, H, W, C) uint8, arrays in their own units."""
        return self.spec.decode(x.float().cpu().numpy())

    def condition(self, cond: Told | None, n: int, start: int, count: int) -> Condition | None:
        """The condition of samples ``start`` to ``start + count`` of n, from what a user may pass."""
        return None if cond is None else asked(self.spec, cond, n)[start : start + count].to(self.device)


def load(directory: str | Path, weights: str | None = None, device: torch.device | str | None = None) -> Model:
    """The model of a run directory, from its newest whole checkpoint.

    Args:
        directory: that ``osmotic train`` made.
        weights: ``"model"`` for the raw weights, ``"ema-500"`` for the average of that half-life; the first average by
            default.
        device: where to put it; a CUDA device if there is one by default.

    Raises:
        RunError: if it is no run, holds no whole checkpoint, or its weights do not fit.
    """
    run = Run.open(directory)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    recipe, spec = stored(run)
    refuse_other(directory, recipe)
    codec = coding.kept(run, recipe)
    if weights is not None and recipe.process.objective == lsgm.LSGM:  # of both, not of the prior alone
        codec = lsgm.plain(lsgm.loaded(run, weights, place)[0])
    made = lsgm.prior if recipe.process.objective == lsgm.LSGM else build.denoiser
    denoiser = made(recipe, coding.seen(spec, recipe.codec), place)
    step, name = filled(denoiser, run, recipe, weights)
    return Model(denoiser, spec, recipe, step, name, Tuning(run), None if codec is None else codec.to(place))
