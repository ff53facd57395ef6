"""From nodes to weights: the float64 arithmetic of every multistep and singlestep exponential solver, on plain numbers.

A step integrates a known kernel against something that is only seen at a few nodes. What is seen is replaced by the
polynomial through the nodes, of any order and spacing, and the integral of that polynomial is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def phi(k: int, z: float) -> float:
    """``phi_k(z) = int_0^1 e^{(1 - q) z} q^{k-1} / (k-1)! dq``, ``phi_0(z) = e^z``; at z = -inf its limit, 0.

    By its series where the recursion ``phi_{k+1} = (phi_k - 1/k!) / z`` would cancel (Hochbruck & Ostermann 2010).
    """
    if z == -math.inf:
        return 0.0
    if abs(z) < 1:
        term = total = 1 / math.factorial(k)
        for j in range(1, 24):
            term *= z / (k + j)
            total += term
        return total
    value = math.exp(z)
    for j in range(k):
        value = (value - 1 / math.factorial(j)) / z
    return value


def weights(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """The weights w with ``sum_j w_j nodes_j^m / m! = moments_m`` for m = 0 .. k - 1: exact for polynomials below
    degree k.

    Args:
        nodes: k distinct numbers, where the integrand is seen, measured from the beginning of the step.
        moments: at least k numbers, the integrals of ``u^m / m!`` against the kernel over the step.

    Returns:
        k weights.
    """
    k = len(nodes)
    if k == 1:
        return [moments[0]]
    if k == 2:
        second = (moments[1] - nodes[0] * moments[0]) / (nodes[1] - nodes[0])
        return [moments[0] - second, second]
    # Newton's form: divided differences of the monomials, by repeated synthetic division (Bjorck & Pereyra 1970).
    w = [moments[m] * math.factorial(m) for m in range(k)]
    for i in range(k - 1):
        for j in range(k - 1, i, -1):
            w[j] -= nodes[i] * w[j - 1]
    for i in range(k - 2, -1, -1):
        for j in range(i + 1, k):
            w[j] /= nodes[j] - nodes[j - i - 1]
        for j in range(i, k - 1):
            w[j] -= w[j + 1]
    return w
