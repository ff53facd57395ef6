"""Patch discriminators: a logit sees its patch, all of it, and nothing else."""

from __future__ import annotations

import pytest
import torch

from osmotic.nn import PatchDiscriminator


@pytest.mark.parametrize("size", [(37,), (1,), (7, 13), (8, 8), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_logit_for_each_patch_in_every_dimension(size: tuple[int, ...], batch: int) -> None:
    torch.manual_seed(0)
    net, x = PatchDiscriminator(2, (8, 8), len(size)), torch.randn(batch, 2, *size)
    logits = net(x)
    assert logits.shape == (batch, *(-(-n // 4) for n in size))
    alone = torch.cat([net(x[i : i + 1]) for i in range(batch)])
    torch.testing.assert_close(alone, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_logit_depends_on_its_patch_alone(levels: int) -> None:
    """The width that is stated, measured by the gradient of one logit in the middle."""
    torch.manual_seed(0)
    net = PatchDiscriminator(1, (16,) * levels, 1)
    x = torch.randn(4, 1, 160, requires_grad=True)
    logits = net(x)
    logits[:, logits.shape[1] // 2].sum().backward()
    seen = (x.grad != 0).any(0).flatten().nonzero().flatten()
    assert int(seen[-1] - seen[0]) + 1 == 2 ** (levels + 2) - 1


def test_logits_start_at_the_size_that_a_hinge_reads() -> None:
    """Without norms the first weights must keep the signal's size: logits neither 0 nor far beyond the margin."""
    torch.manual_seed(0)
    spread = PatchDiscriminator(3)(torch.randn(16, 3, 32, 32)).std()
    assert 0.1 < spread < 3


@pytest.mark.parametrize(
    ("arguments", "word"), [({"ndim": 0}, "no patches"), ({"widths": ()}, "one level"), ({"channels": 0}, "channels")]
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        PatchDiscriminator(**{"channels": 1} | arguments)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 8)])
def test_samples_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \(batch, 3"):
        PatchDiscriminator(3, (8,))(torch.zeros(shape))
