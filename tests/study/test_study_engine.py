"""Starting jobs and repeating them, with programs of a few lines in place of runs; and the stages of one run."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr import api, errors
from mbrl_pvr.cli.main import main
from mbrl_pvr.storage import sealed_json
from mbrl_pvr.study import engine as engines
from mbrl_pvr.study import local, work
from mbrl_pvr.study.cells import Study
from mbrl_pvr.study.engine import Job, Stopped, drive, jobs_of, last_lines
from mbrl_pvr.study.file import Resources
from mbrl_pvr.study.folder import read_progress, run_folder, write_progress
from mbrl_pvr.study.local import Local

SMALL = Resources(cores=1, memory=0.01)


def test_failing_jobs_are_tried_again_then_reported_and_the_rest_goes_on(
    folder: Path, make_jobs: Callable[..., list[Job]], tmp_path: Path
) -> None:
    count = "n = len(list(place.glob('try*'))); (place / f'try{n}').touch(); "
    jobs = make_jobs(
        count + "sys.exit(5 if n < 2 else 0)", "print('why'); os.kill(os.getpid(), 9)", "(place / 'third').touch()"
    )
    said: list[str] = []
    (failure,) = drive(folder, jobs, Local(2), retries=2, say=said.append)
    assert (failure.run, failure.status, failure.tries) == (jobs[1].run, -9, 3)
    assert "failed 3 times, last with signal SIGKILL" in failure.text and failure.tail[-1] == "why"
    assert sum(line == "why" for line in jobs[1].log.read_text().splitlines()) == 3
    assert failure.tail == ["why"]  # of the last try alone
    assert len(list(tmp_path.glob("try*"))) == 3 and (tmp_path / "third").exists()
    assert read_progress(folder, jobs[1].run)["state"] == "failed"
    assert sum(line.startswith("finished") for line in said) == 2


def test_no_retries_mean_one_try(folder: Path, make_jobs: Callable[..., list[Job]]) -> None:
    (failure,) = drive(folder, make_jobs("sys.exit(3)"), Local(1), retries=0)
    assert "failed once, last with exit status 3" in failure.text and failure.tries == 1


@pytest.mark.parametrize(("status", "tries"), [(1, 3), (2, 1), (3, 1), (6, 1), (8, 3)])
def test_what_would_fail_again_is_not_tried_again(
    folder: Path, make_jobs: Callable[..., list[Job]], status: int, tries: int
) -> None:
    job = make_jobs(f"sys.exit({status})")[0]
    (failure,) = drive(folder, [job], Local(1), retries=2)
    assert (failure.status, failure.tries) == (status, tries)


def test_a_log_that_cannot_be_written_is_a_failure_of_its_run_alone(
    folder: Path, make_jobs: Callable[..., list[Job]]
) -> None:
    bad, good = make_jobs("", "print('done')")
    bad.log.mkdir()
    (failure,) = drive(folder, [bad, good], Local(1), retries=1)
    assert (failure.run, failure.tries) == (bad.run, 2) and "exit status 5: The disk refused" in failure.text
    assert str(bad.log) in failure.tail[-1] and last_lines(good.log)[-1] == "done"


def test_never_more_at_once_than_there_is_room_for(folder: Path, make_jobs: Callable[..., list[Job]]) -> None:
    count = (
        "n = place / f'{os.getpid()}.on'; n.touch(); time.sleep(0.3); print(len(list(place.glob('*.on')))); n.unlink()"
    )
    jobs = make_jobs(count, count, count, count)
    assert drive(folder, jobs, Local(2), retries=0) == []
    assert {int(last_lines(job.log)[-1]) for job in jobs} <= {1, 2}


def test_jobs_see_their_threads_and_no_gpu_that_is_not_theirs(
    folder: Path, make_jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    show = "print(os.environ['OMP_NUM_THREADS'], repr(os.environ['CUDA_VISIBLE_DEVICES'])); time.sleep(0.5)"
    shared = make_jobs(show, show, show, resources=Resources(cores=7, memory=0.01, gpu=0.5))
    assert drive(folder, shared, Local(3), retries=0) == []
    assert sorted(last_lines(job.log)[-1] for job in shared) == ["7 '3'", "7 '3'", "7 '5'"]
    (alone,) = make_jobs(show)
    assert drive(folder, [alone], Local(1), retries=0) == []
    assert last_lines(alone.log)[-1] == "1 ''"


@pytest.mark.parametrize(
    ("resources", "gpus", "workers", "fit"),
    [
        (Resources(cores=2, memory=1), "", None, 2),
        (Resources(cores=1, memory=3), "", None, 3),
        (Resources(cores=3, memory=1), "", None, 1),
        (Resources(cores=9, memory=99), "", 5, 5),
        (Resources(cores=1, memory=1, gpu=0.5), "0", None, 2),
        (Resources(cores=1, memory=1, gpu=1 / 3), "0", None, 3),
        (Resources(cores=1, memory=1, gpu=1 / 3), "0,-1,1", None, 3),  # CUDA reads it up to what is none
        (Resources(cores=1, memory=1, gpu=2), "0,1", None, 1),
        (Resources(cores=1, memory=1, gpu=0.3), "0,1", 4, 4),
    ],
)
def test_capacity(
    resources: Resources, gpus: str, workers: int | None, fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(local, "total_memory", lambda: 10 * local.GIB)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(5)))
    assert Local(workers).capacity(resources) == fit


@pytest.mark.parametrize(
    ("resources", "match"),
    [
        (Resources(cores=6), r"resources\.cores=6, this machine has 5"),
        (Resources(memory=11), r"resources\.memory=11, this machine has 10\.0 GiB"),
        (Resources(gpu=0.5), r"resources\.gpu=0\.5, this machine has 0"),
    ],
)
def test_what_cannot_fit_is_refused_with_both_numbers(
    resources: Resources, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(local, "total_memory", lambda: 10 * local.GIB)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(5)))
    with pytest.raises(errors.ConfigError, match=match):
        Local().capacity(resources)


def after(seconds: float, *signals: int) -> None:
    """Send signals to this process, with as much time between them."""

    def send() -> None:
        for number in signals:
            time.sleep(seconds)
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


def test_a_first_signal_lets_jobs_save_and_starts_no_more(
    folder: Path, make_jobs: Callable[..., list[Job]], tmp_path: Path, handlers: None
) -> None:
    saves = (
        "signal.signal(15, lambda *_: ((place / 'saved').touch(), sys.exit(130))); "
        "(place / 'on').touch(); time.sleep(60)"
    )
    jobs = make_jobs(saves, "(place / 'second').touch()")
    for job in jobs:
        write_progress(folder, job.run, state="running")
    wait_for(tmp_path / "on", then=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Stopped, match="the same command goes on"):
        drive(folder, jobs, Local(1), retries=3)
    assert (tmp_path / "saved").exists() and not (tmp_path / "second").exists()
    assert read_progress(folder, jobs[0].run)["state"] == "interrupted"


def test_a_full_disk_does_not_hide_that_the_study_was_stopped(
    folder: Path, make_jobs: Callable[..., list[Job]], tmp_path: Path, handlers: None
) -> None:
    jobs = make_jobs("(place / 'on').touch(); time.sleep(60)")
    write_progress(folder, jobs[0].run, state="running")
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill_and_stop() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, old[1]))
        os.kill(os.getpid(), signal.SIGINT)

    wait_for(tmp_path / "on", then=fill_and_stop)
    try:
        with pytest.raises(Stopped):
            drive(folder, jobs, Local(1), retries=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert read_progress(folder, jobs[0].run)["state"] == "running"  # the note could not be written


def test_a_second_signal_ends_jobs_that_do_not_listen(
    folder: Path, make_jobs: Callable[..., list[Job]], tmp_path: Path, handlers: None
) -> None:
    child = "import subprocess; child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)']); "
    jobs = make_jobs(
        child + "signal.signal(15, signal.SIG_IGN); (place / 'on').write_text(str(child.pid)); time.sleep(60)"
    )
    wait_for(tmp_path / "on", then=lambda: after(0.5, signal.SIGTERM, signal.SIGINT))
    with pytest.raises(Stopped):
        drive(folder, jobs, Local(1), retries=3)
    pid = int((tmp_path / "on").read_text())
    for _ in range(100):  # its own child goes with it
        if not alive(pid):
            break
        time.sleep(0.1)
    assert not alive(pid)


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(path: Path, then: Callable[[], None]) -> None:
    """Call `then` once a file is there, from another thread."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.05)
        then()

    threading.Thread(target=wait, daemon=True).start()


