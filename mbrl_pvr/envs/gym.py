"""Any environment of gymnasium as a FrameEnv: `gym:CartPole-v1`, or `gym:MODULE:ID` where a module registers it.

Actions: Box, scaled to [-1, 1] (without bounds they are taken as they are), or Discrete, as one-hot vectors. Pictures:
an observation that is one (uint8, height × width × 3), else `render_mode="rgb_array"`; they are brought to env.size by
averaging over areas, which makes them square, and MuJoCo draws at that size itself. Numbers: all of the observation
that is no picture, flat. A process must hold one environment only: MuJoCo's pictures turn black beside a second.
"""

import importlib
import math
import zlib
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.random import SeedSequence
from numpy.typing import NDArray
from PIL import Image

from mbrl_pvr.envs import backend
from mbrl_pvr.envs.actions import ActionSpec
from mbrl_pvr.envs.base import FrameEnv, Outcome, numbered
from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.names import GYM
from mbrl_pvr.errors import ConfigError, EnvError, Unavailable

Place = tuple[str | int, ...]  # where in a nested observation something is

_INSTALL = {"gymnasium_robotics": 'pip install "mbrl-pvr[adroit]"'}  # lines for modules whose package has another name
_FPS = 30  # of films, where the environment does not say


class GymEnv(FrameEnv):
    """One environment. It is reset, and its first picture looked at, before anything is made of it."""

    def __init__(self, config: EnvConfig, split: str = "train") -> None:
        del split  # it has no looks
        self._can_draw = backend.select(config.backend, required=False)  # for those that MuJoCo draws
        self._env = _make(config.name)
        limit = self._env.spec.max_episode_steps if self._env.spec else None
        steps = config.max_steps if limit is None else -(-limit // config.action_repeat)
        if steps is None:
            what = f"{config.name} has no time limit"
            raise ConfigError(what, "env.max_steps", "Say how many agent steps an episode lasts: env.max_steps=1000")
        space = self._env.action_space
        spec, self._low, self._high = _actions(space, config.name)
        leaves = list(_leaves(self._env.observation_space))
        pictures = [place for place, leaf in leaves if _is_picture(leaf)]
        self._numbers = [(place, leaf) for place, leaf in leaves if not _is_visual(leaf) and leaf.is_np_flattenable]
        super().__init__(
            config,
            action_spec=spec,
            proprio_dim=sum(spaces.flatdim(leaf) for _, leaf in self._numbers),
            max_steps=steps,
            timestep=1 / self._env.metadata.get("render_fps", _FPS),
        )
        if config.proprio and not self.proprio_dim:
            what = f"{config.name} observes a picture alone, no numbers for env.proprio=true or encoder=state"
            raise ConfigError(what, "env.proprio")
        if len(pictures) > 1 and config.pixels:
            names = ", ".join("/".join(map(str, place)) for place in pictures)
            raise ConfigError(f"{config.name} observes several pictures: {names}", "env", "Wrap it to have one")
        self._picture = pictures[0] if pictures else None
        self._prepare_renderer()
        self._observation, info = self._env.reset(seed=0)
        self._success = _success(info)
        if config.pixels:
            self.check_pictures()

    def start(self, seed: SeedSequence) -> None:
        """The environment's own reset, with a seed of 31 bits, which is what all of them take."""
        self._observation, info = self._env.reset(seed=int(seed.generate_state(1)[0] >> 1))
        self._success = _success(info)

    def advance(self, action: NDArray) -> Outcome:
        """Repeat the action, add up rewards, stop at the end of the episode."""
        chosen = self._as_given(action)
        reward, terminated, truncated = 0.0, False, False
        for _ in range(self.config.action_repeat):
            self._observation, one, terminated, truncated, info = self._env.step(chosen)
            reward += float(one)
            self._success = float(np.fmax(self._success, _success(info)))  # whatever is not nan
            if terminated or truncated:
                break
        return Outcome(reward, bool(terminated), bool(truncated and not terminated))

    def frame(self, size: int | None = None) -> NDArray:
        """The observed or the rendered picture, averaged over areas to size × size."""
        size = size or self.config.size
        picture = self._native()
        if picture.shape[:2] == (size, size):
            return picture.copy()
        return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))

    def proprio(self) -> NDArray:
        """The numbers of the observation, in the space's order."""
        flat = [spaces.flatten(leaf, _at(self._observation, place)) for place, leaf in self._numbers]
        return np.concatenate([np.zeros(0), *flat]).astype(np.float32)

    def proprio_names(self) -> list[str]:
        """The space's names where it is a dictionary, else numbers."""
        return numbered({" ".join(map(str, place)) or "state": spaces.flatdim(leaf) for place, leaf in self._numbers})

    def success(self) -> float:
        """1.0 once the environment's info has said success or is_success; nan where it says neither."""
        return self._success

    def digest(self) -> int:
        """A checksum of the whole observation, pictures included."""
        leaves = [_at(self._observation, place) for place, _ in _leaves(self._env.observation_space)]
        return zlib.crc32(b"".join(np.asarray(leaf).tobytes() for leaf in leaves))

    def close(self) -> None:
        """The environment's own."""
        self._env.close()

    def _as_given(self, action: NDArray) -> Any:
        space = self._env.action_space
        if isinstance(space, spaces.Discrete):
            return space.start + np.argmax(action)
        scaled = self._low + (action.astype(np.float64) + 1.0) * 0.5 * (self._high - self._low)
        return scaled.reshape(space.shape).astype(space.dtype)

    def _native(self) -> NDArray:
        """The picture (height, width, 3) uint8 as the environment gives it."""
        if self._picture is not None:
            return np.asarray(_at(self._observation, self._picture))
        if "rgb_array" not in self._env.metadata.get("render_modes", ()):
            what = f"{self.config.name} gives no picture: it observes none and has no render_mode rgb_array"
            raise ConfigError(what, "env", "Do without: encoder=state eval.video=false, record --no-frames")
        if self._is_mujoco() and not self._can_draw:
            raise backend.no_renderer(self.config.backend, "its libraries were missing when this environment was made")
        try:
            picture = self._env.render()
        except gymnasium.error.DependencyNotInstalled as error:
            raise Unavailable(str(error), self.config.name) from error
        return np.asarray(picture)

    def _is_mujoco(self) -> bool:
        return hasattr(self._env.unwrapped, "mujoco_renderer")

    def _prepare_renderer(self) -> None:
        """MuJoCo draws frames at their size and, with render=fast, plainly; both only count before the first one."""
        if self._is_mujoco():
            inner: Any = self._env.unwrapped
            size, model = self.config.size, inner.model
            inner.mujoco_renderer.width = inner.mujoco_renderer.height = size
            view = model.vis.global_
            view.offwidth, view.offheight = max(view.offwidth, size), max(view.offheight, size)
            if self.config.render == "fast":
                model.vis.quality.shadowsize = 0
                model.vis.quality.offsamples = 0
        elif self.config.render == "fast":
            what = f"env.render=fast means nothing in {self.config.name}, which MuJoCo does not draw"
            raise ConfigError(what, "env.render", "Leave it out, or give env.render=standard")

    def check_pictures(self) -> None:
        """ConfigError for pictures that cannot be used, EnvError for one with nothing in it, Unavailable without a
        package that draws.
        """
        picture, size, name = self._native(), self.config.size, self.config.name
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ConfigError(f"{name} gives a picture {picture.dtype} {picture.shape}, not uint8 (H, W, 3)", "env")
        side = min(picture.shape[:2])
        if side < size:
            what = f"env.size={size}: {name} gives pictures of {picture.shape[0]}×{picture.shape[1]}, to be enlarged"
            raise ConfigError(
                what, "env.size", f"Take env.size={side}, with encoder.input_size={side} if that is asked"
            )
        if picture.std() == 0:
            why = "the driver does not draw, or the module made a second MuJoCo environment in this process"
            raise EnvError(f"the first picture has one colour only, {picture[0, 0].tolist()}", name, f"Likely {why}.")


