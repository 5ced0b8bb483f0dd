"""Do encoders with a property (language, sequential data, …) do better, in distribution and out of it?

The study plots the IQM of returns per group, in distribution on x and out of it on y (facts: section 7). Its groups
overlap, and an encoder counts in each that it belongs to. The paper does not say over what it pools: here over the runs
of the group's encoders × tasks, as IQM does (Agarwal et al. 2021). Such an interval is about these encoders; whether
the property is what makes the difference, few encoders cannot tell, and `encoders` says how few they are.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import stats
from analysis.errors import AnalysisError


@dataclass(frozen=True)
class Group:
    """Scores of the runs with a property, and the probability that one of them beats one without it (0.5 for none).

    The latter is NaN where all runs have the property.
    """

    inside: stats.Interval
    outside: stats.Interval
    better_inside: stats.Interval
    better_outside: stats.Interval
    encoders: int


def by_property(
    inside: np.ndarray,
    outside: np.ndarray,
    encoder: Sequence[Hashable],
    properties: Mapping[str, Sequence[bool] | np.ndarray],
    *,
    statistic: stats.Statistic = stats.iqm,
    repetitions: int = 2000,
    seed: int = 0,
) -> dict[str, Group]:
    """Property to its group, of normalised returns (runs, tasks) in and out of distribution, the encoder of each run
    (runs,), and for every property whether each run's encoder has it (runs,). A property that no run has is left out.

    Raises AnalysisError for shapes that do not fit and where runs of one encoder differ in a property.
    """
    inside, outside = stats.check_scores(inside), stats.check_scores(outside)
    if inside.shape != outside.shape or len(encoder) != len(inside):
        raise AnalysisError(
            f"scores should be (runs, tasks) twice and encoders (runs,), but are {inside.shape}, {outside.shape} and "
            f"({len(encoder)},)"
        )
    options = {"repetitions": repetitions, "seed": seed}
    groups = {}
    for name, members in properties.items():
        has = _members(name, members, encoder)
        if not has.any():
            continue
        groups[name] = Group(
            stats.bootstrap(inside[has], statistic, **options),
            stats.bootstrap(outside[has], statistic, **options),
            _beats(inside[has], inside[~has], options),
            _beats(outside[has], outside[~has], options),
            len({one for one, there in zip(encoder, has, strict=True) if there}),
        )
    return groups


def _members(name: str, members: Sequence[bool] | np.ndarray, encoder: Sequence[Hashable]) -> np.ndarray:
    has = np.asarray(members)
    if has.dtype != bool or has.shape != (len(encoder),):
        raise AnalysisError(f"property {name!r} should be one bool per run ({len(encoder)},), but is {has.dtype}")
    known: dict[Hashable, bool] = {}
    for one, there in zip(encoder, has.tolist(), strict=True):
        if known.setdefault(one, there) != there:
            raise AnalysisError(f"runs of encoder {one!r} differ in the property {name!r}")
    return has


def _beats(with_it: np.ndarray, without: np.ndarray, options: Mapping[str, int]) -> stats.Interval:
    if len(without) == 0:
        return stats.Interval(np.nan, np.nan, np.nan, 0, "all runs have it")
    return stats.bootstrap_improvement(with_it, without, **options)
