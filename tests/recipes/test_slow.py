"""The demo's quality bar for every parameterization and path: hours of evidence, so kept out of `make test`."""

import numpy as np
import pytest

from osmotic.data.dataset import open_data, split
from osmotic.metrics import accuracy_of_training_on, agreement, fit_classifier
from osmotic.recipes.demo import CLASSES, GUIDANCE, HOLDOUT, JUDGED, LEARNED, demo, everything
from osmotic.recipes.train import train
from osmotic.schedules import VE, VP, Rectified
from osmotic.training.model import Model, load
from osmotic.training.recipe import Process, Recipe

AGREEMENT, LEARNED_FROM = 0.99, 0.97


def check(model: Model, **how) -> None:
    """1,000 guided digits at 10 steps agree with their class; a classifier trained on 2,000 plain ones knows real
    digits.
    """
    training, held_out = (everything(part) for part in split(open_data("digits"), HOLDOUT, 0))
    labels = np.arange(LEARNED) % CLASSES
    judge = fit_classifier(*training)
    guided = model.sample(JUDGED, labels[:JUDGED], GUIDANCE, **how).numpy()
    plain = model.sample(LEARNED, labels, **how).numpy()
    assert agreement(judge, guided, labels[:JUDGED]) >= AGREEMENT
    assert accuracy_of_training_on(plain, labels, *held_out) >= LEARNED_FROM


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_reaches_its_bars(seed, tmp_path):
    scores, pictures = demo(tmp_path / "run", seed)
    assert scores.judge > 0.95
    assert scores.agreement >= AGREEMENT
    assert scores.learned >= LEARNED_FROM
    assert 0.2 < scores.closer < 0.8
    assert all(path.is_file() for path in pictures)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", ["eps", "v", "x0", "karras", "velocity"])
def test_every_target_on_one_schedule(target, tmp_path):
    # Errors of x0 alone say little at low noise; min-SNR is the published weight for this target (arXiv 2303.09556).
    process = Process(schedule="vp", target=target, law="uniform", weight="min-snr" if target == "x0" else "unit")
    train("digits", tmp_path / "run", Recipe(process=process, holdout=HOLDOUT))
    check(load(tmp_path / "run"))
    if target == "v":
        for schedule in (VE(80.0), Rectified(), VP()):
            check(load(tmp_path / "run"), schedule=schedule)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_prompts_are_obeyed(tmp_path):
    from osmotic.recipes.shapes import main

    found = main(tmp_path / "run")
    assert found.both >= 0.95
    assert found.place >= 0.9
    assert found.removed >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_few_step_recipe_of_larger_pictures_runs(tmp_path):
    """Fifty steps on a CPU; what it reaches is a matter for a GPU."""
    from osmotic.recipes.few_step import compare

    draws = np.random.default_rng(0)
    x, y = draws.integers(0, 256, (240, 32, 32, 3), dtype=np.uint8), np.arange(240) % 4
    np.savez(tmp_path / "pictures.npz", x=x, y=y)
    lines = compare(str(tmp_path / "pictures.npz"), tmp_path / "runs", ("consistency",), 50, count=12, batch_size=4)
    assert any("consistency" in line for line in lines)
    assert (tmp_path / "runs" / "consistency" / "evaluation" / "beside.png").is_file()
