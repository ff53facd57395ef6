"""Losses of autoencoders: against closed forms, torch's own, and ratios computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from osmotic.nn import Autoencoder, Codebook, Gaussian, PatchDiscriminator
from osmotic.objectives import (
    Adversarial,
    absolute,
    adaptive_weight,
    commitment,
    hinge_discriminator,
    hinge_generator,
    kl_normal,
    perceptual,
    pseudo_huber,
)

SHAPES = [(5,), (3, 7), (3, 4, 5), (2, 3, 2, 3)]
every = pytest.mark.parametrize("shape", SHAPES, ids=str)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every
def test_the_divergence_is_torchs(shape: tuple[int, ...]) -> None:
    mean, log_variance = draw(4, *shape), draw(4, *shape, seed=1)
    there = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(()).double(), 1.0))
    found = kl_normal(mean, log_variance)
    assert found.shape == (4,)
    torch.testing.assert_close(found, there.flatten(1).sum(1))


def test_the_divergence_is_the_mean_log_ratio() -> None:
    """Monte Carlo, independent of any formula for the divergence: within five standard errors."""
    mean, log_variance = draw(1, 3), draw(1, 3, seed=1)
    q, n = Normal(mean, (log_variance / 2).exp()), 100_000
    z = mean + (log_variance / 2).exp() * draw(n, 3, seed=2)
    ratio = (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1)
    assert (ratio.mean() - kl_normal(mean, log_variance)[0]).abs() < 5 * ratio.std() / n**0.5


def test_the_divergence_keeps_its_digits_near_the_prior() -> None:
    """exp(l) - 1 - l = l^2 / 2 + l^3 / 6: at l = 1e-3 float32's exp alone would be off by a tenth."""
    found = kl_normal(torch.zeros(1, 1), torch.full((1, 1), 1e-3))
    assert float(found) == pytest.approx((1e-6 / 2 + 1e-9 / 6) / 2, rel=1e-3)
    assert kl_normal(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0.0, 0.0]


@every
def test_distances_by_elements_are_torchs(shape: tuple[int, ...]) -> None:
    made, x = draw(4, *shape), draw(4, *shape, seed=1)
    torch.testing.assert_close(absolute(made, x), torch.stack([F.l1_loss(a, b) for a, b in zip(made, x, strict=True)]))
    c = 0.3
    huber = ((made - x).square() + c**2).sqrt() - c
    torch.testing.assert_close(pseudo_huber(made, x, c), huber.flatten(1).mean(1))


def test_the_pseudo_huber_loss_lies_between_its_two_limits() -> None:
    made, x = draw(4, 9), draw(4, 9, seed=1)
    torch.testing.assert_close(pseudo_huber(made, x, 1e-9), absolute(made, x), rtol=1e-7, atol=0)
    square = (made - x).square().mean(1) / 2
    torch.testing.assert_close(1e5 * pseudo_huber(made, x, 1e5), square, rtol=1e-8, atol=0)
    assert (pseudo_huber(made, x, 0.1) < absolute(made, x)).all()
    with pytest.raises(ValueError, match="positive c"):
        pseudo_huber(made, x, 0.0)


