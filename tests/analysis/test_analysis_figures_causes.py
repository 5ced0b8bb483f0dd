"""Figures that look for causes: probes, drift, truncation, front ends, cost, sample efficiency, properties; from run
folders with planted answers.
"""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import AnalysisError, kinds
from analysis.figures import cost
from analysis.report import forms, plots
from analysis.tables import Options

BANK = "0123456789ab"


def numbers(runs, out, name, options=None):
    """Numbers, notes and caption of a figure, once its interactive form has been seen to show each of its series."""

    def keep(_, drawn):
        told = drawn.numbers["property" if name == "properties" else "series"].dropna()
        shown = json.dumps(plots.interactive(name, drawn.numbers, plots.Palette.of({})))
        assert all(json.dumps(plots.plain(one))[1:-1] in shown for one in told)

    report = analysis.analyze(runs, out, [name], formats=("png",), options=options or Options(), keep=keep)
    (file,) = report["figures"]
    return pd.read_csv(out / f"{file}.csv"), report["notes"][file], report["captions"][file]


def planted(synthetic, seed=0, episodes=8):
    """A record whose feature holds all of the state, and whose latent only the first of its two numbers."""
    rng = np.random.default_rng(seed)
    arrays = synthetic["latents"](rng, episodes=episodes, steps=60, dims=8)
    state = rng.normal(size=(episodes, 60, 2)).astype(np.float32)
    arrays["posterior"][..., 0] = state[..., 0]
    arrays["posterior"][..., 1] = arrays["reward_true"]
    feature = np.concatenate([state, state @ rng.normal(size=(2, 6))], axis=-1).astype(np.float16)
    action = rng.normal(size=(episodes, 60, 1)).astype(np.float32)
    return arrays | {"state": state, "feature": feature, "action": action}


def test_probes_find_what_is_there_and_not_what_is_not(make_run, synthetic, tmp_path):
    folder = make_run(parts=())
    np.savez(folder / "latents.npz", **planted(synthetic))
    table, notes, caption = numbers([folder], tmp_path / "out", "probes")
    assert any("held-out episodes, so no interval" in note for note in notes)
    r2 = table.set_index(["source", "variable"])["r2"]
    assert r2["feature", "state 0"] > 0.99 and r2["feature", "state 1"] > 0.99 and r2["latent", "state 0"] > 0.99
    assert r2["latent", "state 1"] < 0.1 and r2["feature", "action 0"] < 0.1 and r2["latent", "reward"] > 0.99
    assert "Recorded on episodes that each agent played itself." in caption
    np.savez(folder / "latents.npz", **planted(synthetic, episodes=2))
    with pytest.raises(AnalysisError, match="fewer than 3 recorded episodes"):
        numbers([folder], tmp_path / "out", "probes")


def test_patches_are_probed_by_their_mean(make_run, synthetic, tmp_path):
    folder, arrays = make_run(parts=()), planted(synthetic)
    up, down = arrays["feature"] + 1, arrays["feature"] - 1
    np.savez(folder / "latents.npz", **arrays | {"feature": np.stack([up, down], axis=2)})
    table, _, _ = numbers([folder], tmp_path / "out", "probes")
    assert table.set_index(["source", "variable"])["r2"]["feature", "state 1"] > 0.99


