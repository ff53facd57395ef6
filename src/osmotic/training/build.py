"""From names to objects: the one table between a recipe and the library."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from osmotic.adapters import ControlNet, LoRA, learn
from osmotic.adapters.words import Port
from osmotic.clocks import SMOOTH, Angle
from osmotic.data.captions import Captions
from osmotic.data.controls import LEVEL, Low, channels
from osmotic.data.encoder import Encoder
from osmotic.data.encoding import Pixels
from osmotic.data.spec import Spec
from osmotic.data.words import number, untaught
from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import TARGETS, Target
from osmotic.flow_map import Chain, Consistency, FlowMap, Implicit
from osmotic.laws import LAWS, Law
from osmotic.nn import MLP, Discriminator, DiT, Embedding, UNet
from osmotic.nn.ports import Attributes
from osmotic.objectives.couplings import ClasswiseOT, Coupling, MiniBatchOT
from osmotic.objectives.decoders import Continuous, Decoder, Discretised
from osmotic.objectives.weights import WEIGHTS, Weight
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import Discrete, Schedule
from osmotic.times import Levels, LogSNR
from osmotic.training.classify import Classification, NoisyClassifier
from osmotic.training.denoise import Denoising, Drop
from osmotic.training.enlarging import Blurred
from osmotic.training.hybrid import Bound, Hybrid
from osmotic.training.precision import autocast_dtype
from osmotic.training.recipe import Adapted, Architecture, Process, Recipe, Student
from osmotic.training.score import NCSN, SlicedScore

DEFAULT_SIGMA = 0.5
READER = 2  # layers of the transformer that reads captions
SPREAD = 4  # tokens that a network attends to in place of an embedding

# The bound's levels on a continuous path, and how far they reach in units of the data's deviation: EDM's 80 to 0.002.
LEVELS, NOISIEST, CLEANEST = 200, 160.0, 0.004

CLASSIFIER = "classifier"
CONTRASTIVE = "contrastive"
"""The objectives whose runs hold no denoiser, but a classifier and a dual encoder."""

# Objectives that teach the variance of ancestral steps: their networks give twice the channels.
LEARNED_VARIANCE = frozenset({"hybrid", "bound"})


def network(architecture: Architecture, spec: Spec, outputs: int = 1, student: Student | None = None) -> nn.Module:
    """The network of a filled recipe for data of this description, with ``outputs`` times the data's channels.

    Args:
        student: what a few-step model reads besides.

    Raises:
        ValueError: if the network does not fit the shape of the data.
    """
    shape = spec.shape
    channels = outputs * shape[0]

    def embedding(width: int) -> Embedding:
        ports = told(spec)
        attends = architecture.network == "dit" or (architecture.network == "unet" and architecture.attention)
        if spec.embedding is not None and attends:
            ports["spread"] = SPREAD
        if student is None:
            return Embedding(width, **ports)
        aims, scales = student.form == "flow-map", student.scales is not None
        return Embedding(width, aims=aims, scales=scales, latents=student.latents, **ports)

    if architecture.network == "mlp":
        if spec.sizes:
            raise ValueError("An mlp reads one size: pass --size N instead of --sizes, or --network unet or dit.")
        widths = architecture.widths or (256,) * 4
        return MLP(shape, widths, architecture.dropout, embedding(widths[0]), channels)
    if len(shape) not in (2, 3, 4):
        raise ValueError(
            f"A {architecture.network} needs 1 to 3 position axes, and the data have shape {shape}; use --network mlp."
        )
    if architecture.network == "dit":
        width, patch = architecture.width, (architecture.patch,) * (len(shape) - 1)
        heads, dropout = min(64, width), architecture.dropout
        return DiT(shape[0], patch, width, architecture.depth, heads, dropout, embedding(width), channels)
    widths = architecture.widths or (64, 128, 128)
    return UNet(
        shape[0],
        widths,
        ndim=len(shape) - 1,
        blocks=architecture.blocks,
        attention=architecture.attention or (),
        dropout=architecture.dropout,
        embedding=embedding(4 * widths[0]),
        out_channels=channels,
    )


def told(spec: Spec) -> dict[str, Any]:
    """The ports through which a network is told what is known of data of this description."""
    ports: dict[str, Any] = {}
    classes = () if spec.classes is None else (len(spec.classes),)
    level = (None,) if isinstance(spec.control, Low) else ()
    if spec.attributes or level:
        ports["attributes"] = (*classes, *(attribute.categories for attribute in spec.attributes), *level)
    elif classes:
        ports["classes"] = classes[0]
    if spec.embedding is not None:
        ports["vector"] = spec.embedding.width
    if isinstance(spec.captions, Encoder):
        ports["token_features"] = spec.captions.width
    elif spec.captions is not None:
        ports |= {"vocabulary": spec.captions.vocabulary, "reader": READER}
    if spec.sizes:
        ports["sizes"] = len(spec.sizes[0])
    if spec.control is not None:
        ports["image_channels"] = channels(spec.control, spec.shape)
    if level:
        ports["always"] = tuple(spec.parts.index(name) for name in (LEVEL, "image"))
    return ports


def denoiser(recipe: Recipe, spec: Spec, device: torch.device, begin: nn.Module | None = None) -> NeuralDenoiser:
    """The untrained denoiser of a filled recipe; weights are a function of the recipe's seed alone.

    Args:
        begin: the base's network where it is adapted, with its weights.
    """
    process = recipe.process
    sigma_data = process.sigma_data or DEFAULT_SIGMA
    learned = process.objective in LEARNED_VARIANCE
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.options.seed)
        body = _body(recipe, spec, 2 if learned else 1) if begin is None else copy.deepcopy(begin)
        body = body if recipe.adapted is None else adapted(body, recipe.adapted, spec)
    schedule, target = SCHEDULES[process.schedule](), TARGETS[process.target](sigma_data)
    settings: dict[str, Any] = {
        "sigma_data": sigma_data,
        "autocast": autocast_dtype(recipe.options.precision, device),
        "learned_variance": learned,
    }
    if recipe.student is None:
        return NeuralDenoiser(body, schedule, target, **settings).to(device)
    return few_step(recipe.student, body, schedule, target, settings).to(device)


def _body(recipe: Recipe, spec: Spec, outputs: int) -> nn.Module:
    """The network of a recipe, or the base's where it is adapted: that knows no control image and no new word."""
    how = recipe.adapted
    if how is not None and how.by == "control":
        spec = spec.model_copy(update={"control": None})
    if how is not None and how.word is not None:
        spec = untaught(spec)
    return network(recipe.architecture, spec, outputs, recipe.student)


