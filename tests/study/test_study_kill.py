"""Studies whose workers and driver are killed at random moments end complete, and equal to those left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr.runfolder import read_status
from mbrl_pvr.study.cells import Run, load_study
from mbrl_pvr.study.folder import PROGRESS, log_file, read_progress, run_folder

PATIENCE = 300.0  # seconds for anything to happen


class Driver:
    """`study run` in a process of its own, started anew as often as it is asked for."""

    def __init__(self, file: Path, folder: Path, *more: str) -> None:
        """It runs two runs at once."""
        program = [sys.executable, "-m", "mbrl_pvr.cli.main", "study", "run", str(file), "--dir", str(folder)]
        self._command = [*program, "--debug", "--workers", "2", *more]
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it, in a session of its own, so that killing it kills nothing else."""
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        return self.process

    def end(self) -> str:
        """Wait for it; what it printed."""
        out, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, out.decode()
        return out.decode()

    def kill(self) -> None:
        """kill -9 of it alone."""
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def until(happens: Callable[[], bool], driver: Driver | None = None) -> None:
    """Wait until something happens, or the driver has ended."""
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < deadline, "nothing happened"
        if driver is not None and driver.process.poll() is not None:
            return
        time.sleep(0.02)


def kill_worker(folder: Path, run: Run) -> bool:
    """kill -9 of the process that works on a run, and of nothing else."""
    noted = read_progress(folder, run)
    if noted["state"] != "running":
        return False
    try:
        os.kill(noted["time/pid"], signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def test_a_study_on_ray_comes_to_the_same_and_leaves_nothing_of_ray(
    tiny: Path, tmp_path: Path, results: Any, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, study = tmp_path / "dir", load_study(tiny, ["main"], debug=True)
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # a short path
        monkeypatch.setenv("RAY_TMPDIR", place)
        assert f"{folder}: 2 of 2 runs finished" in Driver(tiny, folder, "--part", "main", "--engine", "ray").end()
        assert os.listdir(place) == []
    assert results(study, lambda run: run_folder(folder, run)) == undisturbed(study, tmp_path / "alone")
    assert [log_file(folder, run).read_text().count("study work") for run in study.runs] == [1, 1]


ENGINES = {"local": (), "ray": ("--engine", "ray"), "slurm": ("--engine", "slurm", "--slurm", "time=60")}


@pytest.mark.slow  # 20 kills at random moments, below, are in the suite
@pytest.mark.parametrize("engine", ENGINES)
def test_killed_workers_and_drivers_lose_nothing_and_repeat_nothing(
    tiny: Path, tmp_path: Path, queue: Path, engine: str, results: Any, undisturbed: Any
) -> None:
    folder, study = tmp_path / "dir", load_study(tiny, ["main"], debug=True)
    first, second = study.runs
    driver = Driver(tiny, folder, "--part", "main", *ENGINES[engine])
    until(lambda: read_status(run_folder(folder, first))["step"] >= 50, driver)
    assert kill_worker(folder, first)
    until(lambda: (read_status(run_folder(folder, second))["checkpoint"] or 0) >= 50, driver)
    driver.kill()
    driver.start()
    assert f"{folder}: 2 of 2 runs finished" in driver.end()
    assert results(study, lambda run: run_folder(folder, run)) == undisturbed(study, tmp_path / "alone")
    assert log_file(folder, first).read_text().count("study work") >= 2


def test_a_signal_stops_a_study_which_then_goes_on(tiny: Path, tmp_path: Path) -> None:
    folder, study = tmp_path / "dir", load_study(tiny, ["more"], debug=True)
    driver = Driver(tiny, folder, "--part", "more")
    run = study.runs[0]
    until(lambda: read_status(run_folder(folder, run))["step"] >= 1, driver)
    driver.process.send_signal(signal.SIGTERM)
    out, _ = driver.process.communicate(timeout=PATIENCE)
    assert driver.process.returncode == 130 and b"the same command goes on" in out
    noted, status = read_progress(folder, run), read_status(run_folder(folder, run))
    assert noted["state"] == "interrupted" == status["state"]
    assert status["checkpoint"] == status["step"] or status["step"] == 60  # the burst of first updates is done again
    driver.start()
    assert f"{folder}: 2 of 2 runs finished" in driver.end()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("engine", "kills", "longest"),
    [
        pytest.param("local", 20, 2.0, id="20"),
        pytest.param("ray", 20, 8.0, id="20-ray", marks=pytest.mark.slow),
        pytest.param("local", 200, 4.0, id="200", marks=pytest.mark.slow),
    ],
)
def test_many_kills(
    tiny: Path, tmp_path: Path, engine: str, kills: int, longest: float, results: Any, undisturbed: Any
) -> None:
    """So many in all, over studies of four runs, at uniform moments up to `longest` seconds apart; every fourth is of
    the driver. What is killed is drawn anew, from a seed that is printed.
    """
    seed = int(os.environ.get("MBRL_PVR_KILL_SEED", time.time_ns() % 10**6))
    print("MBRL_PVR_KILL_SEED", seed)
    draw = random.Random(seed)
    tiny.write_text(tiny.read_text().replace("retries: 1", f"retries: {kills}"))
    study = load_study(tiny, debug=True)
    alone = undisturbed(study, tmp_path / "alone")
    done, studies, starts = 0, 0, 0
    while done < kills:
        folder, before = tmp_path / f"dir{studies}", done
        driver = Driver(tiny, folder, "--engine", engine)
        while done < kills:
            time.sleep(draw.uniform(0.5, longest))
            if driver.process.poll() is not None:
                break
            if done % 4 == 3:
                driver.kill()
                driver.start()
                done += 1
            else:
                running = [run for run in study.runs if read_progress(folder, run)["state"] == "running"]
                done += bool(running) and kill_worker(folder, draw.choice(running))
        driver.end()
        logs = [log_file(folder, run).read_bytes() for run in study.runs]
        driver.start()
        assert "4 finished, 0 to do" in driver.end()
        assert logs == [log_file(folder, run).read_bytes() for run in study.runs]  # none is started that is done
        assert results(study, lambda run, folder=folder: run_folder(folder, run)) == alone
        states = [json.loads(path.read_text())["state"] for path in (folder / PROGRESS).iterdir()]
        assert states == ["finished"] * 4
        begun, killed = sum(log.count(b"study work") for log in logs), done - before
        assert begun <= 4 + killed + killed // 4 + 1  # again after a kill alone: one run, of the driver two
        studies, starts = studies + 1, starts + begun
    print("kills:", done, "studies:", studies, "starts:", starts)
