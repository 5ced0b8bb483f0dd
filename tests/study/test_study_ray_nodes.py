"""Studies on a Ray that others started: nodes that see another folder, and nodes that are lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr.study.cells import load_study
from mbrl_pvr.study.folder import log_file, read_progress, run_folder

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory", str(80 << 20)]
ENV = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0" * 64,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
PATIENCE = 300.0  # seconds for anything to happen


def until(happens: Callable[[], bool]) -> None:
    """Wait until something happens."""
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for member in found:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


class Nodes:
    """Nodes of one Ray on this machine, each a process with its children."""

    def __init__(self, place: Path) -> None:
        self._place, self._env = place, {**os.environ, **ENV}
        self._running: list[subprocess.Popen[bytes]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"

    def start(self, *before: str) -> "subprocess.Popen[bytes]":
        """Start a node of one core, the first one as the head; `before` is put before its command."""
        log = self._place / f"node{len(self._running)}.log"
        head = ["--head", "--port", str(self._port), "--include-dashboard", "false"]
        role = ["--address", self.address] if self._running else head
        with log.open("wb") as to:
            node = subprocess.Popen(
                [*before, *RAY, "--num-cpus", "1", *role],
                stdout=to,
                stderr=to,
                env=self._env,
                start_new_session=True,
            )
        self._running.append(node)
        until(lambda: "Ray runtime started" in log.read_text() or node.poll() is not None)
        assert node.poll() is None, log.read_text()
        return node

    def kill(self, node: "subprocess.Popen[bytes]") -> None:
        """End a node and all that runs on it, as if its power went."""
        for pid in tree(node.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.wait()

    def study(self, file: Path, folder: Path, *more: str) -> "subprocess.Popen[str]":
        """`study run` on these nodes."""
        program = [sys.executable, "-m", "mbrl_pvr.cli.main", "study", "run", str(file), "--dir", str(folder)]
        return subprocess.Popen(
            [*program, "--debug", "--engine", "ray", "--address", self.address, *more],
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> None:
        """End all."""
        for node in self._running:
            self.kill(node)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Nodes that end with the test."""
    nodes = Nodes(tmp_path)
    yield nodes
    nodes.end()


def test_a_node_without_the_folder_is_named(nodes: Nodes, tiny: Path, tmp_path: Path) -> None:
    """The node has a file system of its own where the study should lie."""
    apart = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make mount namespaces")
    (tmp_path / "alone").mkdir()
    nodes.start(*apart, "sh", "-c", f'mount -t tmpfs none {tmp_path / "alone"} && exec "$@"', "sh")
    driver = nodes.study(tiny, tmp_path / "alone" / "dir")
    out, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 5
    told = " ".join(out.split())
    assert f"node {socket.gethostname()} (" in told and "does not see what this machine" in told
    assert "Give a --dir on storage that all nodes share" in told
    assert not list((tmp_path / "alone" / "dir" / "logs").iterdir())


@pytest.mark.slow
def test_a_node_that_is_lost_costs_no_run(
    nodes: Nodes, tiny: Path, tmp_path: Path, results: Any, undisturbed: Any
) -> None:
    """Two nodes with a run each; the one that dies is not that of the driver. Ray starts its run again on the other."""
    tiny.write_text(tiny.read_text().replace("retries: 1", "retries: 0"))
    folder, study = tmp_path / "dir", load_study(tiny, ["main"], debug=True)
    nodes.start()
    lost = nodes.start()
    driver = nodes.study(tiny, folder, "--part", "main")
    until(lambda: all(read_progress(folder, run)["state"] == "running" for run in study.runs))
    there = [run for run in study.runs if read_progress(folder, run)["time/pid"] in tree(lost.pid)]
    assert len(there) == 1
    nodes.kill(lost)
    out, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0 and f"{folder}: 2 of 2 runs finished" in out, out
    assert log_file(folder, there[0]).read_text().count("study work") == 2
    assert results(study, lambda run: run_folder(folder, run)) == undisturbed(study, tmp_path / "alone")
