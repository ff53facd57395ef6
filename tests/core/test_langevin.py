"""Langevin dynamics and predictor-corrector on exact scores: stationary laws, published rules, far modes."""

import itertools
import math

import numpy as np
import pytest
import torch
from test_sde import gaussian, law, law_of_step

from osmotic import times
from osmotic.noise import generator, generators, normal
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import Gamma, prepare, sample
from osmotic.samplers.corrector import LevelRatio, NormRatio, PredictorCorrector
from osmotic.samplers.langevin import AnnealedLangevin, langevin
from osmotic.samplers.sde import ReverseDiffusion
from osmotic.schedules import VE, VP, Discrete, Rectified


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("schedule", [VP(), VE(4.0), Rectified()])
def test_the_stationary_law_is_boltzmanns_with_the_known_bias(schedule, temperature):
    """Variance kT V / (1 - step / (2 V)) exactly, for the marginal N(alpha m, V) at the level: kT, not kT / 2 (T7)."""
    oracle, t = gaussian(schedule), 0.4
    alpha, sigma = (float(v) for v in schedule(t))
    v = alpha**2 * 0.3 + sigma**2
    for step in (0.02 * v, 0.5 * v):
        # The law that three updates leave as it is, for from no variance they add that of their noise alone.

        def updates(x, noise, step=step):
            return langevin(oracle, x, t, step, 3, temperature=temperature, generator=noise)

        (zero, noise), (one, _) = law_of_step(updates, 0.0, 0.0), law_of_step(updates, 1.0, 0.0)
        factor = one - zero
        assert zero / (1 - factor) == pytest.approx(alpha * 0.5, rel=1e-9)
        assert noise / (1 - factor**2) == pytest.approx(temperature * v / (1 - step / (2 * v)), rel=1e-9)


def test_without_noise_all_fall_to_the_mode():
    """Potential x^2 / 2: the variance falls as e^(-2 time), by (1 - step) a step exactly (row A4)."""
    oracle = Gaussian(VP(), torch.zeros(1, dtype=torch.float64), 1.0)
    x = normal((500, 1), generator(0), dtype=torch.float64)
    out = langevin(oracle, x, 0.5, 0.01, 100, temperature=0.0, generator=generator(1))
    assert torch.allclose(out, x * 0.99**100, atol=1e-12)
    assert float(out.var() / x.var()) == pytest.approx(math.exp(-2), rel=0.02)


def test_langevin_refuses_what_has_no_law():
    oracle, x = gaussian(VP()), torch.zeros(1, 1)
    for kwargs in ({"step": 0.0}, {"updates": -1}, {"temperature": -1.0}, {"t": 0.0}):
        with pytest.raises(ValueError, match="got"):
            langevin(oracle, x, **{"t": 0.5, "step": 0.1, "updates": 1, **kwargs})


def two_modes(schedule) -> GaussianMixture:
    means = torch.tensor([[-4.0], [4.0]], dtype=torch.float64)
    return GaussianMixture(schedule, means, 0.1, weights=[0.3, 0.7])


def share_of_the_second(x: torch.Tensor) -> float:
    return float((x > 0).double().mean())


@pytest.mark.parametrize("schedule", [VE(20.0), Rectified()])
def test_annealing_finds_the_weights_of_far_modes_and_plain_langevin_does_not(schedule):
    """Weights 0.3 and 0.7 within 5 % (row F10), started from noise; at the lowest level alone a mode is never left."""
    oracle, n = two_modes(schedule), 4000
    grid = times.LogSNR(0.05, 20)(schedule, 40)
    x = normal((n, 1), generator(0), dtype=torch.float64) * float(schedule(grid[0])[1])
    out = sample(AnnealedLangevin(updates=20), oracle, x, grid, generator=generator(1))
    # 4000 samples know a weight of 0.7 to 0.0072.
    assert share_of_the_second(out) == pytest.approx(0.7, abs=0.05)
    assert float(out[out > 0].mean()) == pytest.approx(4, abs=0.05)
    assert float(out[out > 0].std()) == pytest.approx(math.sqrt(0.1), rel=0.1)
    alpha, sigma = (float(v) for v in schedule(grid[-2]))
    stuck = langevin(
        oracle, torch.full((n, 1), -4.0, dtype=torch.float64) * alpha, grid[-2], 0.02, 800, generator=generator(2)
    )
    assert share_of_the_second(stuck) == 0
    assert float(stuck.var()) == pytest.approx(0.1 * alpha**2 + sigma**2, rel=5 * math.sqrt(2 / n) + 0.12)


