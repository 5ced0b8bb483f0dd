"""The engine on Ray, with programs of a few lines in place of runs; whole studies on it are in test_study_kill."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbrl_pvr import errors
from mbrl_pvr.study import ray_engine, ray_probe
from mbrl_pvr.study.engine import Job, Stopped, drive, last_lines
from mbrl_pvr.study.file import Resources
from mbrl_pvr.study.folder import read_progress, write_progress
from mbrl_pvr.study.ray_engine import OnRay, open_ray
from mbrl_pvr.study.start import open_engine

SMALL = Resources(cores=1, memory=0.01)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[OnRay]:
    """A Ray of our own, as `--engine ray` starts it without an address."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
            patch.setenv(name, "")
            patch.delenv(name)
        with open_ray() as engine:
            yield engine


def test_jobs_are_done_retried_and_pinned_as_with_local(
    ray_here: OnRay, folder: Path, make_jobs: Callable[..., list[Job]], tmp_path: Path
) -> None:
    show = "print(os.environ['OMP_NUM_THREADS'], repr(os.environ['CUDA_VISIBLE_DEVICES']), os.getcwd())"
    jobs = make_jobs(
        "n = len(list(place.glob('try*'))); (place / f'try{n}').touch(); sys.exit(5 if n < 1 else 0)", show
    )
    jobs += make_jobs("", "", "print('why'); os.kill(os.getpid(), 9)")[2:]
    said: list[str] = []
    (failure,) = drive(folder, jobs, ray_here, retries=1, say=said.append)
    assert (failure.run, failure.status, failure.tries, failure.tail[-1]) == (jobs[2].run, -9, 2, "why")
    assert read_progress(folder, jobs[2].run)["state"] == "failed"
    assert last_lines(jobs[1].log)[-1] == f"1 '' {os.getcwd()}"
    assert len(list(tmp_path.glob("try*"))) == 2 and sum(line.startswith("finished") for line in said) == 2


def test_a_worker_of_ray_that_is_lost_is_not_a_try_of_ours(
    ray_here: OnRay, folder: Path, make_jobs: Callable[..., list[Job]]
) -> None:
    """The first time the job kills the process of Ray that waits for it; the next one finds a file of that."""
    (job,) = make_jobs("n = place / 'lost'; n.exists() or (n.touch(), os.kill(os.getppid(), 9))")
    said: list[str] = []
    assert drive(folder, [job], ray_here, retries=0, say=said.append) == []
    assert said == [f"finished: {job.run.name}"]
    assert sum(line.startswith("==") for line in job.log.read_text().splitlines()) == 2


def test_a_log_that_cannot_be_written_is_a_failure_of_its_run_alone(
    ray_here: OnRay, folder: Path, make_jobs: Callable[..., list[Job]]
) -> None:
    bad, good = make_jobs("", "")
    bad.log.mkdir()
    (failure,) = drive(folder, [bad, good], ray_here, retries=0)
    assert failure.run == bad.run and failure.status == 5 and "StorageError: " in failure.tail[-1]


def listening(pid: int) -> set[str]:
    """Addresses at which a process and all its children accept connections, as hexadecimal digits."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(entry.name))
    family, sockets = [pid], set()
    for member in family:
        family += children.get(member, [])
        for fd in Path(f"/proc/{member}/fd").glob("*"):
            try:
                sockets.add(os.readlink(fd))
            except FileNotFoundError:
                continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def test_a_ray_of_our_own_listens_on_loopback_alone_and_asks_for_a_token(ray_here: OnRay) -> None:
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    found = listening(os.getpid())
    assert found and found <= loopback
    import ray

    assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")
    stranger = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address"]
    told = subprocess.run(
        [*ask, ray.get_runtime_context().gcs_address], env=stranger, capture_output=True, text=True, timeout=120
    )
    assert told.returncode != 0 and "uthentication" in told.stderr


def test_the_folder_of_a_ray_of_our_own_has_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets lie in it, whose paths may have 107 bytes."""
    for long in (tmp_path / ("x" * 40), Path("/tmp")):
        monkeypatch.setenv("RAY_TMPDIR", str(long))
        with ray_engine._scratch() as folder:
            assert Path(folder).parent == Path("/tmp")
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    with pytest.raises(errors.Unavailable, match=r"Ray needs a folder for its logs: .*nowhere"):
        ray_engine._scratch()


