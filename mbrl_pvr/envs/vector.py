"""Several environments in lockstep, one process each: `make(config, ...) -> VectorEnv`.

envs = make(config, num=4, seed=1, stream="train"); step = envs.reset(); then again and again
`envs.send(actions)`, an update on stored data while the simulators work, `step = envs.recv()`.
"""

import os
import tempfile
import weakref
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mbrl_pvr.envs import backend
from mbrl_pvr.envs.actions import ActionSpec, check_actions
from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.names import resolve
from mbrl_pvr.envs.offers import check_offers
from mbrl_pvr.envs.pool import Worker, gather, shut_down
from mbrl_pvr.envs.worker import map_frames
from mbrl_pvr.errors import EnvError

START_TIMEOUT = 300.0  # seconds for imports, model and first frame, which waits for shaders: a hanging driver shows
STEP_TIMEOUT = 120.0
RESTORE_TIMEOUT = 600.0  # a whole episode is played again


@dataclass(frozen=True)
class EnvStep:
    """One tick of N environments. Where `is_first`, the reward is 0 and the action sent was ignored.

    success is nan where the task has none; is_last without is_terminal is truncation (a time limit).
    """

    frame: NDArray | None  # (N, H, W, 3) uint8; None without pixels
    proprio: NDArray | None  # (N, D) float32; None where not asked for
    reward: NDArray  # (N,) float32
    is_first: NDArray  # (N,) bool
    is_last: NDArray  # (N,) bool
    is_terminal: NDArray  # (N,) bool
    success: NDArray  # (N,) float32
    episode: NDArray  # (N,) int64, counted from 0 in each environment


def make(
    config: EnvConfig,
    *,
    num: int | None = None,
    seed: int,
    stream: str,
    split: str = "train",
    max_steps: int | None = None,
    start_timeout: float = START_TIMEOUT,
) -> "VectorEnv":
    """Start `num` environments (default `config.num`), each in a process of its own, which ends with this thread.

    Episode e of environment i is a function of (seed, stream, i, e) alone; its look is drawn from `split` of the shift.
    Building the environments and drawing their first frames may take `start_timeout` seconds each.
    Raises ConfigError (unknown name, impossible request) or EnvError (no renderer, simulator failed).
    """
    caps = [cap for cap in (config.max_steps, max_steps) if cap is not None]
    config = replace(
        config, name=resolve(config.name), num=config.num if num is None else num, max_steps=min(caps, default=None)
    )
    check_offers(config)
    return VectorEnv(config, seed=seed, stream=stream, split=split, start_timeout=start_timeout)


