"""Claims against simulated studies whose truth is known: planted effects, no effect, and what may not decide."""

import json
import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from analysis import AnalysisError, effects
from analysis.claims import evaluate, parse_claims
from analysis.effects import Effect, decide, difference, further_seeds

GROUPS = {"pretrained": ["a", "b", "c", "d"], "vit": ["a", "b"]}
TASKS = ("dmc/one-x", "dmc/two-x", "dmc/three-x", "dmc/four-x")
CLAIM = {
    "says": "No pretrained one is better",
    "suite": "dmc/",
    "tasks": 3,
    "score": "out_of_distribution",
    "left": {"encoder": "pretrained"},
    "right": {"encoder": "scratch"},
    "expect": "below",
}


def study(rng, levels, seeds=5, tasks=TASKS, noise=0.08, agent="dreamerv3", inside=None, **settings):
    """Tables of runs whose normalised returns lie about encoder's level + task's, both kinds of looks alike; `inside`:
    levels under the looks of training where these differ; `settings`: of all of them, by dotted key.
    """
    runs, ood = [], []
    for encoder, level in levels.items():
        for place, task in enumerate(tasks):
            for seed in range(seeds):
                name = f"{agent}-{encoder}-{task}-{seed}-{settings}"
                own = {"id": name, "state": "finished", "agent": agent, "encoder": encoder, "task": task, "seed": seed}
                own |= {"name": name, "config": config(agent, encoder, task, **settings), "manifest": "{}"}
                runs.append({**own, "encoder.truncate": None, **settings})
                drawn = 0.1 * place + rng.normal(0, noise)
                start = (inside or {}).get(encoder, level)
                for shift, value in (("none", start), ("dark", level)):
                    split = "train" if shift == "none" else "held_out"
                    row = {"run": name, "step": 10, "split": split, "shift": shift, "severity": 1.0}
                    ood.append({**row, "normalised": value + drawn})
    return {"runs": pa.Table.from_pylist(runs), "ood": pa.Table.from_pylist(ood)}


def config(agent, encoder, task, **settings):
    """A configuration as text, with settings by dotted key."""
    tree = {"agent": {"name": agent}, "encoder": {"name": encoder, "truncate": None}, "env": {"name": task}}
    for key, value in {"steps": 1000, **settings}.items():
        section, _, name = key.rpartition(".")
        (tree[section] if section else tree)[name] = value
    return json.dumps(tree)


def joined(*studies):
    """The tables of several studies as one."""
    return {name: pa.concat_tables([one[name] for one in studies], promote_options="permissive") for name in studies[0]}


def verdict(tables, groups=GROUPS, **changes):
    """The one verdict of the claim."""
    content = {key: value for key, value in {**CLAIM, **changes}.items() if value is not None}
    (found,) = evaluate(parse_claims({"claims": {"it": content}}, "here"), tables, groups)
    return found


@pytest.fixture
def rng():
    return np.random.default_rng(0)


WORSE = {"scratch": 0.6, "a": 0.3, "b": 0.2}


def test_a_planted_effect_is_supported_its_opposite_refuted_and_noise_undecided(rng):
    tables = study(rng, WORSE)
    found = verdict(tables)
    assert found.outcome == "supported" and found.reason == "" and found.further_seeds is None
    assert found.level == pytest.approx(0.975)  # Bonferroni over two encoders
    assert [one.encoder for one in found.comparisons] == ["a", "b"]
    first = found.comparisons[0]
    assert first.effect == pytest.approx(-0.3, abs=0.07) and first.low < first.effect < first.high < 0
    assert (first.n, first.tasks, first.further_seeds) == (5, 4, None)
    assert verdict(tables, expect="above").outcome == "refuted"
    noise = verdict(study(rng, {"scratch": 0.5, "a": 0.5, "b": 0.5}))
    assert noise.outcome == "undecided"
    assert noise.further_seeds == max(one.further_seeds for one in noise.comparisons if one.outcome == "undecided")


