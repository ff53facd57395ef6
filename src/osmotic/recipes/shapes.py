"""Text to image, judged exactly: ``python -m osmotic.recipes.shapes RUN``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import osmotic
from osmotic.data.shapes import COLOURS, FORMS, Shape, every, recognise
from osmotic.recipes.prompted import prompted
from osmotic.training.model import Model, load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe

NAMES = ("colour", "form", "place")
PROMPTS, GUIDANCE, AWAY = 500, 2.0, 3.0
"""Prompts that are judged, the scale for them, and that for negative ones."""

RECIPE = Recipe(
    options=Options(steps=2000, batch_size=64, learning_rate=2e-3),
    architecture=Architecture(network="unet", widths=(32, 64), blocks=1, attention=(1,), dropout=0.0),
)
"""About ten minutes of two cores."""


@dataclass(frozen=True)
class Obeyed:
    """How often a detector finds in pictures what was asked for; shares in [0, 1].

    Args:
        colour: right colour.
        form: right form.
        both: right colour and form.
        place: right place.
        removed: pictures without the colour or form that a negative prompt named.
    """

    colour: float
    form: float
    both: float
    place: float
    removed: float

    def lines(self) -> list[str]:
        """For a terminal."""
        return [f"{name:<8} {share:7.1%}" for name, share in vars(self).items()]


def judge(model: Model, prompts: int = PROMPTS, seed: int = 0) -> Obeyed:
    """Draw every shape there is in turn from its caption, and see what the pictures show."""
    kinds = every()
    asked = [kinds[i % len(kinds)] for i in range(prompts)]
    found = drawn(model, [shape.caption() for shape in asked], GUIDANCE, seed)
    colour, form, place = (np.array([_same(*pair, name) for pair in zip(found, asked, strict=True)]) for name in NAMES)
    return Obeyed(
        colour=float(colour.mean()),
        form=float(form.mean()),
        both=float((colour & form).mean()),
        place=float(place.mean()),
        removed=removed(model, prompts, seed),
    )


def _same(found: Shape | None, asked: Shape, name: str) -> bool:
    return found is not None and getattr(found, name) == getattr(asked, name)


def removed(model: Model, prompts: int, seed: int) -> float:
    """Of pictures asked for without saying a colour (or form), and led away from one, the share that lacks it."""
    named = [*COLOURS, *FORMS]
    away = [named[i % len(named)] for i in range(prompts)]
    places = [shape.place for shape in every()]
    asked, negative = [], []
    for i, word in enumerate(away):
        shape = Shape(word, word, places[i % len(places)])
        asked.append(shape.caption(colour=False, form=False))
        negative.append(shape.caption(colour=word in COLOURS, form=word in FORMS, place=False))
    found = drawn(model, asked, AWAY, seed + 1, negative)
    lacks = [seen is not None and word not in (seen.colour, seen.form) for seen, word in zip(found, away, strict=True)]
    return float(np.mean(lacks))


def drawn(
    model: Model, texts: list[str], guidance: float, seed: int, negative: list[str] | None = None
) -> list[Shape | None]:
    """What a detector sees in a picture of each text."""
    away = None if negative is None else {"text": negative}
    x = model.sample(len(texts), {"text": texts}, guidance, seed=seed, negative=away)
    return [recognise(picture) for picture in model.decode(x)]


def show(model: Model, path: Path) -> Path:
    """A grid of pictures, a row for each of a few prompts."""
    texts = ["a red circle on the left", "a blue triangle at the top", "a green square", "a yellow shape on the right"]
    return prompted(model, texts, GUIDANCE, path)


def main(out: str, tell: Callable[[str], None] = print) -> Obeyed:
    """Train on the embedded shapes, draw, judge."""
    osmotic.train("shapes", out, RECIPE, tell=tell)
    model = load(out)
    found = judge(model)
    for line in [*found.lines(), str(show(model, Path(out) / "prompts.png"))]:
        tell(line)
    return found


if __name__ == "__main__":
    main(sys.argv[1])
