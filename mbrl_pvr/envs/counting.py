"""An environment that counts, for tests of alignment: what it shows says which episode and step it belongs to.

Simulator frame f of an episode gives reward f; the observation is a function of (episode's tag, f). Episodes last 3 to
24 frames and end by termination or truncation, both drawn from the episode's seed. No simulator, no OpenGL.
"""

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from mbrl_pvr.envs.actions import ActionSpec
from mbrl_pvr.envs.base import FrameEnv, Outcome
from mbrl_pvr.envs.config import EnvConfig

_LONGEST = 24  # simulator frames


class CountingEnv(FrameEnv):
    """`proprio` is (frame number, tag, length, sum of actions); a frame's channels are frame number, tag, length."""

    def __init__(self, config: EnvConfig, split: str = "train") -> None:
        del split  # it has no looks
        discrete = config.name == "counting/discrete"
        steps = -(-_LONGEST // config.action_repeat)
        spec = ActionSpec(3 if discrete else 2, discrete)
        super().__init__(config, action_spec=spec, proprio_dim=4, max_steps=steps, timestep=0.02)
        self._count = self._tag = self._length = 0
        self._terminates = False
        self._sum = 0.0

    def start(self, seed: SeedSequence) -> None:
        """Draw tag, length and kind of end."""
        rng = np.random.default_rng(seed)
        self._count, self._sum = 0, 0.0
        self._tag = int(rng.integers(1, 256))
        self._length = int(rng.integers(3, _LONGEST + 1))
        self._terminates = bool(rng.integers(2))

    def advance(self, action: NDArray) -> Outcome:
        """Count on, one simulator frame at a time."""
        self._sum += float(np.argmax(action) if self.action_spec.discrete else action.astype(np.float64).sum())
        reward, over = 0.0, False
        for _ in range(self.config.action_repeat):
            self._count += 1
            reward += self._count
            over = self._count >= self._length
            if over:
                break
        return Outcome(reward, over and self._terminates, over and not self._terminates)

    def frame(self, size: int | None = None) -> NDArray:
        """Three constant channels."""
        size = size or self.config.size
        return np.full((size, size, 3), (self._count, self._tag, self._length), np.uint8)

    def proprio(self) -> NDArray:
        """Frame number, tag, length, sum of all actions so far."""
        return np.array([self._count, self._tag, self._length, self._sum], np.float32)

    def success(self) -> float:
        """An episode succeeds when it has run to its end and terminates."""
        return float(self._terminates and self._count >= self._length)