def test_drift_is_found_at_the_stage_where_it_begins(make_run, synthetic, tmp_path):
    folder, clean = make_run(parts=()), planted(synthetic)
    np.savez(folder / f"latents_on_{BANK}.npz", **clean)
    rng = np.random.default_rng(5)
    noise = rng.normal(size=clean["feature"].shape) * clean["feature"].std()
    value = rng.permuted(clean["value"].ravel()).reshape(clean["value"].shape)
    np.savez(folder / f"latents_on_{BANK}_dark.npz", **clean | {"feature": clean["feature"] + noise, "value": value})
    table, _, _ = numbers([folder], tmp_path / "out", "drift")
    relative = table.set_index("stage")["relative"]
    assert 0.2 < relative["feature"] < 1.5 and relative["latent"] == relative["predicted reward"] == 0
    assert relative["value"] == pytest.approx(1, abs=0.2)  # shuffled: as far as unrelated states
    assert set(table["shift"]) == {"dark"} and table["pairs"].max() == 8 * 59
    np.savez(folder / f"latents_on_{BANK}.npz", **clean | {"value": np.zeros_like(clean["value"])})
    table, notes, _ = numbers([folder], tmp_path / "out", "drift")
    assert "value" not in set(table["stage"]) and notes == ["dmc/walker-walk: embedded: the value is constant"]
    without = {"value": np.full_like(clean["value"], np.nan)}  # of a run without a policy
    for name in (f"latents_on_{BANK}.npz", f"latents_on_{BANK}_dark.npz"):
        np.savez(folder / name, **clean | without)
    table, notes, _ = numbers([folder], tmp_path / "out", "drift")
    assert set(table["stage"]) == {"feature", "latent", "predicted reward"} and notes == []
    other = make_run("other", seed=2)
    with pytest.raises(
        AnalysisError,
        match=r"no record of a bank under a shift\nMake its inputs with: mbrl-pvr bank make .* --shift SHIFT &&",
    ):
        numbers([other], tmp_path / "out", "drift")


def manifest(folder, **more):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return folder


def truncated(make_run, depth, top, **more):
    settings = {"encoder__truncate": None if depth == 12 else depth, "steps": 20_000, **more}
    folder = make_run(f"vit{depth}{more}", "vc1_vitb", top=top, loss=0.5, parts=("ood",), **settings)
    return manifest(folder, encoder={"truncate": depth})


def test_returns_against_truncation(make_run, tmp_path):
    runs = [truncated(make_run, depth, 100 * depth) for depth in (3, 6, 12)]
    other = manifest(make_run("other", "clip_vitl14"), encoder={"truncate": 24})
    table, notes, _ = numbers([*runs, other], tmp_path / "out", "truncation")
    assert set(table["series"]) == {"vc1_vitb"}  # nothing to compare the other with
    inside, outside = (table[table["where"] == where].set_index("setting")["mean"] for where in ("inside", "outside"))
    assert inside.is_monotonic_increasing and list(inside.index) == [3, 6, 12]
    assert (outside < 0.75 * inside).all() and "dmc/walker-walk: vc1_vitb, 3: one seed, so no interval" in notes
    with pytest.raises(AnalysisError, match=r"it compares runs that differ in encoder\.truncate alone"):
        numbers([runs[0], other], tmp_path / "out", "truncation")


def test_linear_against_mlp(make_run, tmp_path):
    runs = [
        make_run(f"{layer}{seed}", seed=seed, top=top, parts=parts, agent__front_end=layer)
        for layer, top, parts in (("linear", 800, ("ood",)), ("mlp", 400, ()))
        for seed in (1, 2)
    ]
    table, _, _ = numbers(runs, tmp_path / "out", "front_end")
    means = table.set_index(["setting", "where"])["mean"]
    assert means["linear", "inside"] > 1.5 * means["mlp", "inside"] and ("mlp", "outside") not in means.index
    assert (table["seeds"] == 2).all() and set(table["series"]) == {"embedded"}


def test_the_frontier_of_costs():
    price, value = np.array([3.0, 1.0, 2.0, 4.0, 2.0]), np.array([5.0, 1.0, 4.0, 5.0, 2.0])
    assert cost.frontier(price, value).tolist() == [1, 2, 0]


