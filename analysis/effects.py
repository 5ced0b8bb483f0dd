"""What claims compare: one score for each run, and the difference of two sides with an interval that few seeds allow.

A percentile bootstrap of three seeds is too narrow to decide anything. Here the bootstrap gives the standard error
alone, with its small-sample factor √(n / (n − 1)), and the interval is Student's, with the degrees of freedom of Welch
and Satterthwaite: d ± t · se. It also has a width at any level, which Bonferroni's correction asks for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from analysis import stats
from analysis.errors import AnalysisError
from analysis.folders import Tables
from analysis.played import NONE, strongest
from analysis.runs import FINISHED

OUTSIDE, CONDITIONS = "out_of_distribution", "conditions"  # the second: under which the first was played
SCORES = {  # and the tables that they are read from
    "in_distribution": "ood",  # mean normalised return under the training looks, of the newest checkpoint played
    "out_of_distribution": "ood",  # the same under all held-out looks
    "dynamics_error": "errors",  # log of the latent's error per step, over WINDOW steps, on its scale
    "reward_error": "errors",  # log of |r − r̂| per step, over WINDOW steps
}
WINDOW = 33  # steps: the study's shorter one
REPETITIONS = 2000
KEYS = ["agent", "encoder", "task", "seed"]


@dataclass(frozen=True)
class Effect:
    """A difference of two sides and its interval, NaN where there is none; `n` are the fewest seeds (or encoders, where
    these are counted) of a side.
    """

    point: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def score_table(tables: Tables) -> pd.DataFrame:
    """One row for each run, whatever its state: what `runs` says of it, its returns of `SCORES`, and `CONDITIONS`, NaN
    where it has none and where it has not finished. For errors see `errors_on_shared`.

    Files of encoders that were made for one task ("autoencoder-walker-walk.safetensors") are one encoder over all of
    them ("autoencoder").
    """
    hidden = [name for name in ("config", "manifest") if name in tables["runs"].column_names]
    runs = tables["runs"].drop_columns(hidden).to_pandas()
    runs = runs.set_index("id")
    runs["encoder"] = [_family(*both) for both in zip(runs["encoder"], runs["task"], strict=True)]
    scores = _returns(tables["ood"].to_pandas()) if "ood" in tables else pd.DataFrame()
    finished = runs.index[runs["state"] == FINISHED]
    return runs.join(scores.reindex(finished, columns=["in_distribution", OUTSIDE, CONDITIONS]))


def _family(encoder: str, task: str) -> str:
    if "/" not in encoder and not encoder.endswith(".safetensors"):
        return encoder
    stem = encoder.rpartition("/")[2].removesuffix(".safetensors")
    return stem.removesuffix(f"-{task.rpartition('/')[2]}")


def _returns(ood: pd.DataFrame) -> pd.DataFrame:
    if "normalised" not in ood or ood.empty:
        return pd.DataFrame()
    newest = ood[ood["step"] == ood.groupby("run")["step"].transform("max")]
    parts = (newest[name].to_numpy() for name in ("split", "shift", "severity", "run"))
    outside = newest[strongest(*parts)]
    kinds = outside[["run", "shift", "severity"]].drop_duplicates()
    means = {
        "in_distribution": newest[newest["shift"] == NONE].groupby("run")["normalised"].mean(),
        OUTSIDE: outside.groupby("run")["normalised"].mean(),
        CONDITIONS: pd.Series(
            {run: frozenset(zip(own["shift"], own["severity"], strict=True)) for run, own in kinds.groupby("run")},
            dtype=object,
        ),
    }
    return pd.DataFrame(means)


def error_table(tables: Tables) -> pd.DataFrame:
    """The errors of `SCORES` by (run, bank), "" being episodes that the agent played itself; none where latents are
    constant.
    """
    columns = ["dynamics_error", "reward_error"]
    if "errors" not in tables:
        return pd.DataFrame(columns=columns, index=pd.MultiIndex.from_arrays([[], []], names=["run", "bank"]))
    errors = tables["errors"].to_pandas()
    rows = errors[(errors["shift"] == "") & (errors["window"] == WINDOW) & (errors["constant"] == 0)]
    rows = rows.assign(dynamics_error=rows["error"] / rows["scale"])
    means = rows.groupby(["run", "bank"])[columns].mean() / WINDOW
    return np.log(means.where(means > 0))


def errors_on_shared(runs: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """The errors (of `error_table`) of those of `runs` that have finished, as means over the banks on which all of them
    on a task were recorded; where there is none, of their own episodes. AnalysisError where they share neither.
    """
    tasks = runs.loc[runs["state"] == FINISHED, "task"].rename_axis("run")
    mine = errors.join(tasks, how="inner").reset_index()
    kept = [mine.iloc[:0]]
    for task, rows in mine.groupby("task"):
        each = rows.groupby("run")["bank"].agg(frozenset)
        shared = frozenset.intersection(*each)
        if not shared:
            kinds = sorted(
                {", ".join(f"bank {bank}" if bank else "their own episodes" for bank in sorted(one)) for one in each}
            )
            what = f"runs on {task} were recorded on different trajectories: {'; '.join(kinds)}"
            raise AnalysisError(what, hint="Record all of them on one bank: mbrl-pvr record RUN --bank BANK")
        kept.append(rows[rows["bank"].isin(shared - {""} or shared)])
    return pd.concat(kept).groupby("run")[list(errors.columns)].mean()


def difference(
    left: Sequence[np.ndarray], right: Sequence[np.ndarray], statistic: stats.Statistic, level: float, *, seed: int = 0
) -> Effect:
    """The statistic of all scores of the left side minus that of the right, with its interval: scores (runs,) of each
    task, which are drawn within tasks. A side with one run on a task has no interval.
    """
    sides = [[np.asarray(one, dtype=float) for one in side] for side in (left, right)]
    point = float(_over(statistic, sides[0])[0] - _over(statistic, sides[1])[0])
    n = min(len(one) for side in sides for one in side)
    if n < 2:
        return Effect(point, math.nan, math.nan, n)
    rng = np.random.default_rng(seed)
    draws = [_over(statistic, [_drawn(one, rng) for one in side]) for side in sides]
    error = float(np.std(draws[0] - draws[1])) * math.sqrt(n / (n - 1))
    half = float(student.ppf(0.5 + level / 2, _freedom(sides))) * error
    return Effect(point, point - half, point + half, n)


def _over(statistic: stats.Statistic, tasks: Sequence[np.ndarray]) -> np.ndarray:
    """The statistic over tasks of scores (..., runs) each, whose numbers of runs may differ: (...)."""
    pooled = np.concatenate([np.atleast_2d(one) for one in tasks], axis=-1)
    return statistic(pooled[..., None])


def _drawn(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return scores[rng.integers(len(scores), size=(REPETITIONS, len(scores)))]


def _freedom(sides: Sequence[Sequence[np.ndarray]]) -> float:
    """Welch and Satterthwaite's degrees of freedom, of the means over tasks."""
    parts = [(one.var(ddof=1) / len(one), len(one) - 1) for side in sides for one in side]
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return float(sum(freedom for _, freedom in parts))
    return total**2 / sum(variance**2 / freedom for variance, freedom in parts)


