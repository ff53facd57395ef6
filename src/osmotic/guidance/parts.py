"""A scale of its own for each part of a condition: an image first, then what else is said, given it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from osmotic.denoiser import Denoiser
from osmotic.guidance.affine import Affine, Lead
from osmotic.guidance.views import Shown, View, everything, nothing
from osmotic.schedules import Number


def by_parts(
    denoiser: Denoiser,
    told: Sequence[bool],
    scales: Mapping[int, Number],
    rest: Number = 1.0,
    first: int | None = None,
) -> Affine:
    """``D(0) + s_f (D(f) - D(0)) + rest (D(f, r) - D(f)) + sum_i s_i (D(f, r, i) - D(f, r))``.

    f is the part that comes first (an image), r all that has no scale of its own, i each of the others that has one. An
    image and a text with a scale each are InstructPix2Pix's two (Brooks et al. 2022, arXiv 2211.09800;
    :func:`~osmotic.guidance.two_scales`); attributes with a scale each and nothing besides are a sum of scores (Liu et
    al. 2022, arXiv 2206.01714; :func:`~osmotic.guidance.composed`), which stands for the product of the conditional
    densities at each single level alone. With no scales it is classifier-free guidance with ``rest``.

    One forward of the views whose coefficients are not 0: at most three, and one more for each scale after the first.

    Args:
        denoiser: as for :class:`~osmotic.guidance.Affine`, trained with parts of its conditions dropped.
        told: for each part, in the order of ``Condition.keep``'s columns, whether anything is said of it.
        scales: by the number of a part its scale, below 0 to lead away from it.
        rest: the scale of what has none of its own.
        first: the number of the part that comes before all others, given which they are; None for none.

    Raises:
        ValueError: for a scale of a part of which nothing is said.
    """
    whole = frozenset(i for i, said in enumerate(told) if said)
    unsaid = sorted(set(scales) - whole)
    if unsaid:
        raise ValueError(f"Nothing is said of part {unsaid[0]}, which has a scale; say it, or leave its scale out.")

    def view(shown: frozenset[int]) -> View:
        if shown == whole:
            return everything
        return Shown(tuple(i in shown for i in range(len(told)))) if shown else nothing

    start = frozenset(() if first is None else {first}) & whole
    given = start | (whole - set(scales))
    steps = [(frozenset[int](), start, scales.get(-1 if first is None else first, rest)), (start, given, rest)]
    steps += [(given, given | {i}, scale) for i, scale in sorted(scales.items()) if i not in start]
    return Affine(denoiser, nothing, [Lead(view(a), view(b), scale) for a, b, scale in steps if a != b])
