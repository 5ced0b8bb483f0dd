"""Statistics over few runs (Agarwal et al. 2021, arXiv 2108.13264) in NumPy.

Scores are arrays (..., runs, tasks); statistics reduce the last two axes, so that a whole bootstrap is one call. To add
a statistic, write a function of that form: `bootstrap` and the figures take it as it is. Numbers agree with rliable
1.2.0 (tests/analysis/rliable_golden.py); how often intervals hold the truth is in benchmarks/README.md, "Coverage".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.integrate import trapezoid

from analysis.errors import AnalysisError

Statistic = Callable[[np.ndarray], np.ndarray]
CHUNK = 4_000_000  # resampled scores held at once
FEW = 5  # the bootstrap of fewer runs ends about where their range does, so they get their range, called so


@dataclass(frozen=True)
class Interval:
    """A statistic and its bootstrap interval. `note` says so where `low` and `high` are something else: the range of
    few runs, or NaN for one run.
    """

    point: float
    low: float
    high: float
    runs: int
    note: str = ""


def mean(scores: np.ndarray) -> np.ndarray:
    """Mean over runs and tasks."""
    return np.mean(scores, axis=(-2, -1))


def median(scores: np.ndarray) -> np.ndarray:
    """Median over tasks of the mean over runs."""
    return np.median(np.mean(scores, axis=-2), axis=-1)


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over runs and tasks together: the lowest and the highest quarter, rounded down, are left out.

    A 1-D array is one task.
    """
    scores = np.asarray(scores, dtype=float)
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return np.mean(flat[..., cut : flat.shape[-1] - cut], axis=-1)


