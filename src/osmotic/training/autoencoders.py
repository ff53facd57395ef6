"""From a recipe to an autoencoder and the task that trains it."""

from __future__ import annotations

import math

import torch

from osmotic.data.errors import plural
from osmotic.data.spec import Spec
from osmotic.nn import Autoencoder, Bottleneck, Codebook, Gaussian, PatchDiscriminator
from osmotic.objectives import Adversarial, absolute, perceptual, pseudo_huber
from osmotic.training.autoencode import Error, Errors, Reconstruction
from osmotic.training.autoencoding import Autoencoding
from osmotic.training.perceptual import RandomFeatures
from osmotic.training.precision import autocast_dtype
from osmotic.training.recipe import Architecture, Process, Recipe

BEND = 0.5
"""Where the pseudo-Huber error turns from a square into a distance, in the data's scale: pictures span 2."""

UNREAD = ("attention", "width", "depth", "patch", "dropout")
"""Of an architecture: what no autoencoder has."""


def autoencoder(recipe: Recipe, spec: Spec, device: torch.device) -> Autoencoder:
    """The untrained autoencoder of a filled recipe; weights are a function of the recipe's seed alone.

    Raises:
        ValueError: if it does not fit the shape of the data.
    """
    how, architecture = recipe.autoencoder, recipe.architecture
    assert how is not None
    assert how.latent_channels is not None
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.options.seed)
        channels, widths = how.latent_channels, architecture.widths or (128,)
        bottleneck: Bottleneck = Gaussian() if how.bottleneck == "kl" else Codebook(how.codes, channels)
        if architecture.network == "mlp":
            latent = (channels,) if how.bottleneck == "kl" else (channels, -(-math.prod(spec.shape) // 2))
            return Autoencoder.dense(spec.shape, widths, latent, bottleneck).to(device)
        if how.halvings is None or not 2 <= len(spec.shape) <= 4:
            raise ValueError(
                f"A convolutional autoencoder needs 1 to 3 position axes, and the data have shape {spec.shape}; use "
                "--network mlp."
            )
        patch = 2 ** (how.halvings + 1 - len(widths))
        if patch < 1:
            raise ValueError(
                f"{len(widths)} widths halve sides {plural(len(widths) - 1, 'time')}, and these data have them "
                f"halved {plural(how.halvings, 'time')} (--halvings); give {plural(how.halvings + 1, 'width')} at most."
            )
        return Autoencoder.convolutional(spec.shape, widths, channels, bottleneck, architecture.blocks, patch).to(
            device
        )


def reconstruction(recipe: Recipe, spec: Spec, device: torch.device) -> Reconstruction:
    """The task that trains it.

    Raises:
        ValueError: as :func:`autoencoder`, and for settings that it does not have.
    """
    how = recipe.autoencoder
    assert how is not None
    refuse_process(recipe.process)
    _refuse_architecture(recipe.architecture)
    _refuse_other_kind(how)
    if recipe.options.shard:
        raise ValueError("Autoencoders are small and are not sharded; train without --shard.")
    network = autoencoder(recipe, spec, device)
    discriminator = None
    if how.adversarial:
        if recipe.architecture.network == "mlp":
            raise ValueError("--adversarial judges patches, and vectors have none; leave it out.")
        with torch.random.fork_rng([]):
            torch.manual_seed(recipe.options.seed + 1)
            discriminator = PatchDiscriminator(spec.shape[0], ndim=len(spec.shape) - 1).to(device)
    start = how.adversarial_start if how.adversarial_start is not None else recipe.options.steps // 2
    return Reconstruction(
        network,
        _errors(how, spec, device),
        how.kl_weight,
        discriminator,
        Adversarial(how.adversarial, start),
        autocast_dtype(recipe.options.precision, device),
    )


def _errors(how: Autoencoding, spec: Spec, device: torch.device) -> Errors:
    """What reconstructions are judged by."""

    def bent(made: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return pseudo_huber(made, x, BEND)

    element: Error = absolute if how.reconstruction == "l1" else bent
    if not how.perceptual:
        return Errors(element)
    if spec.kind != "images":
        raise ValueError(f"--perceptual is for pictures, not for {spec.kind}; leave it out.")
    features = RandomFeatures().to(device)
    return Errors(element, lambda made, x: perceptual(features, made, x), how.perceptual)


def refuse_process(process: Process) -> None:
    """Refuse settings of a diffusion process, of which an autoencoder has none.

    Raises:
        ValueError: naming the first.
    """
    for name, field in Process.model_fields.items():
        if name != "objective" and getattr(process, name) != field.default:
            raise ValueError(
                f"--objective {process.objective} takes no --{name.replace('_', '-')}: it diffuses nothing; leave it "
                "out."
            )


def refuse_autoencoding(recipe: Recipe) -> None:
    """Refuse settings of an autoencoder where none is trained.

    Raises:
        ValueError: naming the first.
    """
    if recipe.autoencoder is None:
        return
    named = next(iter(sorted(recipe.autoencoder.model_fields_set)), None)
    flag = "an autoencoder's settings" if named is None else f"--{named.replace('_', '-')}"
    raise ValueError(
        f"--objective {recipe.process.objective} takes no {flag.removeprefix('an ')}: that is for --objective "
        "autoencoder; leave it out."
    )


def _refuse_architecture(architecture: Architecture) -> None:
    if architecture.network not in (None, "mlp"):
        raise ValueError(
            f"--objective autoencoder is no --network {architecture.network}: it is convolutional, or an mlp; leave it "
            "out."
        )
    for name in UNREAD:
        if getattr(architecture, name) != Architecture.model_fields[name].default:
            raise ValueError(f"--objective autoencoder takes no --{name}: its networks have none; leave it out.")


def _refuse_other_kind(how: Autoencoding) -> None:
    """Refuse what only the other bottleneck reads, or nobody without an adversary."""
    for name, needed in (("kl_weight", how.bottleneck == "kl"), ("codes", how.bottleneck == "vq")):
        if not needed and getattr(how, name) != Autoencoding.model_fields[name].default:
            raise ValueError(f"--bottleneck {how.bottleneck} takes no --{name.replace('_', '-')}; leave it out.")
    if how.kl_warmup is not None:
        raise ValueError("--kl-warmup is for --objective lsgm; leave it out.")
    if how.adversarial_start is not None and not how.adversarial:
        raise ValueError("--adversarial-start needs --adversarial above 0; leave it out.")
