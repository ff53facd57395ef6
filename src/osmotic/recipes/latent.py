"""Data as the latents that a run is trained on, and what such a run cannot have."""

from __future__ import annotations

from pathlib import Path

from osmotic.data.dataset import Dataset, split
from osmotic.data.spec import Spec
from osmotic.training import build, coding, lsgm
from osmotic.training.autoencoding import AUTOENCODER
from osmotic.training.coding import Said, opened
from osmotic.training.distributed import World
from osmotic.training.errors import RunError
from osmotic.training.latents import Latents
from osmotic.training.model import stored
from osmotic.training.recipe import Coded, Recipe
from osmotic.training.run import Run


def latent(
    dataset: Dataset, out: str | Path, asked: Recipe, said: Said | None, resume: bool, world: World
) -> Latents | None:
    """The data as latents, of the codec that is said or, of a run that is resumed, of its own.

    Raises:
        RunError: for a codec that does not fit the data, or another than a run was begun with.
    """
    if not resume:
        if said is None:
            return None
        refuse_coded(dataset.spec, asked)
        training, _ = split(dataset, asked.holdout, asked.options.seed)
        codec, coded = world.from_main(lambda: opened(said, training))
        return Latents(dataset, codec, coded, world.device)
    run = Run.open(out)
    before = stored(run)[0]
    if before.process.objective == lsgm.LSGM:
        return None
    own = coding.kept(run, before)
    if said is not None and not _same(said, before.codec, dataset):
        was = "no codec" if before.codec is None else f"--codec {before.codec.source}"
        raise RunError(f"{out} was trained with {was}, which cannot become {said} on the way; start a new run.")
    return None if own is None or before.codec is None else Latents(dataset, own, before.codec, world.device)


def _same(said: Said, coded: Coded | None, dataset: Dataset) -> bool:
    """Whether a codec is the one that a run was begun with; what was fitted to data is known by its name."""
    if coded is None:
        return False
    return said == coded.source if said in coding.LINEAR else opened(said, dataset)[1].fingerprint == coded.fingerprint


def refuse_coded(spec: Spec, recipe: Recipe) -> None:
    """Refuse what latents cannot have.

    Raises:
        RunError: saying what, and what to do.
    """
    if recipe.process.objective in (build.CLASSIFIER, build.CONTRASTIVE, AUTOENCODER, lsgm.LSGM):
        raise RunError(f"--objective {recipe.process.objective} reads the data themselves; leave out --codec.")
    if recipe.flip or recipe.upend or recipe.turn or recipe.shift:
        raise RunError(
            "Latents are encoded once, so nothing can be mirrored, turned or shifted any more; leave that out, or do "
            "it to the files."
        )
    if spec.sizes:
        raise RunError("Latents are kept of one size; leave out --sizes and give --size, or train without --codec.")
    if spec.control is not None:
        raise RunError(
            "A control image has the data's size, which latents have not; leave out --control (--upscale), or train "
            "without --codec."
        )
