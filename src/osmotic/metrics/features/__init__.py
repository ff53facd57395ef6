"""What measures see of samples: `Features` map samples to vectors.

`learned`, `module` and `inception` are imported by their own names: unlike what is here they need torch to be imported.
"""

from .base import Features
from .default import default_features
from .principal import Principal
from .random_conv import RandomConv
from .raw import Pixels, Raw

__all__ = ["Features", "Pixels", "Principal", "RandomConv", "Raw", "default_features"]
