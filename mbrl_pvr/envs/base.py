"""What an environment of ours is: a gymnasium.Env that can also step without drawing, and begin an episode from a seed.

Simulators differ in four methods: `start`, `advance`, `frame`, `proprio`. README.md shows how to write them. One that
has shifts of its own draws `self.look` in `frame`; those of the finished frame are added here, in `picture`.
"""

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.random import SeedSequence
from numpy.typing import NDArray

from mbrl_pvr.envs.actions import ActionSpec, check_actions, random_actions
from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.factors import PHYSICAL
from mbrl_pvr.envs.image import distort
from mbrl_pvr.envs.offers import shifted
from mbrl_pvr.envs.shifts import Look, draw_look
from mbrl_pvr.envs.video import behind, count_clips, frames
from mbrl_pvr.errors import EnvError
from mbrl_pvr.seeding import rng


class Outcome(NamedTuple):
    """What one agent step brought."""

    reward: float
    terminated: bool
    truncated: bool


def numbered(sizes: Mapping[str, int]) -> list[str]:
    """A name for each of several numbers: `velocity 0`, `velocity 1`, …; those of a single one have no number."""
    return [name if size == 1 else f"{name} {i}" for name, size in sizes.items() for i in range(size)]


class FrameEnv(gymnasium.Env[dict[str, NDArray], NDArray], ABC):
    """One environment in this process. Frames are square; observations are a dict of "frame" and "proprio"."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium declares it as a plain class attribute)
    render_mode = "rgb_array"

    def __init__(
        self, config: EnvConfig, *, action_spec: ActionSpec, proprio_dim: int, max_steps: int, timestep: float
    ) -> None:
        self.config = config
        self.fps = 1 / (timestep * config.action_repeat)  # one picture an agent step shows simulated time as it passes
        self.action_spec, self.proprio_dim = action_spec, proprio_dim
        self.max_episode_steps = min(max_steps, config.max_steps or max_steps)  # agent steps
        self.action_space: spaces.Space = spaces.Box(-1.0, 1.0, (action_spec.dim,), np.float32)
        parts: dict[str, spaces.Space] = {}
        if config.pixels:
            parts["frame"] = spaces.Box(0, 255, (config.size, config.size, 3), np.uint8)
        if config.proprio:
            parts["proprio"] = spaces.Box(-np.inf, np.inf, (proprio_dim,), np.float32)
        self.observation_space: spaces.Space = spaces.Dict(parts)
        self.split = "train"  # of looks: the part of a shift's values that episodes draw from
        self.look = Look()  # of the running episode
        self._stored = {"video": count_clips(config.video)}  # of a look's factors: how many there are
        self._steps = 0
        self._over = True

    @abstractmethod
    def start(self, seed: SeedSequence) -> None:
        """Begin an episode; everything random in it is a function of `seed`."""

    @abstractmethod
    def advance(self, action: NDArray) -> Outcome:
        """`action_repeat` simulator steps with one checked action; stops where the episode ends."""

    @abstractmethod
    def frame(self, size: int | None = None) -> NDArray:
        """The current state as the simulator draws it, (size, size, 3) uint8; the configured size by default."""

    @abstractmethod
    def proprio(self) -> NDArray:
        """The task's own observation, flat (D,) float32."""

    def proprio_names(self) -> list[str]:
        """What each number of `proprio` is, for figures; numbered where the simulator does not say."""
        return [f"state {number}" for number in range(self.proprio_dim)]

    def success(self) -> float:
        """1.0 where the episode has succeeded so far, 0.0 where not, nan where the task does not say."""
        return math.nan

    def get_sim_state(self) -> NDArray | None:
        """This moment as numbers for `set_sim_state`; None where a simulator cannot give them."""
        return None

    def set_sim_state(self, state: NDArray) -> None:
        """Go to a state of `get_sim_state`, of any episode of this task; look and step count stay this episode's."""
        raise EnvError("this simulator has no states to go to", self.config.name)

    def check_pictures(self) -> None:
        """Raise, when it has just been built, what stands in the way of pictures that only a film will ask for."""

    def begin(self, seed: SeedSequence) -> None:
        """The episode's look, `start`, and the step count. Physics sees only those factors that are physical."""
        c = self.config
        self.look = draw_look(
            seed, c.shifts, self.split, c.severity, c.factors, env=c.name, bands=c.bands, stored=self._stored
        )
        self.start(seed)
        self._steps, self._over = 0, False

    def act(self, action: NDArray) -> Outcome:
        """`advance` with the cap on steps and a check of the reward; draws nothing."""
        if self._over:
            raise EnvError("the episode is over; begin another one before stepping", self.config.name)
        reward, terminated, truncated = self.advance(action)
        if not math.isfinite(reward):
            raise EnvError(f"the simulator returned reward {reward}", f"{self.config.name}, step {self._steps + 1}")
        self._steps += 1
        truncated = not terminated and (truncated or self._steps >= self.max_episode_steps)
        self._over = terminated or truncated
        return Outcome(float(reward), bool(terminated), bool(truncated))

    def play_random(self, seed: int) -> float:
        """The return of uniformly random actions from here to the end of the episode; draws nothing."""
        noise, total = rng(seed, "random"), 0.0
        while not self._over:
            total += self.act(random_actions(self.action_spec, 1, noise)[0]).reward
        return total

    def picture(self, size: int | None = None) -> NDArray:
        """What is seen of the current state, (size, size, 3) uint8: the simulator's drawing, its frame shifted."""
        return distort(self.frame(size), self.look, self._steps)

    def frames_of(self, looks: Sequence[Look], size: int | None = None) -> NDArray:
        """The current state under each look, (len(looks), H, W, 3) uint8; the episode's own look stays.

        Raises EnvError for a look with a factor that this simulator cannot draw, or that changes the physics.
        """
        for look in looks:
            if rebuilding := sorted(set(look.draws) & set(PHYSICAL)):
                what = f"{', '.join(rebuilding)} changes the physics: one state cannot be drawn with and without"
                raise EnvError(what, self.config.name, f"Leave {' and '.join(rebuilding)} out of the looks.")
            if lacking := set(look.draws) - set(shifted(self.config.name)):
                have = ", ".join(shifted(self.config.name))
                raise EnvError(f"{', '.join(sorted(lacking))} cannot be drawn", self.config.name, f"It has: {have}.")
        own = self.look
        try:
            pictures = []
            for self.look in looks:
                pictures.append(self.picture(size))
            return np.stack(pictures)
        finally:
            self.look = own

    def redraw(self, states: NDArray, look: Look, first: int = 0) -> NDArray:
        """The states (T, D) of an episode, from step `first` on, under a look: (T, H, W, 3) uint8, for one painting of
        the scene. The environment is left in the last state; raises as `frames_of`.
        """
        own, pictures = self._steps, []
        for self._steps, state in enumerate(states, first):  # what moves by itself is where it was at that step
            self.set_sim_state(state)
            pictures.append(self.frames_of([look])[0])
        self._steps = own
        return np.stack(pictures)

    def _behind(self, frame: NDArray, sky: NDArray) -> NDArray:
        """A frame with the look's video, at this step, mixed into its sky (H, W) bool."""
        clip = frames(self.config.video, self.look.draws["video"].index)
        return behind(frame, sky, clip[self._steps % len(clip)], self.look.strength("video"))

    def observe(self) -> dict[str, NDArray]:
        """The parts of the observation that the configuration asks for, checked."""
        parts: dict[str, NDArray] = {}
        where = f"{self.config.name}, step {self._steps}"
        if self.config.pixels:
            frame, shape = self.picture(), (self.config.size, self.config.size, 3)
            if frame.dtype != np.uint8 or frame.shape != shape:
                raise EnvError(f"the simulator drew a frame {frame.dtype} {frame.shape}, not uint8 {shape}", where)
            parts["frame"] = frame
        if self.config.proprio:
            proprio = self.proprio()
            bad = np.flatnonzero(~np.isfinite(proprio))
            if bad.size:
                raise EnvError(f"the simulator returned {proprio[bad[0]]} in observation[{bad[0]}]", where)
            parts["proprio"] = proprio
        return parts

    def digest(self) -> int:
        """A checksum of the current state, to see whether a restored episode is exactly the one that was left."""
        return zlib.crc32(np.ascontiguousarray(self.proprio()).tobytes())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Gymnasium's reset: `seed` names the episode; without it episodes follow from the last seed given."""
        super().reset(seed=seed)
        self.begin(SeedSequence(seed) if seed is not None else SeedSequence(int(self.np_random.integers(2**63))))
        return self.observe(), {"success": self.success()}

    def step(self, action: NDArray) -> tuple[dict, float, bool, bool, dict]:
        """Gymnasium's step."""
        actions = check_actions(np.asarray(action)[None], self.action_spec, self.config.name)
        reward, terminated, truncated = self.act(actions[0])
        return self.observe(), reward, terminated, truncated, {"success": self.success()}

    def render(self) -> NDArray:
        """The current picture, also where `pixels` is off."""
        return self.picture()
