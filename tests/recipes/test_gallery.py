"""The gallery: the numbers of every figure against closed forms, and its files."""

import itertools
import json
import math

import numpy as np
import pytest
from PIL import Image

from osmotic.cli import gallery as command
from osmotic.cli.main import wording
from osmotic.recipes.gallery import FIGURES, gallery
from osmotic.recipes.gallery.chain import modes
from osmotic.recipes.gallery.page import plain, write_numbers

CHEAP = ("skipping", "timeline")


@pytest.fixture(scope="module")
def numbers():
    """Each figure's numbers, worked out once; two figures that share a function share its numbers."""
    made = {}

    def of(name):
        function = FIGURES[name].numbers
        if function not in made:
            made[function] = function(0)
        return made[function]

    return of


def near_moments(n, mean, variance, sampled_mean, sampled_variance, kurtosis=3.0):
    """Within 5 standard errors of the sample mean and variance of n draws (kurtosis: an upper bound of the law's)."""
    assert np.all(np.abs(sampled_mean - mean) < 5 * np.sqrt(variance / n))
    assert np.all(np.abs(sampled_variance - variance) < 5 * variance * np.sqrt((kurtosis - 1) / n))


def total_variation(shares, edges, density):
    """Half the integral of the difference between a histogram and a density, by midpoints of 40 points a bin."""
    x = edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(40) + 0.5) / 40
    return 0.5 * float(np.abs(shares - density(x).mean(1)).dot(np.diff(edges)))


def normal(x, mean, variance):
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def vp(t):
    """VP's pair by Song et al.'s formula."""
    alpha = np.exp(-(19.9 * np.square(t)) / 4 - 0.05 * np.asarray(t))
    return alpha, np.sqrt(1 - alpha**2)


def peaks(x, t):
    """The diffused two peaks, by hand."""
    alpha, sigma = vp(t)
    variance = alpha**2 / 16 + sigma**2
    return 0.4 * normal(x, -alpha, variance) + 0.6 * normal(x, alpha, variance)


def check_equations(n):
    assert n["euler_slope"] == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(n["euler_6"], 0.5 ** np.arange(7))
    # Euler-Maruyama with step h on dx = -x dt + sqrt(2) dw: linear recursions for mean and variance.
    steps = np.arange(151)
    kept = 0.98**steps
    mean, variance = 2 * kept, 0.04 * (1 - kept**2) / (1 - 0.98**2)
    near_moments(4000, mean[1:], variance[1:], n["sampled_mean"][1:], n["sampled_variance"][1:])
    np.testing.assert_allclose(n["mean"], 2 * np.exp(-n["t"]))
    np.testing.assert_allclose(n["variance"], 1 - np.exp(-2 * n["t"]))
    for h, exact, found in zip(n["step"], n["stationary_variance_exact"], n["stationary_variance"], strict=True):
        assert exact == pytest.approx(2 / (2 - h))
        assert abs(found - exact) < 5 * exact * math.sqrt(2 / 20_000) + 1e-4


def check_langevin(n):
    np.testing.assert_array_equal(n["temperature"], [0, 0.5, 1, 2])
    decay = np.exp(-2 * n["t"])
    np.testing.assert_allclose(n["variance_exact"][0], 4 * decay)
    np.testing.assert_allclose(n["variance_exact"][1], 0.5 + 3.5 * decay)
    # Steps of 0.02 settle at T / (1 - h/2): 1% above T, beside the sampling error.
    assert np.all(np.abs(n["variance"] - n["variance_exact"]) < 0.012 + 5 * n["variance_exact"] * math.sqrt(2 / 4000))
    assert n["variance"][0, -1] < 4 * math.exp(-7.9)
    for i, temperature in enumerate((0.5, 1.0, 2.0), start=1):
        exact = temperature + (4 - temperature) * math.exp(-8)
        assert total_variation(n["histogram"][i], n["edges"], lambda x, v=exact: normal(x, 0, v)) < 0.06
        np.testing.assert_allclose(n["density"][i], normal(n["x"], 0, exact))


