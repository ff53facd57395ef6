"""Cascades from one command to pictures, what is refused, and the joint law that exact stages draw."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import osmotic as library
from osmotic.data.controls import Low
from osmotic.data.encoding import Pixels
from osmotic.data.spec import Spec
from osmotic.denoiser import Denoiser
from osmotic.distill import METHODS, making
from osmotic.estimate import Estimate, like
from osmotic.guidance import Downsample
from osmotic.oracles import Gaussian
from osmotic.recipes.cascade import train_cascade
from osmotic.schedules import Cosine
from osmotic.training import build
from osmotic.training.cascade import AUGMENTATION, Cascade, load
from osmotic.training.enlarging import MOST
from osmotic.training.errors import RunError
from osmotic.training.model import Model
from osmotic.training.model import load as load_run
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

from .conftest import SMALL_NET, TINY

SIDE, FACTOR = 4, 2
D, L = SIDE**2, (SIDE // FACTOR) ** 2
A = Downsample(FACTOR)(torch.eye(D).double().reshape(D, 1, SIDE, SIDE)).flatten(1).T
PATH = Cosine()
FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=4, preview_every=4, evaluate_every=4, ema=(2.0,))
SMALL = Recipe(options=FEW, architecture=Architecture(widths=(8,), blocks=1, attention=()))


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """A cascade of four steps a stage on the digits in classes, 16 x 12: 3, 6 and 12 pixels."""
    out = tmp_path_factory.mktemp("cascades") / "cascade"
    return train_cascade(str(pictures), out, (3, 6, 12), SMALL)


def law():
    """Mean and covariance of a stationary field, ``(D,)`` and ``(D, D)``."""
    places = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).double()
    mean = torch.linspace(-0.5, 0.5, D).double()
    return mean, 0.3 * torch.exp(-torch.cdist(places, places) / 1.5)


class Exact(Denoiser):
    """The exact denoiser of the field given an image under noise, whose level is the last number of the vector."""

    def __init__(self):
        super().__init__()
        self.schedule, self.anchor = PATH, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond=None, s=None):
        mean, covariance = law()
        angle = float(cond.vector[0, -1]) * torch.pi / 2
        a, b = float(np.cos(angle)), float(np.sin(angle))
        seen = a**2 * A @ covariance @ A.T + b**2 * torch.eye(L).double()
        gain = a * covariance @ A.T @ torch.linalg.inv(seen)
        y = Downsample(FACTOR)(cond.image).flatten(1).double()
        told = mean + (y - a * (A @ mean)) @ gain.T
        values, axes = torch.linalg.eigh(covariance - a * gain @ A @ covariance)
        alpha, sigma = like(told, *self.schedule.numbers(t))
        z = (x.flatten(1).double() - alpha * told) @ axes / (alpha**2 * values.clamp(min=0) + sigma**2)
        x0 = told + alpha * (values.clamp(min=0) * z) @ axes.T
        return Estimate(x0.reshape(x.shape).to(x), (sigma * z @ axes.T).reshape(x.shape).to(x))


def exact() -> Cascade:
    """The command's own cascade, with exact denoisers in place of networks."""
    mean, covariance = law()
    base = Gaussian(PATH, (A @ mean).reshape(1, 2, 2), A @ covariance @ A.T)
    base.anchor = torch.nn.Parameter(torch.zeros(1))
    recipe = Recipe(process=Process(schedule="cosine", sigma_data=0.55))
    spec = Spec(kind="images", shape=(1, 2, 2), source="a field", count=1, encoding=Pixels())
    large = spec.model_copy(update={"shape": (1, SIDE, SIDE), "control": Low(factor=FACTOR)})
    return Cascade([Model(base, spec, recipe, 0), Model(Exact(), large, recipe, 0)])


@pytest.mark.parametrize("level", [0.0, 0.1, 0.4])
def test_exact_stages_draw_the_joint_law_of_a_field(level):
    """4000 samples by one call: moments of both resolutions together, within five standard errors."""
    n, cascade = 4000, exact()
    low, high = (x.flatten(1).double() for x in cascade.resolutions(n, steps=40, augmentation=level))
    mean, covariance = law()

    def near(x, mean, covariance):
        v = covariance.diagonal()
        assert ((x.mean(0) - mean).abs() < 5 * (v / n).sqrt() + 0.003).all()
        error = ((v[:, None] * v + covariance.square()) / n).sqrt()
        assert ((x.T.cov() - covariance).abs() < 5 * error + 0.003).all()

    near(high, mean, covariance)
    near(low, A @ mean, A @ covariance @ A.T)
    # Given the noisy copy both were drawn independently, so this is how much one says of the other.
    a, b = (float(v) for v in PATH(torch.tensor(level).double()))
    seen = a**2 * A @ covariance @ A.T + b**2 * torch.eye(L).double()
    cross = (A @ covariance @ A.T) @ torch.linalg.inv(seen) @ (a**2 * A @ covariance)
    joint = torch.cat([torch.cat([A @ covariance @ A.T, cross], 1), torch.cat([cross.T, covariance], 1)])
    near(torch.cat([low, high], 1), torch.cat([A @ mean, mean]), joint)
    if level == 0:
        assert torch.allclose(high @ A.T, low, atol=1e-4)


