"""Few-step models of 32 x 32 pictures: ``python -m osmotic.recipes.few_step DATA FOLDER [METHOD ...]``.

Trains a teacher of about 20 M parameters on DATA (an .npz with ``x`` and ``y``, CIFAR-10's binary folder, a folder of
pictures), distils it by each method, and prints every student beside its teacher: Frechet distance on features, at
every number of evaluations, with seconds for all samples. Made for one GPU and bfloat16; each run resumes where it
stands.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import osmotic
from osmotic.recipes.beside import beside
from osmotic.recipes.distill import distill
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe

METHODS = ("consistency", "ect", "scm", "ctm", "knowledge", "dmd")
"""What a comparison on pictures of this size would start with; any others can be named."""

TEACHER = Recipe(
    options=Options(
        steps=40_000, batch_size=512, learning_rate=1e-3, warmup=1000, ema=(1000.0,), checkpoint_every=2000
    ),
    architecture=Architecture(network="unet", widths=(96, 192, 192), blocks=3, attention=(1,), dropout=0.1),
    holdout=0.05,
    flip=True,
)

# The students' own: two branches need their differences, so the network computes in float32 (TF32 on tensor cores).
STUDENT = Options(batch_size=256, warmup=500)


def compare(
    data: Any,
    folder: str | Path,
    methods: tuple[str, ...] = METHODS,
    steps: int | None = None,
    count: int | None = None,
    **more: Any,
) -> list[str]:
    """Train, distil, measure; what is finished in the folder is not done again.

    Args:
        data: as for ``osmotic.train``.
        folder: of all runs.
        methods: names of ``osmotic.distill.METHODS``.
        steps: of the teacher and of each student; by default the recipe's and the methods' own.
        count: samples that each is measured on; by default as many as fit into two minutes, and 256 at least.
        more: options of both, such as ``batch_size``.

    Returns:
        The lines of all tables.
    """
    folder, lines = Path(folder), []
    teacher = folder / "teacher"
    given = more | ({} if steps is None else {"steps": steps})
    options = TEACHER.options.model_copy(update=given)
    resume = (teacher / "recipe.json").exists()
    recipe = TEACHER.model_copy(update={"options": Options(**options.model_dump())})
    osmotic.train(data, teacher, recipe, resume=resume, tell=print)
    for method in methods:
        out = folder / method
        options = Options(**{**STUDENT.model_dump(include=STUDENT.model_fields_set), **given})
        distill(
            teacher,
            out,
            method,
            data=data,
            options=options,
            resume=(out / "recipe.json").exists(),
            tell=print,
        )
        table, _ = beside(teacher, out, data, print, count=count)
        lines += [method, *table]
    return lines


def main(data: str, out: str, *methods: str) -> None:
    """Compare and print."""
    for line in compare(data, out, methods or METHODS):
        print(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
