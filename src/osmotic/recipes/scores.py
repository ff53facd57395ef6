"""What an evaluation and a benchmark found, as they are stored in a run and read back (torch-free)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from osmotic.training.errors import RunError
from osmotic.training.recipe import Frozen
from osmotic.training.run import write_json

FOLDER = "evaluation"
"""In a run: what was measured, and the pictures that belong to it."""
M = TypeVar("M", bound=Frozen)


class Score(Frozen):
    """One number with its interval, beside what the same measure says of real data."""

    name: str = Field(description="the field's own name, lower case: 'Frechet distance', 'precision'")
    value: float
    low: float | None = Field(None, description="lower end of the 95 % interval")
    high: float | None = Field(None, description="upper end")
    better: Literal["lower", "higher", "real"] = Field(description="'real': as near as possible to what real data give")
    real: float | None = Field(
        None, description="of training data in place of samples (of held-out data where copies or classes are judged)"
    )
    samples: int = Field(ge=1, description="how many samples it was measured on")
    about: str = Field("", description="what it tells, in one sentence for a person")


class Sampled(Frozen):
    """How the samples were drawn."""

    sampler: str
    grid: str
    steps: int = Field(ge=1)
    evaluations: int = Field(ge=1, description="of the network per sample; a guided one counts twice")
    guidance: float = 1.0
    conditional: bool = False
    seed: int = 0


class Quality(Frozen):
    """The scores of a run: ``RUN/evaluation/quality.json``."""

    version: Literal[1] = 1
    command: str = Field(description="that measures the same again")
    date: str = Field(description="ISO 8601, UTC")
    seconds: float
    step: int = Field(description="of the checkpoint")
    weights: str
    kind: str = Field(description="of the data: images, table, vectors, sequences, array")
    shape: tuple[int, ...]
    features: str = Field(description="the honest name of the features that distances were measured on")
    samples: int
    held_out: int = Field(description="real samples that they were compared with")
    training: int = Field(description="training samples that neighbours were looked for in")
    sampled: Sampled
    scores: tuple[Score, ...]
    by_noise: tuple[tuple[str, float], ...] = Field((), description="held-out loss by bin of log-SNR, noise to data")
    warnings: tuple[str, ...] = ()
    pictures: tuple[str, ...] = Field((), description="file names in the same folder, most telling first")


class Point(Frozen):
    """One setting of a benchmark: what it costs and how good it is."""

    run: str
    sampler: str
    grid: str
    steps: int
    guidance: float = 1.0
    evaluations: int
    seconds: float = Field(description="wall-clock for all samples on this machine")
    value: float
    low: float | None = None
    high: float | None = None
    coverage: float | None = Field(None, description="share of real data with a sample nearby: diversity, in [0, 1]")
    agreement: float | None = Field(None, description="share of samples that a judge puts in the class asked for")
    spread: float | None = Field(None, description="mean distance of two samples of a class, relative to real data's")


class Bench(Frozen):
    """Quality against cost: ``RUN/evaluation/bench.json``."""

    version: Literal[1] = 1
    command: str
    date: str
    seconds: float
    score: str = Field(description="the name of the score")
    better: Literal["lower", "higher"]
    features: str
    samples: int
    real: float | None = None
    points: tuple[Point, ...]
    pictures: tuple[str, ...] = ()


def frontier(points: Iterable[Point], price: Callable[[Point], float], better: str) -> list[Point]:
    """The points that nothing cheaper is as good as, by price."""
    sign = 1 if better == "lower" else -1
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (price(p), sign * p.value)):
        if not front or sign * point.value < sign * front[-1].value:
            front.append(point)
    return front


def guided(points: Sequence[Point]) -> list[Point]:
    """The points of the setting that guidance was swept on, by scale; none where it was not."""
    scaled = next((p for p in points if p.guidance != 1), None)
    if scaled is None:
        return []

    def alike(p: Point) -> bool:
        return (p.run, p.sampler, p.grid, p.steps) == (scaled.run, scaled.sampler, scaled.grid, scaled.steps)

    return sorted(filter(alike, points), key=lambda p: p.guidance)


def keep(run: Path, name: str, found: Frozen) -> Path:
    """Write what was found into ``RUN/evaluation/NAME.json``, whole or not at all."""
    path = run / FOLDER / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, found.model_dump(mode="json"))
    return path


def kept(run: Path, name: str, kind: type[M]) -> M | None:
    """What is stored there, None if nothing is.

    Raises:
        RunError: for a file that is damaged or of another version.
    """
    path = run / FOLDER / f"{name}.json"
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise RunError(f"{path} cannot be read: {where}{first['msg']}; measure again, or delete it.") from None


def earlier(run: Path, name: str, kind: type[M]) -> M | None:
    """What will be replaced, None if there is nothing that can be read."""
    try:
        return kept(run, name, kind)
    except RunError:
        return None