def test_one_encoder_that_is_better_refutes_that_none_is(rng):
    found = verdict(study(rng, {**WORSE, "c": 0.95}))
    assert [one.outcome for one in found.comparisons] == ["supported", "supported", "refuted"]
    assert found.outcome == "refuted"


def test_no_significant_difference_is_no_equality(rng):
    wide, narrow = (study(rng, {"scratch": 0.5, "a": 0.5}, noise=noise) for noise in (0.3, 0.01))
    assert verdict(wide, expect="equal", margin=0.05).outcome == "undecided"
    assert verdict(narrow, expect="equal", margin=0.05).outcome == "supported"
    assert verdict(study(rng, WORSE), expect="equal", margin=0.05).outcome == "refuted"


def test_too_few_tasks_or_seeds_decide_nothing_however_large_the_effect(rng):
    one = verdict(study(rng, {"scratch": 0.9, "a": 0.1}, tasks=TASKS[:1], noise=0.001))
    assert (one.outcome, one.reason, one.further_seeds) == ("undecided", "1 of at least 3 tasks", None)
    lone = verdict(study(rng, {"scratch": 0.9, "a": 0.1}, seeds=1))
    assert (lone.outcome, lone.reason) == ("undecided", "too few seeds or encoders for an interval")
    with pytest.raises(AnalysisError, match="one task does not decide a claim about the suite 'dmc/'"):
        verdict(study(rng, WORSE), tasks=1)
    single = verdict(study(rng, WORSE), suite="dmc/one-x", tasks=1)  # a claim about that task
    assert single.outcome == "supported"
    for part in ("dmc/one", "dmc/one-"):  # how its name begins is not its name
        assert verdict(study(rng, WORSE), suite=part, tasks=1).outcome == "undecided"
    gym = verdict(study(rng, WORSE, tasks=("gym:A-v0", "gym:B-v0")), suite="gym:", tasks=2)
    assert gym.outcome == "supported" and gym.comparisons[0].tasks == 2
    assert verdict(study(rng, WORSE), suite="maniskill/").reason == "no runs on maniskill/"


def test_where_a_control_did_not_learn_nothing_is_compared(rng):
    inside = {"scratch": 0.6, "state": -0.25}  # gains 0.05 on the fourth task, where 0.1 is asked for
    tables = study(rng, {**WORSE, "state": 0.6}, noise=0.01, inside=inside)
    assert verdict(tables).outcome == "supported"
    found = verdict(tables, requires="learned")
    assert (found.outcome, found.comparisons) == ("undecided", [])
    words = (
        r"no comparison on dmc/four-x \(state gained 0\.0\d+ of 0\.1\), dmc/one-x \(state gained -0\.250 of 0\.1\), .*"
    )
    assert re.fullmatch(words, found.reason)
    inside["state"] = 0.05  # on the first task 0.05, on the others more than 0.1
    found = verdict(study(rng, {**WORSE, "state": 0.6}, noise=0.001, inside=inside), requires="learned")
    assert found.outcome == "supported" and found.comparisons[0].tasks == 3
    assert re.fullmatch(r"no comparison on dmc/one-x \(state gained 0\.0\d+ of 0\.1\)", found.reason)
    without = study(rng, {"a": 0.5, "b": 0.6})  # no control at all
    assert "state and scratch were not run" in verdict(without, requires="learned", right={"encoder": "b"}).reason


def test_seeds_that_one_side_lacks_do_not_count(rng):
    """A side with more seeds on an easy task would look better."""
    tables = study(rng, {"scratch": 0.5, "a": 0.5}, noise=0.001)
    runs = tables["runs"]
    easy = pa.compute.and_(pa.compute.equal(runs["encoder"], "scratch"), pa.compute.greater(runs["seed"], 1))
    hard = pa.compute.not_equal(tables["runs"]["task"], "dmc/four-x")
    kept = {**tables, "runs": tables["runs"].filter(pa.compute.invert(pa.compute.and_(easy, hard)))}
    (one,) = verdict(kept, expect="equal", margin=0.02).comparisons
    assert one.n == 2 and one.effect == pytest.approx(0, abs=0.01)