def check_manifold(n):
    # Small and middle noise: the posterior mean is nearer to the data. No signal: it is the data's mean.
    assert np.all(n["denoised_distance"][:, 1:3] < 0.6 * n["distance"][:, 1:3])
    assert np.all(np.diff(n["distance"], axis=1) > 0)
    assert np.all(np.abs(n["denoised"][:, -1]).mean(1) < 0.2)
    # A normal's kurtosis is 3, with deviation sqrt(24 / 700) for one coordinate, less for the mean of two.
    assert np.all(np.abs(n["kurtosis"][:, -1] - 3) < 4 * math.sqrt(12 / 700))
    assert np.all(n["kurtosis"][:, 0] < 2.3)


def check_diffusion(n):
    for i, t in enumerate(n["t"]):
        np.testing.assert_allclose(n["density"][i], peaks(n["x"], t), atol=1e-12)
        # The expected distance of a histogram of 20,000 in 56 bins is about sum sqrt(2 p / (pi n)) / 2 <= 0.021.
        assert total_variation(n["histogram"][i], n["edges"], lambda x, t=t: peaks(x, t)) < 0.03
    alpha, sigma = vp(n["t"])
    np.testing.assert_allclose(n["variance"], alpha**2 * (1 + 1 / 16 - 0.04) + sigma**2)
    near_moments(20_000, 0.2 * alpha, n["variance"], n["sampled_mean"], n["sampled_variance"])


def check_forward_reverse(n):
    for i in (0, 100, 200):
        np.testing.assert_allclose(n["density"][i], peaks(n["x"], n["t"][i]), atol=1e-12)
    # Flows in one dimension keep quantiles: the ODE's ends are the data's at the same levels, and paths never cross.
    ode = n["reverse_ode"]
    assert np.all(np.diff(ode, axis=1) > 0)
    x = np.linspace(-3, 3, 60_001)
    below = np.cumsum(peaks(x, 0.0)) * (x[1] - x[0])
    np.testing.assert_allclose(np.interp(ode[-1], x, below), (np.arange(9) + 0.5) / 9, atol=3e-3)
    assert np.all(np.abs(np.abs(n["reverse_sde"][-1]) - 1) < 5 * 0.25)
    # The noising increments have the SDE's variance: int g^2 dt = int beta dt in a short step.
    t, x = n["t"], n["forward"]
    increments = np.diff(x, axis=0)[-100:] / np.sqrt((0.1 + 19.9 * (t[1:] + t[:-1])[-100:, None] / 2) * 0.005)
    assert increments.var() == pytest.approx(1, abs=5 * math.sqrt(2 / 500) + 0.05)


def check_fokker_planck(n):
    assert n["slope"] == pytest.approx(2, abs=0.1)
    assert np.all(n["mass_drift"] < 1e-12)
    width = n["x"][1] - n["x"][0]
    for solved, t in zip(n["solved"], n["t"], strict=True):
        assert np.abs(solved - peaks(n["x"], t)).sum() * width / 2 < 1e-3
    assert np.abs(n["back"] - peaks(n["x"], n["start"])).sum() * width / 2 < 2e-3
    assert n["error"][-1] < 1e-5


def check_schedules(n):
    of = dict(zip(n["name"], range(len(n["name"])), strict=True))
    t = n["t"]
    np.testing.assert_allclose(n["signal"] ** 2 + n["noise"] ** 2, 1)
    np.testing.assert_allclose(n["log_snr"], 2 * np.log(n["signal"] / n["noise"]), atol=1e-9)
    assert np.all(np.diff(n["log_snr"], axis=1) < 0)
    np.testing.assert_allclose(n["alpha"][of["vp"]], vp(t)[0])
    np.testing.assert_allclose(n["sigma"][of["ve"]], 80 * t)
    np.testing.assert_allclose(n["log_snr"][of["rectified"]], 2 * np.log((1 - t) / t), atol=1e-9)