def _make(name: str) -> Any:
    """The environment of `gym:ID` or `gym:MODULE:ID`, ready to render where it can."""
    module, _, identifier = name.removeprefix(GYM).rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            lacking = str(error.name).partition(".")[0]
            line = _INSTALL.get(lacking, f"pip install {lacking.replace('_', '-')}")
            raise Unavailable(f"the module {lacking!r} is not installed", name, line) from error
    try:
        spec = gymnasium.spec(identifier)
        creator = spec.entry_point if callable(spec.entry_point) else _load(spec)
        modes = getattr(creator, "metadata", {}).get("render_modes", ())
        mode: dict[str, Any] = {"render_mode": "rgb_array"} if "rgb_array" in modes else {}
        return gymnasium.make(spec, disable_env_checker=True, **mode)
    except gymnasium.error.DependencyNotInstalled as error:
        raise Unavailable(str(error), name) from error
    except gymnasium.error.Error as error:  # unknown, of another version, withdrawn
        hint = "Where a module registers it, name that too: env=gym:MODULE:ID"
        raise ConfigError(" ".join(str(error).split()), name, hint) from error


def _load(spec: Any) -> Any:
    if spec.entry_point is None:
        raise gymnasium.error.UnregisteredEnv(f"{spec.id} is registered for vectors of environments only")
    return gymnasium.envs.registration.load_env_creator(spec.entry_point)


def _actions(space: Any, name: str) -> tuple[ActionSpec, NDArray, NDArray]:
    """The action space, and the bounds (flat) that -1 and 1 stand for; ConfigError where it is neither of the two."""
    nothing = np.zeros(0)
    if isinstance(space, spaces.Discrete):
        return ActionSpec(int(space.n), discrete=True), nothing, nothing
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        what = f"{name} has actions {space}"
        raise ConfigError(what, "env", "Possible are Box, of floating-point numbers, and Discrete; wrap it to have one")
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    if (np.isinf(low) != np.isinf(high)).any():
        raise ConfigError(f"{name} has actions {space}, bounded on one side only", "env", "Wrap it to have both bounds")
    free = np.isinf(low)
    return ActionSpec(low.size), np.where(free, -1.0, low), np.where(free, 1.0, high)


def _leaves(space: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """The parts of a nested observation space that are neither Dict nor Tuple, with their places."""
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (*place, key))
    elif isinstance(space, spaces.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*place, index))
    else:
        yield place, space


def _at(observation: Any, place: Place) -> Any:
    for key in place:
        observation = observation[key]
    return observation


def _is_visual(space: Any) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) > 1


def _is_picture(space: Any) -> bool:
    return _is_visual(space) and space.shape[2:] == (3,)


def _success(info: dict[str, Any]) -> float:
    said = info.get("success", info.get("is_success"))
    return math.nan if said is None else float(bool(said))
