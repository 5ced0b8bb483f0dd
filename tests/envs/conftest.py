"""Tests that draw frames are skipped where OpenGL libraries are missing, with the packages to install."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mbrl_pvr.envs import EnvConfig, VectorEnv, backend, make, vulkan

_HIDE = """
import ctypes
_init = ctypes.CDLL.__init__
def _without(self, name, *args, **kwargs):
    if name and any(hidden in str(name) for hidden in {hidden!r}):
        raise OSError(f"{{name}}: cannot open shared object file: No such file or directory")
    _init(self, name, *args, **kwargs)
ctypes.CDLL.__init__ = _without
"""


@pytest.fixture(scope="session")
def egl() -> None:
    """Skips where EGL cannot be loaded."""
    lacking = backend.missing("egl")
    if lacking:
        pytest.skip(f"no EGL here: apt-get install {' '.join(package for _, package in lacking)}")


@pytest.fixture(scope="session")
def miniworld() -> None:
    """Skips where Miniworld's libraries cannot be loaded."""
    lacking = backend.missing("miniworld")
    if lacking:
        pytest.skip(f"Miniworld cannot draw: apt-get install {' '.join(package for _, package in lacking)}")


@pytest.fixture(scope="session")
def maniskill() -> None:
    """Skips where ManiSkill finds no Vulkan driver, without which not even its arm can be built."""
    if vulkan.find() is None:
        pytest.skip(f"no Vulkan driver for ManiSkill: {vulkan.SETUP}")


@pytest.fixture
def hide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes shared libraries impossible to load in processes started from now on."""

    def _hide(*libraries: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(_HIDE.format(hidden=libraries))
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    return _hide


@pytest.fixture
def start() -> Iterator[Any]:
    """`make` with short arguments; everything it started is closed afterwards."""
    opened: list[VectorEnv] = []

    def _start(name: str = "counting", *, num: int = 1, seed: int = 0, stream: str = "t", split="train", **config):
        make_args = {k: config.pop(k) for k in ("start_timeout", "max_steps") if k in config}
        settings = EnvConfig(name=name, **{"size": 32, "render": "fast", "proprio": True, **config})
        opened.append(make(settings, num=num, seed=seed, stream=stream, split=split, **make_args))
        return opened[-1]

    yield _start
    for envs in opened:
        envs.close()


@pytest.fixture
def same() -> Any:
    """Asserts that two EnvSteps are equal bit for bit."""

    def _same(a: Any, b: Any) -> None:
        for name, left in vars(a).items():
            np.testing.assert_array_equal(left, getattr(b, name), err_msg=name)

    return _same
