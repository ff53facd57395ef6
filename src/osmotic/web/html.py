"""Samples as HTML: pictures as data in the page itself, so that no file is written or served. All text is escaped."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from osmotic.data.spec import Spec
from osmotic.report.page.html import Html, join, tag
from osmotic.report.page.picture import address
from osmotic.report.samples import draw

COARSE = 96
"""Pictures up to this side are shown with their pixels as squares."""

STYLE = """
.html-container { padding-left: 0 !important; padding-right: 0 !important; }
.om-title { font-size: 20px; margin: 4px 0; }
.om-grid { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, minmax(78px, 1fr)); }
.om-grid.om-wide { grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); }
.om-cell { display: block; margin: 0; padding: 4px; border: 1px solid var(--border-color-primary);
  border-radius: 8px; background: var(--background-fill-primary); text-align: center; }
button.om-cell { cursor: pointer; }
button.om-cell:hover, button.om-cell:focus-visible { border-color: var(--color-accent); outline: none; }
button.om-cell.om-on { border-color: var(--color-accent); box-shadow: 0 0 0 2px var(--color-accent); }
.om-cell img { display: block; width: 100%; height: auto; border-radius: 4px; margin: 0; }
.om-coarse img, .om-coarse canvas { image-rendering: pixelated; }
.om-cell span { display: block; margin-top: 4px; font-size: 12px; line-height: 1.3; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; font-weight: 400; color: var(--body-text-color); opacity: 0.75; }
.om-note { margin: 0 0 8px; color: var(--body-text-color); opacity: 0.75; }
.om-low { align-items: end; }
.om-bar { height: 4px; margin: 0 0 10px; border-radius: 2px; background: var(--border-color-primary); }
.om-bar div { height: 100%; border-radius: 2px; background: var(--color-accent); }
.om-plot { display: block; max-width: 100%; margin: 0 auto; border-radius: 8px; background: white; }
.om-paint { position: relative; width: min(100%, 288px); margin: 0 0 8px; }
.om-paint img { display: block; width: 100%; margin: 0; border-radius: 4px; }
.om-paint canvas { position: absolute; inset: 0; width: 100%; height: 100%; cursor: crosshair; touch-action: none; }
.om-tools { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
.om-tools button { margin: 0; padding: 6px 14px; font-size: 14px; font-weight: 500; border-radius: 8px;
  border: 1px solid var(--border-color-primary);
  background: var(--button-secondary-background-fill); color: var(--body-text-color); cursor: pointer; }
.om-tools button.om-main { background: var(--button-primary-background-fill); border-color: transparent;
  color: var(--button-primary-text-color); }
.om-tools label { display: flex; gap: 8px; align-items: center; font-size: 13px; }
"""

PICK = """
element.addEventListener('click', event => {
  const cell = event.target.closest('button.om-cell');
  if (!cell) return;
  element.querySelectorAll('button.om-cell').forEach(other => other.classList.toggle('om-on', other === cell));
  trigger('click', { index: Number(cell.dataset.index) });
});
"""

# One cell of the canvas is one pixel of the picture; the mask is what has colour.
PAINT = """
let last = null;
const canvas = () => element.querySelector('canvas');
const dot = event => {
  const c = canvas(), box = c.getBoundingClientRect(), pen = c.getContext('2d');
  const x = (event.clientX - box.left) / box.width * c.width, y = (event.clientY - box.top) / box.height * c.height;
  const r = Number(element.querySelector('input').value) / 2, steps = last ? Math.ceil(Math.hypot(x - last[0],
    y - last[1]) * 2) + 1 : 1;
  pen.fillStyle = 'rgb(255, 120, 0)';
  for (let k = 1; k <= steps; k++) {
    const u = last ? last[0] + (x - last[0]) * k / steps : x, v = last ? last[1] + (y - last[1]) * k / steps : y;
    for (let i = Math.floor(u - r); i <= u + r; i++) for (let j = Math.floor(v - r); j <= v + r; j++)
      if (Math.hypot(i + 0.5 - u, j + 0.5 - v) <= Math.max(r, 0.71)) pen.fillRect(i, j, 1, 1);
  }
  last = [x, y];
};
element.addEventListener('pointerdown', event => {
  if (event.target !== canvas()) return;
  last = null;
  event.target.setPointerCapture(event.pointerId);
  dot(event);
});
element.addEventListener('pointermove', event => {
  if (event.target === canvas() && event.buttons) dot(event);
});
element.addEventListener('click', event => {
  const c = canvas();
  if (event.target.matches('.om-clear')) c.getContext('2d').clearRect(0, 0, c.width, c.height);
  if (!event.target.matches('.om-main')) return;
  const rgba = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let painted = '';
  for (let i = 3; i < rgba.length; i += 4) painted += rgba[i] ? '1' : '0';
  trigger('submit', { painted });
});
"""


def source(picture: NDArray[np.uint8]) -> str:
    """A picture ``(H, W, C)`` as a ``data:`` address of a PNG."""
    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture[..., :3]).save(file, "PNG")
    return address("png", file.getvalue())


def gallery(
    pictures: NDArray[np.uint8], names: Sequence[str], clickable: bool = True, done: float | None = None
) -> Html:
    """Pictures ``(N, H, W, C)`` with a name under each; above them how much is done, if it is not."""
    small = max(pictures.shape[1:3]) <= COARSE
    cells = []
    for i, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        inside = tag("img", src=source(picture), alt=name, draggable="false"), tag("span", name, title=name)
        if clickable:
            told = f"sample {name}"
            cells.append(tag("button", *inside, class_="om-cell", type="button", data_index=i, aria_label=told))
        else:
            cells.append(tag("figure", *inside, class_="om-cell"))
    return join([bar(done), tag("div", *cells, class_=f"{'om-coarse' if small else 'om-wide'} om-grid")])


def bar(done: float | None) -> Html:
    """A bar that is filled to a share; room for it where nothing is under way."""
    fill = tag("div", style=f"width: {0 if done is None else round(100 * done)}%")
    return tag("div", fill, class_="om-bar", style=f"visibility: {'hidden' if done is None else 'visible'}")


def plot(raw: NDArray[Any], spec: Spec, real: NDArray[Any] | None = None, done: float | None = None) -> Html:
    """Samples that are no pictures, in the data's own format, as one plot; real data beside them, if they are known."""
    with tempfile.TemporaryDirectory() as folder:
        data = draw(raw, spec, Path(folder) / "plot.png", real=real).read_bytes()
    return join([bar(done), tag("img", class_="om-plot", src=address("png", data), alt="a plot of the samples")])


def easel(picture: NDArray[np.uint8]) -> Html:
    """A picture to paint on, a brush, and the button that sends what was painted."""
    height, width = picture.shape[:2]
    longest = max(height, width)
    canvas = tag("canvas", width=width, height=height, style="opacity: 0.6", aria_label="paint here")
    image = tag("img", src=source(picture), alt="the chosen sample")
    brush = tag("input", type="range", min=1, max=max(2, longest // 2), value=max(1, round(longest / 4)))
    tools = [
        tag("label", "brush ", brush),
        tag("button", "Clear", type="button", class_="om-clear"),
        tag("button", "Repaint", type="button", class_="om-main"),
    ]
    kind = "om-coarse om-paint" if longest <= COARSE else "om-paint"
    return join([tag("div", image, canvas, class_=kind), tag("div", *tools, class_="om-tools")])


def note(text: str) -> Html:
    """A sentence."""
    return tag("p", text, class_="om-note")
