"""Texts read by a ready text encoder (CLIP, T5, BERT, ...), frozen, from a local folder or the Hugging Face hub.

Needs transformers, the optional extra `text`; it is imported when a text is read, not before.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from .encoding import Frozen
from .errors import DataError

if TYPE_CHECKING:
    from torch import nn

LONGEST = 77  # tokens of a text that are read: CLIP's
AT_ONCE = 64


class Encoder(Frozen):
    """A frozen text encoder: a text is its last hidden states.

    Args:
        name: a folder, or a name on the hub.
        width: of the features.
        length: tokens of the longest caption, as far as it is read.
        fingerprint: of its weights, so that another encoder of the same name is refused.
    """

    name: str
    width: int = Field(ge=1)
    length: int = Field(ge=1)
    fingerprint: str

    def prompt(self, text: str) -> None:
        """Check a text that a person wrote.

        Raises:
            DataError: for one longer than any caption, or where the encoder is not what it was.
        """
        count = len(self._loaded().tokenizer(text)["input_ids"])
        if count > self.length:
            raise DataError(
                f"the text {text[:40]!r} ... has {count} tokens, and the longest that this model learned from has "
                f"{self.length}; shorten it"
            )

    def pieces(self, text: str) -> list[tuple[str, int]]:
        """The words of a text in order, each with how many tokens are the word's; what the encoder adds is one, too.

        Raises:
            DataError: for an encoder whose tokenizer does not tell.
        """
        tokenizer = self._loaded().tokenizer
        if not tokenizer.is_fast:
            raise DataError(f"{self.name} has a tokenizer that does not say which tokens are a word's: use a fast one")
        read = tokenizer(text)
        ids, places = read["input_ids"], read.word_ids()
        found: list[tuple[str, int]] = []
        for place, group in itertools.groupby(range(len(ids)), lambda i: (places[i], i if places[i] is None else 0)):
            rows = list(group)
            if place[0] is None:
                word = str(tokenizer.convert_ids_to_tokens(ids[rows[0]]))
            else:
                word = text[slice(*read.word_to_chars(place[0]))].strip().casefold()
            found.append((word, len(rows)))
        return found

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Features ``(B, length, width)`` and which of them are real ``(B, length)``; an empty text has none."""
        import torch
        from tqdm import tqdm

        loaded = self._loaded()
        features = np.zeros((len(texts), self.length, self.width), np.float32)
        mask = np.zeros(features.shape[:2], bool)
        starts = range(0, len(texts), AT_ONCE)
        for start in tqdm(starts, desc="reading texts", delay=2, leave=False):
            part = list(texts[start : start + AT_ONCE])
            read = loaded.tokenizer(
                part, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
            )
            with torch.no_grad():
                states = loaded.model(input_ids=read["input_ids"], attention_mask=read["attention_mask"])
            rows = slice(start, start + len(part))
            features[rows] = states.last_hidden_state.float().numpy()
            mask[rows] = read["attention_mask"].bool().numpy()
        mask &= np.array([bool(text.strip()) for text in texts])[:, None]
        return features, mask

    def describe(self) -> str:
        """One line for a person."""
        return f"captions of up to {self.length} tokens, read by {self.name} ({self.width} features each)"

    def _loaded(self) -> Loaded:
        found = load(self.name)
        if found.fingerprint != self.fingerprint:
            raise DataError(f"{self.name} holds another text encoder than this model learned from: give the same back")
        return found


class Loaded(NamedTuple):
    """What transformers gave."""

    tokenizer: Any
    model: nn.Module
    width: int
    longest: int
    fingerprint: str


def fit_encoder(name: str, texts: Sequence[str]) -> Encoder:
    """The encoder of this name, for captions like these.

    Raises:
        DataError: if there is none.
    """
    found = load(name)
    counts = [len(ids) for ids in found.tokenizer(sorted(set(texts)))["input_ids"]]
    length = min(max(counts), found.longest)
    return Encoder(name=name, width=found.width, length=length, fingerprint=found.fingerprint)


@lru_cache(maxsize=2)
def load(name: str) -> Loaded:
    """A tokenizer and a text model; only safetensors are read, and no code of the folder is run.

    Raises:
        DataError: if transformers is not installed, or there is no such encoder.
    """
    try:
        import transformers
    except ImportError as error:
        raise DataError("a text encoder needs transformers: pip install 'osmotic[text]'") from error
    kinds: dict[str, Any] = {"clip": transformers.CLIPTextModel, "clip_text_model": transformers.CLIPTextModel}
    kinds |= {"t5": transformers.T5EncoderModel, "mt5": transformers.MT5EncoderModel}
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        kind = kinds.get(config.model_type, transformers.AutoModel)
        model = kind.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # transformers has many errors for what is not there or not right
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{name}: no text encoder of transformers with safetensors there ({reason})") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    hashed = hashlib.blake2b(digest_size=16)
    for key, value in sorted(model.state_dict().items()):
        hashed.update(key.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
    own = getattr(model.config, "hidden_size", None) or getattr(model.config, "d_model", None)
    if own is None:
        raise DataError(f"{name}: a {type(model).__name__} gives no features for each token: name a text encoder")
    places = getattr(model.config, "max_position_embeddings", LONGEST)
    longest = int(min(LONGEST, places, tokenizer.model_max_length))
    return Loaded(tokenizer, model.eval().requires_grad_(False), int(own), longest, hashed.hexdigest())
