"""What the tests of phase space share: oracles, and truths by SciPy that know nothing of the package's own forms."""

import numpy as np
import torch
from scipy import integrate

from osmotic import oracles
from osmotic.phase import CLD, Cholesky, Flow, Isotropic, Lifted
from osmotic.schedules import VP

PATHS = {
    "flow": lambda: CLD(),
    "cholesky": lambda: CLD(root=Cholesky()),
    "linear": lambda: CLD(beta=(2.0, 7.0), mass=0.5, gamma=0.1, root=Flow()),
    "isotropic": lambda: Isotropic(VP()),
}


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


def mixture(path) -> Lifted:
    return Lifted(oracles.GaussianMixture(path.channel, 1.5 * draws(5, 2, seed=1), 0.15), path)


def coefficients(path: CLD, t: float) -> tuple[np.ndarray, np.ndarray]:
    """F and G G^T of CLD as published (arXiv 2112.07068, eq. 5), with Gamma^2 = 4 M."""
    beta = path.beta[0] + (path.beta[1] - path.beta[0]) * t
    friction = 2 * np.sqrt(path.mass)
    return beta * np.array([[0, 1 / path.mass], [-1, -friction / path.mass]]), np.diag([0, 2 * friction * beta])


def flow_by_scipy(oracle, u: torch.Tensor, t: float, s: float) -> torch.Tensor:
    """``du = F u - (1/2) G G^T score`` from t to s, the score by autograd from the log-density."""
    path = oracle.schedule

    def rate(time: float, y: np.ndarray) -> np.ndarray:
        f, g = coefficients(path, time)
        here = torch.from_numpy(y).reshape(u.shape).requires_grad_()
        (score,) = torch.autograd.grad(oracle.log_prob(here, time).sum(), here)
        both = np.einsum("ij,bjk->bik", f, here.detach().numpy()) - np.einsum("ij,bjk->bik", g, score.numpy()) / 2
        return both.ravel()

    solution = integrate.solve_ivp(rate, (t, s), u.flatten().numpy(), "DOP853", rtol=1e-8, atol=1e-10)
    return torch.from_numpy(solution.y[:, -1]).reshape(u.shape)


def slopes(errors: list[float]) -> np.ndarray:
    return np.log2(np.divide(errors[:-1], errors[1:]))