def test_groups_of_encoders_count_encoders(rng):
    levels = {"a": 0.9, "b": 0.8, "c": 0.2, "d": 0.3}
    asked = {"left": {"encoder": "vit"}, "right": {"encoder": "pretrained"}, "over": "encoders", "expect": "above"}
    few, many = (verdict(study(rng, levels, seeds, noise=0.01), **asked).comparisons[0] for seeds in (3, 30))
    assert (few.encoder, few.n, few.further_seeds) == ("2 against 2 encoders", 2, None)
    assert few.effect == pytest.approx(0.6, abs=0.1)
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.2)  # seeds are not encoders


def test_settings_say_which_runs_of_an_encoder_are_meant(rng):
    full, cut = study(rng, {"a": 0.8}, seeds=6), study(rng, {"a": 0.3}, seeds=6, **{"encoder.truncate": 8})
    both = joined(full, cut)
    sides = {"left": {"encoder": "a", "encoder.truncate": 8}, "right": {"encoder": "a", "encoder.truncate": None}}
    assert verdict(both, **sides).outcome == "supported"
    vague = verdict(both, left={"encoder": "a"}, right=sides["right"])
    assert vague.reason == "several runs of a on dmc/one-x, seed 0: `where` should say which"
    shared = {
        "where": {"encoder.truncate": None},
        "claims": {"it": {**CLAIM, "left": sides["left"], "right": {"encoder": "a"}}},
    }
    assert evaluate(parse_claims(shared, "here"), both, GROUPS)[0].outcome == "supported"


def test_agents_have_verdicts_of_their_own(rng):
    one, two = study(rng, WORSE), study(rng, {"scratch": 0.2, "a": 0.7, "b": 0.8}, agent="tdmpc2")
    both = joined(one, two)
    found = evaluate(parse_claims({"claims": {"it": CLAIM}}, "here"), both, GROUPS)
    assert [(v.agent, v.outcome) for v in found] == [("dreamerv3", "supported"), ("tdmpc2", "refuted")]


def recorded(rng, tables, errors):
    """Table of errors of all runs; `errors`: encoder and task to the logarithm of the latent's error on each bank."""
    runs = tables["runs"].to_pandas()
    same = {"shift": "", "window": 33, "constant": 0.0, "scale": 2.0}
    rows = []
    for run, encoder, task in zip(runs["id"], runs["encoder"], runs["task"], strict=True):
        for bank, level in errors(encoder, task).items():
            error = 33 * 2.0 * math.exp(level + rng.normal(0, 0.01))
            row = {"run": run, "bank": bank, **same, "error": error}
            rows.append({**row, "reward_error": 33 * math.exp(rng.normal())})
    return pa.Table.from_pylist(rows)


def test_errors_are_compared_as_logarithms_and_correlated_with_returns(rng):
    levels = {name: 0.1 * place for place, name in enumerate(["scratch", "a", "b", "c", "d", "e", "f", "g"])}
    tables = study(rng, levels, tasks=TASKS[:1])
    tables["errors"] = recorded(rng, tables, lambda encoder, task: {"": -3 * levels[encoder]})
    here = {"suite": "dmc/one-x", "tasks": 1}
    (one,) = verdict(tables, **here, score="dynamics_error", left={"encoder": "d"}).comparisons
    assert one.effect == pytest.approx(-1.2, abs=0.02)
    groups = {"all": list(levels)}
    related = {**here, "left": {"encoder": "all"}, "right": None, "correlate": "in_distribution"}
    found = verdict(tables, groups, **related, score="dynamics_error")
    assert found.outcome == "supported" and found.comparisons[0].effect < -0.95
    assert (found.comparisons[0].n, found.comparisons[0].encoder) == (8, "8 encoders")
    assert verdict(tables, groups, **related, score="reward_error").outcome == "undecided"


