"""Checkpoints are whole or not there, and nothing that is not exactly right is loaded."""

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from training_toys import Net

from osmotic.training import checkpoint, manifest
from osmotic.training.errors import Diverged, RunError, SaveFailed
from osmotic.training.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", {}, {})


def files(step: int, size: int = 1000) -> dict[str, dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(step)
    weights = {"net.w": torch.randn(size, generator=draw), "net.n": torch.tensor(step), "net.none": torch.zeros(0)}
    return {"model": weights, "ema-5": {k: v.clone() for k, v in weights.items()}, "optimizer": {}}


def save(run: Run, step: int, held_out: float | None = None, size: int = 1000) -> Path:
    return checkpoint.save(run, step, files(step, size), {"seed": 1}, held_out)


def newest_step(run: Run) -> tuple[int | None, list[str]]:
    said: list[str] = []
    found = checkpoint.newest(run, said.append)
    return (None if found is None else found[1].step), said


def test_a_checkpoint_is_plain_safetensors_and_json(run: Run) -> None:
    folder = save(run, 7, held_out=0.25)
    assert sorted(p.name for p in folder.iterdir()) == [
        "ema-5.safetensors", "manifest.json", "model.safetensors", "optimizer.safetensors",
    ]  # fmt: skip
    contents = json.loads((folder / "manifest.json").read_text())
    assert (contents["format"], contents["step"], contents["held_out"]) == (1, 7, 0.25)
    for name, tensors in files(7).items():
        found = load_file(folder / f"{name}.safetensors")
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in tensors.items())


def test_there_is_none_in_a_fresh_run(run: Run) -> None:
    assert newest_step(run) == (None, [])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "one bit": lambda path: path.write_bytes(
        path.read_bytes()[:-9] + bytes([path.read_bytes()[-9] ^ 1]) + path.read_bytes()[-8:]
    ),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", ["model.safetensors", "ema-5.safetensors", "optimizer.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_the_one_before_is_taken(run: Run, name: str, damage: str) -> None:
    save(run, 1)
    folder = save(run, 2)
    DAMAGE[damage](folder / name)
    step, said = newest_step(run)
    assert step == 1
    assert len(said) == 1
    assert str(folder) in said[0]


def test_random_cuts_and_flips_are_all_found(run: Run) -> None:
    save(run, 1)
    folder = save(run, 2)
    draw = np.random.default_rng(0)
    names = sorted(p.name for p in folder.iterdir())
    contents = manifest.read(folder)
    for case in range(80):
        path = folder / (name := names[case % len(names)])
        intact = path.read_bytes()
        spot = int(draw.integers(len(intact)))
        spoilt = (
            intact[:spot]
            if case % 2
            else intact[:spot] + bytes([intact[spot] ^ (1 << (case % 8))]) + intact[spot + 1 :]
        )
        path.write_bytes(spoilt)
        harmless = newest_step(run)[0] == 2 and name == manifest.NAME and manifest.read(folder) == contents
        assert harmless or newest_step(run)[0] == 1
        path.write_bytes(intact)
    assert newest_step(run) == (2, [])


def test_if_all_are_damaged_nothing_is_trained_from_scratch_by_accident(run: Run) -> None:
    DAMAGE["half"](save(run, 1) / "model.safetensors")
    with pytest.raises(RunError, match="No checkpoint"):
        newest_step(run)


def test_a_folder_that_was_never_finished_is_no_checkpoint(run: Run) -> None:
    save(run, 1)
    shutil.copytree(run.checkpoints / "step-00000001", run.checkpoints / ".tmp-step-00000002")
    assert newest_step(run) == (1, [])


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"files": {"../../recipe.json": {"size": 3, "sha256": "0"}}}, {"extra": 1}]
)
def test_a_manifest_of_another_kind_is_refused(run: Run, change: dict[str, object]) -> None:
    path = save(run, 1) / "manifest.json"
    contents = json.loads(path.read_text()) | change
    known = {key: value for key, value in contents.items() if key in manifest.Manifest.model_fields}
    seal = manifest.Manifest.model_validate(known).sealed().seal
    path.write_text(json.dumps(contents | {"seal": seal}))
    with pytest.raises(RunError):
        newest_step(run)


