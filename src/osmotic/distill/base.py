"""What a few-step method is: stages, each a student and the task that trains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.schedules import Schedule
from osmotic.training import denoise
from osmotic.training.denoise import PLAYER, Called
from osmotic.training.recipe import Distillation, Student
from osmotic.training.task import Batch, Task


@dataclass(frozen=True)
class Start:
    """What is known before a stage begins.

    Args:
        schedule: the path of teacher and student.
        sigma_data: the data's standard deviation.
        positions: over how many places (pixels, samples in time) a datum spreads.
        told: whether anything is known of the data that a model can be told, and so guided to.
        numbers: what the user said about the method.
    """

    schedule: Schedule
    sigma_data: float
    positions: int
    told: bool
    numbers: Distillation


@dataclass(frozen=True)
class Setting:
    """What a stage's task is made from.

    Args:
        student: on the teacher's path and with its target, starting from its weights where there is a teacher.
        teacher: frozen, in evaluation mode, already under the guidance that is distilled; None without one.
        start: as above.
        steps: optimizer steps of this stage.
        drop: how often conditions are hidden.
    """

    student: NeuralDenoiser
    teacher: Denoiser | None
    start: Start
    steps: int
    drop: denoise.Drop

    @property
    def taught(self) -> Denoiser:
        """The teacher, which this method needs."""
        assert self.teacher is not None  # the recipe refuses earlier, in words
        return self.teacher


@dataclass(frozen=True)
class Stage:
    """One training run of a method; its teacher is the model of the stage before, at first the user's.

    Args:
        name: of its folder within the run; the last stage has none, it is the run itself.
        student: what is trained, from what is known at the start.
        task: how.
        share: of the method's optimizer steps, beside the other stages' shares.
        hides: whether conditions are dropped in training, so that the student knows "nothing" and can be guided.
        pairs: whether it trains on noise-sample pairs that its teacher makes, ``(B, 2, *S)``: data, then noise.
    """

    name: str
    student: Callable[[Start], Student]
    task: Callable[[Setting], Task]
    share: float = 1.0
    pairs: bool = False
    hides: bool = True


@dataclass(frozen=True)
class Method:
    """A few-step method; to add one, write it in a file of its own and enter it in ``METHODS``.

    Args:
        name: on the command line.
        what: a line for ``--help``.
        stages: from what the user said.
        teacher: whether it needs one; others also train from scratch with ``osmotic train --objective NAME``.
        steps: optimizer steps in all, for data like the digits.
        rate: the learning rate as a multiple of the one that a model trained from scratch would have.
        from_noise: whether its students read a clean sample from the network's output at pure noise, which some
            targets do not say.
        compiles: whether its losses agree with a compiled network: exact derivatives do not.
        dropout: whether the student keeps its teacher's dropout; jumps that are learned exactly do without.
        reads: the fields of :class:`~osmotic.training.recipe.Distillation` that mean something to it.
    """

    name: str
    what: str
    stages: Callable[[Start], tuple[Stage, ...]]
    teacher: bool
    steps: int
    rate: float = 0.25
    from_noise: bool = True
    dropout: bool = True
    compiles: bool = True
    reads: frozenset[str] = field(default_factory=frozenset)


def single(student: Student, task: Callable[[Setting], Task]) -> Callable[[Start], tuple[Stage, ...]]:
    """The stages of a method that has one, whose student depends on nothing."""

    def stages(start: Start) -> tuple[Stage, ...]:
        return (Stage("", lambda start: student, task),)

    return stages


class FewStep(Task):
    """The common ground of the methods' tasks: one student, perhaps a teacher that is looked at and never changed.

    Args:
        setting: student and teacher.
    """

    def __init__(self, setting: Setting) -> None:
        self.denoiser, self.teacher, self.drop = setting.student, setting.teacher, setting.drop
        if self.teacher is not None:
            self.teacher.requires_grad_(False).eval()
        self.players: Mapping[str, nn.Module] = {PLAYER: self.denoiser}

    def student(self, modules: Mapping[str, nn.Module]) -> Denoiser:
        """The student as it must be called for gradients."""
        return Called(self.denoiser, modules[PLAYER])

    def shown(self, batch: Batch) -> Condition | None:
        """The conditions that student and teacher are both told, some perhaps hidden."""
        return denoise.shown(batch, self.drop)

    def core(self, player: str) -> nn.Module:
        return denoise.core(self.players[player])
