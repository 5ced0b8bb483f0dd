"""How far a shift of the looks moves what a model sees: features, latents, values, predicted rewards of the same
simulator states, clean and shifted (a trajectory bank has such pairs). The study has no such number (facts: section 7,
gaps); where a cause is looked for, the first of feature, latent and value that moves says where.
"""

from dataclasses import dataclass

import numpy as np

from analysis import stats
from analysis.errors import AnalysisError


@dataclass(frozen=True)
class Drift:
    """Of `pairs` pairs of points. `relative`: mean squared distance over that of two unrelated clean points, with its
    interval over trajectories: 0 is no drift, at 1 nothing is left of where a point was.

    `offset`: share of that distance that one constant vector makes, which a first layer could learn to take away.
    `cka`: linear CKA of the pairs (Kornblith et al. 2019, arXiv 1905.00414, eq. 5), 1 where shifted points are clean
    ones turned, mirrored, scaled or moved; of single numbers it is their squared correlation. NaN of points that do
    not vary.
    """

    relative: stats.Interval
    offset: float
    cka: float
    pairs: int


def drift(clean: np.ndarray, shifted: np.ndarray, trajectory: np.ndarray) -> Drift:
    """Of paired points (N, L), or numbers (N,), of the trajectories (N,) that intervals draw.

    Raises AnalysisError where pairs do not fit or clean points do not vary; pairs that are not finite are left out.
    """
    a, b = (np.asarray(one, dtype=float).reshape(len(one), -1) for one in (clean, shifted))
    if a.shape != b.shape or len(trajectory) != len(a):
        raise AnalysisError(
            f"pairs need equal shapes and a trajectory each, but are {a.shape}, {b.shape}, ({len(trajectory)},)"
        )
    there = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    a, b, trajectory = a[there], b[there], np.asarray(trajectory)[there]
    variance = float(a.var(axis=0).sum()) if len(a) > 1 else 0.0
    if variance == 0:
        raise AnalysisError(f"{len(a)} finite clean points do not vary, so no distance is far")
    moved = b - a
    square = np.sum(moved**2, axis=1)  # (N,)
    _, place = np.unique(trajectory, return_inverse=True)
    sums, counts = np.bincount(place, square), np.bincount(place)
    constant = float(np.sum(moved.mean(axis=0) ** 2))
    offset = constant / float(square.mean()) if square.any() else np.nan
    return Drift(_ratio(sums, counts, 2 * variance), offset, _cka(a, b), len(a))


def _ratio(sums: np.ndarray, counts: np.ndarray, scale: float, repetitions: int = 2000) -> stats.Interval:
    """Sum over count over scale, with the interval that draws of trajectories give."""
    number = len(sums)
    point = float(sums.sum() / counts.sum() / scale)
    if number < stats.FEW:
        plural = "trajectories" if number > 1 else "trajectory"
        return stats.Interval(point, np.nan, np.nan, number, f"{number} {plural}: no interval")
    picks = np.random.default_rng(0).integers(number, size=(repetitions, number))
    low, high = stats.percentiles(sums[picks].sum(axis=1) / counts[picks].sum(axis=1) / scale)
    return stats.Interval(point, float(low), float(high), number)


def _cka(a: np.ndarray, b: np.ndarray) -> float:
    if (b == b[0]).all():
        return np.nan
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return float(np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)))