def test_errors_on_trajectories_of_different_banks_are_not_compared(rng):
    """Each task has trajectories of its own: a bank of one task says nothing of the others."""
    tables = study(rng, {"scratch": 0.5, "a": 0.5}, tasks=TASKS[:3])
    asked = {"score": "dynamics_error", "left": {"encoder": "a"}, "expect": "below"}
    one = {"suite": "dmc/one-x", "tasks": 1}

    def of(errors, **changes):
        return verdict({**tables, "errors": recorded(rng, tables, errors)}, **asked, **changes)

    def level(encoder):
        return -1.0 if encoder == "a" else 0.0

    found = of(lambda encoder, task: {"bank1" if encoder == "a" else "bank2": level(encoder)})
    reason = "runs on dmc/one-x were recorded on different trajectories: bank bank1; bank bank2"
    assert (found.outcome, found.comparisons, found.reason) == ("undecided", [], reason)
    found = of(lambda encoder, task: {"bank1": -1.0} if encoder == "a" else {"": 0.0}, **one)
    assert found.reason == "runs on dmc/one-x were recorded on different trajectories: bank bank1; their own episodes"
    both = of(lambda encoder, task: {"bank1": level(encoder)} | ({"bank2": 9.0} if encoder == "a" else {"": 9.0}))
    assert both.outcome == "supported"  # by the bank that all share
    assert both.comparisons[0].effect == pytest.approx(-1, abs=0.02)
    other = of(lambda encoder, task: {"bank1" if task == "dmc/one-x" else "": level(encoder)})
    assert (other.outcome, other.comparisons[0].tasks) == ("supported", 3)  # runs without a bank keep their score


def test_an_encoder_file_of_each_task_is_one_encoder(rng):
    tables = study(rng, {"scratch": 0.6, "own": 0.3})
    runs = tables["runs"].to_pandas()
    own = runs["encoder"] == "own"
    runs.loc[own, "encoder"] = [f"encoders/autoencoder-{t.removeprefix('dmc/')}.safetensors" for t in runs["task"][own]]
    (one,) = verdict({**tables, "runs": pa.Table.from_pandas(runs)}, left={"encoder": "autoencoder"}).comparisons
    assert (one.encoder, one.tasks) == ("autoencoder", 4)


def test_further_seeds_are_those_that_halve_the_width():
    assert further_seeds(Effect(0.1, -0.1, 0.3, 5), "below", 0.0) == 15  # twice as wide as its distance: 5 · 2² seeds
    assert further_seeds(Effect(-0.1, -0.21, 0.01, 5), "below", 0.0) == 2  # 5 · 1.1² = 6.05
    assert further_seeds(Effect(0.02, -0.04, 0.08, 4), "equal", 0.05) == 12  # 0.03 inside the margin
    assert further_seeds(Effect(0.0, -0.1, 0.1, 5), "above", 0.0) is None
    assert further_seeds(Effect(0.1, math.nan, math.nan, 1), "above", 0.0) is None


@pytest.mark.parametrize(
    ("ends", "expect", "margin", "outcome"),
    [
        ((-0.3, -0.1), "below", 0.0, "supported"),
        ((-0.3, 0.04), "below", 0.05, "supported"),
        ((-0.3, 0.04), "below", 0.0, "undecided"),
        ((0.06, 0.2), "below", 0.05, "refuted"),
        ((0.01, 0.2), "below", 0.05, "undecided"),
        ((-0.04, 0.3), "above", 0.05, "supported"),
        ((-0.3, -0.1), "above", 0.05, "refuted"),
        ((-0.04, 0.04), "equal", 0.05, "supported"),
        ((-0.06, 0.04), "equal", 0.05, "undecided"),
        ((-0.2, -0.06), "equal", 0.05, "refuted"),
        ((math.nan, math.nan), "below", 0.05, "undecided"),
    ],
)
def test_where_the_interval_lies_decides(ends, expect, margin, outcome):
    assert decide(Effect(sum(ends) / 2, *ends, 5), expect, margin) == outcome


