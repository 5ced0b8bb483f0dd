"""Latent spaces on arrays: points (N, L). Pictures are made of two dimensions, numbers of the full latent: a picture
without a number is no evidence.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from analysis.errors import AnalysisError

UMAP_INPUT_DIMS = 50  # larger latents are reduced by PCA first
MIN_POINTS = 10
CONSTANT = 1e-10  # variance of a latent entry below which it is rounding: that of float32 is near 1e-14


@dataclass(frozen=True)
class Selection:
    """Indices (n,) of the points that are used, in rising order; `dropped` were not finite, `total` were offered."""

    index: np.ndarray
    dropped: int
    total: int


def select(points: np.ndarray, reward: np.ndarray, max_points: int, seed: int = 0) -> Selection:
    """Finite points with finite reward, thinned at random to `max_points`; raises AnalysisError where fewer than ten
    remain.
    """
    finite = np.flatnonzero(np.isfinite(points).all(axis=1) & np.isfinite(reward))
    if len(finite) < MIN_POINTS:
        raise AnalysisError(
            f"{len(finite)} of {len(points)} latents are finite; a picture of the latent space needs {MIN_POINTS}",
            hint="NaN latents mean that the model diverged; otherwise record more episodes",
        )
    index = finite
    if len(finite) > max_points:
        index = np.sort(np.random.default_rng(seed).choice(finite, max_points, replace=False))
    return Selection(index, len(points) - len(finite), len(points))


def is_constant(points: np.ndarray) -> bool:
    """Whether the finite points (N, L) are one or two, or nearly so: the mean variance of an entry is below `CONSTANT`.

    Shares of such a variance, and pictures of such a space, show rounding errors. False where none is finite.
    """
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) == 0:
        return False
    unlike_first = points[(points != points[0]).any(axis=1)]
    few = len(unlike_first) == 0 or bool((unlike_first == unlike_first[0]).all())
    return few or float(points.var(axis=0, dtype=float).mean()) < CONSTANT


def pca(points: np.ndarray, dims: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, dims) and the share of variance of each component (dims,); signs fixed so that a repeat gives the same
    picture.
    """
    centred = np.asarray(points, dtype=float) - np.mean(points, axis=0, dtype=float)
    dims = min(dims, *centred.shape)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    total = np.sum(s**2)
    signs = np.sign(vt[np.arange(dims), np.abs(vt[:dims]).argmax(axis=1)])
    return u[:, :dims] * s[:dims] * signs, s[:dims] ** 2 / total if total > 0 else np.zeros(dims)


def umap(points: np.ndarray, seed: int = 0, neighbours: int = 15, min_dist: float = 0.1) -> np.ndarray:
    """Two-dimensional UMAP (N, 2) (McInnes et al. 2018, arXiv 1802.03426), repeatable for a seed.

    The first call of a process compiles for up to half a minute.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)  # parametric UMAP, not used
        from umap import UMAP
    points = pca(points, UMAP_INPUT_DIMS)[0] if points.shape[1] > UMAP_INPUT_DIMS else points
    neighbours = min(neighbours, len(points) - 1)
    model = UMAP(n_neighbors=neighbours, min_dist=min_dist, random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        # Separated clusters are a finding, not a fault: the start is then spectral per component, or random.
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        warnings.filterwarnings("ignore", "Spectral initialisation failed", UserWarning)
        embedding = model.fit_transform(np.ascontiguousarray(points, dtype=np.float32))
    return np.asarray(embedding, dtype=float)


def trustworthiness(points: np.ndarray, embedding: np.ndarray, neighbours: int = 15) -> float:
    """How far neighbours in the picture are neighbours in the latent, 0 to 1 (Venna & Kaski 2001); near 0.5 for a
    random picture.
    """
    from sklearn.manifold import trustworthiness as score

    return float(score(points, embedding, n_neighbors=min(neighbours, (len(points) - 1) // 2)))


@dataclass(frozen=True)
class Purity:
    """Share of neighbours in the same reward bin, and what shuffled rewards would give; NaN where the reward is
    constant.
    """

    value: float
    chance: float
    bins: int


def reward_purity(
    points: np.ndarray, reward: np.ndarray, episode: np.ndarray | None = None, neighbours: int = 15, bins: int = 5
) -> Purity:
    """Neighbourhood purity by reward, in the full latent: bins are quantiles of the reward, ties make fewer of them.

    With `episode` (N,), neighbours from the point's own episode do not count: steps that follow each other are close
    for a trivial reason.
    """
    inner = np.unique(np.quantile(reward, np.linspace(0, 1, bins + 1)[1:-1]))
    label = np.searchsorted(inner, reward, side="left")
    _, label = np.unique(label, return_inverse=True)
    share = np.bincount(label) / len(label)
    if len(share) == 1:
        return Purity(np.nan, np.nan, 1)
    near = _neighbours(points, neighbours, episode)
    same = label[near] == label[:, None]
    there = near >= 0
    per_point = np.divide((same & there).sum(1), there.sum(1), out=np.full(len(label), np.nan), where=there.any(1))
    value = np.nanmean(per_point) if there.any() else np.nan
    return Purity(float(value), float(np.sum(share**2)), len(share))


def _neighbours(points: np.ndarray, k: int, episode: np.ndarray | None) -> np.ndarray:
    """(N, k) nearest other points by Euclidean distance, -1 where there are fewer; from other episodes where `episode`
    is given.
    """
    from sklearn.neighbors import NearestNeighbors

    if episode is None:
        k = min(k, len(points) - 1)
        return NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)
    near = np.full((len(points), k), -1)
    for number in np.unique(episode):
        inside = episode == number
        others = np.flatnonzero(~inside)
        if len(others) == 0:
            continue
        take = min(k, len(others))
        found = NearestNeighbors(n_neighbors=take).fit(points[others]).kneighbors(points[inside], return_distance=False)
        near[np.flatnonzero(inside), :take] = others[found]
    return near
