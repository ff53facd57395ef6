"""What an autoencoder makes of data: pictures while it trains, and numbers and a codec when it is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from osmotic.codecs import Neural
from osmotic.data.columns import Columns, Numeric
from osmotic.data.dataset import Dataset
from osmotic.data.spec import Spec
from osmotic.nn import Autoencoder, Codebook, health
from osmotic.report import pictures
from osmotic.report.samples import draw
from osmotic.training.autoencoding import AUTOENCODER, BITS, NUMBER, Outcome
from osmotic.training.codec import fitted, store, trained
from osmotic.training.hooks import Hook, Moment
from osmotic.training.recipe import Recipe
from osmotic.training.run import Run

SHOWN, MANY = 12, 1000
"""Pictures or curves that are shown, and rows of other data."""

MOST, BATCH = 16_384, 256
"""Samples that are measured: enough for three digits; and at a time."""

PEAK = 2.0
"""What pictures span in the network's scale."""


def reconstructions(recipe: Recipe, samples: Dataset) -> Hook:
    """A hook that draws ``samples/reconstructions.png``, originals above what averaged weights make of them."""
    spec = samples.spec
    few = SHOWN if spec.kind in ("images", "sequences") else MANY
    x = next(_batches(samples, few, few))

    def call(moment: Moment) -> None:
        network = moment.modules[AUTOENCODER]
        assert isinstance(network, Autoencoder)
        if not moment.world.main:
            return
        with moment.averaged():
            made = network.decode(network.encode(x.to(moment.world.device)), x.shape[2:])
        path = moment.run.samples / "reconstructions.png"
        real, raw = (spec.decode(part.float().cpu().numpy()) for part in (x, made))
        try:
            if spec.kind == "images":
                pictures.save(pictures.grid(np.concatenate([real, raw]), len(x), ("data", "made")), path)
            elif spec.kind == "sequences":
                draw(np.concatenate([real, raw]), spec, path)
            else:
                draw(raw, spec, path, real=real)
        except OSError as error:  # a full disk ends the pictures, not the training
            moment.log.say(f"The picture {path} cannot be written ({error.strerror}); training goes on.")
            return
        with Image.open(path) as picture:
            moment.log.picture(moment.step, "reconstructions", np.asarray(picture.convert("RGB")))

    return Hook(recipe.options.preview_every, call)


def finish(run: Run, training: Dataset, held_out: Dataset, device: torch.device) -> Outcome:
    """Measure the latents of a trained autoencoder over its training data, and its errors; store codec and outcome.

    Args:
        run: at its last step.
        training: what it was trained on.
        held_out: what it was not; its training data are measured where there is none.
        device: of the network.

    Raises:
        RunError: where latents cannot be brought to unit variance.
        SaveFailed: if the disk is full.
    """
    network, step, weights = trained(run, device)
    assert isinstance(network, Autoencoder)
    codec = fitted(network, (x.to(device) for x in _batches(training, MOST, BATCH, "measuring latents")))
    judged = held_out if len(held_out) else training
    found = Outcome(
        step=step,
        weights=weights,
        shape=training.spec.shape,
        latent=network.latent_shape,
        samples=min(MOST, len(judged)),
        held_out=bool(len(held_out)),
        deviations=tuple(round(float(d), 6) for d in codec.scale),
        **_measured(codec, network, judged, device),
    )
    store(run, codec.cpu(), found)
    return found


@torch.no_grad()
def _measured(codec: Neural, network: Autoencoder, judged: Dataset, device: torch.device) -> dict[str, Any]:
    """The numbers of an outcome that come from reconstructions."""
    spec, book = judged.spec, network.bottleneck if isinstance(network.bottleneck, Codebook) else None
    squares, elements, sums, power = 0.0, 0, 0.0, 0.0
    counts: Tensor | int = 0
    columns: list[tuple[int, Any]] = []
    for x in _batches(judged, MOST, BATCH, "measuring reconstructions"):
        z = codec.encode(x.to(device))
        made = codec.decode(z).float().cpu()
        made = made.clamp(-PEAK / 2, PEAK / 2) if spec.kind == "images" else made
        squares += float((made - x).double().square().sum())
        sums, power, elements = (
            sums + float(x.double().sum()),
            power + float(x.double().square().sum()),
            elements + x.numel(),
        )
        if book is not None:
            counts = counts + book.count(book.indices(network.encode(x.to(device))))
        if isinstance(spec.encoding, Columns):
            columns.append((len(x), _columns(spec, x, made)))
    spread = power / elements - (sums / elements) ** 2
    found: dict[str, Any] = {"error": math.sqrt(squares / elements / max(spread, 1e-12))}
    if spec.kind == "images":
        found["psnr"] = 10 * math.log10(PEAK**2 / max(squares / elements, 1e-12))
    size, latent = math.prod(spec.shape), math.prod(network.latent_shape)
    found["compression"] = size / latent
    if book is not None:
        codes, positions = len(book.vectors), latent // network.latent_shape[0]
        state = health(torch.as_tensor(counts))
        found |= {"codes": codes, "perplexity": float(state.perplexity), "used": float(state.used)}
        bits = size * (BITS if spec.kind == "images" else NUMBER)
        found["compression"] = bits / (positions * max(1.0, math.log2(codes)))
    if columns:
        mean = sum(n * values for n, values in columns) / sum(n for n, _ in columns)
        found["columns"] = _named(spec, mean)
    return found


def _columns(spec: Spec, x: Tensor, made: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mean squared errors of numbers in their own units, and shares of wrong categories, by column."""
    assert isinstance(spec.encoding, Columns)
    real, raw = (np.asarray(spec.decode(part.numpy()), np.float64) for part in (x, made))
    units = [c.unit if isinstance(c, Numeric) else None for c in spec.encoding.columns]
    found = [
        np.nanmean(((raw[:, i] - real[:, i]) * unit) ** 2) if unit is not None else np.mean(raw[:, i] != real[:, i])
        for i, unit in enumerate(units)
    ]
    return np.nan_to_num(np.asarray(found, np.float64))


def _named(spec: Spec, errors: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    assert isinstance(spec.encoding, Columns)
    return {
        column.name: float(error**0.5 if isinstance(column, Numeric) else error)
        for column, error in zip(spec.encoding.columns, errors, strict=True)
    }


def _batches(samples: Dataset, most: int, size: int, what: str | None = None) -> Iterator[Tensor]:
    """Evenly chosen samples in the network's scale, in batches ``(B, *S)``."""
    indices = np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(np.int64))
    starts = range(0, len(indices), size)
    for start in tqdm(starts, what, delay=2, leave=False, disable=None if what else True):
        yield samples.batch(indices[start : start + size])[0]
