"""The FID Inception network against pytorch-fid's own numbers, and what its loader refuses."""

import functools
import hashlib
import http.server
import threading
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from witness_inception import COLUMNS, images, large, weights

from osmotic.metrics.features import inception
from osmotic.metrics.features.inception import FILE, SHA256, URL, Inception, fetch, filled, sha256
from osmotic.metrics.features.inception_network import InceptionNetwork

# Printed by `python tests/metrics/witness_inception.py SITE` with pytorch-fid 0.3.0: some of its 2048 features of each
# image, and their means.
FEATURES = [
    [
        1.042499,
        1.745431,
        2e-05,
        0.057666,
        1.613555,
        0.0,
        1.168621,
        0.663486,
        0.0,
        1.032179,
        0.470751,
        0.0,
        4.032629,
        0.420836,
    ],
    [
        0.953069,
        1.793986,
        0.0,
        0.018111,
        1.835771,
        0.0,
        1.341985,
        0.729954,
        0.000513,
        1.147124,
        0.357079,
        0.0,
        3.974476,
        0.375952,
    ],
    [
        0.965338,
        1.726689,
        0.004855,
        0.024664,
        1.760961,
        0.0,
        1.226375,
        0.727189,
        0.001223,
        1.010076,
        0.327683,
        0.0,
        3.766679,
        0.392952,
    ],
    [
        0.970982,
        1.962227,
        0.0,
        0.045541,
        1.743651,
        0.0,
        1.179302,
        0.982151,
        0.00208,
        0.799974,
        0.795056,
        0.0,
        4.386875,
        0.392235,
    ],
]
MEANS = [0.637939, 0.663496, 0.637898, 0.706871]


@pytest.fixture(scope="module")
def state():
    with torch.device("meta"):
        layout = InceptionNetwork().state_dict()
    return weights({name: tuple(tensor.shape) for name, tensor in layout.items()})


@pytest.fixture(scope="module")
def features(state, tmp_path_factory):
    return Inception(filled(state, tmp_path_factory.getbasetemp()), "witness")


def test_features_are_those_of_pytorch_fid(features):
    found = np.concatenate([features(images()), features(large())])
    assert found.shape == (4, 2048)
    assert found.dtype == np.float64
    # Six digits are written down; the rest is float32 on another machine.
    assert np.abs(found[:, COLUMNS] - FEATURES).max() < 1e-4
    assert np.abs(found.mean(1) - MEANS).max() < 1e-4
    # The images differ by a hundred times that, so no two can be mistaken for each other.
    assert np.abs(found[1] - found[2]).max() > 1e-2


def test_grey_is_the_same_in_three_channels(features):
    grey = images()[1:2, ..., :1]
    assert np.array_equal(features(grey), features(grey.repeat(3, -1)))


def test_probabilities_leave_the_bias_out(features, state):
    x = images()[:1]
    logits = features(x) @ state["fc.weight"].numpy().T.astype(np.float64)
    wanted = torch.from_numpy(logits).softmax(1).numpy()
    found = features.probabilities(x)
    assert found.shape == (1, 1008)
    assert np.allclose(found, wanted, rtol=1e-9, atol=0)
    assert np.abs(np.log(found / wanted[:, :1]) - state["fc.bias"].numpy()).max() > 1e-3


def test_other_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / FILE
    path.write_bytes(b"something else")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read a file of another checksum"))
    with pytest.raises(
        ValueError, match=r"begins with [0-9a-f]{8} instead of 6726825d; get .*\.pth from https://github"
    ):
        Inception.from_file(path)


def test_the_release_file_is_read_as_tensors_only(state, tmp_path, monkeypatch):
    path = tmp_path / FILE
    torch.save(state, path)
    monkeypatch.setattr(inception, "SHA256", sha256(path))
    found = Inception.from_file(path)
    assert found.name == f"2048 features of the FID Inception network (weights {sha256(path)[:8]})"
    assert np.abs(found(images()[:1])[:, COLUMNS] - FEATURES[:1]).max() < 1e-4


def test_a_file_with_code_is_not_run_even_if_its_checksum_fits(tmp_path, monkeypatch):
    path = tmp_path / FILE
    marker = tmp_path / "ran"
    torch.save({}, path)
    code = b"cposix\nsystem\n(Vtouch " + str(marker).encode() + b"\ntR."
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in parts.items():
            new.writestr(name, code if name.endswith("data.pkl") else content)
    monkeypatch.setattr(inception, "SHA256", sha256(path))
    with pytest.raises(Exception, match=r"posix\.system"):
        Inception.from_file(path)
    assert not marker.exists()


def test_safetensors_need_their_own_checksum(state, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(state, path)
    with pytest.raises(ValueError, match=r"its SHA-256 is [0-9a-f]{64}, not 0000; get it again"):
        Inception.from_safetensors(path, "0000")
    found = Inception.from_safetensors(path, sha256(path).upper())
    assert "mine.safetensors" in found.name
    assert np.abs(found(images()[:1])[:, COLUMNS] - FEATURES[:1]).max() < 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("Mixed_7c.branch_pool.conv.weight"), "lacks Mixed_7c.branch_pool.conv.weight"),
        (lambda s: s.update({"AuxLogits.fc.bias": torch.zeros(1)}), "has an unknown AuxLogits.fc.bias"),
        (lambda s: s.update({"fc.bias": torch.zeros(1000)}), r"fc.bias of shape \(1000,\) instead of \(1008,\)"),
    ],
)
def test_other_networks_are_refused(state, tmp_path, change, message):
    changed = dict(state)
    change(changed)
    with pytest.raises(ValueError, match=f"{message}.*does not hold the FID Inception network"):
        filled(changed, tmp_path / "other.safetensors")


def test_counters_of_batch_normalisation_may_come_along(state, tmp_path):
    counters = {name.replace("weight", "num_batches_tracked"): torch.tensor(7) for name in state if "bn.weight" in name}
    assert len(counters) == 94
    filled({**state, **counters}, tmp_path)


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A folder behind a server on this machine, in the place of the release's address."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / FILE).write_bytes(bytes(range(256)) * 9000)
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(inception, "URL", f"http://127.0.0.1:{server.server_port}/{FILE}")
    yield folder / FILE
    server.shutdown()
    thread.join()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_fetch_brings_the_file_whole(address, tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(address.read_bytes()).hexdigest())
    path = fetch(tmp_path / "new" / "cache")
    assert path.read_bytes() == address.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == [FILE]
    address.unlink()  # what is there is not fetched again
    assert fetch(path.parent) == path


@pytest.mark.parametrize("fault", ["other", "missing", "large"])
def test_fetch_leaves_nothing_when_it_fails(address, tmp_path, monkeypatch, fault):
    folder = tmp_path / "cache"
    kind, message = ValueError, "gave another file: its SHA-256 begins with"
    if fault == "missing":
        address.unlink()
        kind, message = OSError, "could not be fetched.*404.*by hand"
    if fault == "large":
        monkeypatch.setattr(inception, "LARGEST", 1000)
        kind, message = ValueError, "gave more than 1,000 bytes"
    with pytest.raises(kind, match=message):
        fetch(folder)
    assert list(folder.iterdir()) == []


def test_the_checksum_is_the_one_in_the_name():
    assert FILE.removesuffix(".pth").endswith(SHA256[:8])
    assert URL.endswith(FILE)