def test_returns_against_hours_bytes_and_flops(make_run, synthetic, tmp_path):
    runs = []
    for n, encoder in enumerate(("embedded", "clip_vitl14", "scratch")):
        facts = {
            "replay_bytes_per_step": 1000 * (n + 1),
            "encoder_flops_per_frame": None if n == 2 else 10**8 * (n + 1),
        }
        folder = manifest(make_run(encoder, encoder, parts=(), steps=20_000), cost=facts)
        rows = [{"step": step, "frame": step, "time/elapsed": 3600.0 * (n + 1) * step / 100} for step in (50, 100)]
        synthetic["write_jsonl"](folder / "metrics.jsonl", rows)
        runs.append(folder)
    table, notes, _ = numbers(runs, tmp_path / "out", "cost")
    rows = table.set_index("series")
    assert rows["hours"].to_dict() == {"embedded": 1, "clip_vitl14": 2, "scratch": 3}
    assert rows.loc["clip_vitl14", "bytes"] == 2000 * 20_000 and rows.loc["clip_vitl14", "flops"] == 2e8
    assert np.isnan(rows.loc["scratch", "flops"])
    assert notes == [
        "scratch: not among the FLOPs of the encoder per frame: no frozen encoder, or the run does not say"
    ]
    synthetic["write_jsonl"](runs[0] / "metrics.jsonl", [{"step": 1, "frame": 1}])
    with pytest.raises(AnalysisError, match="its log says nothing of time"):
        numbers(runs[:1], tmp_path / "out", "cost")


def evaluations(folder, synthetic, curve):
    """One evaluation episode at each step of {step: return}."""
    (run,) = analysis.load_runs([folder])
    rows = [{"kind": "eval", **synthetic["row"](run.config, step, value, 0)} for step, value in curve.items()]
    synthetic["write_jsonl"](folder / "episodes.jsonl", rows)
    return folder


def test_area_is_the_mean_return_up_to_the_steps_in_common(make_run, synthetic, tmp_path):
    fast = evaluations(make_run("fast", parts=()), synthetic, {0: 0, 100: 100, 200: 100, 300: 900})
    slow = evaluations(make_run("slow", "clip_vitl14", parts=()), synthetic, {0: 0, 200: 100})
    once = evaluations(make_run("once", "vc1_vitb", parts=()), synthetic, {100: 5})
    table, notes, _ = numbers([fast, slow], tmp_path / "out", "area")
    rows = table.set_index("series")
    assert rows["mean"].to_dict() == {"embedded": 75, "clip_vitl14": 50} and set(table["to"]) == {200}
    assert notes == [f"dmc/walker-walk: {name} has one seed, so no interval" for name in ("clip_vitl14", "embedded")]
    with pytest.raises(AnalysisError, match="fewer than two evaluations are logged"):
        numbers([once], tmp_path / "out", "area")


PROPERTIES = {
    "clip_vitl14": {"vit": True, "language": True},
    "vc1_vitb": {"vit": True, "language": False},
    "embedded": {"vit": False, "language": False},
}


def test_properties_of_encoders_are_handed_in(make_run, tmp_path):
    runs = []
    for encoder in (*PROPERTIES, "scratch"):
        for seed in (1, 2):
            vit = PROPERTIES.get(encoder, {}).get("vit", False)
            folder = make_run(f"{encoder}{seed}", encoder, seed, loss=0.1 if vit else 0.6, parts=("ood",))
            rows = pd.read_parquet(folder / "ood.parquet")
            rows.assign(normalised=rows["return"] / 1000).to_parquet(folder / "ood.parquet")
            runs.append(folder)
    table, notes, _ = numbers(runs, tmp_path / "out", "properties", Options(properties=PROPERTIES))
    rows = table.set_index("property")
    assert list(rows["encoders"]) == [2, 1] and rows.loc["vit", "better_outside"] == 1
    assert notes == ["left out, since nothing is known of their properties: scratch"]
    with pytest.raises(AnalysisError, match="none of these encoders is known to have a property"):
        numbers(runs, tmp_path / "out", "properties")
    assert "properties" not in analysis.analyze(runs, tmp_path / "all", ["ood"])["figures"]


@pytest.mark.parametrize("name", ["errors", "calibration", "dynamics", "correlation_of_runs"])
def test_other_figures_are_interactive_too(make_run, tmp_path, name):
    runs = [make_run(encoder, encoder, steps=20_000) for encoder in ("embedded", "scratch", "clip_vitl14")]
    table, _, _ = numbers(runs, tmp_path / "out", name)
    assert len(table)


def test_every_figure_has_an_interactive_form():
    assert set(kinds.FIGURES) == set(forms.FORMS)


