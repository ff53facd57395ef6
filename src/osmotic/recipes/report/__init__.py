"""One page that shows what a run is and how good it is, or two of them side by side (torch-free)."""

from osmotic.recipes.report.page import report

__all__ = ["report"]
