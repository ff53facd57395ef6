"""Pictures of one shape with captions, drawn on the fly, and the detector that says exactly what a picture shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLOURS = {"red": (214, 40, 40), "green": (34, 160, 70), "blue": (40, 80, 214), "yellow": (232, 186, 0)}
FORMS = ("circle", "square", "triangle")
PLACES = {"on the left": (-1, 0), "on the right": (1, 0), "at the top": (0, -1), "at the bottom": (0, 1)}
SIDE = 16
FINE = 8  # subpixels along each side of a pixel
AWAY, JITTER = 3.6, 0.8  # pixels from the middle to where a shape stands, and how far it may stray
RADII = (2.6, 3.4)
INK = 40.0  # distance from white, of 255, from which a pixel belongs to the shape
FULL = 0.5  # share of captions that say everything

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Shape:
    """What a picture shows: a colour, a form and a place, by name."""

    colour: str
    form: str
    place: str

    def caption(self, colour: bool = True, form: bool = True, place: bool = True) -> str:
        """The sentence that says this much of it."""
        words = ["a", *([self.colour] if colour else []), self.form if form else "shape"]
        return " ".join([*words, *([self.place] if place else [])])


def every() -> list[Shape]:
    """All shapes that there are."""
    return [Shape(colour, form, place) for colour in COLOURS for form in FORMS for place in PLACES]


def draw(shape: Shape, rng: np.random.Generator) -> Picture:
    """A picture ``(16, 16, 3)`` of it on white, its size and exact place drawn at random."""
    across, down = (SIDE / 2 + AWAY * step for step in PLACES[shape.place])
    x, y = across + rng.uniform(-JITTER, JITTER), down + rng.uniform(-JITTER, JITTER)
    cover = coverage(shape.form, x, y, rng.uniform(*RADII))[..., None]
    picture: Picture = np.rint(255 + cover * (np.array(COLOURS[shape.colour]) - 255)).astype(np.uint8)
    return picture


def coverage(form: str, x: float, y: float, radius: float) -> NDArray[np.float64]:
    """The share of each pixel ``(16, 16)`` that a form covers; forms of one radius have about the same area."""
    places = (np.arange(SIDE * FINE) + 0.5) / FINE
    dx, dy = places[None] - x, places[:, None] - y
    if form == "circle":
        inside = dx**2 + dy**2 < radius**2
    elif form == "square":
        inside = np.maximum(np.abs(dx), np.abs(dy)) < 0.9 * radius
    else:
        inside = (dy < 0.85 * radius) & (dy > 2 * np.abs(dx) - 1.35 * radius)
    return np.asarray(inside.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3)))


def recognise(picture: Picture) -> Shape | None:
    """What a picture shows, None where it shows nothing on white.

    The colour is the nearest to the mean of the darkest pixels, the place that of the shape's middle, the form the one
    whose drawing with the same middle and area covers the same pixels best.
    """
    away = 255.0 - picture.astype(np.float64)
    ink = np.sqrt((away**2).mean(-1))
    if (ink > INK).sum() < 4:
        return None
    body = away[ink > 0.8 * np.quantile(ink, 0.98)].mean(0)
    colours = {name: 255.0 - np.array(value) for name, value in COLOURS.items()}
    colour = min(colours, key=lambda name: float(np.square(body - colours[name]).sum()))
    cover = np.clip(away @ colours[colour] / np.square(colours[colour]).sum(), 0, 1)
    cover = np.where(ink > INK / 2, cover, 0)
    total = cover.sum()
    grid = np.arange(SIDE) + 0.5
    x, y = float((cover.sum(0) * grid).sum() / total), float((cover.sum(1) * grid).sum() / total)
    step = (x - SIDE / 2, y - SIDE / 2)
    place = max(PLACES, key=lambda name: step[0] * PLACES[name][0] + step[1] * PLACES[name][1])
    return Shape(colour, min(FORMS, key=lambda form: _misfit(cover, form, x, y)), place)


def _misfit(cover: NDArray[np.float64], form: str, x: float, y: float) -> float:
    """How far a drawing of the form, of the same middle and area, is from what is there."""
    area, best = cover.sum(), np.inf
    grid = np.arange(SIDE) + 0.5
    for scale in (0.94, 1.0, 1.06):
        radius = scale * np.sqrt(area / _area(form))
        found = coverage(form, x, y, radius)
        # A triangle's middle is not where it is drawn from: put the middles one over the other.
        dx, dy = (float((found.sum(axis) * grid).sum() / found.sum()) for axis in (0, 1))
        found = coverage(form, 2 * x - dx, 2 * y - dy, radius)
        best = min(best, float(np.square(found - cover).sum()))
    return best


def _area(form: str) -> float:
    """Of radius 1."""
    return {"circle": np.pi, "square": 1.8**2, "triangle": 2.2 * 2.2 / 2}[form]


def captioned(count: int, seed: int) -> tuple[NDArray[np.uint8], list[str], list[Shape]]:
    """Pictures ``(N, 16, 16, 3)``, their captions, half of which leave something out, and what they show."""
    rng = np.random.default_rng(seed)
    kinds = every()
    shapes = [kinds[i] for i in rng.integers(len(kinds), size=count)]
    pictures = np.stack([draw(shape, rng) for shape in shapes])
    texts = []
    for shape in shapes:
        said = np.ones(3, bool) if rng.random() < FULL else rng.random(3) < 0.5
        texts.append(shape.caption(*said.tolist()))
    return pictures, texts, shapes
