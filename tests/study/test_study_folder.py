"""What lies in a study's folder: which study may go on there, how progress is told, and how stages are counted done."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr import errors
from mbrl_pvr.cli import study as cli
from mbrl_pvr.cli.main import main
from mbrl_pvr.study.cells import Run, Study, load_study
from mbrl_pvr.study.engine import jobs_of
from mbrl_pvr.study.file import OodStage, Stages
from mbrl_pvr.study.folder import (
    log_file,
    open_study,
    read_progress,
    read_study,
    run_folder,
    stages_left,
    write_progress,
)
from mbrl_pvr.study.status import status

Pretend = Callable[..., None]


def test_the_same_study_goes_on_and_reads_back(study: Study, folder: Path) -> None:
    before = (folder / "study.json").read_bytes()
    with open_study(folder, study) as whole:
        assert whole == study == read_study(folder)
    assert (folder / "study.json").read_bytes() == before
    with open_study(folder, replace(study, retries=5, text="# a comment\n" + study.text)):
        assert read_study(folder).retries == 5  # how it is run may change


def test_a_changed_study_is_refused_with_the_difference_and_extend_only_adds(study: Study, folder: Path) -> None:
    fewer = replace(study, runs=study.runs[:3], text=study.text + "# fewer\n")
    with (
        pytest.raises(errors.ConfigError, match=r"was changed.*\n  - part more: agent\.lr=0\.002, seed=4\n--extend"),
        open_study(folder, fewer),
    ):
        pass
    assert read_study(folder) == study
    with open_study(folder, fewer, extend=True) as whole:
        assert {run.id for run in whole.runs} == {run.id for run in study.runs}
        for run in whole.runs:  # one is no longer in the file, and keeps its settings
            assert whole.config(run) == study.config(next(r for r in study.runs if r.id == run.id))
    with open_study(folder, fewer) as again:  # which goes on without it, too
        assert again == whole
    with open_study(folder, study, extend=True) as whole:
        assert whole == study


def test_new_runs_want_extend(study: Study, tmp_path: Path) -> None:
    with open_study(tmp_path / "d", replace(study, runs=study.runs[1:])):
        pass
    with pytest.raises(errors.ConfigError, match=r"\+ part main: .*seed=1"), open_study(tmp_path / "d", study):
        pass
    with open_study(tmp_path / "d", study, extend=True) as whole:
        assert whole == study


def test_stages_of_a_run_never_change(study: Study, folder: Path) -> None:
    other = replace(study, kinds=[replace(kind, stages=Stages()) for kind in study.kinds])
    for extend in (False, True):
        with (
            pytest.raises(errors.ConfigError, match=r"stages\.record.*\nOr give another --dir"),
            open_study(folder, other, extend=extend),
        ):
            pass


def test_a_changed_setting_is_shown_and_not_only_the_runs_that_have_it(tiny: Path, folder: Path) -> None:
    tiny.write_text(tiny.read_text().replace("random_steps: 60,", "random_steps: 50, agent.reward_coef: 0.3,"))
    changed = load_study(tiny, debug=True)
    again = [
        rf"part {part}, {key}: .* -> {value} \(in 2 runs, done again\)\n"
        for part in ("main", "more")
        for key, value in ((r"agent\.reward_coef", r"0\.3"), ("random_steps", "50"))
    ]
    words = "  ".join(again)
    with pytest.raises(errors.ConfigError, match=words) as caught, open_study(folder, changed):
        pass
    assert "+ part" not in str(caught.value) and "--extend" in str(caught.value)
    with pytest.raises(errors.ConfigError, match=r"agent\.iterations: 2 -> 6 "), open_study(folder, load_study(tiny)):
        pass  # --debug was forgotten


def test_parts_are_begun_one_after_the_other(tiny: Path, tmp_path: Path) -> None:
    main_part, more, both = (load_study(tiny, parts, debug=True) for parts in (["main"], ["more"], []))
    with open_study(tmp_path / "d", main_part, parts=["main"]):
        pass
    with open_study(tmp_path / "d", more, parts=["more"]) as whole:
        assert [run.id for run in whole.runs] == [run.id for run in [*more.runs, *main_part.runs]]
        for run in whole.runs:
            assert whole.config(run) == both.config(next(r for r in both.runs if r.id == run.id))
    fewer = replace(main_part, runs=main_part.runs[:1], text=main_part.text + "# fewer\n")
    with (
        pytest.raises(errors.ConfigError, match=r"- part main: .*seed=2"),
        open_study(tmp_path / "d", fewer, parts=["main"]),
    ):
        pass
    with open_study(tmp_path / "e", main_part, parts=["main"]):
        pass
    with open_study(tmp_path / "e", both) as whole:  # the same file, now all of it
        assert whole == both
    with open_study(tmp_path / "f", main_part, parts=["main"]):
        pass
    grown = replace(both, text=both.text + "# longer")
    with pytest.raises(errors.ConfigError, match=r"\+ part more"), open_study(tmp_path / "f", grown):
        pass


def test_a_stage_can_be_added_to_runs_that_are_there(study: Study, folder: Path, pretend: Pretend) -> None:
    run = study.runs[2]
    pretend(run_folder(folder, run), 120, "finished")
    assert stages_left(folder, study, run) == []
    more = replace(study, kinds=[replace(k, stages=replace(k.stages, ood=OodStage())) for k in study.kinds])
    with pytest.raises(errors.ConfigError, match=r"\+ part main, stages\.ood\n"), open_study(folder, more):
        pass
    with open_study(folder, more, extend=True) as whole:
        assert stages_left(folder, whole, run) == ["ood"]
    with pytest.raises(errors.ConfigError, match=r"stages\.ood"), open_study(folder, study, extend=True):
        pass


def test_two_studies_do_not_share_a_folder(study: Study, folder: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(errors.ConfigError, match="holds the study tiny, not other"),
        open_study(folder, replace(study, name="other")),
    ):
        pass
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(errors.StorageError, match="not empty and holds no study"), open_study(tmp_path / "full", study):
        pass
    with pytest.raises(errors.StorageError, match=r"no study here[\s\S]*study run FILE"):
        status(tmp_path / "nowhere")


def test_one_process_starts_the_runs_of_a_folder(study: Study, folder: Path) -> None:
    with open_study(folder, study), pytest.raises(errors.RunLocked), open_study(folder, study):
        pass


def test_a_damaged_or_newer_study_is_refused(folder: Path) -> None:
    text = (folder / "study.json").read_text()
    (folder / "study.json").write_text(text.replace('"seed": 2', '"seed": 3', 1))
    with pytest.raises(errors.IntegrityError, match=r"study\.json"):
        read_study(folder)
    assert main(["study", "status", str(folder)]) == 3


def test_what_is_left_follows_from_the_run_folder_too(study: Study, folder: Path, pretend: Pretend) -> None:
    run = study.runs[0]
    place = run_folder(folder, run)
    assert stages_left(folder, study, run) == ["train", "record"]
    pretend(place, 120, "finished")
    assert stages_left(folder, study, run) == ["record"]
    write_progress(folder, run, finished={"train": {"time/seconds": 1}, "record": {"time/seconds": 1}})
    assert stages_left(folder, study, run) == ["record"]  # its file is not there
    (place / "latents.npz").touch()
    assert stages_left(folder, study, run) == []
    assert stages_left(folder, study, study.runs[2]) == ["train"]  # no stages in its part
    pretend(place, 60, "interrupted")
    assert stages_left(folder, study, run) == ["train", "record"]


@pytest.mark.parametrize(
    "damaged",
    [
        "{",
        "[]",
        '{"state": "running", "finished": null}',
        '{"state": "finished", "finished": {"train": 1}}',
        '{"state": "finished", "finished": {"train": {}}}',
        '{"state": "finished", "finished": {"train": {"time/seconds": "60"}}}',
        '{"state": "running", "time/pid": "77", "time/host": null}',
        '{"state": ["running"], "stage": null}',
        '{"state": "running", "time/stage_began": "now", "time/from_step": null}',
    ],
)
def test_a_damaged_progress_file_says_nothing(
    study: Study, folder: Path, damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_progress(folder, study.runs[0], state="running")
    (folder / "progress" / f"{study.runs[0].name}.json").write_text(damaged)
    assert read_progress(folder, study.runs[0]) == {"state": "new", "stage": "", "finished": {}}
    assert main(["study", "status", str(folder)]) == 0
    assert "4 runs, 4 new" in capsys.readouterr().out
    assert write_progress(folder, study.runs[0], state="running")["finished"] == {}


@pytest.mark.parametrize("damaged", ['{"step": "7"}', '{"step": null}', '{"state": 1}', '{"time/heartbeat": "now"}'])
def test_a_damaged_status_file_says_nothing(study: Study, folder: Path, damaged: str) -> None:
    run = study.runs[0]
    write_progress(folder, run, state="running", stage="train")
    run_folder(folder, run).mkdir()
    (run_folder(folder, run) / "status.json").write_text(damaged)
    assert main(["study", "status", str(folder)]) == 0
    assert status(folder).runs[0].step == 0


def test_status_tells_what_is_finished_runs_failed_and_died(study: Study, folder: Path, pretend: Pretend) -> None:
    done, failed, dead, busy = study.runs
    write_progress(
        folder, done, state="finished", finished={"train": {"time/seconds": 60.0}, "record": {"time/seconds": 6}}
    )
    pretend(run_folder(folder, done), 120, "finished")
    (run_folder(folder, done) / "latents.npz").touch()
    write_progress(folder, failed, state="failed", stage="train", error="EnvError: gone")
    log_file(folder, failed).write_text("one\n\ntwo\nthree\n")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_progress(folder, dead, state="running", stage="train")
    path = folder / "progress" / f"{dead.name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "time/pid": gone.pid}))
    pretend(run_folder(folder, dead), 30)
    now = time.time()
    write_progress(folder, busy, state="running", stage="train", **{"time/stage_began": now - 10, "time/from_step": 20})
    pretend(run_folder(folder, busy), 70, **{"time/heartbeat": now})
    told = status(folder)
    assert told.counts == {"finished": 1, "running": 1, "silent": 0, "failed": 1, "interrupted": 1, "new": 0}
    assert (told.steps, told.of_steps) == (120 + 0 + 30 + 70, 480)
    by_id = {run.id: run for run in told.runs}
    assert by_id[busy.id].steps_per_second == pytest.approx(5.0) == told.steps_per_second
    assert by_id[busy.id].seconds_left == pytest.approx(50 / 5 + 6)  # its own pace, then stages as others had
    assert by_id[dead.id].seconds_left == pytest.approx(90 * 0.5 + 6)  # 0.5 s a step, as the one that finished
    assert by_id[failed.id].log == ["one", "two", "three"] and by_id[failed.id].error == "EnvError: gone"
    assert told.seconds_left == pytest.approx((60 + 6) + (45 + 6) + (10 + 6))
    write_progress(folder, dead, state="running")
    path.write_text(json.dumps({**json.loads(path.read_text()), "time/host": "another", "time/pid": gone.pid}))
    assert socket.gethostname() != "another" and status(folder).counts["running"] == 2


def test_status_says_what_a_start_would_find(study: Study, folder: Path, pretend: Pretend) -> None:
    """A run whose folder was removed is new again, one whose record was removed goes on, one with all of it is done."""
    stages = {"train": {"time/seconds": 60.0}, "record": {"time/seconds": 6.0}}
    removed, unrecorded, plain, begun = study.runs
    for run in (removed, unrecorded, plain):
        write_progress(folder, run, state="finished", finished=stages)
        pretend(run_folder(folder, run), 120, "finished")
    (run_folder(folder, removed) / "latents.npz").touch()
    write_progress(folder, begun, state="interrupted", stage="train")
    pretend(run_folder(folder, begun), 30, "interrupted")

    def states() -> list[str]:
        left = {job.run.id for job in jobs_of(folder, study)}
        told = status(folder).runs
        assert left == {run.id for run in told if run.state != "finished"}
        return [run.state for run in told]

    assert states() == ["finished", "interrupted", "finished", "interrupted"]
    shutil.rmtree(run_folder(folder, removed))
    shutil.rmtree(run_folder(folder, begun))
    assert states() == ["new", "interrupted", "finished", "new"]
    first, second, third, _ = status(folder).runs
    assert (first.step, first.stages) == (0, {"train": False, "record": False})
    assert (second.step, second.stages) == (120, {"train": True, "record": False})
    assert first.seconds_left == pytest.approx(66) and second.seconds_left == pytest.approx(6)
    (folder / "progress" / f"{third.name}.json").unlink()
    assert states()[2] == "finished"  # training is all that there is to do


def rewrite(folder: Path, run: Run, **changes: Any) -> None:
    """Change a progress file as another process, machine or time would have written it."""
    path = folder / "progress" / f"{run.name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_worker_of_another_machine_that_gives_no_sign_is_silent(
    study: Study, folder: Path, pretend: Pretend, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    _, alive, ahead, reused = study.runs
    for run in study.runs:
        pretend(run_folder(folder, run), 60, **{"time/heartbeat": now - 720})
        begun = {"time/stage_began": now - 780, "time/from_step": 0}
        write_progress(folder, run, state="running", stage="train", **begun)
        rewrite(folder, run, **{"time/host": "another", "time/at": now - 720})
    pretend(run_folder(folder, alive), 60, **{"time/heartbeat": now - 60})
    rewrite(folder, ahead, **{"time/at": now + 200})  # of a node whose clock is before ours
    rewrite(folder, reused, **{"time/host": socket.gethostname()})  # restarted; its number is ours now
    told = status(folder)
    assert [run.state for run in told.runs] == ["silent", "running", "running", "silent"]
    assert told.counts["silent"] == told.counts["running"] == 2
    quiet, *_ = told.runs
    assert quiet.seconds_silent == pytest.approx(720, abs=60) and quiet.steps_per_second is None
    assert told.steps_per_second == pytest.approx(sum(run.steps_per_second or 0 for run in told.runs[1:3]))
    assert main(["study", "status", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "2 running, 2 silent" in out and "0:12 h ago" in out and "no sign of a worker for 0:12 h" in out


def test_the_live_table_ends_where_nothing_is_left_to_wait_for(
    study: Study, folder: Path, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        assert looks == 1, "it goes on for ever"
        write_progress(folder, study.runs[3], state="failed", stage="train", error="EnvError: gone")

    for run in study.runs[:3]:
        write_progress(folder, run, state="failed", stage="train", error="EnvError: gone")
    write_progress(folder, study.runs[3], state="running", stage="train")
    monkeypatch.setattr(cli.time, "sleep", sleep)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["study", "status", str(folder)]) == 0 and looks == 1


def test_status_in_text_and_as_json(
    study: Study, folder: Path, pretend: Pretend, capsys: pytest.CaptureFixture[str]
) -> None:
    write_progress(folder, study.runs[1], state="failed", stage="train", error="EnvError: \x1b[31mgone")
    write_progress(folder, study.runs[2], state="running", stage="train")
    assert main(["study", "status", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "study tiny: 4 runs, 1 running, 1 failed, 2 new" in out and "EnvError: ?[31mgone" in out
    assert "time left: unknown" in out and study.runs[2].name in out
    assert main(["study", "status", str(folder), "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in tree["runs"]] == ["new", "failed", "running", "new"]
    assert tree["runs"][0]["stages"] == {"train": False, "record": False}


def test_engines_and_studies_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "run", "smoke", "--engine", "lokal", "--dir", str(tmp_path / "d")]) == 2
    assert "unknown engine 'lokal'" in (told := capsys.readouterr().err) and "'local'" in told
    assert main(["study", "run", "smoek"]) == 2
    assert not (tmp_path / "d").exists()


def test_a_machine_that_is_too_small_is_told_with_numbers(tiny: Path, tmp_path: Path) -> None:
    tiny.write_text(tiny.read_text().replace("cores: 1, memory: 0.1", "cores: 1, memory: 100000"))
    with pytest.raises(errors.ConfigError, match=r"memory=100000.*this machine has [0-9.]+ GiB \(part main, resources"):
        from mbrl_pvr import api

        api.study_run(tiny, tmp_path / "d", debug=True)
    assert not (tmp_path / "d").exists()
    assert len(load_study(tiny, debug=True).runs) == 4
