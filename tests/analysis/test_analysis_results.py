"""Many runs as tables: what is read, what is listed as left out, queries that reach nothing else, exports, merges."""

import json
import os

import duckdb
import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import AnalysisError, export, window_errors
from analysis.query import query
from analysis.results import load_results, read_tables
from analysis.runs import read_head


@pytest.fixture
def runs(make_run, tmp_path):
    """A folder of two runs with shifts, one of them recorded."""
    make_run("runs/a", seed=1)
    make_run("runs/b", "resnet18_in1k", seed=2, parts=("ood",))
    return tmp_path / "runs"


@pytest.fixture
def exported(tmp_path):
    """Writes the export of some folders."""

    def write(name, *paths):
        tables, _ = read_tables(paths)
        export.write_export(tmp_path / name, tables, {"mbrl_pvr": "test"})
        return tmp_path / name

    return write


def test_every_table_has_what_the_files_hold(runs):
    found = load_results([runs])
    assert list(found.runs["encoder"]) == ["embedded", "resnet18_in1k"] and found.skipped == {}
    first = found.runs.set_index("encoder").loc["embedded"]
    assert pd.isna(first["agent.enc_dim"]) and first["agent.size"] == 5 and first["env.shifts"] == "color_easy"
    assert json.loads(first["config"])["eval"] == {"every": 10_000, "episodes": 4}
    log = pd.read_json(runs / "a" / "episodes.jsonl", lines=True)
    mine = found.episodes[found.episodes["run"] == first["id"]]
    np.testing.assert_array_equal(mine["return"], log["return"])
    assert len(found.metrics) == 20 and found.metrics["train/loss"].isna().all()
    assert set(found.ood["run"]) == set(found.runs["id"])
    assert set(found.errors["run"]) == {first["id"]}


def test_errors_are_those_that_the_figure_shows(runs, tmp_path):
    analysis.analyze([runs / "a"], tmp_path / "out", ["errors"], formats=("png",))
    shown = pd.read_csv(tmp_path / "out" / "errors.csv").set_index("window")
    errors = load_results([runs]).errors
    for window in (33, 117):
        mine = errors[errors["window"] == window]
        assert mine["error"].mean() == pytest.approx(shown.loc[window, "error"], rel=1e-5)
        assert mine["reward_error"].mean() == pytest.approx(shown.loc[window, "reward_error"], rel=1e-5)


def test_stored_errors_count_as_long_as_their_record_is_not_newer(runs):
    path = window_errors.store_errors(runs / "a" / "latents.npz", runs / "a")
    stored = pd.read_parquet(path)
    stored.assign(error=7.0).to_parquet(path)
    assert (load_results([runs]).errors["error"] == 7).all()
    newer = path.stat().st_mtime_ns + 10**9
    os.utime(runs / "a" / "latents.npz", ns=(newer, newer))
    pd.testing.assert_series_equal(load_results([runs]).errors["error"], stored["error"])
    (runs / "a" / "latents.npz").unlink()  # large, and no longer needed
    assert (load_results([runs]).errors["error"] == 7).all()
    assert window_errors.errors_of_run(read_head(runs / "b")) is None


