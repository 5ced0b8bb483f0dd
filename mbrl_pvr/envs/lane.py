"""One environment's endless stream of ticks: seeds by episode, automatic reset, and a state that can be restored.

A tick gives exactly one observation. The tick after `is_last` ignores its action and gives the first observation of the
next episode (gymnasium's NEXT_STEP autoreset). Works in any process; workers run one lane each.
"""

import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from mbrl_pvr.envs.base import FrameEnv
from mbrl_pvr.errors import EnvError


class Tick(NamedTuple):
    """One tick of one environment; `frame` and `proprio` are None where the configuration leaves them out."""

    reward: float
    is_first: bool
    is_last: bool
    is_terminal: bool
    success: float
    episode: int
    proprio: NDArray | None
    frame: NDArray | None


def episode_seed(seed: int, stream: str, index: int, episode: int) -> SeedSequence:
    """The randomness of one episode: initial state and look."""
    return SeedSequence((seed, zlib.crc32(stream.encode()), index, episode))


class Lane:
    """Environment `index` of a stream. `actions` are those since the episode's first observation."""

    def __init__(self, env: FrameEnv, *, seed: int, stream: str, index: int) -> None:
        self.env = env
        self._seed, self._stream, self._index = seed, stream, index
        self.episode = -1
        self._actions: list[NDArray] = []
        self._over = True

    def reset(self, episode: int | None = None, seed: int | None = None) -> Tick:
        """Leave the running episode, if any, and begin the next one, or the one with the given number.

        A `seed` replaces the stream's own; its episodes count from 0.
        """
        if seed is not None:
            self._seed, self.episode = seed, -1
        self._begin(self.episode + 1 if episode is None else episode)
        return self._tick(0.0, is_first=True)

    def step(self, action: NDArray) -> Tick:
        """One agent step, or a new episode where the last tick was the end of one."""
        if self._over:
            return self.reset()
        reward, terminated, truncated = self._act(action)
        return self._tick(reward, is_last=terminated or truncated, is_terminal=terminated)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON-able values."""
        return {
            "seed": self._seed,
            "episode": self.episode,
            "actions": [action.tolist() for action in self._actions],  # float32 survives JSON exactly
            "over": self._over,
            "digest": self.env.digest() if self.episode >= 0 else 0,
        }

    def restore(self, state: dict[str, Any]) -> bool:
        """Play an episode again up to the saved tick, drawing nothing. False: the simulator ended in another state.

        Another MuJoCo version or processor can do that; then the run goes on, though not bit for bit.
        """
        self._seed = state["seed"]
        if state["episode"] < 0:
            self.episode, self._actions, self._over = -1, [], True
            return True
        self._begin(state["episode"])
        for action in state["actions"]:
            if self._over:
                raise EnvError(
                    f"the restored episode ends after {len(self._actions)} of {len(state['actions'])} steps",
                    f"{self.env.config.name}, episode {self.episode}",
                    "The simulator is of another version than when it was saved, or the state belongs to another seed.",
                )
            self._act(np.asarray(action, np.float32))
        self._over = bool(state["over"])
        return self.env.digest() == state["digest"]

    def _begin(self, episode: int) -> None:
        self.env.begin(episode_seed(self._seed, self._stream, self._index, episode))
        self.episode, self._actions, self._over = episode, [], False

    def _act(self, action: NDArray) -> tuple[float, bool, bool]:
        reward, terminated, truncated = self.env.act(action)
        self._actions.append(action)
        self._over = terminated or truncated
        return reward, terminated, truncated

    def _tick(self, reward: float, *, is_first=False, is_last=False, is_terminal=False) -> Tick:
        seen = self.env.observe()
        success = self.env.success()
        return Tick(
            reward, is_first, is_last, is_terminal, success, self.episode, seen.get("proprio"), seen.get("frame")
        )
