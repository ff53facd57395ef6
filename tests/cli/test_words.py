"""What the command line says about words that it cannot use: one sentence, the same every time, with a way out."""

import re
from typing import get_args

import pytest

from osmotic.cli import evaluate, sample, train, tune
from osmotic.cli.flags import UsageError, parse
from osmotic.training.recipe import Objective, Sampler


def complaint(command, name: str, *words: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(command, name, list(words))
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize(
    ("command", "flag", "wrong", "meant", "choices"),
    [
        (sample.Sample, "--sampler", "heum", "heun", get_args(Sampler)),
        (evaluate.Evaluate, "--divergence", "exct", "exact", ("exact", "hutchinson")),
        (train.Train, "--objective", "hybird", "hybrid", get_args(Objective)),
    ],
)
def test_a_wrong_choice_lists_the_choices_in_their_order(command, flag, wrong, meant, choices):
    needed = ["--out", "x"] if command is train.Train else []
    text = complaint(command, "x", "run", *needed, flag, wrong)
    assert text == f"There is no {flag} {wrong!r} (did you mean {meant!r}?); there are {', '.join(choices)}."


def test_a_choice_near_to_nothing_has_no_suggestion():
    text = complaint(evaluate.Evaluate, "evaluate", "run", "--divergence", "7")
    assert text == "There is no --divergence '7'; there are exact, hutchinson."


@pytest.mark.parametrize(
    ("command", "wrong", "meant"),
    [
        (sample.Sample, "--sampelr", "--sampler"),
        (sample.Sample, "--stpes", "--steps"),
        (sample.Sample, "--batchsize", "--batch-size"),
        (sample.Sample, "--classes", "--class"),
        (evaluate.Evaluate, "--liklihood", "--likelihood"),
        (tune.Tune, "--nef", "--nfe"),
    ],
)
def test_an_unknown_flag_is_told_the_nearest(command, wrong, meant):
    assert f"(did you mean {meant}?)" in complaint(command, "x", "run", wrong, "3")


def test_an_unknown_flag_near_to_none_is_told_none():
    text = complaint(sample.Sample, "sample", "run", "--zzzz", "3")
    assert "did you mean" not in text
    assert "--zzzz" in text


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        (sample.Sample, ["--steps", "abc"], "--steps takes INT; got 'abc'"),
        (sample.Sample, ["--guidance", "two"], "--guidance takes FLOAT; got 'two'"),
        (train.Train, ["--out", "x", "--widths", "3", "a"], "--widths takes INT ...; got '3 a'"),
        (train.Train, ["--out", "x", "--label", "a", "--size", "b"], "--size takes INT; got 'b'"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_the_right_one(command, words, said):
    text = complaint(command, "x", "run", *words)
    assert text == f"{said}; `osmotic x --help` lists what there is."
    assert not re.search(r"None|Annotated|Got errors", text)


def test_what_wants_more_steps_is_said_in_the_help(capsys):
    with pytest.raises(SystemExit):
        parse(sample.Sample, "sample", ["--help"])
    text = " ".join(re.sub(r"[│|]", " ", capsys.readouterr().out).split())
    told = re.search(r"(heun, .*?) want 20 or more", text)
    assert told is not None
    names = set(re.findall(r"[a-z0-9-]+", told[1])) - {"and"}
    assert {"heun", "ddpm-large", "predictor-corrector", "reverse-diffusion", "rk4-log-snr"} <= names
    assert names <= set(get_args(Sampler))
