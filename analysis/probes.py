"""Ridge probes: what can be read linearly from a feature or a latent (simulator state, reward, action), and how well on
episodes that the probe has not seen. The study has none (facts: section 7, gaps).

Everything comes from one Gram matrix per fold, so that 100,000 points of 4096 entries need memory for 4096 × 4096
numbers and no solver that iterates. Steps of one episode resemble each other: test set and folds hold whole episodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis import stats
from analysis.errors import AnalysisError

PENALTIES = 10.0 ** np.arange(-6, 5)  # of standardised inputs, per training point
FOLDS = 5
ROWS = 4096  # points turned to float64 at once


@dataclass(frozen=True)
class Score:
    """How well one variable is read: R² on held-out episodes, about their mean, with its interval over them; and the
    penalty that folds of training episodes chose. R² is NaN where the variable does not vary there.
    """

    r2: stats.Interval
    penalty: float


@dataclass(frozen=True)
class Split:
    """Episodes of a probe."""

    train: np.ndarray
    test: np.ndarray


def split_episodes(episode: np.ndarray, test_share: float = 0.25, seed: int = 0) -> Split:
    """Whole episodes for training and test, drawn at random; at least two and one. Raises AnalysisError with fewer."""
    names = np.random.default_rng(seed).permutation(np.unique(episode))
    if len(names) < 3:
        raise AnalysisError(f"{len(names)} episodes: a probe needs two to train on and one to test on")
    held_out = min(max(1, round(test_share * len(names))), len(names) - 2)
    return Split(np.sort(names[held_out:]), np.sort(names[:held_out]))


@dataclass(frozen=True)
class _Gram:
    """Sums over points of x, y, x xᵀ, x yᵀ and y², and how many there are; they add up."""

    n: int
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray

    def __add__(self, other: "_Gram") -> "_Gram":
        return _Gram(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __sub__(self, other: "_Gram") -> "_Gram":
        return _Gram(*(a - b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def probe(
    inputs: np.ndarray,
    targets: Mapping[str, np.ndarray],
    episode: np.ndarray,
    *,
    test_share: float = 0.25,
    seed: int = 0,
) -> dict[str, Score]:
    """Variable to its score, of inputs (N, D), targets (N,) by name and the episode (N,) of each point.

    Inputs are standardised by training points; each variable has the penalty of `PENALTIES` with the least squared
    error over `FOLDS` folds of training episodes. Points with an input or target that is not finite are left out.
    """
    inputs, episode = np.asarray(inputs), np.asarray(episode)
    y = np.stack([np.asarray(values, dtype=float) for values in targets.values()], axis=1)  # (N, V)
    if inputs.ndim != 2 or not len(inputs) == len(y) == len(episode):
        raise AnalysisError(f"a probe needs (N, D), (N, V), (N,), but has {inputs.shape}, {y.shape}, {episode.shape}")
    there = np.isfinite(inputs).all(axis=1) & np.isfinite(y).all(axis=1)
    inputs, y, episode = inputs[there], y[there], episode[there]
    split = split_episodes(episode, test_share, seed)
    train = np.isin(episode, split.train)
    centre, scale = _standard(inputs[train])
    level = y[train].mean(axis=0)
    folds = [np.isin(episode, part) for part in np.array_split(split.train, min(FOLDS, len(split.train)))]
    grams = [_gram(inputs[fold], y[fold] - level, centre, scale) for fold in folds]
    total = sum(grams[1:], grams[0])
    errors = sum(_errors(total - gram, gram) for gram in grams)  # (penalties, V)
    best = np.argmin(errors, axis=0)
    weights, bias = _solve(total)
    columns = np.arange(y.shape[1])
    chosen, offset = weights[best, :, columns].T, bias[best, columns] + level  # (D, V), (V,)
    test = ~train
    predicted = _standardised(inputs[test], centre, scale) @ chosen + offset
    return {
        name: Score(_r2(y[test, v], predicted[:, v], episode[test]), float(PENALTIES[best[v]]))
        for v, name in enumerate(targets)
    }


def _standard(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each entry; 1 where it is constant."""
    centre = inputs.mean(axis=0, dtype=float)
    scale = inputs.std(axis=0, dtype=float)
    return centre, np.where(scale > 1e-8 * np.maximum(1, np.abs(centre)), scale, 1.0)


def _standardised(inputs: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (inputs.astype(float) - centre) / scale


def _gram(inputs: np.ndarray, y: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> _Gram:
    d, v = inputs.shape[1], y.shape[1]
    found = _Gram(0, np.zeros(d), np.zeros(v), np.zeros((d, d)), np.zeros((d, v)), np.zeros(v))
    for start in range(0, len(inputs), ROWS):
        x, part = _standardised(inputs[start : start + ROWS], centre, scale), y[start : start + ROWS]
        found += _Gram(len(x), x.sum(0), part.sum(0), x.T @ x, x.T @ part, np.sum(part**2, axis=0))
    return found


def _solve(gram: _Gram) -> tuple[np.ndarray, np.ndarray]:
    """Weights (penalties, D, V) and intercepts (penalties, V): w = (XᵀX / n + λ I)⁻¹ Xᵀy / n of centred X and y (Hoerl
    & Kennard 1970, eq. 2.1), for all penalties from one eigendecomposition.
    """
    x, y = gram.x / gram.n, gram.y / gram.n
    values, vectors = np.linalg.eigh(gram.xx / gram.n - np.outer(x, x))
    turned = vectors.T @ (gram.xy / gram.n - np.outer(x, y))  # (D, V)
    shrunk = turned / (np.maximum(values, 0)[None, :, None] + PENALTIES[:, None, None])  # (penalties, D, V)
    weights = vectors @ shrunk
    return weights, y - x @ weights


def _errors(train: _Gram, test: _Gram) -> np.ndarray:
    """(penalties, V) summed squared errors on the points behind `test`, from sums alone."""
    weights, bias = _solve(train)
    square = np.einsum("pdv,pdv->pv", weights, test.xx @ weights)
    linear = np.einsum("dv,pdv->pv", test.xy, weights)
    across = np.einsum("d,pdv->pv", test.x, weights)
    return test.yy - 2 * linear - 2 * bias * test.y + square + 2 * bias * across + test.n * bias**2


def _r2(y: np.ndarray, predicted: np.ndarray, episode: np.ndarray, repetitions: int = 2000) -> stats.Interval:
    """1 - Σ (y - ŷ)² / Σ (y - mean y)², and its percentile interval over episodes."""
    _, place = np.unique(episode, return_inverse=True)
    sums = np.stack([np.bincount(place, w) for w in (np.ones(len(y)), y, y**2, (y - predicted) ** 2)])  # (4, E)

    def r2(total: np.ndarray) -> np.ndarray:
        n, one, two, error = total
        spread = two - one**2 / n
        varies = spread > 1e-12 * np.maximum(two, 1e-300)
        return 1 - np.divide(error, spread, out=np.full(np.shape(spread), np.nan), where=varies)

    point, number = float(r2(sums.sum(axis=1))), sums.shape[1]
    if np.isnan(point):
        return stats.Interval(point, np.nan, np.nan, number, "does not vary in the held-out episodes")
    if number < stats.FEW:
        word = "episodes" if number > 1 else "episode"
        return stats.Interval(point, np.nan, np.nan, number, f"{number} {word} held out: no interval")
    picks = np.random.default_rng(0).integers(number, size=(repetitions, number))
    low, high = stats.percentiles(r2(sums[:, picks].sum(axis=2)))
    return stats.Interval(point, float(low), float(high), number)
