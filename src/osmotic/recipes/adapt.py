"""Fine-tuning a trained model on other data: by LoRA, by a control image, by a new word, or all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from osmotic.data.controls import MADE, Beside
from osmotic.data.dataset import Dataset, Subset, open_data, split
from osmotic.data.errors import plural
from osmotic.data.source import Options as Reading
from osmotic.data.spec import Spec
from osmotic.data.words import taught
from osmotic.denoiser import NeuralDenoiser
from osmotic.recipes import plan, prior
from osmotic.recipes.preview import preview
from osmotic.recipes.resuming import begun, refuse_change, refuse_options, refuse_other_data
from osmotic.recipes.subject import WORDS, keep_word, named, under
from osmotic.recipes.train import augmentations
from osmotic.training import build, coding
from osmotic.training.distributed import World, joined
from osmotic.training.errors import RunError
from osmotic.training.feed import Samples
from osmotic.training.latents import FOLDER as LATENTS
from osmotic.training.latents import as_latents, of_model
from osmotic.training.loop import fit
from osmotic.training.lsgm import LSGM
from osmotic.training.model import Model, load, stored
from osmotic.training.options import Options
from osmotic.training.recipe import Adapted, Adaption, Recipe, explicit
from osmotic.training.run import Run

STEPS: dict[Adaption, int] = {"lora": 1000, "control": 2000, "whole": 1000, "word": 1000}
"""Where nothing is said, but never more than the base had."""
RATES: dict[Adaption, float] = {"lora": 1.0, "control": 1.0, "whole": 0.2, "word": 20.0}
"""Learning rates, as multiples of the base's: a weight that is good already should not be thrown about, and a row that
learns alone may run."""


def adapt(
    base: str | Path,
    data: Any,
    out: str | Path,
    by: Adaption | None = None,
    *,
    rank: int | None = None,
    word: str | None = None,
    like: str | None = None,
    caption: str | None = None,
    prior_samples: int | None = None,
    options: Options | None = None,
    reading: dict[str, Any] | None = None,
    weights: str | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
    device: torch.device | str | None = None,
) -> Run:
    """Train what is put beside (or into) a trained model, and return the run of the whole: it is loaded like any other.

    Args:
        base: the run of the model.
        data: as for :func:`osmotic.recipes.train.train`, of the same kind and shape; its classes are among the base's,
            or the new one.
        out: a new or empty directory.
        by: ``"lora"`` (low-rank changes), ``"control"`` (a ControlNet that follows an image made of each picture),
            ``"whole"`` (all weights) or ``"word"`` (a new word alone: textual inversion, Gal et al. 2022, arXiv
            2208.01618); LoRA by default.
        rank: of LoRA, 4 by default.
        word: a new word for the subject, or a new class where the model reads no texts; for ``"word"``, and, learned
            besides, for ``"lora"`` and ``"whole"``.
        like: the known word or class that it begins as.
        caption: of all samples, for a model of texts and data without; "a WORD" by default where there is a new word.
        prior_samples: how many samples of the base, drawn under the subject's names without the new word (of a model
            of classes, under every class in turn), are half of what is trained on, so that what it knew is not
            forgotten (DreamBooth, Ruiz et al. 2022, arXiv 2208.12242); for ``"lora"`` and ``"whole"``. None is 200
            beside a new word, where it costs the subject nothing, and 0 otherwise: a style has the base's own names,
            and samples of the base would pull against it.
        options: how to train; what is left out comes from the base.
        reading: how the data are read; ``{"control": NAME}`` says which image, for ``"control"``.
        weights: of the base, as in :func:`osmotic.load`.
        resume: go on with the run in ``out``.
        tell: called with each line of the plan.
        device: None takes a CUDA device if there is one.

    Raises:
        ValueError: for a base, data or settings that do not go together, in one sentence.
    """
    model = load(base, weights, device="cpu")
    (Run.open if resume else Run.refuse_used)(out)
    if resume and not reading:
        reading = Run.open(out).recipe().get("reading", {})
    own = data if isinstance(data, Dataset) else open_data(data, **asdict(Reading(**(reading or {}))))
    asked = {"by": by, "rank": rank, "word": word, "like": like, "caption": caption, "prior": prior_samples}
    said = {name: value for name, value in asked.items() if value is not None}
    begun_as = _as_begun(out, said) if resume else {"by": "lora"}
    how = Adapted(**{**begun_as, **said, "base": f"{Path(base).resolve()} ({model.weights}, step {model.step})"})
    _refuse(base, model, how, own.spec, rank)
    how = named(how, model.spec, own)
    if how.word is not None and how.by != "word" and how.prior is None:
        how = how.model_copy(update={"prior": prior.COUNT})
    dataset = under(own, _described(model.spec, how, own.spec), how)
    recipe = resolved(model.recipe, how, options, reading or {}, len(dataset))
    with joined(device) as world:
        if resume:
            recipe = world.from_main(lambda: _continued(dataset, out, recipe, options))
        training, held_out = split(dataset, recipe.holdout, recipe.options.seed)
        assert isinstance(model.denoiser, NeuralDenoiser)
        spec = coding.seen(dataset.spec, recipe.codec)
        task = build.task(recipe, spec, world.device, model.denoiser.network)
        if tell is not None and world.main:
            for line in [*own.spec.describe(), *_unused(own.spec, dataset.spec), "measuring what a step costs"]:
                tell(line)
            measured = plan.measure(task, _on_the_way(model, training, world), recipe, spec, world.device)
            for line in [*measured.lines(recipe), *_spoken(how, model.spec)]:
                tell(line)
        run = world.from_main(lambda: begun(out, recipe, dataset.spec, resume, model.codec, dataset))
        say = tell or (lambda line: None)
        training, held_out = as_latents(model, (training, held_out), run.directory / LATENTS, world, say)
        samples: Samples = training
        if how.prior:
            seed, folder = recipe.options.seed, run.directory / prior.FOLDER
            samples = prior.Mixed(training, prior.drawn(model, training, how, seed, folder, world))
        held = held_out if len(held_out) else None
        fit(
            task,
            samples,
            run,
            recipe.options,
            held,
            [preview(recipe, dataset, model.codec)],
            augmentations(recipe),
            device,
        )
        if how.by == "word":
            world.from_main(lambda: keep_word(run, load(out, device="cpu")))
        return run


def _on_the_way(model: Model, training: Subset, world: World) -> Samples:
    """The samples as the model sees them, before anything is written."""
    latents = of_model(model, training.dataset, world.device)
    return training if latents is None else Subset(latents, training.indices)


def _described(spec: Spec, how: Adapted, own: Spec) -> Spec:
    """The base's data as the adapted model knows them."""
    spec = spec.model_copy(update={"control": spec.control or own.control})
    return spec if how.word is None else taught(spec, how.word)


