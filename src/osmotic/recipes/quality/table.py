"""Scores as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from osmotic.data.errors import plural
from osmotic.recipes.scores import Quality


def lines(found: Quality) -> Sequence[str]:
    """The table that the command prints."""
    rows = [("", "value", "95 % interval", "real data", "better", "of")]
    for score in found.scores:
        reach = "" if score.low is None or score.high is None else f"{number(score.low)} to {number(score.high)}"
        real = "" if score.real is None else number(score.real)
        better = {"lower": "lower", "higher": "higher", "real": "as real"}[score.better]
        rows.append((score.name, number(score.value), reach, real, better, f"{score.samples:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = [
        "  ".join(cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row))
        for row in rows
    ]
    how = found.sampled
    asked = ", given conditions in the data's shares" if how.conditional else ""
    notes = [
        f"{plural(found.samples, 'sample')} by {how.sampler}, {plural(how.steps, 'step')} on the grid {how.grid} "
        f"({plural(how.evaluations, 'evaluation')}), guidance {how.guidance:g}{asked}, seed {how.seed}",
        f"beside {plural(found.held_out, 'held-out sample')}; neighbours among {found.training:,} training samples",
        f"features: {found.features}; weights {found.weights} at step {found.step:,}; {found.seconds:.0f} s in all",
        *([f"held-out loss by {noise_levels(found.by_noise)}"] if found.by_noise else []),
        "`osmotic report RUN` says what each score tells; distances depend on the counts, so compare equal ones",
        "real data: training data in place of samples (held-out data where copies or classes are judged)",
    ]
    return [*table, "", *notes, *(f"note: {warning}" for warning in found.warnings)]


def noise_levels(found: Sequence[tuple[str, float]]) -> str:
    """The loss in each bin of log-SNR, from noise to data."""
    bins = ", ".join(f"{name.removeprefix('log_snr ')}: {number(value)}" for name, value in found)
    return f"log-SNR, from noise to data, {bins}"


def number(value: float) -> str:
    """Three figures that matter, and no power of ten where a person can do without."""
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.2e}"
