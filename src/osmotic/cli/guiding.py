"""Flags that say how samples are led besides ``--guidance`` (torch-free until used)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from osmotic.cli.flags import UsageError
from osmotic.data.errors import differ
from osmotic.training.recipe import Frozen

if TYPE_CHECKING:
    from osmotic.condition import Condition
    from osmotic.denoiser import Denoiser
    from osmotic.training.model import Model

    Guide = Callable[[Denoiser], Denoiser]


class Guiding(Frozen):
    """Guidance besides its scale; all of it can be combined."""

    scales: dict[str, float] | None = Field(
        None,
        description="a scale of its own for some of what is said, as text 7.5 image 1.5; --guidance is that of the "
        "rest. The image comes first, each of the others is given it and the rest: D() + s_image (D(image) - D()) + "
        "guidance (D(image, rest) - D(image)) + the sum of s_name (D(image, rest, name) - D(image, rest))",
        json_schema_extra={"metavar": "NAME SCALE ..."},
    )
    interval: tuple[float, float] | None = Field(
        None,
        description="guide only where sigma / alpha lies between LOW and HIGH, which saves half of the rest",
        json_schema_extra={"metavar": "LOW HIGH"},
    )
    rescale: float | None = Field(
        None, ge=0, le=1, description="share by which guided estimates get the plain ones' deviation back (about 0.7)"
    )
    plus_plus: bool = Field(
        False, description="CFG++: renoise with the unconditional noise; --guidance is its lambda, in 0 to 1"
    )
    autoguidance: Path | None = Field(None, description="run of a weaker model of the same data, to lead away from")
    autoguidance_scale: float = Field(2.0, description="by how much; 1 is the model alone")
    classifier: Path | None = Field(
        None, description="run of `osmotic train --objective classifier`, which leads to the class"
    )
    classifier_scale: float = Field(1.0, description="by how much; 1 is the conditional, for a right classifier")
    threshold: Literal["static", "dynamic"] | None = Field(
        None, description="keep estimates of pictures in their range: cut off, or by percentile"
    )


def guide(
    model: Model, guiding: Guiding, scale: float, negative: Condition | None, said: Mapping[str, Any] | None
) -> tuple[Guide | None, float]:
    """What is put around the denoiser, None for nothing, and the scale that is left for classifier-free guidance.

    Args:
        model: that is led.
        guiding: how.
        scale: what ``--guidance`` says.
        negative: what to lead away from, None for nothing.
        said: what the model is told, by name.

    Raises:
        UsageError: for pieces that do not go together.
    """
    pieces = list(_pieces(model, guiding, scale, negative, said or {}))
    if not pieces:
        return None, scale

    def around(denoiser: Denoiser) -> Denoiser:
        for piece in pieces:
            denoiser = piece(denoiser)
        return denoiser

    return around, 1.0 if guiding.plus_plus or guiding.scales else scale


def _pieces(
    model: Model, guiding: Guiding, scale: float, negative: Condition | None, said: Mapping[str, Any]
) -> list[Guide]:
    """From the inside out."""
    from osmotic import guidance

    _refuse_idle(guiding, scale)
    led = guiding.scales or guiding.plus_plus or guiding.classifier or guiding.autoguidance or scale != 1
    for name, value in (("--interval", guiding.interval), ("--rescale", guiding.rescale)):
        if value is not None and not led:
            raise UsageError(f"{name} changes guidance, and there is none; give a --guidance above 1.")
    pieces: list[Guide] = []
    if guiding.scales:
        pieces.append(_scaled(model, guiding, scale, negative, said))
    if guiding.plus_plus:
        if guiding.rescale is not None or guiding.threshold is not None:
            raise UsageError("--plus-plus renoises with another noise, which --rescale and --threshold would undo.")
        pieces.append(lambda inner: guidance.CFGPlusPlus(inner, scale, negative))
    if guiding.autoguidance is not None:
        bad = _bad(model, guiding.autoguidance)
        pieces.append(lambda inner: guidance.Autoguidance(inner, bad, guiding.autoguidance_scale))
    if guiding.classifier is not None:
        pieces.append(_classifier(model, guiding.classifier, guiding.classifier_scale))
    if guiding.rescale is not None:
        share = guiding.rescale
        pieces.append(lambda inner: guidance.Rescale(inner, share))
    if guiding.interval is not None:
        low, high = guiding.interval
        pieces.append(lambda inner: guidance.Interval(inner, low, high))
    if guiding.threshold is not None:
        if model.seen.kind != "images":
            raise UsageError(
                "--threshold keeps pictures in their range, and no pictures are diffused here; leave it out."
            )
        limit: Any = guidance.Clip() if guiding.threshold == "static" else guidance.Dynamic()
        pieces.append(lambda inner: guidance.Threshold(inner, limit))
    return pieces


def _refuse_idle(guiding: Guiding, scale: float) -> None:
    """Refuse scales of what is not there, and one that CFG++ does not have.

    Raises:
        UsageError: naming it.
    """
    for name, run in (("autoguidance", guiding.autoguidance), ("classifier", guiding.classifier)):
        if run is None and f"{name}_scale" in guiding.model_fields_set:
            raise UsageError(f"--{name}-scale is of --{name} RUN; name the run too, or leave it out.")
    if guiding.plus_plus and not 0 <= scale <= 1:
        raise UsageError(f"With --plus-plus --guidance is its lambda, from 0 to 1; got {scale:g}.")


def _scaled(model: Model, guiding: Guiding, scale: float, negative: Condition | None, said: Mapping[str, Any]) -> Guide:
    """Scales of their own in place of the one scale."""
    from osmotic.training.scales import own_scales

    if guiding.plus_plus:
        raise UsageError("--plus-plus leads by one scale, its lambda; leave out --scales.")
    if negative is not None:
        raise UsageError("--negative is led away from by the one scale of --guidance; leave out --scales.")
    return own_scales(model, [name for name, value in said.items() if value is not None], guiding.scales or {}, scale)


def _bad(model: Model, run: Path) -> Denoiser:
    """The weaker model of autoguidance."""
    from osmotic.training.model import load

    bad = load(run, device=model.device)
    for name in ("shape", "encoding", "classes", "attributes", "captions", "control"):
        if getattr(bad.seen, name) != getattr(model.seen, name):
            raise UsageError(f"{run} draws other data than this model, their {differ(name)}; name a run of the same.")
    if (bad.codec and bad.codec.fingerprint()) != (model.codec and model.codec.fingerprint()):
        raise UsageError(f"{run} does not diffuse the latents that this model does; name a run of the same codec.")
    return bad.denoiser


def _classifier(model: Model, run: Path, scale: float) -> Guide:
    """Guidance by a classifier; a model without classes is not told them."""
    from osmotic import guidance
    from osmotic.training.model import load_classifier

    if model.spec.attributes:
        raise UsageError("--classifier leads to a class, and this model is told other things too; use --guidance.")
    classifier, spec = load_classifier(run, model.seen, model.device)
    if model.spec.classes not in (None, spec.classes):
        raise UsageError(f"{run} tells other classes apart than this model draws.")

    def around(inner: Denoiser) -> Denoiser:
        told = guidance.Untold(inner) if model.spec.classes is None else inner
        return guidance.Classifier(told, classifier.on(inner.schedule), scale)

    return around