def test_a_sample_is_the_same_in_any_batch_and_stages_share_no_noise():
    cascade = exact()
    whole = cascade.sample(7, steps=3, seed=5)
    assert torch.allclose(cascade.sample(7, steps=3, seed=5, batch_size=3), whole, atol=1e-5)
    assert torch.allclose(cascade.sample(2, steps=3, seed=5, first=4), whole[4:6], atol=1e-5)
    assert not torch.allclose(cascade.sample(7, steps=3, seed=6), whole, atol=0.1)
    # The first stage is that of its own run; noise of the second correlates with none of it.
    base = cascade.stages[0].sample(4000, steps=10, seed=1)
    assert torch.equal(next(iter(cascade.resolutions(4000, steps=10, seed=1))), base)
    wide = next(iter(cascade.resolutions(4000, steps=10, seed=1, augmentation=1.0)))
    *_, high = cascade.resolutions(4000, steps=10, seed=1, augmentation=1.0)  # told nothing, so independent
    cross = torch.corrcoef(torch.cat([wide.flatten(1), high.flatten(1)], 1).T)[:L, L:]
    assert cross.abs().max() < 5 / 4000**0.5


def test_trained_by_one_call_and_sampled_by_one_call(folder, osmotic, tmp_path):
    stages = json.loads((folder / "cascade.json").read_text())["stages"]
    assert stages == ["3", "6", "12"]
    specs = [load_run(folder / name).spec for name in stages]
    assert [spec.shape for spec in specs] == [(3, 4, 3), (3, 8, 6), (3, 16, 12)]
    assert [spec.control for spec in specs] == [None, Low(factor=2), Low(factor=2)]
    cascade = library.load(folder, device="cpu")
    assert isinstance(cascade, Cascade)
    low, middle, high = cascade.resolutions(2, "two", 2.0, steps=(3, 2, None), seed=3)
    assert [tuple(x.shape[1:]) for x in (low, middle, high)] == [spec.shape for spec in specs]
    assert cascade.decode(high).dtype == np.uint8
    # Told by name or number, once or for each; it changes what all stages do.
    assert torch.equal(cascade.sample(2, {"class": ["two", 1]}, steps=2)[:1], cascade.sample(1, "two", steps=2))
    assert not torch.equal(cascade.sample(1, "two", steps=2), cascade.sample(1, "one", steps=2))
    assert not torch.equal(cascade.sample(1, steps=2, augmentation=0.5), cascade.sample(1, steps=2))
    code, said, err = osmotic(
        "sample", folder, "--count", 6, "--stage-steps", 2, 1, 1, "--guidance", 1.5, "--out", tmp_path / "drawn"
    )
    assert code == 0, err
    assert "grid.png" in said
    with np.load(next((tmp_path / "drawn").glob("*.npz"))) as stored:
        assert stored["arr_0"].shape == (6, 16, 12, 3)
        assert stored["arr_1"].tolist() == [0, 1, 2, 0, 1, 2]
    with Image.open(sorted((tmp_path / "drawn" / "pictures").glob("*.png"))[2]) as picture:
        assert "osmotic sample" in picture.info["command"]
    code, said, _ = osmotic("info", folder)
    assert code == 0
    assert "12: 3 x 16 x 12, 2 times larger, at step 4 of 4" in said


def test_resumed_where_it_stands_and_a_stage_may_be_another_run(folder, osmotic, pictures, tmp_path):
    out = tmp_path / "cascade"
    shutil.copytree(folder, out)
    before = (out / "12" / "checkpoints").stat().st_mtime_ns
    shutil.rmtree(out / "12")
    code, said, err = osmotic("train", pictures, "--out", out, "--resume", *TINY, *SMALL_NET)
    assert code == 0, err
    assert "stage 1 of 3, 3 pixels: finished" in said
    assert (out / "12" / "checkpoints").stat().st_mtime_ns != before
    code, said, _ = osmotic("train", pictures, "--out", out, "--resume", "--steps", 5)
    assert code == 0
    assert [load_run(out / name).step for name in ("3", "6", "12")] == [5, 5, 5]
    # Another run in place of a stage, by its path relative to the cascade: a student would be put so.
    shutil.move(out / "6", tmp_path / "other")
    (out / "cascade.json").write_text(json.dumps({"stages": ["3", "../other", "12"]}))
    assert load(out).sample(1, steps=1).shape == (1, 3, 16, 12)
    code, _, err = osmotic("train", pictures, "--out", out, "--resume")
    assert code == 2
    assert "stages that were not trained with it" in err


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (("3", "8"), "8 is none of 3"),
        (("6", "3"), "3 is none of 6"),
        (("6",), "two sizes or more"),
        (("3", "9"), "the last size of the cascade is 9: end with 12"),
        (("1", "5", "10"), "the last size of the cascade is 10"),
    ],
)
def test_sizes_that_are_no_cascade(osmotic, pictures, tmp_path, sizes, said):
    code, _, err = osmotic("train", pictures, "--out", tmp_path / "c", "--cascade", *sizes)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "c").exists()


