"""Every few-step method, as it is listed: three seeds on a mixture in the plane, and the masses of two far modes."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from osmotic.distill import METHODS
from osmotic.distill.base import Start
from osmotic.estimate import X0, V
from osmotic.oracles import GaussianMixture
from osmotic.training.recipe import Distillation

from .toys import SCHEDULE, Trained, deviation, energy, five, generator, masses, train, trained, two_modes

SAMPLES = 4000
SEEDS = (0, 1, 2)
DIMENSIONS = (1, 16, 64)
SLOW = {"ddgan"}
"""Methods of a minute for each student, of which one is made by default."""


def thinned(values: tuple[int, ...], kept: int, all_of: bool) -> list[Any]:
    """Each method with each value, but slow where it is neither kept nor of a method whose values are all fast."""
    return [
        pytest.param(m, v, marks=() if v == kept or (all_of and m not in SLOW) else (pytest.mark.slow,))
        for m in METHODS
        for v in values
    ]


USUAL = {"steps": 500, "width": 64, "batch": 256}
BUDGET = {
    "consistency": {"steps": 1000},
    "meanflow": {"steps": 700},
    "ect": {"steps": 2000},
    "ict": {"steps": 2000},
    "ct": {"steps": 2000},
    "ddgan": {"steps": 900, "width": 128, "batch": 512},
}
"""What takes more than the usual: where targets are random, or two players move."""

ENERGY = 0.01
"""Bound of the energy distance to the data, which are of deviation 0.5: one Gaussian with the data's moments has 0.026,
a dropped mode of mass 0.15 costs 0.024, two real sets of so many are 0.0005 apart. Smaller modes are counted."""

MASS = 0.03
OWN = {"ddgan": 4}  # methods without fewer jumps


def numbers(method: str, jumps: int) -> Distillation:
    """What a method must be told to be drawn in so many jumps."""
    reads = METHODS[method].reads
    said = {"pairs": 4096, "jumps": 16, "last_jumps": OWN.get(method, jumps)}
    return Distillation(**{name: value for name, value in said.items() if name in reads})


def taught(method: str, oracle: GaussianMixture, name: str, seed: int, jumps: int, **more: Any) -> Trained:
    """A student within the method's budget, from the weights of a network that learned the oracle."""
    spent = USUAL | BUDGET.get(method, {})
    first = trained(name, oracle.means.shape[1], spent["width"])
    return train(method, oracle, first, seed=seed, numbers=numbers(method, jumps), **spent, **more)


def jumps_of(method: str) -> list[int]:
    """1 and 2, or what the method has in their place."""
    if method in OWN:
        return [OWN[method]]
    start = Start(SCHEDULE, 0.5, 1, True, numbers(method, 2))
    last = METHODS[method].stages(start)[-1].student(start)
    return [1, 2] if last.stops is None or len(last.stops) == 2 else [1]


def check_modes(oracle: GaussianMixture, x: Tensor, within: float) -> None:
    """Each mode has its share of the samples, and few lie between modes.

    Of the data 0.997 lie so near to a mode, of one Gaussian with their moments at most two thirds.
    """
    found, near = masses(oracle, x)
    assert float((found - oracle.log_weights.exp()).abs().max()) < within, f"masses {found.tolist()}"
    assert near > 0.8


@pytest.mark.parametrize(("method", "seed"), thinned(SEEDS, 0, all_of=True))
def test_a_student_of_seconds_lands_near_the_data(method, seed):
    """In 1 and 2 jumps, or what the method has in their place."""
    reads_jumps, made = "last_jumps" in METHODS[method].reads, None
    for jumps in jumps_of(method):
        if made is None or reads_jumps:
            made = taught(method, five(), "five", seed, jumps)
        x = made.sample(SAMPLES, jumps)
        found = energy(x, five().sample(SAMPLES, generator(99)))
        assert found < ENERGY, f"{method} in {jumps} jumps: energy distance {found:.4f}"
        check_modes(five(), x, 0.08)  # so that a mode of 0.1 that is dropped fails


@pytest.mark.parametrize(("method", "dimensions"), thinned(DIMENSIONS, 16, all_of=False))
def test_the_smaller_mode_keeps_its_mass(method, dimensions):
    """Gaussian oracles cannot see the bias of robust losses and coarse grids; two unequal far modes do."""
    oracle = two_modes(dimensions)
    made = taught(method, oracle, "two", 0, 1)
    check_modes(oracle, made.sample(8000, OWN.get(method, 1)), MASS)


ALONE = {
    "shortcut": {"steps": 1500},
    "ct": {"steps": 3000},
    "ict": {"steps": 3000},
    "meanflow": {"steps": 2000},
    "ddgan": {"steps": 1500, "width": 128, "batch": 512},
    "scm": {"steps": 2000, "width": 128},
}
"""Of students that nobody teaches, from random weights."""


@pytest.mark.parametrize("dimensions", [1, 2, 16])
@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=() if m == "shortcut" else (pytest.mark.slow,)) for m in ALONE]
)
def test_without_a_teacher_the_modes_keep_their_masses(method, dimensions):
    oracle = five() if dimensions == 2 else two_modes(dimensions)
    made = train(method, oracle, None, numbers=numbers(method, 1), alone=True, **USUAL | ALONE[method])
    x = made.sample(8000, OWN.get(method, 1))
    check_modes(oracle, x, 0.08 if dimensions == 2 else MASS)
    assert energy(x[:SAMPLES], oracle.sample(SAMPLES, generator(99))) < ENERGY


def test_methods_that_need_no_teacher_are_trained_without_one():
    assert ALONE.keys() == {name for name, method in METHODS.items() if not method.teacher}


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 16])
def test_an_adversary_keeps_the_masses(dimensions):
    oracle = five() if dimensions == 2 else two_modes(dimensions)
    first = trained("five" if dimensions == 2 else "two", dimensions)
    made = train("ctm", oracle, first, 600, numbers=Distillation(adversarial=0.1))
    check_modes(oracle, made.sample(8000), 0.08 if dimensions == 2 else MASS)


@pytest.mark.parametrize("target", [X0(), V()])
def test_progressive_distillation_takes_the_targets_of_its_teachers(target):
    made = train("progressive", five(), None, 1000, numbers=numbers("progressive", 1), target=target)
    assert energy(made.sample(SAMPLES), five().sample(SAMPLES, generator(99))) < ENERGY


def test_every_method_says_what_it_is():
    start = Start(SCHEDULE, 0.5, 1, True, Distillation())
    for name, method in METHODS.items():
        assert method.name == name
        assert method.what
        assert method.reads <= set(Distillation.model_fields)
        stages = method.stages(start)
        assert stages[-1].name == ""
        assert all(stage.name for stage in stages[:-1])
        assert all(stage.student(start).method == name for stage in stages)


def test_the_toy_is_as_stated():
    assert abs(deviation(five()) - 0.5) < 0.02
    floor = energy(five().sample(SAMPLES, generator(1)), five().sample(SAMPLES, generator(2)))
    assert abs(floor) < 0.001
    for d in (1, 16, 64):
        check_modes(two_modes(d), two_modes(d).sample(8000, generator(1)), MASS / 2)