def test_points_in_rows_are_those_of_the_numbers():
    """Two series and two sources in each of two rows, none on top of another."""
    rows = [
        {"task": "t", "agent": "a", "series": one, "source": source, "variable": variable, "r2": r2}
        for r2, (one, source, variable) in enumerate(itertools.product("ab", ("feature", "latent"), ("x 0", "x 1")))
    ]
    table = pd.DataFrame(rows).assign(low=np.nan, high=lambda rows: rows["r2"] + 1.0)
    figure = plots.interactive("probes", table, plots.Palette.of({"a": "embedded", "b": "state"}))
    points = [trace for trace in figure["data"] if trace["x"] != [None]]
    assert [trace["x"] for trace in points] == [[r2] for r2 in range(8)]
    assert len({round(trace["y"][0], 6) for trace in points}) == 8
    assert [round(trace["y"][0]) for trace in points] == [0, 1] * 4
    assert figure["layout"]["yaxis"]["ticktext"] == ["x 0", "x 1"]
    legend = [trace["name"] for trace in figure["data"] if trace["x"] == [None]]
    assert legend == ["a", "b", "feature", "latent"]
    assert not any(trace["error_x"]["visible"] for trace in points)


def drawn(name, rows):
    return plots.interactive(name, pd.DataFrame(rows), plots.Palette.of({"a": "embedded", "b": "state"}))


def test_errors_show_their_baselines():
    one = {"task": "t", "agent": "a", "window": 33, "series": "a", "measure": "MSE"}
    values = {
        name: 3.0 for stem in ("error", "relative", "reward_error") for name in (stem, f"{stem}_low", f"{stem}_high")
    }
    bases = {"copy_last_error": 5.0, "relative_copy": 6.0, "mean_reward_error": 7.0}
    figure = drawn("errors", [one | values | bases])
    ticks = [trace for trace in figure["data"] if trace["marker"]["symbol"] == "line-ns-open"]
    assert sorted(trace["x"][0] for trace in ticks) == [5, 6, 7]


def test_calibration_shows_where_predictions_are_right():
    rows = [
        {"task": "t", "agent": "a", "series": "a", "loop": "open loop", "true": x, "predicted": y}
        for x, y in ((0.0, 0.4), (1.0, 0.6))
    ]
    (line,) = drawn("calibration", pd.DataFrame(rows).assign(predicted_low=0.0, predicted_high=1.0))["layout"]["shapes"]
    assert (line["x0"], line["y0"], line["x1"], line["y1"]) == (0, 0, 1, 1)


def test_probes_far_below_zero_leave_the_axis_alone():
    rows = [
        {"task": "t", "agent": "a", "series": "a", "source": "latent", "variable": f"x {n}", "r2": r2, "low": r2 - 1}
        for n, r2 in enumerate((0.9, -40.0))
    ]
    figure = drawn("probes", pd.DataFrame(rows).assign(high=lambda rows: rows["r2"]))
    points = [trace for trace in figure["data"] if trace["x"] != [None]]
    assert figure["layout"]["xaxis"]["range"][0] == -0.1 and [trace["x"] for trace in points] == [[0.9], [-0.1]]
    assert "-40" in points[1]["hovertemplate"]


def test_latents_are_shaded_by_reward():
    rows = pd.DataFrame({"task": [*"xyx"], "series": [*"aab"], "reward": [0.0, 1.0, 2.0]}).assign(
        umap_1=0.0, umap_2=1.0, pc_1=2.0, pc_2=3.0
    )
    figure = drawn("latents", rows)
    assert len(figure["data"]) == 6 and {trace["marker"]["coloraxis"] for trace in figure["data"]} == {"coloraxis"}
    titles = [title["text"] for title in figure["layout"]["annotations"]]
    assert titles[:2] == ["x · a: UMAP", "x · a: PCA"] and "y · a: UMAP" in titles, "tasks have maps of their own"
    assert figure["layout"]["coloraxis"]["colorbar"]["title"]["text"] == "reward"