def check_score_field(n):
    # The score of the mixture by hand, at both levels.
    y, x = np.meshgrid(n["arrows"], n["arrows"], indexing="ij")
    places, means = np.stack([x, y], -1), np.array([[-2.5, -2.5], [2.5, 2.5]])
    for sigma, score, density in zip(n["sigma"], n["score"], n["density"], strict=True):
        variance = 0.25 + sigma**2
        away = places[..., None, :] - means
        log_joint = np.log([0.2, 0.8]) - (away**2).sum(-1) / (2 * variance)
        share = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=-1)[..., None])
        np.testing.assert_allclose(score, -(share[..., None] * away).sum(-2) / variance, atol=1e-9)
        peak = 0.8 / (2 * math.pi * variance)
        assert density.max() == pytest.approx(peak, rel=0.02 + math.exp(-25 / variance))
    assert n["unseen_share"][0] > 0.8 > 0.5 > n["unseen_share"][1]
    # From a uniform start half the chains meet each island first; annealing comes near the weights.
    np.testing.assert_allclose(n["weights"], [0.2, 0.8])
    assert n["plain_shares"] == pytest.approx([0.5, 0.5], abs=5 * math.sqrt(0.25 / 1500))
    assert np.abs(n["annealed_shares"] - n["weights"]).max() < 0.3 * np.abs(n["plain_shares"] - n["weights"]).max()


def check_euler_heun(n):
    np.testing.assert_allclose(n["exact"], np.sqrt((0.25 + n["sigma"] ** 2) / (0.25 + 0.5**2)))
    euler = 1 - 0.4 * 1.0  # slope sigma x / (0.25 + sigma^2) = 1 at sigma = 1/2
    heun = 1 - 0.2 * (1.0 + 0.1 * euler / 0.26)
    assert (n["euler"], n["heun"]) == (pytest.approx(euler), pytest.approx(heun))
    assert abs(n["heun"] - n["exact"][0]) < abs(n["euler"] - n["exact"][0])
    np.testing.assert_allclose(n["slope"], [1, 2], atol=0.05)


def check_sde_ode(n):
    alpha, sigma = vp(n["t"])
    np.testing.assert_allclose(n["mean"], 0.2 * alpha)
    np.testing.assert_allclose(n["variance"], alpha**2 * (1 + 1 / 16 - 0.04) + sigma**2)
    for key in ("sde", "ode"):
        # 200 steps leave up to a hundredth beside the sampling error.
        slack = 0.012
        assert np.all(np.abs(n[f"{key}_mean"] - n["mean"]) < 5 * np.sqrt(n["variance"] / 10_000))
        assert np.all(np.abs(n[f"{key}_variance"] / n["variance"] - 1) < 5 * math.sqrt(2 / 10_000) + slack)
        for i, t in enumerate(n["t"]):
            assert total_variation(n[f"{key}_histogram"][i], n["edges"], lambda x, t=t: peaks(x, t)) < 0.05
    # One grows smoothly, the other does not: the sum of squared changes along the paths.
    rough = {key: (np.diff(n[f"{key}_paths"], axis=0) ** 2).sum(0).mean() for key in ("sde", "ode")}
    assert rough["sde"] == pytest.approx(10.05, rel=0.25)  # int beta dt, the SDE's quadratic variation
    assert rough["ode"] < 0.1


def check_orders(n):
    gap = dict(zip(n["name"], n["measured"] - n["declared"], strict=True))
    for name in ("ddim", "euler", "midpoint", "heun", "dpmpp-2m", "rk4"):
        assert abs(gap[name]) < 0.1, name
    # Three halvings are not yet the limit for the highest orders: nobody is more than a third below what it declares.
    assert min(gap.values()) > -0.33
    calls = dict(zip(n["name"], n["evaluations"], strict=True))
    np.testing.assert_array_equal(calls["heun"], 2 * n["steps"])
    np.testing.assert_array_equal(calls["dpmpp-2m"], n["steps"])


