"""unCLIP on captioned pictures: ``python -m osmotic.recipes.unclip train DATA FOLDER``, then ``sample FOLDER``.

Three runs, one after the other: a dual encoder of pictures and captions, trained contrastively (or a ready CLIP from a
local folder), a prior that draws a picture's embedding from its caption's, and a decoder that draws a picture from its
embedding. Ramesh et al. 2022 (arXiv 2204.06125).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from osmotic.data.dataset import Dataset, open_data
from osmotic.data.given import read_given
from osmotic.data.source import Options as Reading
from osmotic.recipes.embedded import CONTENTS, DECODER, ENCODER, PRIOR, SHARDS, decoders, priors
from osmotic.recipes.embeddings import embed, reader
from osmotic.recipes.train import augmentations, train
from osmotic.recipes.unclipped import GUIDANCE, Unclip, load_unclip
from osmotic.report import pictures
from osmotic.training.errors import Diverged, OutOfMemory, RunError
from osmotic.training.model import stored
from osmotic.training.recipe import Process, Recipe
from osmotic.training.run import RECIPE, Run, write_json

CONTRASTIVE, FOUND = Recipe(process=Process(objective="contrastive")), Recipe()


@dataclass(frozen=True)
class Recipes:
    """How each of the three is trained, and how the data are read; what they leave out is found from the data."""

    encoder: Recipe = CONTRASTIVE
    prior: Recipe = FOUND
    decoder: Recipe = FOUND
    reading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stages(self) -> tuple[Recipe, Recipe, Recipe]:
        """Each with how its data are read, so that they are found again."""
        encoder, prior, decoder = (
            recipe.model_copy(update={"reading": {**recipe.reading, **self.reading}})
            for recipe in (self.encoder, self.prior, self.decoder)
        )
        return encoder, prior, decoder


def unclip(
    data: Any,
    folder: str | Path,
    recipes: Recipes | None = None,
    clip: str | None = None,
    tell: Callable[[str], None] | None = None,
    device: torch.device | str | None = None,
) -> Unclip:
    """Train all three and return them; called again, it goes on where it was interrupted.

    Args:
        data: with captions: a path, the name of an embedded set, a mapping with ``"x"`` and ``"text"``, or an opened
            data set.
        folder: everything is written there.
        recipes: how to train.
        clip: a ready CLIP's folder (or name on the hub), in place of an encoder of one's own.
        tell: called with each line for a person.
        device: None takes a CUDA device if there is one.

    Raises:
        ValueError: for data without captions, or a folder, a recipe or a CLIP that cannot be used.
    """
    chosen, say, home = recipes or Recipes(), tell or _silent, Path(folder)
    dataset = data if isinstance(data, Dataset) else open_data(data, **asdict(Reading(**chosen.reading)))
    if dataset.spec.captions is None:
        raise ValueError(f"{dataset.spec.source} has no captions; give metadata.jsonl a field text.")
    if augmentations(chosen.decoder):
        raise ValueError("A mirrored or shifted picture is not what its embedding says; decode without augmentations.")
    first, prior, decoder = chosen.stages
    encoder = clip or ENCODER
    if clip is None:
        _stage(dataset, home / ENCODER, first, say, device)
    elif Path(clip).is_dir():
        encoder = str(Path(clip).absolute())
    read = reader(home / ENCODER if clip is None else encoder, dataset.spec, device)
    with tqdm(total=len(dataset), desc="embedding", delay=2, leave=False) as bar:
        found = embed(dataset, read, home / SHARDS, bar.update)
    _stage(priors(dataset, found, read.fingerprint), home / PRIOR, prior, say, device)
    _stage(decoders(dataset, found, read.fingerprint), home / DECODER, decoder, say, device)
    write_json(home / CONTENTS, {"encoder": encoder, "prior": PRIOR, "decoder": DECODER})
    return load_unclip(home, device)


def _stage(
    dataset: Dataset, out: Path, recipe: Recipe, say: Callable[[str], None], device: torch.device | str | None
) -> None:
    """One run, begun or gone on with.

    Raises:
        RunError: where it learned from embeddings of another encoder.
    """
    say(f"{out.name}: {dataset.spec.source}")
    begun, told = (out / RECIPE).is_file(), dataset.spec.embedding
    before = stored(Run.open(out))[1].embedding if begun else None
    if before is not None and told is not None and before.fingerprint != told.fingerprint:
        raise RunError(
            f"{out} learned from another encoder than there is now: give that one back, or move {out} away, and it is "
            "trained anew."
        )
    train(dataset, out, recipe, resume=begun, tell=say, device=device)


def _silent(line: str) -> None:
    pass


def drawn(model: Unclip, wanted: argparse.Namespace) -> tuple[torch.Tensor, list[str]]:
    """The pictures that a command asks for, ``count`` in a row, and a name for each row."""
    how = {"guidance": wanted.guidance, "steps": wanted.steps, "seed": wanted.seed}
    if wanted.command == "sample":
        texts = [text for text in wanted.prompt for _ in range(wanted.count)]
        return model.sample(len(texts), texts, **how), wanted.prompt
    given = torch.from_numpy(read_given(wanted.picture, model.decoder.spec).x)
    if wanted.command == "vary":
        rows = [torch.cat([x[None], model.variations(x, wanted.count, **how)]) for x in given]
    elif wanted.command == "between":
        rows = [model.between(given[0], given[1], wanted.count, **how)]
    else:
        rows = [model.changed(x, wanted.before, wanted.after, wanted.count, **how) for x in given]
    return torch.cat(rows), []


def parser() -> argparse.ArgumentParser:
    """The commands."""
    whole = argparse.ArgumentParser(prog="python -m osmotic.recipes.unclip", description="unCLIP on captioned pictures")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    training = commands.add_parser("train", help="train encoder, prior and decoder; again to go on")
    training.add_argument("data", metavar="DATA", help="pictures with captions, or an embedded set: shapes")
    training.add_argument("folder", metavar="FOLDER", help="everything is written there")
    training.add_argument("--clip", help="a ready CLIP's folder, in place of an encoder of one's own")
    training.add_argument("--size", type=int, help="side to which pictures of mixed sizes are brought")
    for name, what, asks in (
        ("sample", "draw pictures of texts", []),
        ("vary", "draw variations of pictures", ["picture"]),
        ("between", "draw the way from one picture to another", ["picture"]),
        ("change", "draw the way from a picture to the difference of two texts", ["picture", "before", "after"]),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("folder", metavar="FOLDER", help="that `train` made")
        if "picture" in asks:
            command.add_argument("picture", type=Path, nargs=2 if name == "between" else "+", metavar="PICTURE")
        else:
            command.add_argument("--prompt", nargs="+", required=True, metavar="TEXT")
        for word in asks[1:]:
            command.add_argument(f"--{word}", required=True, metavar="TEXT")
        command.add_argument("--count", type=int, default=8, help="pictures in a row (default: 8)")
        command.add_argument("--guidance", type=float, default=GUIDANCE, help=f"1 for none (default: {GUIDANCE:g})")
        command.add_argument("--steps", type=int, help="of the sampler")
        command.add_argument("--seed", type=int, default=0, help="of all noise (default: 0)")
        command.add_argument("--out", type=Path, help="the picture (default: FOLDER/COMMAND.png)")
    return whole


def main(words: Sequence[str] | None = None, tell: Callable[[str], None] = print) -> int:
    """Train, or draw a grid of pictures; the exit code."""
    wanted = parser().parse_args(words)
    try:
        if wanted.command == "train":
            reading = {} if wanted.size is None else {"size": wanted.size}
            unclip(wanted.data, wanted.folder, Recipes(reading=reading), clip=wanted.clip, tell=tell)
            tell(f"done: {wanted.folder}; `python -m osmotic.recipes.unclip sample {wanted.folder} --prompt TEXT`")
            return 0
        model = load_unclip(wanted.folder)
        x, rows = drawn(model, wanted)
        path = wanted.out or Path(wanted.folder) / f"{wanted.command}.png"
        tell(str(pictures.save(pictures.grid(model.decode(x), wanted.count + (wanted.command == "vary"), rows), path)))
    except KeyboardInterrupt as stop:
        print(str(stop) or "Interrupted.", "Here the same command goes on.", file=sys.stderr)
        return int(getattr(stop, "exit_code", 130))
    except (ValueError, OSError, Diverged, OutOfMemory) as error:
        if os.environ.get("OSMOTIC_TRACEBACK"):
            raise
        print(error, file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
