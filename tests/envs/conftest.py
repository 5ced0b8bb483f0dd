"""Tests that draw dm_control frames are skipped where OpenGL libraries are missing, with the packages to install."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mbrl_pvr.envs import EnvConfig, VectorEnv, backend, make


@pytest.fixture(scope="session")
def egl() -> None:
    """Skips where EGL cannot be loaded."""
    lacking = backend.missing("egl")
    if lacking:
        pytest.skip(f"no EGL here: apt-get install {' '.join(package for _, package in lacking)}")


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
