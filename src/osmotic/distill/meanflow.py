"""MeanFlow: the average velocity of a jump, learned by its own differential equation, without pairs or a solver."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser, Rescheduled
from osmotic.distill.base import FewStep, Method, Setting, single
from osmotic.distill.draws import noised, shares
from osmotic.distill.expected import expected, told_alike
from osmotic.distill.slope import along
from osmotic.distill.twin import Twin
from osmotic.estimate import Estimate, like
from osmotic.schedules import Rectified, Scaled
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Noise, Stream

POWER, SOFT, ALONE = 0.75, 0.01, 1.0
"""p and c of the loss, with a teacher and without: then the velocity's own noise is about 1."""
DIAGONAL = 0.4
"""Share of samples with s = t, which learn the velocity itself: the identity is only as good as what it starts from."""
WHOLE = 0.3
"""Share of the others that aim at the data, s = 0: one step is what is asked for most."""
FLAT = 0.5
"""Share of times that are uniform on the straight path: the log-normal law hardly ever sees the noise that one step
starts from."""
MEAN, DEVIATION = 0.1, 1.6
"""Of log(sigma / alpha / sigma_data) for the other times: the published -0.6 and 1.6 for data of deviation 0.5."""

END = 1 - 1e-6
"""Of the path, the noisiest time that is trained. At t = 1, the limit of the times below it, log-SNR may be infinite,
through which other paths are read: it has no derivative, and its inverse may round to a time above 1."""


def line(sigma_data: float) -> Scaled:
    """``alpha = 1 - t, sigma = sd t``: the rectified path in units of the data, on which a velocity is ``sd eps - x0``.

    Half of the way is where noise and data are equally strong.

    Args:
        sigma_data: sd, the data's standard deviation, positive.
    """
    return Scaled(Rectified(), sigma_data)


def straight(denoiser: Denoiser, path: Scaled) -> Rescheduled:
    """A denoiser of any path, read on the straight one."""
    return Rescheduled(denoiser, path)


def latest(denoiser: Denoiser, path: Scaled) -> float:
    """The noisiest time on the straight path at which a denoiser is trained."""
    return straight(denoiser, path).start * END


def velocity(estimate: Estimate, path: Scaled) -> Tensor:
    """``sd eps - x0``, ``(B, *S)``: the average velocity from t to s of an estimate aimed at s."""
    return estimate.at(-1.0, path.scale)


def meanflow(
    student: Denoiser,
    frozen: Denoiser,
    path: Scaled,
    x0: Tensor,
    t: Tensor,
    s: Tensor,
    eps: Tensor,
    cond: object = None,
    teacher: Denoiser | None = None,
) -> Tensor:
    """``w |u - sg(v - (t - s) du/dt)|^2 / sd^2``, u the average velocity from t to s at ``x = (1 - t) x0 + t sd eps``.

    ``du/dt = v . grad_x u + d_t u`` along the trajectory is one forward-mode derivative of the whole denoiser. Geng et
    al. 2025 (arXiv 2505.13447). With a teacher v is its velocity. Without, it is what the batch expects of
    ``sd eps - x0`` in the target (:func:`~osmotic.distill.expected.expected`), and v~, the student's own velocity
    (s = t), in the derivative (Geng et al. 2025, arXiv 2512.02012), both of the same expectation and less variance.

    ``w = (|u - v~ + (t - s) du/dt|^2 / sd^2 + c)^-p`` without gradients, v~ a teacher's velocity where there is one:
    that is the paper's weight, and their p = 0.75 for small pictures. Without weights the few samples between modes,
    whose derivatives are far larger than all others, leave modes too narrow in many dimensions. Without a teacher the
    paper's weight looks at the random velocity, which gives its geometric median and loses the mass of small modes; v~
    is a function of x alone, so w does not move the optimum.

    Args:
        student: a flow map on any path, called for gradients.
        frozen: the same network, called without; it is differentiated in x and t, so its clock must turn slowly.
        path: on which t and s are meant.
        x0: clean samples, ``(B, *S)``.
        t: times ``(B,)`` in (0, 1), at most the start of ``straight(student, path)``.
        s: times aimed at, ``(B,)`` in [0, t].
        eps: unit noise, ``(B, *S)``.
        cond: handed to all.
        teacher: a denoiser on any path.

    Returns:
        Losses ``(B,)``, the mean over a sample's dimensions.
    """
    (gap,) = like(x0, t - s)
    x = noised(path, x0, t, eps)
    with torch.no_grad():
        if teacher is None:
            known = expected(path, x0, x, t, eps, told_alike(cond, x))
        else:
            known = straight(teacher, path)(x, t, cond)
        v = velocity(known, path)
    twin = Twin(x.device)
    u = velocity(straight(student, path)(x, t, cond, s), path)
    with torch.no_grad():
        tangent = v
        if teacher is None:
            with twin.again():
                tangent = velocity(straight(frozen, path)(x, t, cond), path)
        with twin.again():
            change = gap * rate(frozen, path, x, t, s, tangent, cond)
        weight = (error(u, tangent - change, path) + (ALONE if teacher is None else SOFT)) ** -POWER
    return error(u, v - change, path) * weight


def error(u: Tensor, goal: Tensor, path: Scaled) -> Tensor:
    """``|u - goal|^2 / sd^2``, ``(B,)``, the mean over a sample's dimensions."""
    return (u - goal).square().flatten(1).mean(1) / path.scale**2


def rate(
    denoiser: Denoiser, path: Scaled, x: Tensor, t: Tensor, s: Tensor, tangent: Tensor, cond: object = None
) -> Tensor:
    """``tangent . grad_x u + d_t u``, ``(B, *S)``: how the average velocity to a fixed s changes along a direction."""
    flow = straight(denoiser, path)

    def average(x: Tensor, t: Tensor) -> Tensor:
        return velocity(flow(x, t, cond, s), path)

    return along(average, x, t, tangent, torch.ones_like(t))[1]


class MeanFlow(FewStep):
    """:func:`meanflow` over times of its own law; with the teacher's velocity if there is a teacher."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.path = line(setting.start.sigma_data)
        self.latest = latest(self.denoiser, self.path)

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        t, s = times(batch.noise, self.latest)
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        cond = self.shown(batch)
        return meanflow(self.student(modules), self.denoiser, self.path, batch.x0, t, s, eps, cond, self.teacher)


def times(noise: Noise, last: float) -> tuple[Tensor, Tensor]:
    """Times t in (0, last] and aims s in [0, t] on the straight path, two ``(B,)``."""
    which, where, kind, aim = (shares(noise, 100 + k) for k in range(4))
    normal = torch.sigmoid(MEAN + DEVIATION * torch.special.ndtri(where))
    t = torch.where(which < FLAT, where, normal).clamp(1e-6, 1.0) * last
    s = torch.where(
        kind < DIAGONAL, t, torch.where(kind < DIAGONAL + (1 - DIAGONAL) * WHOLE, torch.zeros_like(t), aim * t)
    )
    return t, s


STUDENT = Student(method="meanflow", form="flow-map", smooth=True, sampler="jump", steps=1)

METHOD = Method(
    name="meanflow",
    what="average velocities by their own differential equation; with or without a teacher",
    stages=single(STUDENT, MeanFlow),
    teacher=False,
    steps=1400,
    rate=0.5,
    compiles=False,
    reads=frozenset({"guidance"}),
)
