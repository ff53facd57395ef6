"""The training loop: one for every objective."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from osmotic.data.augment import Augmentation
from osmotic.noise import generator
from osmotic.objectives.couplings import Coupling
from osmotic.training.checkpoint import average_name, last_good
from osmotic.training.counters import Counters
from osmotic.training.distributed import World, joined
from osmotic.training.errors import Diverged, Interrupted, OutOfMemory, RunError
from osmotic.training.feed import Feed, Samples
from osmotic.training.hooks import Hook, Moment, paused
from osmotic.training.log import Log
from osmotic.training.optim import learning_rate
from osmotic.training.options import Options
from osmotic.training.player import Player, turn
from osmotic.training.prefetch import Prefetch
from osmotic.training.run import Run
from osmotic.training.signals import SIGNALS, Signals
from osmotic.training.store import Store
from osmotic.training.task import Batch, Domain, Stream, Task
from osmotic.training.validate import HeldOut, keyed

NAMES = 8
"""Samples of a skipped batch that are named."""

RARE = 20
"""The run also stops when more than one step in this many was skipped, beyond the number allowed in a row."""


def fit(
    task: Task,
    dataset: Samples,
    run: Run,
    options: Options,
    held_out: Samples | None = None,
    hooks: Sequence[Hook] = (),
    augmentations: Sequence[Augmentation] = (),
    device: torch.device | str | None = None,
    coupling: Coupling | None = None,
) -> Run:
    """Train until ``options.steps``, going on from the run's newest whole checkpoint if it has one.

    Every batch, time and noise is a function of ``options.seed`` and the step, whatever the number of processes, passes
    and workers. A run that is killed and started again gives the same bits as one that was not (on the CPU).

    Args:
        task: the players, perhaps freshly initialised, and their loss.
        dataset: training samples.
        run: where everything is written.
        options: how to train.
        held_out: samples to measure the loss on; None measures none.
        hooks: what else is done, on every process.
        augmentations: applied in order to training samples.
        device: None takes a CUDA device if there is one.
        coupling: which noise each sample is trained with; None for its own.

    Raises:
        RunError: if the checkpoint, the options or the data cannot be used.
        SaveFailed: if the disk is full.
        Diverged: after too many non-finite batches.
        Interrupted: after SIGINT or SIGTERM, when everything has been saved.
        OutOfMemory: if a step does not fit.
    """
    for samples, which in ((dataset, "training"), (held_out, "held-out")):
        if samples is not None and len(samples) == 0:
            raise RunError(f"There are no {which} samples; give more data or another split.")
    with joined(device) as world, _only_writer(run, world):
        loop = Loop(task, dataset, run, options, world, held_out, hooks, augmentations, coupling)
        try:
            loop.go()
        finally:
            for player in loop.players:
                player.release()
    return run


@contextmanager
def _only_writer(run: Run, world: World) -> Iterator[None]:
    """The main process holds the run's lock; if it cannot, no process goes on."""
    lock = run.locked()
    world.from_main(lock.__enter__)
    try:
        yield
    finally:
        if world.main:
            lock.__exit__(None, None, None)


