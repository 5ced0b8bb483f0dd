"""Latent spaces on arrays: points (N, L). Pictures are made of two dimensions, numbers of the full latent: a picture
without a number is no evidence.

The study (facts: section 7) shows UMAP coloured by reward and says that latents of scratch agents are organised by it
and others entangled; it gives no number. `describe` gives some. 100,000 points are no trouble: neighbours are looked
for among all of them, of `MAX_QUERIES` drawn at random, in blocks of `BLOCK_MB`; what compares all pairs sees as many.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from analysis.errors import AnalysisError
from analysis.rewards import reward_bins

UMAP_INPUT_DIMS = 50  # larger latents are reduced by PCA first
MIN_POINTS = 10
MAX_QUERIES = 4000  # points whose neighbours are looked for, and points that are compared in pairs
BLOCK_MB = 256  # of distances held at once
ROWS = 4096  # points turned to float64 at once
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


def thinned(count: int, most: int = MAX_QUERIES, seed: int = 0) -> np.ndarray:
    """Indices of at most that many of `count` points, drawn at random, in rising order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


@dataclass(frozen=True)
class Axes:
    """Principal axes (dims, L) about a mean (L,), and the share of variance of each; signs are fixed, so that a repeat
    gives the same picture.
    """

    mean: np.ndarray
    axes: np.ndarray
    share: np.ndarray

    def scores(self, points: np.ndarray) -> np.ndarray:
        """Coordinates (N, dims) of points (N, L), which need not be those that were fitted."""
        parts = [(points[n : n + ROWS].astype(float) - self.mean) @ self.axes.T for n in range(0, len(points), ROWS)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.axes)))


def principal_axes(points: np.ndarray, dims: int = 2) -> Axes:
    """The first principal axes of points (N, L); no more than there are points or entries."""
    mean = np.mean(points, axis=0, dtype=float)
    values, vectors = _spectrum(points, mean)
    dims = min(dims, *points.shape)
    axes = vectors[:dims]
    signs = np.sign(axes[np.arange(dims), np.abs(axes).argmax(axis=1)])
    share = values[:dims] ** 2 / total if (total := np.sum(values**2)) > 0 else np.zeros(dims)
    return Axes(mean, axes * signs[:, None], share)


def pca(points: np.ndarray, dims: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, dims) and the share of variance of each component (dims,)."""
    fitted = principal_axes(points, dims)
    return fitted.scores(points), fitted.share


def _spectrum(points: np.ndarray, mean: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Singular values, falling, and right singular vectors of points - mean: of the matrix itself where it is wide or
    small, otherwise by its Gram matrix, which needs no copy of the points (values below 1e-8 of the first are then 0).
    """
    if len(points) <= max(points.shape[1], ROWS):
        return np.linalg.svd(np.asarray(points, dtype=float) - mean, full_matrices=False)[1:]
    gram = np.zeros((points.shape[1],) * 2)
    for start in range(0, len(points), ROWS):
        part = points[start : start + ROWS].astype(float) - mean
        gram += part.T @ part
    squares, vectors = np.linalg.eigh(gram)
    squares = np.where(squares > 1e-16 * squares[-1], squares, 0.0)
    return np.sqrt(squares[::-1]), vectors[:, ::-1].T


def umap(points: np.ndarray, seed: int = 0, neighbours: int = 15, min_dist: float = 0.1) -> np.ndarray:
    """Two-dimensional UMAP (N, 2) (McInnes et al. 2018, arXiv 1802.03426), repeatable for a seed.

    The first call of a process compiles for up to half a minute.
    """
    return _umap(points, None, seed, neighbours, min_dist)[0]


