"""What cannot change when a run is resumed, whoever trains it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from osmotic.codecs import Codec
from osmotic.data.dataset import Dataset
from osmotic.data.errors import differ
from osmotic.data.fingerprint import fingerprint
from osmotic.data.spec import SAME, Spec
from osmotic.training import coding
from osmotic.training.errors import RunError
from osmotic.training.options import Options
from osmotic.training.recipe import Recipe
from osmotic.training.run import Run, write_json
from osmotic.training.store import FIXED


def begun(
    out: str | Path,
    recipe: Recipe,
    spec: Spec,
    resume: bool,
    codec: Codec | None = None,
    dataset: Dataset | None = None,
) -> Run:
    """The run, made or brought up to date: its recipe says what is now being trained.

    Args:
        codec: that the recipe speaks of, which is kept in the run.
        dataset: the data, of which a new run keeps a fingerprint.
    """
    contents = recipe.model_dump(mode="json")
    if resume:
        run = Run.open(out)
    else:
        held = None if dataset is None else fingerprint(dataset)
        run = Run.create(out, contents, spec.model_dump(mode="json"), held)
    if codec is not None:
        coding.keep(run, codec)
    if run.recipe() != contents:
        with run.locked():
            write_json(run.recipe_path, contents)
    return run


def refuse_other_data(out: str | Path, before: Spec, dataset: Dataset) -> None:
    """Refuse other data than a run was trained on, by their description and by what some samples hold.

    Raises:
        RunError: naming what differs.
    """
    if before.embedding is not None and dataset.spec.embedding is None:
        raise RunError(
            f"{out} is told embeddings, which only its recipe makes; go on with "
            f"`python -m osmotic.recipes.unclip train DATA {Path(out).parent}`."
        )
    for name in SAME:
        if getattr(before, name) != getattr(dataset.spec, name):
            raise RunError(
                f"{out} was trained on other data, its {differ(name)}; resume it with {before.source}, read as before."
            )
    run = Run.open(out)
    if run.contents() not in (None, fingerprint(dataset)):
        raise RunError(
            f"{out} was trained on other data of the same description; resume it with the samples that it began with, "
            f"or, if these are the same ones stored anew, delete {run.contents_path.name} there."
        )


def refuse_change(out: str | Path, name: str, was: Any, now: Any) -> None:
    """Refuse a value that differs from the one that the weights were made with.

    Raises:
        RunError: naming it.
    """
    if was != now:
        flag = name.replace("_", "-")
        raise RunError(f"{out} was trained with --{flag} {was}, which cannot become {now} on the way; start a new run.")


def refuse_options(out: str | Path, before: Options, given: Mapping[str, Any]) -> None:
    """Refuse other values of fixed options, and an end before the step that the run has reached.

    Raises:
        RunError: saying which.
    """
    for name in FIXED:
        if given.get(name) is not None:
            refuse_change(out, name, getattr(before, name), given[name])
    complete = Run.open(out).complete()
    if complete and given.get("steps", before.steps) < complete[0][1].step:
        raise RunError(f"{out} is at step {complete[0][1].step} already; resume with --steps above that to go further.")
