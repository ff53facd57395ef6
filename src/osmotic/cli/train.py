"""``osmotic train DATA --out RUN`` (torch-free until it starts)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from osmotic.cli.flags import UsageError, build, flags, given, parse
from osmotic.cli.reading import Reading
from osmotic.data.source import Options as DataOptions
from osmotic.training.autoencoding import AUTOENCODER, Autoencoding
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Distillation, Process, Recipe
from osmotic.training.run import Run, is_cascade

Training = flags(Options, "training", found=frozenset({"steps", "batch_size", "learning_rate"}))
Net = flags(Architecture, "network", found=frozenset({"network", "widths", "blocks", "attention", "dropout"}))
Diffusion = flags(Process, "process", found=frozenset({"sigma_data"}))
FewStep = flags(
    Distillation,
    "few-step models",
    leave=frozenset({"guidance", "largest_guidance", "pairs", "jumps", "rounds", "adversarial"}),
)
Codes = flags(Autoencoding, "autoencoder", found=frozenset({"latent_channels", "halvings"}))
Rest = flags(Recipe, "more", leave=frozenset({"reading", "autoencoder", "codec", "student", "adapted"}))


@dataclass
class Train:
    """Train a diffusion model on DATA: a folder of pictures, an array, a table, or the name of an embedded set."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """path, or one of digits, moons, circles, swiss-roll, wine, iris, breast-cancer, shapes, waves"""
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """directory of the run, new or empty; everything is written there"""
    codec: Annotated[str | None, tyro.conf.arg(metavar="RUN|NAME")] = None
    """diffuse latents: of an autoencoder's run, or haar, dct, pca or whitening (default: the data themselves)"""
    cascade: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT ...", help_behavior_hint="")] = None
    """train a cascade of runs within --out: small pictures first, then stages that enlarge them, as 8 16 32"""
    resume: bool = False
    """go on with the run in --out"""
    reading: Reading = field(default_factory=Reading)
    training: Training = field(default_factory=Training)  # type: ignore[valid-type]
    """how to train; counts are in optimizer steps"""
    network: Net = field(default_factory=Net)  # type: ignore[valid-type]
    """the network"""
    process: Diffusion = field(default_factory=Diffusion)  # type: ignore[valid-type]
    """the diffusion process and what of it is learned"""
    autoencoder: Codes = field(default_factory=Codes)  # type: ignore[valid-type]
    """of --objective autoencoder, which makes the latents of `--codec`"""
    few_step: FewStep = field(default_factory=FewStep)  # type: ignore[valid-type]
    """what some of the few-step objectives can be told"""
    use: Rest = field(default_factory=Rest)  # type: ignore[valid-type]
    """how the data are used"""


def recipe(settings: Train) -> Recipe:
    """The recipe that the flags describe; fields that were not given stay unset."""
    values: dict[str, Any] = {
        "options": build(Options, given(settings.training)),
        "architecture": build(Architecture, given(settings.network)),
        "process": build(Process, given(settings.process)),
        "distillation": build(Distillation, given(settings.few_step)),
    }
    if coded := given(settings.autoencoder):
        values["autoencoder"] = build(Autoencoding, coded)
    return build(Recipe, {**values, **given(settings.use)})


def main(words: list[str]) -> int:
    """Parse, read the data, print the plan, train."""
    settings = parse(Train, "train", words)
    asked = recipe(settings)
    if settings.cascade is not None or (settings.resume and is_cascade(settings.out)):
        return cascaded(settings, asked)
    (Run.open if settings.resume else Run.refuse_used)(settings.out)
    reading = given(settings.reading)
    if settings.resume and not reading:
        # What was said about the data when the run began holds for its continuation.
        reading = Run.open(settings.out).recipe().get("reading", {})
    options = DataOptions(**reading)
    asked = asked.model_copy(update={"reading": reading})
    # Only now is torch needed.
    from dataclasses import asdict

    from osmotic.data.dataset import open_data
    from osmotic.recipes.train import train
    from osmotic.training.distributed import is_main

    say = print if is_main() else _silent
    dataset = open_data(settings.data, **asdict(options))
    for line in dataset.spec.describe():
        say(line)
    run = train(dataset, settings.out, asked, codec=settings.codec, resume=settings.resume, tell=say)
    say(f"done: {run.directory}; {following(run, settings.data, bool(options.upscale))}")
    return 0


def cascaded(settings: Train, asked: Recipe) -> int:
    """Train the stages of a cascade.

    Raises:
        UsageError: for flags that it sets itself.
    """
    reading = given(settings.reading)
    if {"upscale", "reduce"} & set(reading):
        raise UsageError("--cascade says by how much pictures are reduced and enlarged; leave out --upscale, --reduce.")
    if settings.codec is not None:
        raise UsageError("A cascade's stages are of pictures themselves; leave out --codec, or --cascade.")
    from osmotic.recipes.cascade import train_cascade
    from osmotic.training.distributed import is_main

    say = print if is_main() else _silent
    asked = asked.model_copy(update={"reading": reading})
    folder = train_cascade(settings.data, settings.out, settings.cascade, asked, resume=settings.resume, tell=say)
    say(f"done: {folder}; draw from it with `{shlex.join(['osmotic', 'sample', str(folder)])}`")
    return 0


USE = {
    "classifier": "lead samples with `osmotic sample --classifier`",
    "contrastive": "osmotic.recipes.unclip reads it",
}
"""Of runs that draw nothing."""


def following(run: Run, data: str, enlarges: bool) -> str:
    """What a run is for."""
    objective = run.recipe()["process"]["objective"]
    if objective in USE:
        return USE[objective]
    if enlarges:
        return f"enlarge pictures with `{shlex.join(['osmotic', 'upscale', str(run.directory), 'PICTURE'])}`"
    if objective == AUTOENCODER:
        words = ["osmotic", "train", data, "--codec", str(run.directory), "--out"]
        return f"train on its latents with `{shlex.join(words)} LATENT_RUN`"
    return f"draw from it with `{shlex.join(['osmotic', 'sample', str(run.directory)])}`"


def _silent(line: str) -> None:
    pass
