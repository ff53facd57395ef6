"""Inpainting by replacement: what is kept is kept exactly, and how far the rest is from the conditional law."""

import math

import pytest
import torch
from scipy.special import hyp2f1

from osmotic import times
from osmotic.condition import Condition
from osmotic.guidance import CFGPlusPlus, ClassifierFree, Inpaint, Mask, given
from osmotic.noise import generators
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.phase import CLD
from osmotic.samplers import CATALOG, DDIM, sample
from osmotic.samplers import prior as noise
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import VP, Cosine

KEEP = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(path: str = "cosine") -> GaussianMixture:
    return GaussianMixture(SCHEDULES[path](), draws(3, 4, seed=3), 0.3, classes=[0, 1, 1])


def start(denoiser, n: int, d: int) -> torch.Tensor:
    return noise(denoiser, (n, d), generators(0, range(n), torch.device("cpu"))).double()


# A flow map is not what an oracle of the posterior mean has; these integrate up to the data, where others land on x0.
SOLVERS = [name for name, make in CATALOG.items() if not make().aims]
INTEGRATORS = {"euler-time", "heun-time", "rk4", "rk4-log-snr", "rk4-time", "rk45", "dpm-solver-12", "dpm-solver-23"}


def ends(name: str, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    known = draws(5, 4, seed=1)
    denoiser = Inpaint(mixture(), known, KEEP)
    grid = times.suggested(1.0, 4)(denoiser.schedule, steps)
    keyed = generators(1, range(5), torch.device("cpu"))
    return sample(CATALOG[name](), denoiser, start(denoiser, 5, 4), grid, generator=keyed), known


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in INTEGRATORS])
def test_samplers_that_land_on_x0_keep_the_known_part_exactly(name):
    out, known = ends(name, 12)
    assert torch.isfinite(out).all()
    assert (out - known)[:, KEEP == 1].abs().max() <= 1e-12
    assert (out - known)[:, KEEP == 0].abs().min() > 1e-6


@pytest.mark.parametrize("name", sorted(INTEGRATORS))
def test_integrators_keep_it_within_their_own_error(name):
    errors = [float((ends(name, n)[0] - ends(name, n)[1])[:, KEEP == 1].abs().max()) for n in (12, 96)]
    assert errors[0] < 0.05
    assert errors[1] < max(errors[0] / 4, 1e-3)


@pytest.mark.parametrize("path", list(SCHEDULES))
def test_the_estimate_meets_the_paths_equation_at_each_samples_own_time(path):
    base, known, x = mixture(path), draws(4, seed=1), draws(5, 4)
    t = torch.linspace(0.2, 0.9, 5, dtype=torch.float64)
    estimate, plain = Inpaint(base, known, KEEP)(x, t), base(x, t)
    alpha, sigma = (v[:, None] for v in base.schedule(t))
    assert torch.allclose(estimate.at(*base.schedule(t)), x, atol=1e-12)
    assert torch.equal(estimate.x0[:, KEEP == 1], known[KEEP == 1].expand(5, -1))
    assert torch.equal(estimate.x0[:, KEEP == 0], plain.x0[:, KEEP == 0])
    assert torch.allclose(estimate.eps, (x - alpha * estimate.x0) / sigma, atol=1e-12)


@pytest.mark.parametrize("path", list(SCHEDULES))
def test_a_mask_of_zeros_changes_nothing_and_one_of_ones_gives_the_reference(path):
    base, known, x = mixture(path), draws(5, 4, seed=1), draws(5, 4)
    t = torch.tensor(0.6, dtype=torch.float64)
    for a, b in zip(Inpaint(base, known, torch.zeros(4))(x, t), base(x, t), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)
    whole = Inpaint(base, known, torch.ones(4))
    assert torch.equal(whole(x, t).x0, known)
    grid = times.Uniform()(base.schedule, 4)
    assert (sample(DDIM(), whole, start(whole, 5, 4), grid) - known).abs().max() <= 1e-12


def test_half_a_mask_is_half_of_each():
    base, known, x = mixture(), draws(4, seed=1), draws(5, 4)
    half = Inpaint(base, known, torch.full((4,), 0.5))(x, torch.tensor(0.5)).x0
    assert torch.allclose(half, (known + base(x, torch.tensor(0.5)).x0) / 2, atol=1e-12)


def test_what_is_not_kept_may_be_anything():
    known = torch.where(KEEP == 1, draws(4, seed=1), math.nan)
    assert torch.isfinite(Inpaint(mixture(), known, KEEP)(draws(5, 4), torch.tensor(0.5)).x0).all()