def test_jobs_are_argument_lists_for_what_is_left(study: Study, folder: Path) -> None:
    run = study.runs[0]
    write_progress(folder, run, finished={"record": {"time/seconds": 1}})
    run_folder(folder, run).mkdir()
    (run_folder(folder, run) / "latents.npz").touch()
    (run_folder(folder, run) / "status.json").write_text(json.dumps({"state": "finished", "step": 120}))
    manifest = run_folder(folder, run) / "manifest.json"
    manifest.write_bytes(sealed_json({"format": 1}))
    jobs = jobs_of(folder, study)
    assert [job.run for job in jobs] == study.runs[1:]
    for unread in (sealed_json({"format": 99, "mbrl_pvr": "9.0"}), b"{}"):  # its job says why
        manifest.write_bytes(unread)
        assert [job.run for job in jobs_of(folder, study)] == study.runs
    assert jobs[0].arguments[1:] == ["-m", "mbrl_pvr.cli.main", "study", "work", str(folder), study.runs[1].id]


# ---- one run -------------------------------------------------------------------------------------------------------


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch, pretend: Callable[..., None], handlers: None) -> list[tuple[Any, ...]]:
    """Stand-ins for training and recording, which tell how they were called."""
    seen: list[tuple[Any, ...]] = []

    def train(*, config: Any, dir: Path) -> None:
        seen.append(("train", config.seed, config.threads))
        pretend(dir, config.steps, "finished")

    def record(run: Path, **asked: Any) -> None:
        seen.append(("record", asked["episodes"], asked["horizon"], asked["debug"]))
        (run / "latents.npz").touch()

    monkeypatch.setattr(api, "train", train)
    monkeypatch.setattr(api, "record", record)
    return seen


