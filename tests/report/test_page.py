"""The pieces of a page: safe markup, round ticks, charts that show what they are given."""

import base64
import hashlib
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from osmotic.report.page import axes, chart, words
from osmotic.report.page.axes import Axis
from osmotic.report.page.document import document, film, section
from osmotic.report.page.html import Html, join, table, tag
from osmotic.report.page.picture import MOST, WIDEST, inline


class Reader(HTMLParser):
    """The text and the attributes of a page, as a browser reads them."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.text, self.tags, self.values = "", [], []
        self.feed(markup)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, name: str, attributes: list) -> None:
        self.tags.append(name)
        self.values += [value for _, value in attributes]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_comes_back_as_text(inside, attribute):
    read = Reader(tag("p", inside, title=attribute))
    assert (read.text, read.tags, read.values) == (inside, ["p"], [attribute])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1, max_size=4))
def test_cells_are_text_too(cells):
    read = Reader(table(cells, [cells]))
    assert read.text == "".join(cells) * 2
    assert set(read.tags) == {"div", "table", "thead", "tbody", "tr", "th", "td"} - (
        {"td"} if len(cells) == 1 else set()
    )


def test_markup_is_not_escaped_twice():
    assert join([tag("b", "<"), "&"]) == "<b>&lt;</b>&amp;"
    assert tag("img", src="a", alt=None, hidden=True) == '<img src="a" hidden />'
    assert isinstance(tag("p"), Html)


numbers = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-9)


@given(st.lists(numbers, min_size=1, max_size=20))
def test_ticks_of_a_straight_axis(values):
    axis = Axis.around(values)
    ticks = axis.ticks()
    steps = np.diff(ticks)
    assert all(-1e-9 <= axis.share(v) <= 1 + 1e-9 for v in values)
    assert 2 <= len(ticks) <= 8
    assert np.all(steps > 0)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    assert all(-1e-6 <= axis.share(t) <= 1 + 1e-6 for t in ticks)


@given(st.floats(1e-8, 1e8), st.floats(1.0, 1e10))
def test_ticks_of_a_logarithmic_axis(low, ratio):
    axis = Axis.around([low, low * ratio], log=True)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    assert all(-1e-6 <= axis.share(t) <= 1 + 1e-6 for t in ticks)
    assert axis.share(math.sqrt(low * low * ratio)) == pytest.approx(0.5, abs=1e-6)


def test_an_axis_of_nothing_and_of_one_value():
    assert Axis.around([]).ticks()
    assert Axis.around([math.nan, 3.0, math.inf]).share(3.0) == pytest.approx(0.5)
    assert Axis.around([0.0, 4.0], zero=True).low == 0


@given(st.integers(1, 5000))
def test_thinning_keeps_the_mean_of_what_it_joins(n):
    points = [(float(i), math.sin(i)) for i in range(n)]
    thin = axes.thinned(points, 100)
    assert len(thin) <= max(100, 1)
    if n <= 100:
        assert list(thin) == points
    each = -(-n // len(thin))
    assert thin[0][1] == pytest.approx(sum(y for _, y in points[: -(-n // 100)]) / min(n, -(-n // 100)))
    assert each >= 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.27776, "0.2778"),
        (12350.4, "12,350"),
        (0.5, "0.5"),
        (3.0, "3"),
        (1.3669809e-9, "1.37e-09"),
        (None, "\u2013"),
        (math.nan, "\u2013"),
        (-2.5, "-2.5"),
    ],
)
def test_numbers_as_a_person_reads_them(value, text):
    assert words.number(value) == text


def test_a_value_is_told_to_the_digits_that_its_interval_supports():
    assert words.rounded(0.831234, 0.811, 0.851) == "0.831"
    assert words.rounded(3.20987, 1.2, 5.2) == "3.2"
    assert words.interval(0.81, 0.851) == "0.810 to 0.851"
    assert words.interval(None, 1.0) == ""
    assert words.rounded(2.0, None, None) == "2"
    assert words.date("2026-01-05T12:11:12+02:00") == "2026-01-05 10:11 UTC"
    assert words.date("yesterday") == "yesterday"


def svg(figure: str) -> ElementTree.Element:
    """The picture in a figure; that it parses as XML means that every element is closed."""
    return ElementTree.fromstring(figure).find(".//svg[@class='chart']")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(1e-3, 1e3)), min_size=2, max_size=30), st.booleans())
def test_points_stand_where_the_axes_say(points, log):
    x, y = Axis.around([a for a, _ in points]), Axis.around([b for _, b in points], log=log)
    picture = svg(chart.lines("title", [chart.Series("s", points, dots=True)], x, y))
    inner = picture.find("svg")
    wide, high = float(inner.get("width")), float(inner.get("height"))
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in inner.iter("circle")]
    expected = [(x.share(a) * wide, (1 - y.share(b)) * high) for a, b in points]
    np.testing.assert_allclose(circles, expected, atol=0.02)
    assert all(0 <= a <= wide and 0 <= b <= high for a, b in circles)


def test_a_curve_breaks_where_a_value_is_no_number():
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, 2.0), (5, math.nan), (6, 1.0)]
    axis = Axis.around([0, 6]), Axis.around([1, 2])
    picture = svg(chart.lines("t", [chart.Series("s", points)], *axis))
    assert [len(line.get("points").split()) for line in picture.iter("polyline")] == [2, 2]


def test_a_legend_stands_where_there_is_more_than_one_line():
    axis = Axis(0, 1), Axis(0, 1)
    one = chart.lines("t", [chart.Series("only", [(0, 0), (1, 1)])], *axis)
    two = chart.lines("t", [chart.Series("a", [(0, 0)]), chart.Series("b", [(0, 0)], 1)], *axis, level=("real", 0.5))
    assert "only" not in Reader(one).text
    assert all(name in Reader(two).text for name in ("a", "b", "real"))


def test_bars_are_as_high_as_their_values():
    picture = svg(chart.bars("t", ["x", "y"], [("a", [1.0, 2.0]), ("b", [4.0, math.nan])], "below"))
    heights = [float(bar.get("height")) for bar in picture.iter("rect")]
    np.testing.assert_allclose(np.array(heights) / heights[0], [1, 2, 4], rtol=1e-2)


def decoded(img: str) -> tuple[str, Image.Image]:
    kind, data = re.search(r'src="data:image/(\w+);base64,([^"]+)"', img).groups()
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_small_picture_is_carried_pixel_for_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    kind, picture = decoded(inline(tmp_path / "a.png", 'say "hi"'))
    assert kind == "png"
    np.testing.assert_array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize(("width", "height"), [(3000, 2000), (900, 4000)])
def test_the_worst_picture_is_made_small_enough(tmp_path, width, height):
    """Noise is what no format compresses."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", compress_level=0)
    img = inline(tmp_path / "a.png", "noise")
    _, picture = decoded(img)
    assert len(img) < 1.4 * MOST + 200
    assert picture.width <= WIDEST


def test_what_is_no_picture_is_told_in_a_sentence(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ValueError, match=r"a\.png cannot be shown: it is no whole picture") as caught:
        inline(path, "x")
    assert "\n" not in str(caught.value)


def test_the_policy_allows_this_style_and_script_alone():
    page = document("<title>", section("a", "A & B", film([(tag("b", "x"), "one"), (tag("b", "y"), "two")], "step")))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'"
    assert parts["img-src"] == "data:"
    for name, directive in (("style", "style-src"), ("script", "script-src")):
        inside = re.search(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert parts[directive] == f"'sha256-{digest}'"
    assert "<title>&lt;title&gt;</title>" in page
    assert " style=" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_the_style_asks_for_nothing_from_elsewhere():
    folder = Path(axes.__file__).parent
    for name in ("style.css", "script.js"):
        text = (folder / name).read_text()
        assert not re.search(r"url\(|@import|https?:|fetch|import ", text)