def check_eta(n):
    # Another route to the same law: the step as published (Song et al., eq. 12 and 16), for data N(0, 1/4).
    for i, eta in enumerate(n["eta"]):
        for j, steps in enumerate(n["steps"]):
            variance, bars = 1.0, vp(np.linspace(1, 0, steps + 1))[0] ** 2
            for a, b in itertools.pairwise(bars):
                fresh = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
                eps = math.sqrt(1 - a) / (a / 4 + 1 - a)
                x0 = (1 - math.sqrt(1 - a) * eps) / math.sqrt(a)
                variance = (math.sqrt(b) * x0 + math.sqrt(max(1 - b - fresh, 0)) * eps) ** 2 * variance + fresh
            assert n["variance"][i, j] == pytest.approx(variance, rel=1e-9)
    assert np.all(np.abs(n["sampled_variance"] / n["variance"] - 1) < 5 * math.sqrt(2 / 10_000))
    assert np.all(np.diff(n["variance"], axis=0)[:, 3:] < 0)
    assert np.all(np.diff(n["variance"], axis=1) > 0)


def check_skipping(n):
    assert dict(zip(n["j"].tolist(), n["modes"].tolist(), strict=True)) == {499: 1, 400: 1, 200: 2, 100: 2}
    # Bayes by hand: q(x_j | x_500 = 0) is proportional to q(x_j) q(x_500 = 0 | x_j).
    bars = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])
    x, density = n["x"], n["density"]
    for j, row in zip(n["j"], density, strict=True):
        ratio = bars[500] / bars[j]
        prior = (normal(x, -math.sqrt(bars[j]), 1 - bars[j]) + normal(x, math.sqrt(bars[j]), 1 - bars[j])) / 2
        joint = prior * normal(0.0, math.sqrt(ratio) * x, 1 - ratio)
        np.testing.assert_allclose(row / row.sum(), joint / joint.sum(), atol=1e-9)
    # Two peaks exactly where the half distance exceeds the deviation.
    levels = dict(zip(n["level"].tolist(), n["mean_over_deviation"], strict=True))
    assert [levels[j] > 1 for j in (499, 400, 200, 100)] == [False, False, True, True]
    np.testing.assert_allclose(n["normal"].sum(1) * (x[1] - x[0]), 1, atol=0.05)


def check_unit_chain(n):
    np.testing.assert_allclose(n["posterior_weights"], [0.75, 0.25])
    assert n["posterior_variance"] == pytest.approx(0.75)
    np.testing.assert_allclose(n["product"], n["posterior"], atol=1e-6)
    np.testing.assert_allclose(n["posterior"], normal(n["x"], 3.0, 0.75), atol=1e-12)
    np.testing.assert_allclose(n["variance"], np.arange(5), atol=5 * 4 * math.sqrt(2 / 20_000))
    assert n["one_variance"] == pytest.approx(4, abs=5 * 4 * math.sqrt(2 / 20_000))
    for key in ("many", "one"):
        assert total_variation(n[key], n["edges"], lambda x: normal(x, 0, 4)) < 0.03


def check_digits(n):
    from sklearn.datasets import load_digits

    everyone = load_digits().images
    clean = np.rint(everyone / 16 * 255).astype(int)
    for picture in (*n["forward"][:, 0], *n["reverse"][:, -1]):
        # Clean ends are real digits, to the rounding of grey values.
        assert np.abs(clean - picture).max((1, 2)).min() <= 1
    np.testing.assert_allclose(n["alpha"] ** 2 + n["sigma"] ** 2, 1)
    assert np.all(n["nearest"][-1] < 1e-3)
    assert np.all(n["nearest"][0] > 4)
    assert len({picture.tobytes() for picture in n["reverse"][:, -1]}) > 1


def check_timeline(n):
    assert len(n["name"]) == 7
    assert np.all(np.diff(12 * n["year"] + n["month"]) > 0)
    assert n["name"][0] == "DPM"
    assert (n["year"][-1], n["month"][-1]) == (2023, 10)


CHECKS = {
    "equations": check_equations,
    "langevin": check_langevin,
    "manifold": check_manifold,
    "diffusion": check_diffusion,
    "forward-reverse": check_forward_reverse,
    "fokker-planck": check_fokker_planck,
    "schedules": check_schedules,
    "log-snr": check_schedules,
    "score-field": check_score_field,
    "euler-heun": check_euler_heun,
    "sde-ode": check_sde_ode,
    "orders": check_orders,
    "eta": check_eta,
    "skipping": check_skipping,
    "unit-chain": check_unit_chain,
    "digits": check_digits,
    "timeline": check_timeline,
}


