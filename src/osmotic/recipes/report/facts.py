"""All that a run holds, read once and without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from osmotic.data.spec import Spec
from osmotic.recipes.nats import Report
from osmotic.recipes.scores import FOLDER, Bench, Quality, kept
from osmotic.training.errors import RunError
from osmotic.training.manifest import Manifest
from osmotic.training.recipe import Recipe
from osmotic.training.run import Run, whole_lines
from osmotic.training.sampling import Tuned, Tuning

HEADER = 8
"""Bytes that say how long the header of a safetensors file is."""
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


LIKELIHOOD = TypeAdapter(Report)


@dataclass(frozen=True)
class Facts:
    """A run as the report shows it; what is damaged is None here and a sentence in ``troubles``.

    Args:
        run: which.
        recipe, spec: how and on what it was trained.
        complete: its whole checkpoints, newest first.
        records, timing: the lines of metrics.jsonl and timing.jsonl.
        quality, bench, likelihood: what was measured, None if it was not.
        tuning: the choices for all budgets, smallest first.
        troubles: by section, why something stored there cannot be shown.
    """

    run: Run
    recipe: Recipe
    spec: Spec
    complete: list[tuple[Path, Manifest]]
    records: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    quality: Quality | None
    bench: Bench | None
    likelihood: Report | None
    tuning: list[Tuned]
    troubles: dict[str, list[str]]

    @property
    def path(self) -> str:
        """Its directory, as it was named."""
        return str(self.run.directory)

    @property
    def step(self) -> int:
        """Of its newest whole checkpoint; 0 before the first."""
        return self.complete[0][1].step if self.complete else 0

    @cached_property
    def parameters(self) -> int | None:
        """Numbers in the network's weights, by the header of their file."""
        return None if not self.complete else _entries(self.complete[0][0] / "model.safetensors")

    @property
    def began(self) -> datetime:
        """When data.json was written, which is never written again."""
        return datetime.fromtimestamp(self.run.data_path.stat().st_mtime, UTC)

    @property
    def ended(self) -> datetime | None:
        """When the newest checkpoint was written."""
        if not self.complete:
            return None
        return datetime.fromtimestamp((self.complete[0][0] / "manifest.json").stat().st_mtime, UTC)

    @property
    def seconds(self) -> float | None:
        """Of training, interruptions left out: each start counts anew in timing.jsonl."""
        clock = [float(record["seconds"]) for record in self.timing if "seconds" in record]
        if not clock:
            return None
        ends = [now for now, later in zip(clock, [*clock[1:], 0.0], strict=True) if later < now]
        return sum(ends)

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of a number in metrics.jsonl; that of the first player where each has its own."""
        found = []
        for record in self.records:
            key = next((key for key in record if key == name or key.startswith(f"{name}/")), None)
            if key is not None:
                found.append((float(record["step"]), _finite(record[key])))
        return found

    def held_out(self, weights: str) -> list[tuple[float, float]]:
        """(step, held-out loss) of "raw" or averaged weights."""
        found = []
        for record in self.records:
            losses = record.get("held_out", {}).get(weights)
            if losses:
                found.append((float(record["step"]), _finite(next(iter(losses.values())))))
        return found

    @property
    def weights(self) -> list[str]:
        """The names under which held-out losses are stored: raw first, then the averages."""
        return next((list(record["held_out"]) for record in self.records if "held_out" in record), [])

    @property
    def by_noise(self) -> list[tuple[str, float]]:
        """The last held-out loss of the averaged weights by bin of log-SNR, noise to data."""
        for record in reversed(self.records):
            if "held_out" in record:
                losses = list(record["held_out"].values())[min(1, len(record["held_out"]) - 1)]
                return [
                    (name.removeprefix("log_snr "), _finite(value))
                    for name, value in losses.items()
                    if name.startswith("log_snr")
                ]
        return []

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """The records of steps that were left out because something was not finite."""
        return [{"step": record["step"], **record["skipped"]} for record in self.records if "skipped" in record]

    def previews(self) -> list[Path]:
        """Pictures of samples while training, by step."""
        return sorted(self.run.samples.glob("step-*.png"))

    def picture(self, *folders_and_names: str) -> Path | None:
        """The first of some files below the run that is there; nothing outside it is looked at."""
        for name in folders_and_names:
            path = self.run.directory / name
            inside = path.resolve().is_relative_to(self.run.directory.resolve())
            if inside and path.is_file():
                return path
        return None


def read(directory: str | Path) -> Facts:
    """The facts of a run.

    Raises:
        RunError: if it is none, or its recipe or data description cannot be read.
    """
    run = Run.open(directory)
    recipe = _model(run.recipe_path, run.recipe(), Recipe)
    spec = _model(run.data_path, run.data(), Spec)
    troubles: dict[str, list[str]] = {}

    def tried(section: str, reading: Callable[[], T]) -> T | None:
        try:
            return reading()
        except RunError as error:
            troubles.setdefault(section, []).append(str(error))
            return None

    tuning = Tuning(run)
    choices = [tried("tuning", lambda nfe=nfe: tuning.read(nfe)) for nfe in tuning.budgets()]  # type: ignore[misc]
    timing = run.timing_path
    return Facts(
        run=run,
        recipe=recipe,
        spec=spec,
        complete=run.complete(),
        records=[record for record in run.metrics() if isinstance(record.get("step"), int)],
        timing=[record for _, record in whole_lines(timing)] if timing.is_file() else [],
        quality=tried("scores", lambda: kept(run.directory, "quality", Quality)),
        bench=tried("cost", lambda: kept(run.directory, "bench", Bench)),
        likelihood=tried("likelihood", lambda: _likelihood(run.directory)),
        tuning=[choice for choice in choices if choice is not None],
        troubles=troubles,
    )


def _likelihood(directory: Path) -> Report | None:
    path = directory / FOLDER / "likelihood.json"
    if not path.is_file():
        return None
    try:
        return LIKELIHOOD.validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise RunError(f"{path} cannot be read: {_first(error)}; measure again, or delete it.") from None


def _model(path: Path, value: dict[str, Any], kind: type[M]) -> M:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise RunError(f"{path} cannot be read: {_first(error)}; was it made by another version of osmotic?") from None


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return ": ".join([".".join(map(str, first["loc"])) or "it", first["msg"]])


def _finite(value: Any) -> float:
    """A logged number; null stands for what was not finite."""
    return float(value) if isinstance(value, int | float) else math.nan


def _entries(path: Path) -> int | None:
    """How many numbers a safetensors file holds, None if it is damaged; only its header is read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(HEADER), "little")
            if length > path.stat().st_size:
                return None
            header = json.loads(file.read(length))
        return sum(int(math.prod(entry["shape"])) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
