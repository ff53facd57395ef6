"""What is said of a student after its distillation: measured or not, resumed, in a report."""

from __future__ import annotations

import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from osmotic.cli.distill import Distill
from osmotic.cli.flags import given, parse
from osmotic.recipes.distill import distill
from osmotic.recipes.report import commands
from osmotic.recipes.train import train
from osmotic.training.model import load
from osmotic.training.recipe import Distillation, Recipe
from osmotic.training.run import Run
from tests.recipes.test_distill import FEW, SMALL


def test_a_student_that_cannot_be_measured_is_whole_all_the_same(tmp_path, osmotic):
    """Six samples are held out of sixty, which is too few to measure anything."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, x in enumerate(np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)):
        Image.fromarray(x).save(folder / f"{i}.png")
    train(folder, tmp_path / "t", Recipe(options=FEW, architecture=SMALL))
    words = ["--out", tmp_path / "s", "--method", "progressive", "--jumps", 2, "--steps", 4]
    code, out, err = osmotic("distill", tmp_path / "t", *words)
    assert code == 0, err
    assert "not measured beside its teacher" in out
    assert "done:" in out
    shutil.rmtree(tmp_path / "s" / "checkpoints")
    code, out, err = osmotic("distill", tmp_path / "t", "--out", tmp_path / "s", "--resume")
    assert code == 0, err
    assert load(tmp_path / "s").recipe.student.method == "progressive", "the method is the run's own"


@pytest.mark.parametrize("method", ["consistency", "progressive"])
def test_the_report_of_a_student_says_how_it_was_distilled(method, tmp_path):
    """Its command makes the same student again: the teacher, the method, the steps of all stages."""
    teacher = train("digits", tmp_path / "t", Recipe(options=FEW, architecture=SMALL)).directory
    numbers = Distillation(**({"jumps": 4} if method == "progressive" else {}))
    run = distill(teacher, tmp_path / "s", method, options=FEW, numbers=numbers, device="cpu")
    words = shlex.split(commands.distill(load(run.directory).recipe, str(run.directory)))
    settings = parse(Distill, "distill", words[2:])
    assert words[:2] == ["osmotic", "distill"]
    assert (settings.teacher, settings.method, settings.out) == (teacher, method, run.directory)
    stages = [run.directory, *run.directory.glob("stages/*")]
    assert given(settings.training)["steps"] == sum(Run.open(stage).recipe()["options"]["steps"] for stage in stages)
    assert given(settings.numbers).get("jumps") == numbers.model_dump(exclude_unset=True).get("jumps")


def test_a_method_that_needs_a_teacher_says_which_command_takes_one(tmp_path, osmotic):
    code, _, err = osmotic("train", "moons", "--out", tmp_path / "run", "--objective", "consistency")
    assert code == 2
    assert "osmotic distill TEACHER --method consistency" in err
    assert not (tmp_path / "run").exists()
