"""What the page can ask of a model, without a page: draw, watch, repaint, and say how to do it again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.guidance import Inpaint
from osmotic.noise import generators
from osmotic.samplers import CATALOG, prior, trajectory
from osmotic.training.model import Model

STEPS = 250
COUNT, POINTS = 64, 256
NUMBERS = 2**22
"""Caps of one request: steps, pictures or sequences, points or rows (one batch of ``Model.sample``, so that the bits
agree), and numbers in all its samples together.
"""
SEEDS = 2**53
"""Seeds that JSON carries exactly lie below."""
GUIDANCE = 20.0
LETTERS = 1000
VARIANTS = 4
REMEMBERED = 8


@dataclass(frozen=True)
class Draw:
    """What was asked for; with the model it decides every sample.

    Args:
        count: how many samples.
        seed: of all their noise.
        label: number of the class; None for all classes in turn (for none of them, beside a text), and for a model
            without.
        guidance: classifier-free scale.
        sampler: name of the solver.
        steps: of the solver.
        text: what the samples should show; empty for a model without texts, and to say nothing.
    """

    count: int
    seed: int
    label: int | None
    guidance: float
    sampler: str
    steps: int
    text: str = ""


class Frame(NamedTuple):
    """One point of a trajectory: its number, the last one's, and x ``(n, *S)`` scaled to the data's size."""

    step: int
    last: int
    x: Tensor


class Session:
    """A model within its caps; whatever a request holds, it is answered or refused in one sentence.

    Args:
        model: what is served.
        run: where it came from, for the commands that are shown.

    Attributes:
        most: samples of one request.
        solvers: names of the samplers that the model can be drawn with.
    """

    def __init__(self, model: Model, run: Path) -> None:
        self.model, self.run = model, run
        most = COUNT if model.spec.kind in ("images", "sequences") else POINTS
        self.most = max(1, min(most, NUMBERS // math.prod(model.spec.shape)))
        # Only flow maps can be asked to jump, and only what has a posterior mean can be solved.
        made, denoiser = {name: make() for name, make in CATALOG.items()}, model.denoiser
        self.solvers = [name for name, sampler in made.items() if not sampler.aims and denoiser.diagonal]
        student = model.recipe.student
        if student is not None:
            self.solvers = list(dict.fromkeys([student.sampler, *self.solvers]))
        self._drawn: dict[Draw, Tensor] = {}

    def usual(self) -> Draw:
        """The solver of ``osmotic sample`` where nothing is said, and as many samples as are seen at once."""
        plan = self.model.plan()
        classes = self.model.spec.classes
        count = 16 if classes is None or len(classes) > 16 else 2 * len(classes)
        if self.model.spec.kind not in ("images", "sequences"):
            count = POINTS
        return Draw(min(self.most, count), 0, None, 1.0, plan.solver, min(STEPS, plan.steps))

    def check(self, draw: Draw) -> None:
        """Refuse what is outside the caps.

        Raises:
            ValueError: naming the setting and what it may be.
        """
        classes = self.model.spec.classes
        whole = {
            "The number of samples": (draw.count, 1, self.most),
            "The number of steps": (draw.steps, 1, STEPS),
            "The seed": (draw.seed, 0, SEEDS - 1),
        }
        if draw.label is not None:
            if classes is None:
                raise ValueError("This model was trained without classes; leave the class out.")
            whole["The class number"] = (draw.label, 0, len(classes) - 1)
        for name, (value, low, high) in whole.items():
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number from {low} to {high}; got {str(value)[:40]}.")
        if not isinstance(draw.guidance, int | float) or not 0 <= draw.guidance <= GUIDANCE:
            raise ValueError(f"The guidance scale must lie in [0, {GUIDANCE:g}]; got {str(draw.guidance)[:40]}.")
        if draw.text:
            self._check_text(draw.text)
        if draw.sampler not in self.solvers:
            raise ValueError(f"There is no solver {str(draw.sampler)[:40]!r} here; choose one of the list.")

    def _check_text(self, text: str) -> None:
        if not isinstance(text, str) or len(text) > LETTERS:
            raise ValueError(f"The text must be of at most {LETTERS:,} letters; shorten it.")
        if self.model.spec.captions is None:
            raise ValueError("This model was trained without texts; leave the text out.")
        self.model.condition({"text": text}, 1, 0, 1)  # which refuses unknown words

    def labels(self, draw: Draw) -> list[int] | None:
        """The class of each sample; None where no class is told."""
        classes = self.model.spec.classes
        if classes is None or (draw.text and draw.label is None):
            return None
        return [i % len(classes) if draw.label is None else draw.label for i in range(draw.count)]

    def told(self, draw: Draw, label: int | list[int] | None) -> dict[str, Any] | None:
        """What the model is told, by name; None for nothing."""
        said: dict[str, Any] = {} if label is None else {"class": label}
        return said | ({"text": draw.text} if draw.text else {}) or None

    def watch(self, draw: Draw) -> Iterator[Frame]:
        """The trajectory from noise to samples, ``steps + 1`` frames; the last is what :meth:`samples` gives.

        Raises:
            ValueError: for what :meth:`check` or the model refuses.
        """
        self.check(draw)
        model = self.model
        plan = model.plan(draw.sampler, draw.steps)
        times = plan.grid(model.denoiser.schedule, plan.steps, model.denoiser.start)
        told = self.told(draw, self.labels(draw))
        points = model.points(draw.count, told, draw.guidance, plan.sampler, plan.steps, draw.seed, grid=plan.grid)
        last = len(times) - 1
        for step, (x, pair) in enumerate(zip(points, model.denoiser.schedule.pairs(times), strict=True)):
            if step == last:
                x = model.out(x)
                self._remember(draw, x)
            yield Frame(step, last, model.out(x / math.hypot(*pair)) if step < last else x)

    def samples(self, draw: Draw) -> Tensor:
        """The samples ``(count, *S)``, bit for bit those of :meth:`osmotic.training.model.Model.sample`."""
        if draw not in self._drawn:
            for _ in self.watch(draw):
                pass
        return self._drawn[draw]

    def sample(self, draw: Draw, index: int) -> Tensor:
        """One sample ``(*S)`` by its number.

        Raises:
            ValueError: if there is none.
        """
        if type(index) is not int or not 0 <= index < draw.count:
            raise ValueError(f"There is no sample {str(index)[:40]}; they are numbered 0 to {draw.count - 1}.")
        return self.samples(draw)[index]

    def repaint(self, draw: Draw, index: int, painted: str) -> Tensor:
        """A picture with a part of it drawn anew, :data:`VARIANTS` times: ``(VARIANTS, *S)``.

        Args:
            draw: what the picture came from.
            index: its number.
            painted: one character a pixel, row by row, "1" where it is to be drawn anew and "0" where it is kept.

        Raises:
            ValueError: for data that are no pictures, or a mask that does not fit.
        """
        spec = self.model.spec
        if spec.kind != "images":
            raise ValueError(f"Only pictures can be repainted; this model makes {spec.kind}.")
        height, width = spec.shape[-2:]
        if not isinstance(painted, str) or len(painted) != height * width or set(painted) - {"0", "1"}:
            raise ValueError(f"The mask must hold {height * width} characters 0 or 1, one for each pixel.")
        if "1" not in painted:
            raise ValueError("Nothing is painted; draw with the mouse or a finger over what should be made anew.")
        known = self.sample(draw, index)
        keep = torch.tensor([c == "0" for c in painted], device=known.device).reshape(1, height, width)
        return torch.where(keep, known, self._filled(draw, index, known, keep))

    def _filled(self, draw: Draw, index: int, known: Tensor, keep: Tensor) -> Tensor:
        model, labels = self.model.of_data(), self.labels(draw)
        told = self.told(draw, None if labels is None else labels[index])
        shown: Condition | None = model.condition(told, VARIANTS, 0, VARIANTS)
        denoiser = Inpaint(model.guided(shown, draw.guidance), known, keep)
        plan = model.plan(draw.sampler, draw.steps)
        keyed = generators(draw.seed + 1, range(VARIANTS), model.device)
        with torch.no_grad():
            x = prior(denoiser, (VARIANTS, *known.shape), keyed, model.device)
            times = plan.grid(denoiser.schedule, plan.steps, denoiser.start)
            *_, last = trajectory(plan.sampler, denoiser, x, times, shown, keyed)
        return last

    def _remember(self, draw: Draw, x: Tensor) -> None:
        self._drawn.pop(draw, None)
        self._drawn[draw] = x
        while len(self._drawn) > REMEMBERED:
            self._drawn.pop(next(iter(self._drawn)))

    def command(self, draw: Draw) -> str:
        """The command line that draws the same samples."""
        words = ["osmotic", "sample", str(self.run), "--count", draw.count, "--seed", draw.seed]
        words += ["--sampler", draw.sampler, "--steps", draw.steps]
        classes = self.model.spec.classes
        if draw.label is not None and classes is not None:
            name = classes[draw.label]
            words += [f"--class={name}"] if name.startswith("-") else ["--class", name]
        if draw.text:
            words += [f"--prompt={draw.text}"] if draw.text.startswith("-") else ["--prompt", draw.text]
        if draw.guidance != 1:
            words += ["--guidance", f"{draw.guidance:.17g}"]
        return shlex.join(map(str, words))

    def python(self, draw: Draw) -> str:
        """The Python that draws the same samples, bit for bit."""
        labels = self.labels(draw)
        cond = "" if labels is None else f"    cond={labels},\n"
        if labels is not None and draw.label is not None:
            cond = f"    cond={draw.label},  # {self.model.spec.classes[draw.label]!r}\n"  # type: ignore[index]
        if draw.text:
            cond = f"    cond={self.told(draw, draw.label)!r},\n"
        return (
            f"import osmotic\n\nmodel = osmotic.load({str(self.run)!r})\nx = model.sample(\n    {draw.count},\n{cond}"
            f"    guidance={draw.guidance!r},\n    sampler={draw.sampler!r},\n    steps={draw.steps},\n"
            f"    seed={draw.seed},\n)\nsamples = model.decode(x)\n"
        )