def test_annealed_langevin_is_ncsns_algorithm():
    """Sigmas 1 to 0.01, ``step_i = step_lr (sigma_i / sigma_L)^2``, y handed down unchanged, in numpy, law exactly."""
    path = VE(1.0)
    oracle = gaussian(path)
    for denoise in (True, False):
        grid = times.LogSNR(0.01, 1.0)(path, 10)
        mean, variance = 0.5, 1.3
        for sigma in np.geomspace(1, 0.01, 10):
            step, total = 2e-5 * (sigma / 0.01) ** 2, 0.3 + sigma**2
            for _ in range(7):
                factor = 1 - step / total
                mean, variance = factor * (mean - 0.5) + 0.5, factor**2 * variance + 2 * step
        if denoise:
            shrink = 0.3 / (0.3 + 0.01**2)
            mean, variance = 0.5 + shrink * (mean - 0.5), shrink**2 * variance
        found = law(AnnealedLangevin(share=2e-5 / 0.01**2, updates=7, denoise=denoise), oracle, grid)
        assert found == pytest.approx((mean, variance), rel=1e-9)
    assert AnnealedLangevin().evaluations == 100
    assert AnnealedLangevin().share == pytest.approx(2e-5 / 0.01**2)


def test_annealed_langevin_does_not_depend_on_the_path():
    """On the same ratios and noise every path gives the same x / alpha."""
    log_snr, outs = torch.linspace(-4, 5, 6, dtype=torch.float64), []
    y = normal((5, 1), generator(0), dtype=torch.float64)
    for schedule in (VE(80.0), VP(), Rectified(), Discrete.linear()):
        oracle, grid = two_modes(schedule), schedule.time(log_snr)
        first, last = (float(schedule(grid[i])[0]) for i in (0, -1))
        outs.append(sample(AnnealedLangevin(updates=3), oracle, y * first, grid, generator=generator(1)) / last)
    for out in outs[1:]:
        assert torch.allclose(out, outs[0], atol=1e-8)


def test_ncsnv2s_rule_gives_its_published_steps():
    """CIFAR-10: 232 levels from 50 to 0.01, 5 updates, epsilon 6.2e-6; CelebA: 500 from 90, 3.3e-6 (in sigma_L^2)."""
    for highest, levels, epsilon in [(50, 232, 6.2e-6), (90, 500, 3.3e-6)]:
        ratio = (highest / 0.01) ** (1 / (levels - 1))
        share = AnnealedLangevin.ncsnv2(ratio).share
        assert share == pytest.approx(epsilon / 0.01**2, abs=0.05e-6 / 0.01**2)
        # The smallest of the variance's ratio on a fine grid, from the updates themselves.
        candidates = np.geomspace(share / 3, share * 3, 2001)
        variance = np.full(2001, ratio**2)
        for _ in range(5):
            variance = (1 - candidates) ** 2 * variance + 2 * candidates
        assert candidates[variance.argmin()] == pytest.approx(share, rel=2e-3)


