"""Studies on a Ray that others started: nodes that see another folder, and nodes that are lost."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory", str(80 << 20)]
ENV = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on loopback


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for member in found:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


class Nodes:
    """Nodes of one Ray on this machine, each a process with children."""

    def __init__(self, place: Path) -> None:
        self._place, self._running, self.address = place, [], ""

    def start(self, *before: str) -> "subprocess.Popen[bytes]":
        """Start a node of one core, the first one as the head; `before` is put before its command."""
        log = self._place / f"node{len(self._running)}.log"
        join = (
            ["--address", self.address] if self.address else ["--head", "--port", "0", "--include-dashboard", "false"]
        )
        with log.open("wb") as to:
            node = subprocess.Popen(
                [*before, *RAY, "--num-cpus", "1", *join],
                stdout=to,
                stderr=to,
                env={**os.environ, **ENV},
                start_new_session=True,
            )
        self._running.append(node)
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        if not self.address:
            self.address = f"127.0.0.1:{re.search(r'127.0.0.1:([0-9]+)', log.read_text())[1]}"  # type: ignore[index]
        return node

    def kill(self, node: "subprocess.Popen[bytes]") -> None:
        """End a node and all that runs on it, as if its power went."""
        for pid in tree(node.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.wait()

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
