"""Preview pictures while training: the same seeds at every step, from step 0 on."""

from __future__ import annotations

import numpy as np
from PIL import Image
from tqdm import tqdm

from osmotic.codecs import Codec
from osmotic.condition import Condition
from osmotic.data.dataset import Dataset, main_size
from osmotic.denoiser import Denoiser
from osmotic.report.samples import draw
from osmotic.training.denoise import PLAYER
from osmotic.training.hooks import Hook, Moment
from osmotic.training.model import Model
from osmotic.training.recipe import Recipe

COUNT, EACH, PLAIN = 1000, 4, 16
SEED = 0


def preview(recipe: Recipe, dataset: Dataset, codec: Codec | None = None) -> Hook:
    """A hook that draws averaged-weight samples to ``samples/step-00001000.png`` and to TensorBoard.

    Args:
        dataset: the data themselves, not their latents.
        codec: of the latents that are diffused.
    """
    spec = dataset.spec
    taught = recipe.adapted is not None and recipe.adapted.word is not None  # a new class is the last one
    classes = () if spec.classes is None else spec.classes[-10:] if taught else spec.classes[:10]
    pictured = spec.kind == "images"
    n = len(classes) * EACH if classes and pictured else PLAIN if pictured or spec.kind == "sequences" else COUNT
    rows = classes if pictured else ()
    cond: list[str] | list[int] | Condition | None = [rows[i // EACH] for i in range(n)] if rows else None
    if spec.classes is not None and not rows:
        cond = [i % len(spec.classes) for i in range(n)]
    if set(spec.parts) - {"class"}:  # what is known of a few samples, for nobody can guess a caption
        shown = main_size(dataset)
        n, rows = min(n, len(shown)), ()
        cond = Condition(**shown.told(np.linspace(0, len(shown) - 1, n).astype(np.int64)))

    def call(moment: Moment) -> None:
        denoiser = moment.modules[PLAYER]
        assert isinstance(denoiser, Denoiser)
        # Every process samples, for a sharded network answers only when all of them ask.
        bar = tqdm(total=n, desc="drawing a preview", delay=2, leave=False, disable=not moment.world.main)
        with moment.averaged(), bar:
            x = Model(denoiser, spec, recipe, moment.step, codec=codec).sample(n, cond, seed=SEED, progress=bar.update)
        if not moment.world.main:
            return
        path = moment.run.samples / f"step-{moment.step:08d}.png"
        try:
            draw(spec.decode(x.cpu().numpy()), spec, path, rows=rows)
        except OSError as error:  # a full disk ends the pictures, not the training
            moment.log.say(f"The preview {path} cannot be written ({error.strerror}); training goes on.")
            return
        with Image.open(path) as picture:
            moment.log.picture(moment.step, "samples", np.asarray(picture.convert("RGB")))

    return Hook(recipe.options.preview_every, call)
