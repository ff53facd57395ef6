"""Adapters on disk: whole or absent, for the network they were made for, and nothing else is let in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapting import base, bits, pick, same, stir
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from osmotic.adapters import AdapterError, ControlNet, LoRA, learn, load
from osmotic.adapters import files as adapter_files
from osmotic.nn import Embedding, UNet

MEMBER, OTHER = pick("unet-7x13", "dit-7x13")


def lora_file(path: Path) -> Callable[[nn.Module], object]:
    lora = LoRA(base(MEMBER))
    stir(lora.add("style", 2))
    lora.save("style", path)
    return lambda network: LoRA(network).load(path)


def control_file(path: Path) -> Callable[[nn.Module], object]:
    control = ControlNet(base(MEMBER), 1)
    stir(control)
    control.save(path)
    return lambda network: ControlNet.load(path, network)


def words_file(path: Path) -> Callable[[nn.Module], object]:
    network = base(MEMBER)
    learn(network, network.embedding.vector, {"mine": 0}).save(path)
    return lambda network: load(path, network)


KINDS = {"LoRA": lora_file, "ControlNet": control_file, "words": words_file}
every = pytest.mark.parametrize("kind", KINDS)


def edit(path: Path, change: Callable[[dict], object] = lambda header: None, **tensors: torch.Tensor | None) -> None:
    """Rewrite a file with its header or some tensors changed."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["osmotic"])
    own = load_file(path)
    for name, tensor in tensors.items():
        key = next(iter(own)) if name == "first" else name
        own.pop(key, None)
        if tensor is not None:
            own[key] = tensor
    change(header)
    save_file(own, path, {"osmotic": json.dumps(header)})


def reseal(path: Path) -> None:
    edit(path, lambda header: header.update(sha256=adapter_files._digest(load_file(path))))


def refused(call: Callable[[], object], match: str) -> None:
    with pytest.raises(AdapterError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


@every
def test_another_network_is_refused_by_the_first_layer_that_does_not_fit(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    attach = KINDS[kind](path)
    wider = UNet(3, (8, 16), attention={1}, head_width=4, embedding=Embedding(20, classes=5, token_features=6))
    less = UNet(3, (8, 12), attention={1}, head_width=4, embedding=Embedding(20, classes=5))
    more = base(MEMBER)
    more.late = nn.Linear(2, 3)
    transformer = base(OTHER)
    for network, match in [
        (wider, r"made for another network: 'shrink.0.weight' is of shape \(12, 8, 3, 3\) there and of shape \(16, 8,"),
        (less, r"another network: 'embedding.tokens.null' is of shape \(20,\) there and absent in this one"),
        (more, r"another network: 'late.weight' is absent there and of shape \(3, 2\) in this one"),
        (transformer, r"another network: 'stem.weight' is of shape \(8, 3, 3, 3\) there and of shape \(24, 12\) in"),
    ]:
        before = bits(network)
        refused(lambda network=network: attach(network), match)
        assert same(network.state_dict(), before)  # nothing was taught
    attach(base(MEMBER, seed=3))  # other weights of the same network are welcome


@every
@pytest.mark.parametrize("other", KINDS)
def test_each_kind_is_loaded_as_what_it_is(kind: str, other: str, tmp_path: Path) -> None:
    if kind == other:
        return
    path = tmp_path / "a.safetensors"
    KINDS[kind](path)
    attach = KINDS[other](tmp_path / "b.safetensors")
    os.replace(path, tmp_path / "b.safetensors")
    refused(lambda: attach(base(MEMBER)), f"holds {kind}, not {other}")


@every
def test_damage_is_seen(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    attach = KINDS[kind](path)
    data = path.read_bytes()
    first = next(iter(load_file(path).values()))

    def flip(place: int) -> None:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])

    for harm, match in [
        (lambda: path.write_bytes(data[: len(data) // 2]), "cannot be read as safetensors"),
        (lambda: path.write_bytes(b""), "cannot be read as safetensors"),
        (lambda: flip(len(data) - 2), "tensors differ from their checksum"),
        (lambda: edit(path, first=first + 1), "tensors differ from their checksum"),
        (lambda: edit(path, first=None), "tensors differ from their checksum"),
        (lambda: edit(path, first=first * float("nan")) or reseal(path), "is not finite"),
        (lambda: edit(path, first=first.repeat_interleave(2, 0)) or reseal(path), "is damaged"),
        (lambda: edit(path, first=None) or reseal(path), "is damaged"),
        (lambda: edit(path, extra=torch.ones(2)) or reseal(path), "is damaged"),
        (lambda: edit(path, lambda h: h.update(format=9)), "has format 9, this version reads 1; update osmotic"),
        (lambda: edit(path, lambda h: h.pop("base")), "is damaged: base in its header"),
        (lambda: edit(path, lambda h: h.update(strange=1)), "is damaged: strange in its header"),
        (lambda: save_file({"x": torch.ones(1)}, path), "not written by osmotic"),
        (lambda: save_file({"x": torch.ones(1)}, path, {"osmotic": "[" * 100_000}), "not written by osmotic"),
        (lambda: save_file({"x": torch.ones(1)}, path, {"osmotic": "[]"}), "not written by osmotic"),
        (path.unlink, "cannot be read"),
    ]:
        path.write_bytes(data)
        harm()
        network = base(MEMBER)
        before = bits(network)
        refused(lambda network=network: attach(network), match)
        assert same(network.state_dict(), before), match
    path.write_bytes(data)
    attach(base(MEMBER))


def test_a_header_that_names_strange_layers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    attach = lora_file(path)
    data = path.read_bytes()
    for change in ({"rank": 0}, {"layers": []}, {"layers": ["nowhere"]}, {"layers": ["norm"]}):
        path.write_bytes(data)
        edit(path, lambda header, change=change: header.update(change))
        refused(lambda: attach(base(MEMBER)), "names layers or a rank that cannot be")
    path.write_bytes(data)
    edit(path, lambda header: header.update(rank=3))
    refused(lambda: attach(base(MEMBER)), "not as its header says")


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    lora = LoRA(base(MEMBER))
    lora.add("style", 2)
    lora.save("style", path)
    data = path.read_bytes()
    stir(lora["style"])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if step == "write":
        real = Path.open

        class Full:
            def __init__(self, file) -> None:
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *_: object) -> None:
                self.file.close()

            write = fail

        monkeypatch.setattr(Path, "open", lambda self, mode: Full(real(self, mode)))
    else:
        monkeypatch.setattr(os, step, fail)
    refused(lambda: lora.save("style", path), "cannot be written: No space left on device")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == data
    refused(lambda: lora.save("style", tmp_path / "absent" / "a"), "cannot be written: No such file")
    lora.save("style", path)
    assert path.read_bytes() != data
    with torch.no_grad():
        next(lora["style"].parameters()).fill_(float("inf"))
    data = path.read_bytes()
    refused(lambda: lora.save("style", path), "is not finite; train again")
    assert path.read_bytes() == data
