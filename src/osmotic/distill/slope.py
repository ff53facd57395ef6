"""The exact derivative of a network along a direction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def along(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, dx: Tensor, dt: Tensor
) -> tuple[Tensor, Tensor]:
    """``f(x, t)`` and ``dx . grad_x f + dt . grad_t f``, by forward-mode differentiation: two ``(B, *S)``.

    Args:
        function: of a point and its time.
        x: points ``(B, *S)``.
        t: times ``(B,)``.
        dx: the direction in x, ``(B, *S)``.
        dt: the direction in t, ``(B,)``.
    """
    with sdpa_kernel(SDPBackend.MATH):  # the only attention with a forward-mode derivative
        pair: tuple[Tensor, ...] = torch.func.jvp(function, (x, t), (dx, dt))
    return pair[0], pair[1]