def test_a_ray_that_does_not_start_is_told(ray_here: OnRay) -> None:
    """A process has one at most."""
    match = "Ray does not start: .*twice"
    with pytest.raises(errors.Unavailable, match=match), open_ray():
        pass


def test_a_run_that_no_node_holds_is_refused(ray_here: OnRay) -> None:
    cores = len(os.sched_getaffinity(0))
    assert ray_here.capacity(SMALL) == cores and OnRay(ray_here._ray, 1).capacity(SMALL) == 1
    with pytest.raises(
        errors.ConfigError, match=rf"resources\.cores=999, which no node of this Ray has \({cores} cores"
    ):
        ray_here.capacity(Resources(cores=999))
    with pytest.raises(errors.ConfigError, match=r"resources\.memory=99999 and resources\.gpu=0\.5"):
        ray_here.capacity(Resources(memory=99999, gpu=0.5))


@pytest.mark.parametrize("signals", [1, 2])
def test_signals_stop_jobs_and_empty_the_queue(
    ray_here: OnRay, folder: Path, make_jobs: Callable[..., list[Job]], tmp_path: Path, handlers: None, signals: int
) -> None:
    """A first one lets the job save; one that does not listen is killed by a second."""
    saves = "signal.signal(15, lambda *_: ((place / 'saved').touch(), %s)); (place / 'on').touch(); time.sleep(%d)"
    all_cores = Resources(cores=len(os.sched_getaffinity(0)), memory=0.01)
    jobs = make_jobs(
        saves % (("sys.exit(130)", 60) if signals == 1 else ("time.sleep(60)", 60)),
        "(place / 'second').touch()",
        resources=all_cores,
    )
    write_progress(folder, jobs[0].run, state="running")

    def send() -> None:
        for name in ("on", "saved")[:signals]:
            while not (tmp_path / name).exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(Stopped):
        drive(folder, jobs, ray_here, retries=3)
    assert (tmp_path / "saved").exists() and not (tmp_path / "second").exists()
    assert read_progress(folder, jobs[0].run)["state"] == "interrupted"


def test_every_node_reads_and_writes_the_folder_and_a_clock_that_differs_is_told(
    ray_here: OnRay, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_here.prepare(tmp_path)
    assert caplog.text == ""
    real = time.time
    monkeypatch.setattr(ray_probe.time, "time", lambda: real() + 100)
    with caplog.at_level(logging.WARNING):
        ray_here.prepare(tmp_path)
    assert f"node {socket.gethostname()} (127.0.0.1) is 100." in caplog.text and "s behind ours" in caplog.text
    assert list(tmp_path.iterdir()) == []


# ---- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["6379", "here:port", "ray://head:10001"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(errors.ConfigError, match="is not HOST:PORT"), open_engine("ray", address=address):
        pass


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(errors.Unavailable, match=f"no Ray answers at {address}: .*refused") as told,
            open_engine("ray", address=address),
        ):
            pass
    assert "ray status" in told.value.hint and told.value.exit_code == 8


def test_an_address_that_is_not_ray_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "ANSWER", 4.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        match = "does not speak as Ray within 4 s"
        with pytest.raises(errors.Unavailable, match=match), open_engine("ray", address=address):
            pass


def test_an_address_is_of_ray_alone() -> None:
    with pytest.raises(errors.ConfigError, match="--address is for --engine ray, not local"):
        open_engine("local", address="head:6379")
