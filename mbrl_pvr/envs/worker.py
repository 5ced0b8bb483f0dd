"""The child's side: one environment in a process of its own, serving one parent until told to stop or left alone.

Started by `pool.Worker` in a fresh interpreter, never forked, so no OpenGL context and no import of the parent comes
along.
"""

import ctypes
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.errors import Error

_PR_SET_PDEATHSIG = 1


def serve(pipe_fd: int, frames_fd: int, parent_pid: int) -> None:
    """Answer requests on a pipe. Frames go through shared memory, everything else through the pipe."""
    _die_with(parent_pid)
    pipe = Connection(pipe_fd)
    try:
        _Server(pipe, frames_fd).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        os._exit(1)


def map_frames(fd: int, num: int, size: int) -> NDArray:
    """The memory that parent and workers share: (num, size, size, 3) uint8."""
    import mmap

    return np.frombuffer(mmap.mmap(fd, num * size * size * 3), np.uint8).reshape(num, size, size, 3)


def _die_with(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it died before the call
            os._exit(1)


class _Server:
    def __init__(self, pipe: Connection, frames_fd: int) -> None:
        self._pipe, self._frames_fd = pipe, frames_fd
        self._slot: NDArray | None = None

    def run(self) -> None:
        while True:
            name, *args = self._pipe.recv()
            try:
                answer: Any = ("ok", getattr(self, f"do_{name}")(*args))
            except Error as error:
                answer = ("error", type(error).__name__, error.what, error.where, error.hint, traceback.format_exc())
            except Exception as error:  # every failure of a simulator must reach the parent, whatever its class
                what = f"{type(error).__name__}: {error}"
                answer = ("error", "EnvError", what, "", "", traceback.format_exc())
            self._pipe.send(answer)
            if name == "close":
                return

    def do_build(self, config: EnvConfig, num: int, seed: int, stream: str, index: int, split: str) -> dict[str, Any]:
        from mbrl_pvr.envs.lane import Lane
        from mbrl_pvr.envs.registry import build_env

        self._env = env = build_env(config, split)
        self._lane = Lane(env, seed=seed, stream=stream, index=index)
        if config.pixels:
            self._slot = map_frames(self._frames_fd, num, config.size)[index]
        return {
            "action_spec": env.action_spec,
            "proprio_dim": env.proprio_dim,
            "max_episode_steps": env.max_episode_steps,
            "fps": env.fps,
        }

    def do_reset(self, episode: int | None, seed: int | None) -> tuple:
        return self._hand_over(self._lane.reset(episode, seed))

    def do_step(self, action: NDArray) -> tuple:
        return self._hand_over(self._lane.step(action))

    def do_get_state(self) -> dict[str, Any]:
        return self._lane.state()

    def do_set_state(self, state: dict[str, Any]) -> bool:
        return self._lane.restore(state)

    def do_call(self, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        found = getattr(self._env, name)
        return found(*args, **kwargs) if callable(found) else found

    def do_modules(self) -> list[str]:
        return sorted(sys.modules)

    def do_close(self) -> None:
        if hasattr(self, "_env"):
            self._env.close()

    def _hand_over(self, tick: Any) -> tuple:
        if self._slot is not None:
            self._slot[...] = tick.frame
        return tuple(tick[:-1])
