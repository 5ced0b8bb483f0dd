"""Where a control did not learn, figures and the report say that encoders cannot be compared there."""

import pandas as pd
import pytest

import analysis
from analysis import controls
from analysis.runs import load_run

FIGURES = ["returns", "ood", "profile", "area", "errors", "correlation", "probes"]
NOTE = (
    "dmc/walker-walk, tdmpc2: a control did not learn: state gained 0.050 of 0.1 (0: random actions, 1: the maximum). "
    "Differences between encoders there say nothing about them"
)


@pytest.fixture
def make_played(make_run):
    """A run with normalised returns of one level; `gain`: None for none."""

    def make(name, encoder, gain, **settings):
        folder = make_run(name, encoder, **settings)
        rows = pd.read_parquet(folder / "ood.parquet")
        if gain is not None:
            inside = rows["shift"] == "none"
            rows["normalised"] = (rows["return"] / 1000).where(~inside, gain)
        rows.to_parquet(folder / "ood.parquet")
        return folder

    return make


def said(notes):
    return [note for note in notes if "control" in note]


def test_figures_that_compare_returns_or_errors_say_it(make_played, tmp_path):
    runs = [make_played("s1", "state", 0.02, seed=1), make_played("s2", "state", 0.08, seed=2)]
    runs += [make_played("p", "scratch", 0.5), make_played("a", "embedded", 0.4), make_played("b", "resnet18", 0.4)]
    report = analysis.analyze(runs, tmp_path / "out", FIGURES, formats=())
    assert list(report["figures"]) == FIGURES
    for name in FIGURES:
        assert said(report["notes"][name]) == ([] if name == "probes" else [NOTE])
    alone = analysis.analyze(runs[:2], tmp_path / "alone", ["returns"], formats=())
    assert said(alone["notes"]["returns"]) == []  # nothing is compared


def test_each_task_and_agent_is_judged_by_its_own_finished_controls(make_played):
    walk = [make_played("a", "embedded", 0.4), make_played("s", "scratch", 0.3)]
    spin = [make_played("b", "embedded", 0.4, env__name="dmc/finger-spin")]
    spin += [make_played("t", "scratch", 0.05, env__name="dmc/finger-spin")]
    other = [make_played("c", "embedded", 0.4, agent__name="dreamerv3")]
    other += [make_played("u", "state", None, agent__name="dreamerv3")]  # what it gained is not known
    unfinished = [make_played("v", "state", 0.0, state="running")]
    runs = [load_run(path) for path in [*walk, *spin, *other, *unfinished]]
    series = {run.id: run.encoder for run in runs}
    (note,) = controls.notes(runs, runs, series)
    assert note.startswith("dmc/finger-spin, tdmpc2: a control did not learn: scratch gained 0.050 of 0.1 (")
    assert controls.notes(runs, runs[:2], series) == []


def test_the_report_says_it_above_its_figures(make_played, tmp_path):
    runs = [make_played("s", "state", 0.05, parts=("ood",)), make_played("a", "embedded", 0.4, parts=("ood",))]
    made = analysis.write_report(runs, tmp_path / "out")
    page = made["page"].read_text()
    assert said(made["notes"]) == [NOTE]
    assert page.index(NOTE) < page.index('<section id="figure-1"') and page.count(NOTE) > 3
