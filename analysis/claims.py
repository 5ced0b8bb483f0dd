"""Claims as tests: statements about encoders, each evaluated to supported, refuted or undecided.

A claim compares two sides, tells what it expects of their difference, and names the suite that it is about with the
least number of tasks. It is supported where the interval of every comparison lies on the expected side, refuted where
that of one lies on the other, and otherwise undecided: that no difference was seen supports nothing. Intervals are
Bonferroni's over the encoders of a claim, so that all of them hold at once with 95 %. To add a score, see
`effects.SCORES`.
"""

import difflib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis import effects, protocols, stats
from analysis.controls import CONTROLS, unlearned
from analysis.effects import SCORES, Effect
from analysis.errors import AnalysisError
from analysis.folders import Tables
from analysis.played import require_same
from analysis.runs import FINISHED

LEVEL = 0.95
EXPECTED = ("below", "above", "equal")
SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"


@dataclass(frozen=True)
class Claim:
    """`left` and `right` say which runs by columns of `runs`; "encoder" also takes groups. Every encoder of the left
    side is held against the right one, or with `over: encoders` the mean of all encoders of a side against that of the
    other. `correlate` takes the place of `right`: a second score, over the encoders of the left side.
    """

    name: str
    says: str
    suite: str  # "dmc/": all tasks whose names begin so; or the whole name of one task
    tasks: int  # fewest that decide it; of one task 1, of a suite more
    score: str
    left: Mapping[str, Any]
    expect: str
    right: Mapping[str, Any] = field(default_factory=dict)
    correlate: str = ""
    margin: float = 0.0  # how far beyond zero still counts as expected
    over: str = "runs"
    requires: str = ""  # "learned": no comparison on a task where a control did not learn
    source: str = ""  # the file that it stands in

    def __post_init__(self) -> None:
        choices = {
            "score": (self.score, tuple(SCORES)),
            "correlate": (self.correlate, ("", *SCORES)),
            "expect": (self.expect, EXPECTED),
            "over": (self.over, ("runs", "encoders")),
            "requires": (self.requires, ("", "learned")),
        }
        for key, (value, known) in choices.items():
            if value not in known:
                near = difflib.get_close_matches(str(value), known, 1)
                raise ValueError(f"{key} is {value!r}, not one of {', '.join(filter(None, known))}{_meant(near)}")
        if not isinstance(self.tasks, int) or self.tasks < 1:
            raise ValueError(f"tasks={self.tasks!r} should be the least number of tasks that decides")
        if not isinstance(self.suite, str) or not re.search("[/:]", self.suite):
            raise ValueError(f"suite={self.suite!r} should end in /, as dmc/, or be the whole name of a task")
        if self.tasks == 1 and not self.of_one_task:
            raise ValueError(
                f"one task does not decide a claim about the suite {self.suite!r}: say more, or name the task"
            )
        if self.tasks > 1 and self.of_one_task:
            raise ValueError(f"suite {self.suite!r} is one task, and tasks={self.tasks} asks for more: end it in /")
        if not isinstance(self.margin, int | float) or not 0 <= self.margin < math.inf:
            raise ValueError(f"margin={self.margin!r} should be a number that is not negative")
        if self.expect == "equal" and self.margin == 0:
            raise ValueError("what is expected to be equal needs a margin: nothing is equal to every digit")
        if bool(self.right) == bool(self.correlate):
            raise ValueError("a claim has either `right`, the other side, or `correlate`, the other score")

    @property
    def of_one_task(self) -> bool:
        return not self.suite.endswith(("/", ":"))  # gymnasium's are gym:ID

    @property
    def scores(self) -> list[str]:
        return [score for score in (self.score, self.correlate) if score]

    @property
    def counts_encoders(self) -> bool:
        """Whether encoders, not seeds, are what is counted."""
        return bool(self.correlate) or self.over == "encoders"

    def is_about(self, tasks: pd.Series) -> pd.Series:
        """Which of the tasks it is about."""
        return tasks == self.suite if self.of_one_task else tasks.str.startswith(self.suite)


@dataclass(frozen=True)
class Comparison:
    """One encoder, or group of them, against the other side."""

    encoder: str
    outcome: str
    effect: float | None  # left minus right: of normalised returns, or of logarithms of errors; or a correlation
    low: float | None
    high: float | None
    n: int  # seeds of each side on a task; encoders where these are what is counted
    tasks: int
    further_seeds: int | None  # on every task and side, to decide, were the effect what was observed


@dataclass(frozen=True)
class ClaimVerdict:
    """What came of a claim with one agent; `reason` says what keeps it undecided."""

    claim: str
    says: str
    agent: str
    outcome: str
    level: float  # of each interval
    comparisons: list[Comparison]
    further_seeds: int | None  # the most of its undecided comparisons
    reason: str
    source: str  # the file of the claim


