"""Sampling grids and training-time laws: their definitions, their distributions, and what they refuse."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from osmotic import laws, times
from osmotic.schedules import CATALOG, VE, VP, Discrete, Rectified


@pytest.mark.parametrize("path", list(CATALOG))
@pytest.mark.parametrize("name", list(times.GRIDS))
def test_grids_fall_from_the_start_to_exactly_zero(name, path):
    schedule = CATALOG[path]()
    for steps in (1, 2, 10, 37):
        for start in (1.0, 0.6):
            grid = times.GRIDS[name]()(schedule, steps, start)
            assert grid.shape == (steps + 1,)
            assert grid.dtype == torch.float64
            assert (grid.diff() < 0).all()
            assert float(grid[0]) == start
            assert float(grid[-1]) == 0.0


def test_karras_is_edms_table():
    """sigma_i = (80^(1/7) + i/(N-1) (0.002^(1/7) - 80^(1/7)))^7, then 0, on EDM's own path."""

    def sigmas(n: int) -> np.ndarray:
        return (80 ** (1 / 7) + np.arange(n) / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7

    assert np.allclose(80 * times.Karras()(VE(80.0), 18)[:-1], sigmas(18), rtol=1e-10)
    # VP starts at sigma / alpha = 152, beyond the ladder: that start is a level of its own.
    ratio = [float(s / a) for a, s in (VP()(t) for t in times.Karras()(VP(), 18)[1:-1])]
    assert np.allclose(ratio, sigmas(17), rtol=1e-9)


def test_log_snr_grid_is_even_and_begins_where_the_path_has_signal():
    grid = times.LogSNR(rho_min=0.01, rho_max=100)(Rectified(), 12)
    log_snr = Rectified().log_snr(grid[1:-1])
    assert torch.allclose(log_snr.diff(), log_snr.diff()[0].expand(10), rtol=1e-9)
    assert float(log_snr[0]) == pytest.approx(-2 * math.log(100))
    assert float(log_snr[-1]) == pytest.approx(-2 * math.log(0.01))


def test_levels_are_levels_and_the_last_is_visited():
    grid = times.Levels()(Discrete.linear(), 30)
    index = grid * 1000
    assert torch.allclose(index, index.round(), atol=1e-9)
    assert float(index[0]) == 1000
    with pytest.raises(ValueError, match="take at most 1000"):
        times.Levels()(Discrete.linear(), 1001)
    with pytest.raises(ValueError, match="is continuous"):
        times.Levels()(VP(), 10)


def test_phases_in_powers_of_time_and_quantiles_of_beta():
    u = 1 - np.arange(7) / 7
    assert np.allclose(times.TimePower(3.0)(VP(), 7)[:-1], u**3, rtol=1e-14)
    assert torch.equal(times.Quadratic()(VP(), 7, 0.6), times.TimePower(2.0)(VP(), 7, 0.6))
    assert np.allclose(times.Beta(0.6, 0.6)(VP(), 7, 0.5)[:-1], 0.5 * stats.beta.ppf(u, 0.6, 0.6), rtol=1e-9)
    assert torch.equal(times.Beta()(VP(), 7), times.Beta(0.6, 0.6)(VP(), 7))  # the paper's
    assert np.allclose(times.Beta(1.0, 1.0)(VP(), 7)[:-1], u, rtol=1e-9)  # a flat law is uniform


def test_cosine_is_even_in_angle_on_any_path():
    """Uniform time on the cosine schedule, and its levels on every other path that begins as noisy."""
    assert torch.allclose(times.Cosine()(CATALOG["cosine"](), 9), times.Uniform()(CATALOG["cosine"](), 9), atol=1e-12)
    sigma = 80.0 * times.Cosine(scale=0.5)(VE(80.0), 9).numpy()
    angle = np.arctan(sigma / 0.5)
    assert np.allclose(np.diff(angle), -math.atan(160) / 9, rtol=1e-9)


def test_poly_exponential_has_its_power():
    rho = 80 * times.PolyExponential(exponent=2.0)(VE(80.0), 12)[:-1].numpy()
    ramp = (1 - np.arange(12) / 11) ** 2
    assert np.allclose(np.log(rho), ramp * (math.log(80) - math.log(0.002)) + math.log(0.002), rtol=1e-9)
    plain = times.PolyExponential(exponent=1.0)(VE(80.0), 12)
    assert torch.allclose(plain, times.LogSNR()(VE(80.0), 12), rtol=1e-12)


def test_power_and_span_go_to_zero_without_a_last_level_to_jump_from():
    rho = 80 * times.Power(3.0)(VE(80.0), 12).numpy()
    assert np.allclose(rho, 80 * (1 - np.arange(13) / 12) ** 3, rtol=1e-9)
    rho = 80 * times.Span(0.1, 12.0)(VE(80.0), 12).numpy()
    g = 1 / (1 / rho[:-1] + 1 / 12)
    assert np.allclose(np.diff(np.arcsinh(np.append(g, 0) / 0.1), n=2), 0, atol=1e-9)
    # From pure noise every step shrinks in proportion to their number: the first in 1 / rho, the last in rho.
    for n in (400, 800):
        stops = times.Span(0.1, 4.0)(Rectified(), n).numpy()
        rho = stops[1:-1] / (1 - stops[1:-1])
        assert 1 / rho[0] == pytest.approx(np.arcsinh(40) / n * np.sqrt(1 + 40**-2) / 4, rel=0.02)
        assert rho[-1] == pytest.approx(0.1 * np.arcsinh(40) / n, rel=0.02)


def test_improved_ddpm_is_edms_table():
    """u_M = 0, u_(j-1) = sqrt((u_j^2 + 1) / max(abar_(j-1) / abar_j, C1) - 1), t_i = u_k, k from j0 to M - 1."""
    m, c1, c2, j0, n = 1000, 0.001, 0.008, 8, 18
    abar = np.sin(np.pi / 2 * np.arange(m + 1) / (m * (c2 + 1))) ** 2
    u = np.zeros(m + 1)
    for j in range(m, 0, -1):
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / max(abar[j - 1] / abar[j], c1) - 1)
    expected = u[np.floor(j0 + (m - 1 - j0) / (n - 1) * np.arange(n) + 0.5).astype(int)]
    found = VE(float(expected[0]))(times.ImprovedDDPM()(VE(float(expected[0])), n))[1][:-1]
    assert np.allclose(found, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="992 levels"):
        times.ImprovedDDPM()(VE(float(expected[0])), 993)


