"""Environments behind gymnasium's vector interface, for code that expects one: `make_gym`."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.vector import EnvStep, VectorEnv, make


def make_gym(config: EnvConfig, **options: Any) -> "GymVectorEnv":
    """`make` with the same options (num, seed, stream, split, …), as a gymnasium.vector.VectorEnv."""
    return GymVectorEnv(make(config, **options))


class GymVectorEnv(gymnasium.vector.VectorEnv):
    """Observations are dicts of "frame" and "proprio"; actions as `VectorEnv.action_spec` says."""

    def __init__(self, envs: VectorEnv) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self.envs, self.num_envs = envs, envs.num
        config, spec = envs.config, envs.action_spec
        parts: dict[str, spaces.Space] = {}
        if config.pixels:
            parts["frame"] = spaces.Box(0, 255, (config.size, config.size, 3), np.uint8)
        if config.proprio:
            parts["proprio"] = spaces.Box(-np.inf, np.inf, (envs.proprio_dim,), np.float32)
        self.single_observation_space = spaces.Dict(parts)
        self.single_action_space = spaces.Box(0.0 if spec.discrete else -1.0, 1.0, (spec.dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """A seed restarts the episodes' numbering; without one the next episodes begin."""
        del options
        if seed is not None and not isinstance(seed, int):
            raise ValueError(f"one whole number seeds all environments, got {seed!r}")
        step = self.envs.reset(seed=seed)
        return _observation(step), _info(step)

    def step(self, actions: NDArray) -> tuple[dict, NDArray, NDArray, NDArray, dict]:
        """The step after an episode's end is the next one's reset, as NEXT_STEP says."""
        step = self.envs.step(actions)
        truncated = step.is_last & ~step.is_terminal
        return _observation(step), step.reward.astype(np.float64), step.is_terminal, truncated, _info(step)

    def render(self) -> tuple[NDArray, ...]:
        """The current pictures."""
        return tuple(self.envs.render())

    def close_extras(self, **kwargs: Any) -> None:
        """End the workers."""
        del kwargs
        self.envs.close()


def _observation(step: EnvStep) -> dict[str, NDArray]:
    return {name: value for name in ("frame", "proprio") if (value := getattr(step, name)) is not None}


def _info(step: EnvStep) -> dict[str, NDArray]:
    return {"success": step.success, "episode_index": step.episode}  # gymnasium's wrappers put statistics in "episode"