class VectorEnv:
    """N environments in lockstep. After any error all workers are gone and the object is closed."""

    def __init__(self, config: EnvConfig, *, seed: int, stream: str, split: str, start_timeout: float) -> None:
        self.config, self.num, self.action_repeat = config, config.num, config.action_repeat
        self._pending, self._start_timeout = False, start_timeout
        self._frames, frames_fd = _shared_frames(config)
        self._workers: list[Worker] = []
        self._finalizer = weakref.finalize(self, shut_down, self._workers, politely=False)
        try:
            for i in range(self.num):
                self._workers.append(Worker(f"{config.name}, env {i} of {self.num}", config.backend, frames_fd))
        finally:
            if frames_fd >= 0:
                os.close(frames_fd)
        for i, worker in enumerate(self._workers):
            self._tell(worker, "build", config, self.num, seed, stream, i, split)
        spec = self._gather(start_timeout, f"building the environment with {backend.label(config)}")[0]
        self.action_spec: ActionSpec = spec["action_spec"]
        self.proprio_dim: int = spec["proprio_dim"]
        self.max_episode_steps: int = spec["max_episode_steps"]
        self.fps: float = spec["fps"]  # at which a film runs as fast as simulated time

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def reset(self, episode: int | None = None, *, seed: int | None = None) -> EnvStep:
        """Begin the next episode in every environment (the first: 0), or the one with the given number.

        A `seed` replaces the one given to `make`; its episodes count from 0.
        """
        self._ask("reset", episode, seed)
        return self._step(self._start_timeout, f"drawing the first frame with {backend.label(self.config)}")

    def send(self, actions: ArrayLike) -> None:
        """Hand over actions (N, dim) and return at once; `recv` waits for the outcome."""
        checked = check_actions(actions, self.action_spec, self.config.name)
        if len(checked) != self.num:
            raise EnvError(f"{len(checked)} actions for {self.num} environments", self.config.name)
        self._assert_idle("send")
        for worker, action in zip(self._workers, checked, strict=True):
            self._tell(worker, "step", action)
        self._pending = True

    def recv(self) -> EnvStep:
        """The tick that `send` began."""
        if not self._pending:
            raise RuntimeError("recv() without a send() before it")
        self._pending = False
        return self._step(STEP_TIMEOUT, "stepping")

    def step(self, actions: ArrayLike) -> EnvStep:
        """`send`, then `recv`."""
        self.send(actions)
        return self.recv()

    def get_state(self) -> list[dict[str, Any]]:
        """Per environment what `set_state` needs, JSON-able: episode number and actions since its first observation."""
        self._ask("get_state")
        return self._gather(STEP_TIMEOUT, "reading the state")

    def set_state(self, states: list[dict[str, Any]]) -> list[bool]:
        """Play the episodes again up to the saved ticks, without drawing; the next call is `send`.

        False in the answer: that simulator came to another state (another version or processor), so what follows is
        not bit for bit what would have followed.
        """
        if len(states) != self.num:
            raise EnvError(f"{len(states)} saved states for {self.num} environments", self.config.name)
        self._assert_idle("set_state")
        for worker, state in zip(self._workers, states, strict=True):
            self._tell(worker, "set_state", state)
        return self._gather(RESTORE_TIMEOUT, "restoring an episode")

    def render(self, size: int | None = None) -> NDArray:
        """The current pictures (N, size, size, 3), drawn on demand; also without `pixels`."""
        return np.stack(self.call("picture", size))

    def call(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """A method or attribute of every environment object, by name."""
        self._ask("call", name, args, kwargs)
        return self._gather(START_TIMEOUT, f"calling {name}, with {backend.label(self.config)}")

    def loaded_modules(self) -> list[list[str]]:
        """Names of the modules that each worker has imported."""
        self._ask("modules")
        return self._gather(STEP_TIMEOUT, "listing modules")

    def close(self) -> None:
        """End all workers; may be called twice, and after a failure."""
        self._end(politely=not self._pending)

    def __enter__(self) -> "VectorEnv":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _step(self, timeout: float, task: str) -> EnvStep:
        ticks = self._gather(timeout, task)
        reward, is_first, is_last, is_terminal, success, episode, proprio = zip(*ticks, strict=True)
        return EnvStep(
            frame=None if self._frames is None else self._frames.copy(),
            proprio=np.stack(proprio) if self.config.proprio else None,
            reward=np.array(reward, np.float32),
            is_first=np.array(is_first, bool),
            is_last=np.array(is_last, bool),
            is_terminal=np.array(is_terminal, bool),
            success=np.array(success, np.float32),
            episode=np.array(episode, np.int64),
        )

    def _ask(self, request: str, *args: Any) -> None:
        self._assert_idle(request)
        for worker in self._workers:
            self._tell(worker, request, *args)

    def _tell(self, worker: Worker, request: str, *args: Any) -> None:
        try:
            worker.send(request, *args)
        except EnvError:
            self._end(politely=False)
            raise

    def _gather(self, timeout: float, task: str) -> list[Any]:
        try:
            return gather(self._workers, timeout, task)
        except BaseException:  # also Ctrl-C: answers may be half read, so the workers are of no use any more
            self._end(politely=False)
            raise

    def _end(self, *, politely: bool) -> None:
        self._frames = None  # gives the shared memory back
        if self._finalizer.detach():
            shut_down(self._workers, politely=politely)

    def _assert_idle(self, what: str) -> None:
        if not self._finalizer.alive:
            raise EnvError(f"{what}: the environments are closed", self.config.name)
        if self._pending:
            raise RuntimeError(f"{what} between send() and recv()")


def _shared_frames(config: EnvConfig) -> tuple[NDArray | None, int]:
    """Memory without a name, so nothing is left behind by a killed process; (None, -1) where no frames are drawn."""
    if not config.pixels:
        return None, -1
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("mbrl_pvr-frames")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, config.num * config.size**2 * 3)
    return map_frames(fd, config.num, config.size), fd