def parse_claims(tree: Any, where: str) -> list[Claim]:
    """The claims of a file's content, {claims: {name: …}}; `where:` beside them adds to both sides of each. Raises
    AnalysisError.
    """
    if not isinstance(tree, dict) or not isinstance(tree.get("claims"), dict) or not tree["claims"]:
        raise AnalysisError("a file of claims has `claims`: a name for each, and what it says", where)
    if unknown := set(tree) - {"claims", "where"}:
        raise AnalysisError(f"unknown key {sorted(unknown)[0]!r} beside `claims`", where, "There is: where")
    return [_claim(str(name), content, tree.get("where") or {}, where) for name, content in tree["claims"].items()]


def _claim(name: str, content: Any, both: Any, where: str) -> Claim:
    place = f"{where}, claim {name}"
    known = [one.name for one in fields(Claim) if one.name not in ("name", "source")]
    if not isinstance(content, dict) or not isinstance(both, dict):
        raise AnalysisError("a claim is a mapping, as is `where`", place, f"Keys of a claim: {', '.join(known)}")
    if unknown := [str(key) for key in content if key not in known]:
        near = difflib.get_close_matches(unknown[0], known, 1)
        raise AnalysisError(f"unknown key {unknown[0]!r}{_meant(near)}", place, f"There are: {', '.join(known)}")
    needed = [one.name for one in fields(Claim) if one.default is MISSING and one.default_factory is MISSING]
    if missing := [key for key in needed if key != "name" and key not in content]:
        raise AnalysisError(
            f"{missing[0]} is missing", place, f"A claim has: {', '.join(n for n in needed if n != 'name')}"
        )
    for side in ("left", "right"):
        if not isinstance(content.get(side, {}), dict):
            raise AnalysisError(f"{side} should say which runs, as in {{encoder: scratch}}", place)
    sides = {side: {**both, **content[side]} for side in ("left", "right") if side in content}
    try:
        return Claim(name=name, source=where, **{**content, **sides})
    except ValueError as error:
        raise AnalysisError(str(error), place) from error


def _meant(near: Sequence[str]) -> str:
    return f"; did you mean {near[0]!r}?" if near else ""


def caption() -> str:
    """How verdicts are meant."""
    return (
        "Effects are differences, left minus right: of interquartile means of normalised returns over tasks and "
        "seeds, or of means of natural logarithms of errors; or correlations. Intervals are Student's with the "
        f"bootstrap's standard error, and hold for all encoders of a claim at once with {LEVEL:.0%} (Bonferroni). "
        "Supported: every interval lies where the claim says, at most its margin beyond zero; refuted: one lies "
        "elsewhere; undecided: all else. Further seeds: how many would decide if effects stayed as observed, for "
        "widths that shrink as 1/√n."
    )


def needed_tables(claims: Sequence[Claim]) -> frozenset[str]:
    """The tables that `evaluate` reads."""
    scores = {score for claim in claims for score in claim.scores}
    return frozenset(["runs", *(SCORES[score] for score in scores), *("ood" for claim in claims if claim.requires)])


def evaluate(claims: Sequence[Claim], tables: Tables, groups: Mapping[str, Collection[str]]) -> list[ClaimVerdict]:
    """A verdict for each claim and agent, of finished runs; `groups`: name to the encoders that belong to it. Encoders
    that a claim names, or that have runs in any state, are asked for: while one has none that has finished, it may be
    refuted, but is not supported.
    """
    runs = effects.score_table(tables).join(protocols.shared_table(tables))
    errors = effects.error_table(tables)
    agents = sorted(runs["agent"].unique())
    return [
        _verdict(claim, agent, runs[runs["agent"] == agent], errors, groups) for claim in claims for agent in agents
    ]


@dataclass(frozen=True)
class _Side:
    """Finished runs of a side, with their scores, and the encoders of it that lack such runs."""

    runs: pd.DataFrame
    waiting: frozenset[str]


