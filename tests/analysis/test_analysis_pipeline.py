"""`analyze`: from run folders to figures, what is missing with the command that makes it, and bad requests."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import AnalysisError, dynamics, kinds, latents
from analysis.tables import Options

EVERY = ["returns", "ood", "area", "dynamics", "errors", "calibration", "latents", "probes"]  # of one recorded run
RECORDED = ["dynamics", "errors", "calibration", "latents", "probes"]  # missed where nothing was recorded
NOT_OF_ONE = ["dose", "profile", "properties", "truncation", "front_end", "cost", "latents_shifted",
              "errors_shifted", "drift",
              "correlation", "correlation_of_runs", "figures of records on a bank"]  # fmt: skip


@pytest.fixture
def no_umap(monkeypatch):
    """PCA in the place of UMAP, which takes half a minute to compile."""
    monkeypatch.setattr(latents, "umap", lambda points, seed, neighbours: latents.pca(points)[0])


def test_one_recorded_run_gives_all_figures(make_run, tmp_path):
    """The one test that fits UMAP, and so compiles it."""
    report = analysis.analyze(
        [make_run("it's one run")], tmp_path / "out", options=Options(max_points=200), command="mbrl-pvr analyze x"
    )
    assert list(report["figures"]) == EVERY
    for name, paths in report["figures"].items():
        printed = (
            [f"{name}_table.csv"] if name in ("returns", *RECORDED) and name not in ("calibration", "probes") else []
        )
        assert [path.name for path in paths] == [f"{name}.{end}" for end in ("pdf", "png", "csv")] + printed + [
            f"{name}.tex"
        ]
        assert all(path.stat().st_size > 50 for path in paths)
    assert [one["figure"] for one in report["missing"]] == NOT_OF_ONE and report["unfinished"] == []
    table = pd.read_csv(tmp_path / "out" / "latents.csv")
    assert len(table) == 200 and table["trustworthiness_umap"][0] > 0.9
    assert table["purity"][0] > table["purity_chance"][0] + 0.1
    assert np.isfinite(table[["umap_1", "umap_2"]]).all().all()
    points = np.random.default_rng(0).normal(size=(60, 80))
    np.testing.assert_array_equal(latents.umap(points, seed=1), latents.umap(points, seed=1))
    assert json.loads(json.dumps(report, default=str))["out"] == str(tmp_path / "out")
    assert any("no interval" in note for notes in report["notes"].values() for note in notes)


def test_every_figure_that_is_not_drawn_is_listed_with_what_makes_it(make_run, tmp_path):
    """Of two runs that lack the same, one line."""
    folder = make_run("my run", parts=())
    report = analysis.analyze([folder, make_run("other", seed=2, parts=())], tmp_path / "out", formats=())
    assert list(report["figures"]) == ["returns", "area"]
    first, bank = f"'{folder}'", "mbrl-pvr bank make env=dmc/walker-walk"
    on_bank = f"mbrl-pvr record {first} --bank BANK"
    wanted = {
        "ood": f"mbrl-pvr ood {first}",
        "dose": f"mbrl-pvr ood {first} --severity 0 --severity 0.25 --severity 0.5 --severity 0.75 --severity 1",
        "profile": f"mbrl-pvr ood {first}",
        "properties": f"mbrl-pvr ood {first}",
        "truncation": "mbrl-pvr train … encoder=ENCODER encoder.truncate=K",
        "front_end": "mbrl-pvr train … agent.front_end=mlp",
        "cost": "",
        **dict.fromkeys(RECORDED, f"mbrl-pvr record {first}"),
        "latents_shifted": f"mbrl-pvr record {first}",
        "errors_shifted": f"mbrl-pvr record {first}",
        "drift": f"{bank} --shift SHIFT && {on_bank}",
        "correlation": f"mbrl-pvr record {first}",
        "correlation_of_runs": f"mbrl-pvr record {first}",
        "figures of records on a bank": f"{bank} && {on_bank}",
    }
    assert [(one["figure"], one["command"]) for one in report["missing"]] == list(wanted.items())
    assert wanted.keys() | {"returns", "area"} == kinds.FIGURES.keys() | {"figures of records on a bank"}
    assert {one["run"] for one in report["missing"] if first in one["command"]} == {f"2 runs, first {folder}"}
    assert {one["run"] for one in report["missing"] if first not in one["command"]} == {"2 runs"}
    assert all(one["reason"] for one in report["missing"])


def test_a_run_without_a_policy_is_recorded_on_a_bank(make_run, tmp_path):
    folder = make_run(parts=(), agent__policy=False)
    (folder / "episodes.jsonl").unlink()
    report = analysis.analyze([folder], tmp_path / "out")
    missing = {one["figure"]: (one["reason"], one["command"]) for one in report["missing"]}
    assert missing["dynamics"] == ("no recorded latents", f"mbrl-pvr record {folder} --bank BANK")
    assert missing["ood"] == missing["area"] == ("it learned no policy, so it plays no episodes", "")


def test_further_runs_are_what_a_comparison_wants(make_run, tmp_path, no_umap):
    """Another front end than the one that is there."""
    report = analysis.analyze([make_run(agent__front_end="mlp")], tmp_path / "out", formats=())
    missing = {one["figure"]: (one["reason"], one["command"]) for one in report["missing"]}
    assert missing["front_end"][1] == "mbrl-pvr train … agent.front_end=linear"
    assert missing["correlation"] == (
        "it compares 3 encoders or more with one agent on one task, and there is 1",
        "mbrl-pvr train … encoder=ENCODER",
    )
    with pytest.raises(AnalysisError, match="mbrl-pvr train … encoder=ENCODER"):
        analysis.analyze([tmp_path / "run"], tmp_path / "out", ["correlation"])


def test_a_figure_asked_for_by_name_fails_without_its_inputs(make_run, tmp_path):
    folder = make_run(parts=("ood",))
    assert list(analysis.analyze([folder], tmp_path / "out", ["ood"])["figures"]) == ["ood"]
    with pytest.raises(AnalysisError, match=r"no recorded latents\nMake its inputs with: mbrl-pvr record") as caught:
        analysis.analyze([folder], tmp_path / "out", ["dynamics"])
    assert caught.value.exit_code == 2
    with pytest.raises(
        AnalysisError, match=r"Did you mean 'dynamics'\? Available: returns, ood, dose, profile, properties"
    ):
        analysis.analyze([folder], tmp_path / "out", ["dynamic"])


def test_runs_without_the_inputs_do_not_stop_those_that_have_them(make_run, tmp_path, no_umap):
    runs = [make_run("a", seed=1), make_run("b", seed=2, parts=("ood",)), make_run("c", "resnet18_in1k")]
    report = analysis.analyze(runs, tmp_path / "out", formats=("png",))
    assert list(report["figures"]) == EVERY
    lacking = {(one["figure"], one["run"]) for one in report["missing"] if one["run"] == str(runs[1])}
    assert lacking == {(name, str(runs[1])) for name in (*RECORDED, "latents_shifted", "errors_shifted")}
    numbers = pd.read_csv(tmp_path / "out" / "ood.csv").set_index(["series", "condition"])
    assert numbers.loc[("embedded", "in distribution"), "seeds"] == 2
    assert set(pd.read_csv(tmp_path / "out" / "latents.csv")["series"]) == {"embedded, seed 1", "resnet18_in1k, seed 1"}


def test_unfinished_runs_are_listed_and_left_out(make_run, tmp_path):
    done, going = make_run("done", parts=()), make_run("going", seed=2, state="running", parts=())
    report = analysis.analyze([done, going], tmp_path / "out", ["returns"])
    assert report["runs"] == [str(done)]
    assert report["unfinished"] == [{"run": str(going), "state": "running", "command": f"mbrl-pvr resume {going}"}]
    assert pd.read_csv(tmp_path / "out" / "returns.csv")["seeds"].max() == 1
    both = analysis.analyze([done, going], tmp_path / "out", ["returns"], unfinished=True)
    assert both["runs"] == [str(done), str(going)]
    with pytest.raises(
        AnalysisError, match=r"no run has finished: .*going \(running\)\nContinue with: mbrl-pvr resume"
    ):
        analysis.analyze([going], tmp_path / "out")


def test_out_of_distribution_rows_of_an_older_checkpoint_do_not_count(make_run, tmp_path):
    folder = make_run(parts=("ood",))
    rows = pd.read_parquet(folder / "ood.parquet")
    older = rows.assign(step=10, **{"return": 0.0})
    pd.concat([older, rows]).to_parquet(folder / "ood.parquet")
    analysis.analyze([folder], tmp_path / "out", ["ood"])
    assert (pd.read_csv(tmp_path / "out" / "ood.csv")["episodes"] == 12).all()


def test_inputs_of_an_older_checkpoint_are_noted_with_their_command(make_run, tmp_path, no_umap):
    folder = make_run("my run")  # its newest checkpoint and its ood rows are of step 100,000
    with np.load(folder / "latents.npz") as arrays:
        np.savez(folder / "latents.npz", **arrays, step=np.array(5000))
    notes = analysis.analyze([folder], tmp_path / "out")["notes"]
    renew = f"{folder}: drawn is step 5000, the run is at 100000; renew with: mbrl-pvr record '{folder}'"
    assert notes["dynamics"][-1] == notes["latents"][-1] == renew
    assert not any("renew" in note for note in notes["returns"] + notes["ood"])
    (folder / "status.json").write_text(json.dumps({"state": "finished", "checkpoint": 200_000}))
    assert notes != (notes := analysis.analyze([folder], tmp_path / "out", ["ood"])["notes"])
    assert notes["ood"][-1] == (
        f"{folder}: drawn is step 100000, the run is at 200000; renew with: mbrl-pvr ood '{folder}'"
    )
    (folder / "status.json").write_text(json.dumps({"state": "finished"}))  # not by this tool: nothing is known
    assert "renew" not in str(analysis.analyze([folder], tmp_path / "out", ["ood"])["notes"])


DREAMER = {"agent__name": "dreamerv3", "agent__unimix": 0.05}


def test_both_algorithms_in_one_call_share_no_axis(make_run, tmp_path, no_umap):
    """The KL is taken with the run's own unimix; the picture shows the state, not the logits."""
    dreamer = make_run("dreamer", **DREAMER)
    report = analysis.analyze([dreamer, make_run("tdmpc")], tmp_path / "out")
    assert list(report["figures"]) == EVERY and [one["figure"] for one in report["missing"]] == NOT_OF_ONE
    numbers = pd.read_csv(tmp_path / "out" / "dynamics.csv").set_index(["agent", "measure", "k"])
    assert {key[:2] for key in numbers.index} == {("dreamerv3", "KL"), ("tdmpc2", "MSE")}
    recorded = analysis.load_runs([dreamer])[0].latents
    shape = (*recorded.posterior.shape[:2], 8, 4)
    kl = dynamics.symmetric_kl(recorded.posterior.reshape(shape), recorded.open_loop.reshape(shape), 0.05)
    mine = numbers.loc[("dreamerv3", "KL")]
    np.testing.assert_allclose(mine["error"], kl[:, 3:].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mine["relative"], kl[:, 3:].mean(axis=0) / 8, rtol=1e-5)
    assert mine.loc[33, "error_sum"] == pytest.approx(kl[:, 3:36].sum(axis=1).mean(), rel=1e-5)
    assert (mine["context"] == 3).all()
    caption = report["captions"]["dynamics"]
    assert "mean squared error" in caption and "nats per categorical latent" in caption and "after 3 given" in caption
    names = set(pd.read_csv(tmp_path / "out" / "latents.csv")["series"])
    assert names == {"embedded, seed 1 · dreamerv3", "embedded, seed 1 · tdmpc2"}


