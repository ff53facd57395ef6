"""How good samples are: a catalogue of measures, and the recipe that draws, measures and stores."""

from osmotic.recipes.quality.drawing import Drawing
from osmotic.recipes.quality.measure import quality
from osmotic.recipes.quality.table import lines

__all__ = ["Drawing", "lines", "quality"]