def test_the_published_tables_are_copied_right():
    """Written down a second time, as differences of logarithms would not show one wrong digit."""
    published = {
        times.AYS_SD15: "14.615 6.475 3.861 2.697 1.886 1.396 .963 .652 .399 .152 .029",
        times.AYS_SDXL: "14.615 6.315 3.771 2.181 1.342 .862 .555 .380 .234 .113 .029",
        times.AYS_DEEPFLOYD: "160.41 8.081 3.315 1.885 1.207 .785 .553 .293 .186 .030 .006",
        times.AYS_SVD: "700 54.5 15.886 7.977 4.248 1.789 .981 .403 .173 .034 .002",
    }
    assert len(published) == 4
    for table, text in published.items():
        assert table == tuple(float(word) for word in text.split())


def test_the_suggested_grid_grows_with_the_data_and_the_root_of_their_size():
    """All levels with the deviation; the noisy ones with the root of the positions, above a floor."""
    path = Rectified()

    def half(deviation, positions):
        log_snr = path.log_snr(times.suggested(deviation, positions)(path, 16)[1:-1])
        return torch.exp(-log_snr / 2).numpy()

    for positions in (1, 1024):
        assert np.allclose(half(3.0, positions), 3 * half(1.0, positions), rtol=1e-9)
    a, b, c = (times.suggested(0.5, p) for p in (1, 4096, 4 * 4096))
    assert c.coarse == pytest.approx(2 * b.coarse)
    assert b.coarse > 2 * a.coarse
    assert a.fine == b.fine == c.fine
    assert times.suggested(0.5, 2).coarse == a.coarse
    # Each noisy level of larger data is noisier.
    assert (half(1.0, 4 * 4096) > half(1.0, 4096)).all()


