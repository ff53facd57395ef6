"""``osmotic info RUN|DATA`` (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from osmotic.cli.flags import given, parse
from osmotic.cli.reading import Reading
from osmotic.data.errors import plural
from osmotic.training.autoencoding import AUTOENCODER, CODEC, OUTCOME, Outcome
from osmotic.training.errors import RunError
from osmotic.training.recipe import Distillation
from osmotic.training.run import RECIPE, Run, is_cascade, stage_folders
from osmotic.training.sampling import Tuned, Tuning

PARTS = ("student", "architecture", "process", "options")


@dataclass
class Info:
    """Look at a run (recipe, data, progress), or at data before training (bad files, sizes, classes, duplicates)."""

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|DATA")]
    """directory of a run, path of data, or the name of an embedded set"""
    reading: Reading = field(default_factory=Reading)
    """how to read the data, as in `osmotic train`"""


def main(words: list[str]) -> int:
    """Print what is known."""
    settings = parse(Info, "info", words)
    path = Path(settings.what).expanduser()
    if is_cascade(path):
        lines = about_cascade(path)
    else:
        lines = about_run(path) if (path / RECIPE).is_file() else about_data(settings.what, given(settings.reading))
    for line in lines:
        print(line)
    return 0


def about_data(what: str, reading: dict[str, Any]) -> list[str]:
    """The scan of a data set."""
    from osmotic.data.scan import scan
    from osmotic.data.source import Options

    for made in ("control", "text_encoder", "reduce", "upscale"):  # made of the data when training begins
        reading.pop(made, None)
    return scan(what, Options(**reading)).lines()


def about_cascade(path: Path) -> list[str]:
    """What each stage of a cascade draws, and how far its training is."""
    lines = [f"{path}: a cascade; `osmotic sample {path}` draws through all of its stages"]
    for folder in stage_folders(path):
        if not (folder / RECIPE).is_file():
            lines.append(f"stage {folder}: not begun")
            continue
        run = Run.open(folder)
        complete, data, recipe = run.complete(), run.data(), run.recipe()
        at, steps = complete[0][1].step if complete else 0, int(recipe.get("options", {}).get("steps", 0))
        control = data.get("control")
        larger = f", {control['factor']} times larger" if isinstance(control, dict) and "factor" in control else ""
        few = ", a few-step model" if recipe.get("student") else ""
        shape = " x ".join(map(str, data.get("shape", ())))
        lines.append(f"stage {folder}: {shape}{larger}{few}, at step {at:,} of {steps:,}")
    return lines


def about_run(path: Path) -> list[str]:
    """Recipe, data, checkpoints and the last measurements of a run."""
    run = Run.open(path)
    recipe, data = run.recipe(), run.data()
    complete, records = run.complete(), run.metrics()
    steps = int(recipe.get("options", {}).get("steps", 0))
    at = complete[0][1].step if complete else 0
    count = plural(int(data.get("count", 0)), "sample")
    lines = [
        f"{path}: a run at step {at:,} of {steps:,}",
        *about_stages(run),
        f"data: {data.get('source')}, {count} of shape {tuple(data.get('shape', ()))}",
    ]
    lines += known(data)
    if recipe.get("adapted"):
        said = {name: value for name, value in recipe["adapted"].items() if value is not None}
        lines.append("adapted: " + ", ".join(f"{name} {_plain(value)}" for name, value in said.items()))
    if recipe.get("codec"):
        latent, whole = (" x ".join(map(str, recipe["codec"][name])) for name in ("shape", "data"))
        lines.append(f"codec: {recipe['codec']['source']}, latents of {latent} for data of {whole}")
    coded = recipe.get("process", {}).get("objective") == AUTOENCODER
    shown_parts = ("autoencoder", "architecture", "options") if coded else PARTS
    parts = {part: recipe.get(part) or {} for part in shown_parts}
    if parts.get("student"):
        plain = Distillation().model_dump()
        parts["student"] |= {k: v for k, v in recipe.get("distillation", {}).items() if v != plain.get(k)}
    for part, values in parts.items():
        shown = {k: v for k, v in values.items() if v is not None}
        if not shown:
            continue
        lines.append(f"{part}: " + ", ".join(f"{k} {_plain(v)}" for k, v in shown.items()))
    lines += [f"checkpoint: {folder}" + _held_out(m.held_out) for folder, m in complete]
    record = next((r for r in reversed(records) if "skipped_in_all" in r), None)
    if record is not None:
        skipped = plural(record["skipped_in_all"], "step")
        losses = ", ".join(f"{k} {v:.4g}" for k, v in record.items() if k == "loss" or k.startswith("loss/"))
        lines.append(f"training {losses} at step {record['step']:,}, {skipped} skipped")
    return lines + (about_codec(run) if coded else about_tuning(Tuning(run)))


def known(data: dict[str, Any]) -> list[str]:
    """What a model is told besides the class, by the names that `osmotic sample --set` takes."""
    lines = [f"told: {attribute['column']['name']}" for attribute in data.get("attributes", ())]
    lines += ["told: a text (--prompt)"] if data.get("captions") else []
    lines += [f"told: the embedding of a {data['embedding']['of']}"] if data.get("embedding") else []
    control = data.get("control")
    if isinstance(control, dict) and "factor" in control:
        return [*lines, f"told: a picture {control['factor']} times smaller (`osmotic upscale`, or --control)"]
    if isinstance(control, dict):
        return [*lines, f"told: an image, {control['name']} of each picture in training (--control)"]
    return lines + ([f"told: {control} of a picture (--control)"] if control else [])


def about_codec(run: Run) -> list[str]:
    """What an autoencoder was measured to do, once it is trained."""
    path = run.directory / OUTCOME
    if not path.is_file():
        return ["no codec yet: it is made when training is done"]
    try:
        return Outcome.model_validate_json(path.read_bytes()).lines()
    except (OSError, ValueError):
        return [f"{path} cannot be read; delete {path.name} and {CODEC} and train with --resume, which measures again"]


def about_stages(run: Run) -> list[str]:
    """A line for each earlier round of a distillation."""
    lines = []
    for folder in run.stages():
        stage = Run.open(folder)
        complete, steps = stage.complete(), int(stage.recipe().get("options", {}).get("steps", 0))
        lines.append(f"earlier round: {folder}, at step {complete[0][1].step if complete else 0:,} of {steps:,}")
    return lines


def about_tuning(tuning: Tuning) -> list[str]:
    """A line for each budget; a damaged file is one of them, for the rest of the run is as good as ever."""
    try:
        last = tuning.last()
    except RunError as error:
        return [str(error)]
    lines = []
    for nfe in tuning.budgets():
        try:
            lines.append(_tuned(tuning.read(nfe), last))
        except RunError as error:
            lines.append(str(error))
    return lines


def _tuned(tuned: Tuned, last: Tuned | None) -> str:
    """What was tuned for a budget, and how much it gains."""
    budget = plural(tuned.nfe, "evaluation")
    line = f"tuned for {budget} at step {tuned.step:,}: {tuned.says()}"
    found, usual = tuned.choice.confirmed, tuned.default.confirmed
    if found is not None and usual is not None:
        line += f", error {found:.3g} against {usual:.3g} by default"
    return line + ("; used by `osmotic sample`" if last is not None and last.nfe == tuned.nfe else "")


def _held_out(value: float | None) -> str:
    return "" if value is None else f", held-out loss {value:.4g}"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
