"""Does the error of a world model go with the return of its agent? Correlations on arrays, with intervals.

The study (facts: section 7) gives r = -0.66, p = 0.004 of the reward error and r = -0.22, p = 0.4 of the dynamics error
with performance; both p-values are those of Pearson's r of n = 17 points, two-sided. The paper leaves open what a point
is; 17 are its 14 encoders with DreamerV3 and 3 with TD-MPC2, each a mean over seeds. Errors of two agents have
different units, KL and MSE: pooled they correlate with whatever tells the agents apart. So the default here is one
agent at a time (`within_agents`), beside it all of them, standardised per agent and called so.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import pearsonr, permutation_test, rankdata, spearmanr

from analysis.errors import AnalysisError
from analysis.stats import percentiles

MIN_POINTS = 4  # of three points nearly every bootstrap draw lies on a line
EXACT = 8  # points, whose 40,320 orders are looked through
STANDARDISED = "all agents, standardised"


@dataclass(frozen=True)
class Coefficient:
    """A correlation, its two-sided p (NaN where points are not independent), and its percentile interval."""

    r: float
    p: float
    low: float
    high: float


@dataclass(frozen=True)
class Correlation:
    """Of `points` pairs, drawn in `clusters` groups in the bootstrap; `note` says what is missing and why."""

    pearson: Coefficient
    spearman: Coefficient
    points: int
    clusters: int
    note: str = ""


@dataclass(frozen=True)
class Means:
    """Points of a correlation: means over seeds, one per agent and encoder, sorted by both."""

    agent: list[Hashable]
    encoder: list[Hashable]
    x: np.ndarray
    y: np.ndarray
    seeds: np.ndarray = field(repr=False)  # runs behind each point


def correlate(
    x: np.ndarray,
    y: np.ndarray,
    cluster: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    repetitions: int = 2000,
    seed: int = 0,
) -> Correlation:
    """Pearson's and Spearman's correlation of x and y (n,), with bootstrap intervals over points.

    With `cluster` (n,), an encoder per run say, whole clusters are drawn with replacement, and there is no p: runs of
    one encoder are not independent. Fewer than `MIN_POINTS` points or clusters have no interval; values that do not
    vary have no correlation. Raises AnalysisError for shapes that differ and for values that are not finite.
    """
    x, y = _checked(x, y)
    labels = np.arange(len(x)) if cluster is None else _codes(cluster, len(x))
    groups = int(labels.max(initial=-1)) + 1
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        nothing = Coefficient(*[np.nan] * 4)
        what = f"{len(x)} points: no correlation" if len(x) < 3 else "equal values: no correlation"
        return Correlation(nothing, nothing, len(x), groups, what)
    ends, note = np.full((2, 2), np.nan), f"{groups} {'points' if cluster is None else 'clusters'}: no interval"
    if groups >= MIN_POINTS:
        ends, note = percentiles(_draws(x, y, labels, repetitions, seed), level), ""
    pearson, spearman = (
        Coefficient(float(found.statistic), float(p) if groups == len(x) else np.nan, float(low), float(high))
        for (found, p), (low, high) in zip(_with_p(x, y), ends.T, strict=True)
    )
    return Correlation(pearson, spearman, len(x), groups, note)


def _with_p(x: np.ndarray, y: np.ndarray) -> list[tuple[Any, float]]:
    """Pearson's and Spearman's results with their p. The t distribution that Spearman's p is read from knows nothing of
    few points (0 where three are in order): of up to `EXACT` it is the share of all orders that are as far out.
    """
    pearson, spearman, p = pearsonr(x, y), spearmanr(x, y), None
    if len(x) <= EXACT:
        ranks = rankdata(y) - (len(y) + 1) / 2
        p = permutation_test(
            (rankdata(x),),
            lambda order, axis: np.sum(order * ranks, axis=axis),
            permutation_type="pairings",
            vectorized=True,
            n_resamples=np.inf,
        ).pvalue
    return [(pearson, pearson.pvalue), (spearman, spearman.pvalue if p is None else p)]


def _draws(x: np.ndarray, y: np.ndarray, labels: np.ndarray, repetitions: int, seed: int) -> np.ndarray:
    """(repetitions, 2): Pearson's and Spearman's r of groups drawn with replacement, NaN where a draw does not vary;
    labels (n,) are numbers from 0.
    """
    groups = int(labels.max()) + 1
    picks = np.random.default_rng(seed).integers(groups, size=(repetitions, groups))
    drawn = np.stack([np.bincount(pick, minlength=groups) for pick in picks])[:, labels]  # (repetitions, n)
    return np.stack([_pearson(drawn, x, y), _pearson(drawn, _ranks(drawn, x), _ranks(drawn, y))], axis=1)


def _pearson(times: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's r of points (n,) or (repetitions, n) of which each is there so many times (repetitions, n)."""
    total, tiny = times.sum(axis=1, keepdims=True), 1e-12 * np.ptp(a) * np.ptp(b)  # rounding of equal values
    a, b = (one - np.sum(times * one, axis=1, keepdims=True) / total for one in (a, b))
    scale = np.sqrt(np.sum(times * a**2, axis=1) * np.sum(times * b**2, axis=1))
    return np.divide(np.sum(times * a * b, axis=1), scale, out=np.full(len(times), np.nan), where=scale > tiny)


