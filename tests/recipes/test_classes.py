"""Classes of sequences and of tables: what is drawn is of the class that was asked for."""

import numpy as np
import pytest

from osmotic.data.dataset import open_data
from osmotic.data.waves import FORMS, recognise
from osmotic.metrics import accuracy_of_training_on, agreement, fit_classifier
from osmotic.recipes.demo import everything
from osmotic.recipes.train import train
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe


@pytest.mark.slow
def test_waves_are_of_the_form_asked_for(tmp_path):
    recipe = Recipe(
        options=Options(steps=300, batch_size=64, learning_rate=3e-3),
        architecture=Architecture(widths=(16, 32, 32), blocks=1, attention=()),
    )
    train("waves", tmp_path / "run", recipe, device="cpu")
    model = load(tmp_path / "run", device="cpu")
    labels = np.arange(200) % len(FORMS)
    for guidance, bar in ((1.0, 0.8), (2.0, 0.85)):
        x = model.decode(model.sample(200, labels, guidance, steps=10))[:, 0].astype(np.float64)
        assert (recognise(x) == labels).mean() > bar


def test_rows_are_of_the_class_asked_for(tmp_path):
    recipe = Recipe(options=Options(steps=600, batch_size=128), architecture=Architecture(widths=(64, 64, 64)))
    data = open_data("iris")
    train(data, tmp_path / "run", recipe, device="cpu")
    labels = np.arange(600) % 3
    x = load(tmp_path / "run", device="cpu").sample(600, labels, steps=20).numpy()
    real = everything(data)
    assert agreement(fit_classifier(*real), x, labels) > 0.9
    assert accuracy_of_training_on(x, labels, *real) > 0.9