def correlation(x: np.ndarray, y: np.ndarray, level: float) -> Effect:
    """Pearson's r of points (n,) with Fisher's interval, in which atanh r ± z / √(n − 3) is turned back; none below
    five points, or where a side does not vary.
    """
    n = len(x)
    if n < 5 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Effect(math.nan, math.nan, math.nan, n)
    r = float(np.clip(np.corrcoef(x, y)[0, 1], -1 + 1e-12, 1 - 1e-12))
    half = float(student.ppf(0.5 + level / 2, math.inf)) / math.sqrt(n - 3)
    return Effect(r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), n)


def decide(effect: Effect, expect: str, margin: float) -> str:
    """Whether an effect is "below" `margin`, "above" minus it, or within both ("equal"): supported where its interval
    lies on that side, refuted where it lies on the other, undecided where it holds an end of it, or there is none.
    """
    low, high = ends(expect, margin)
    if low < effect.low and effect.high < high:
        return "supported"
    return "refuted" if effect.high < low or effect.low > high else "undecided"


def ends(expect: str, margin: float) -> tuple[float, float]:
    """Where a claim is true."""
    known = {"below": (-math.inf, margin), "above": (-margin, math.inf), "equal": (-margin, margin)}
    if expect not in known:
        raise AnalysisError(f"an effect is expected to be one of {', '.join(known)}, not {expect!r}")
    return known[expect]


def further_seeds(effect: Effect, expect: str, margin: float) -> int | None:
    """How many more seeds would decide, were the effect what was observed: a width ∝ 1/√n must become smaller than the
    distance g of the effect to the nearest end of the claim, so n′ = n (half width / g)². None where g is 0, and where
    there is no interval.
    """
    gap = min(abs(effect.point - end) for end in ends(expect, margin) if math.isfinite(end))
    if gap == 0 or not math.isfinite(effect.half_width):
        return None
    return max(1, math.ceil(effect.n * (effect.half_width / gap) ** 2) - effect.n)