def optimality_gap(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    """How far scores fall short of `target` on average; what lies above it does not make up for what lies below."""
    return target - np.mean(np.minimum(scores, target), axis=(-2, -1))


def normalise(returns: np.ndarray, random: np.ndarray | float, maximum: np.ndarray | float) -> np.ndarray:
    """(G - G_random) / (G_max - G_random), per task; the study takes G_max = 1000 in dm_control (facts: section 5)."""
    span = np.asarray(maximum, dtype=float) - random
    if np.any(span <= 0):
        raise AnalysisError(f"the maximal return {maximum} does not lie above the random return {random}")
    return (np.asarray(returns, dtype=float) - random) / span


def bootstrap(
    scores: np.ndarray, statistic: Statistic = iqm, *, level: float = 0.95, repetitions: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval of a statistic of scores (runs, tasks) or (runs,): runs are drawn with replacement within
    each task. Fewer than `FEW` runs of one task give their range instead.
    """
    scores = check_scores(scores)
    point, (runs, tasks) = float(statistic(scores)), scores.shape
    if runs == 1:
        return Interval(point, np.nan, np.nan, 1, "1 run: no interval")
    if runs < FEW and tasks == 1:
        each = statistic(scores[:, None])
        return Interval(point, float(each.min()), float(each.max()), runs, f"range of {runs} runs")
    low, high = percentiles(_resampled(scores, statistic, repetitions, np.random.default_rng(seed)), level)
    return Interval(point, float(low), float(high), runs)


def percentiles(draws: np.ndarray, level: float = 0.95) -> np.ndarray:
    """(2, ...) the ends of the percentile interval of bootstrap draws (repetitions, ...); draws that are NaN do not
    count.
    """
    return np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)


def check_scores(scores: np.ndarray) -> np.ndarray:
    """Scores as float (runs, tasks); raises AnalysisError for wrong shapes and for values that are not finite."""
    scores = np.asarray(scores, dtype=float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or scores.size == 0:
        raise AnalysisError(f"scores should be (runs, tasks) with at least one of each, but have shape {scores.shape}")
    if not np.isfinite(scores).all():
        run, task = np.argwhere(~np.isfinite(scores))[0]
        raise AnalysisError(f"the score of run {run} on task {task} is {scores[run, task]}")
    return scores


def _resampled(scores: np.ndarray, statistic: Statistic, repetitions: int, rng: np.random.Generator) -> np.ndarray:
    """The statistic of `repetitions` draws of the scores, (repetitions, ...)."""
    chunk = max(1, CHUNK // scores.size)
    counts = [min(chunk, repetitions - start) for start in range(0, repetitions, chunk)]
    return np.concatenate([statistic(_draw(scores, count, rng)) for count in counts])


def _draw(scores: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, runs, tasks): runs drawn with replacement, apart for each task."""
    runs, tasks = scores.shape
    return scores[rng.integers(runs, size=(count, runs, tasks)), np.arange(tasks)]


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> float:
    """P(X > Y) + P(X = Y) / 2 for runs drawn from each side, averaged over tasks; x: (runs, tasks), y: (other runs,
    tasks).
    """
    return float(_improvement(*_both_sides(x, y)))


def bootstrap_improvement(
    x: np.ndarray, y: np.ndarray, *, level: float = 0.95, repetitions: int = 2000, seed: int = 0
) -> Interval:
    """`probability_of_improvement` with its percentile interval: the runs of both sides are drawn with replacement
    within each task. One run on a side, or fewer than `FEW` of one task, give no interval.
    """
    x, y = _both_sides(x, y)
    point, runs, tasks = float(_improvement(x, y)), min(len(x), len(y)), x.shape[1]
    if runs == 1 or (runs < FEW and tasks == 1):
        return Interval(point, np.nan, np.nan, runs, f"{runs} run{'s' if runs > 1 else ''}: no interval")
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK // (len(x) * y.size))
    counts = [min(chunk, repetitions - start) for start in range(0, repetitions, chunk)]
    draws = np.concatenate([_improvement(_draw(x, count, rng), _draw(y, count, rng)) for count in counts])
    low, high = percentiles(draws, level)
    return Interval(point, float(low), float(high), runs)


def _both_sides(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = check_scores(x), check_scores(y)
    if x.shape[1] != y.shape[1]:
        raise AnalysisError(f"both sides need the same tasks, but have {x.shape[1]} and {y.shape[1]}")
    return x, y


def _improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    difference = x[..., :, None, :] - y[..., None, :, :]  # (..., runs, other runs, tasks)
    return np.mean((np.sign(difference) + 1) / 2, axis=(-3, -2, -1))


def area(x: np.ndarray, curves: np.ndarray, start: float | None = None, end: float | None = None) -> np.ndarray:
    """Sample efficiency: the area under learning curves (..., P) at steps x (P,) from `start` to `end` (default: all),
    over its width: the mean return on the way, linear between evaluations. Curves (runs, tasks, P) give scores.
    """
    x, curves = np.asarray(x, dtype=float), np.asarray(curves, dtype=float)
    if x.ndim != 1 or curves.shape[-1:] != x.shape or not np.all(np.diff(x) > 0):
        raise AnalysisError(f"x should be rising steps (P,) and curves (..., P), but are {x.shape} and {curves.shape}")
    first, last = (x[0] if start is None else start), (x[-1] if end is None else end)
    if not x[0] <= first < last <= x[-1]:
        raise AnalysisError(f"the area from {first:g} to {last:g} is not inside the steps {x[0]:g} to {x[-1]:g}")
    grid = np.unique([first, *x[(x > first) & (x < last)], last])
    flat = [np.interp(grid, x, curve) for curve in curves.reshape(-1, len(x))]
    return trapezoid(np.reshape(flat, (*curves.shape[:-1], len(grid))), grid, axis=-1) / (last - first)


@dataclass(frozen=True)
class Band:
    """A mean curve and its interval over curves at every x, their range if they are fewer than `FEW`; `low` and `high`
    are NaN where there is one curve.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray  # curves with a value at x


def align(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Curves (x, y) on all their x inside the range that they share: x (P,), y (curves, P), linear in between."""
    first, last = max(x.min() for x, _ in curves), min(x.max() for x, _ in curves)
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    grid = grid[(grid >= first) & (grid <= last)]
    return grid, np.stack([np.interp(grid, x, y) for x, y in curves])


def band(x: np.ndarray, curves: np.ndarray, *, level: float = 0.95, repetitions: int = 1000, seed: int = 0) -> Band:
    """Mean of curves (n, P) over those that are not NaN, with a percentile interval: whole curves are drawn with
    replacement. Fewer than `FEW` curves give their range instead.
    """
    curves = np.asarray(curves, dtype=float)
    n = len(curves)
    there = np.isfinite(curves)
    count = there.sum(axis=0)
    nothing = np.full(curves.shape[1], np.nan)
    average = np.divide(np.where(there, curves, 0).sum(axis=0), count, out=nothing.copy(), where=count > 0)
    several = count > 1
    if n < FEW:
        low, high = np.where(there, curves, np.inf).min(axis=0), np.where(there, curves, -np.inf).max(axis=0)
        return Band(x, average, np.where(several, low, np.nan), np.where(several, high, np.nan), count)
    picks = np.random.default_rng(seed).integers(n, size=(repetitions, n))
    weights = (picks[:, :, None] == np.arange(n)).sum(axis=1)  # (repetitions, n): how often each curve was drawn
    total, drawn = weights @ np.where(there, curves, 0), weights @ there
    draws = np.divide(total, drawn, out=np.full(total.shape, np.nan), where=drawn > 0)
    ends = np.full((2, curves.shape[1]), np.nan)
    ends[:, several] = np.nanquantile(draws[:, several], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(x, average, ends[0], ends[1], count)


def performance_profile(
    scores: np.ndarray, thresholds: np.ndarray, *, level: float = 0.95, repetitions: int = 2000, seed: int = 0
) -> Band:
    """Share of runs × tasks above each threshold (Agarwal et al. 2021, eq. 2: run-score distribution), with pointwise
    percentile bands; runs are drawn as by `bootstrap`. One run, or fewer than `FEW` of one task, give no band.
    """
    scores, thresholds = check_scores(scores), np.asarray(thresholds, dtype=float)
    if thresholds.ndim != 1 or len(thresholds) == 0:
        raise AnalysisError(f"thresholds should be numbers (P,), but have shape {thresholds.shape}")

    def above(draws: np.ndarray) -> np.ndarray:
        return np.stack([np.mean(draws > threshold, axis=(-2, -1)) for threshold in thresholds], axis=-1)

    runs, tasks = scores.shape
    ends = np.full((2, len(thresholds)), np.nan)
    if runs > 1 and (runs >= FEW or tasks > 1):
        ends = percentiles(_resampled(scores, above, repetitions, np.random.default_rng(seed)), level)
    return Band(thresholds, above(scores), ends[0], ends[1], np.full(len(thresholds), runs))
