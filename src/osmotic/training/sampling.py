"""How a run is sampled where nothing else is said: the defaults, and the choice that tuning stored (torch-free)."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from osmotic.data.errors import plural
from osmotic.training.errors import RunError
from osmotic.training.recipe import Frozen
from osmotic.training.run import Run, write_json

SAMPLER, STEPS = "flow-2pc", 10  # what samples where nothing was tuned and nothing is said
LAST = "last.json"
"""The file that names the budget tuned last."""
M = TypeVar("M", bound=BaseModel)


class Entry(Frozen):
    """One row of the table: a solver on a grid, and its error on the tuning noise in deviations of the data."""

    sampler: str
    grid: str
    steps: int = Field(ge=1)
    evaluations: int = Field(ge=1)
    error: float = Field(ge=0)
    confirmed: float | None = Field(None, ge=0, description="the error on fresh noise, measured for the best ones")


class Tuned(Frozen):
    """The best solver and grid found for a budget, what they were tuned on, and what else was tried."""

    nfe: int = Field(ge=1, description="the budget: calls of the denoiser for a batch of samples")
    choice: Entry
    log_snr: tuple[float, ...] = Field(description="the inner stops, rising; the start and 0 are added")
    step: int = Field(ge=0, description="of the checkpoint")
    weights: str
    guidance: float
    count: int = Field(ge=1)
    seed: int
    reference: float = Field(ge=0, description="how far the reference is from one with half the steps")
    default: Entry = Field(description="the ordinary default within the budget, on the same noise")
    table: tuple[Entry, ...] = ()
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        stops = self.log_snr
        if len(stops) != self.choice.steps - 1 or any(a >= b for a, b in itertools.pairwise(stops)):
            raise ValueError(f"log_snr should hold {self.choice.steps - 1} rising stops")
        return self

    def says(self) -> str:
        """The choice in a line."""
        c = self.choice
        return f"{c.sampler}, {plural(c.steps, 'step')} on the {c.grid} grid"

    def stale(self, step: int, weights: str) -> str | None:
        """What to say if the weights are not those it was tuned on; None if they are."""
        if (step, weights) == (self.step, self.weights):
            return None
        return (
            f"It was tuned on {self.weights} at step {self.step:,}, and this is {weights} at step {step:,}; "
            f"`osmotic tune RUN --nfe {self.nfe}` tunes it again."
        )


class Last(Frozen):
    """The budget that was tuned last."""

    nfe: int = Field(ge=1)


class Tuning:
    """The choices stored in a run's directory ``tuning/``: one JSON file a budget, and the name of the last.

    Args:
        run: whose.
    """

    def __init__(self, run: Run) -> None:
        self.folder = run.directory / "tuning"

    def path(self, nfe: int, ending: str = ".json") -> Path:
        """The file of a budget."""
        return self.folder / f"nfe-{nfe}{ending}"

    def store(self, tuned: Tuned) -> Path:
        """Write a choice and make it the default; each file is whole or absent.

        Raises:
            SaveFailed: if the disk is full or not writable.
        """
        self.folder.mkdir(exist_ok=True)
        write_json(self.path(tuned.nfe), tuned.model_dump(mode="json"))
        write_json(self.folder / LAST, Last(nfe=tuned.nfe).model_dump())
        return self.path(tuned.nfe)

    def budgets(self) -> list[int]:
        """The budgets that were tuned for."""
        names = (path.stem.removeprefix("nfe-") for path in self.folder.glob("nfe-*.json"))
        return sorted(int(name) for name in names if name.isdecimal())

    def read(self, nfe: int) -> Tuned:
        """The choice for a budget.

        Raises:
            RunError: if none is stored or it is damaged, saying what to do.
        """
        path = self.path(nfe)
        if not path.is_file():
            known = ", ".join(map(str, self.budgets()))
            there = f"it is tuned for {known}" if known else "it is tuned for none"
            raise RunError(
                f"{self.folder.parent} is not tuned for {plural(nfe, 'evaluation')} ({there}); run `osmotic tune "
                f"{self.folder.parent} --nfe {nfe}`."
            )
        return self._value(path, Tuned)

    def last(self) -> Tuned | None:
        """The choice tuned last; None if there is none."""
        pointer = self.folder / LAST
        return self.read(self._value(pointer, Last).nfe) if pointer.is_file() else None

    def _value(self, path: Path, kind: type[M]) -> M:
        try:
            return kind.model_validate_json(path.read_bytes())
        except (ValidationError, OSError) as error:
            reason = str(error)
            if isinstance(error, ValidationError):
                first: Any = error.errors()[0]
                reason = ": ".join([*map(str, first["loc"]), first["msg"]])
            raise RunError(
                f"{path} cannot be used ({reason}); run `osmotic tune {self.folder.parent}` again, or delete "
                f"{self.folder}."
            ) from None
