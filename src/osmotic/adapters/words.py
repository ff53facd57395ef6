"""Textual inversion: new words and new classes, learned as rows of a table while everything else stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from osmotic.adapters.errors import AdapterError
from osmotic.adapters.files import Header, fingerprint, read, write
from osmotic.adapters.table import Table
from osmotic.nn.ports import Category, Labels, Vocabulary

Port = Labels | Category | Vocabulary
COUNTS: dict[type[nn.Module], str] = {Labels: "classes", Category: "categories", Vocabulary: "vocabulary"}
"""What each port calls the number of ids it knows; a null's id is that number."""


class WordsHeader(Header):
    """What a file of new words says of itself."""

    kind: Literal["words"] = "words"
    port: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """New words (or classes) of a network.

    Args:
        network: that reads them.
        port: the name of the table's port in it.
        ids: what stands for each in ``cond.tokens`` or ``cond.vector``.
        rows: ``(n, width)``, in the order of the ids; the only weights that learn.
    """

    network: nn.Module
    port: str
    ids: dict[str, int]
    rows: nn.Parameter

    def save(self, path: str | Path) -> None:
        """Store them as a safetensors file.

        Raises:
            AdapterError: if it cannot be written.
        """
        header = WordsHeader(base=fingerprint(self.network), port=self.port, words=tuple(self.ids))
        write(path, header, {"rows": self.rows})


def learn(network: nn.Module, port: Port, words: Mapping[str, int]) -> Words:
    """Give a network new words (a port of tokens), classes (of labels) or categories of an attribute to learn.

    Gal et al. 2022 (arXiv 2208.01618). The whole network is frozen but for the new rows, so a training step cannot move
    anything else. Known ids keep their meaning bit for bit; the new ones follow the last known one.

    Args:
        network: that is taught; from now on only these rows of it require gradients.
        port: its port: ``network.embedding.vector``, ``.vector.each[i]`` of attributes, or ``.tokens.embed``.
        words: the new words, each with the known id whose row it begins as, the most alike.

    Raises:
        ValueError: for no words, one that is there already, an id that is not known, or a port of another network.
    """
    _refuse(port, words)
    begin = torch.tensor(list(words.values()), device=port.table.weight.device)
    return _extend(network, _name(network, port), port, list(words), port.table(begin))


def load(path: str | Path, network: nn.Module) -> Words:
    """Give a network the words of a file.

    Raises:
        ValueError: if it has a word of the same name already.
        AdapterError: if the file is damaged or was made for another network.
    """
    header, tensors = read(path, WordsHeader, network)
    port = dict(network.named_modules()).get(header.port)
    rows = tensors.get("rows")
    if not isinstance(port, Port) or rows is None or len(tensors) != 1:
        raise AdapterError(f"{path} is damaged: it holds no rows for a table of this network; take another copy.")
    if rows.shape != (len(set(header.words)), port.table.embedding_dim):
        raise AdapterError(f"{path} is damaged: it does not hold a row for each word; take another copy.")
    _refuse(port, dict.fromkeys(header.words, 0))
    return _extend(network, header.port, port, list(header.words), rows.to(port.table.weight))


def learned(network: nn.Module) -> list[Words]:
    """The words that a network was given, those learned together as one value, in the order of their ids."""
    found = []
    for name, port in network.named_modules():
        if isinstance(port, Port) and isinstance(port.table, Table):
            ids = iter(port.table.words.items())
            found += [Words(network, name, dict(islice(ids, len(rows))), rows) for rows in port.table.rows]
    return found


def _extend(network: nn.Module, name: str, port: Port, words: list[str], rows: torch.Tensor) -> Words:
    if not isinstance(port.table, Table):
        port.table = Table(port.table, _count(port))
    network.requires_grad_(False)
    parameter = port.table.add(words, rows)
    setattr(port, COUNTS[type(port)], _count(port) + len(words))
    return Words(network, name, {word: port.table.words[word] for word in words}, parameter)


def _refuse(port: Port, words: Mapping[str, int]) -> None:
    count, table = _count(port), port.table
    if not words:
        raise ValueError("Name at least one word to learn.")
    for word, begin in words.items():
        if isinstance(table, Table) and word in table.words:
            raise ValueError(f"This network has learned {word!r} already; choose another name.")
        if not 0 <= begin < count:
            raise ValueError(f"The word {word!r} begins as one of the {count} known ids, not as {begin}.")


def _count(port: Port) -> int:
    count: int = getattr(port, COUNTS[type(port)])
    return count


def _name(network: nn.Module, port: nn.Module) -> str:
    name: str
    for name, module in network.named_modules():
        if module is port:
            return name
    raise ValueError("This port belongs to another network; give one of this network's own.")