@pytest.mark.parametrize("table", [times.AYS_SD15, times.AYS_SDXL, times.AYS_DEEPFLOYD, times.AYS_SVD])
def test_align_your_steps_tables(table):
    """Their ten steps as published, log-linear in between, the last level replaced by 0."""
    path = VE(table[0])
    assert np.allclose(path(times.Table(table)(path, 10))[1], [*table[:-1], 0.0], rtol=1e-12)
    between = np.exp(np.interp(np.linspace(0, 10, 21), np.arange(11), np.log(table)))
    assert np.allclose(path(times.Table(table)(path, 20))[1][:-1], between[:-1], rtol=1e-9)


def test_a_table_is_cut_by_a_quieter_start_and_preceded_by_a_noisier_one():
    noisy = VE(80.0)(times.Table(times.AYS_SD15)(VE(80.0), 11))[1]
    assert np.allclose(noisy, [80.0, *times.AYS_SD15[:-1], 0.0], rtol=1e-9)
    quiet = VE(3.861)(times.Table(times.AYS_SD15)(VE(3.861), 8))[1]  # the table's third level
    assert np.allclose(quiet, [*times.AYS_SD15[2:-1], 0.0], rtol=1e-9)
    with pytest.raises(ValueError, match="start noisier"):
        times.Table(times.AYS_SD15)(VE(0.02), 3)


def test_given_times_are_taken_as_they_are():
    grid = times.given([1.0, 0.7, 0.1, 0.0])
    assert torch.equal(grid(VP(), 3), torch.tensor([1.0, 0.7, 0.1, 0.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="has 3 steps and 4 were asked"):
        grid(VP(), 4)
    with pytest.raises(ValueError, match=r"begin at t = 1, and sampling starts at t = 0\.9"):
        grid(VP(), 3, 0.9)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([1.0, 0.2, 0.5, 0.0], "0.2 is followed by 0.5"),
        ([0.0, 0.5, 1.0], "fall from noise to data"),
        ([1.0, 0.5, 0.5, 0.0], "times 1 and 2 of the grid are both 0.5"),
        ([1.5, 0.5, 0.0], "got 1.5"),
        ([1.0, math.nan, 0.0], "got nan"),
        ([1.0, 0.5, -0.1], "got -0.1"),
        ([1.0, 0.5], "append 0"),
        ([1.0], "at least two times"),
    ],
)
def test_impossible_times_are_refused_in_a_sentence(wrong, words):
    with pytest.raises(ValueError, match=words) as caught:
        times.given(wrong)
    assert str(caught.value).count(". ") == 0


def test_fixed_stops_have_equal_log_snr_on_every_path():
    grid = times.Fixed.of(VE(80.0), times.Karras(0.02, 50.0)(VE(80.0), 6))
    copy = times.Fixed([float(text) for text in map(repr, grid.log_snr)])
    for path in (VP(), VE(80.0), Rectified(), Discrete.linear()):
        found = path.log_snr(copy(path, 6)[1:-1])
        assert np.allclose(found, grid.log_snr, rtol=1e-6)
    with pytest.raises(ValueError, match="has 6 steps"):
        grid(VP(), 5)
    with pytest.raises(ValueError, match="sampling starts less noisy"):
        grid(VE(3.0), 6)
    with pytest.raises(ValueError, match="rise in log-SNR"):
        times.Fixed([1.0, 1.0])


@pytest.mark.parametrize("arguments", [(VP(), 0), (VP(), 5, 0.0), (VP(), 5, 1.5)])
def test_impossible_grids_are_refused(arguments):
    with pytest.raises(ValueError, match="steps >= 1"):
        times.Uniform()(*arguments)


def test_a_start_below_the_ladder_is_refused():
    with pytest.raises(ValueError, match="decreasing"):
        times.Karras(rho_min=0.5)(VE(80.0), 5, start=0.001)


N = 20_000
CDFS = {
    "uniform": lambda schedule: lambda t: t,
    "logit-normal": lambda schedule: lambda t: stats.norm.cdf(np.log(t / (1 - t))),
    "log-normal": lambda schedule: (
        lambda t: stats.norm.cdf((np.log(t * 80) + 1.2) / 1.2) / stats.norm.cdf((math.log(80) + 1.2) / 1.2)
    ),
}
UNDERLYING = {"uniform": laws.Uniform, "logit-normal": laws.LogitNormal, "log-normal": laws.LogNormal}


