"""Environments that register themselves with gymnasium when they are imported: `gym:gym_tasks:Drive-v0`."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

HEIGHT, WIDTH = 80, 96


class Drive(gymnasium.Env):
    """Steer to the right end of a strip. The observation is nested, and one part of it is a picture."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012 (gymnasium declares it as a plain class attribute)
    observation_space = spaces.Dict(
        {
            "eyes": spaces.Dict({"front": spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)}),
            "gear": spaces.Discrete(3),
            "place": spaces.Box(-np.inf, np.inf, (2,), np.float64),
        }
    )
    action_space: spaces.Space = spaces.Box(np.array([[0.0, -np.inf]]), np.array([[4.0, np.inf]]), dtype=np.float64)
    length = 10.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(0, 1, 2)
        self.shade = int(self.np_random.integers(50, 200))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        assert action.shape == (1, 2) and action.dtype == np.float64
        self.place = self.place + action[0]
        there = bool(self.place[0] >= self.length)
        return self._observe(), float(action[0, 0]), there, False, {"success": there}

    def _observe(self) -> Any:
        picture = np.full((HEIGHT, WIDTH, 3), self.shade, np.uint8)
        picture[:, : int(np.clip(self.place[0] / self.length, 0, 1) * WIDTH)] = 255
        return {"eyes": {"front": picture}, "gear": 1, "place": self.place.copy()}


class Levers(Drive):
    """Actions of a kind that no agent here has."""

    action_space = spaces.MultiDiscrete([2, 3])


class HalfBounded(Drive):
    action_space = spaces.Box(0.0, np.inf, (2,))


class Blank(Drive):
    """Its picture is what a broken driver draws."""

    def _observe(self) -> Any:
        return {"eyes": {"front": np.zeros((HEIGHT, WIDTH, 3), np.uint8)}, "gear": 0, "place": self.place.copy()}


class Blind(gymnasium.Env):
    """Numbers alone, that nobody can draw; choices that begin at 5."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(4, start=5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        return np.full(3, action / 10, np.float32), float(action), False, False, {}


for task in (Drive, Levers, HalfBounded, Blank, Blind):
    gymnasium.register(f"{task.__name__}-v0", task, max_episode_steps=12)
gymnasium.register("Endless-v0", Drive)