def _umap(
    points: np.ndarray, others: np.ndarray | None, seed: int, neighbours: int, min_dist: float
) -> tuple[np.ndarray, np.ndarray]:
    """Embedding of the points it is fitted on, and of others by `transform`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)  # parametric UMAP, not used
        from umap import UMAP
    if points.shape[1] > UMAP_INPUT_DIMS:
        reduced = principal_axes(points, UMAP_INPUT_DIMS)
        points, others = reduced.scores(points), None if others is None else reduced.scores(others)
    model = UMAP(n_neighbors=min(neighbours, len(points) - 1), min_dist=min_dist, random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        # Separated clusters are a finding, not a fault: the start is then spectral per component, or random.
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        warnings.filterwarnings("ignore", "Spectral initialisation failed", UserWarning)
        embedding = model.fit_transform(np.ascontiguousarray(points, dtype=np.float32))
        moved = np.empty((0, 2)) if others is None else model.transform(np.ascontiguousarray(others, dtype=np.float32))
    return np.asarray(embedding, dtype=float), np.asarray(moved, dtype=float)


@dataclass(frozen=True)
class Pair:
    """Latents in distribution (N, 2) and out of it (M, 2) on the same axes; `limits` of x and y hold both.

    `fit` is "inside", where those out of distribution were only placed, or "joint". UMAP places unseen points on what
    it fitted, wherever they lie: a joint fit belongs beside it.
    """

    inside: np.ndarray
    outside: np.ndarray
    fit: str
    share: np.ndarray | None = None  # of the variance of the fitted points, of PCA

    @property
    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """((x low, x high), (y low, y high)), 5 % wider than the points."""
        both = np.concatenate([self.inside, self.outside])
        low, high = both.min(axis=0), both.max(axis=0)
        edge = 0.05 * np.where(high > low, high - low, 1.0)
        (x, y), (right, top) = low - edge, high + edge
        return (float(x), float(right)), (float(y), float(top))


def pca_pair(inside: np.ndarray, outside: np.ndarray, *, joint: bool = False) -> Pair:
    """Both clouds (N, L), (M, L) on two principal axes, of `inside` or, if `joint`, of both together."""
    fitted = principal_axes(np.concatenate([inside, outside]) if joint else inside)
    return Pair(fitted.scores(inside), fitted.scores(outside), "joint" if joint else "inside", fitted.share)


def umap_pair(
    inside: np.ndarray,
    outside: np.ndarray,
    *,
    joint: bool = False,
    seed: int = 0,
    neighbours: int = 15,
    min_dist: float = 0.1,
) -> Pair:
    """Both clouds (N, L), (M, L) in one UMAP, fitted on `inside` (`outside` is placed by `transform`) or on both."""
    options = seed, neighbours, min_dist
    if not joint:
        return Pair(*_umap(inside, outside, *options), "inside")
    both = _umap(np.concatenate([inside, outside]), None, *options)[0]
    return Pair(both[: len(inside)], both[len(inside) :], "joint")


def trustworthiness(points: np.ndarray, embedding: np.ndarray, neighbours: int = 15, seed: int = 0) -> float:
    """How far neighbours in the picture are neighbours in the latent, 0 to 1 (Venna & Kaski 2001); near 0.5 for a
    random picture. Of more than `MAX_QUERIES` points, that many drawn at random.
    """
    from sklearn.manifold import trustworthiness as score

    use = thinned(len(points), seed=seed)
    return float(score(points[use], embedding[use], n_neighbors=min(neighbours, (len(use) - 1) // 2)))


def silhouette(points: np.ndarray, label: np.ndarray, seed: int = 0) -> float:
    """Mean silhouette (Rousseeuw 1987) of points by label (N,), -1 to 1, 0 where labels say nothing; of rewards, use
    `rewards.reward_bins`. NaN with fewer than two labels, or as many as points. Thinned as `trustworthiness` is.
    """
    from sklearn.metrics import silhouette_score

    use = thinned(len(points), seed=seed)
    kinds = len(np.unique(label[use]))
    return float(silhouette_score(points[use], label[use])) if 1 < kinds < len(use) else np.nan


def effective_rank(points: np.ndarray) -> float:
    """exp of the entropy of the singular values of the centred points, over their sum (Roy & Vetterli 2007, eq. 3):
    1 for a line, L for a ball. NaN where the points are constant.
    """
    values = _spectrum(points, np.mean(points, axis=0, dtype=float))[0]
    share = values / total if (total := values.sum()) > 0 else np.full(len(values), np.nan)
    return float(np.exp(-np.sum(np.where(share == 0, 0.0, share * np.log(np.where(share == 0, 1.0, share))))))


def rankme(points: np.ndarray, epsilon: float = 1e-7) -> float:
    """RankMe (Garrido et al. 2023, arXiv 2210.02885, eq. 1): the same of the points as they are, not centred, each
    share with `epsilon` added.
    """
    values = _spectrum(points, 0.0)[0]
    total = values.sum()
    if total == 0:
        return float("nan")
    share = values / total + epsilon
    return float(np.exp(-np.sum(share * np.log(share))))


@dataclass(frozen=True)
class Purity:
    """Share of neighbours in the same reward bin, and what shuffled rewards would give; NaN where the reward is
    constant.
    """

    value: float
    chance: float
    bins: int


def reward_purity(
    points: np.ndarray,
    reward: np.ndarray,
    episode: np.ndarray | None = None,
    neighbours: int = 15,
    bins: int = 5,
    seed: int = 0,
) -> Purity:
    """Neighbourhood purity by reward, in the full latent: bins are quantiles of the reward, ties make fewer of them.

    Of more than `MAX_QUERIES` points, the neighbours of that many, drawn at random, are looked for among all (N, L).
    With `episode` (N,), neighbours from the point's own episode do not count: steps that follow each other are close
    for a trivial reason.
    """
    label = reward_bins(reward, bins)
    share = np.bincount(label) / len(label)
    if len(share) == 1:
        return Purity(np.nan, np.nan, 1)
    queries = thinned(len(points), seed=seed)
    near = _neighbours(points, neighbours, queries, episode)
    same = label[near] == label[queries][:, None]
    there = near >= 0
    per_point = np.divide((same & there).sum(1), there.sum(1), out=np.full(len(queries), np.nan), where=there.any(1))
    value = np.nanmean(per_point) if there.any() else np.nan
    return Purity(float(value), float(np.sum(share**2)), len(share))


def _neighbours(points: np.ndarray, k: int, queries: np.ndarray, episode: np.ndarray | None) -> np.ndarray:
    """(Q, k) nearest other points of those with the indices `queries` (Q,), by Euclidean distance and in no order, -1
    where there are fewer; from other episodes where `episode` is given.
    """
    from sklearn.metrics import pairwise_distances_chunked

    k = min(k, len(points) - 1)

    def nearest(distance: np.ndarray, start: int) -> np.ndarray:
        rows = queries[start : start + len(distance)]
        if episode is None:
            distance[np.arange(len(rows)), rows] = np.inf
        else:
            distance[episode[rows][:, None] == episode] = np.inf
        near = np.argpartition(distance, k - 1, axis=1)[:, :k]
        return np.where(np.isfinite(np.take_along_axis(distance, near, axis=1)), near, -1)

    blocks = pairwise_distances_chunked(points[queries], points, reduce_func=nearest, working_memory=BLOCK_MB)
    return np.concatenate(list(blocks))


@dataclass(frozen=True)
class Description:
    """Numbers of a latent space, of `points` finite ones; neighbours and pairs are those of `queries` of them."""

    purity: Purity
    purity_other_episodes: Purity
    silhouette: float  # by fifths of the reward
    effective_rank: float
    rankme: float
    points: int
    queries: int


def describe(
    points: np.ndarray, reward: np.ndarray, episode: np.ndarray, *, neighbours: int = 15, seed: int = 0
) -> Description:
    """All numbers that need no picture, of the finite points (N, L) with finite reward (N,)."""
    use = select(points, reward, len(points), seed).index
    if len(use) < len(points):
        points, reward, episode = points[use], reward[use], episode[use]
    return Description(
        reward_purity(points, reward, None, neighbours, seed=seed),
        reward_purity(points, reward, episode, neighbours, seed=seed),
        silhouette(points, reward_bins(reward, 5), seed),
        effective_rank(points),
        rankme(points),
        len(points),
        len(thinned(len(points))),
    )