@pytest.mark.parametrize("name", list(CDFS))
def test_laws_have_their_distribution(name):
    """Kolmogorov-Smirnov against the published law, cut at the path's end, with independent draws."""
    t, importance = UNDERLYING[name]().draw(VE(80.0), N, torch.Generator().manual_seed(0))
    assert stats.kstest(t.numpy(), CDFS[name](VE(80.0))).pvalue > 0.01
    assert (importance == 1).all()


@pytest.mark.parametrize("path", list(CATALOG))
@pytest.mark.parametrize("name", list(laws.LAWS))
def test_every_law_gives_times_of_the_path(name, path):
    t, importance = laws.LAWS[name](0.5).draw(CATALOG[path](), 512, torch.Generator().manual_seed(1))
    assert t.shape == importance.shape == (512,)
    assert t.dtype == torch.float64
    assert float(t.min()) > 0
    assert float(t.max()) <= 1
    assert torch.isfinite(importance).all()


def test_steps_are_uniform_on_levels():
    t, _ = laws.Steps(10).draw(VP(), N, torch.Generator().manual_seed(0))
    counts = np.bincount((t * 10).round().long().numpy(), minlength=11)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 0.01


def test_stratified_has_one_draw_a_stratum_and_less_variance():
    law = laws.Stratified(laws.Uniform())
    t, _ = law.draw(VP(), 16, torch.Generator().manual_seed(0))
    assert ((t * 16).floor() == torch.arange(16)).all()
    firsts = torch.stack([law.draw(VP(), 16, torch.Generator().manual_seed(k))[0] for k in range(2000)])
    assert stats.kstest(firsts[:, 5].numpy() * 16 - 5, "uniform").pvalue > 0.01
    plain = torch.stack([laws.Uniform().draw(VP(), 16, torch.Generator().manual_seed(k))[0] for k in range(2000)])
    assert float(firsts.mean(1).var()) < 0.1 * float(plain.mean(1).var())  # 1/n of it, n = 16


def adapted(memory: int = 1000) -> laws.Adaptive:
    """A law that has seen the loss t^2 everywhere."""
    law = laws.Adaptive(laws.Uniform(), bins=8, floor=0.1, memory=memory)
    for seed in range(20):
        t, _ = law.draw(VP(), 256, torch.Generator().manual_seed(seed))
        law.update(VP(), t, t**2)
    return law


def test_adaptive_draws_by_the_size_of_the_loss_and_stays_unbiased():
    law = adapted()
    t, importance = law.draw(VP(), N, torch.Generator().manual_seed(99))
    edges = np.linspace(0, 1, 9)
    share = np.sqrt([np.mean(np.linspace(a, b, 1001) ** 4) for a, b in itertools.pairwise(edges)])
    expected = 0.1 / 8 + 0.9 * share / share.sum()
    found = np.histogram(t, edges)[0] / N
    assert np.allclose(found, expected, atol=5 * np.sqrt(0.25 / N) + 0.02)
    # E[importance f(t)] is the mean under the stated law: 1 for f = 1, 1/3 for f = t^2; and importance lowers the
    # variance.
    for f, mean in [(torch.ones_like(t), 1.0), (t**2, 1 / 3)]:
        values = importance * f
        assert abs(float(values.mean()) - mean) < 5 * float(values.std()) / math.sqrt(N)
    assert float((importance * t**2).var()) < 0.5 * float((torch.rand(N, dtype=torch.float64) ** 2).var())


def test_adaptive_is_the_law_itself_until_all_is_seen_and_survives_a_checkpoint():
    law = laws.Adaptive(laws.Uniform(), bins=8)
    law.update(VP(), torch.tensor([0.1]), torch.tensor([5.0]))
    assert torch.allclose(law.probabilities, torch.full((8,), 1 / 8, dtype=torch.float64))
    trained, copy = adapted(), laws.Adaptive(laws.Uniform(), bins=8)
    copy.load_state_dict(trained.state_dict())
    draw = [x.draw(VP(), 32, torch.Generator().manual_seed(0))[0] for x in (trained, copy)]
    assert torch.equal(*draw)


def test_adaptive_ignores_broken_losses():
    law = adapted()
    before = law.probabilities.clone()
    law.update(VP(), torch.tensor([0.5, 0.6]), torch.tensor([math.nan, math.inf]))
    assert torch.equal(law.probabilities, before)