def _verdict(
    claim: Claim, agent: str, runs: pd.DataFrame, errors: pd.DataFrame, groups: Mapping[str, Collection[str]]
) -> ClaimVerdict:
    mine = runs[claim.is_about(runs["task"])]
    dropped: dict[str, str] = {}
    if claim.requires:
        finished = mine[mine["state"] == FINISHED]
        dropped = {
            task: why for task, rows in finished.groupby("task") if (why := _no_control(rows) or unlearned(rows))
        }
        mine = mine[~mine["task"].isin(list(dropped))]
    reasons = [f"no comparison on {', '.join(f'{task} ({why})' for task, why in dropped.items())}"] if dropped else []
    try:
        left, right = _sides(claim, mine, errors, groups)
        waiting = sorted({name for side in (left, right) if len(side.runs) for name in side.waiting})
        if waiting:
            have = "has" if len(waiting) == 1 else "have"
            where = " on every task" if claim.counts_encoders else ""
            reasons.append(f"{', '.join(waiting)} {have} no finished runs with {' and '.join(claim.scores)}{where} yet")
        found, level = _compare(claim, left, right)
    except AnalysisError as problem:
        found, level = [], LEVEL
        reasons += [] if dropped and mine.empty else [problem.what]
    else:
        reasons += _because(claim, [one for one in found if one.encoder not in waiting])
    outcomes = {one.outcome for one in found}
    outcome = REFUTED if REFUTED in outcomes else SUPPORTED if outcomes == {SUPPORTED} else UNDECIDED
    open_ones = [one.further_seeds for one in found if one.outcome == UNDECIDED] if outcome == UNDECIDED else []
    known = [seeds for seeds in open_ones if seeds is not None]
    further = max(known) if known and len(known) == len(open_ones) else None
    what = (claim.name, claim.says, agent, outcome, level, found, further)
    return ClaimVerdict(*what, reason="; ".join(reasons), source=claim.source)


def _because(claim: Claim, found: Sequence[Comparison]) -> list[str]:
    """What keeps intervals from deciding, beside their width."""
    tasks = min(one.tasks for one in found)
    few = [f"{tasks} of at least {claim.tasks} tasks"] if tasks < claim.tasks else []
    alone = any(one.effect is not None and one.low is None for one in found)
    return [*few, *(["too few seeds or encoders for an interval"] if alone else [])]


def _no_control(rows: pd.DataFrame) -> str:
    return "" if rows["encoder"].isin(CONTROLS).any() else f"{' and '.join(CONTROLS)} were not run"


def _sides(
    claim: Claim, runs: pd.DataFrame, errors: pd.DataFrame, groups: Mapping[str, Collection[str]]
) -> tuple[_Side, _Side]:
    """Both sides; AnalysisError where their runs or scores are not comparable, or several runs are one encoder, task
    and seed.
    """
    if runs.empty:
        raise AnalysisError(f"no runs on {claim.suite}")
    chosen = [_chosen(which, runs, groups) if which else runs.iloc[:0] for which in (claim.left, claim.right)]
    both = pd.concat(chosen)
    if any(SCORES[score] == "errors" for score in claim.scores):
        shared = effects.errors_on_shared(both[~both.index.duplicated()], errors)
        chosen = [rows.join(shared) for rows in chosen]
    left, right = (_side(claim, *one, groups) for one in zip((claim.left, claim.right), chosen, strict=True))
    if claim.over == "encoders":  # those of the left side do not count on the right
        own = {*left.runs["encoder"], *left.waiting}
        right = _Side(right.runs[~right.runs["encoder"].isin(own)], right.waiting - own)
    protocols.require_alike(left.runs, right.runs, {"left": claim.left, "right": claim.right})
    if effects.OUTSIDE in claim.scores:
        rows = pd.concat([left.runs, right.runs])[["task", effects.CONDITIONS]].dropna()
        require_same(zip(rows["task"], rows.index, rows[effects.CONDITIONS], strict=True))
    return left, right


