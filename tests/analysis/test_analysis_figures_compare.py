"""Figures that compare encoders: correlations, profiles; and the page on someone else's returns."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError
from analysis.figures import correlation, probes, profile, properties, style

TASKS = ("dmc/walker-walk", "dmc/cheetah-run")


def point_rows(
    agents=("tdmpc2", "dreamerv3"), encoders=("embedded", "clip_vitl14", "vc1_vitb", "scratch", "r3m_resnet50")
):
    rows = [
        {
            "task": TASKS[0],
            "agent": agent,
            "encoder": encoder,
            "seed": seed,
            "measure": "MSE" if agent == "tdmpc2" else "KL",
            "window": window,
            "dynamics_error": 10.0 + (3 * n) % 5 + 0.1 * seed if window == 33 else float(n),
            "reward_error": 1.0 + n + 0.1 * seed,
            "return": 900.0 - 100 * n - 5 * seed,
        }
        for agent in agents
        for n, encoder in enumerate(encoders)
        for seed in (1, 2, 3)
        for window in (33, 500)
    ]
    return pd.DataFrame(rows)


def test_correlations_are_of_means_over_seeds():
    drawn = correlation.draw(point_rows())
    table = drawn.numbers.set_index(["agent", "error", "window"])
    assert table.loc[("tdmpc2", "reward", 33), "pearson"] == pytest.approx(-1)
    assert abs(table.loc[("tdmpc2", "dynamics", 33), "pearson"]) < 0.5
    assert table.loc[("tdmpc2", "dynamics", 500), "pearson"] == pytest.approx(-1)
    assert table.loc[("tdmpc2", "reward", 33), "points"] == 5
    texts = [text.get_text() for axis in drawn.figure.axes for text in axis.texts]
    assert len(texts) == 12 and all("n = 5" in text for text in texts[:8]) and "r = -1.00" in texts[1]
    assert all("n = 10" in text for text in texts[8:])  # both agents, each in its own standard deviations
    assert [axis.get_xlabel() for axis in drawn.figure.axes][:2] == [
        "KL per latent, nats, mean",
        "|r − r̂|, mean",
    ]
    assert drawn.figure.axes[2].get_title() == "walker-walk · dreamerv3, 500 steps: dynamics"
    two = correlation.draw(point_rows(("tdmpc2",), ("embedded", "scratch")))
    assert two.notes == [
        f"walker-walk, {window} steps, {error}: 2 points: no correlation"
        for window in (33, 500)
        for error in ("dynamics", "reward")
    ]


def test_notes_on_one_seed_name_the_agent_where_there_are_several():
    rows = point_rows(encoders=("embedded",))
    counts = style.seed_counts(rows[rows["seed"] == 1].assign(series="embedded"))
    said = "dmc/walker-walk: {}embedded has one seed, so no interval"
    assert style.single_seeds(counts) == [said.format("dreamerv3: "), said.format("tdmpc2: ")]
    assert style.single_seeds(counts[counts.index.get_level_values("agent") == "tdmpc2"]) == [said.format("")]


def test_thin_lines_of_a_state_are_seen_on_white():
    """A contrast of 3 : 1, as WCAG 2 asks of graphics."""
    linear = np.array([int(style.look("state").colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]) ** 2.2
    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3


def test_an_axis_of_returns_holds_zero_and_what_is_below():
    assert style.value_limits(pd.Series([0.2, 0.4])) == (0, None)
    assert style.value_limits(pd.DataFrame({"mean": [0.1], "low": [np.nan]})) == (0, None)
    low, high = style.value_limits(pd.DataFrame({"mean": [0.1, -0.02], "low": [0.0, -0.1]}))
    assert low < -0.1 and high is None
    assert style.value_limits(pd.Series([0.0, 0.0])) == (0, 1)


def normalised_rows():
    rng = np.random.default_rng(0)
    keys = itertools.product(TASKS, ("embedded", "clip_vitl14"), range(5), ("none", "color_easy"), range(3))
    rows = pd.DataFrame(keys, columns=["task", "encoder", "seed", "shift", "episode"])
    lost = np.where(rows["encoder"] == "embedded", 0.5, 0.1) * (rows["shift"] != "none")
    return rows.assign(normalised=np.clip(rng.normal(0.75, 0.1, len(rows)) - lost, 0, 1))


def test_profiles_fall_from_one_to_nothing():
    rows = normalised_rows()
    drawn = profile.draw(rows)
    for _, one in drawn.numbers.groupby(["series", "condition"]):
        assert one["share"].iloc[0] == 1 and one["share"].iloc[-1] == 0 and (one["share"].diff().dropna() <= 0).all()
        assert (one["low"] <= one["share"]).all() and (one["share"] <= one["high"]).all()
    half = drawn.numbers[drawn.numbers["threshold"] == 0.5].set_index(["series", "condition"])["share"]
    assert half["embedded", "out of distribution"] == 0 and half["clip_vitl14", "out of distribution"] == 1
    torn = rows[(rows["seed"] > 0) | (rows["task"] == TASKS[0])]
    assert profile.draw(torn).notes[0] == "clip_vitl14, in distribution: 1 of 5 seeds lack a task"
    assert "Too few seeds" in profile.draw(rows[(rows["seed"] == 0) & (rows["task"] == TASKS[0])]).caption


def property_rows():
    rng = np.random.default_rng(0)
    encoders = {"clip_vitl14": (1, 1), "vc1_vitb": (1, 0), "r3m_resnet50": (0, 1), "scratch": (0, 0)}
    rows = pd.DataFrame(itertools.product(TASKS, encoders, range(5)), columns=["task", "encoder", "seed"])
    vit, language = (rows["encoder"].map(lambda name, n=n: bool(encoders[name][n])) for n in (0, 1))
    inside = 0.7 + 0.1 * (rows["encoder"] == "scratch") + rng.normal(0, 0.04, len(rows))
    return rows.assign(vit=vit, language=language, inside=inside, outside=inside - np.where(vit, 0.1, 0.4))


def test_a_planted_property_stands_out():
    rows = property_rows()
    drawn = properties.draw(rows, ["vit", "language"])
    table = drawn.numbers.set_index("property")
    assert table.loc["vit", "outside"] == pytest.approx(0.6, abs=0.02) and table.loc["vit", "encoders"] == 2
    assert table.loc["vit", "better_outside_low"] > 0.9 and table.loc["language", "better_outside_low"] < 0.5
    labels = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert labels == ["vit", "language", "clip_vitl14", "r3m_resnet50", "scratch", "vc1_vitb"]
    torn = rows[(rows["seed"] > 0) | (rows["task"] == TASKS[0])]
    assert properties.draw(torn, ["vit"]).notes == ["4 of 20 runs lack a task that others have"]
    with pytest.raises(AnalysisError, match="no encoder has one of the properties vit"):
        properties.draw(rows.assign(vit=False), ["vit"])
    with pytest.raises(AnalysisError, match="no column 'diverse'"):
        properties.draw(rows, ["diverse"])


def probe_rows():
    found = {"hip angle": (0.9, 0.95), "hip speed": (0.2, 0.7), "reward": (0.6, -3.0)}
    keys = itertools.product(TASKS[:1], ("embedded", "vc1_vitb"), (1, 2, 3), probes.SOURCES, found)
    rows = pd.DataFrame(keys, columns=["task", "encoder", "seed", "source", "variable"])
    each = zip(rows["variable"], rows["source"], rows["seed"], strict=True)
    r2 = [found[variable][probes.SOURCES.index(source)] + 0.02 * seed for variable, source, seed in each]
    return rows.assign(r2=r2)


def test_probes_show_mean_and_range_over_seeds():
    drawn = probes.draw(probe_rows())
    table = drawn.numbers.set_index(["series", "source", "variable"]).loc[("vc1_vitb", "latent", "hip speed")]
    assert (table["r2"], table["low"], table["high"]) == pytest.approx((0.74, 0.72, 0.76)) and table["seeds"] == 3
    axis = drawn.figure.axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["hip angle", "hip speed", "reward"]
    marks = [(line.get_xdata()[0], line.get_marker()) for line in axis.lines if line.get_markersize() == 4]
    assert len([x for x, marker in marks if marker not in ("None", "<")]) == 10
    assert [x for x, marker in marks if marker == "<"] == [probes.FLOOR] * 2  # -3 is an arrow at the edge
    still = probe_rows()
    still.loc[still["variable"] == "reward", "r2"] = np.nan
    assert probes.draw(still).notes == ["reward: no R² where it does not vary in the held-out episodes"]


def test_probes_of_a_state_have_no_feature_in_the_legend():
    rows = probe_rows()
    rows = rows[(rows["source"] == "latent") & (rows["seed"] == 1)].assign(
        encoder="state", held_out=1, variable="action 0", low=np.nan, high=np.nan
    )
    drawn = probes.draw(rows.iloc[:1])
    entries = drawn.figure.legends[0].legend_handles
    assert [entry.get_label() for entry in entries] == ["state (1 seed)", "from the latent"]
    assert {(entry.get_marker(), entry.get_markerfacecolor()) for entry in entries} == {("s", "white")}
    assert drawn.notes == ["walker-walk: state is probed on 1 held-out episode, so no interval"]
    assert "features" not in drawn.caption and "action is the one that led to the state" in drawn.caption
    assert "action" not in probes.draw(probe_rows()).caption


def test_the_page_on_someone_elses_returns_works_to_the_letter(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "your_returns.md").read_text()
    rng = np.random.default_rng(0)
    rows = [
        (env, method, seed, step, 900 * (1 - np.exp(-step / speed)) * (0.6 if shift == "dark" else 1), shift)
        for env in ("walk", "run")
        for method in ("vit", "resnet", "clip")
        for seed, speed in enumerate(rng.uniform(2e4, 4e4, 5))
        for step in range(0, 100_001, 10_000)
        for shift in (("none", "dark") if step == 100_000 else ("none",))
    ]
    table = pd.DataFrame(rows, columns=["env", "method", "seed", "step", "score", "shift"])
    table.to_csv(tmp_path / "returns.csv", index=False)
    monkeypatch.chdir(tmp_path)
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    exec(compile("\n".join(blocks), "your_returns.md", "exec"), {})
    printed = capsys.readouterr().out
    assert (tmp_path / "figures" / "returns.pdf").exists() and len(blocks) == 7
    assert printed.count("Interval(") >= 5 and "language" in printed and "Coefficient(r=" in printed
