"""Pairs of a sample and the noise that a teacher makes it from: made once, kept in shards, trained on as data."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from osmotic.condition import Condition
from osmotic.contents import contents
from osmotic.denoiser import Denoiser
from osmotic.distill.base import Start
from osmotic.noise import generator, normal
from osmotic.samplers import CATALOG, DEFAULT, sample
from osmotic.samplers.base import numeric
from osmotic.schedules import Number, Schedule
from osmotic.times import suggested
from osmotic.training.checkpoint import read_tensors
from osmotic.training.errors import RunError
from osmotic.training.run import write_atomically, write_json

STEPS = 32
"""Of the default solver, one evaluation each: its error of the map, 0.001 to 0.003 root mean square on mixtures of
deviation 0.5, is then a hundredth of what students reach, and falls with the third power."""

SHARD = 1024
"""Pairs a file: what an interruption loses at most."""

KEY = 0x9A125
"""Keeps the noise of pairs apart from that of samples: a student drawn with the seed of its pairs would be asked about
its own training set."""

HEAD = "pairs.json"
TOLD = "told."  # before the ports of what each pair was made under, in a shard

Told = Callable[[int, int], object]  # how far the making is: (pairs made, pairs in all)


@torch.no_grad()
def make(
    teacher: Denoiser,
    shape: tuple[int, ...],
    start: Start,
    count: int,
    seed: int,
    first: int = 0,
    cond: Condition | None = None,
    batch_size: int = 256,
    progress: Told | None = None,
) -> Tensor:
    """Noise-sample pairs along the teacher's probability-flow ODE: ``x_1 = hypot(alpha_1, sigma_1) noise -> x0``.

    The noise of pair i is a function of (seed, i) alone, so a pair is the same whatever the batch, the count or the
    device. The ODE is solved until the pairs are converged: a student would learn the solver's error (Luhman & Luhman
    2021, arXiv 2101.02388).

    Args:
        teacher: any denoiser with a posterior mean, or one that is only asked for what its sampler asks.
        shape: of a sample.
        start: the data's deviation and extent, which choose the grid.
        count: how many pairs.
        seed: of the noise.
        first: the number of the first pair.
        cond: what each pair is told, ``(count,)`` of them, on the CPU; None for none.
        batch_size: how many are solved at once.
        progress: told after every batch.

    Returns:
        ``(count, 2, *shape)`` float32 on the CPU: data, then unit noise.

    Raises:
        ValueError: if there are not as many conditions as pairs.
    """
    if cond is not None and len(cond) != count:
        raise ValueError(f"{count} pairs need {count} conditions; got {len(cond)}.")
    grid = suggested(start.sigma_data, start.positions)(teacher.schedule, STEPS, teacher.start)
    device, sampler = _device(teacher), CATALOG[DEFAULT]()
    training = teacher.training
    teacher.eval()
    parts = [torch.empty(0, 2, *shape)]
    for low in range(0, count, batch_size):
        high = min(low + batch_size, count)
        # Drawn on the CPU: another device would have other numbers.
        keyed = [generator(KEY, seed, index) for index in range(first + low, first + high)]
        noise = normal((high - low, *shape), keyed)
        told = None if cond is None else cond[slice(low, high)].to(device)
        x = begun(teacher, noise.to(device))
        parts.append(torch.stack([sample(sampler, teacher, x, grid, told).cpu(), noise], dim=1))
        if progress is not None:
            progress(high, count)
    teacher.train(training)
    return torch.cat(parts)


def begun(denoiser: Denoiser, noise: Tensor) -> Tensor:
    """Where sampling starts from unit noise ``(B, *S)``, as :func:`osmotic.samplers.prior` has it."""
    alpha, sigma = numeric(denoiser).schedule.scalars(denoiser.start)
    return noise * math.hypot(alpha, sigma)


def chord(schedule: Schedule, x0: Tensor, noise: Tensor, start: Number = 1.0) -> Tensor:
    """The eps of the straight path through a pair: ``alpha_1 x0 + sigma_1 eps = hypot(alpha_1, sigma_1) noise``.

    Where the path ends without signal (alpha_1 = 0) it is the noise itself; elsewhere the line would else miss the
    point that sampling starts from, by alpha_1 x0.

    Args:
        schedule: the path.
        x0: data ``(B, *S)``.
        noise: unit noise ``(B, *S)``.
        start: the time at which sampling starts.
    """
    alpha, sigma = schedule.scalars(start)
    return (noise * math.hypot(alpha, sigma) - x0 * alpha) / sigma


def fingerprint(teacher: Denoiser, *said: object) -> str:
    """A name for what a teacher computes: a hash of its weights, and of what is said besides (a guidance scale).

    Args:
        teacher: any denoiser.
        said: values with a repr of their own.
    """
    found = hashlib.blake2b(repr(said).encode(), digest_size=16)
    for title, data in contents(teacher.state_dict()):
        found.update(title.encode())
        found.update(data)
    return found.hexdigest()


Known = Mapping[str, Tensor]
"""What a teacher is told of each pair, by port of a condition, ``(N, ...)`` each; empty for nothing."""


class Pairs:
    """Pairs as a data set: ``batch(indices) -> ((B, 2, *S), None)``, data before noise.

    Args:
        x: ``(N, 2, *S)``.
        known: what each was made under.
        first: the number of the first one, for its name.
    """

    def __init__(self, x: Tensor, known: Known | None = None, first: int = 0) -> None:
        self.x, self.known, self.first = x, dict(known or {}), first

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, None]:
        """Some pairs."""
        return self.x[torch.from_numpy(np.asarray(indices, dtype=np.int64))], None

    def told(self, indices: np.ndarray) -> dict[str, Tensor]:
        """What some pairs were made under."""
        chosen = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        return {port: values[chosen] for port, values in self.known.items()}

    def name(self, index: int) -> str:
        """How a pair is called in messages."""
        return f"pair {self.first + index}"

    def split(self, share: float) -> tuple[Pairs, Pairs]:
        """The training part and the held-out part: the last pairs, which are as good as any.

        Args:
            share: held out, in [0, 1); of a positive one at least one pair.

        Raises:
            ValueError: if the share lies outside, or nothing would be left to train on.
        """
        held = max(1, round(share * len(self))) if share else 0
        if not (0 <= share < 1 and held < len(self)):
            raise ValueError(f"{share:g} of {len(self)} pairs cannot be held out; hold out less, or make more pairs.")
        cut = len(self) - held
        known = [{port: values[rows] for port, values in self.known.items()} for rows in (slice(cut), slice(cut, None))]
        return Pairs(self.x[:cut], known[0], self.first), Pairs(self.x[cut:], known[1], self.first + cut)


def claim(
    folder: str | Path, name: str, shape: tuple[int, ...], count: int, seed: int, known: Known | None = None
) -> None:
    """Say in a folder whose pairs it holds, or refuse one that holds others.

    Args:
        folder: made if it is not there.
        name: the teacher's :func:`fingerprint`.
        shape: of a sample.
        count: how many pairs.
        seed: of the noise.
        known: what each pair is made under.

    Raises:
        RunError: if the folder holds the pairs of another teacher, seed, count, shape or conditions.
    """
    _claim(Path(folder), _head(name, shape, count, seed, known or {}))


def fill(
    folder: str | Path,
    teacher: Denoiser,
    shape: tuple[int, ...],
    start: Start,
    count: int,
    seed: int,
    known: Known | None = None,
    batch_size: int = 256,
    part: tuple[int, int] = (0, 1),
    progress: Told | None = None,
) -> None:
    """Make the shards that a claimed folder lacks; each is whole or absent, so an interrupted making goes on.

    Args:
        part: (which, of how many): several processes make every so many-th shard each.

    The others are those of :func:`claim` and :func:`make`.

    Raises:
        SaveFailed: if the disk is full or not writable; the finished shards are intact.
    """
    folder, (own_part, parts) = Path(folder), part
    for number, low in enumerate(range(0, count, SHARD)):
        high = min(low + SHARD, count)
        path = _shard(folder, low)
        if number % parts != own_part or path.exists():
            continue
        own = {port: values[low:high].contiguous() for port, values in (known or {}).items()}
        cond = Condition(**own) if own else None
        made = make(teacher, shape, start, high - low, seed, low, cond, batch_size, _shifted(progress, low, count))
        tensors = {"x0": made[:, 0].contiguous(), "noise": made[:, 1].contiguous()}
        write_atomically(path, save(tensors | {TOLD + port: values for port, values in own.items()}))


def read(folder: str | Path) -> Pairs:
    """The pairs of a finished folder.

    Raises:
        RunError: if it holds none, or not all of them.
    """
    folder = Path(folder)
    head = _known(folder)
    if head is None:
        raise RunError(f"{folder} holds no pairs; it has no {HEAD}.")
    shards = []
    for low in range(0, head["count"], SHARD):
        if not _shard(folder, low).exists():
            raise RunError(f"{folder} lacks {_shard(folder, low).name}: its making was interrupted; go on with it.")
        shards.append(read_tensors(_shard(folder, low)))
    x = torch.cat([torch.stack([shard["x0"], shard["noise"]], dim=1) for shard in shards])
    names = [name for name in shards[0] if name.startswith(TOLD)]
    return Pairs(x, {name.removeprefix(TOLD): torch.cat([shard[name] for shard in shards]) for name in names})


def _head(name: str, shape: tuple[int, ...], count: int, seed: int, known: Known) -> dict[str, Any]:
    told = hashlib.blake2b(digest_size=16)
    for port, values in sorted(known.items()):
        told.update(f"{port} {values.dtype} {tuple(values.shape)}".encode() + values.numpy().tobytes())
    said = {"teacher": name, "seed": seed, "count": count, "shape": list(shape)}
    said["conditions"] = told.hexdigest() if known else None
    return said | {"solver": DEFAULT, "steps": STEPS, "shard": SHARD}


def _claim(folder: Path, head: dict[str, Any]) -> None:
    """Write the head into a new folder, or refuse one that holds other pairs."""
    known = _known(folder)
    if known is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder} cannot be made: {error.strerror}; choose another folder.") from None
        write_json(folder / HEAD, head)
        return
    for key, value in head.items():
        if known.get(key) != value:
            raise RunError(
                f"{folder} holds pairs of another {key} ({known.get(key)}, not {value}); delete the folder or choose "
                "another."
            )


def _known(folder: Path) -> dict[str, Any] | None:
    path = folder / HEAD
    if not path.exists():
        return None
    try:
        head = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}; delete the folder.") from None
    if not isinstance(head, dict):
        raise RunError(f"{path} should hold a JSON object; delete the folder.")
    return head


def _shard(folder: Path, low: int) -> Path:
    return folder / f"shard-{low // SHARD:05d}.safetensors"


def _shifted(progress: Told | None, low: int, count: int) -> Told | None:
    return None if progress is None else lambda made, _: progress(low + made, count)


def _device(teacher: Denoiser) -> torch.device:
    for tensor in (*teacher.parameters(), *teacher.buffers()):
        return tensor.device
    return torch.device("cpu")
