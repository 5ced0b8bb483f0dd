"""Query, export and claims of a study's folder, as a user calls them."""

import json
from dataclasses import replace

import duckdb
import pandas as pd
import pytest
import yaml

import mbrl_pvr
from mbrl_pvr.cli.main import main
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.presets import available, presets
from mbrl_pvr.storage import digest, sealed_json
from mbrl_pvr.study.cells import Study
from mbrl_pvr.study.file import studies
from mbrl_pvr.study.results import encoder_groups, read_claims


@pytest.fixture
def finished(folder, study: Study):
    """The study's folder with three of its four runs finished; of two encoders in the same looks."""
    for number, run in enumerate(study.runs[:3]):
        path = folder / "runs" / run.name
        path.mkdir(parents=True)
        config = {**study.kind(run).config, "seed": run.seed}
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        manifest = {"format": 1, "identity": digest({"sha256": run.id}), "command": ["other"]}
        (path / "manifest.json").write_text(json.dumps(manifest))
        (path / "status.json").write_text(json.dumps({"state": "finished", "checkpoint": config["steps"]}))
        row = {"agent": "tdmpc2", "encoder": "embedded", "task": "counting/default", "seed": run.seed, "step": 120}
        row |= {"frame": 120, "length": 5, "success": None, "kind": "ood", "severity": 0.0}
        rows = [
            {**row, "shift": shift, "split": split, "episode": n, "return": number + n, "normalised": 0.1 * n}
            for shift, split in (("none", "train"), ("dark", "held_out"))
            for n in range(3)
        ]
        pd.DataFrame(rows).to_parquet(path / "ood.parquet")
        (path / "metrics.jsonl").write_text('{"step": 1, "frame": 1, "time/elapsed": 3.5}\n')
    (folder / "runs" / "foreign").mkdir()
    return folder


def call(capsys, *words):
    """Exit status, standard output and standard error of a command."""
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def test_a_query_says_what_a_study_knows_of_its_runs(finished, study, capsys):
    status, out, err = call(capsys, "query", finished, "SELECT name, part, state, seed, command FROM runs", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0 and set(rows) == {run.name for run in study.runs}
    for run in study.runs:
        assert rows[run.name]["part"] == study.kind(run).part and rows[run.name]["command"] == run.command
    assert [rows[run.name]["state"] for run in study.runs] == ["finished"] * 3 + ["new"]
    assert err == f"left out: {finished}/runs/foreign: the folder is empty\n"


def test_a_query_prints_tables_csv_and_errors(finished, capsys):
    sql = 'SELECT seed, max("return") AS best, NULL AS none FROM ood GROUP BY ALL ORDER BY seed'
    assert call(capsys, "query", finished, sql)[:2] == (0, "seed  best  none\n1     2\n2     3\n3     4\n")
    assert call(capsys, "query", finished, sql, "--csv")[1] == "seed,best,none\n1,2.0,\n2,3.0,\n3,4.0,\n"
    steps = "SELECT state, step, path IS NULL AS planned, 1.5e6 AS big FROM runs ORDER BY seed DESC LIMIT 2"
    assert call(capsys, "query", finished, steps)[1].splitlines()[1:] == [
        "new             True     1500000",
        "finished  120   False    1500000",
    ]
    rows = json.loads(call(capsys, "query", finished, steps, "--json")[1])
    assert rows[0] == {"state": "new", "step": None, "planned": True, "big": 1.5e6} and rows[1]["step"] == 120
    assert call(capsys, "query", finished, "SELECT 1 AS x WHERE false")[1] == "no rows: x\n"
    status, out, err = call(capsys, "query", finished, "SELECT retrn FROM ood")
    assert (status, out) == (2, "") and "\nood: run, " in err
    status, _, err = call(capsys, "query", finished / "logs", "SELECT 1")
    assert status == 2 and err.startswith("there are no runs here")


def test_an_export_holds_what_its_study_does(finished, tmp_path, capsys):
    status, out, _ = call(capsys, "study", "export", finished)
    file = finished.with_name("dir.duckdb")
    assert status == 0 and out.startswith(f"{file}: ") and "4 runs, 3 metrics, 0 episodes, 18 ood, 0 errors" in out
    there, here = mbrl_pvr.load_study(finished), mbrl_pvr.load_study(file)
    pd.testing.assert_frame_equal(there.ood, here.ood)
    assert list(here.runs["part"]) == list(there.runs["part"]) and here.skipped == {}
    again = mbrl_pvr.study_export([finished, file], tmp_path / "new" / "both.duckdb")
    assert again.rows["runs"] == 4 and not list((tmp_path / "new").glob(".*"))


def test_what_one_machine_did_stands_in_for_what_the_other_only_planned(finished, study, tmp_path):
    """Exports of one study, some of whose runs were done here and the others there."""
    mbrl_pvr.study_export(finished, tmp_path / "here.duckdb")
    last = study.runs[3]
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "runs").mkdir(parents=True)
    (elsewhere / "study.json").write_bytes((finished / "study.json").read_bytes())
    (finished / "runs" / study.runs[0].name).rename(elsewhere / "runs" / last.name)
    config = {**study.kind(last).config, "seed": last.seed}
    (elsewhere / "runs" / last.name / "config.yaml").write_text(yaml.safe_dump(config))
    manifest = {"format": 1, "identity": digest({"sha256": last.id}), "command": ["other"]}
    (elsewhere / "runs" / last.name / "manifest.json").write_text(json.dumps(manifest))
    both = mbrl_pvr.load_study([tmp_path / "here.duckdb", elsewhere])
    assert list(both.runs["state"]) == ["finished"] * 4
    assert both.ood.groupby("run").size().tolist() == [6] * 4


