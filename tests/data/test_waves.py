"""The drawn waves: the detector reads the form that was drawn, through noise too."""

import numpy as np
import pytest

from osmotic.data.dataset import open_data
from osmotic.data.waves import FORMS, beat, drawn, recognise


def test_the_detector_reads_what_was_drawn():
    x, labels = drawn(2000, 1)
    assert (recognise(x) == labels).mean() > 0.995
    noisy = x + 0.15 * np.random.default_rng(2).standard_normal(x.shape)
    assert (recognise(noisy) == labels).mean() > 0.98


def test_every_form_is_drawn_about_as_often():
    _, labels = drawn(4000, 3)
    shares = np.bincount(labels, minlength=len(FORMS)) / 4000
    assert shares == pytest.approx(np.full(len(FORMS), 1 / len(FORMS)), abs=4 * (3 / 16 / 4000) ** 0.5)


def test_forms_repeat_with_every_cycle():
    phase = np.linspace(0, 1, 500, endpoint=False)
    for form in FORMS.values():
        assert form(phase + 2) == pytest.approx(form(phase), abs=1e-9)
    assert beat(phase).argmax() == pytest.approx(0.42 * 500, abs=2)


def test_the_embedded_set_has_classes():
    data = open_data("waves")
    assert data.spec.kind == "sequences"
    assert data.spec.shape == (1, 64)
    assert data.spec.classes == tuple(FORMS)