def test_what_is_damaged_half_written_or_no_run_is_listed_and_stops_nothing(make_run, runs):
    for seed, name in enumerate(("foreign", "cut", "torn", "mid"), 11):
        make_run(f"runs/{name}", seed=seed, parts=("ood",))
    (runs / "empty").mkdir()
    (runs / "notes.txt").write_text("not a run")
    (runs / "foreign" / "config.yaml").unlink()
    (runs / "foreign" / "manifest.json").unlink()
    (runs / "cut" / "ood.parquet").write_bytes((runs / "cut" / "ood.parquet").read_bytes()[:-50])
    with (runs / "torn" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1000, "fra')
    lines = (runs / "mid" / "episodes.jsonl").read_text().splitlines()
    (runs / "mid" / "episodes.jsonl").write_text("\n".join([*lines[:3], '{"kind', *lines[3:]]) + "\n")
    (runs / "twin").mkdir()
    for name in ("config.yaml", "manifest.json"):
        (runs / "twin" / name).write_bytes((runs / "a" / name).read_bytes())
    found = load_results([runs])
    assert list(found.runs["name"]) == ["a", "b", "cut", "mid", "torn"]
    reasons = {str(path).removeprefix(f"{runs}/"): reason for path, reason in found.skipped.items()}
    assert set(reasons) == {
        "cut/ood.parquet", "empty", "foreign", "mid/episodes.jsonl", "torn/metrics.jsonl", "twin"
    }  # fmt: skip
    assert reasons["empty"] == "the folder is empty" and "the same run lies in" in reasons["twin"]
    assert reasons["torn/metrics.jsonl"] == "its last line is half-written and left out"
    assert found.metrics.groupby("run").size().tolist() == [10] * 5
    assert query([runs], "SELECT count(*) n FROM runs").skipped.keys() == {
        str(runs / name) for name in ("empty", "foreign", "twin")
    }


def test_tables_of_agents_with_other_logs_stand_in_one(make_run, tmp_path):
    one, two = make_run("runs/a", parts=()), make_run("runs/b", seed=2, parts=())
    (one / "metrics.jsonl").write_text('{"step": 1, "frame": 2, "train/x": 1}\n{"step": 2, "frame": 4, "train/x": 0.5}')
    (two / "metrics.jsonl").write_text('{"step": 1, "frame": 2, "train/y": null}\n')
    metrics = load_results([tmp_path / "runs"]).metrics
    assert list(metrics["train/x"].dropna()) == [1, 0.5] and metrics["train/y"].isna().all()
    (two / "metrics.jsonl").write_text('{"step": 1, "frame": 2, "train/x": "none"}\n')
    assert list(load_results([tmp_path / "runs"]).metrics["train/x"]) == ["1", "0.5", "none"]  # read one by one
    (two / "metrics.jsonl").write_text('{"step": 1, "frame": 2, "train/x": 3}\n\n{"step": 2, "frame": 4}\n')
    assert load_results([tmp_path / "runs"]).metrics.groupby("run", sort=False).size().tolist() == [2, 2]
    (two / "metrics.jsonl").write_text('{"step": "one", "frame": 2}\n')
    found = load_results([tmp_path / "runs"])
    assert len(found.metrics) == 2 and "metrics.jsonl cannot be read" in found.skipped[str(two / "metrics.jsonl")]


def test_some_metrics_alone_are_read_as_among_all(make_run, tmp_path):
    one, two = make_run("runs/a", parts=()), make_run("runs/b", seed=2, parts=())
    (one / "metrics.jsonl").write_text(
        '{"step": 1, "frame": 2, "x": 1, "text": "a"}\n{"step": 2, "frame": 4, "x": 0.5}\n'
    )
    (two / "metrics.jsonl").write_text('{"step": 3, "frame": 6, "text": 1}\n')
    read = [read_tables([tmp_path / "runs"], ["metrics"], some)[0]["metrics"].to_pandas() for some in (["x"], None)]
    assert list(read[0]) == ["run", "step", "frame", "x"] and list(read[0]["x"].dropna()) == [1, 0.5]
    pd.testing.assert_frame_equal(read[0], read[1][list(read[0])])


def test_a_query_joins_tables_and_names_what_it_does_not_know(runs):
    rows = query([runs], 'SELECT runs.encoder, avg("return") AS score FROM ood JOIN runs ON run = id '
                         "WHERE shift <> 'none' GROUP BY ALL ORDER BY 1").rows  # fmt: skip
    held_out = load_results([runs]).ood.query("shift != 'none'").groupby("encoder")["return"].mean()
    np.testing.assert_allclose(rows["score"], held_out)
    assert list(query([runs], "SHOW TABLES").rows["name"]) == ["episodes", "errors", "metrics", "ood", "runs"]
    with pytest.raises(AnalysisError, match=r'"nope" not found.*\nTables: runs, metrics.*\nruns: id, name, part'):
        query([runs], "SELECT nope FROM runs")
    with pytest.raises(AnalysisError, match=r"rnus does not exist! Did you mean \"runs\"\?.*\nTables: runs, metrics"):
        query([runs], "SELECT * FROM rnus")
    with pytest.raises(AnalysisError, match=r"syntax error.*\nTables: runs, metrics"):
        query([runs], "SELEC 1")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_json('{secret}')",
        "SELECT * FROM read_parquet('{secret}')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM read_text('.tmp/secret.csv')",  # where DuckDB puts what does not fit into memory
        "SELECT * FROM glob('.tmp/*')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_csv('https://127.0.0.1/x.csv')",
        "SELECT * FROM sqlite_scan('{secret}', 'x')",
        "COPY runs TO '{folder}/made.csv'",
        "COPY (SELECT 1) TO '{folder}/made.parquet'",
        "EXPORT DATABASE '{folder}/made'",
        "ATTACH '{folder}/made.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA enable_external_access = true",
        "CREATE TABLE x AS SELECT 1",
        "SELECT 1; COPY runs TO '{folder}/made.csv'",
        "SELECT * FROM query('COPY runs TO ''{folder}/made.csv''')",
        "SELECT * FROM os",
        "",
    ],
)
def test_a_query_reaches_no_file_no_network_and_no_setting(runs, tmp_path, sql, monkeypatch):
    monkeypatch.chdir(tmp_path)
    secret, spilled = tmp_path / "secret.csv", tmp_path / ".tmp" / "secret.csv"
    spilled.parent.mkdir()
    for path in (secret, spilled):
        path.write_text("a,b\n1,2\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(AnalysisError, match=r"the query failed|a query is one SELECT") as caught:
        query([runs], sql.format(secret=secret, folder=tmp_path))
    assert caught.value.exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_export_is_read_as_its_folder_was(runs, exported):
    path = exported("one.duckdb", runs)
    folder, stored = load_results([runs]), load_results([path])
    for name in ("metrics", "episodes", "ood", "errors"):
        pd.testing.assert_frame_equal(getattr(folder, name), getattr(stored, name))
    pd.testing.assert_frame_equal(folder.runs.drop(columns="path"), stored.runs.drop(columns="path"))
    assert stored.runs["path"].isna().all()
    with duckdb.connect(str(path), read_only=True) as connection:  # anybody can read it
        assert connection.execute("SELECT count(*) FROM runs").fetchall() == [(2,)]


def test_figures_of_an_export_are_those_of_its_folder(make_run, exported, tmp_path):
    folders = [
        make_run(f"runs/{name}-{seed}", name, seed, parts=("ood", "latents")) for name in ("a", "bb") for seed in (1, 2)
    ]
    path, wanted = exported("one.duckdb", tmp_path / "runs"), ["returns", "ood", "area", "errors"]
    analysis.analyze(folders, tmp_path / "folder", wanted, formats=())
    report = analysis.analyze([path], tmp_path / "export", formats=())
    for name in wanted:
        there, here = (pd.read_csv(tmp_path / where / f"{name}.csv") for where in ("folder", "export"))
        pd.testing.assert_frame_equal(there, here, rtol=1e-6)
    lacking = {one["figure"]: (one["run"], one["reason"], one["command"]) for one in report["missing"]}
    assert lacking["dynamics"] == ("4 exported runs", "an export holds no latents", "")
    with pytest.raises(AnalysisError, match=r"'latents' cannot be made: an export holds no latents$"):
        analysis.analyze([path], tmp_path / "no", ["latents"])


def test_windows_of_errors_are_those_that_all_exported_runs_have(make_run, synthetic, exported, tmp_path):
    make_run("runs/long"), make_run("runs/short", "other")
    shorter = synthetic["latents"](np.random.default_rng(0), steps=90)
    np.savez(tmp_path / "runs" / "short" / "latents.npz", **shorter)
    report = analysis.analyze([exported("one.duckdb", tmp_path / "runs")], tmp_path / "out", ["errors"], formats=())
    assert set(pd.read_csv(tmp_path / "out" / "errors.csv")["window"]) == {33}
    assert (
        report["notes"]["errors"][-1] == "dmc/walker-walk: 33 steps stand for 500: no longer window is in all exports"
    )


def test_exports_of_two_machines_are_put_together(make_run, exported, tmp_path):
    make_run("here/a", seed=1, parts=("ood",)), make_run("there/b", seed=2, parts=("ood",))
    here, there = exported("here.duckdb", tmp_path / "here"), exported("there.duckdb", tmp_path / "there")
    both = load_results([here, there, here])
    assert sorted(both.runs["seed"]) == [1, 2] and len(both.ood) == 48
    report = analysis.analyze([here, there], tmp_path / "out", ["ood"], formats=())
    assert len(report["runs"]) == 2
    again = load_results([exported("both.duckdb", here, there), there])
    pd.testing.assert_frame_equal(both.episodes, again.episodes)


def test_one_run_with_two_contents_is_refused(make_run, exported, tmp_path):
    folder = make_run("here/a", parts=("ood",))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1000, "frame": 2000, "train/now_and_then": 0.5}\n')
    first = exported("first.duckdb", tmp_path / "here")
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in log:
        row["time/elapsed"] = 1.5  # another machine
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    assert len(load_results([first, exported("slower.duckdb", tmp_path / "here")]).runs) == 1
    log[3]["train/loss"] = 2.0
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    with pytest.raises(AnalysisError, match=r"is in two places, with different content \(.*first.* and .*other"):
        load_results([first, exported("other.duckdb", tmp_path / "here")])