def test_guidance_inside_reaches_only_the_painted_part():
    cond, x, t = Condition(vector=torch.tensor([0, 1, 1, 0, 0])), draws(5, 4), torch.tensor(0.6, dtype=torch.float64)
    guided, known = ClassifierFree(mixture(), 3.0), draws(4, seed=1)
    x0 = Inpaint(guided, known, KEEP)(x, t, cond).x0
    assert torch.equal(x0[:, KEEP == 0], guided(x, t, cond).x0[:, KEEP == 0])
    assert torch.equal(x0[:, KEEP == 1], known[KEEP == 1].expand(5, -1))


def test_independent_coordinates_are_painted_from_their_own_law():
    """Where the known part says nothing about the rest, replacement is exact: the flow map of each coordinate."""
    base = Gaussian(Cosine(), draws(4, seed=2), torch.tensor([0.5, 0.8, 1.5, 0.3], dtype=torch.float64))
    denoiser = Inpaint(base, draws(4, seed=1), KEEP)
    x = start(denoiser, 5, 4)
    out = sample(CATALOG["flow-3pc"](), denoiser, x, times.suggested(1.0, 4)(base.schedule, 200))
    assert torch.allclose(out[:, KEEP == 0], base.flow(x, 1.0, 0.0)[:, KEEP == 0], atol=1e-5)


@pytest.mark.parametrize("r", [0.3, 0.6, 0.9, 0.99])
def test_replacement_hears_the_known_part_too_little(r):
    """Two standard normals of correlation r, one known: along the exact flow of a variance-preserving path, with u =
    alpha^2, ``dx/du = (r / 2) (y - u r x) / (1 - u^2 r^2)`` where y = alpha known + sigma eps. Its mean at the data is
    ``(r / 3) 2F1(1/2, 1; 7/4; r^2) known``, below the conditional mean ``r known``.
    """
    base = Gaussian(Cosine(), torch.zeros(2, dtype=torch.float64), torch.tensor([[1.0, r], [r, 1.0]]).double())
    known, zero = torch.tensor([1.5, 0.0], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    denoiser = Inpaint(base, known, torch.tensor([1.0, 0.0]))
    # The map is linear in the noise, so zero noise gives the mean over it.
    out = sample(CATALOG["flow-3pc"](), denoiser, zero, times.Uniform()(base.schedule, 2000))
    found, exact = float(out[0, 1]) / 1.5, r
    assert found == pytest.approx(r / 3 * hyp2f1(0.5, 1, 1.75, r**2), rel=1e-5)
    assert r / 3 < found < exact


def test_wrong_masks_and_paths_are_refused_in_one_sentence():
    known = draws(5, 4)
    with pytest.raises(ValueError, match=r"A mask lies in \[0, 1\]"):
        Inpaint(mixture(), known, 2 * KEEP)
    with pytest.raises(ValueError, match=r"A mask lies in \[0, 1\]"):
        Inpaint(mixture(), known, KEEP * math.nan)
    with pytest.raises(ValueError, match=r"A mask of shape \(3,\) does not fit a reference of shape \(5, 4\)"):
        Inpaint(mixture(), known, torch.ones(3))


def test_matrix_paths_are_refused():
    base = mixture()
    base.schedule = CLD()
    with pytest.raises(ValueError, match="Inpaint needs a path of two numbers"):
        Inpaint(base, draws(4), KEEP)


def test_vp_is_one_of_the_paths_the_formula_holds_on():
    """The closed form does not name the schedule: VP gives the same number, up to its own end of noise."""
    r = 0.6
    base = Gaussian(VP(), torch.zeros(2, dtype=torch.float64), torch.tensor([[1.0, r], [r, 1.0]]).double())
    denoiser = Inpaint(base, torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 0.0]))
    x = torch.tensor([[base.schedule.scalars(1.0)[0], 0.0]]).double()  # alpha known + sigma 0: no noise
    out = sample(CATALOG["flow-3pc"](), denoiser, x, times.Uniform()(base.schedule, 2000))
    assert float(out[0, 1]) == pytest.approx(r / 3 * hyp2f1(0.5, 1, 1.75, r**2), rel=1e-4)


def test_the_noise_of_cfg_plus_plus_would_be_undone_and_is_refused():
    oracle = GaussianMixture(VP(), torch.eye(2, dtype=torch.float64), 0.1)
    led = CFGPlusPlus(oracle, 0.5)
    known = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="would undo CFGPlusPlus"):
        Inpaint(led, known, torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="would undo CFGPlusPlus"):
        given(led, Mask(torch.tensor([True, False])), known[None])