def test_the_last_ones_and_the_best_one_are_kept(run: Run) -> None:
    for step, loss in enumerate([0.9, 0.3, 0.5, None, 0.4, 0.35], start=1):
        save(run, step, held_out=loss)
        checkpoint.prune(run, keep_last=2)
    assert [folder.name for folder in run.folders()] == ["step-00000006", "step-00000005", "step-00000002"]
    best = checkpoint.best_of(run.complete())
    assert best is not None
    assert best.name == "step-00000002"
    assert not list(run.checkpoints.glob(".tmp*"))


@pytest.mark.parametrize("limit", [0, 100, 3_000, 5_000])
def test_a_full_disk_is_a_sentence_and_costs_nothing(run: Run, limit: int) -> None:
    """Writes beyond the limit fail like on a full disk: in the tensors, or later in the manifest."""
    save(run, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(SaveFailed, match=r"step 2 cannot be written.*--resume"):
            save(run, 2, size=2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in run.checkpoints.iterdir()] == ["step-00000001"]
    assert newest_step(run) == (1, [])


def test_a_full_disk_while_writing_the_manifest(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    save(run, 1)

    def full(self: Path, text: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SaveFailed, match="No space left"):
        save(run, 2)
    assert [p.name for p in run.checkpoints.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model", "ema-5"])
def test_what_is_not_finite_is_never_written(run: Run, name: str, bad: float) -> None:
    save(run, 1)
    broken = files(2)
    broken[name]["net.w"][5] = bad
    with pytest.raises(Diverged, match=rf"net\.w.*{name}.*step-00000001"):
        checkpoint.save(run, 2, broken, {}, None)
    assert [p.name for p in run.checkpoints.iterdir()] == ["step-00000001"]


def saved_net(run: Run) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    net = Net()
    tensors = {f"denoiser.{name}": value for name, value in net.state_dict().items()}
    other = {f"critic.{name}": value + 1 for name, value in nn.Linear(2, 2).state_dict().items()}
    return net, checkpoint.save(run, 1, {"model": tensors | other}, {}, None)


def test_weights_come_back_exactly_tied_ones_too(run: Run) -> None:
    net, folder = saved_net(run)
    torch.manual_seed(1)
    other = Net()
    checkpoint.load_weights(folder, "model", other, "denoiser")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())
    assert other.again.weight is other.blocks[0][0].weight


def test_weights_that_are_not_there_are_named(run: Run) -> None:
    net, folder = saved_net(run)
    with pytest.raises(RunError, match=r"no weights 'ema-500'; it has model"):
        checkpoint.load_weights(folder, "ema-500", net, "denoiser")


MISFITS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (lambda t: t.pop("denoiser.outside.bias"), "lacks the tensor 'outside.bias'"),
    "unexpected": (lambda t: t.update({"denoiser.extra": torch.zeros(1)}), "unexpected tensor 'extra'"),
    "shape": (lambda t: t.update({"denoiser.outside.bias": torch.zeros(3)}), r"'outside.bias' is torch.float32 \(3,\)"),
    "broadcastable": (lambda t: t.update({"denoiser.outside.bias": torch.zeros(1)}), "'outside.bias'"),
    "dtype": (lambda t: t.update({"denoiser.outside.bias": torch.zeros(2).half()}), "torch.float16"),
    "nan": (lambda t: t["denoiser.outside.bias"].fill_(float("nan")), "'outside.bias' is not finite"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_nothing_that_does_not_fit_is_loaded(run: Run, misfit: str) -> None:
    change, message = MISFITS[misfit]
    _, folder = saved_net(run)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    contents = manifest.Manifest.model_validate_json((folder / manifest.NAME).read_text())
    honest = contents.model_copy(update={"files": {path.name: manifest.entry(path)}})
    (folder / manifest.NAME).write_text(honest.sealed().model_dump_json())
    other = Net()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(RunError, match=message) as caught:
        checkpoint.load_weights(folder, "model", other, "denoiser")
    assert "model.safetensors" in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


HOSTILE = {
    "pickle": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "huge header": (2**62).to_bytes(8, "little") + b"{}",
    "no json": (4).to_bytes(8, "little") + b"abcd",
    "offsets": (70).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,1600000]}}'.ljust(70),
    "empty": b"",
    "zip": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(RunError, match=r"model\.safetensors cannot be read"):
        checkpoint.read_tensors(path)
