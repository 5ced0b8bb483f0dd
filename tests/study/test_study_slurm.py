"""The engine on SLURM with submitit itself and commands that run what is submitted here; no real SLURM was seen."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mbrl_pvr import errors
from mbrl_pvr.study import slurm_engine
from mbrl_pvr.study.engine import Job, Stopped, drive, last_lines
from mbrl_pvr.study.file import Resources
from mbrl_pvr.study.folder import read_progress
from mbrl_pvr.study.slurm_engine import OnSlurm, open_slurm, parse_options
from mbrl_pvr.study.start import open_engine


@pytest.fixture
def slurm(queue: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], OnSlurm]:
    """Opens the engine anew, as another process would."""
    monkeypatch.setattr(slurm_engine, "LOOK", 0.2)

    def slurm() -> OnSlurm:
        with open_slurm(2, ["time=60", "partition=long", "reservation=ours"]) as engine:
            engine.prepare(folder)
            engine._submitit.SlurmJob._results_timeout_s = 1
            engine._submitit.SlurmJob.watcher.clear()
            return engine

    return slurm


def test_jobs_go_as_arrays_of_those_that_take_the_same(
    slurm: Callable[[], OnSlurm], queue: Path, folder: Path, make_jobs: Callable[..., list[Job]], tmp_path: Path
) -> None:
    count = "n = len(list(place.glob('try*'))); (place / f'try{n}').touch(); "
    show = "print(os.environ['OMP_NUM_THREADS'], repr(os.environ['CUDA_VISIBLE_DEVICES']))"
    jobs = make_jobs(count + "sys.exit(5 if n < 1 else 0)", "print('why'); os.kill(os.getpid(), 9)")
    jobs += make_jobs("", "", show, resources=Resources(cores=3, memory=1.5, gpu=0.5))[2:]
    (failure,) = drive(folder, jobs, slurm(), retries=1)
    assert (failure.run, failure.status, failure.tries, failure.tail[-1]) == (jobs[1].run, -9, 2, "why")
    assert len(list(tmp_path.glob("try*"))) == 2 and last_lines(jobs[2].log)[-1] == "3 ''"
    scripts = sorted(path.read_text() for path in queue.glob("*.script"))
    arrays = [text for text in scripts if "--array=0-1%2" in text]
    assert arrays and all("--partition=long" in text and "--reservation=ours" in text for text in scripts)
    (shared,) = [text for text in scripts if "cpus-per-task=3" in text]
    assert "--gpus-per-node=1" in shared and "--mem=1536MB" in shared and "--time=60" in shared
    assert (folder / "slurm").stat().st_mode & 0o777 == 0o700


def until(happens: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


SAVES = (
    "signal.signal(15, lambda *_: ((place / 'saved').touch(), sys.exit(130))); "
    "(place / 'saved').exists() and sys.exit(0); (place / 'on').touch(); time.sleep(60)"
)


@pytest.mark.parametrize("signals", [["USR2"], ["TERM", "USR2"]])
def test_a_job_that_is_preempted_saves_and_goes_on_after_the_requeue(
    slurm: Callable[[], OnSlurm],
    queue: Path,
    folder: Path,
    make_jobs: Callable[..., list[Job]],
    tmp_path: Path,
    signals: list[str],
) -> None:
    (job,) = make_jobs(SAVES)

    def preempt() -> None:
        until((tmp_path / "on").exists)
        for name in signals:
            subprocess.run(["scancel", "100", "--signal", name], check=True)

    threading.Thread(target=preempt, daemon=True).start()
    assert drive(folder, [job], slurm(), retries=0) == []
    assert (tmp_path / "saved").exists()
    until(lambda: (queue / "100.state").read_text() == "COMPLETED")
    assert len((queue / "100.starts").read_text().split()) == 2 and len(list(queue.glob("*.script"))) == 1


@pytest.mark.parametrize("accounting", [True, False])
def test_whoever_leaves_finds_the_jobs_again(
    accounting: bool,
    slurm: Callable[[], OnSlurm],
    queue: Path,
    folder: Path,
    make_jobs: Callable[..., list[Job]],
    tmp_path: Path,
    handlers: None,
) -> None:
    if not accounting:
        (queue.parent / "bin" / "sacct").write_text(
            "#!/bin/sh\necho Slurm accounting storage is disabled >&2; exit 1\n"
        )
    waits = "(place / '%s').touch(); n = place / 'go'; [time.sleep(0.05) for _ in iter(n.exists, True)]; print('done')"
    jobs = make_jobs(waits % "first", waits % "second")

    def leave() -> None:
        until(lambda: (tmp_path / "first").exists() and (tmp_path / "second").exists())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=leave, daemon=True).start()
    said: list[str] = []
    with pytest.raises(Stopped):
        drive(folder, jobs, slurm(), retries=0, say=said.append)
    assert said == ["leaving: 2 jobs stay with SLURM, where `scancel 100` has them save and end"]
    assert read_progress(folder, jobs[0].run)["state"] == "new"  # what it was
    threading.Timer(1.0, (tmp_path / "go").touch).start()
    assert drive(folder, jobs, slurm(), retries=0) == []
    assert [job.log.read_text().count("==") for job in jobs] == [1, 1]
    assert len(list(queue.glob("*.script"))) == 1


def test_a_job_that_is_cancelled_by_hand_saves_and_counts_as_a_try(
    slurm: Callable[[], OnSlurm], queue: Path, folder: Path, make_jobs: Callable[..., list[Job]], tmp_path: Path
) -> None:
    (job,) = make_jobs(SAVES)

    def cancel() -> None:
        until((tmp_path / "on").exists)
        subprocess.run(["scancel", "100"], check=True)

    threading.Thread(target=cancel, daemon=True).start()
    (failure,) = drive(folder, [job], slurm(), retries=0)
    assert "SLURM job 100, state CANCELLED" in failure.tail[-1] and (tmp_path / "saved").exists()


def test_what_sbatch_refuses_is_told_in_its_words(
    queue: Path, folder: Path, make_jobs: Callable[..., list[Job]]
) -> None:
    with open_engine("slurm", slurm=["time=5", "partition=none"]) as engine:
        engine.prepare(folder)
        with pytest.raises(errors.ConfigError, match=r"sbatch refuses: .*invalid partition specified: none"):
            drive(folder, make_jobs(""), engine, retries=3)


def test_without_slurm(folder: Path, make_jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        open_engine("slurm", slurm=["time=5"]) as engine,
        pytest.raises(errors.Unavailable, match="srun is not on PATH"),
    ):
        engine.prepare(folder)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ([], "the time limit of a job in minutes is needed"),
        (["time=4:00:00"], "in minutes is needed"),
        (["partition"], "'partition' is not KEY=VALUE"),
        (["time=5", "cpus-per-task=4"], "cpus_per_task is not an option here"),
    ],
)
def test_options_that_are_none(options: list[str], match: str) -> None:
    with pytest.raises(errors.ConfigError, match=match):
        parse_options(options)


def test_options_are_those_of_sbatch() -> None:
    assert parse_options(["time=240", "mail-type=END", "exclusive=true", "qos=1"]) == {
        "time": 240,
        "mail_type": "END",
        "exclusive": True,
        "qos": 1,
    }
    with pytest.raises(errors.ConfigError, match="--slurm is for --engine slurm, not local"):
        open_engine("local", slurm=["time=5"])
