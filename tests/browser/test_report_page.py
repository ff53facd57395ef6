"""The report in a real browser: it loads alone, fits a phone, and can be read in light and dark."""

import pytest

from osmotic.recipes.report import report
from osmotic.training.recipe import Process, Recipe

from ..report import runs

CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (color) => { const [r, g, b] = rgb(color).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (node) => { for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (rgb(color)[3] > 0) return color; } return "white"; };
  const found = {};
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), node = walk.currentNode.parentElement;
    if (!text || node.closest("script, style, title")) continue;
    const style = getComputedStyle(node);
    const pair = [light(node.closest("svg") ? style.fill : style.color), light(behind(node))].sort((a, b) => b - a);
    const name = node.tagName + "." + node.getAttribute("class") + ": " + text.slice(0, 20);
    found[name] = (pair[0] + 0.05) / (pair[1] + 0.05);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of a bare run, a measured one, and two."""
    root = tmp_path_factory.mktemp("reports")
    bare = runs.written(root / "bare")
    one = runs.measured(runs.written(root / "one"))
    two = runs.measured(
        runs.written(root / "two with a name that is rather long", recipe=Recipe(process=Process(target="velocity"))),
        2.0,
    )
    return {"bare": report(bare), "one": report(one), "two": report(one, two, root / "pair.html")}


@pytest.fixture
def opened(browser, pages):
    """``opened(name, width, scheme)`` is a page, and what it asked for or complained about."""
    contexts = []

    def open_(name: str, width: int = 1200, scheme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page, heard = context.new_page(), []
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url) if not request.url.startswith("data:") else None)
        page.goto(pages[name].as_uri())
        return page, heard

    yield open_
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["bare", "one", "two"])
def test_it_loads_alone_and_without_a_complaint(opened, pages, name):
    page, heard = opened(name)
    page.wait_for_load_state("networkidle")
    assert heard == [pages[name].as_uri()]
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("name", ["bare", "one", "two"])
def test_a_phone_never_scrolls_sideways(opened, shot, name):
    page, _ = opened(name, width=375)
    page.evaluate("document.querySelectorAll('details').forEach((folded) => { folded.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.evaluate("document.querySelectorAll('details').forEach((folded) => { folded.open = false; })")
    shot(page, f"report-{name}-phone")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one", "two"])
def test_every_text_can_be_read(opened, shot, name, scheme):
    """4.5 is the contrast that WCAG 2 asks of body text."""
    page, _ = opened(name, scheme=scheme)
    found = page.evaluate(CONTRAST)
    assert len(found) > 100
    assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}
    shot(page, f"report-{name}-{scheme}")


def test_light_and_dark_differ(opened):
    papers = {
        opened("one", scheme=s)[0].evaluate("getComputedStyle(document.body).backgroundColor")
        for s in ("light", "dark")
    }
    assert len(papers) == 2


def test_the_slider_moves_through_the_steps(opened):
    page, _ = opened("one")
    shown = (
        "[...document.querySelectorAll('.film figure')].filter((f) => f.offsetParent).map((f) => f.innerText.trim())"
    )
    assert page.evaluate(shown) == ["step 2,000"]
    page.locator(".film input").fill("0")
    assert page.evaluate(shown) == ["step 0"]
    page.emulate_media(media="print")
    assert page.evaluate(shown) == ["step 0", "step 500", "step 2,000"]


def test_charts_are_drawn_and_their_words_do_not_overlap(opened):
    page, _ = opened("two")
    assert page.locator("svg.chart polyline").count() >= 10
    boxes = page.evaluate("""() => [...document.querySelectorAll("svg.chart")].map((chart) =>
        [...chart.querySelectorAll("text")].map((text) => { const b = text.getBoundingClientRect();
          return [b.left, b.top, b.right, b.bottom]; }))""")
    for chart in boxes:
        assert len(chart) >= 5
        for i, a in enumerate(chart):
            for b in chart[:i]:
                apart = a[2] <= b[0] or b[2] <= a[0] or a[3] - 4 <= b[1] or b[3] - 4 <= a[1]
                assert apart, (a, b)


def test_the_policy_holds_against_what_would_get_in(opened):
    """Were markup to slip through one day, its script would still not run, and nothing would be fetched."""
    page, heard = opened("one")
    page.evaluate("""() => { const script = document.createElement("script"); script.textContent = "window.ran = 1";
        document.body.append(script); const image = new Image(); image.src = "http://127.0.0.1:9/x.png";
        document.body.append(image); }""")
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran === undefined")
    assert any("Content Security Policy" in text for text in heard)
