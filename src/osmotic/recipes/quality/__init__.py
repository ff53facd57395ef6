"""How good samples are: a catalogue of measures, and the recipe that draws, measures and stores."""

from osmotic.recipes.quality.measure import Drawing, lines, quality

__all__ = ["Drawing", "lines", "quality"]
