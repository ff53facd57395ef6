"""The page: gradio's controls around a :class:`~osmotic.web.session.Session`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from osmotic.training.model import Model
from osmotic.web import html
from osmotic.web.nearest import Neighbour, Training
from osmotic.web.session import GUIDANCE, LETTERS, SEEDS, STEPS, Draw, Session

EVERY = 0.15
"""Seconds between two pictures of a trajectory, at least."""
WAITING = 16
ALL = "all in turn"
EMPTY, STOPPED = "Press Draw.", "Stopped. Press Draw."
UNCHOSEN = "Click a sample to see its nearest training samples."
FIRST = "Click a sample, then paint over what should be made anew."
SYSTEM = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
ROWS, REAL = 256, 2000


def theme() -> Any:
    """Fonts that every system has: the page asks nobody for anything."""
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=[gr.themes.Font(name) for name in SYSTEM],
        font_mono=[gr.themes.Font(name) for name in MONO],
    )


def told(act: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose ValueErrors are told to the user; anything else is told as a defect, without its inside."""

    @functools.wraps(act)
    def safe(*args: Any) -> Any:
        try:
            return act(*args)
        except ValueError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from None

    return safe


def told_while(act: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """:func:`told` for what yields."""

    @functools.wraps(act)
    def safe(*args: Any) -> Iterator[Any]:
        try:
            yield from act(*args)
        except ValueError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from None

    return safe


class Page:
    """The controls of a model, and what they do.

    Args:
        session: of the model.
        training: its data.
    """

    def __init__(self, session: Session, training: Training) -> None:
        self.session, self.training = session, training
        self.model: Model = session.model
        self.spec = session.model.spec
        self.running: set[str] = set()

    def build(self) -> Any:
        """The page as gradio's blocks."""
        title = f"osmotic: {self.session.run.resolve().name}"
        with gr.Blocks(title=title, analytics_enabled=False) as blocks:
            gr.HTML(f"<h1 class='om-title'>{escape(title)}</h1>{html.note(self.about())}")
            drawn = gr.State(None)
            with gr.Row():
                with gr.Column(scale=1, min_width=260):
                    settings, press, stop, dice = self.controls()
                with gr.Column(scale=3, min_width=320):
                    shown = gr.HTML(html.note(EMPTY), js_on_load=html.PICK, elem_id="samples")
                    index, tabs = self.details()
            self.wire(settings, press, stop, dice, drawn, shown, index, tabs)
        return blocks

    def about(self) -> str:
        """What is served, in a line."""
        model, shape = self.model, " x ".join(map(str, self.spec.shape))
        return (
            f"{self.spec.kind} of shape {shape}, {model.weights} at step {model.step:,}, trained on {self.spec.source}"
        )

    def controls(self) -> tuple[list[Any], Any, Any, Any]:
        """Class, text, seed, count, sampler, steps, guidance; and the buttons."""
        usual, classes = self.session.usual(), self.spec.classes
        choices = [(ALL, -1), *((name, i) for i, name in enumerate(classes or ()))]
        label = gr.Dropdown(choices, value=-1, label="Class", visible=classes is not None, elem_id="class")
        texts = self.spec.captions is not None
        text = gr.Textbox("", label="Text", max_lines=2, max_length=LETTERS, visible=texts, elem_id="text")
        with gr.Row(equal_height=True, elem_classes="om-low"):
            seed = gr.Number(usual.seed, label="Seed", precision=0, minimum=0, maximum=SEEDS - 1, elem_id="seed")
            dice = gr.Button("New seed", size="md", min_width=80)
        count = gr.Slider(1, self.session.most, usual.count, step=1, label="Samples", elem_id="count")
        sampler = gr.Dropdown(self.session.solvers, value=usual.sampler, label="Solver", elem_id="sampler")
        steps = gr.Slider(1, STEPS, usual.steps, step=1, label="Steps", elem_id="steps")
        guidance = gr.Slider(
            0, GUIDANCE, usual.guidance, step=0.1, visible=texts or classes is not None, elem_id="guidance",
            label=f"Guidance (0 ignores the {'text' if texts else 'class'}, 1 is plain)",
        )  # fmt: skip
        with gr.Row():
            press = gr.Button("Draw", variant="primary", elem_id="draw")
            stop = gr.Button("Stop", elem_id="stop", min_width=80)
        return [label, text, seed, count, sampler, steps, guidance], press, stop, dice

    def details(self) -> tuple[Any, dict[str, Any]]:
        """What is below the samples; the number of the chosen sample, typed where samples are no pictures."""
        pictures = self.spec.kind == "images"
        made: dict[str, Any] = {}
        if self.spec.kind == "table":
            made["rows"] = gr.Dataframe(label="Samples", interactive=False, max_height=300, elem_id="rows")
        with gr.Tabs():
            with gr.Tab("Nearest data"):
                index = gr.Number(0, label="Sample", precision=0, minimum=0, visible=not pictures, elem_id="index")
                made["find"] = gr.Button("Find the nearest", visible=not pictures, elem_id="find")
                made["near"] = gr.HTML(html.note(UNCHOSEN if pictures else ""), elem_id="near")
                made["table"] = gr.Dataframe(visible=not pictures, interactive=False, elem_id="near-table")
            if pictures:
                with gr.Tab("Repaint"):
                    made["easel"] = gr.HTML(html.note(FIRST), js_on_load=html.PAINT, elem_id="easel")
                    made["repainted"] = gr.HTML("", elem_id="repainted")
            with gr.Tab("Do it again"):
                made["command"] = gr.Code("", language="shell", label="Command line", interactive=False, elem_id="cli")
                made["python"] = gr.Code("", language="python", label="Python", interactive=False, elem_id="python")
        return index, made

    def wire(
        self, settings: list[Any], press: Any, stop: Any, dice: Any, drawn: Any, shown: Any, index: Any, made: Any
    ) -> None:
        """What happens when."""
        one = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private", "queue": True}
        results = [shown, drawn, made["command"], made["python"]]
        results += [made[name] for name in ("near", "easel", "repainted", "rows") if name in made]
        press.click(told_while(self.draw), settings, results, **one, show_progress="hidden")
        # Not gradio's own cancelling, after which its page can take the button for pressed for ever (6.31).
        stop.click(self.halt, None, None, concurrency_id="stop", api_visibility="private", show_progress="hidden")
        dice.click(None, None, settings[2], js="() => Math.floor(Math.random() * 1e9)", api_visibility="private")
        if self.spec.kind != "images":
            made["find"].click(told(self.rows_near), [drawn, index], [made["near"], made["table"]], **one)
            return
        shown.click(told(self.chosen), [drawn], [index, made["near"], made["easel"], made["repainted"]], **one)
        made["easel"].submit(told(self.repaint), [drawn, index], made["repainted"], **one)

    def draw(
        self,
        label: Any,
        text: Any,
        seed: Any,
        count: Any,
        sampler: Any,
        steps: Any,
        guidance: Any,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Draw, showing the way there, until it is done or stopped."""
        draw, tab = asked(label, text, seed, count, sampler, steps, guidance), str(request.session_hash)
        table, pictures = self.spec.kind == "table", self.spec.kind == "images"
        below = [html.note(UNCHOSEN), html.note(FIRST), ""] if pictures else [""]
        rest, due = [gr.skip()] * (3 + len(below) + table), 0.0
        self.running.add(tab)
        try:
            for frame in self.session.watch(draw):
                began = time.monotonic()
                if tab not in self.running:
                    yield html.note(STOPPED), *rest
                    return
                if frame.step < frame.last and began >= due:
                    shown = self.show(draw, frame.x, frame.step / frame.last)
                    # Watching takes a fifth of the time at most, however slow the drawing is.
                    due = began + max(EVERY, 5 * (time.monotonic() - began))
                    yield shown, *rest
        finally:
            self.running.discard(tab)
        x = self.session.samples(draw)
        below += [self.table(x, self.session.labels(draw))] if table else []
        yield self.show(draw, x), draw, self.session.command(draw), self.session.python(draw), *below

    def halt(self, request: gr.Request) -> None:
        """Let the draw of this tab end at its next step."""
        self.running.discard(str(request.session_hash))

    def show(self, draw: Draw, x: Tensor, done: float | None = None) -> str:
        """Samples as the page shows them."""
        raw = self.model.decode(x)
        if self.spec.kind != "images":
            return html.plot(raw, self.spec, self.real, done)
        return html.gallery(raw, self.names(draw), clickable=done is None, done=done)

    @functools.cached_property
    def real(self) -> Any:
        """Real data to plot beneath the samples; None if they are not found."""
        try:
            return self.model.decode(self.training.some(REAL))
        except ValueError:
            return None

    def names(self, draw: Draw) -> list[str]:
        """What stands under each sample: its number, and its class."""
        labels, classes = self.session.labels(draw), self.spec.classes
        if labels is None or classes is None:
            return [f"#{i}" for i in range(draw.count)]
        return [f"#{i}: {classes[label]}" for i, label in enumerate(labels)]

    def chosen(self, draw: Draw | None, event: gr.EventData) -> tuple[int, str, str, str]:
        """A picture was clicked: its neighbours, and itself to paint on."""
        draw, index = self.known(draw), sent(event, "index")
        x = self.session.sample(draw, index)
        picture = self.model.decode(x[None])[0]
        return index, self.near(draw, index), html.easel(picture), ""

    def near(self, draw: Draw, index: int) -> str:
        """The nearest training pictures, or why there are none."""
        x = self.session.sample(draw, index)
        try:
            found = self.training.nearest(x)
        except ValueError as error:
            return html.note(f"The training data cannot be shown: {error}")
        shown = self.model.decode(_stack(found))
        classes = self.spec.classes or ()
        names = [f"{n.distance:.3g}" + ("" if n.label is None else f": {classes[n.label]}") for n in found]
        return html.note(self.judged(index, found[0].distance)) + html.gallery(shown, names, clickable=False)

    def judged(self, index: int, distance: float) -> str:
        """How the distance of a sample compares with that of real data."""
        usual = self.training.usual
        line = f"Sample {index} is {distance:.3g} from its nearest training sample"
        if usual is None:
            return f"{line} (Euclidean, in the network's units); nothing was held out to compare with."
        end = " It is a copy, or nearly." if distance < 0.25 * usual else ""
        real = f"held-out real ones are {usual:.3g} from theirs in the median"
        return f"{line}; {real} (Euclidean, in the network's units).{end}"

    def rows_near(self, draw: Draw | None, index: Any) -> tuple[str, Any]:
        """The nearest training samples of one that is no picture, as a table."""
        draw = self.known(draw)
        index = int(index) if isinstance(index, int | float) and index == index // 1 else index
        x = self.session.sample(draw, index)
        found = self.training.nearest(x)
        labels = [n.label for n in found if n.label is not None]
        names, values = self.columns(_stack(found), labels or None)
        rows = [[n.name, f"{n.distance:.4g}", *row] for n, row in zip(found, values, strict=True)]
        return html.note(self.judged(index, found[0].distance)), _frame(["training sample", "distance", *names], rows)

    def table(self, x: Tensor, labels: list[int] | None) -> Any:
        """Samples as a table."""
        names, values = self.columns(x, labels)
        rows = [[i, *row] for i, row in enumerate(values)]
        return _frame(["sample", *names], rows[:ROWS])

    def columns(self, x: Tensor, labels: list[int] | None = None) -> tuple[list[str], list[list[Any]]]:
        """The names and the rows of samples in the user's own format; the first columns if there are many."""
        if self.spec.kind == "table":
            from osmotic.data.table import to_table

            table = to_table(x.cpu().numpy(), self.spec, labels)
            return list(table.column_names), [[short(v) for v in row.values()] for row in table.to_pylist()]
        raw = self.model.decode(x).reshape(len(x), -1)[:, :ROWS]
        return [str(i) for i in range(raw.shape[1])], [[short(v) for v in row] for row in raw.tolist()]

    def known(self, draw: Draw | None) -> Draw:
        """What was drawn last in this tab.

        Raises:
            ValueError: if nothing was.
        """
        if not isinstance(draw, Draw):
            raise ValueError("Nothing is drawn yet, or it was forgotten; press Draw.")
        return draw

    def repaint(self, draw: Draw | None, index: Any, event: gr.EventData) -> str:
        """The painted part drawn anew, a few times."""
        draw = self.known(draw)
        painted = sent(event, "painted")
        x = self.session.repaint(draw, int(index or 0), painted)
        names = [f"variant {i + 1}" for i in range(len(x))]
        hint = "Only what was painted is new; it heeds the rest somewhat less than an exact draw would."
        return html.note(hint) + html.gallery(self.model.decode(x), names, clickable=False)


def asked(label: Any, text: Any, seed: Any, count: Any, sampler: Any, steps: Any, guidance: Any) -> Draw:
    """The controls' values as a draw; what they cannot be is left for the session to refuse."""

    def number(value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value

    chosen = None if label in (-1, None) else number(label)
    return Draw(number(count), number(seed), chosen, guidance, sampler, number(steps), text or "")


def sent(event: gr.EventData, name: str) -> Any:
    """What a script of the page sent along; None for anything else, which the session then refuses."""
    data = event._data
    return data.get(name) if isinstance(data, dict) else None


def short(value: Any) -> str:
    """A table's entry: numbers to five digits, nothing where it is missing."""
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _stack(found: list[Neighbour]) -> Tensor:
    return torch.stack([n.x for n in found])


def _frame(names: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    return {"headers": names, "data": rows}
