"""What holds for the whole suite: no network, no window, few threads; and the fixtures that several packages use."""

import os

# before anything imports mujoco, a hub client, matplotlib or torch
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import ipaddress
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _forbid_network(address: Any) -> None:
    """Raises for an internet address that is not this machine; Unix sockets and loopback pass."""
    if not isinstance(address, tuple):
        return
    host = str(address[0])
    try:
        local = host == "localhost" or ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        local = False
    if not local:
        raise RuntimeError(f"a test tried to connect to {address}: the suite runs without a network")


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    def connect(self: socket.socket, address: Any) -> Any:
        _forbid_network(address)
        return method(self, address)

    return connect


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Any:
    """Connections to other machines fail at once, so that no test can come to depend on one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)), raising=True)
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def gym_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `gym:gym_tasks:…` known to this process and to workers that it starts."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "modules")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real weights and published figures beside the checkout; its tests skip where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("../shared/data is not here")
    return folder


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what may differ between equal runs."""
    return {k: v for k, v in row.items() if not k.startswith("time/")}


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, Any]]:
    """What two runs share that differ only in when they saved: logs, weights, replay rows, counters."""
    return _content


def _content(path: Path) -> dict[str, Any]:
    import torch

    from mbrl_pvr import checkpoint
    from mbrl_pvr.tensorfile import load

    saved = checkpoint.latest(path)
    assert saved is not None and saved.replay is not None
    pieces = [load(path / entry["file"]) for entry in saved.replay["segments"]]
    replay = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    tensors = {**saved.tensors("agent"), **saved.tensors("carry")}
    return {
        "step": saved.step,
        "meta": saved.meta,
        "agent": {name: value.numpy().tobytes() for name, value in tensors.items()},
        "replay": {name: value.numpy().tobytes() for name, value in replay.items()},
        **{
            name: [untimed(json.loads(line)) for line in (path / name).read_text().splitlines()]
            for name in ("metrics.jsonl", "episodes.jsonl")
        },
    }