def test_the_picture_of_dreamer_shows_recurrent_state_and_drawn_latent(make_run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(latents, "umap", lambda points, *_: seen.append(points) or latents.pca(points)[0])
    folder = make_run(**DREAMER)
    analysis.analyze([folder], tmp_path / "out", ["latents"])
    with np.load(folder / "latents.npz") as arrays:
        wanted = arrays["latent"][:, 1:].reshape(-1, 40)
    assert seen[0].shape[1] == 40 and {tuple(row) for row in seen[0]} <= {tuple(row) for row in wanted.astype(float)}


def test_a_run_without_its_unimix_has_no_kl(make_run, tmp_path):
    folder = make_run(agent__name="dreamerv3")
    with pytest.raises(AnalysisError, match=r"agent\.unimix should be a number in \[0, 1\), but is None") as caught:
        analysis.analyze([folder], tmp_path / "out", ["dynamics"])
    assert caught.value.exit_code == 3


def test_runs_with_constant_latents_are_left_out_of_dynamics(make_run, tmp_path, no_umap):
    good, dead = make_run("good"), make_run("dead", "resnet18_in1k")
    with np.load(dead / "latents.npz") as file:
        arrays = dict(file)
    arrays["posterior"][:] = 0.25 + np.random.default_rng(0).normal(0, 1e-8, arrays["posterior"].shape)
    np.savez(dead / "latents.npz", **arrays)
    report = analysis.analyze([good, dead], tmp_path / "out")
    reason = "its latents are constant, so errors of predicting them mean nothing"
    assert [one for one in report["missing"] if one["run"] == str(dead)] == [
        {"figure": name, "run": str(dead), "reason": reason, "command": ""} for name in ("dynamics", "errors", "probes")
    ]
    assert set(pd.read_csv(tmp_path / "out" / "dynamics.csv")["series"]) == {"embedded"}
    assert (
        "resnet18_in1k, seed 1: the latents are constant, so there is no picture of them" in report["notes"]["latents"]
    )
    assert "dynamics" not in analysis.analyze([dead], tmp_path / "alone")["figures"]
    with pytest.raises(AnalysisError, match="figure 'dynamics' cannot be made: its latents are constant") as caught:
        analysis.analyze([dead], tmp_path / "alone", ["dynamics"])
    assert len(str(caught.value).splitlines()) == 1  # no command helps


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"formats": ("png", "gif")}, "unknown figure format 'gif'\nAvailable: pdf, png, svg"),
        ({"options": Options(windows=(33, 0))}, "windows of one step or more, not 0"),
    ],
)
def test_wrong_requests_stop_before_anything_is_written(make_run, tmp_path, how, said):
    with pytest.raises(AnalysisError, match=said) as caught:
        analysis.analyze([make_run(parts=())], tmp_path / "out", **how)
    assert caught.value.exit_code == 2 and not (tmp_path / "out").exists()


