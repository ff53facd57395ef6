"""Training a dual encoder: samples and their texts brought together, others apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.contents import contents
from osmotic.data.captions import Captions
from osmotic.data.spec import Spec
from osmotic.nn.coder import Encoder, reduced
from osmotic.nn.dense import Dense
from osmotic.nn.dual import DualEncoder, TextEncoder
from osmotic.nn.ports import Features, Vocabulary
from osmotic.objectives.contrastive import info_nce
from osmotic.training.build import CONTRASTIVE, READER
from osmotic.training.denoise import PLAYER
from osmotic.training.errors import RunError
from osmotic.training.loading import filled, stored
from osmotic.training.precision import autocast_dtype
from osmotic.training.recipe import Process, Recipe
from osmotic.training.run import Run
from osmotic.training.task import Batch, Task

FEATURES = 64
"""Numbers of an embedding. On the embedded shapes 64 tell all colours, forms and places apart."""

CODE = 16
"""Channels of the last features of a picture, which are laid flat: a mean over them would forget where things are."""

WHOLE = (
    "--objective contrastive compares all pairs of a step with each other: train in one process without --accumulate."
)


class Contrastive(Task):
    """``E info_nce`` over the pairs of a batch; those of one text are no negatives of each other.

    Args:
        encoder: what is trained.
        autocast: the dtype of its networks; None for full precision.
    """

    def __init__(self, encoder: DualEncoder, autocast: torch.dtype | None = None) -> None:
        self.encoder, self.autocast = encoder, autocast
        self.players: Mapping[str, nn.Module] = {PLAYER: encoder}

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        if batch.noise.count != batch.noise.total:
            raise RunError(WHOLE)
        assert batch.cond is not None
        with torch.autocast(batch.x0.device.type, self.autocast, enabled=self.autocast is not None):
            pictures, texts, scale = modules[player](batch.x0, None, batch.cond)
        return info_nce(pictures, texts, scale, same_texts(batch.cond))


def same_texts(cond: Condition) -> Tensor:
    """Which samples have the same text, ``(B, B)`` bool."""
    assert cond.tokens is not None
    rows = cond.tokens.flatten(1).double()
    if cond.mask is not None:
        rows = torch.cat([rows, cond.mask.double()], 1)
    _, which = torch.unique(rows, dim=0, return_inverse=True)
    return torch.eq(which[:, None], which[None])


def encoder(recipe: Recipe, spec: Spec, device: torch.device) -> DualEncoder:
    """The untrained dual encoder of a filled recipe; weights are a function of the recipe's seed alone.

    Pictures and sequences go through the encoder of an autoencoder, tables and points through an MLP, of the recipe's
    widths; texts are read as a denoiser reads them.

    Raises:
        ValueError: for data without captions.
    """
    if spec.captions is None:
        raise ValueError("--objective contrastive needs data with captions; these have none to tell samples by.")
    widths = recipe.architecture.widths or (64, 128, 128)
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.options.seed)
        if recipe.architecture.network == "mlp" or len(spec.shape) == 1:
            picture: nn.Module = Dense(spec.shape, (FEATURES,), widths)
        else:
            positions = reduced(spec.shape[1:], 2 ** (len(widths) - 1))
            body = Encoder(spec.shape[0], widths, CODE, len(positions))
            inputs = CODE * int(torch.Size(positions).numel())
            picture = nn.Sequential(body, nn.Flatten(), nn.Linear(inputs, FEATURES))
        width = 2 * widths[-1]
        if isinstance(spec.captions, Captions):
            embed: Vocabulary | Features = Vocabulary(spec.captions.vocabulary, width, READER)
        else:
            embed = Features(spec.captions.width, width)
        found = DualEncoder(picture, TextEncoder(embed, width, FEATURES))
    return found.to(device)


def contrast(recipe: Recipe, spec: Spec, device: torch.device) -> Contrastive:
    """The task that trains it.

    Raises:
        ValueError: as :func:`encoder`, and for settings that it does not have.
    """
    if recipe.options.accumulate != 1:
        raise ValueError(WHOLE)
    if recipe.architecture.network == "dit":
        raise ValueError("--objective contrastive has convolutions or an MLP, no dit; leave out --network.")
    for name, field in Process.model_fields.items():
        if name not in ("objective", "sigma_data") and getattr(recipe.process, name) != field.default:
            flag = name.replace("_", "-")
            raise ValueError(
                f"--objective contrastive takes no --{flag}: it has no noise and hides nothing; leave it out."
            )
    return Contrastive(encoder(recipe, spec, device), autocast_dtype(recipe.options.precision, device))


@dataclass(frozen=True)
class Dual:
    """A trained dual encoder.

    Args:
        module: in evaluation mode, without gradients.
        spec: of the data that it was trained on.
        fingerprint: of its weights.
    """

    module: DualEncoder
    spec: Spec
    fingerprint: str

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return FEATURES

    @torch.no_grad()
    def pictures(self, x: Tensor) -> Tensor:
        """The unit vectors ``(B, D)``, on the CPU, of samples ``(B, *S)`` as the network sees them."""
        return self.module.pictures(x.to(self.module.log_scale.device)).cpu()

    def prompt(self, text: str) -> None:
        """Check a text that a person wrote.

        Raises:
            DataError: for a word that it never saw, or a text longer than any that it learned from.
        """
        assert self.spec.captions is not None
        self.spec.captions.prompt(text)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """The unit vectors ``(B, D)``, on the CPU, of texts.

        Raises:
            DataError: for a word that it never saw.
        """
        assert self.spec.captions is not None
        device = self.module.log_scale.device
        tokens, mask = (torch.from_numpy(part).to(device) for part in self.spec.captions.encode(texts))
        return self.module.texts(tokens, mask).cpu()


def load_dual(directory: str | Path, device: torch.device | str | None = None) -> Dual:
    """The dual encoder of a run of ``--objective contrastive``, with its averaged weights.

    Raises:
        RunError: if it is none, holds no whole checkpoint, or its weights do not fit.
    """
    run = Run.open(directory)
    recipe, spec = stored(run)
    if recipe.process.objective != CONTRASTIVE:
        raise RunError(f"{directory} is no dual encoder; train one with `osmotic train DATA --objective contrastive`.")
    module = encoder(recipe, spec, torch.device(device or "cpu"))
    filled(module, run, recipe, None)
    return Dual(module.eval().requires_grad_(False), spec, fingerprint(module))


def fingerprint(module: nn.Module) -> str:
    """A name for what an encoder computes: a hash of its weights."""
    hashed = hashlib.blake2b(digest_size=16)
    for title, data in contents(module.state_dict()):
        hashed.update(title.encode() + data)
    return hashed.hexdigest()