class Layers(nn.Module):
    """Features of two layers, as a list."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 7, 3, stride=2)]).double()

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for layer in self.layers:
            x = F.silu(layer(x))
            found.append(x)
        return found


def test_the_perceptual_distance_is_zero_at_equality_and_its_gradient_reaches_the_picture() -> None:
    features, x = Layers().requires_grad_(False), draw(4, 3, 8, 9)
    assert perceptual(features, x, x).tolist() == [0.0] * 4
    made, target = (x + 0.1 * draw(4, 3, 8, 9, seed=1)).requires_grad_(), x.clone().requires_grad_()
    loss = perceptual(features, made, target)
    assert loss.shape == (4,)
    assert (loss > 0).all()
    loss.sum().backward()
    assert (made.grad.flatten(1).norm(dim=1) > 0).all()
    assert target.grad is None
    with torch.no_grad():
        nearer = perceptual(features, made - 1e-3 * made.grad / made.grad.norm(), x)
    assert nearer.sum() < loss.sum()


def test_the_perceptual_distance_by_cosines() -> None:
    """|u - v|^2 = 2 - 2 cos: an independent form; and it does not see the size of features."""
    features, made, x = Layers(), draw(2, 3, 8, 9), draw(2, 3, 8, 9, seed=1)
    with torch.no_grad():
        pairs = list(zip(features(made), features(x), strict=True))
        # Positions at which all features are 0 have no cosine; here there are none.
        assert all((f.square().sum(1) > 1e-6).all() for pair in pairs for f in pair)
        wanted = sum((2 - 2 * F.cosine_similarity(a, b)).flatten(1).mean(1) for a, b in pairs)
        torch.testing.assert_close(perceptual(features, made, x), wanted, rtol=1e-4, atol=0)
        scaled = perceptual(lambda y: [100 * f for f in features(y)], made, x)
        torch.testing.assert_close(scaled, perceptual(features, made, x), rtol=1e-4, atol=0)


@pytest.mark.parametrize("features", [lambda x: x, lambda x: [], lambda x: [x.sum()]])
def test_what_is_no_list_of_features_is_refused(features: object) -> None:
    with pytest.raises(ValueError, match="Perceptual features are"):
        perceptual(features, draw(2, 3, 4, 4), draw(2, 3, 4, 4))


@every
def test_commitment_pulls_the_encoder_alone(shape: tuple[int, ...]) -> None:
    h, nearest = draw(4, *shape).requires_grad_(), draw(4, *shape, seed=1).requires_grad_()
    loss = commitment(h, nearest)
    assert loss.shape == (4,)
    loss.sum().backward()
    assert nearest.grad is None
    torch.testing.assert_close(h.grad, 2 * (h - nearest).detach() / h[0].numel())


def test_commitment_reaches_the_encoder_of_an_autoencoder_and_not_its_codebook() -> None:
    codebook = Codebook(8, 2)
    codebook.vectors.data.copy_(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    net = Autoencoder.convolutional((1, 8), (4, 4), 2, codebook)
    _, law = net(torch.randn(2, 1, 8))
    commitment(law.h, law.nearest).sum().backward()
    assert all(p.grad is not None for p in net.encoder.parameters())
    assert all(p.grad is None for p in net.decoder.parameters())
    assert not codebook.vectors.requires_grad


# The adversary.


def test_hinge_losses_by_hand() -> None:
    real, made = torch.tensor([[2.0, 0.5], [-1.0, 1.0]]), torch.tensor([[-3.0, 0.5], [0.0, -0.5]])
    # Rows: mean(0, 0.5) + mean(0, 1.5); mean(2, 0) + mean(1, 0.5).
    assert hinge_discriminator(real, made).tolist() == [1.0, 1.75]
    assert hinge_generator(made).tolist() == [1.25, 0.25]
    assert hinge_discriminator(real[:, 0], made[:, 0]).tolist() == [0.0, 3.0], "one logit a sample is a patch, too"


def pair() -> tuple[Autoencoder, PatchDiscriminator, Tensor]:
    torch.manual_seed(0)
    net = Autoencoder.convolutional((1, 8, 8), (8, 8), 2, Gaussian())
    return net, PatchDiscriminator(1, (8,)), torch.randn(4, 1, 8, 8)


def test_the_players_pull_against_each_other() -> None:
    """tutorials.md L4: the decoder raises the logits of what it makes; the discriminator lowers them and raises the
    data's.
    """
    net, judge, x = pair()
    made, _ = net(x)
    generator = torch.autograd.grad(hinge_generator(judge(made)).sum(), list(net.parameters()))
    assert all(g.isfinite().all() for g in generator)
    discriminator = torch.autograd.grad(
        hinge_discriminator(judge(x), judge(made.detach())).sum(), list(judge.parameters())
    )
    with torch.no_grad():
        logits_made, logits_real = judge(made).mean(), judge(x).mean()
        for p, g in zip(net.parameters(), generator, strict=True):
            p -= 1e-3 * g
        assert judge(net(x)[0]).mean() > logits_made, "the autoencoder's step raises D(made)"
        for p, g in zip(judge.parameters(), discriminator, strict=True):
            p -= 1e-3 * g
        gap = judge(x).mean() - judge(made).mean()
        assert gap > logits_real - logits_made, "the discriminator's step tells them better apart"
    real, fake = torch.zeros(4, 3, requires_grad=True), torch.zeros(4, 3, requires_grad=True)
    hinge_discriminator(real, fake).sum().backward()
    assert (real.grad < 0).all(), "descending, D(real) rises"
    assert (fake.grad > 0).all(), "and D(made) falls"


def test_the_adaptive_weight_is_the_ratio_of_gradients_computed_by_hand() -> None:
    """A decoder x = w z with one logit v x: grad rec = mean(2 (w z - x) z), grad adv = -v mean(z)."""
    w, v = torch.tensor([[1.5]], dtype=torch.float64, requires_grad=True), -0.3
    z, x = draw(6, 1), draw(6, 1, seed=1)
    made = z @ w
    weight = adaptive_weight((made - x).square().flatten(), hinge_generator(v * made), w)
    by_hand = (2 * (1.5 * z - x) * z).mean().abs() / ((v * z.mean()).abs() + 1e-6)
    assert float(weight) == pytest.approx(float(by_hand), rel=1e-6)
    assert not weight.requires_grad


def test_the_adaptive_weight_of_a_decoder_is_that_of_two_backward_passes() -> None:
    net, judge, x = pair()
    made, _ = net(x)
    reconstruction, adversarial = absolute(made, x), hinge_generator(judge(made))
    found = adaptive_weight(reconstruction, adversarial, net.last)
    norms = []
    for loss in (reconstruction, adversarial):
        net.zero_grad()
        loss.mean().backward(retain_graph=True)
        norms.append(float(net.decoder.out.weight.grad.norm()))
    assert float(found) == pytest.approx(norms[0] / (norms[1] + 1e-6), rel=1e-5)


def test_the_adaptive_weight_makes_the_judges_scale_no_matter_and_is_clamped() -> None:
    net, judge, x = pair()
    made, _ = net(x)
    reconstruction, logits = absolute(made, x), judge(made)
    terms = [Adversarial(0.7)(0, reconstruction, scale * logits, net.last) for scale in (1.0, 30.0)]
    pulls = [torch.autograd.grad(term.mean(), net.last, retain_graph=True)[0].norm() for term in terms]
    there = torch.autograd.grad(reconstruction.mean(), net.last, retain_graph=True)[0].norm()
    for pull in pulls:
        assert float(pull) == pytest.approx(0.7 * float(there), rel=1e-3)
    silent = adaptive_weight(reconstruction, hinge_generator(1e-12 * logits), net.last)
    assert float(silent) == 1e4


def test_the_adversary_waits_for_its_start() -> None:
    net, judge, x = pair()
    made, _ = net(x)
    reconstruction, term = absolute(made, x), Adversarial(0.5, start=3)
    for step in range(3):
        assert not term.active(step)
        before = term(step, reconstruction, judge(made), net.last)
        assert before.tolist() == [0.0] * 4
        assert not before.requires_grad
    for step in (3, 4, 100):
        assert term.active(step)
        loss = hinge_generator(judge(made))
        wanted = 0.5 * adaptive_weight(reconstruction, loss, net.last) * loss
        torch.testing.assert_close(term(step, reconstruction, judge(made), net.last), wanted)
    assert not Adversarial(0.0).active(5)


@pytest.mark.parametrize("arguments", [(-1.0,), (1.0, -1)])
def test_numbers_below_zero_are_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Adversarial(*arguments)
