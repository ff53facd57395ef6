"""Mean and covariance of features in one pass, however many samples there are and wherever they were made."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from osmotic.metrics.sets import Set, not_finite

BLOCK = 4096  # rows taken to float64 at a time


class Moments:
    """The streaming mean and covariance of rows, in float64 and memory that does not grow with their number.

    Two sets of counts n and m, means a and b and scatters ``S = sum (x - mean)(x - mean)^T`` merge into
    ``mean = a + (b - a) m / (n + m)`` and ``S = S_a + S_b + (b - a)(b - a)^T n m / (n + m)`` (Chan, Golub & LeVeque
    1979, "Updating formulae and a pairwise algorithm for computing sample variances").

    Attributes:
        count: rows seen; None for reference statistics from a file that does not say, which take no more rows.
    """

    def __init__(self) -> None:
        self.count: int | None = 0
        self._mean: Set = np.zeros(0)
        # Of a known count the scatter, otherwise the covariance itself.
        self._scatter: Set = np.zeros((0, 0))

    @classmethod
    def given(cls, mean: ArrayLike, covariance: ArrayLike, count: int | None = None) -> Moments:
        """Moments that are known already.

        Args:
            mean: ``(D,)``.
            covariance: ``(D, D)``, symmetric; of ``count`` rows the one divided by ``count - 1``.
            count: rows behind them, at least 2; None where nobody knows, or for a law itself.

        Raises:
            ValueError: for shapes that do not fit, numbers that are not finite, and a matrix that is no covariance.
        """
        mu, sigma = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
        if mu.ndim != 1 or not len(mu) or sigma.shape != (len(mu), len(mu)):
            raise ValueError(f"Moments are a mean (D,) and a covariance (D, D); got {mu.shape} and {sigma.shape}.")
        if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
            raise ValueError(
                "The given mean or covariance holds NaN or infinity; compute it anew from finite features."
            )
        # Files are often float32, or carry the rounding of a matrix product: that much asymmetry is no fault.
        if np.abs(sigma - sigma.T).max() > 1e-4 * np.abs(sigma).max() or (np.diag(sigma) < 0).any():
            raise ValueError("The given covariance is not symmetric with a diagonal of variances; is it transformed?")
        if count is not None and count < 2:
            raise ValueError(f"Moments with a covariance have a count of at least 2, or None; got {count}.")
        made = cls()
        made.count, made._mean = count, mu.copy()
        made._scatter = (sigma + sigma.T) / 2 * (1 if count is None else count - 1)
        return made

    @property
    def width(self) -> int:
        """Columns, D; 0 before the first row."""
        return len(self._mean)

    @property
    def mean(self) -> Set:
        """``(D,)``."""
        if self.count == 0:
            raise ValueError("These moments have seen no rows, so there is no mean; update them first.")
        return self._mean.copy()

    @property
    def covariance(self) -> Set:
        """``(D, D)``, the scatter divided by ``count - 1``."""
        if self.count is None:
            return self._scatter.copy()
        if self.count < 2:
            raise ValueError(f"A covariance needs at least 2 rows; these moments have seen {self.count}.")
        covariance: Set = self._scatter / (self.count - 1)
        return covariance

    def update(self, features: ArrayLike) -> Moments:
        """Take more rows in.

        Args:
            features: ``(N, ...)``, flattened behind the first axis; N may be 0.

        Returns:
            These moments themselves.

        Raises:
            ValueError: for rows that are not finite, before any row is taken, and for rows of another width.
        """
        known = self._known("take more rows")
        array = np.asarray(features)
        if array.ndim == 0 or array.dtype.kind not in "fiub":
            raise ValueError(f"Features must be real numbers (N, ...); got {array.dtype} of shape {array.shape}.")
        rows = array.reshape(len(array), int(np.prod(array.shape[1:])))
        blocks = range(0, len(rows), BLOCK)
        if len(rows) and known and rows.shape[1] != self.width:
            raise ValueError(f"These moments are of {self.width} features; got rows of {rows.shape[1]}.")
        bad = sum(not_finite(rows[i : i + BLOCK]) for i in blocks)
        if bad:
            raise ValueError(
                f"Features are NaN or infinite in {bad} of {len(rows)} rows; find out which samples broke."
            )
        for i in blocks:
            block = rows[i : i + BLOCK].astype(np.float64)
            mean = block.mean(0)
            block -= mean
            self._absorb(len(block), mean, block.T @ block)
        return self

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of rows together, as if one had seen all; neither is changed."""
        both = Moments()
        for part in (self, other):
            count = part._known("be merged")
            if count:
                if both.count and both.width != part.width:
                    raise ValueError(f"Moments of {both.width} and of {part.width} features cannot be merged.")
                both._absorb(count, part._mean, part._scatter)
        return both

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``mu``, ``sigma`` and ``count`` to an .npz file, the form of EDM's and ADM's reference statistics."""
        with Path(path).open("wb") as file:
            known = {} if self.count is None else {"count": np.int64(self.count)}
            np.savez(file, allow_pickle=False, mu=self.mean, sigma=self.covariance, **known)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Moments:
        """Read reference statistics, ours or foreign: .npz with ``mu`` and ``sigma``, and ``count`` if it is there.

        Raises:
            ValueError: for a file without them, and for numbers that are no moments.
        """
        wrong = f"{path} is no file of reference statistics: an .npz with mu and sigma is needed."
        try:
            file = np.load(Path(path), allow_pickle=False)
        except (ValueError, EOFError, BadZipFile) as error:
            raise ValueError(wrong) from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError(wrong)
        with file:
            if not {"mu", "sigma"} <= set(file.files):
                raise ValueError(wrong)
            return cls.given(file["mu"], file["sigma"], int(file["count"]) if "count" in file.files else None)

    def _known(self, what: str) -> int:
        if self.count is None:
            raise ValueError(f"Moments from a file without a count cannot {what}; compute them anew from features.")
        return self.count

    def _absorb(self, count: int, mean: Set, scatter: Set) -> None:
        """Chan's update with another set's count, mean and scatter."""
        before = self._known("take more rows")
        if not before:
            self.count, self._mean, self._scatter = count, mean.copy(), scatter.copy()
            return
        total = before + count
        gap = mean - self._mean
        self._mean += gap * (count / total)
        self._scatter += scatter
        self._scatter += np.outer(gap * (before * (count / total)), gap)
        self.count = total


def gathered(moments: Moments) -> Moments:
    """The moments of all processes' rows, the same on every process; these moments themselves where there is one.

    Every process of the default group of torch.distributed must call it; a process that saw no rows may.

    Raises:
        ValueError: on all processes, for features of different widths and for moments without a count.
    """
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return moments
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")

    def everyones(array: NDArray[Any]) -> list[NDArray[Any]]:
        mine = torch.from_numpy(np.ascontiguousarray(array)).to(device)
        theirs = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(theirs, mine)
        return [t.cpu().numpy() for t in theirs]

    # All hear of what cannot be merged before it is refused: a process that left alone would keep the others waiting.
    count = -1 if moments.count is None else moments.count
    heads = everyones(np.array([count, moments.width], np.int64))
    widths = {int(width) for count, width in heads if count}
    if any(count < 0 for count, _ in heads) or len(widths) > 1:
        raise ValueError(f"Processes gather moments with a count and of one width; got widths {sorted(widths)}.")
    if not widths:
        return Moments()
    width = widths.pop()
    empty = not moments.count
    means = everyones(np.zeros(width) if empty else moments._mean)
    scatters = everyones(np.zeros((width, width)) if empty else moments._scatter)
    total = Moments()
    for (count, _), mean, scatter in zip(heads, means, scatters, strict=True):
        if count:
            total._absorb(int(count), mean, scatter)
    return total