@pytest.mark.parametrize(("seeds", "tasks"), [(3, 5), (5, 5), (3, 1)])
def test_false_support_stays_below_its_nominal_level(seeds, tasks):
    """Of 200 studies without any difference, one in forty would show one on the expected side at 95 %."""
    rng = np.random.default_rng(seeds)
    level = 0.1 * np.arange(tasks)[:, None]
    supported = refuted = 0
    for number in range(200):
        sides = [list(level + rng.normal(0, 0.1, (tasks, seeds))) for _ in range(2)]
        outcome = decide(difference(*sides, effects.stats.iqm, 0.95, seed=number), "below", 0.0)
        supported, refuted = supported + (outcome == "supported"), refuted + (outcome == "refuted")
    assert supported / 200 <= 0.05 and refuted / 200 <= 0.05
    assert supported + refuted > 0  # an interval that decides nothing at all would pass


def test_an_effect_of_the_mean_is_that_of_welch():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(3)
    x, y = rng.normal(0, 1, 12), rng.normal(0.5, 2, 12)
    found = difference([x], [y], effects.stats.mean, 0.95)
    wanted = ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert found.point == pytest.approx(x.mean() - y.mean())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=0.06)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"scor": "x"}, r"unknown key 'scor'; did you mean 'score'\? \(here, claim it\)"),
        ({"score": "ood"}, "score is 'ood', not one of in_distribution, out_of_distribution"),
        ({"expect": "higher"}, "expect is 'higher', not one of below, above, equal"),
        ({"tasks": 0}, "tasks=0 should be the least number"),
        ({"suite": None}, "suite is missing"),
        ({"suite": "dmc"}, "suite='dmc' should end in /, as dmc/, or be the whole name of a task"),
        ({"suite": ["dmc/one-x"]}, "should end in /"),
        ({"suite": "dmc/one"}, "suite 'dmc/one' is one task, and tasks=3 asks for more: end it in /"),
        ({"suite": "dmc:", "tasks": 1}, "one task does not decide a claim about the suite 'dmc:'"),
        ({"margin": -1}, "margin=-1 should be a number that is not negative"),
        ({"expect": "equal"}, "needs a margin"),
        ({"correlate": "in_distribution"}, "either `right`, the other side, or `correlate`"),
        ({"right": None}, "either `right`, the other side, or `correlate`"),
        ({"left": "vit"}, "left should say which runs"),
        ({"requires": "luck"}, "requires is 'luck', not one of learned"),
    ],
)
def test_what_is_wrong_in_a_claim_is_said(change, match):
    content = {key: value for key, value in {**CLAIM, **change}.items() if value is not None}
    with pytest.raises(AnalysisError, match=match):
        parse_claims({"claims": {"it": content}}, "here")


def test_a_file_without_claims_is_refused():
    for tree in (None, [], {"claims": {}}, {"parts": {}}):
        with pytest.raises(AnalysisError, match="a file of claims has `claims`"):
            parse_claims(tree, "here")


def test_only_finished_runs_and_their_newest_checkpoint_count(rng):
    tables = study(rng, {"scratch": 0.9, "a": 0.1}, noise=0.01)
    ood = tables["ood"].to_pandas()
    older = ood.assign(step=1, normalised=5.0)
    tables["ood"] = pa.Table.from_pandas(pd.concat([older, ood], ignore_index=True))
    (one,) = verdict(tables).comparisons
    assert one.effect == pytest.approx(-0.8, abs=0.02)
    found = verdict(unfinished(tables, "scratch", "a"))
    assert (found.outcome, found.reason) == ("undecided", "no finished runs of the left side")


def unfinished(tables, *encoders, state="running", only=""):
    """The study with runs of some encoders, or `only` those on one task, not finished; some have played already."""
    runs = tables["runs"].to_pandas()
    theirs = runs["encoder"].isin(encoders) & runs["task"].str.endswith(only)
    runs.loc[theirs, "state"] = state
    return {**tables, "runs": pa.Table.from_pandas(runs)}


