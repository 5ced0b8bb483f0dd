"""Records of banks: which files they are, figures in both forms, and runs that were recorded on different ones."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import AnalysisError, latents, records
from analysis.figures import shifted
from analysis.tables import Options

BANK, OTHER = "0123456789ab", "ba9876543210"


def put(folder, arrays, bank=BANK, shift=""):
    np.savez(folder / f"latents_on_{bank}{'_' + shift if shift else ''}.npz", **arrays)


@pytest.fixture
def arrays(synthetic):
    """Maker of a record whose open loop is wrong by so much."""
    return lambda growth, seed=0, **sizes: synthetic["latents"](np.random.default_rng(seed), growth, **sizes)


def test_a_run_knows_what_was_recorded_and_where(make_run, arrays):
    folder = make_run()
    put(folder, arrays(0.1) | {"step": np.array(7)})
    put(folder, arrays(0.1) | {"step": np.array(7)}, shift="color_hard+camera")
    put(folder, arrays(0.1), OTHER)
    np.savez(folder / "latents_other.npz", x=np.zeros(3))  # somebody's own file
    (run,) = analysis.load_runs([folder])
    assert run.banks == [BANK, OTHER] and run.record.bank == "" and run.shifts == []
    seen = run.on(BANK)
    assert seen.record.path.name == f"latents_on_{BANK}.npz" and seen.latents_step == 7 and run.latents_step is None
    assert seen.shifts == ["color_hard+camera"] and run.on(OTHER).shifts == []
    assert seen.under("color_hard+camera").record.path.name == f"latents_on_{BANK}_color_hard+camera.npz"
    np.savez(folder / "latents_under_camera_0.5.npz", **arrays(0.1))
    (run,) = analysis.load_runs([folder])
    assert run.shifts == ["camera_0.5"] and run.record.shift == "" and run.banks == [BANK, OTHER]
    assert not np.array_equal(seen.latents.posterior, run.latents.posterior)
    np.savez(folder / f"latents_on_{BANK}.npz", posterior=np.zeros(3))
    with pytest.raises(AnalysisError, match=rf"latents_on_{BANK}.npz has no array 'open_loop'"):
        analysis.load_runs([folder])


def test_one_command_makes_both_forms_and_never_pools_banks(make_run, arrays, tmp_path):
    """On policy all errors are equal; on one bank they are four times as large, on the other none."""
    for seed, bank, growth in ((1, BANK, 0.04), (2, BANK, 0.04), (3, OTHER, 0.0)):
        folder = make_run(f"run{seed}", seed=seed)
        np.savez(folder / "latents.npz", **arrays(0.01, 9))
        put(folder, arrays(growth, 9), bank)
    paths = sorted(tmp_path.glob("run*"))
    report = analysis.analyze(paths, tmp_path / "out", ["errors"], formats=("png",))
    assert list(report["figures"]) == ["errors", f"errors_on_{BANK}", f"errors_on_{OTHER}"]
    tables = {name: pd.read_csv(tmp_path / "out" / f"{name}.csv").set_index("window") for name in report["figures"]}
    policy, bank, other = tables.values()
    assert (policy["seeds"].max(), bank["seeds"].max(), other["seeds"].max()) == (3, 2, 1)
    assert bank.loc[33, "error"] == pytest.approx(4 * policy.loc[33, "error"], rel=1e-4) and other["error"].max() == 0
    assert {(one["figure"], one["run"]) for one in report["missing"]} == {
        *((f"errors_on_{OTHER}", str(path)) for path in paths[:2]),
        (f"errors_on_{BANK}", str(paths[2])),
    }
    first = report["missing"][0]
    assert first["reason"] == f"no record of bank {BANK}"
    assert first["command"] == f"mbrl-pvr record {paths[2]} --bank BANK"


def test_a_form_can_be_asked_for_by_name(make_run, arrays, tmp_path):
    folder = make_run(parts=())
    put(folder, arrays(0.1))
    report = analysis.analyze([folder], tmp_path / "out", [f"errors_on_{BANK}"])
    assert list(report["figures"]) == [f"errors_on_{BANK}"] and report["missing"] == []
    assert list(analysis.analyze([folder], tmp_path / "both", ["errors"])["figures"]) == [f"errors_on_{BANK}"]
    with pytest.raises(AnalysisError, match=rf"no run has a record of bank 'abc'\nRecorded are: {BANK}"):
        analysis.analyze([folder], tmp_path / "out", ["errors_on_abc"])
    with pytest.raises(AnalysisError, match="unknown figure 'returns_on_abc'"):
        analysis.analyze([folder], tmp_path / "out", ["returns_on_abc"])


def with_starts(arrays, points, steps):
    """Open loops from several points, each wrong by 1 in every entry from its first step on."""
    truth = arrays["posterior"]
    index = np.array(points)[:, None] + np.arange(steps)  # (P, K)
    ends = truth.shape[1]
    there = index < ends
    loop = np.where(there[None, :, :, None], truth[:, np.minimum(index, ends - 1)] + 1, np.nan)
    reward = np.where(there[None], arrays["reward_true"][:, np.minimum(index, ends - 1)] + 0.5, np.nan)
    return arrays | {"open_loop_from": loop, "reward_open_loop_from": reward, "starts": np.array(points)}


def test_short_windows_start_at_every_point_and_long_ones_at_the_first(make_run, arrays, tmp_path):
    folder = make_run(parts=())
    np.savez(folder / "latents.npz", **with_starts(arrays(0.0), [3, 40, 100], 33))
    report = analysis.analyze([folder], tmp_path / "out", ["errors"])
    table = pd.read_csv(tmp_path / "out" / "errors.csv").set_index("window")
    assert list(table.index) == [33, 117] and list(table["points"]) == [3, 1]  # of 120 steps behind 3
    assert table.loc[33, "error"] == pytest.approx(33) and table.loc[33, "reward_error"] == pytest.approx(16.5)
    assert table.loc[117, "error"] == 0
    assert "over 33 steps from 3, otherwise one" in report["captions"]["errors"]
    assert "3 first observations given" in report["captions"]["errors"]
    assert "dmc/walker-walk: 117 steps stand for 500: episodes are no longer" in report["notes"]["errors"]
    read = analysis.load_runs([folder])[0].latents
    starts = records.read_starts(folder / "latents.npz")
    assert starts.open_loop.shape == (8, 3, 33, read.posterior.shape[2])


def test_windows_that_not_all_records_have_are_cut_and_said(make_run, arrays, tmp_path):
    """The shortest record decides for all, and is named."""
    long, short = make_run("long", parts=()), make_run("short", seed=2, parts=())
    np.savez(long / "latents.npz", **arrays(0.1))
    np.savez(short / "latents.npz", **arrays(0.1, steps=23))
    report = analysis.analyze([long, short], tmp_path / "out", ["errors"], formats=())
    assert set(pd.read_csv(tmp_path / "out" / "errors.csv")["window"]) == {20}
    why = f"the record of {short} is no longer than 20, others go on to 117"
    assert report["notes"]["errors"][-1] == f"dmc/walker-walk: 20 steps stand for 33, 500: {why}"
    far = Options(windows=(33, 9999))
    notes = analysis.analyze([long], tmp_path / "out", ["errors"], formats=(), options=far)["notes"]["errors"]
    assert notes[-1] == "dmc/walker-walk: 117 steps stand for 9999: episodes are no longer"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("starts", np.array([0, 40]), "should lie in 1..119"),
        ("open_loop_from", np.zeros((8, 2, 5)), r"should be \(8, P"),
    ],
)
def test_start_points_that_do_not_fit(make_run, arrays, tmp_path, name, value, said):
    folder = make_run(parts=())
    np.savez(folder / "latents.npz", **with_starts(arrays(0.0), [3, 40], 5) | {name: value})
    with pytest.raises(AnalysisError, match=said) as caught:
        analysis.analyze([folder], tmp_path / "out", ["errors"])
    assert caught.value.exit_code == 3


def test_baselines_from_several_points_are_what_they_are_from_each(synthetic, arrays):
    """Of one point, the sums are those of an open loop behind that many observations."""
    from dataclasses import replace

    from analysis import horizons
    from analysis.records import Latents, Starts

    given = arrays(0.02)
    plain = {name: value.item() for name, value in given.items() if value.shape == ()}
    read = Latents(**given | plain)
    behind = replace(read, context=20)
    one = Starts(read.open_loop[:, None, 20:60], read.reward_open_loop[:, None, 20:60], np.array([20]))
    measure = horizons.measure_of(read, None)
    found, wanted = horizons.start_errors(read, one, measure), horizons.step_errors(behind, measure)
    for name, errors in found.items():
        np.testing.assert_allclose(errors, wanted[name][:, :40], rtol=1e-6)


@pytest.fixture
def no_umap(monkeypatch):
    """PCA in the place of UMAP, which takes half a minute to compile; others are projected on axes of the fitted."""

    def project(points, others, *options):
        axes = latents.principal_axes(points)
        return axes.scores(points), np.empty((0, 2)) if others is None else axes.scores(others)

    monkeypatch.setattr(latents, "_umap", project)


def test_latents_under_shifts_stand_apart_where_they_are(make_run, arrays, tmp_path, no_umap):
    folder, clean = make_run(parts=()), arrays(0.0)
    put(folder, clean)
    rng = np.random.default_rng(1)
    nothing = clean["posterior"] + 1e-3 * rng.normal(size=clean["posterior"].shape)
    put(folder, clean | {"posterior": nothing.astype(np.float32)}, shift="camera")
    report = analysis.analyze([folder], tmp_path / "out", ["latents_shifted"])
    assert list(report["figures"]) == [f"latents_shifted_on_{BANK}"]
    table = pd.read_csv(tmp_path / "out" / f"latents_shifted_on_{BANK}_table.csv")
    assert table["chance"][0] == 0.5 and table["apartness"][0] < 0.6  # pairs lie on each other
    put(folder, clean | {"posterior": clean["posterior"] + 9}, shift="camera")
    analysis.analyze([folder], tmp_path / "out", ["latents_shifted"])
    table = pd.read_csv(tmp_path / "out" / f"latents_shifted_on_{BANK}_table.csv")
    assert table["apartness"][0] == 1
    points = pd.read_csv(tmp_path / "out" / f"latents_shifted_on_{BANK}.csv")
    inside, outside = (points[points["looks"] == look] for look in ("own looks", "camera"))
    assert len(inside) == len(outside) == 952  # every state that a reward led to, under both looks
    assert np.sign(inside["pca_joint_1"]).eq(-np.sign(outside["pca_joint_1"].to_numpy())).all()


def test_runs_under_shifts_stand_in_blocks_with_their_fits(no_umap):
    points, reward = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40.0)
    episode = np.arange(40) // 10
    looks = {"own looks": shifted.Look(points, reward, episode), "dark": shifted.Look(points, reward + 1, episode)}
    pairs = [shifted.Shifted(name, "dmc/walker-walk", looks) for name in "abcde"]
    drawn = shifted.draw(pairs)
    panels = [axis for axis in drawn.figure.axes if axis.get_visible() and axis.get_label() != "<colorbar>"]
    assert len(panels) == 5 * 2 * 4  # runs, looks, fits
    assert [axis.get_ylabel() for axis in panels if axis.get_ylabel()] == [*shifted.FITS.values()] * 2
    heads = [text.get_text() for axis in panels for text in axis.texts]
    assert [head[:11] for head in heads] == [f"{name}\napartness" for name in "abcde"]
    assert [t.strip() for axis in panels if (t := axis.get_title(loc="left"))] == ["own looks", "dark"] * 5
    for one, other in zip(panels[::2], panels[1::2], strict=True):
        assert one.get_xlim() == other.get_xlim() and one.get_ylim() == other.get_ylim()
    table = drawn.numbers
    assert table.loc[table["looks"] == "dark", "reward"].max() == 40
    assert {f"{fit}_{n}" for fit in shifted.FITS for n in (1, 2)} < set(table.columns)


def test_episodes_of_its_own_under_a_shift_need_not_be_as_long(make_run, arrays, tmp_path, no_umap):
    folder, clean = make_run(), arrays(0.0)
    np.savez(folder / "latents.npz", **clean)
    rng = np.random.default_rng(1)
    shorter = {name: value[:, :50] if value.ndim > 1 else value for name, value in clean.items()}
    shorter["length"] = np.minimum(clean["length"], 50)
    far = (shorter["posterior"] + rng.normal(9, 1, size=shorter["posterior"].shape)).astype(np.float32)
    np.savez(folder / "latents_under_dark_1.npz", **shorter | {"posterior": far})
    report = analysis.analyze([folder], tmp_path / "out", ["latents_shifted", "errors_shifted"])
    assert list(report["figures"]) == ["latents_shifted", "errors_shifted"]
    points = pd.read_csv(tmp_path / "out" / "latents_shifted.csv")
    assert points.groupby("looks").size().to_dict() == {"dark_1": len(clean["length"]) * 49, "own looks": 952}
    assert "where it went" in report["captions"]["latents_shifted"]
    numbers = pd.read_csv(tmp_path / "out" / "errors_shifted.csv").set_index(["window", "looks"])
    own, moved = (numbers.loc[(33, looks), "relative"] for looks in ("own looks", "dark_1"))
    assert own < 1e-6 and moved > 10, "of the variance under own looks"
    assert numbers.loc[(33, "own looks"), "relative_change"] == 0
    assert numbers.loc[(33, "dark_1"), "relative_change"] == pytest.approx(moved - own)
    lacking = analysis.analyze([make_run("other", seed=2)], tmp_path / "less")["missing"]
    (one,) = [entry for entry in lacking if entry["figure"] == "errors_shifted"]
    assert one["command"].startswith("mbrl-pvr record ")


@pytest.fixture
def fewer(make_run, arrays):
    """A run on a bank: eight trajectories under its own looks, and the first three under a shift."""
    folder, clean = make_run(parts=()), arrays(0.2)
    put(folder, clean)
    few = {name: value[:3] if value.ndim > 0 else value for name, value in clean.items()}
    put(folder, few, shift="dark")
    return folder, clean, few


def test_looks_are_compared_on_the_trajectories_that_all_have(fewer, tmp_path, no_umap):
    folder, _, _ = fewer
    report = analysis.analyze([folder], tmp_path / "out", ["errors_shifted", "latents_shifted", "drift"])
    assert {f"{name}_on_{BANK}" for name in ("errors_shifted", "latents_shifted", "drift")} == set(report["figures"])
    numbers = pd.read_csv(tmp_path / "out" / f"errors_shifted_on_{BANK}.csv").set_index(["window", "looks"])
    own, dark = (numbers.loc[(33, looks)] for looks in ("own looks", "dark"))
    assert own["trajectories"] == dark["trajectories"] == 3 and own["relative"] > 0
    assert own["reward_per_step"] == pytest.approx(dark["reward_per_step"])
    (note,) = [one for one in report["notes"][f"errors_shifted_on_{BANK}"] if "33 steps" in one]
    assert "3 of 8 trajectories are whole under all looks" in note
    drift = pd.read_csv(tmp_path / "out" / f"drift_on_{BANK}.csv")
    assert drift["relative"].abs().max() == 0 and drift["pairs"].max() == 3 * 119
    points = pd.read_csv(tmp_path / "out" / f"latents_shifted_on_{BANK}.csv")
    assert points.groupby("looks").size().nunique() == 1


def test_a_model_that_diverges_under_a_shift_is_not_better_for_it(fewer, tmp_path):
    folder, clean, _ = fewer
    broken = {name: value.copy() for name, value in clean.items()}
    broken["open_loop"][5:, 10:] = np.nan
    put(folder, broken, shift="dark")
    report = analysis.analyze([folder], tmp_path / "out", ["errors_shifted"])
    numbers = pd.read_csv(tmp_path / "out" / f"errors_shifted_on_{BANK}.csv").set_index(["window", "looks"])
    assert numbers.loc[(33, "own looks"), "relative"] == pytest.approx(numbers.loc[(33, "dark"), "relative"])
    assert any("5 of 8 trajectories" in note for note in report["notes"][f"errors_shifted_on_{BANK}"])


def test_looks_of_different_checkpoints_are_not_compared(fewer, tmp_path, no_umap):
    folder, clean, few = fewer
    put(folder, clean | {"step": np.array(900)})
    put(folder, few | {"step": np.array(500)}, shift="dark")
    with pytest.raises(AnalysisError, match="with and without a shift are of different checkpoints") as caught:
        analysis.analyze([folder], tmp_path / "out", [f"errors_shifted_on_{BANK}"])
    assert "--bank BANK" in caught.value.hint
    put(folder, few | {"step": np.array(900)}, shift="bright")
    notes = analysis.analyze([folder], tmp_path / "out", ["drift"])["notes"][f"drift_on_{BANK}"]
    assert any("record under dark is of another checkpoint" in note for note in notes)


def test_pictures_are_coloured_by_what_is_asked_for(make_run, synthetic, tmp_path, no_umap):
    folder = make_run(agent__name="dreamerv3", agent__unimix=0.01)
    arrays = synthetic["categorical"](np.random.default_rng(0))
    state = np.random.default_rng(1).normal(size=(8, 120, 3)).astype(np.float32)
    np.savez(folder / "latents.npz", **arrays, state=state)

    def drawn(**options):
        out = tmp_path / "out"
        report = analysis.analyze([folder], out, ["latents"], options=Options(max_points=5000, **options))
        return pd.read_csv(out / "latents.csv"), report["captions"]["latents"]

    points, caption = drawn(colour="state 2")
    assert points["state 2"].to_numpy() == pytest.approx(state[:, 1:, 2].ravel(), rel=1e-5)
    assert "coloured by state 2" in caption and "recurrent state and drawn latent" in caption
    assert drawn(colour="time")[0]["time"].max() == 119
    assert "Of DreamerV3: drawn latent." in drawn(latent="z")[1]
    narrow, wide = (pd.read_csv(tmp_path / "out" / "latents.csv")["pc_1"], drawn()[0]["pc_1"])
    assert not np.allclose(narrow, wide)
    numbers = pd.read_csv(tmp_path / "out" / "latents_table.csv").iloc[0]
    assert numbers["points"] == 952 and 1 < numbers["effective_rank"] <= 40 and numbers["purity"] > 0
    with pytest.raises(
        AnalysisError,
        match=r"coloured by 'state 3': no record has it\nThere are: reward, value, time, state 0, state 1",
    ):
        drawn(colour="state 3")
    np.savez(
        folder / "latents.npz", **arrays, state=state, state_names=np.array(["height", "velocity 0", "velocity 1"])
    )
    assert drawn(colour="velocity 1")[0]["velocity 1"].to_numpy() == pytest.approx(points["state 2"].to_numpy())
    np.savez(folder / "latents.npz", **arrays, state=state, state_names=np.arange(3))
    with pytest.raises(AnalysisError, match=r"state_names of latents\.npz should be 3 texts"):
        drawn(colour="velocity 1")
    with pytest.raises(AnalysisError, match="shows latent state or z, not 'h'"):
        drawn(latent="h")
