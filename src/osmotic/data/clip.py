"""Pictures and texts in the one space of a ready CLIP, frozen, from a local folder or the Hugging Face hub.

Radford et al. 2021 (arXiv 2103.00020). Needs transformers, the optional extra `text`; it is imported when one is
loaded, not before.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .encoder import LONGEST
from .errors import DataError


class Clip:
    """Both halves of a CLIP.

    Args:
        model: a CLIPModel of transformers.
        tokenizer: of its texts.
        size: side of the pictures that it reads.
        mean, std: of the colours, by which it standardises them.
        fingerprint: of its weights.
    """

    def __init__(
        self, model: Any, tokenizer: Any, size: int, mean: list[float], std: list[float], fingerprint: str
    ) -> None:
        self.model, self.tokenizer, self.size, self.fingerprint = model, tokenizer, size, fingerprint
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return int(self.model.config.projection_dim)

    @torch.no_grad()
    def pictures(self, raw: NDArray[np.uint8]) -> Tensor:
        """The unit vectors ``(B, D)`` of pictures ``(B, H, W, C)``, grey or RGB.

        They are brought to CLIP's size with bicubic interpolation, which for others than squares stretches them: a
        model's samples have one shape, and what is cut off would not be read.
        """
        x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(raw, -1, 1))).float() / 255
        x = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
        x = torch.nn.functional.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        pooled = self.model.vision_model(pixel_values=(x - self.mean) / self.std).pooler_output
        return _unit(self.model.visual_projection(pooled))

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """The unit vectors ``(B, D)`` of texts, cut to what CLIP reads."""
        longest = min(LONGEST, int(self.model.config.text_config.max_position_embeddings))
        read = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        pooled = self.model.text_model(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).pooler_output
        return _unit(self.model.text_projection(pooled))


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=1)


@lru_cache(maxsize=1)
def load_clip(name: str) -> Clip:
    """The CLIP of a folder, or of a name on the hub; only safetensors are read, and no code of the folder is run.

    Raises:
        DataError: if transformers is not installed, or there is no such model.
    """
    try:
        import transformers
    except ImportError as error:
        raise DataError("a ready CLIP needs transformers: pip install 'osmotic[text]'") from error
    try:
        model: Any = transformers.CLIPModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        looks, _ = transformers.image_processing_base.ImageProcessingMixin.get_image_processor_dict(name)
        mean, std = looks["image_mean"], looks["image_std"]
    except Exception as error:  # transformers has many errors for what is not there or not right
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{name}: no CLIP of transformers with safetensors there ({reason})") from error
    hashed = hashlib.blake2b(digest_size=16)
    for key, value in sorted(model.state_dict().items()):
        hashed.update(key.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    size = int(model.config.vision_config.image_size)
    return Clip(model.eval().requires_grad_(False), tokenizer, size, mean, std, hashed.hexdigest())
