"""From data to noise and back: against the exact flow map, the exact inverse of each step, and the sphere."""

import itertools
import math

import numpy as np
import pytest
import torch

from osmotic.inversion import Adaptive, Stepwise, decode, encode, interpolate, slerp
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import CATALOG, DDIM, DDPM, Heun, Midpoint, sample
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import VE, VP, Rectified
from osmotic.times import LogSNR


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(schedule) -> GaussianMixture:
    return GaussianMixture(schedule, 1.5 * draws(5, 2, seed=1), 0.15)


def data(oracle, n: int = 6) -> torch.Tensor:
    return oracle.sample(n, torch.Generator().manual_seed(3))


def miss(inversion, oracle, x) -> float:
    back = decode(oracle, encode(oracle, x, inversion=inversion), inversion=inversion)
    return float((back - x).square().mean().sqrt())


@pytest.mark.parametrize("path", list(SCHEDULES))
def test_the_flow_there_is_exact_and_back_again_too(path):
    schedule = SCHEDULES[path]()
    oracle = Gaussian(schedule, draws(2, 3), torch.tensor([[0.1, 1.0, 3.0], [0.3, 0.5, 0.7]], dtype=torch.float64))
    x = data(oracle)
    z = encode(oracle, x)
    assert torch.allclose(z, oracle.flow(x, 0.0, 1.0), rtol=1e-7, atol=1e-7)
    assert torch.allclose(decode(oracle, z), x, atol=1e-7)
    assert miss(None, mixture(schedule), data(mixture(schedule))) < 1e-7


def test_a_round_trip_returns_whatever_the_noise_at_which_data_are_read():
    oracle = mixture(VP())
    x = data(oracle)
    far, near = Adaptive(noise=0.5), Adaptive()
    assert miss(far, oracle, x) < 1e-7
    # It is the noise of other data, though: those of data + N(0, 0.25).
    assert float((encode(oracle, x, inversion=far) - encode(oracle, x, inversion=near)).abs().max()) > 0.1
    for tolerance in (1e-4, 1e-6):
        assert miss(Adaptive(tolerance, tolerance), oracle, x) < 30 * tolerance


def test_ddim_inversion_is_written_out_and_misses_by_one_over_n():
    oracle = mixture(VE())
    x, errors = data(oracle, 40), []
    for n in (40, 80, 160, 320):
        grid = LogSNR(0.02, 100)(oracle.schedule, n)
        errors.append(miss(Stepwise(grid), oracle, x))
    assert np.log2(errors[-2] / errors[-1]) == pytest.approx(1, abs=0.15)
    assert all(a > b for a, b in itertools.pairwise(errors))
    # Euler in rho with the slope of the cleaner end; at the data, where there is none, that of the first noisy level.
    y, rho = x, (80 * grid).flip(0).tolist()
    for low, high in itertools.pairwise(rho):
        at = low if low else high
        scale = 1 if low else math.hypot(1, high)
        y = y + (high - low) * oracle(y * scale, at / 80).eps + (0 if low else oracle(y * scale, at / 80).x0 - y)
    assert torch.allclose(encode(oracle, x, inversion=Stepwise(grid)), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [DDIM(), Heun(), Midpoint()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("schedule", [VP(), Rectified()], ids=lambda s: type(s).__name__)
def test_iterations_invert_a_samplers_own_steps(sampler, schedule):
    oracle = mixture(schedule)
    x, grid = data(oracle), LogSNR(0.02, 100)(schedule, 20)
    errors = [miss(Stepwise(grid, sampler, n), oracle, x) for n in (0, 3, 25)]
    assert errors[0] > 0.03
    assert errors[1] < errors[0] / 20
    assert errors[2] < 1e-10


def test_what_cannot_be_run_backwards_is_refused():
    grid = LogSNR()(VP(), 4)
    with pytest.raises(ValueError, match="draws noise"):
        Stepwise(grid, DDPM())
    with pytest.raises(ValueError, match="at least 0"):
        Stepwise(grid, iterations=-1)
    with pytest.raises(ValueError, match="positive noise"):
        Adaptive(noise=0.0)


@pytest.mark.parametrize("iterations", [0, 1])
@pytest.mark.parametrize("name", ["dpmpp-2m", "flow-2pc", "plms", "dpm-solver-fast"])
def test_a_sampler_with_a_memory_is_refused(name, iterations):
    with pytest.raises(ValueError, match="remembers earlier steps"):
        Stepwise(LogSNR()(VP(), 4), CATALOG[name](), iterations)


def test_a_condition_holds_on_both_ways():
    oracle = mixture(Rectified())
    x, labels = data(oracle, 5), torch.arange(5)
    one = Gaussian(Rectified(), 1.5 * draws(5, 2, seed=1)[3], 0.15)
    z = encode(oracle, x, labels)
    assert torch.allclose(z[[3]], encode(one, x[[3]]), atol=1e-7)
    assert torch.allclose(decode(oracle, z, labels), x, atol=1e-7)


def test_slerp_is_on_the_sphere():
    a, b = draws(3, 2, 4, seed=1), draws(3, 2, 4, seed=2)
    a, b = (v / v.flatten(1).norm(dim=1).reshape(3, 1, 1) * 5 for v in (a, b))
    whole = torch.acos((a * b).flatten(1).sum(1) / 25)
    for w in (0.0, 0.25, 0.9, 1.0):
        mixed = slerp(a, b, w)
        assert torch.allclose(mixed.flatten(1).norm(dim=1), torch.full((3,), 5.0, dtype=torch.float64))
        angle = torch.acos(((a * mixed).flatten(1).sum(1) / 25).clamp(-1, 1))
        assert torch.allclose(angle, w * whole, atol=1e-7)
    assert torch.allclose(slerp(a, a, 0.3), a)
    assert torch.isfinite(slerp(a, -a, 0.5)).all()


def test_interpolation_begins_and_ends_at_the_data_and_stays_in_them():
    """Between two points of one Gaussian all is linear: the flow takes the mixed noise where the formula says."""
    oracle = Gaussian(VE(), draws(3), 0.4)
    a, b = data(oracle), oracle.sample(6, torch.Generator().manual_seed(9))
    found = interpolate(oracle, a, b, [0.0, 0.3, 1.0])
    assert found.shape == (3, 6, 3)
    assert torch.allclose(found[0], a, atol=1e-6)
    assert torch.allclose(found[2], b, atol=1e-6)
    noise = slerp(oracle.flow(a, 0.0, 1.0), oracle.flow(b, 0.0, 1.0), 0.3)
    assert torch.allclose(found[1], oracle.flow(noise, 1.0, 0.0), atol=1e-6)
    # In between, a straight line leaves the data of a ring; the way through the noises does not.
    angles = 2 * math.pi * torch.arange(12, dtype=torch.float64) / 12
    ring = GaussianMixture(VP(), 3 * torch.stack([angles.cos(), angles.sin()], 1), 0.05)
    first, last = ring.means[:6], ring.means[4:10]
    middle = interpolate(ring, first, last, [0.5])[0]
    assert float(ring.log_prob((first + last) / 2).median()) < float(ring.log_prob(middle).median()) - 2


def test_encoding_agrees_with_sampling():
    """The noise of a sample is the noise that it was sampled from."""
    oracle = mixture(Rectified())
    z = draws(4, 2, seed=8)
    x = sample(Heun(), oracle, z, LogSNR(1e-4, 1e4)(Rectified(), 600))
    assert torch.allclose(encode(oracle, x), z, atol=2e-3)
