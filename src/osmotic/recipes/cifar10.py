"""CIFAR-10 in the manner of EDM: ``python -m osmotic.recipes.cifar10 DATA RUN``, or under torchrun for many GPUs.

DATA is the folder of the binary version (``data_batch_1.bin`` ...), or an .npz with ``x`` and ``y``. The process,
rate, batch, images and averages follow Karras et al. 2022 (arXiv 2206.00364); the network is our U-Net of about its
size (57 M parameters), labels are dropped for guidance, and of its augmentations only mirroring is used.
"""

import sys

import osmotic
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

BATCH = 512
IMAGES = 200_000_000
HALF_LIFE = 500_000

RECIPE = Recipe(
    options=Options(
        steps=IMAGES // BATCH,
        batch_size=BATCH,
        learning_rate=1e-3,
        warmup=10_000_000 // BATCH,
        floor=1.0,
        clip=0.0,
        ema_ramp=0.05,
        ema=(HALF_LIFE / BATCH,),
        checkpoint_every=5000,
        evaluate_every=5000,
        preview_every=5000,
    ),
    architecture=Architecture(network="unet", widths=(256, 256, 256), blocks=4, attention=(1,), dropout=0.13),
    process=Process(schedule="ve", target="karras", law="log-normal", sigma_data=0.5),
    holdout=0.02,
    flip=True,
)


def main(data: str, out: str) -> None:
    """Train; a run that was stopped is gone on with by ``osmotic train DATA --out RUN --resume``."""
    osmotic.train(data, out, RECIPE, tell=print)


if __name__ == "__main__":
    main(*sys.argv[1:])
