"""How an autoencoder is made, as one typed value of the recipe (torch-free)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

AUTOENCODER = "autoencoder"
"""The objective whose runs hold a codec and no denoiser, and the player that is trained."""

CODEC = "codec.safetensors"
"""In an autoencoder's run, once it is trained."""

OUTCOME = "reconstruction.json"
"""Beside it: what it was measured to do."""

BITS, NUMBER = 8, 32
"""Bits of one number of a picture, and of other data."""

Count = Annotated[int, Field(ge=1, strict=True)]
Whole = Annotated[int, Field(ge=0, strict=True)]
Kind = Literal["kl", "vq"]
Error = Literal["l1", "pseudo-huber"]


class Autoencoding(BaseModel):
    """The bottleneck of an autoencoder, and what its reconstructions are judged by."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bottleneck: Kind = Field(
        "kl", description="what latents are: drawn from normal laws (kl), or entries of a codebook (vq)"
    )
    latent_channels: Count | None = Field(None, description="channels of the latents; numbers of one for tables")
    halvings: Whole | None = Field(None, description="how often sides are halved")
    kl_weight: float = Field(
        1e-3, ge=0, description="kl: weight of the divergence from the normal law, in nats a number of the data"
    )
    codes: Count = Field(512, description="vq: entries of the codebook")
    reconstruction: Error = Field("pseudo-huber", description="the error of elements")
    perceptual: float = Field(
        0.0, ge=0, description="weight of the error as random convolutions see it, for pictures; 0 for none"
    )
    adversarial: float = Field(
        0.0, ge=0, description="weight of a patch discriminator, beside the adaptive one; 0 for none"
    )
    kl_warmup: Count | None = Field(
        None, description="lsgm: steps over which the divergence grows to its whole weight (default: 0.3 of --steps)"
    )
    adversarial_start: Whole | None = Field(
        None, description="the step from which it counts (default: half of --steps)"
    )


class Outcome(BaseModel):
    """What a trained autoencoder was measured to do: ``RUN/reconstruction.json``.

    Args:
        step: of the checkpoint.
        weights: which of it.
        shape: of a sample.
        latent: of its latent.
        samples: how many were measured.
        held_out: whether they were held out of training.
        error: root of the mean squared error, as a share of the data's own deviation.
        psnr: of pictures, from the mean squared error of all elements, in decibels.
        compression: numbers of a sample for each of its latent; with a codebook bits (a picture's numbers have 8, other
            data's 32) for each bit of its codes.
        deviations: of the latents' channels, before they were scaled.
        codes: of the codebook, if there is one.
        perplexity: how many equally frequent codes are worth as much as those that were met.
        used: the share of codes that were met at all.
        columns: of a table, by name: root of the mean squared error in the column's unit, or the share of wrong
            categories.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[1] = 1
    step: int
    weights: str
    shape: tuple[int, ...]
    latent: tuple[int, ...]
    samples: int
    held_out: bool
    error: float
    psnr: float | None = None
    compression: float
    deviations: tuple[float, ...]
    codes: int | None = None
    perplexity: float | None = None
    used: float | None = None
    columns: dict[str, float] = {}

    def lines(self) -> list[str]:
        """For a person."""
        sides = (" x ".join(map(str, shape)) for shape in (self.shape, self.latent))
        unit = "numbers" if self.codes is None else "bits"
        whose = f"{self.samples:,} {'held-out' if self.held_out else 'training'} samples"
        decibels = "" if self.psnr is None else f"PSNR {self.psnr:.2f} dB, "
        low, high = min(self.deviations), max(self.deviations)
        lines = [
            "latents: {1} of {0}, {2:.3g} times fewer {3}".format(*sides, self.compression, unit),
            f"reconstruction: {decibels}error {self.error:.3g} of the data's deviation, on {whose}",
            f"latent deviations before scaling: {low:.3g} to {high:.3g}",
        ]
        if self.codes is not None and self.used is not None:
            lines.append(f"codebook: {self.used:.0%} of {self.codes:,} codes used, perplexity {self.perplexity:.4g}")
        if self.columns:
            lines.append("columns: " + ", ".join(f"{name} {value:.3g}" for name, value in self.columns.items()))
        return lines