class Loop:
    """One training run in this process; see :func:`fit`."""

    def __init__(
        self,
        task: Task,
        dataset: Samples,
        run: Run,
        options: Options,
        world: World,
        held_out: Samples | None,
        hooks: Sequence[Hook],
        augmentations: Sequence[Augmentation],
        coupling: Coupling | None = None,
    ) -> None:
        self.task, self.run, self.options, self.world = task, run, options, world
        self.hooks = hooks
        self.feed = Feed(dataset, augmentations, options, world, coupling)
        self.players = [
            Player(name, module, task.core(name), world, options, task.tuning(name))
            for name, module in task.players.items()
        ]
        self.names = [player.name for player in self.players]
        self.store = Store(run, task, self.players, world, options)
        self.held_out = None if held_out is None else HeldOut(held_out, options.seed, world.device, options.batch_size)
        self.step, self.counters = 0, Counters.start(self.names)
        self.measured: float | None = None  # the held-out loss at exactly this step
        self.saved: int | None = None
        self.stop_asked = 0  # the signal that any process has caught

    def go(self) -> None:
        """From where the run stands to the end."""
        restored = self.store.restore(lambda text: print(text, file=sys.stderr))
        if restored is not None:
            self.step, self.counters = restored
            self.saved = self.step
        resumed = None if restored is None else self.step
        stop = self.options.steps
        log = Log(self.run, self.world.main, resumed, stop, self.options.batch_size)
        with (
            log as self.log,
            Signals(self.world.main) as self.signals,
            Prefetch(self.feed.batches, stop, self.options.workers) as batches,
        ):
            if resumed is not None:
                self.log.say(f"Going on from step {self.step} of {stop}.")
            else:
                self._between()
            while self.step < stop:
                with _memory_in_words(self.options):
                    self._train(batches(self.step))
                self.step += 1
                self._between()
                if self.stop_asked and self.step < stop:
                    self._save()
                    raise Interrupted(self.stop_asked, self.step, self.run.directory)

    # One step.

    def _train(self, batches: list[Batch]) -> None:
        """One optimizer step of every player whose turn it is, or none if anything is not finite."""
        losses, norms = {}, {}
        for player in self.players:
            if not self.task.active(player.name, self.step):
                continue
            loss, norm, told = self._gradient(player, batches)
            if not np.isfinite(norm) or not bool(torch.isfinite(loss).all()):
                player.clear()
                self._skip(player, loss)
                return
            if told is not None:
                self.task.learn(player.name, self.feed.noise(self.step), told)
            player.step(self.step, norm)
            player.clear()
            self.task.update(player.name, self.feed.noise(self.step), loss)
            losses[player.name], norms[player.name] = float(loss.mean()), norm
        self.counters.add(losses, norms)

    def _gradient(self, player: Player, batches: list[Batch]) -> tuple[Tensor, float, Tensor | None]:
        """Leave a player's gradient in its weights: (losses of all slots (total,), the gradient's norm, what else the
        task is told of the step).
        """
        total = self.options.batch_size
        # One vector carries everything the processes must agree on, so a step has one exchange and one host read.
        told = torch.zeros(total + len(SIGNALS), dtype=torch.float64, device=self.world.device)
        more: Tensor | None = None
        with turn(player, self.players) as modules:
            for batch in batches:
                start, count = batch.noise.start, batch.noise.count
                player.synchronise(last=batch is batches[-1])
                with self._dropout(start):
                    loss, seen = self.task.passed(player.name, batch, modules)
                    # Wrappers average over processes; the loss is the mean over all slots, wherever they are.
                    torch.autograd.backward(loss.sum() * (self.world.size / total))
                told[start : start + count] = loss.detach()
                if seen is not None:
                    more = seen.double() if more is None else more + seen.double()
        told[total:] = torch.tensor([float(self.signals.caught == number) for number in SIGNALS])
        ends = [total, len(SIGNALS), 0 if more is None else more.numel(), 1]
        summed = self.world.sum(told if more is None else torch.cat([told, more.flatten()]))
        whole = torch.cat([summed, player.norm().detach().double().reshape(1)]).cpu()
        losses, signals, rest, norm = torch.split(whole, ends)
        for number, processes in zip(SIGNALS, signals.tolist(), strict=True):
            self.stop_asked = number if processes else self.stop_asked
        return losses, float(norm), None if more is None else rest.view(more.shape)

    @contextmanager
    def _dropout(self, start: int) -> Iterator[None]:
        """torch's global random state is a function of (seed, step, first slot) inside, and untouched outside."""
        device = self.world.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            key = generator(Domain.TRAINING, self.options.seed, Stream.DROPOUT, self.step, start).initial_seed()
            torch.default_generator.manual_seed(key)
            if device.type == "cuda":
                torch.cuda.default_generators[device.index].manual_seed(key)
            yield

    def _skip(self, player: Player, losses: Tensor) -> None:
        """Count and name a non-finite batch, and stop if there were too many."""
        self.counters.skip()
        bad = (~torch.isfinite(losses)).nonzero().flatten().numpy()
        names = self.feed.names(self.step, bad[:NAMES])
        what = "loss" if len(bad) else "gradient"
        record = {"skipped": {"player": player.name, "what": what, "count": len(bad), "samples": names}}
        self.log.record(self.step + 1, record)
        more = f" and {len(bad) - NAMES} more" if len(bad) > NAMES else ""
        self.log.say(
            f"step {self.step + 1} skipped, its {what} is not finite: {', '.join(names) or 'no single sample'}{more}"
        )
        allowed = self.options.max_skips
        if self.counters.row > allowed or self.counters.skipped > allowed + self.step // RARE:
            self.log.sync()
            raise Diverged(
                f"Stopped at step {self.step + 1}: {self.counters.row} steps in a row were not finite and "
                f"{self.counters.skipped} in all; {last_good(self.run)}"
            )

    # Between two steps.

    def _between(self) -> None:
        """Everything that is due after ``self.step`` steps, in an order that a resumed run repeats."""
        step, options = self.step, self.options
        last = step == options.steps
        self.measured = None
        if step and (step % options.log_every == 0 or last):
            self._record()
        self.log.progress(step)
        moment = Moment(step, self.run, self.world, self.log, {p.name: p.module for p in self.players}, self.players)
        with self.log.aside():
            if self.held_out is not None and (step % options.evaluate_every == 0 or last):
                self._measure(moment)
            for hook in self.hooks:
                if hook.due(step, options.steps):
                    with paused(self.players, self.world.device):
                        hook.call(moment)
            if step and (step % options.checkpoint_every == 0 or last):
                self._save()

    def _record(self) -> None:
        """One line of the log: means over the good steps since the last one."""
        losses, norms = self.counters.means()
        rate = learning_rate(self.options, self.step - 1)
        values = {**keyed("loss", losses), **keyed("gradient_norm", norms), "learning_rate": rate}
        values |= self.task.numbers()
        self.log.record(self.step, {**values, "skipped_in_all": self.counters.skipped})
        self.log.timing(self.step)
        self.log.text = ", ".join(f"{name} {value:.4g}" for name, value in keyed("loss", losses).items())
        self.counters.clear()

    def _measure(self, moment: Moment) -> None:
        assert self.held_out is not None
        with paused(self.players, self.world.device):
            found = self.held_out.measure(self.task, moment)
        self.log.record(self.step, {"held_out": found})
        weights = average_name(self.options.ema[0]) if self.options.ema else "raw"
        self.measured = next(iter(found[weights].values()))

    def _save(self) -> None:
        if self.saved == self.step:
            return
        self.log.sync()
        held_out = self.measured if self.measured is not None and np.isfinite(self.measured) else None
        self.store.save(self.step, self.counters, held_out)
        self.saved = self.step


@contextmanager
def _memory_in_words(options: Options) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise OutOfMemory(
            f"A training step does not fit in memory; pass --accumulate {options.accumulate * 2} or more, or a smaller "
            "--batch-size or model."
        ) from error
