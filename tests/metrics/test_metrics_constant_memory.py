"""Memory does not grow with the number of samples: measured on processes of their own."""

import subprocess
import sys

import pytest

MEASURE = """
import resource, numpy as np
from osmotic.metrics import GaussianKernel, Moments, manifold, mmd, nearest
rng = np.random.default_rng(0)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
np.ones((50, 50)) @ np.ones((50, 50))
before = peak()
"""
# 50,000 pictures are 614 MB as float32; the features alone would be 102 MB as float64.
STREAM = """
moments = Moments()
for _ in range(100):
    pictures = rng.integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
    moments.update(pictures.reshape(500, 256, 12).mean(2, dtype=np.float32))
assert moments.count == 50_000
# The mean of 12 uniform bytes has a variance of (256^2 - 1) / 144.
assert np.allclose(np.diag(moments.covariance), 65535 / 144, rtol=0.05)
"""
# A matrix of 8,000 x 8,000 distances would be 512 MB.
PAIRS = """
x, y = rng.normal(size=(2, 8_000, 8))
{call}
"""


@pytest.mark.parametrize(
    ("code", "most"),
    [
        (STREAM, 100),
        (PAIRS.format(call="mmd(x, y, GaussianKernel(1.0))"), 250),
        (PAIRS.format(call="manifold(x, y)"), 250),
        (PAIRS.format(call="nearest(x, y)"), 250),
    ],
    ids=["moments", "mmd", "manifold", "nearest"],
)
def test_peak_memory(code, most):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE + code + "print(peak() - before)"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < most