def test_a_run_goes_through_its_stages_once(study: Study, folder: Path, acts: list[tuple[Any, ...]]) -> None:
    run = study.runs[1]
    work.work(folder, run.id)
    assert acts == [("train", 2, 1), ("record", 1, 3, True)]
    noted = read_progress(folder, run)
    assert (noted["state"], list(noted["finished"])) == ("finished", ["train", "record"])
    work.work(folder, run.id)
    assert [act[0] for act in acts[2:]] == ["train"]  # looks at its folder, and whether its checkpoint is whole
    (run_folder(folder, run) / "latents.npz").unlink()
    assert main(["study", "work", str(folder), run.id[:12]]) == 0
    assert [act[0] for act in acts[3:]] == ["train", "record"]


def test_a_run_waits_for_whoever_holds_its_folder(
    study: Study, folder: Path, acts: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, held = api.train, [1, 1]

    def locked(**how: Any) -> Any:
        if held:
            held.pop()
            raise errors.RunLocked("in use by process 1 on host")
        return train(**how)

    monkeypatch.setattr(api, "train", locked)
    monkeypatch.setattr(work, "WAIT", 0.01)
    work.work(folder, study.runs[2].id)
    assert acts == [("train", 3, 1)] and not held


def test_a_stage_that_another_process_did_meanwhile_is_not_done_again(
    study: Study, folder: Path, acts: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the job of an earlier driver in SLURM's queue."""
    run = study.runs[0]

    def locked(place: Path, **asked: Any) -> None:
        (place / "latents.npz").touch()
        write_progress(folder, run, finished={"train": {"time/seconds": 1.0}, "record": {"time/seconds": 2.0}})
        raise errors.RunLocked("in use by process 1 on host")

    monkeypatch.setattr(api, "record", locked)
    monkeypatch.setattr(work, "WAIT", 0.01)
    work.work(folder, run.id)
    noted = read_progress(folder, run)
    assert (noted["state"], noted["finished"]["record"]) == ("finished", {"time/seconds": 2.0})


def test_a_worker_gives_signs_of_life_through_every_stage(
    study: Study, folder: Path, acts: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an older process of the run, whose driver is gone, says of itself that it was interrupted."""
    run, record = study.runs[0], api.record

    def long(place: Path, **asked: Any) -> None:
        before = write_progress(folder, run, state="interrupted")["time/at"]
        until(lambda: read_progress(folder, run)["time/at"] > before)
        noted = read_progress(folder, run)
        assert (noted["state"], noted["stage"], list(noted["finished"])) == ("running", "record", ["train"])
        record(place, **asked)

    monkeypatch.setattr(api, "record", long)
    monkeypatch.setattr(work, "BEAT", 0.02)
    work.work(folder, run.id)
    assert read_progress(folder, run)["state"] == "finished"
    assert "beat" not in {thread.name for thread in threading.enumerate()}


def test_a_parent_with_threads_dies_once(tmp_path: Path) -> None:
    """The kernel signals the end of each of its threads; a run takes a second SIGTERM as the wish to end unsaved."""
    child = (
        "import os, signal, sys, time; from mbrl_pvr.study import work; from pathlib import Path; "
        f"place = Path({str(tmp_path)!r}); work._end_on_sigterm(os.getppid()); "
        "signal.signal(15, lambda *_: (place / f'{time.monotonic_ns()}').touch()); (place / 'on').touch(); "
        "end = time.monotonic() + 60; [time.sleep(0.01) for _ in iter(lambda: time.monotonic() < end, False)]"
    )
    parent = (
        "import os, subprocess, sys, threading, time; "
        "[threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(200)]; "
        f"print(subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.DEVNULL).pid, flush=True); "
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    try:
        until(lambda: (tmp_path / "on").exists())
        process.kill()
        process.communicate()
        until(lambda: len(list(tmp_path.iterdir())) > 1)
        time.sleep(0.5)  # for signals that should not come
        assert len(list(tmp_path.iterdir())) == 2
    finally:
        os.kill(pid, signal.SIGKILL)


def until(happens: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("error", "state", "status"),
    [(errors.EnvError("the simulator\nis gone"), "failed", 7), (KeyboardInterrupt("stopped"), "interrupted", 130)],
)
def test_how_a_run_ends_is_noted(
    study: Study,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    state: str,
    status: int,
    handlers: None,
) -> None:
    def fail(**how: Any) -> None:
        raise error

    monkeypatch.setattr(api, "train", fail)
    assert main(["study", "work", str(folder), study.runs[0].id]) == status
    noted = read_progress(folder, study.runs[0])
    assert (noted["state"], noted["stage"]) == (state, "train")
    assert ("the simulator" in noted["error"]) == (state == "failed")


def test_ids_that_are_not_there(study: Study, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "work", str(folder), "nothing"]) == 2
    assert "no runs of this study have the id 'nothing'" in capsys.readouterr().err
    assert engines.last_lines(folder / "none.log") == []
