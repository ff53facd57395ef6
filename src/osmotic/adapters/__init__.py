"""What is learned beside a trained network that stays as it is: LoRA, control by an image, new words.

Each is a network, or changes one in place, that a :class:`osmotic.NeuralDenoiser` takes like any other: every sampler,
guidance and objective works unchanged. Each is stored as one small safetensors file, apart from its base.
"""

from osmotic.adapters.control import ControlNet
from osmotic.adapters.errors import AdapterError
from osmotic.adapters.lora import Adapter, LoRA, every, usual
from osmotic.adapters.words import Words, learn, learned, load

__all__ = ["Adapter", "AdapterError", "ControlNet", "LoRA", "Words", "every", "learn", "learned", "load", "usual"]
