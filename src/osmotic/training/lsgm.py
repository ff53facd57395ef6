"""Encoder, decoder and the score of their latents, trained end to end."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from osmotic.codecs import Mixed, Neural
from osmotic.condition import Condition
from osmotic.data.spec import Spec
from osmotic.denoiser import Denoiser
from osmotic.laws import NoiseShare
from osmotic.nn import Autoencoder, Posterior
from osmotic.objectives.decoders import Decoder
from osmotic.objectives.latent import Terms, cross_entropy, negative_entropy
from osmotic.training import autoencoder_defaults, build, defaults
from osmotic.training.autoencoders import autoencoder
from osmotic.training.autoencoding import AUTOENCODER, Autoencoding
from osmotic.training.coding import FOLDER, keep, seen
from osmotic.training.denoise import PLAYER, Called, Drop, core, shown
from osmotic.training.loading import filled, stored
from osmotic.training.recipe import Coded, Process, Recipe
from osmotic.training.run import Run, write_json
from osmotic.training.task import Batch, Noise, Stream, Task

LSGM = "lsgm"
"""The objective, and what the codec of such a run is called."""

DEVIATION = 0.3
"""Of the data given a latent, where training begins."""

BLUR = 0.01
"""The noise that latents keep, in units of the normal law: a prior's density is known at no less than some noise."""

WARM = 0.3
"""Share of the training over which the divergence grows to its whole weight: latents that say nothing yet would be
given up (Vahdat et al. 2021, section G)."""

READ = 100
"""Stream of the encoder's draw."""


class Generative(nn.Module):
    """An autoencoder whose decoder gives a law: ``p(x | z) = N(decode(z), s^2)``, s one learned number.

    Args:
        autoencoder: of a Gaussian bottleneck.
        deviation: s where training begins.
    """

    def __init__(self, autoencoder: Autoencoder, deviation: float) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.log_variance = nn.Parameter(torch.tensor(2 * math.log(deviation)))

    def forward(self, x: Tensor, eps: Tensor, blur: Tensor) -> tuple[Tensor, Tensor, Posterior, Tensor]:
        """(the mean of x given a blurred latent, the latent before it is blurred, its law, log s^2)."""
        law = self.autoencoder.bottleneck(self.autoencoder.encoder(x))
        assert isinstance(law, Posterior)
        z0 = law.drawn(eps)
        return self.autoencoder.decode(z0 + blur), z0, law, self.log_variance


class EndToEnd(Task):
    """``E[-log p(x | y)] - H(q(y | x)) + CE(q(y | x) || p(y))`` in nats per entry of x: LSGM (Vahdat et al. 2021, arXiv
    2106.05931, algorithm 2).

    y is the latent blurred by :data:`BLUR`, the noise where the cross-entropy begins, so the three terms are those of
    one law and their sum is at least ``-log p(x)`` for any weights. Autoencoder and prior are players of their own: the
    first learns from all three terms, the prior from the cross-entropy with latents held.

    Args:
        generative: encoder and decoder.
        prior: of the latents.
        decoder: of x: bins for data of whole numbers, a density for others.
        warm: steps over which the divergence grows to its whole weight, at least 1.
        drop: how often conditions of the prior are hidden.
    """

    def __init__(
        self, generative: Generative, prior: Mixed, decoder: Decoder, warm: int, drop: Drop | None = None
    ) -> None:
        self.generative, self.prior, self.decoder, self.warm = generative, prior, decoder, warm
        self.drop = drop or Drop()
        self.players: Mapping[str, nn.Module] = {PLAYER: prior, AUTOENCODER: generative}
        self.first = float(prior.schedule.time(torch.tensor(-2 * math.log(BLUR), dtype=torch.float64)))
        self.law = NoiseShare(self.first)

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        cond, entries = shown(batch, self.drop), batch.x0[0].numel()
        if player == PLAYER:
            with torch.no_grad():
                _, z0, _, _ = self._drawn(self.generative, batch)
            return self._matched(Called(self.prior, modules[PLAYER]), z0, batch, cond) / entries
        terms = self.terms(modules[AUTOENCODER], batch, cond)
        whole = min(1.0, (batch.step + 1) / self.warm) if batch.training else 1.0
        return (terms.reconstruction + whole * terms.kl) / entries

    def terms(self, generative: nn.Module, batch: Batch, cond: Condition | None) -> Terms:
        """One draw of the bound's terms, ``(B,)`` nats each.

        Args:
            generative: as it must be called.
            batch: samples and draws.
            cond: what the prior is told.
        """
        mean, z0, law, log_variance = self._drawn(generative, batch)
        blurred = torch.logaddexp(law.log_variance, law.log_variance.new_tensor(2 * math.log(BLUR)))
        return Terms(
            self.decoder(batch.x0, mean, log_variance),
            negative_entropy(blurred),
            self._matched(self.prior, z0, batch, cond),
        )

    def core(self, player: str) -> nn.Module:
        return core(self.prior.denoiser) if player == PLAYER else self.players[player]

    def _drawn(self, generative: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Posterior, Tensor]:
        shape = self.generative.autoencoder.latent_shape
        eps, blur = batch.noise.normal(READ, (2, *shape)).unbind(1)
        drawn: tuple[Tensor, Tensor, Posterior, Tensor] = generative(batch.x0, eps, BLUR * blur)
        return drawn

    def _matched(self, prior: Denoiser, z0: Tensor, batch: Batch, cond: Condition | None) -> Tensor:
        t, importance = self._times(batch.noise)
        eps = batch.noise.normal(Stream.NOISE, z0.shape[1:])
        return cross_entropy(prior, z0, t, importance, eps, self.first, cond)

    def _times(self, noise: Noise) -> tuple[Tensor, Tensor]:
        t, importance = self.law.draw(self.prior.schedule, noise.total, noise.generator(Stream.TIME))
        return noise.own(t), noise.own(importance)