def test_predictor_corrector_is_the_published_algorithm():
    """Langevin with the norms' rule at the level, then reverse diffusion, on DDPM's chain, each sample in numpy."""
    chain = Discrete.linear()
    oracle = Gaussian(chain, torch.linspace(-1, 1, 6, dtype=torch.float64), 0.3)
    mean = np.linspace(-1, 1, 6)
    x = normal((3, 6), generator(0), dtype=torch.float64)
    grid = torch.tensor([0.8, 0.799], dtype=torch.float64)
    ours = sample(PredictorCorrector(updates=2), oracle, x, grid, generator=generators(4, range(3)))
    betas = np.linspace(1e-4, 0.02, 1000)
    beta, signal = betas[799], np.prod(1 - betas[:800])
    for i, draws in enumerate(generators(4, range(3))):
        y = x[i].numpy()

        def score(y, signal=signal):
            return -(y - math.sqrt(signal) * mean) / (0.3 * signal + 1 - signal)

        def noise(draws=draws):
            return torch.randn(6, generator=draws, dtype=torch.float64).numpy()

        for _ in range(2):
            s, z = score(y), noise()
            step = 2 * (1 - beta) * (0.16 * np.linalg.norm(z) / np.linalg.norm(s)) ** 2
            y = y + step * s + math.sqrt(2 * step) * z
        y = (2 - math.sqrt(1 - beta)) * y + beta * score(y) + math.sqrt(beta) * noise()
        assert np.allclose(ours[i].numpy(), y, atol=1e-6)


def test_the_norms_rule_reads_each_sample_alone():
    """A batch mate far away, with a large score, leaves a sample's step as it is."""
    rule = NormRatio(0.16)
    eps, z = (normal((2, 3, 4), generator(seed), dtype=torch.float64) for seed in (0, 1))
    alone = rule.share(eps[:1], z[:1])
    assert torch.equal(rule.share(torch.stack([eps[0], 100 * eps[1]]), z)[:1], alone)
    expected = (0.16 * np.linalg.norm(z[0].numpy()) / np.linalg.norm(eps[0].numpy())) ** 2
    assert float(alone[0]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("schedule", [VP(), VE(80.0), Rectified()])
def test_corrections_have_the_law_of_langevin_steps(schedule):
    """With an exact flow map as predictor only the corrections err, each by ``(1 - step / V)^2 V + 2 step``."""
    oracle, r = gaussian(schedule), 0.3
    grid = times.Karras(0.05, 80)(schedule, 5)
    found = law(PredictorCorrector(Gamma(), LevelRatio(r), updates=2), oracle, grid)
    excess = 1.0  # variance relative to the marginal's
    for t, s in itertools.pairwise(grid.tolist()):
        (a, sigma), (a_s, _) = ([float(v) for v in schedule(u)] for u in (t, s))
        step, v = 2 * (a / a_s) ** 2 * (r * sigma) ** 2, 0.3 * a**2 + sigma**2
        for _ in range(2):
            excess = (1 - step / v) ** 2 * excess + 2 * step / v
    assert found == pytest.approx((0.5, 0.3 * excess), rel=1e-9)


def test_corrections_mend_a_coarse_predictor():
    """Small corrections at each of 30 levels halve the predictor's own error in variance."""
    oracle, grid = gaussian(VE(80.0)), times.Karras(0.02, 80)(VE(80.0), 30)
    alone = law(ReverseDiffusion(), oracle, grid)[1]
    corrected = law(PredictorCorrector(ReverseDiffusion(), LevelRatio(0.1), updates=20), oracle, grid)[1]
    assert abs(corrected - 0.3) < 0.5 * abs(alone - 0.3)


def test_a_corrector_at_pure_noise_has_nothing_to_do():
    oracle = gaussian(Rectified())
    x = normal((4, 1), generator(0), dtype=torch.float64)
    first, second = prepare(oracle, torch.tensor([1.0, 0.9], dtype=torch.float64))
    ours, _ = PredictorCorrector().step(oracle, x, first, second, generator=generator(1))
    plain, _ = ReverseDiffusion().step(oracle, x, first, second, generator=generator(1))
    assert torch.equal(ours, plain)