def test_every_figure_of_the_list_has_its_numbers_checked():
    assert set(CHECKS) == set(FIGURES)
    assert all(figure.caption.endswith(".") and len(figure.caption) < 260 for figure in FIGURES.values())


@pytest.mark.parametrize("name", FIGURES)
def test_numbers_are_the_closed_forms(name, numbers):
    CHECKS[name](numbers(name))


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_writes_its_picture_and_its_numbers(name, numbers, tmp_path):
    picture = FIGURES[name].draw(numbers(name), tmp_path / "figure.png")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] == 1200
    assert pixels[0, 0] == 255  # light paper
    assert 0.005 < (pixels < 250).mean() < 0.8  # there is something, and room around it
    path = write_numbers(tmp_path / "figure.json", {"figure": name}, numbers(name))
    back = json.loads(path.read_text())["numbers"]
    assert set(back) == set(numbers(name))
    for key, values in numbers(name).items():
        if values.dtype.kind == "f" and np.isfinite(values).all():
            np.testing.assert_allclose(np.array(back[key]), values, rtol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figure.json", "figure.png"]


def test_the_page_shows_what_is_there(tmp_path):
    page, *pictures = gallery(tmp_path / "new", CHEAP)
    assert [p.stem for p in pictures] == list(CHEAP)
    text = page.read_text()
    for name in CHEAP:
        assert f'src="{name}.png"' in text
        assert f"osmotic gallery --only {name} --seed 0" in text
    assert 'src="eta.png"' not in text
    # A second call adds to it.
    gallery(tmp_path / "new", ["unit-chain"], seed=3)
    text = page.read_text()
    assert text.index('id="skipping"') < text.index('id="unit-chain"') < text.index('id="timeline"')
    assert "--seed 3" in text


def test_a_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        gallery(tmp_path / folder, ["unit-chain"], seed)
    for ending in ("png", "json"):
        a, b, c = ((tmp_path / folder / f"unit-chain.{ending}").read_bytes() for folder in "abc")
        assert a == b
        assert a != c


def test_what_is_not_a_gallery_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="neither empty nor a gallery; choose another --out"):
        gallery(tmp_path, CHEAP)
    (tmp_path / "index.html").write_text("<html>my own page</html>")
    with pytest.raises(ValueError, match="neither empty nor a gallery"):
        gallery(tmp_path, CHEAP)
    with pytest.raises(ValueError, match="neither empty nor a gallery"):
        gallery(tmp_path / "thesis.txt", CHEAP)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.html", "thesis.txt"]
    with pytest.raises(ValueError, match="no figure 'monet'"):
        gallery(tmp_path / "new", ["monet"])
    assert not (tmp_path / "new").exists()


def test_the_command(tmp_path, capsys):
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(FIGURES)
    out = tmp_path / "gallery"
    assert command.main(["--out", str(out), "--only", *CHEAP]) == 0
    assert f"2 figures and their numbers in {out}" in capsys.readouterr().out
    assert {p.name for p in out.iterdir()} == {"index.html"} | {f"{n}.{e}" for n in CHEAP for e in ("png", "json")}
    with pytest.raises(ValueError, match="64-bit") as caught:
        command.main(["--seed", str(2**64)])
    assert "\n" not in wording(caught.value)


def test_modes_are_counted_on_plateaus_too():
    assert modes(np.array([0, 1, 1, 0, 2, 0.0])) == 2
    assert modes(np.array([0, 1, 2, 2, 1.0])) == 1
    assert modes(np.array([2, 1, 0.0])) == 0


def test_numbers_that_json_has_no_word_for_become_null():
    assert plain(np.array([1.23456789, np.nan, np.inf])) == [1.23457, None, None]
    assert plain(np.array(["a", "b"])) == ["a", "b"]