def _unused(own: Spec, spec: Spec) -> list[str]:
    """What the plan says of data that the model is not told."""
    captions = own.captions is not None and spec.captions is None
    classes = own.classes is not None and spec.classes is None
    return [
        *(["captions are not used: the base reads none"] if captions else []),
        *(["classes are not used: the base was trained without"] if classes else []),
    ]


def _spoken(how: Adapted, spec: Spec) -> list[str]:
    """What the plan says of the subject."""
    lines = []
    if how.word is not None:
        called = "" if how.caption is None else f", every sample is called {how.caption!r}"
        apart = f", stored apart as {WORDS}" if how.by == "word" else ""
        lines.append(f"new word: {how.word!r}, beginning as {how.like!r}{called}{apart}")
    if how.prior:
        count, classes = plural(how.prior, "sample"), spec.captions is None and spec.classes is not None
        told = (
            "its classes in turn" if classes else "what the subject is told" + (" but the new word" if how.word else "")
        )
        told = f", drawn under {told}" if spec.parts else ""
        lines.append(
            f"prior: {count} of the base{told}, are half of what is trained on, so that what it knew is not forgotten"
        )
    return lines


def resolved(
    base: Recipe, adapted: Adapted, options: Options | None, reading: dict[str, Any], count: int | None = None
) -> Recipe:
    """The recipe of an adaption; of few samples, ``count`` of them, none is held out."""
    asked = {} if options is None else explicit(options)
    made = adapted.by == "control" and reading.get("control") in MADE
    steps = asked.get("steps", min(STEPS[adapted.by], base.options.steps))
    own = {
        "steps": steps,
        "learning_rate": RATES[adapted.by] * base.options.learning_rate,
        "warmup": min(100, steps // 10),
        "ema": (max(10.0, steps / 20),),
    }
    return base.model_copy(
        update={
            "adapted": adapted,
            "options": Options(**{**base.options.model_dump(), **own, **asked}),
            "reading": reading,
            "holdout": 0.0 if count is not None and count * base.holdout < 1 else base.holdout,
            # An image made of a picture would not be turned with it.
            **(dict.fromkeys(("flip", "upend", "turn"), False) | {"shift": 0} if made else {}),
        }
    )


def _refuse(base: str | Path, model: Model, how: Adapted, own: Spec, rank: int | None) -> None:
    if rank is not None and how.by != "lora":
        raise RunError(f"--rank is of lora's changes, and --by {how.by} makes none; leave it out.")
    if model.recipe.process.objective == LSGM:
        raise RunError(f"{base} was trained end to end, and is not adapted; train on its latents, and adapt that.")
    if model.recipe.student is not None:
        raise RunError(f"{base} is a few-step model; adapt its teacher, and distil that.")
    if model.recipe.adapted is not None:
        raise RunError(f"{base} is adapted already; adapt {model.recipe.adapted.base.split(' (')[0]} instead.")
    _refuse_images(base, model.spec, how, own, model.codec is not None)
    if (how.word is None) != (how.like is None):
        raise RunError("--word and --like go together: a new word, and the known one that it begins as; give both.")
    if how.by == "word" and how.word is None:
        raise RunError("--by word learns a new word; give --word, and --like for the known one that it begins as.")
    if how.by == "control" and how.word is not None:
        raise RunError("--word is for --by word, lora and whole; with control leave it out.")
    if how.by in ("word", "control") and how.prior is not None:
        raise RunError(f"--by {how.by} leaves the base as it is, so nothing is forgotten; leave out --prior.")


def _refuse_images(base: str | Path, spec: Spec, how: Adapted, own: Spec, coded: bool) -> None:
    """A ControlNet brings an image to a base without; all else needs the base's own."""
    if how.by == "control" and own.control is None:
        raise RunError("--by control and --control NAME go together; give both.")
    if how.by == "control" and coded:
        raise RunError(f"{base} diffuses latents, which have another size than a control image; adapt another model.")
    if how.by == "control" and spec.control is not None:
        raise RunError(f"{base} is told an image already; adapt a model without.")
    if how.by == "control":
        return
    if own.control is not None and spec.control is None:
        raise RunError("--control NAME and --by control go together; give both, or none.")
    if own.control is None and isinstance(spec.control, Beside):
        raise RunError(f"{base} was told an image beside each picture; say with --control which one here.")
    alike = own.control == spec.control or (isinstance(own.control, Beside) and isinstance(spec.control, Beside))
    if own.control is not None and not alike:
        raise RunError(f"{base} was told another kind of image; leave out --control, or name one like it.")


def _as_begun(out: str | Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """How a run that is resumed was adapted: what is not said again is as it was.

    Raises:
        RunError: if it was not, or if something else is said.
    """
    before = stored(Run.open(out))[0].adapted
    if before is None:
        raise RunError(f"{out} was not adapted; resume it with the command that began it.")
    for name in {"by", "rank", "prior"} & set(said):
        refuse_change(out, name, getattr(before, name), said[name])
    return before.model_dump()


def _continued(dataset: Dataset, out: str | Path, recipe: Recipe, options: Options | None) -> Recipe:
    before, spec = stored(Run.open(out))
    if before.adapted != recipe.adapted:
        raise RunError(f"{out} was adapted from another base, or otherwise; start a new run.")
    refuse_other_data(out, spec, dataset)
    given = {} if options is None else explicit(options)
    refuse_options(out, before.options, given)
    return before.model_copy(update={"options": before.options.model_copy(update=given)})
