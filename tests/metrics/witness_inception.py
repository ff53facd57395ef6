"""Numbers of the FID Inception network by pytorch-fid and torch-fidelity, for `test_features_inception.py`.

Not collected by pytest: it needs torchvision and the two packages in a folder of their own, never in the environment:

    python -m pip install --target SITE --no-deps pytorch-fid==0.3.0 torch-fidelity==0.4.0 torchvision==0.28.0
    python tests/metrics/witness_inception.py SITE

It prints the numbers that the test holds, and the largest relative differences between the three networks.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

# torchvision's wheel from PyPI is built for CUDA: beside a CPU torch its operators must be declared before it imports.
OPERATORS = [
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "box_iou_rotated(Tensor a, Tensor b) -> Tensor",
    "roi_align(Tensor x, Tensor r, float s, int h, int w, int n, bool a) -> Tensor",
    "qroi_align(Tensor x, Tensor r, float s, int h, int w, int n, bool a) -> Tensor",
    "_roi_align_backward(Tensor g, Tensor r, float s, int h, int w, int b, int c, int y, int x, int n, bool a)"
    " -> Tensor",
    "roi_pool(Tensor x, Tensor r, float s, int h, int w) -> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor g, Tensor r, Tensor a, float s, int h, int w, int b, int c, int y, int x) -> Tensor",
    "ps_roi_align(Tensor x, Tensor r, float s, int h, int w, int n) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor g, Tensor r, Tensor m, float s, int h, int w, int n, int b, int c, int y, int x)"
    " -> Tensor",
    "ps_roi_pool(Tensor x, Tensor r, float s, int h, int w) -> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor g, Tensor r, Tensor m, float s, int h, int w, int b, int c, int y, int x) -> Tensor",
    "deform_conv2d(Tensor x, Tensor w, Tensor o, Tensor m, Tensor b, int a, int c, int d, int e, int f, int g, int h,"
    " int i, bool j) -> Tensor",
    "_deform_conv2d_backward(Tensor z, Tensor x, Tensor w, Tensor o, Tensor m, Tensor b, int a, int c, int d, int e,"
    " int f, int g, int h, int i, bool j) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "_cuda_version() -> int",
]


# The features that the test holds: from every branch of the last block, which ends with 192 of its pool.
COLUMNS = slice(2047, None, -157)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights by a rule that everybody can follow: uniform numbers from PCG64's bits, in the order of the sorted names.

    Kernels get He's variance, which keeps the scale through the network; the numbers of batch normalisation lie near
    (1, 0) but differ from it in every channel, so that a swapped pair of them would show.
    """
    state = {}
    for i, name in enumerate(sorted(name for name in shapes if not name.endswith("num_batches_tracked"))):
        raw = np.random.PCG64([2015, i]).random_raw(int(np.prod(shapes[name])))
        u = ((raw >> np.uint64(11)) * 2.0**-52 - 1).reshape(shapes[name])  # in [-1, 1)
        if u.ndim > 1:
            u *= (6 / u[0].size) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            u = 1 + u / 4
        else:
            u /= 4
        state[name] = torch.from_numpy(u.astype(np.float32))
    return state


def images() -> np.ndarray:
    """Three images, ``(3, 32, 40, 3)`` uint8: noise, and two digits enlarged by repetition and coloured."""
    noise = (np.random.PCG64(7).random_raw(32 * 40 * 3) >> np.uint64(56)).astype(np.uint8).reshape(1, 32, 40, 3)
    digits = load_digits().images[[3, 8]].astype(np.uint8) * 15
    large = digits.repeat(4, 1).repeat(5, 2)[..., None] // np.array([1, 2, 3], np.uint8)
    return np.concatenate([noise, large])


def large() -> np.ndarray:
    """An image that is made smaller, ``(1, 400, 320, 3)`` uint8: noise."""
    return (np.random.PCG64(8).random_raw(400 * 320 * 3) >> np.uint64(56)).astype(np.uint8).reshape(1, 400, 320, 3)


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, in units of the largest value."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def main(site: str) -> None:
    sys.path.insert(0, site)
    library = torch.library.Library("torchvision", "DEF")
    for operator in OPERATORS:
        library.define(operator)
    import pytorch_fid.inception as foreign
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from osmotic.metrics.features.inception import Inception, filled

    with torch.device("meta"):
        layout = foreign._inception_v3(num_classes=1008, aux_logits=False, weights=None).state_dict()
    state = weights({name: tuple(tensor.shape) for name, tensor in layout.items()})
    counters = {name: torch.tensor(0) for name in layout.keys() - state.keys()}
    ours = Inception(filled(state, Path("witness")), "witness")

    foreign.load_state_dict_from_url = lambda *_, **__: {**state, **counters}
    network = foreign.InceptionV3().eval()
    rows = []
    for x in (images(), large()):
        with torch.inference_mode():
            wanted = network(torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255)[0].flatten(1).double().numpy()
        print("from pytorch-fid:", relative(ours(x), wanted))
        rows += list(wanted)

    # torch-fidelity resizes and scales as TensorFlow did, so the networks are compared on what it makes of 299 x 299.
    noise = (np.random.PCG64(9).random_raw(2 * 299 * 299 * 3) >> np.uint64(56)).astype(np.uint8)
    big = torch.from_numpy(noise.reshape(2, 3, 299, 299))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        torch.save(state, f"{folder}/state.pth")
        second = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=f"{folder}/state.pth"
        )
        features, logits = second(big)
        found = ours.network((big.float() - 128) / 128)
    print("from torch-fidelity:", relative(found.numpy(), features.numpy()))
    own = found @ ours.network.fc.weight.T
    print("from torch-fidelity's logits:", relative(own.numpy(), logits.numpy()))
    print("FEATURES =", [[round(float(v), 6) for v in row[COLUMNS]] for row in rows])
    print("MEANS =", [round(float(row.mean()), 6) for row in rows])


if __name__ == "__main__":
    main(sys.argv[1])