@pytest.mark.parametrize("state", ["running", "interrupted", "failed", "new"])
def test_what_is_half_finished_supports_nothing_and_can_be_refuted(rng, state):
    """Encoders of a group are asked for where they have runs, whatever became of them."""
    tables = study(rng, {**WORSE, "c": 0.1, "d": 0.1})
    assert verdict(tables).outcome == "supported"
    found = verdict(unfinished(tables, "b", "c", state=state))
    reason = "b, c have no finished runs with out_of_distribution yet"
    assert (found.outcome, found.reason, found.further_seeds) == ("undecided", reason, None)
    assert [(one.encoder, one.outcome, one.n) for one in found.comparisons] == [
        *(("a", "supported", 5), ("b", "undecided", 0), ("c", "undecided", 0), ("d", "supported", 5)),
    ]
    assert found.level == pytest.approx(1 - 0.05 / 4)  # Bonferroni counts those that are still to come
    assert verdict(unfinished(tables, "c", state=state), expect="above").outcome == "refuted"
    assert verdict(unfinished(tables, "c", state=state), suite="dmc/one-x", tasks=1).outcome == "undecided"
    runs = tables["runs"].to_pandas()
    elsewhere = runs.assign(task=runs["task"].where(runs["encoder"] != "c", "maniskill/x"))
    assert verdict(unfinished({**tables, "runs": pa.Table.from_pandas(elsewhere)}, "c")).outcome == "supported"


def test_an_encoder_that_a_claim_names_is_asked_for_without_a_run(rng):
    found = verdict(study(rng, WORSE), left={"encoder": ["a", "d"]})
    assert (found.outcome, found.reason) == ("undecided", "d has no finished runs with out_of_distribution yet")
    assert found.level == pytest.approx(0.975)
    assert verdict(study(rng, WORSE), left={"encoder": ["a", "vit"]}).outcome == "supported"


def test_means_of_groups_wait_for_all_their_encoders_on_all_tasks(rng):
    """A group of which some are lacking is another group: it neither supports nor refutes."""
    tables = study(rng, {"a": 0.9, "b": 0.8, "c": 0.2, "d": 0.3, "e": 0.25}, seeds=3, noise=0.01)
    groups = {"vit": ["a", "b"], "pretrained": ["a", "b", "c", "d", "e", "never"]}
    asked = {"left": {"encoder": "vit"}, "right": {"encoder": "pretrained"}, "over": "encoders"}
    for expect, whole in (("above", "supported"), ("below", "refuted")):
        assert verdict(tables, groups, **asked, expect=expect).outcome == whole
        found = verdict(unfinished(tables, "e"), groups, **asked, expect=expect)
        reason = "e has no finished runs with out_of_distribution on every task yet"
        assert (found.outcome, found.reason) == ("undecided", reason)
        assert (
            found.comparisons[0].effect == pytest.approx(0.6, abs=0.1) and found.comparisons[0].outcome == "undecided"
        )
    one_task = verdict(unfinished(tables, "e", only="two-x"), groups, **asked, expect="above")
    assert one_task.outcome == "undecided" and one_task.reason.startswith("e has no finished runs")
    named = {**asked, "left": {"encoder": ["a", "b"]}, "right": {"encoder": ["a", "b", "c", "d", "e"]}}
    assert verdict(tables, groups, **named, expect="above").outcome == "supported"


def test_a_correlation_waits_for_all_its_encoders(rng):
    levels = {name: 0.1 * place for place, name in enumerate("abcdefgh")}
    tables = study(rng, levels, noise=0.01)
    related = {"left": {"encoder": list(levels)}, "right": None, "correlate": "in_distribution", "expect": "above"}
    assert verdict(tables, **related).outcome == "supported"
    found = verdict(unfinished(tables, "h"), **related)
    reason = "h has no finished runs with out_of_distribution and in_distribution on every task yet"
    assert (found.outcome, found.reason, found.comparisons[0].n) == ("undecided", reason, 7)
    assert verdict(unfinished(tables, "h"), **{**related, "expect": "below"}).outcome == "undecided"


