"""The report of a run: what it shows, what it says where there is nothing, and that no text in it is ever code."""

import json
import re
import shlex
import subprocess
import sys
import webbrowser
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from osmotic.cli import train as train_command
from osmotic.cli.flags import parse
from osmotic.data.columns import Columns, fit_numeric
from osmotic.data.spec import Spec
from osmotic.recipes.report import commands, compared, facts, report
from osmotic.recipes.scores import Score, keep
from osmotic.training import defaults
from osmotic.training.errors import RunError
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe, Target
from osmotic.training.run import Run

from ..report import runs


class Reader(HTMLParser):
    """The text and elements of a page as a browser reads them; scripts and styles apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inside, self.text, self.tags, self.scripts, self.links = [], "", [], [], []
        self.feed(page)

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        self.inside.append(name)
        self.links += [value for key, value in attributes if key in ("src", "href")]
        assert not any(key.startswith("on") or key == "style" for key, _ in attributes)

    def handle_endtag(self, name):
        if name in self.inside:
            while self.inside.pop() != name:
                pass

    def handle_data(self, data):
        if "script" in self.inside:
            self.scripts.append(data)
        elif "style" not in self.inside:
            self.text += data


def read(path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture
def plain(tmp_path):
    return runs.written(tmp_path / "plain")


@pytest.fixture
def full(tmp_path):
    return runs.measured(runs.written(tmp_path / "full"))


def test_a_run_that_was_only_trained_says_what_fills_the_rest(picture_run, osmotic, tmp_path):
    code, out, _ = osmotic("report", picture_run, "--out", tmp_path / "page.html")
    assert (code, out.strip()) == (0, str(tmp_path / "page.html"))
    page = read(tmp_path / "page.html")
    count = sum(p.numel() for p in load(picture_run).denoiser.parameters())
    assert f"{count:,} parameters" in page.text
    assert "step 4 of 4 (finished)" in page.text
    assert "zero, one, two" in page.text or "one, two, zero" in page.text
    for words in ("evaluate", "bench", "tune"):
        assert f"osmotic {words} {shlex.quote(str(picture_run))}" in page.text
    assert f"{shlex.quote(str(picture_run))} --likelihood" in page.text
    assert len(re.findall("data:image", " ".join(page.links))) == len(list((picture_run / "samples").glob("step-*")))


def test_the_command_never_imports_torch(full, picture_run):
    code = (
        "import sys\nfrom osmotic.cli.main import main\n"
        f"print(main(['report', {str(full)!r}, {str(picture_run)!r}, '--out', {str(full / 'two.html')!r}]))\n"
        "print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-2:] == ["0", "False False"], done.stderr


def test_everything_measured_is_shown(full):
    path = report(full)
    assert path == full / "report.html"
    page = read(path)
    for score in runs.scores():
        assert score.name in page.text
        assert score.about in page.text
    for words in (
        "3.20",
        "3.00 to 3.40",
        "1.1",
        "1,000 samples",
        "64 principal components of pixels",
        "Few held-out samples.",
        "2.671 to 2.749",
        "flow-2pc",
        "4\u00d7",
        f"{runs.PARAMETERS:,} parameters",
        "osmotic bench",
        "TAB1",
        "TAB7",
        "Published by others, on other data, not measured here",
    ):
        assert words in page.text, words
    assert "this fills it" not in page.text
    assert sum(link.startswith("data:image") for link in page.links) == 3 + 3
    assert "<svg" in path.read_text()


def test_the_interval_of_a_mean_is_the_normal_one(full):
    """2.71 +- 1.96 * 0.02."""
    row = re.search(r"bits per dimension</th>(.*?)</tr>", report(full).read_text())[1]
    assert re.findall(r"[\d.]+(?=[<\s])", row) == ["2.710", "2.671", "2.749"]


def test_nothing_is_fetched_and_nothing_but_its_own_script_runs(full):
    page = read(report(full))
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert len(page.scripts) == 1
    assert not {"link", "iframe", "object", "embed", "form", "base"} & set(page.tags)


def test_text_of_the_run_is_never_code(tmp_path):
    evil = "<script>alert(1)</script>"
    place = tmp_path / "a \"quoted\" 'run' & <b>more<"
    run = runs.measured(
        runs.written(place, classes=(evil, '"><img src=x onerror=alert(2)>'), source=f"/data/{evil}"),
        features=evil,
        warnings=(evil,),
        command=evil,
        date=evil,
    )
    page = read(report(run))
    assert len(page.scripts) == 1
    assert "alert" not in page.scripts[0]
    assert page.text.count(evil) >= 5
    assert "x" not in page.links
    assert str(place) in page.text
    assert "b" not in page.tags
    (script,) = re.findall("<script>", report(run).read_text())
    assert script


def test_a_picture_outside_the_run_is_not_shown(full, tmp_path):
    secret = runs.picture(tmp_path / "secret.png", 7)
    (full / "evaluation" / "link.png").symlink_to(secret)
    quality = facts.read(full).quality
    keep(full, "quality", quality.model_copy(update={"pictures": ("../../secret.png", str(secret), "link.png")}))
    page = read(report(full))
    # The previews, and the neighbours and the trajectory that are there under their own names.
    assert sum(link.startswith("data:image") for link in page.links) == 3 + 2


def test_the_page_of_the_worst_pictures_stays_small(tmp_path):
    pair = [runs.measured(runs.written(tmp_path / name)) for name in "ab"]
    noise = runs.picture(tmp_path / "noise.png", 0, side=1000).read_bytes()
    for run in pair:
        for step in range(0, 2001, 100):
            (run / "samples" / f"step-{step:08d}.png").write_bytes(noise)
        for path in (run / "evaluation").glob("*.png"):
            path.write_bytes(noise)
    path = report(*pair)
    assert path.stat().st_size < 10_000_000
    assert sum(link.startswith("data:image") for link in read(path).links) == 2 * (8 + 3)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("evaluation/quality.json", "{", "quality.json cannot be read"),
        ("evaluation/bench.json", '{"version": 2}', "bench.json cannot be read"),
        ("evaluation/likelihood.json", "[]", "likelihood.json cannot be read"),
        ("tuning/nfe-4.json", "{}", "nfe-4.json cannot be used"),
        ("samples/step-00000500.png", "no picture", "step-00000500.png cannot be shown"),
    ],
)
def test_what_is_damaged_is_a_line_and_the_rest_is_there(full, name, content, told):
    (full / name).write_text(content)
    page = read(report(full))
    assert told in page.text
    assert "Reproduce" in page.text


def test_the_first_minutes_of_a_run_have_a_report_too(tmp_path):
    recipe = defaults.fill(Recipe(process=Process(sigma_data=1.0)), runs.spec())
    Run.create(tmp_path / "new", recipe.model_dump(mode="json"), runs.spec().model_dump(mode="json"))
    page = read(report(tmp_path / "new"))
    for words in ("no whole checkpoint yet", "Nothing was logged yet", "No preview was drawn yet", "none is whole"):
        assert words in page.text


def test_tables_have_a_report_without_pictures_of_others(tmp_path):
    column = fit_numeric("<alcohol>", np.arange(10.0), "double", integer=False)
    spec = Spec(kind="table", shape=(1,), source="wine.csv", count=10, encoding=Columns(columns=(column,)))
    recipe = defaults.fill(Recipe(process=Process(sigma_data=1.0)), spec)
    Run.create(tmp_path / "table", recipe.model_dump(mode="json"), spec.model_dump(mode="json"))
    page = read(report(tmp_path / "table"))
    assert "column <alcohol>: numbers 0 to 9" in page.text
    assert "TAB1" not in page.text


RECIPES = {
    "as found": Recipe(process=Process(sigma_data=0.752)),
    "attention": Recipe(architecture=Architecture(widths=(8, 16, 32), attention=(1, 2), dropout=0.25)),
    "dit": Recipe(architecture=Architecture(network="dit", width=64, depth=3, patch=4)),
    "process": Recipe(
        process=Process(objective="hybrid", schedule="cosine", target="eps", law="uniform", condition_dropout=0.0)
    ),
    "options": Recipe(
        options=Options(
            steps=7, batch_size=3, learning_rate=1.23456789e-5, ema=(100.0, 2000.5), compile=True, seed=12345678901234
        ),
        holdout=0.123,
    ),
    "pictures": Recipe(flip=True, turn=True, shift=2, reading={"size": 32, "max_bad": 0.5}),
    "table": Recipe(reading={"label": "two words", "columns": ("a b", "c"), "drop": ("d",)}),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("source", ["digits (embedded)", '/my data/it\'s "here"'])
def test_the_train_command_gives_the_same_recipe(name, source):
    """What the command line makes of the words is, with defaults found from the data, the stored recipe."""
    spec = runs.spec(source=source)
    stored = defaults.fill(RECIPES[name], spec)
    first, second, *words = shlex.split(commands.train(stored, spec, "runs/it's"))
    settings = parse(train_command.Train, "train", words)
    assert (first, second) == ("osmotic", "train")
    assert (settings.data, str(settings.out)) == (source.removesuffix(" (embedded)"), "runs/it's")
    reading = {k: v for k, v in vars(settings.reading).items() if v is not None}
    again = train_command.recipe(settings).model_copy(update={"reading": reading})
    assert defaults.fill(again, spec).model_dump() == stored.model_dump()


@pytest.mark.parametrize("target", Target.__args__)
def test_the_command_says_what_differs_from_the_defaults(target):
    words = commands.train(defaults.fill(Recipe(process=Process(target=target)), runs.spec()), runs.spec(), "r")
    assert (f"--target {target}" in words) == (target != Process().target)


def test_data_in_memory_have_no_command(tmp_path):
    run = runs.written(tmp_path / "run", source="array in memory")
    page = read(report(run))
    assert "osmotic train" not in page.text
    assert "no command trains it again" in page.text


def test_interruptions_do_not_count_as_training(plain):
    seconds = [10.0, 20.0, 5.0, 15.0, 2.0]
    text = "".join(json.dumps({"step": i, "seconds": s}) + "\n" for i, s in enumerate(seconds))
    (plain / "timing.jsonl").write_text(text)
    assert facts.read(plain).seconds == 20 + 15 + 2
    (plain / "timing.jsonl").unlink()
    assert facts.read(plain).seconds is None


def test_trouble_in_training_is_told(plain):
    lines = (plain / "metrics.jsonl").read_text()
    skipped = {"player": "denoiser", "what": "loss", "count": 2, "samples": ["<i>7</i>", "9"]}
    more = [
        {"step": 2001, "skipped": skipped},
        {"step": 2050, "loss": None, "gradient_norm": None, "skipped_in_all": 1},
        {"step": 2050, "held_out": {"raw": {"loss": 0.9}, "ema-500": {"loss": 0.9}}},
    ]
    (plain / "metrics.jsonl").write_text(lines + "".join(json.dumps(record) + "\n" for record in more))
    page = read(report(plain))
    for words in ("1 skipped step", "<i>7</i>, 9", "it may learn its data by heart", "values that were not finite"):
        assert words in page.text
    assert "i" not in page.tags


def test_a_healthy_run_is_told_to_be_one(plain):
    page = read(report(plain)).text
    assert "steps skippednone" in page
    assert "by heart" not in page.split("Health of the training")[1]


def test_two_runs_stand_side_by_side(tmp_path):
    one = runs.measured(runs.written(tmp_path / "one"))
    recipe = Recipe(process=Process(sigma_data=0.5, target="velocity"))
    two = runs.measured(runs.written(tmp_path / "two", recipe=recipe, rate=0.4), shift=2.0)
    text = report(one, two, tmp_path / "pair.html").read_text()
    page = Reader(text)
    differing = re.findall(r'<th scope="row">(\w+)</th><td>(\w+)</td><td>(\w+)</td>', text)
    assert differing == [("target", "karras", "velocity")]
    assert page.text.count("A is better") == 1
    assert page.text.count("intervals overlap") == 2
    assert page.text.count("no intervals") >= 1
    loss = re.search(r'<figure class="plot"><figcaption><strong>Loss</strong>.*?</figure>', text)[0]
    assert {"curve tone-0", "curve tone-1"} <= set(re.findall(r'class="(curve tone-\d)', loss))
    assert not (one / "report.html").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"features": "something else"}, "The features differ"),
        ({"samples": 500}, "The numbers of samples differ"),
    ],
)
def test_what_cannot_be_compared_is_not(tmp_path, changes, told):
    one = runs.measured(runs.written(tmp_path / "one"))
    two = runs.measured(runs.written(tmp_path / "two"), shift=2.0, **changes)
    page = read(report(one, two)).text
    assert told in page
    assert "A is better" not in page
    assert "B is better" not in page
    assert "no difference between the runs is marked" in page


def test_runs_of_different_data_are_not_compared(tmp_path):
    one = runs.measured(runs.written(tmp_path / "one"))
    two = runs.measured(runs.written(tmp_path / "two", classes=("a", "b")), shift=2.0)
    assert "trained on different data" in read(report(one, two)).text


def test_a_benchmark_of_several_runs_gives_each_its_own(tmp_path):
    one, two = (runs.measured(runs.written(tmp_path / name)) for name in ("one", "two"))
    keep(one, "bench", runs.bench(one, others=(str(two), str(tmp_path / "three"))))
    page = report(one, two).read_text()
    figure = re.search(r"<strong>Frechet distance.*?</figure>", page)[0]
    # One front a run: the better of the two solvers at each of three budgets.
    assert len(re.findall("<circle", figure)) == 2 * 3
    alone = re.search(r"<strong>Frechet distance.*?</figure>", report(one).read_text())[0]
    assert len(re.findall("<circle", alone)) == 3 * 2 * 3


values = st.floats(-10, 10, allow_nan=False)


@given(values, values, st.floats(0.01, 3), st.floats(0.01, 3), st.sampled_from(["lower", "higher", "real"]), values)
def test_only_differences_beyond_the_intervals_are_marked(x, y, wide, narrow, better, real):
    a = Score(name="n", value=x, low=x - wide, high=x + wide, better=better, real=real, samples=1)
    b = Score(name="n", value=y, low=y - narrow, high=y + narrow, better=better, real=real, samples=1)
    found, turned = compared.verdict(a, b), compared.verdict(b, a)
    assert {found, turned} in ({None}, {"A", "B"})
    cost = {"lower": lambda v: v, "higher": lambda v: -v, "real": lambda v: abs(v - real)}[better]
    if abs(x - y) <= wide + narrow - 1e-9:
        assert found is None
    elif abs(x - y) >= wide + narrow + 1e-9 and cost(x) != cost(y):
        assert found == ("A" if cost(x) < cost(y) else "B")


def test_without_an_interval_nothing_is_marked():
    a = Score(name="n", value=1.0, better="lower", samples=1)
    assert compared.verdict(a, a.model_copy(update={"value": 100.0})) is None


def test_a_report_replaces_a_report_and_nothing_else(plain, tmp_path, osmotic):
    report(plain)
    report(plain)
    other = tmp_path / "precious.html"
    other.write_text("<html>mine</html>")
    code, _, err = osmotic("report", plain, "--out", other)
    assert code == 2
    assert err == f"osmotic: {other} is there and is no report of osmotic; choose another --out.\n"
    assert other.read_text() == "<html>mine</html>"
    with pytest.raises(ValueError, match="is a directory; name a file for --out"):
        report(plain, out=tmp_path)
    assert [p.name for p in plain.glob("*.html")] == ["report.html"]
    assert not list(plain.glob(".part*"))


def test_what_is_no_run_is_told_in_a_sentence(plain, tmp_path, osmotic):
    code, _, err = osmotic("report", plain, tmp_path / "none")
    assert code == 2
    assert "none does not exist, so it is no run" in err
    assert not (plain / "report.html").exists()
    (plain / "recipe.json").write_text('{"unheard": 1}')
    with pytest.raises(RunError, match=r"recipe\.json cannot be read: unheard"):
        report(plain)


def test_the_browser_is_opened_only_when_asked(plain, osmotic, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert osmotic("report", plain)[0] == 0
    assert osmotic("report", plain, "--out", plain / "report.html")[0] == 0
    assert not opened
    assert osmotic("report", plain, "--open")[0] == 0
    assert opened == [(plain / "report.html").resolve().as_uri()]


def test_a_long_training_is_shown_evenly(plain):
    for step in range(0, 40_000, 500):
        runs.picture(plain / "samples" / f"step-{step:08d}.png", step, side=4)
    Image.new("RGB", (4, 4)).save(plain / "samples" / "step-final.png")
    steps = [int(s.replace(",", "")) for s in re.findall(r"<figcaption>step ([\d,]+)<", report(plain).read_text())]
    assert len(steps) == 8
    assert (steps[0], steps[-1]) == (0, 39_500)
    gaps = np.diff(steps)
    assert gaps.max() - gaps.min() <= 500