def state(folder, state, checkpoint):
    (folder / "status.json").write_text(json.dumps({"state": state, "checkpoint": checkpoint}))


@pytest.mark.parametrize("turned", [False, True])
def test_exports_of_different_days_give_what_is_further(make_run, exported, tmp_path, turned):
    first, second = make_run("here/a", seed=1, parts=()), make_run("here/b", seed=2, parts=())
    third = make_run("here/c", seed=3, parts=())
    later = {folder: (folder / "metrics.jsonl").read_text() for folder in (first, second)}
    for folder in (first, second):
        (folder / "metrics.jsonl").write_text("".join(later[folder].splitlines(keepends=True)[:4]))
    state(first, "running", 300)
    state(second, "interrupted", None)
    monday = exported("monday.duckdb", tmp_path / "here")
    for folder, text in later.items():
        (folder / "metrics.jsonl").write_text(text)
    state(first, "finished", 1000)
    state(second, "running", 900)
    make_run("other", seed=3)  # played and recorded since
    for name in ("ood.parquet", "latents.npz"):
        (tmp_path / "other" / name).rename(third / name)
    tuesday = exported("tuesday.duckdb", tmp_path / "here")
    both = load_results([tuesday, monday] if turned else [monday, tuesday])
    alone = load_results([tuesday])
    by = both.runs.sort_values("seed")
    assert list(by["state"]) == ["finished", "running", "finished"] and list(by["step"]) == [1000, 900, 100_000]
    for name in ("metrics", "episodes", "ood", "errors"):
        rows = [getattr(one, name).sort_values("run", kind="stable", ignore_index=True) for one in (both, alone)]
        pd.testing.assert_frame_equal(*rows)
    assert set(both.errors["run"]) == set(both.ood["run"]) == {by["id"].iloc[2]}
    report = analysis.analyze([monday, tuesday], tmp_path / "out", ["returns"], formats=())
    assert len(report["runs"]) == 2


