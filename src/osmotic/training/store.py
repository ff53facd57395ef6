"""The whole state of a training run as named tensors, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from osmotic.training import checkpoint
from osmotic.training.counters import Counters
from osmotic.training.distributed import World, whole
from osmotic.training.errors import RunError
from osmotic.training.manifest import Manifest
from osmotic.training.options import Options
from osmotic.training.player import Player, fill
from osmotic.training.run import Run
from osmotic.training.task import Task

FIXED = ("seed", "batch_size", "ema")  # options that a run cannot change on the way
MODEL, OPTIMIZER, STATE = "model", "optimizer", "state"


class Store:
    """Saves and restores (players, task, counters) of a run; every process calls it, the main one writes."""

    def __init__(self, run: Run, task: Task, players: Sequence[Player], world: World, options: Options) -> None:
        self.run, self.task, self.players, self.world, self.options = run, task, players, world, options

    def save(self, step: int, counters: Counters, held_out: float | None) -> None:
        """Write the checkpoint of a step and delete those no longer wanted.

        Raises:
            Diverged: if anything is not finite.
            SaveFailed: if it cannot be written.
        """
        files = {name: self._here(tensors) for name, tensors in self._files(counters).items()}

        def write() -> None:
            checkpoint.save(self.run, step, files, self.options.model_dump(mode="json"), held_out)
            checkpoint.prune(self.run, self.options.keep_last)

        self.world.from_main(write)

    def restore(self, say: Callable[[str], None]) -> tuple[int, Counters] | None:
        """Take everything from the newest whole checkpoint: the step and the counters, None if there is no checkpoint.

        Raises:
            RunError: if it belongs to another model or other options.
        """
        found = self.world.from_main(lambda: checkpoint.newest(self.run, say))
        if found is None:
            return None
        folder, manifest = found
        self._refuse_changes(manifest)
        return manifest.step, self._load(folder)

    def _files(self, counters: Counters) -> dict[str, dict[str, Tensor]]:
        names = [player.name for player in self.players]
        task = {f"task.{name}": tensor for name, tensor in self.task.state().items()}
        averages = {
            checkpoint.average_name(halflife): _merge([p.average_tensors(i) for p in self.players])
            for i, halflife in enumerate(self.options.ema)
        }
        return {
            MODEL: _merge([player.model_tensors() for player in self.players]),
            **averages,
            OPTIMIZER: _merge([player.optimizer_tensors() for player in self.players]),
            STATE: task | counters.tensors(names),
        }

    def _here(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors on the main process; the others only help to put them together, one at a time."""
        gathered = {}
        for name, tensor in tensors.items():
            value = whole(tensor.detach())
            if self.world.main:
                gathered[name] = value.cpu()
        return gathered

    def _load(self, folder: Path) -> Counters:
        def read(name: str) -> dict[str, Tensor]:
            return checkpoint.read_tensors(folder / f"{name}.safetensors")

        moments = read(OPTIMIZER)
        for player in self.players:
            player.expect_optimizer(moments)
        own = self._files(Counters())
        for name, tensors in own.items():
            found = moments if name == OPTIMIZER else read(name)
            fill(tensors, found, folder / f"{name}.safetensors")
        # The state's tensors may be copies, so what was filled is handed back to those it belongs to.
        state = own[STATE]
        self.task.load_state(
            {key.removeprefix("task."): value for key, value in state.items() if key.startswith("task.")}
        )
        return Counters.of(state, [player.name for player in self.players])

    def _refuse_changes(self, manifest: Manifest) -> None:
        stored = manifest.options
        own = self.options.model_dump(mode="json")
        for name in FIXED:
            if stored.get(name) != own[name]:
                flag = name.replace("_", "-")
                raise RunError(
                    f"{self.run.directory} was trained with --{flag} {stored.get(name)}, which cannot become "
                    f"{own[name]} on the way; resume with the former, or start a new run."
                )
        if manifest.step > self.options.steps:
            raise RunError(
                f"{self.run.directory} is at step {manifest.step} already; resume with --steps {manifest.step} or more."
            )


def _merge(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor for part in parts for name, tensor in part.items()}
