"""Training an autoencoder: reconstruction, a bottleneck, and perhaps an adversary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from osmotic.nn import Autoencoder, Codebook, PatchDiscriminator, Posterior, Quantised, health
from osmotic.objectives import Adversarial, commitment, hinge_discriminator, kl_normal, pseudo_huber
from osmotic.training.autoencoding import AUTOENCODER
from osmotic.training.optim import Tuning
from osmotic.training.task import Batch, Noise, Stream, Task

DISCRIMINATOR = "discriminator"
"""The player that tells data from reconstructions."""

COMMITMENT = 0.25
"""van den Oord et al. 2017 (arXiv 1711.00937)."""

AGAIN = 100
"""Stream of the vectors at which dead codes begin again."""

Error = Callable[[Tensor, Tensor], Tensor]
"""``error(made, x) -> (B,)``."""


@dataclass(frozen=True)
class Errors:
    """What reconstructions are judged by: ``element + perceptual weight * perceptual``.

    Args:
        element: of elements.
        perceptual: as some features see it, or None.
        weight: of it.
    """

    element: Error = pseudo_huber
    perceptual: Error | None = None
    weight: float = 0.0

    def __call__(self, made: Tensor, x: Tensor) -> Tensor:
        """``(B,)`` of reconstructions and data ``(B, *S)``."""
        error = self.element(made, x)
        return error if self.perceptual is None else error + self.weight * self.perceptual(made, x)


class Reconstruction(Task):
    """``error(decode(z), x) + kl_weight KL(q(z | x) || N(0, I)) / D``, or ``+ 0.25 |h - e|^2`` for a codebook.

    Esser et al. 2021 (arXiv 2012.09841) and Rombach et al. 2022 (arXiv 2112.10752). D are the numbers of a sample:
    errors are means over them, so one weight suits every size. With an adversary there is a second player, and its term
    counts from a step on; the adaptive weight is of one pass, so other passes are other weights. Held-out losses leave
    the adversary out, and so compare over the whole run. A codebook learns from sums over the whole step.

    Args:
        autoencoder: what is trained.
        errors: of reconstructions.
        kl_weight: of the divergence in nats for each number of a sample. The best noise for it adds about ``kl_weight /
            2`` times the latents for each number to a squared error.
        discriminator: of patches, or None.
        adversarial: its term.
        autocast: run the networks in this dtype; None for full precision.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        errors: Errors,
        kl_weight: float = 1e-3,
        discriminator: PatchDiscriminator | None = None,
        adversarial: Adversarial | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.autoencoder, self.errors, self.kl_weight = autoencoder, errors, kl_weight
        self.adversarial, self.autocast = adversarial or Adversarial(0.0), autocast
        self.players: Mapping[str, nn.Module] = {AUTOENCODER: autoencoder}
        if discriminator is not None:
            self.players = {**self.players, DISCRIMINATOR: discriminator}
        self.died = torch.zeros((), dtype=torch.int64)

    @property
    def codebook(self) -> Codebook | None:
        """The codes, where the bottleneck is one."""
        found = self.autoencoder.bottleneck
        return found if isinstance(found, Codebook) else None

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        return self.passed(player, batch, modules)[0]

    def passed(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> tuple[Tensor, Tensor | None]:
        x = batch.x0
        if player == DISCRIMINATOR:
            with torch.no_grad():
                made, _ = self._made(self.autoencoder, batch)
            # Both at once: a wrapper for several processes is called once in a pass.
            real, false = self._judged(modules[DISCRIMINATOR], torch.cat([x, made])).chunk(2)
            return hinge_discriminator(real, false), None
        made, law = self._made(modules[AUTOENCODER], batch)
        errors = self.errors(made, x)
        bottleneck, told = self._bottleneck(law, batch)
        loss = errors + bottleneck
        if batch.training and self.adversarial.active(batch.step):
            logits = self._judged(modules[DISCRIMINATOR], made)
            loss = loss + self.adversarial(batch.step, errors, logits, self.autoencoder.last)
        return loss, told

    def learn(self, player: str, noise: Noise, told: Tensor) -> None:
        assert self.codebook is not None
        channels = self.codebook.vectors.shape[1]
        seen, begin = torch.split(told.to(self.codebook.vectors), [1 + channels, channels], dim=1)
        self.died += self.codebook.learn(seen, begin).cpu()

    def numbers(self) -> dict[str, float]:
        if self.codebook is None:
            return {}
        state = health(self.codebook.counts)
        return {"codebook/perplexity": float(state.perplexity), "codebook/died_in_all": float(self.died)}

    def active(self, player: str, step: int) -> bool:
        return player != DISCRIMINATOR or self.adversarial.active(step)

    def tuning(self, player: str) -> Tuning:
        return Tuning(betas=(0.5, 0.9)) if player == DISCRIMINATOR else Tuning()

    def state(self) -> dict[str, Tensor]:
        return {} if self.codebook is None else {"died": self.died}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.died = state.get("died", self.died)

    def _made(self, autoencoder: nn.Module, batch: Batch) -> tuple[Tensor, Posterior | Quantised]:
        """Reconstructions in single precision, and the law of their latents, drawn where there is anything to draw."""
        x, eps = batch.x0, None
        if self.codebook is None:
            eps = batch.noise.normal(Stream.NOISE, self.autoencoder.latent_shape)
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            made, law = autoencoder(x, eps)
        return made.to(x.dtype), law

    def _judged(self, discriminator: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            logits: Tensor = discriminator(x)
        return logits.to(x.dtype)

    def _bottleneck(self, law: Posterior | Quantised, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What holds the latents in bounds ``(B,)``, and what a codebook learns from."""
        if isinstance(law, Posterior):
            weight = self.kl_weight / batch.x0[0].numel()
            return weight * kl_normal(law.mean, law.log_variance), None
        assert self.codebook is not None
        held = COMMITMENT * commitment(law.h, law.nearest)
        return held, self._seen(self.codebook, law, batch.noise) if batch.training else None

    def _seen(self, codebook: Codebook, law: Quantised, noise: Noise) -> Tensor:
        """``(K, 1 + 2 C)``: what the codebook learns from, and those of the vectors it may begin at that are here.

        Which vectors of the whole step these are is drawn once; every pass fills in its own, so the sum has them all.
        """
        own = law.h.detach().movedim(1, -1).reshape(-1, law.h.shape[1])
        places = len(own) // len(law.h)
        chosen = codebook.chosen(noise.total * places, noise.generator(AGAIN)) - noise.start * places
        here = ((chosen >= 0) & (chosen < len(own))).to(own.device)
        begin = own[chosen.clamp(0, len(own) - 1).to(own.device)] * here[:, None]
        return torch.cat([codebook.seen(law), begin.to(codebook.vectors.dtype)], dim=1)
