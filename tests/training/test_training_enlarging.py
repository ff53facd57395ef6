"""What a model that enlarges is told: noise of a drawn level over the low resolution, which nothing hides."""

import numpy as np
import pytest
import torch

from osmotic.condition import Condition
from osmotic.data.controls import LEVEL
from osmotic.data.dataset import open_data
from osmotic.distill import METHODS, making
from osmotic.guidance import ClassifierFree, Downsample
from osmotic.nn import Embedding
from osmotic.training import build
from osmotic.training.conditions import blank, refuse_unlearned, told
from osmotic.training.denoise import shown as told_in_training
from osmotic.training.enlarging import MOST, PATH, Blurred, shown
from osmotic.training.feed import fetch
from osmotic.training.recipe import Architecture, Process, Recipe
from osmotic.training.task import Domain, Noise

RECIPE = Recipe(architecture=Architecture(network="unet", widths=(8,), blocks=1, attention=()))


@pytest.fixture(scope="module")
def data():
    raw = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
    return open_data((raw, np.arange(64) % 4), upscale=2)


def batch(data, n=64, step=0, start=0, count=None, domain=Domain.TRAINING):
    slots = np.arange(n)[start : start + (count or n)]
    return fetch(data, slots, slots, Noise(0, step, n, start, len(slots), torch.device("cpu"), domain))


def test_the_image_is_the_low_resolution_under_noise_of_the_level_that_is_told(data):
    whole = batch(data)
    cond = Blurred(2)(whole)
    level = cond.vector[:, -1]
    assert level.min() >= 0
    assert 0.35 < level.max() <= MOST
    assert (level < MOST / 4).float().mean() == pytest.approx(0.5, abs=0.19)  # u^2 < 1/4: three standard errors of 64
    assert torch.equal(cond.vector[:, 0], whole.cond.vector[:, 0])
    low, seen = Downsample(2)(whole.x0), Downsample(2)(cond.image)
    alpha, sigma = (n.reshape(-1, 1, 1, 1) for n in PATH(level.double()))
    eps = (seen - alpha * low) / sigma
    assert float(eps.mean()) == pytest.approx(0, abs=4 / 1024**0.5)
    assert float(eps.var()) == pytest.approx(1, abs=4 * (2 / 1024) ** 0.5)
    assert torch.allclose(seen.repeat_interleave(2, 2).repeat_interleave(2, 3), cond.image, atol=1e-6)


def test_the_draws_are_keyed_by_step_and_slot_and_held_out_data_have_their_own(data):
    whole = Blurred(2)(batch(data))
    part = Blurred(2)(batch(data, start=40, count=9))
    assert torch.equal(part.image, whole.image[40:49])
    assert torch.equal(part.vector, whole.vector[40:49])
    assert not torch.equal(Blurred(2)(batch(data, step=1)).image, whole.image)
    drop = build.dropped(Process(), data.spec)
    held = told_in_training(batch(data, domain=Domain.HELD_OUT), drop)
    assert held.keep is None
    assert float(held.vector[:, -1].max()) > 0.3
    assert not torch.equal(held.image, whole.image)


def test_it_is_made_of_the_picture_as_it_is_trained_on(data):
    from dataclasses import replace

    moved = replace(batch(data), x0=batch(data).x0.roll(1, 3))
    assert torch.allclose(
        Blurred(2)(moved).image - Blurred(2)(batch(data)).image,
        (PATH(Blurred(2)(moved).vector[:, -1].double())[0].reshape(-1, 1, 1, 1)).float()
        * (Downsample(2)(moved.x0) - Downsample(2)(batch(data).x0)).repeat_interleave(2, 2).repeat_interleave(2, 3),
        atol=1e-5,
    )


def test_the_network_hears_of_it_whatever_is_hidden(data):
    denoiser = build.denoiser(RECIPE, data.spec, torch.device("cpu"))
    torch.manual_seed(0)
    for parameter in denoiser.parameters():
        parameter.data.normal_(0, 0.1)
    cond = Condition(**data.told(np.arange(4)))
    x, t = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5).double()
    low, eps = Downsample(2)(cond.image), torch.zeros(4, 1, 4, 4)
    darker = shown(cond, low - 0.5, 2, 0.0, eps)
    noisier = shown(cond, low, 2, 0.3, eps)
    hidden = torch.zeros(4, dtype=torch.bool)

    def answer(cond):
        return denoiser(x, t, cond).x0

    for other in (darker, noisier):
        assert not torch.allclose(answer(cond), answer(other), atol=1e-4)
        assert not torch.allclose(answer(cond.drop(hidden)), answer(other.drop(hidden)), atol=1e-4)
    # The class is hidden by the same word, and "nothing" of guidance is everything but the class.
    swapped = told(data.spec, {"class": [1, 2, 3, 0], "image": cond.image}, 4)
    assert not torch.allclose(answer(cond), answer(swapped), atol=1e-4)
    assert torch.allclose(answer(cond.drop(hidden)), answer(swapped.drop(hidden)), atol=1e-6)
    assert torch.allclose(ClassifierFree(denoiser, 0.0)(x, t, cond).x0, answer(cond.drop(hidden)), atol=1e-6)


def test_parts_that_are_never_hidden():
    embedding = Embedding(8, attributes=(3, None), image_channels=1, always=(1, 2))
    cond = Condition(vector=torch.zeros(2, 2), image=torch.zeros(2, 1, 4, 4))
    x = torch.zeros(2, 1, 4, 4)
    keep = embedding._keep(x, cond.drop(torch.tensor([False, True])))
    assert keep.tolist() == [[False, True, True], [True, True, True]]
    assert embedding._keep(x, Condition()).tolist() == [[False] * 3] * 2  # with no condition there is none to tell
    assert "always" not in embedding.state_dict()


def test_what_a_person_says(data):
    spec = data.spec
    low = torch.rand(1, 4, 4)
    cond = told(spec, {"image": low, "class": 2}, 3)
    assert cond.vector.tolist() == [[2.0, 0.0]] * 3
    assert torch.equal(cond.image[1], low.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert cond.keep is None
    assert told(spec, {"image": low}, 2).keep.tolist() == [[False, True, True]] * 2
    assert told(spec, {"image": low, LEVEL: 0.25}, 1).vector[0, -1] == 0.25
    assert blank(spec, 2).image.shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="needs a low resolution for each sample"):
        told(spec, {"class": 1}, 2)
    with pytest.raises(ValueError, match="to 1; got 'much'"):
        told(spec, {"image": low, LEVEL: "much"}, 1)
    with pytest.raises(ValueError, match="needs a low resolution"):
        refuse_unlearned(spec, Recipe(), True, None, 1.0)
    alone = open_data(np.zeros((4, 4, 4, 1), np.uint8) + np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), upscale=2)
    with pytest.raises(ValueError, match="told a low resolution alone"):
        refuse_unlearned(alone.spec, Recipe(), True, blank(alone.spec, 1), 2.0)


def test_students_are_told_as_their_teachers_but_pairs_keep_their_own(data):
    for name, drawn in (("consistency", True), ("knowledge", False)):
        recipe = RECIPE.model_copy(update={"process": Process(sigma_data=0.5)})
        (stage,) = METHODS[name].stages(making.started(recipe, data.spec))
        student = stage.student(making.started(recipe, data.spec))
        made = recipe.model_copy(update={"student": student})
        teacher = build.denoiser(recipe, data.spec, torch.device("cpu"))
        task = making.task(stage, made, data.spec, torch.device("cpu"), teacher, teacher)
        assert (task.drop.drawn is not None) == drawn
