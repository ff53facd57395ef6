"""A student starts as its teacher, on every kind of network, with other outputs, inputs and clocks."""

import pytest
import torch

from osmotic.clocks import SMOOTH, Angle
from osmotic.denoiser import NeuralDenoiser
from osmotic.distill.begin import begin
from osmotic.estimate import Karras, V
from osmotic.flow_map import Consistency, FlowMap
from osmotic.nn import MLP, DiT, Embedding, UNet
from osmotic.schedules import VE, VP

MAKERS = {
    "mlp": lambda told, out: MLP((2, 4, 4), (16, 16), embedding=told, out_channels=out),
    "unet": lambda told, out: UNet(2, (8, 16), blocks=1, embedding=told, out_channels=out),
    "dit": lambda told, out: DiT(2, (2, 2), 16, 2, 8, embedding=told, out_channels=out),
}
X = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
TIMES = VE().time(-2 * torch.log(torch.tensor([0.05, 0.4, 2.0, 30.0], dtype=torch.float64)))


def stirred(denoiser):
    draws = torch.Generator().manual_seed(1)
    for p in denoiser.parameters():
        p.data.normal_(std=0.2, generator=draws)
    return denoiser.eval()


def width(name):
    return 32 if name == "unet" else 16


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("learned", [False, True])
def test_a_student_is_its_teacher_at_first(name, learned):
    told = Embedding(width(name), classes=3)
    teacher = stirred(
        NeuralDenoiser(
            MAKERS[name](told, 4 if learned else 2), VE(), Karras(0.5), sigma_data=0.5, learned_variance=learned
        )
    )
    network = MAKERS[name](Embedding(width(name), classes=3, aims=True), 2)
    student = FlowMap(network, VE(), Karras(0.5), sigma_data=0.5).eval()
    begin(student, teacher)
    for s in (None, TIMES / 2, torch.zeros(4, dtype=torch.float64)):
        assert torch.allclose(student(X, TIMES, None, s).x0, teacher(X, TIMES).x0, atol=1e-5)


def test_a_slower_clock_is_fitted_to_the_teachers():
    """What the networks are told at the same levels agrees afterwards, and would not without the fit."""
    torch.manual_seed(0)
    teacher = NeuralDenoiser(MLP((2,), (64, 64)), VE(), Karras(0.5), sigma_data=0.5)
    # Training leaves an embedding that varies slowly with the level; this one does by construction.
    weight = teacher.network.embedding.time.layers[0].weight.data
    weight[:, :36] = weight[:, 64:100] = 0
    student = Consistency(MLP((2,), (64, 64)), VE(), Karras(0.5), Angle(SMOOTH), sigma_data=0.5)
    begin(student, teacher)
    mine, theirs = student.network.embedding.time, teacher.network.embedding.time

    def told(embedding, denoiser):
        return embedding(denoiser.clock(denoiser.schedule, TIMES).float())

    goal = told(theirs, teacher)
    assert (told(mine, student) - goal).norm() < 0.15 * goal.norm()
    assert (told(theirs, student) - goal).norm() > 0.4 * goal.norm(), "the test would pass without the fit"


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        (Embedding(16, classes=3), Embedding(16)),
        (Embedding(16, classes=3), Embedding(16, classes=4)),
        (Embedding(16, attributes=[None]), Embedding(16, classes=2)),
    ],
)
def test_other_conditions_are_refused_in_a_sentence(teacher, student):
    a, b = (NeuralDenoiser(MLP((2,), (16,), embedding=e), VP(), V()) for e in (teacher, student))
    with pytest.raises(ValueError, match="the teacher was trained on"):
        begin(b, a)