def _ranks(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(repetitions, n) mid-ranks of the values (n,), up to a constant, where each is there so many times."""
    kinds, place = np.unique(values, return_inverse=True)
    count = times @ (place[:, None] == np.arange(len(kinds)))  # (repetitions, kinds)
    return (np.cumsum(count, axis=1) - count / 2)[:, place]


def seed_means(x: np.ndarray, y: np.ndarray, agent: Sequence[Hashable], encoder: Sequence[Hashable]) -> Means:
    """One point per agent and encoder from runs (n,): the means of x and of y over its seeds."""
    x, y = _checked(x, y)
    if not len(x) == len(agent) == len(encoder):
        raise AnalysisError(f"{len(x)} values need as many agents and encoders, but have {len(agent)}, {len(encoder)}")
    places: dict[tuple[Hashable, Hashable], list[int]] = {}
    for place, key in enumerate(zip(agent, encoder, strict=True)):
        places.setdefault(key, []).append(place)
    keys = sorted(places, key=lambda key: (str(key[0]), str(key[1])))
    return Means(
        [key[0] for key in keys],
        [key[1] for key in keys],
        np.array([x[places[key]].mean() for key in keys]),
        np.array([y[places[key]].mean() for key in keys]),
        np.array([len(places[key]) for key in keys]),
    )


def standardise(values: np.ndarray, agent: Sequence[Hashable]) -> np.ndarray:
    """Values (n,) less their agent's mean, over its standard deviation; 0 where those of an agent are all equal."""
    values = np.asarray(values, dtype=float)
    codes, out = _codes(agent, len(values)), np.zeros(len(values))
    for code in np.unique(codes):
        mine = values[codes == code]
        out[codes == code] = (mine - mine.mean()) / mine.std() if np.ptp(mine) > 0 else 0.0
    return out


def within_agents(
    x: np.ndarray,
    y: np.ndarray,
    agent: Sequence[Hashable],
    encoder: Sequence[Hashable],
    *,
    per_run: bool = False,
    repetitions: int = 2000,
    seed: int = 0,
) -> dict[Hashable, Correlation]:
    """Agent to the correlation of its points; with several agents also `STANDARDISED`, where x and y are in standard
    deviations of their agent.

    Runs (n,) come in. A point is the mean over seeds of an agent and encoder; with `per_run` it is a run, and the
    bootstrap draws encoders.
    """
    points = seed_means(x, y, agent, encoder)
    if per_run:
        points = Means(list(agent), list(encoder), *_checked(x, y), np.ones(len(agent)))
    found: dict[Hashable, Correlation] = {}

    def of(x: np.ndarray, y: np.ndarray, encoders: Sequence[Hashable]) -> Correlation:
        return correlate(x, y, encoders if per_run else None, repetitions=repetitions, seed=seed)

    for name in dict.fromkeys(sorted(points.agent, key=str)):
        mine = [place for place, one in enumerate(points.agent) if one == name]
        found[name] = of(points.x[mine], points.y[mine], [points.encoder[place] for place in mine])
    if len(found) > 1:
        found[STANDARDISED] = of(
            standardise(points.x, points.agent), standardise(points.y, points.agent), points.encoder
        )
    return found


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape:
        raise AnalysisError(f"a correlation needs two arrays (n,) of one length, but they are {x.shape} and {y.shape}")
    if bad := np.flatnonzero(~(np.isfinite(x) & np.isfinite(y))).tolist():
        raise AnalysisError(f"point {bad[0]} is not finite: x {x[bad[0]]}, y {y[bad[0]]}")
    return x, y


def _codes(labels: Sequence[Hashable], count: int) -> np.ndarray:
    """Labels (n,) as whole numbers, equal where they are equal."""
    if len(labels) != count:
        raise AnalysisError(f"{count} values need as many labels, but have {len(labels)}")
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(label, len(number)) for label in labels], dtype=int)