def test_a_finished_run_of_which_each_export_lacks_something_is_refused(make_run, exported, tmp_path):
    folder = make_run("here/a")
    (folder / "latents.npz").rename(tmp_path / "latents.npz")
    first = exported("first.duckdb", tmp_path / "here")
    (tmp_path / "latents.npz").rename(folder / "latents.npz")
    (folder / "ood.parquet").unlink()
    with pytest.raises(AnalysisError, match=r"in two places, with different content \(.*first.* and .*second"):
        load_results([first, exported("second.duckdb", tmp_path / "here")])


def test_files_that_are_no_export_are_refused(runs, exported, tmp_path):
    path = exported("one.duckdb", runs)
    with duckdb.connect(str(tmp_path / "newer.duckdb")) as connection:
        for name in ("runs", "metrics", "episodes", "ood", "errors"):
            connection.execute(f"CREATE TABLE {name} AS SELECT 1 AS run")
        connection.execute("CREATE TABLE export AS SELECT 99 AS format")
    with duckdb.connect(str(tmp_path / "foreign.duckdb")) as connection:
        connection.execute("CREATE TABLE x AS SELECT 1")
    data = bytearray(path.read_bytes())
    (tmp_path / "cut.duckdb").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.duckdb").write_text("hello")
    for name, match, status in [
        ("newer.duckdb", r"has format \[99\]; this version reads up to 1", 3),
        ("foreign.duckdb", "this database is no export of a study", 2),
        ("cut.duckdb", "cannot be read", 3),
        ("text.duckdb", "there are no runs here.*\n.*is a file, and no export", 2),
        ("absent", "there are no runs here.*\n.*does not exist", 2),
    ]:
        with pytest.raises(AnalysisError, match=match) as caught:
            load_results([tmp_path / name])
        assert caught.value.exit_code == status


def test_a_view_in_a_foreign_export_reads_no_file(exported, runs, tmp_path):
    path = exported("one.duckdb", runs)
    (tmp_path / "secret.csv").write_text("run\n1\n")
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE ood")
        connection.execute(f"CREATE VIEW ood AS SELECT * FROM read_csv('{tmp_path}/secret.csv')")
    with pytest.raises(AnalysisError, match=r"no export of a study"):
        load_results([path])