def adapted(body: nn.Module, how: Adapted, spec: Spec) -> nn.Module:
    """A network with what is learned beside it: gradients reach that alone, or everything."""
    words = None
    if how.word is not None and how.like is not None:
        words = learn(body, port(body, spec), {how.word: number(spec, how.like)})
    if how.by == "control":
        assert spec.control is not None
        return ControlNet(body, channels(spec.control, spec.shape))
    if how.by == "lora":
        lora = LoRA(body)
        lora.add("main", how.rank)
        body = lora
    if how.by == "whole":
        body.requires_grad_(True)
    if words is not None:
        words.rows.requires_grad_(True)
    return body


def port(body: nn.Module, spec: Spec) -> Port:
    """Where a network reads the words of texts or, for data without texts of their own words, the class."""
    embedding: Any = body.embedding
    where = embedding.tokens.embed if isinstance(spec.captions, Captions) else embedding.vector
    found = where.each[0] if isinstance(where, Attributes) else where
    assert isinstance(found, Port)
    return found


def few_step(
    student: Student, network: nn.Module, schedule: Schedule, target: Target, settings: dict[str, Any]
) -> NeuralDenoiser:
    """The denoiser of a few-step model around its network."""
    settings = settings | {"clock": Angle(SMOOTH) if student.smooth else Angle()}
    if student.form == "flow-map":
        return FlowMap(network, schedule, target, **settings)
    if student.form == "consistency":
        return Consistency(network, schedule, target, stops=student.stops, **settings)
    if student.form == "chain":
        assert student.stops is not None
        return Chain(network, schedule, target, stops=student.stops, **settings)
    if student.latents:
        return Implicit(network, schedule, target, latents=student.latents, stops=student.stops, **settings)
    return NeuralDenoiser(network, schedule, target, **settings)


Made = Callable[[NeuralDenoiser, Law, Weight, Drop, Spec, Process], Denoising]


def task(recipe: Recipe, spec: Spec, device: torch.device, begin: nn.Module | None = None) -> Denoising:
    """The training task of a filled recipe; ``begin`` as in :func:`denoiser`.

    Raises:
        ValueError: for settings that the objective does not have.
    """
    process = recipe.process
    sigma_data = process.sigma_data or DEFAULT_SIGMA
    law, weight = LAWS[process.law](sigma_data), WEIGHTS[process.weight](sigma_data)
    drop = dropped(process, spec)
    return OBJECTIVES[process.objective](denoiser(recipe, spec, device, begin), law, weight, drop, spec, process)


def classifier(recipe: Recipe, spec: Spec, device: torch.device) -> NoisyClassifier:
    """The untrained classifier of a filled recipe; weights are a function of the recipe's seed alone.

    Raises:
        ValueError: for data without classes.
    """
    if spec.classes is None or len(spec.classes) < 2:
        raise ValueError("--objective classifier needs data of two classes or more; these have none to tell apart.")
    sigma_data = recipe.process.sigma_data or DEFAULT_SIGMA
    widths = recipe.architecture.widths or (64, 128, 128)
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.options.seed)
        body = Discriminator(spec.shape[0], widths, len(spec.shape) - 1, outputs=len(spec.classes))
    schedule, lower = SCHEDULES[recipe.process.schedule](), autocast_dtype(recipe.options.precision, device)
    return NoisyClassifier(body, schedule, sigma_data, lower).to(device)