def _chosen(which: Mapping[str, Any], runs: pd.DataFrame, groups: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """The runs of a side, in any state."""
    rows = runs
    for key, value in which.items():
        wanted = _values(value)
        if key == "encoder":
            wanted = [name for one in wanted for name in groups.get(one, [one])]
        column = rows[key] if key in rows else pd.Series(None, rows.index, dtype=object)
        rows = rows[column.isin([one for one in wanted if one is not None]) | (column.isna() & (None in wanted))]
    return rows


def _side(claim: Claim, which: Mapping[str, Any], rows: pd.DataFrame, groups: Mapping[str, Collection[str]]) -> _Side:
    """The runs of a side that have the scores. Encoders wait where none of their runs does; where encoders are what is
    counted, also where none of those on one of the tasks of this side does: means over other tasks say nothing of them.
    """
    scored = rows[rows[claim.scores].notna().all(axis="columns")]
    twice = scored[scored.duplicated(effects.KEYS)]
    if len(twice):
        first = twice.iloc[0]
        what = f"several runs of {first['encoder']} on {first['task']}, seed {first['seed']}: `where` should say which"
        raise AnalysisError(what)
    asked = {*rows["encoder"], *(name for name in _values(which.get("encoder", [])) if name not in groups)}
    if claim.counts_encoders:
        whole = scored.groupby("encoder")["task"].nunique() == rows["task"].nunique()
        return _Side(scored, frozenset(asked - {*whole.index[whole]}))
    return _Side(scored, frozenset(asked - {*scored["encoder"]}))


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _compare(claim: Claim, left: _Side, right: _Side) -> tuple[list[Comparison], float]:
    """Every comparison of a claim, and the level of each of its intervals; AnalysisError where there is none."""
    if left.runs.empty or (claim.right and right.runs.empty):
        raise AnalysisError(f"no finished runs of {'the left side' if left.runs.empty else 'the right side'}")
    if claim.counts_encoders:  # what they all say is not known before each of them has said it
        one = _correlated(claim, left.runs) if claim.correlate else _between_groups(claim, left.runs, right.runs)
        return [replace(one, outcome=UNDECIDED) if left.waiting or right.waiting else one], LEVEL
    if (others := len({*right.runs["encoder"], *right.waiting})) > 1:
        raise AnalysisError(f"the right side has {others} encoders, not one; `over: encoders` compares means of groups")
    encoders = sorted({*left.runs["encoder"], *left.waiting})
    level = 1 - (1 - LEVEL) / len(encoders)
    found = []
    for encoder in encoders:
        mine = left.runs[left.runs["encoder"] == encoder]
        pairs = _pairs(mine, right.runs, claim.score)
        found.append(_comparison(claim, encoder, pairs, len(pairs), level, stats.iqm))
    return found, level


def _pairs(left: pd.DataFrame, right: pd.DataFrame, score: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores of both sides on every task, of the seeds that both have there: else a side with more seeds on easy tasks
    would look better.
    """
    both = left.merge(right, on=["task", "seed"], suffixes=("_left", "_right"))
    return [(rows[f"{score}_left"].to_numpy(), rows[f"{score}_right"].to_numpy()) for _, rows in both.groupby("task")]


def _between_groups(claim: Claim, left: pd.DataFrame, right: pd.DataFrame) -> Comparison:
    """Encoders are what is counted: a property belongs to an encoder, and more seeds of it say nothing more of that."""
    tasks = sorted(set(left["task"]) & set(right["task"]))
    sides = [_encoder_scores(side[side["task"].isin(tasks)], claim.score, tasks) for side in (left, right)]
    names = f"{len(sides[0])} against {len(sides[1])} encoders"
    if not all(len(side) for side in sides):
        raise AnalysisError("no encoder of one side was run on all tasks that both have")
    return _comparison(claim, names, [(sides[0], sides[1])], len(tasks), LEVEL, stats.mean)


def _encoder_scores(side: pd.DataFrame, score: str, tasks: Sequence[str]) -> np.ndarray:
    """The IQM of every encoder that was run on all the tasks."""
    whole = side.groupby("encoder").filter(lambda rows: rows["task"].nunique() == len(tasks))
    return np.array([float(stats.iqm(rows.to_numpy()[:, None])) for _, rows in whole.groupby("encoder")[score]])


def _correlated(claim: Claim, left: pd.DataFrame) -> Comparison:
    """Over encoders that were run on all tasks, each the mean of its seeds, on the one task of the suite or averaged
    over its tasks.
    """
    tasks = int(left["task"].nunique())
    whole = left.groupby("encoder").filter(lambda rows: rows["task"].nunique() == tasks)
    points = whole.groupby(["encoder", "task"])[[claim.score, claim.correlate]].mean().groupby("encoder").mean()
    effect = effects.correlation(points[claim.score].to_numpy(), points[claim.correlate].to_numpy(), LEVEL)
    return _judged(claim, f"{len(points)} encoders", effect, tasks, seeds_help=False)


def _comparison(
    claim: Claim,
    name: str,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    tasks: int,
    level: float,
    statistic: stats.Statistic,
) -> Comparison:
    if not pairs:
        return Comparison(name, UNDECIDED, None, None, None, 0, 0, None)
    statistic = stats.mean if SCORES[claim.score] == "errors" else statistic
    effect = effects.difference([one for one, _ in pairs], [other for _, other in pairs], statistic, level)
    return _judged(claim, name, effect, tasks, seeds_help=claim.over == "runs")


def _judged(claim: Claim, name: str, effect: Effect, tasks: int, *, seeds_help: bool) -> Comparison:
    """Fewer tasks than a claim asks for leave it undecided, whatever their interval."""
    enough = tasks >= claim.tasks
    outcome = effects.decide(effect, claim.expect, claim.margin) if enough else UNDECIDED
    more = seeds_help and enough and outcome == UNDECIDED
    further = effects.further_seeds(effect, claim.expect, claim.margin) if more else None
    point, low, high = (value if math.isfinite(value) else None for value in (effect.point, effect.low, effect.high))
    return Comparison(name, outcome, point, low, high, effect.n, tasks, further)