def test_encoders_of_fewer_tasks_neither_correlate_nor_count_in_a_mean(rng):
    """Means over other tasks differ by what the tasks are: here both scores are highest on the last two."""
    few, all_tasks = "abcd", "efgh"
    levels = dict.fromkeys(few + all_tasks, 0.3)
    tables = joined(study(rng, dict.fromkeys(few, 0.3), tasks=TASKS[2:]), study(rng, dict.fromkeys(all_tasks, 0.3)))
    related = {"right": None, "correlate": "in_distribution", "expect": "above", "margin": 0}
    found = verdict(tables, left={"encoder": list(levels)}, **related)
    assert found.outcome == "undecided" and found.reason.startswith("a, b, c, d have no finished runs")
    assert found.comparisons[0].encoder == "4 encoders"  # their means alone are of the same tasks
    means = {"left": {"encoder": list(all_tasks)}, "right": {"encoder": list(levels)}, "over": "encoders"}
    found = verdict(tables, **means, expect="below")
    assert found.outcome == "undecided" and "a, b, c, d have no finished runs" in found.reason


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        *(("steps", 1000, 1_000_000), ("env.action_repeat", 2, 4), ("env.render", "fast", "study")),
        ("env.shifts", "none", "color_easy"),
    ],
)
def test_runs_of_other_protocols_are_not_compared(rng, key, one, other):
    tables = joined(study(rng, {"scratch": 0.6}, **{key: one}), study(rng, {"a": 0.3, "b": 0.2}, **{key: other}))
    found = verdict(tables)
    assert found.outcome == "undecided" and found.comparisons == []
    assert f"runs on dmc/four-x cannot be compared: {key} is " in found.reason
    meant = {"left": {"encoder": "pretrained", key: other}, "right": {"encoder": "scratch", key: one}}
    assert verdict(tables, **meant).outcome == "supported"


def test_seeds_of_other_settings_are_not_pooled(rng):
    """Nor those that a claim does not read as one; what nothing reads, or how a run is saved, tells none apart."""
    first = study(rng, WORSE, seeds=3, **{"agent.lr": 1e-3, "keep_checkpoints": 1, "env.render": "fast"})
    more = study(rng, {"a": 0.3}, seeds=5, **{"agent.lr": 1e-1, "env.render": "fast"})
    later = {
        name: table.filter(pa.array([row.get("seed", 4) > 2 for row in table.to_pylist()]))
        for name, table in more.items()
    }
    assert verdict(joined(first, later)).reason.startswith("runs of a on dmc/four-x cannot be compared: agent.lr is ")
    own = study(
        rng, {"a": 0.3}, seeds=3, **{"agent.lr": 1e-1, "env.render": "fast"}
    )  # encoders may have settings of theirs
    without = study(rng, {"scratch": 0.6, "b": 0.2}, seeds=3, **{"keep_checkpoints": 9, "env.render": "fast"})
    assert verdict(joined(own, without)).outcome == "supported"


def test_encoders_of_one_name_with_other_weights_are_not_pooled(rng):
    tables = study(rng, WORSE)
    rows = tables["runs"].to_pylist()
    for row in rows:
        row["manifest"] = json.dumps({"encoder": {"weights_sha256": "x" if row["seed"] else "y"}})
    found = verdict({**tables, "runs": pa.Table.from_pylist(rows)})
    assert found.outcome == "undecided" and "encoder.weights_sha256 is " in found.reason


def test_a_control_that_has_not_finished_is_no_control(rng):
    tables = study(rng, {**WORSE, "state": 0.05}, noise=0.001)
    assert verdict(tables, requires="learned").reason.startswith("no comparison on dmc/one-x (state gained")
    assert verdict(unfinished(tables, "state"), requires="learned").outcome == "supported"


def test_returns_under_other_severities_decide_nothing(rng):
    """Lower severities of one run do not count; runs whose highest differ are not compared."""
    tables = study(rng, WORSE)
    rows = tables["ood"].to_pylist()
    mild = [
        {**row, "severity": 0.25, "normalised": 5.0} for row in rows if "-a-" in row["run"] and row["shift"] != "none"
    ]
    found = verdict({**tables, "ood": pa.Table.from_pylist(rows + mild)})
    assert found.outcome == verdict(tables).outcome == "supported"
    other = [{**row, "severity": 0.5} if "-b-" in row["run"] and row["shift"] != "none" else row for row in rows]
    found = verdict({**tables, "ood": pa.Table.from_pylist(other)})
    assert found.outcome == "undecided" and "different shifts: dark at 1 and dark at 0.5" in found.reason
