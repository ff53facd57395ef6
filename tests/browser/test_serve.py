"""The served page in a real browser: draw, choose, compare, repaint; nothing asked of anybody else."""

import re
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from osmotic.cli.main import main
from osmotic.training.model import load
from osmotic.web import html

TINY = ["--steps", 30, "--batch-size", 32, "--evaluate-every", 30, "--preview-every", 30, "--checkpoint-every", 30]
WAIT = 30_000
LOOKS = [("light", 1280), ("dark", 1280), ("dark", 390)]


def train(*words) -> None:
    assert main([str(w) for w in ["train", *words, *TINY]]) == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on real digits."""
    run = tmp_path_factory.mktemp("serve") / "digits"
    train("digits", "--out", run, "--widths", 8, 16, "--blocks", 1, "--attention", 1)
    return run


@pytest.fixture(scope="module")
def served(run):
    """Its page."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    from osmotic.web.serve import Server

    with Server(run, port=0) as server:
        yield server


class Tab:
    """A page that notes what it says and whom it asks."""

    def __init__(self, browser, url: str, scheme: str = "light", width: int = 1280) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("response", lambda reply: self.said.append(reply.url) if reply.status >= 400 else None)
        self.page.goto(url)
        self.page.wait_for_selector("#draw", timeout=WAIT)

    def draw(self) -> None:
        self.page.click("#draw")
        self.page.wait_for_selector("#samples button.om-cell, #samples .om-plot", timeout=WAIT)

    def quiet(self, server) -> None:
        """Nothing was complained about, and nobody else was asked."""
        assert self.said == []
        hosts = {urlsplit(url).netloc for url in self.asked if not url.startswith(("data:", "blob:"))}
        assert hosts == {f"127.0.0.1:{server.port}"}

    def width(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth")

    def pictures(self, where: str) -> list[str]:
        return self.page.eval_on_selector_all(f"{where} img", "all => all.map(one => one.src)")


@pytest.fixture
def tab(browser, served):
    opened = []

    def open_tab(*look) -> Tab:
        opened.append(Tab(browser, served.url, *look))
        return opened[-1]

    yield open_tab
    for one in opened:
        one.context.close()


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_draw_choose_compare_and_repaint(tab, served, shot, scheme, width):
    one = tab(scheme, width)
    page = one.page
    assert page.title() == "osmotic: digits"
    one.draw()
    assert len(one.pictures("#samples")) == 20
    cell = page.locator("#samples button.om-cell").nth(3)
    cell.click()
    page.wait_for_selector("#near .om-cell", timeout=WAIT)
    assert len(one.pictures("#near")) == 6
    assert re.search(r"Sample 3 is [\d.]+ from its nearest training sample", page.inner_text("#near"))
    assert "om-on" in cell.get_attribute("class")
    shot(page, f"serve-near-{scheme}-{width}")
    page.get_by_role("tab", name="Repaint").click()
    box = page.wait_for_selector("#easel canvas", timeout=WAIT).bounding_box()
    left, top = box["x"], box["y"]
    page.mouse.move(left + box["width"] * 0.1, top + box["height"] * 0.9)
    page.mouse.down()
    page.mouse.move(left + box["width"] * 0.9, top + box["height"] * 0.9, steps=6)
    page.mouse.up()
    page.click("#easel .om-main")
    page.wait_for_selector("#repainted .om-cell", timeout=WAIT)
    shot(page, f"serve-repaint-{scheme}-{width}")
    before, after = pixels(page, "#easel"), pixels(page, "#repainted")
    assert np.array_equal(before[0, :6], after[0, :6])  # the brush is two pixels wide
    assert not np.array_equal(before[0, 6:], after[0, 6:])
    assert one.width() <= width
    one.quiet(served)


def pixels(page, where: str) -> np.ndarray:
    """The pictures of a part of the page, as the browser decodes them."""
    script = """all => all.map(one => {
        const c = document.createElement('canvas'), pen = c.getContext('2d');
        c.width = one.naturalWidth; c.height = one.naturalHeight;
        pen.drawImage(one, 0, 0);
        return Array.from(pen.getImageData(0, 0, c.width, c.height).data).filter((_, i) => i % 4 == 0);
    })"""
    found = np.array(page.eval_on_selector_all(f"{where} img", script))
    return found.reshape(len(found), 8, 8)


def test_the_class_and_the_seed_that_are_chosen_give_the_librarys_samples(tab, run, served, shot):
    one = tab()
    page = one.page
    page.fill("#seed input", "41")
    page.fill("#count input[type=number]", "3")
    page.click("#class input")
    page.get_by_role("option", name="7", exact=True).click()
    one.draw()
    model = load(run)
    x = model.sample(3, 7, 1.0, seed=41)
    assert one.pictures("#samples") == [html.source(picture) for picture in model.decode(x)]
    page.get_by_role("tab", name="Do it again").click()
    page.wait_for_selector("#cli .cm-content", timeout=WAIT)
    command = page.inner_text("#cli .cm-content").strip()
    assert command == f"osmotic sample {run} --count 3 --seed 41 --sampler flow-2pc --steps 10 --class 7"
    names = {}
    exec(page.inner_text("#python .cm-content"), names)
    assert torch.equal(names["x"], x)
    shot(page, "serve-again")
    one.quiet(served)


def test_a_long_draw_is_watched_and_can_be_stopped(tab, served):
    one = tab()
    page = one.page
    page.fill("#count input[type=number]", "64")
    page.fill("#steps input[type=number]", "250")
    page.click("#draw")
    page.wait_for_selector("#samples figure.om-cell", timeout=WAIT)  # on the way, not yet to be clicked
    page.click("#stop")
    page.wait_for_selector("text=Stopped. Press Draw.", timeout=WAIT)
    page.fill("#count input[type=number]", "2")
    page.fill("#steps input[type=number]", "2")
    one.draw()
    assert len(one.pictures("#samples")) == 2
    one.quiet(served)


def test_what_is_refused_is_said_in_the_page(tab, served, shot):
    one = tab()
    page = one.page
    one.draw()
    page.locator("#samples button.om-cell").nth(0).click()
    page.get_by_role("tab", name="Repaint").click()
    page.wait_for_selector("#easel canvas", timeout=WAIT)
    page.click("#easel .om-main")
    page.wait_for_selector(".toast-body", timeout=WAIT)
    assert "Nothing is painted; draw with the mouse" in page.inner_text(".toast-body")
    page.wait_for_timeout(600)  # it fades in
    shot(page, "serve-refused")


@pytest.mark.parametrize("data", ["moons", "wine"])
def test_other_kinds_of_data_are_plotted_and_compared(browser, shot, tmp_path, data):
    from osmotic.web.serve import Server

    train(data, "--out", tmp_path / data)
    with Server(tmp_path / data, port=0) as server:
        one = Tab(browser, server.url)
        one.page.fill("#count input[type=number]", "8")
        one.draw()
        one.page.wait_for_selector("#samples .om-bar[style*=hidden]", state="attached", timeout=WAIT)
        one.page.click("#find")
        one.page.wait_for_function("document.querySelector('#near').innerText.includes('nearest')", timeout=WAIT)
        one.page.wait_for_function("document.querySelector('#near-table').innerText.includes('row')", timeout=WAIT)
        shot(one.page, f"serve-{data}")
        assert one.width() <= 1280
        one.quiet(server)
        one.context.close()