def test_a_study_is_analyzed_by_its_folder(finished, tmp_path):
    made = mbrl_pvr.analyze(finished, tmp_path / "out", figures=["ood"], formats=())
    assert len(made["runs"]) == 3
    assert {"figure": "all", "run": f"{finished}/runs/foreign", "reason": "the folder is empty", "command": ""} in made[
        "missing"
    ]


CLAIMS = """
claims:
  slower:
    says: A smaller learning rate does not make it worse
    suite: counting/default
    tasks: 1
    score: out_of_distribution
    left: {encoder: embedded, agent.lr: 0.001}
    right: {encoder: embedded, agent.lr: 0.0003}
    expect: below
"""


def test_claims_of_a_study_and_of_its_export(finished, tmp_path, capsys):
    file = tmp_path / "claims.yaml"
    file.write_text(CLAIMS)
    status, out, _ = call(capsys, "study", "claims", finished, "--claims", file)
    assert status == 0 and out.startswith(f"claims of {file}\n\nslower, tdmpc2: undecided\n  A smaller learning rate")
    mbrl_pvr.study_export(finished, tmp_path / "x.duckdb")
    found = [mbrl_pvr.study_claims(path, file) for path in (finished, tmp_path / "x.duckdb")]
    assert found[0] == found[1]
    status, out, _ = call(capsys, "study", "claims", finished, "--json")
    rows = json.loads(out)
    assert {row["outcome"] for row in rows} == {"undecided"}  # none of the study's claims is about counting
    assert {row["source"] for row in rows} == {"configs/claims/schneider2024.yaml"}
    status, _, err = call(capsys, "study", "claims", finished, "--claims", "schneider2042")
    assert status == 2 and "unknown file of claims 'schneider2042'\nDid you mean 'schneider2024'?" in err


def test_the_claims_of_the_study_are_no_study_and_no_preset():
    assert available("claims") == ("schneider2024", "small_cpu")
    assert "claims" not in studies() and not any("claims" in name for name in presets())
    claims = {claim.name: claim for claim in read_claims("schneider2024")}
    assert len(claims) >= 15 and claims["out_of_distribution_dmc"].tasks == 5
    groups = encoder_groups()
    assert "vc1_vitl" in groups["vit"] and "random_resnet18" not in groups["pretrained"]
    known = {*groups, "scratch", "autoencoder", "vc1_vitl"}
    for claim in claims.values():
        for side in (claim.left, claim.right):
            wanted = side.get("encoder", [])
            assert set([wanted] if isinstance(wanted, str) else wanted) <= known
    with pytest.raises(ConfigError, match="unknown file of claims"):
        read_claims("nothing")


@pytest.mark.parametrize("name", available("claims"))
def test_a_claim_about_one_task_names_one(name):
    asked = read_claims(name)
    assert {claim.suite for claim in asked if claim.of_one_task} <= set(mbrl_pvr.list_envs())
    assert all(claim.requires == "learned" for claim in asked) or name == "schneider2024"


def test_a_report_of_a_study_has_its_claims(finished, tmp_path):
    made = mbrl_pvr.report(finished, tmp_path / "out")
    page = made["page"].read_text()
    assert '<section id="claims">' in page and "In dm_control no pretrained representation ends higher" in page
    runs = sorted((finished / "runs").glob("tdmpc2*"))
    lone = mbrl_pvr.report(runs, tmp_path / "runs")
    assert '<section id="claims">' not in lone["page"].read_text() and lone["claims"] == ""
    (tmp_path / "mine.yaml").write_text(CLAIMS)
    asked = mbrl_pvr.report(runs, tmp_path / "asked", claims=tmp_path / "mine.yaml")
    page = asked["page"].read_text()
    assert f"Claims <code>{tmp_path}/mine.yaml</code>" in page and f"--claims {tmp_path}/mine.yaml" in page
    assert "A smaller learning rate does not make it worse" in page and asked["claims"] == f"{tmp_path}/mine.yaml"


@pytest.fixture
def small_cpu(folder, study, finished):
    """A study that is called as a file of claims."""
    called = {"format": 1, "mbrl_pvr": "0.1.0", "study": replace(study, name="small_cpu").to_json()}
    (folder / "study.json").write_bytes(sealed_json(called))
    return finished


def test_a_study_is_held_against_the_claims_that_are_called_as_it(small_cpu, tmp_path, capsys):
    mbrl_pvr.study_export(small_cpu, tmp_path / "one.duckdb")
    again = mbrl_pvr.study_export([small_cpu, tmp_path / "one.duckdb"], tmp_path / "two.duckdb").path
    for place in (small_cpu, tmp_path / "one.duckdb", again):
        assert call(capsys, "study", "claims", place)[1].startswith(
            "claims of configs/claims/small_cpu.yaml\n\nfrozen_in"
        )
    assert {one.source for one in mbrl_pvr.study_claims(again, "schneider2024")} == {
        "configs/claims/schneider2024.yaml"
    }
    status, out, _ = call(capsys, "report", again, "--out", tmp_path / "out")
    assert status == 0 and "\n  claims of configs/claims/small_cpu.yaml\n" in out
    assert "Claims <code>configs/claims/small_cpu.yaml</code>" in (tmp_path / "out" / "report.html").read_text()


def test_an_export_that_does_not_know_its_study_can_be_asked(finished, tmp_path):
    with duckdb.connect(str(mbrl_pvr.study_export(finished, tmp_path / "old.duckdb").path)) as connection:
        connection.execute("ALTER TABLE export DROP COLUMN studies")
    assert {one.source for one in mbrl_pvr.study_claims(tmp_path / "old.duckdb")} == {
        "configs/claims/schneider2024.yaml"
    }