def classification(recipe: Recipe, spec: Spec, device: torch.device) -> Classification:
    """The task that trains it.

    Raises:
        ValueError: as :func:`classifier`, and for settings that it does not have.
    """
    _refuse(recipe.process, "weight", "unit", "a cross-entropy is in nats at every level")
    _refuse(recipe.process, "coupling", "independent", "it predicts no noise")
    law = LAWS[recipe.process.law](recipe.process.sigma_data or DEFAULT_SIGMA)
    return Classification(classifier(recipe, spec, device), law)


def dropped(process: Process, spec: Spec) -> Drop:
    """How often conditions are hidden; each of several parts also alone, so that a model may be told some of them.

    Raises:
        ValueError: for a part that there is not.
    """
    parts, said = spec.parts, process.part_dropout or {}
    for name in said:
        if name not in parts:
            raise ValueError(f"--part-dropout {name}: these data tell no such thing, but {', '.join(parts) or 'none'}.")
    if not parts:
        return Drop()
    usual = process.condition_dropout if len(parts) > 1 else 0.0
    drawn = Blurred(spec.control.factor) if isinstance(spec.control, Low) else None
    return Drop(process.condition_dropout, tuple(said.get(name, usual) for name in parts), drawn)


def coupling(process: Process, spec: Spec) -> Coupling | None:
    """Which noise each sample is trained with; None for its own.

    Raises:
        ValueError: for an objective that draws its noise itself.
    """
    if process.coupling == "independent":
        return None
    if process.objective != "denoising":
        raise ValueError(
            f"--coupling {process.coupling} is for the denoising objective, not for {process.objective}; leave it out."
        )
    if spec.parts not in ((), ("class",)):
        raise ValueError(
            f"--coupling {process.coupling} pairs noise within classes, and these data are told "
            f"{' and '.join(spec.parts)}, given which the noise would not be normal; leave it out."
        )
    return ClasswiseOT() if spec.parts else MiniBatchOT()


def levels(schedule: Schedule, sigma_data: float) -> Tensor:
    """The grid of the bound: a discrete path's own levels, on others even steps in log-SNR where anything is
    decided.
    """
    if isinstance(schedule, Discrete):
        return Levels()(schedule, schedule.levels)
    return LogSNR(CLEANEST * sigma_data, NOISIEST * sigma_data)(schedule, LEVELS)


def decoder(spec: Spec) -> Decoder:
    """The last step of the bound: bins for pictures of whole numbers, a density for everything else."""
    encoding = spec.encoding
    if isinstance(encoding, Pixels):
        span = encoding.high - encoding.low
        if span >= 2 and span == round(span):
            return Discretised(round(span) + 1)
    return Continuous()


def _denoising(
    denoiser: NeuralDenoiser, law: Law, weight: Weight, drop: Drop, spec: Spec, process: Process
) -> Denoising:
    return Denoising(denoiser, law, weight, drop)


def _hybrid(denoiser: NeuralDenoiser, law: Law, weight: Weight, drop: Drop, spec: Spec, process: Process) -> Denoising:
    grid = levels(denoiser.schedule, process.sigma_data or DEFAULT_SIGMA)
    return Hybrid(denoiser, law, grid, decoder(spec), weight, drop)


def _bound(denoiser: NeuralDenoiser, law: Law, weight: Weight, drop: Drop, spec: Spec, process: Process) -> Denoising:
    _refuse(process, "weight", "unit", "the bound has its own weights")
    return Bound(denoiser, law, levels(denoiser.schedule, process.sigma_data or DEFAULT_SIGMA), decoder(spec), drop)


def _ncsn(denoiser: NeuralDenoiser, law: Law, weight: Weight, drop: Drop, spec: Spec, process: Process) -> Denoising:
    _refuse(process, "law", Process.model_fields["law"].default, "it trains every level of its ladder equally often")
    _refuse(process, "weight", "unit", "it weights scores by sigma^2")
    return NCSN(denoiser, spec.shape, process.sigma_data or DEFAULT_SIGMA, drop)


def _sliced(denoiser: NeuralDenoiser, law: Law, weight: Weight, drop: Drop, spec: Spec, process: Process) -> Denoising:
    _refuse(process, "weight", "unit", "it weights scores by sigma^2")
    return SlicedScore(denoiser, law, drop)


def _refuse(process: Process, name: str, value: str, why: str) -> None:
    """Refuse a setting that an objective has no use for."""
    if getattr(process, name) != value:
        raise ValueError(f"--objective {process.objective} takes no --{name}: {why}; leave it out.")


# Objectives by name; a new one is a task of training/, entered here and in recipe.Objective.
OBJECTIVES: dict[str, Made] = {
    "denoising": _denoising,
    "hybrid": _hybrid,
    "bound": _bound,
    "ncsn": _ncsn,
    "sliced-score": _sliced,
}