def complete(recipe: Recipe, spec: Spec) -> Recipe:
    """The recipe with what was left out: a small autoencoder, and the network that suits its latents.

    Raises:
        ValueError: for settings that it does not have.
    """
    _refuse(recipe)
    if spec.control is not None or spec.sizes:
        raise ValueError("--objective lsgm is for data of one size without images beside them; leave --control out.")
    coder = encoding(recipe, spec)
    shape = autoencoder(coder, spec, torch.device("cpu")).latent_shape
    coded = Coded(source=LSGM, fingerprint="", shape=shape, data=spec.shape)
    found = recipe.model_copy(update={"codec": coded, "autoencoder": coder.autoencoder})
    found = defaults.fill(found, seen(spec, coded))
    process, how = found.process.model_copy(update={"sigma_data": 1.0}), coder.autoencoder
    if how is not None and how.kl_warmup is None:
        how = how.model_copy(update={"kl_warmup": max(1, round(WARM * found.options.steps))})
    return found.model_copy(update={"process": process, "autoencoder": how})


def encoding(recipe: Recipe, spec: Spec) -> Recipe:
    """The recipe of the autoencoder of a complete recipe, as a run of ``--objective autoencoder`` would have it."""
    asked = recipe.autoencoder or Autoencoding()
    own = Recipe(options=recipe.options, process=Process(objective=AUTOENCODER), autoencoder=asked)
    return autoencoder_defaults.fill(own, spec)


def prior(recipe: Recipe, spec: Spec, device: torch.device) -> Mixed:
    """The untrained prior of a complete recipe, for latents of this description."""
    return Mixed(build.denoiser(recipe, spec, device), spec.shape[0]).to(device)


def end_to_end(recipe: Recipe, spec: Spec, device: torch.device) -> EndToEnd:
    """The task of a complete recipe.

    Raises:
        ValueError: for settings that it does not have.
    """
    if recipe.options.shard:
        raise ValueError("--objective lsgm trains two networks by turns, which are whole; train without --shard.")
    generative = Generative(autoencoder(encoding(recipe, spec), spec, device), DEVIATION).to(device)
    assert recipe.autoencoder is not None
    drop = build.dropped(recipe.process, spec)
    latents = prior(recipe, seen(spec, recipe.codec), device)
    return EndToEnd(generative, latents, build.decoder(spec), recipe.autoencoder.kl_warmup or 1, drop)


def loaded(run: Run, weights: str | None, device: torch.device) -> tuple[EndToEnd, int, str]:
    """The task of a run with the weights of its newest whole checkpoint, its step and the name of the weights."""
    recipe, spec = stored(run)
    task = end_to_end(recipe, spec, device)
    step, name = filled(task.prior, run, recipe, weights)
    filled(task.generative, run, recipe, weights, AUTOENCODER)
    for player in task.players.values():
        player.eval().requires_grad_(False)
    return task, step, name


def plain(task: EndToEnd) -> Neural:
    """The codec of a task: latents as they are, for the prior learned their scale."""
    channels = task.generative.autoencoder.latent_shape[0]
    weight = task.generative.log_variance
    return Neural(task.generative.autoencoder, weight.new_zeros(channels), weight.new_ones(channels))


def forget(run: Run) -> None:
    """Take back what :func:`finish` stored: the run is trained further, and its codec is no longer its prior's."""
    recipe, _ = stored(run)
    assert recipe.codec is not None
    coded = recipe.codec.model_copy(update={"fingerprint": ""})
    write_json(run.recipe_path, recipe.model_copy(update={"codec": coded}).model_dump(mode="json"))
    shutil.rmtree(run.directory / FOLDER, ignore_errors=True)


def finish(run: Run) -> None:
    """Store the codec of a finished run beside its prior: from now on it is a model of latents as any other.

    Raises:
        SaveFailed: if the disk is full.
    """
    recipe, spec = stored(run)
    if recipe.codec is not None and recipe.codec.fingerprint:
        return
    task, _, _ = loaded(run, None, torch.device("cpu"))
    codec = plain(task)
    keep(run, codec, encoding(recipe, spec))
    assert recipe.codec is not None
    coded = recipe.codec.model_copy(update={"fingerprint": codec.fingerprint()})
    write_json(run.recipe_path, recipe.model_copy(update={"codec": coded}).model_dump(mode="json"))


def _refuse(recipe: Recipe) -> None:
    """Refuse what the bound has of its own."""
    asked, how = recipe.process, recipe.autoencoder or Autoencoding()
    for name in ("law", "weight", "coupling"):
        if getattr(asked, name) != Process.model_fields[name].default:
            raise ValueError(f"--objective lsgm takes no --{name}: the likelihood says how times count; leave it out.")
    for name in ("kl_weight", "codes", "reconstruction", "perceptual", "adversarial", "adversarial_start"):
        if getattr(how, name) != Autoencoding.model_fields[name].default:
            raise ValueError(
                f"--objective lsgm takes no --{name.replace('_', '-')}: its loss is a bound; leave it out."
            )
    if how.bottleneck != "kl":
        raise ValueError("--objective lsgm needs latents with a law of their own, --bottleneck kl; leave it out.")
