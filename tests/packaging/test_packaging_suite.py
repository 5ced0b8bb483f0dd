"""The suite's own rules: nothing shadows a package, no network, and the checkers' contracts hold."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def test_no_init_files_below_tests(root: Path) -> None:
    """`tests/pvr_zoo/__init__.py` would shadow the package."""
    assert list((root / "tests").rglob("__init__.py")) == []


def test_test_files_have_unique_names(root: Path) -> None:
    names = [path.name for path in (root / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_network_is_closed_but_loopback_is_open() -> None:
    with socket.socket() as client, pytest.raises(RuntimeError, match="without a network"):
        client.connect(("192.0.2.1", 80))
    with socket.socket() as client, pytest.raises(RuntimeError, match=r"example\.invalid"):
        client.connect_ex(("example.invalid", 80))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()


def test_import_contracts(root: Path, tmp_path: Path) -> None:
    """The arrows of the design: world_models and pvr_zoo do not know each other; analysis knows no torch."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, env=os.environ | {"COLUMNS": "150"}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