def test_other_wrong_use_is_one_sentence(osmotic, folder, pictures, picture_run, tmp_path):
    for words, said in [
        (["train", pictures, "--out", folder, "--cascade", 3, 6, 12], "already holds a cascade; pass --resume"),
        (["train", pictures, "--out", folder, "--cascade", 6, 12, "--resume"], "is a cascade of 3 6 12, which cannot"),
        (["train", pictures, "--out", tmp_path / "x", "--cascade", 3, 6, "--upscale", 2], "leave out --upscale"),
        (["train", "wine", "--out", tmp_path / "x", "--cascade", 3, 6], "a cascade is of pictures"),
        (["train", pictures, "--out", tmp_path / "x", "--upscale", 5], "cannot be enlarged by 5"),
        (["sample", folder, "--grid", "log-snr"], "--grid is for a single run, and this is a cascade"),
        (["sample", folder, "--rescale", 0.5], "--rescale is for a single run"),
        (["sample", folder, "--steps", 2, "--stage-steps", 1, 1, 1], "give one of them"),
        (["sample", folder, "--stage-steps", 1, 1], "Steps were given for 2 of 3 stages"),
        (["sample", folder, "--class", "four"], "There is no class 'four'"),
        (["sample", folder, "--prompt", "a cat"], "trained without texts"),
        (["sample", picture_run, "--augmentation", 0.1], "--augmentation is for cascades"),
        (["sample", folder, "--augmentation", 0.6], f"should be less than or equal to {MOST}"),  # never trained
        (["sample", folder / "6"], "needs a low resolution for each sample"),
        (["evaluate", folder], "is a cascade of several runs"),
    ]:
        code, _, err = osmotic(*words)
        assert code == 2, (words, err)
        assert said in err, (words, err)
        assert len(err.strip().splitlines()) == 1, err


def test_stages_that_do_not_fit_each_other(folder, tmp_path):
    base, middle, high = (load_run(folder / name) for name in ("3", "6", "12"))
    for stages, said in [
        ([middle, high], "The first stage"),
        ([base, base], "does not enlarge pictures"),
        ([base, high], "the stages do not fit"),
        ([], "at least one stage"),
    ]:
        with pytest.raises(RunError, match=said):
            Cascade(stages)
    cascade = Cascade([base, middle])
    with pytest.raises(ValueError, match="No stage of this cascade is told 'colour'; they are told class"):
        cascade.sample(1, {"colour": "red"})
    with pytest.raises(ValueError, match="a level from 0"):
        cascade.sample(1, augmentation=2.0)
    with pytest.raises(ValueError, match="a condition of its own"):
        cascade.sample(1, middle.condition({"image": torch.zeros(middle.spec.shape)}, 1, 0, 1))
    assert 0 <= AUGMENTATION < MOST
    (tmp_path / "cascade.json").write_text('{"stages": 3}')
    with pytest.raises(RunError, match="should hold"):
        load(tmp_path)


def test_a_stage_may_be_a_student_which_is_drawn_in_its_own_way(folder):
    base, middle, high = (load_run(folder / name, device="cpu") for name in ("3", "6", "12"))
    start = making.started(high.recipe, high.spec)
    (stage,) = METHODS["consistency"].stages(start)
    recipe = high.recipe.model_copy(update={"student": stage.student(start)})
    student = Model(build.denoiser(recipe, high.spec, torch.device("cpu")), high.spec, recipe, 0)
    cascade, calls = Cascade([base, middle, student]), []
    student.denoiser.register_forward_hook(lambda *call: calls.append(len(call[1][0])))
    x = cascade.sample(2, "two", 2.0, sampler="heun", steps=3)
    assert x.shape == (2, 3, 16, 12)
    assert calls == [2]  # one jump, without guidance, which it never learned
    cascade.sample(2, "two", steps=(2, 2, 4))
    assert len(calls) == 5


def test_a_refused_cascade_is_in_nobodys_way_and_a_resumed_one_reads_as_before(pictures, tmp_path):
    few = Options(steps=1, batch_size=4, evaluate_every=1, preview_every=1, checkpoint_every=1, ema=(1.0,))
    small = Architecture(widths=(8,), blocks=1)
    wrong = Recipe(options=few, process=Process(objective="autoencoder"), reading={"size": 16})
    with pytest.raises(ValueError, match="draws nothing a cascade could enlarge"):
        train_cascade(str(pictures), tmp_path / "c", [8, 16], wrong)
    wrong = Recipe(options=few, architecture=small, process=Process(part_dropout={"size": 0.1}), reading={"size": 16})
    with pytest.raises(ValueError, match="part-dropout"):
        train_cascade(str(pictures), tmp_path / "c", [8, 16], wrong)
    recipe = Recipe(options=few, architecture=small, reading={"size": 16})
    train_cascade(str(pictures), tmp_path / "c", [8, 16], recipe)
    train_cascade(str(pictures), tmp_path / "c", recipe=Recipe(options=Options(steps=2)), resume=True)
    assert all(load(tmp_path / "c").stages[i].step == 2 for i in range(2))
