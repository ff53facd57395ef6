"""Autoencoders: data to latents, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from osmotic.nn.bottleneck import Bottleneck, Law
from osmotic.nn.coder import Decoder, Encoder
from osmotic.nn.dense import Dense


class Autoencoder(nn.Module):
    """``z = bottleneck(encoder(x))`` and ``x = decoder(snap(z))``, for ``(B, *shape)``.

    Whether it is a KL or a VQ autoencoder is the bottleneck's affair. Latents have whatever scale training gave them;
    :class:`osmotic.codecs.Neural` brings them to unit variance. First stage of Rombach et al. 2022 (arXiv 2112.10752).

    Args:
        shape: of one sample of the data it is made for, ``(channels, *S)`` or any of a dense one.
        encoder: ``(B, *shape)`` to features ``(B, outputs C, *P)``.
        decoder: latents ``(B, C, *P)`` to samples; a :class:`Decoder` also takes sizes.
        bottleneck: what makes a law of latents of the features.

    Raises:
        ValueError: where encoder, bottleneck and decoder do not fit each other or the shape.
    """

    def __init__(
        self, shape: Sequence[int], encoder: Encoder | Dense, decoder: Decoder | Dense, bottleneck: Bottleneck
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.encoder, self.decoder, self.bottleneck = encoder, decoder, bottleneck
        self.latent_shape = _latent(self.shape, encoder, bottleneck)
        read = decoder.latent if isinstance(decoder, Decoder) else decoder.shape[0]
        if self.latent_shape[0] != read:
            raise ValueError(
                f"The bottleneck gives {self.latent_shape[0]} latent channels and the decoder reads {read}; make them "
                "equal."
            )

    @classmethod
    def convolutional(
        cls,
        shape: Sequence[int],
        widths: Sequence[int],
        latent: int,
        bottleneck: Bottleneck,
        blocks: int = 1,
        patch: int = 1,
    ) -> Autoencoder:
        """An autoencoder of lines, planes or volumes ``(channels, *S)``, each level but the first halving the sizes.

        Args:
            shape: of one sample.
            widths: channels of each level, the finest first.
            latent: channels of the latents.
            bottleneck: of so many channels.
            blocks: residual blocks of each level.
            patch: side of the patches that the first level takes as one position.
        """
        channels, ndim = shape[0], len(shape) - 1
        encoder = Encoder(channels, widths, bottleneck.outputs * latent, ndim, blocks, patch)
        return cls(shape, encoder, Decoder(channels, widths, latent, ndim, blocks, patch), bottleneck)

    @classmethod
    def dense(
        cls, shape: Sequence[int], widths: Sequence[int], latent: Sequence[int], bottleneck: Bottleneck
    ) -> Autoencoder:
        """An autoencoder of tables, points and other small data of any shape, by residual blocks on all entries.

        Args:
            shape: of one sample.
            widths: of the encoder's blocks; the decoder has them in turn. Empty for linear maps.
            latent: the shape of one latent, ``(C,)``, or ``(C, P)`` for P vectors that are quantised each.
            bottleneck: of C channels.
        """
        encoder = Dense(shape, (bottleneck.outputs * latent[0], *latent[1:]), widths)
        return cls(shape, encoder, Dense(latent, shape, tuple(reversed(widths))), bottleneck)

    def forward(self, x: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Law]:
        """The reconstruction ``(B, *shape)``, and the law of the latents that its regularisation reads.

        Args:
            x: data.
            eps: unit noise ``(B, *latent_shape)`` by which a latent is drawn; None takes the mean.
        """
        law: Law = self.bottleneck(self.encoder(x))
        return self._decoded(law.drawn(eps), x.shape[2:]), law

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The latents ``(B, C, *P)`` of samples.

        Args:
            x: ``(B, *shape)``, or with other sizes where the encoder has positions.
            generator: of the draw, on any device; None takes the mean.
        """
        law: Law = self.bottleneck(self.encoder(x))
        if generator is None:
            return law.latent()
        mean = law.latent()
        eps = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=mean.dtype)
        return law.latent(eps.to(mean.device))

    def decode(self, z: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The samples of latents.

        Args:
            z: ``(B, C, *P)``, from :meth:`encode` or a model of such.
            size: S of the samples. None gives those of the data that it was made for where z has their P, and the
                largest that fit elsewhere.
        """
        if size is None and z.shape[1:] == self.latent_shape:
            size = self.shape[1:]
        return self._decoded(self.bottleneck.snap(z), size)

    @property
    def last(self) -> Tensor:
        """The weight of the decoder's last layer, whose gradients balance an adversary."""
        return self.decoder.last

    def _decoded(self, z: Tensor, size: Sequence[int] | None) -> Tensor:
        sized: Callable[..., Tensor] = self.decoder
        return sized(z, size) if isinstance(self.decoder, Decoder) else sized(z)


def _latent(shape: tuple[int, ...], encoder: Encoder | Dense, bottleneck: Bottleneck) -> tuple[int, ...]:
    """The shape ``(C, *P)`` of one latent."""
    if isinstance(encoder, Dense):
        outputs, *positions = encoder.out_shape
    else:
        outputs, positions = encoder.outputs, [*encoder.positions(shape[1:])]
    if outputs % bottleneck.outputs:
        raise ValueError(
            f"The encoder gives {outputs} channels, and {type(bottleneck).__name__} reads {bottleneck.outputs} for "
            "each latent channel; give it a multiple."
        )
    return (outputs // bottleneck.outputs, *positions)
