"""unCLIP on the embedded shapes, judged exactly: ``python -m osmotic.recipes.unclip_shapes FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from osmotic.data.shapes import Shape, captioned, every, recognise
from osmotic.recipes.unclip import CONTRASTIVE, Recipes, unclip
from osmotic.recipes.unclipped import Unclip
from osmotic.report import pictures
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe

PROMPTS, ORIGINALS, EACH = 192, 48, 4
"""Pictures of prompts, pictures that are varied, and variations of each."""

UNSEEN = 10_000
"""The seed of pictures that nobody trained on."""

RECIPES = Recipes(
    Recipe(
        options=Options(steps=300, batch_size=128, learning_rate=2e-3, warmup=20, ema=(50.0,)),
        process=CONTRASTIVE.process,
        architecture=Architecture(widths=(16, 32, 64)),
    ),
    Recipe(
        options=Options(steps=2000, batch_size=256, learning_rate=1e-3, warmup=20, ema=(200.0,)),
        architecture=Architecture(widths=(128, 128, 128)),
    ),
    Recipe(
        options=Options(steps=900, batch_size=64, learning_rate=2e-3, warmup=20, ema=(90.0,)),
        architecture=Architecture(widths=(24, 48), blocks=1, attention=(1,), dropout=0.0),
    ),
)
"""A few minutes of one core."""


@dataclass(frozen=True)
class Kept:
    """How often a detector finds in pictures what was asked for; shares in [0, 1].

    Args:
        colour, form, place: of pictures of prompts, through prior and decoder, whose own are the prompt's.
        both: of them, right colour and form.
        varied: of variations of pictures that nobody trained on, those that keep colour and form.
        stayed: of them, those that keep the place.
    """

    colour: float
    form: float
    place: float
    both: float
    varied: float
    stayed: float

    def lines(self) -> list[str]:
        """For a terminal."""
        return [f"{name:<8} {share:7.1%}" for name, share in vars(self).items()]


def judge(model: Unclip, prompts: int = PROMPTS, originals: int = ORIGINALS, seed: int = 0) -> Kept:
    """Draw every shape there is in turn from its caption, vary pictures, and see what the results show."""
    kinds = every()
    asked = [kinds[i % len(kinds)] for i in range(prompts)]
    x = model.sample(prompts, [shape.caption() for shape in asked], seed=seed)
    colour, form, place = _same(model, x, asked)
    raw, _, shown = captioned(originals, UNSEEN)
    given = torch.from_numpy(model.decoder.spec.encode(raw)).repeat_interleave(EACH, 0)
    made = model.picture(model.reader.pictures(given), seed=seed)
    varied = _same(model, made, [shape for shape in shown for _ in range(EACH)])
    return Kept(
        colour=float(colour.mean()),
        form=float(form.mean()),
        place=float(place.mean()),
        both=float((colour & form).mean()),
        varied=float((varied[0] & varied[1]).mean()),
        stayed=float(varied[2].mean()),
    )


def _same(model: Unclip, x: torch.Tensor, asked: list[Shape]) -> list[np.ndarray]:
    """For each picture whether its colour, form and place are those."""
    found = [recognise(picture) for picture in model.decode(x)]
    pairs = list(zip(found, asked, strict=True))
    return [
        np.array([seen is not None and getattr(seen, name) == getattr(shape, name) for seen, shape in pairs])
        for name in ("colour", "form", "place")
    ]


def show(model: Unclip, folder: Path) -> list[Path]:
    """Pictures of prompts, variations, and a way between two pictures."""
    texts = ["a red circle on the left", "a blue triangle at the top", "a green square", "a yellow shape on the right"]
    x = model.sample(8 * len(texts), [text for text in texts for _ in range(8)])
    paths = [pictures.save(pictures.grid(model.decode(x), 8, texts), folder / "prompts.png")]
    raw, _, _ = captioned(4, UNSEEN)
    given = torch.from_numpy(model.decoder.spec.encode(raw))
    varied = torch.cat([torch.cat([one[None], model.variations(one, 7)]) for one in given])
    paths.append(pictures.save(pictures.grid(model.decode(varied), 8), folder / "variations.png"))
    ways = torch.cat([model.between(given[i], given[i + 1], 8) for i in range(3)])
    paths.append(pictures.save(pictures.grid(model.decode(ways), 8), folder / "between.png"))
    return paths


def main(folder: str | Path, tell: Callable[[str], None] = print) -> Kept:
    """Train on the embedded shapes, draw, judge."""
    model = unclip("shapes", folder, RECIPES, tell=tell)
    found = judge(model)
    for line in [*found.lines(), *map(str, show(model, Path(folder)))]:
        tell(line)
    return found


if __name__ == "__main__":
    main(sys.argv[1])