def test_mixed_protocols_stop_before_anything_is_written(make_run, tmp_path):
    runs = [make_run("a", parts=()), make_run("b", "scratch", parts=(), env__action_repeat=4)]
    with pytest.raises(AnalysisError, match=r"env\.action_repeat is 2 in one and 4 in another"):
        analysis.analyze(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(make_run, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(AnalysisError, match="cannot write") as caught:
        analysis.analyze([make_run(parts=())], tmp_path / "out")
    assert caught.value.exit_code == 5


def test_analysis_imports_no_torch():
    """In a process of its own, since other tests of the suite import it."""
    code = "import sys, analysis.pipeline, analysis.figures.latents; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_dose_figure_wants_several_severities_of_one_shift(make_run, tmp_path):
    path = make_run("one", parts=("ood",))
    assert "dose" not in str(analysis.analyze([path], tmp_path / "out", ["ood"])["missing"])
    with pytest.raises(AnalysisError, match="no shift was played at several severities") as caught:
        analysis.analyze([path], tmp_path / "out", ["dose"])
    assert "--severity 0.25" in caught.value.hint
    rows = pd.read_parquet(path / "ood.parquet")
    weaker = rows[rows["split"] == "held_out"].assign(severity=0.5)
    alone = weaker.assign(split="held_out:floor", **{"return": -1000.0})  # one factor alone is another question
    pd.concat([rows, weaker, alone]).to_parquet(path / "ood.parquet")
    report = analysis.analyze([path], tmp_path / "out", ["dose"])
    table = pd.read_csv(tmp_path / "out" / "dose.csv")
    shifted = set(weaker["shift"])
    assert list(report["figures"]) == ["dose"] and set(table["shift"]) == shifted
    assert list(table["severity"]) == [0.5, 1.0] * len(shifted) and (table["mean"] > 0).all()
    inside = rows[rows["shift"] == "none"]["return"].mean()
    assert table["in_distribution"].to_numpy() == pytest.approx(inside)


def test_the_correlation_wants_three_encoders(make_run, tmp_path):
    names = ("embedded", "clip_vitl14", "vc1_vitb", "state")
    paths = [
        make_run(f"{encoder}{seed}", encoder, seed, loss=0.1 + 0.3 * n, top=900 - 200 * n)
        for n, encoder in enumerate(names)
        for seed in (1, 2)
    ]
    with pytest.raises(AnalysisError, match="3 encoders or more with one agent on one task, and there are 2"):
        analysis.analyze(paths[:4], tmp_path / "out", ["correlation"])
    assert "correlation" not in analysis.analyze(paths[:2], tmp_path / "two", ["returns"])["figures"]
    with np.load(paths[0] / "latents.npz") as file:  # numbers twice as large: errors are not, on their own scale
        doubled = {name: 2 * file[name] if name in ("posterior", "open_loop") else file[name] for name in file}
    np.savez(paths[0] / "latents.npz", **doubled)
    report = analysis.analyze(paths, tmp_path / "out", ["correlation", "errors"])
    assert "33 and 117 steps" in report["captions"]["correlation"]
    table = pd.read_csv(tmp_path / "out" / "correlation.csv")
    found, points = table.iloc[:4], table.iloc[4:]
    assert list(zip(found["window"], found["error"], strict=True))[::2] == [(33, "dynamics"), (117, "dynamics")]
    assert (found["pearson"][::2] < -0.9).all() and (found["points"] == 4).all()
    assert len(points) == 8 and set(points["seeds"]) == {2}
    both = points.merge(pd.read_csv(tmp_path / "out" / "errors.csv"), on=["series", "window"])
    assert len(both) == 8 and both["dynamics_error"].to_numpy() == pytest.approx(both["relative"], rel=1e-4)
    assert both["dynamics_error_sum"].to_numpy() == pytest.approx(both["error_y"], rel=1e-4)


def test_profiles_want_normalised_returns_of_two_encoders(make_run, tmp_path):
    paths = [make_run(encoder, encoder) for encoder in ("embedded", "clip_vitl14")]
    with pytest.raises(AnalysisError, match="no maximal return is declared"):
        analysis.analyze(paths, tmp_path / "out", ["profile"])
    for path in paths:
        rows = pd.read_parquet(path / "ood.parquet")
        rows.assign(normalised=rows["return"] / 1000).to_parquet(path / "ood.parquet")
    report = analysis.analyze(paths, tmp_path / "out", ["profile"])
    assert list(report["figures"]) == ["profile"]
    conditions = set(pd.read_csv(tmp_path / "out" / "profile.csv")["condition"])
    assert conditions == {"in distribution", "out of distribution"}
    with pytest.raises(AnalysisError, match="2 encoders or more"):
        analysis.analyze(paths[:1], tmp_path / "one", ["profile"])


def test_what_cannot_be_drawn_does_not_stop_the_others(make_run, tmp_path, no_umap):
    """Predictions that are not finite leave no trajectory to sum errors of."""
    folder = make_run()
    with np.load(folder / "latents.npz") as arrays:
        np.savez(folder / "latents.npz", **{**arrays, "reward_open_loop": np.full((8, 120), np.nan, np.float32)})
    report = analysis.analyze([folder], tmp_path / "out")
    assert "errors" not in report["figures"] and {"returns", "latents"} <= report["figures"].keys()
    reason = "no trajectory is as long as a window and has finite predictions in it"
    assert {"figure": "errors", "run": str(folder), "reason": reason, "command": ""} in report["missing"]
    with pytest.raises(AnalysisError, match=reason):
        analysis.analyze([folder], tmp_path / "out", ["errors"])
