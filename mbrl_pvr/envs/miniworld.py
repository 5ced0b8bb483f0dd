"""Every task of Miniworld as a FrameEnv: `miniworld/PickupObjects`. Rooms seen with the agent's own eyes.

Actions are choices (turn left, turn right, forward, and more where the task has them). An episode that the task ends is
terminal; its count of steps is a time limit. Deviations from the simulator: frames are drawn only when asked for, and
RoomObjects, which has no limit, gets 1000 steps. It runs in a worker, whose environment says PYGLET_HEADLESS.
"""

import math
import zlib
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from typing import Any

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from mbrl_pvr.envs import backend
from mbrl_pvr.envs.actions import ActionSpec
from mbrl_pvr.envs.base import FrameEnv, Outcome
from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.miniworld_look import MiniworldLook
from mbrl_pvr.envs.names import ENDLESS
from mbrl_pvr.errors import EnvError, Unavailable

_LIMIT = 1000  # simulator steps, for the task that has no limit
_PLANES = (0.04, 100.0)  # metres: the nearest and farthest that it draws
_SKY_FROM = 98.0  # metres; no room is so long
_SAMPLES = 8  # of a pixel; the simulator's own number, or as many as the driver has
_WITHOUT_SUCCESS = (*ENDLESS, "CollectHealth")  # whose end says nothing, or that the agent died


class MiniworldEnv(FrameEnv):
    """One task. There must be one in a process only: each keeps tens of megabytes when it is closed."""

    def __init__(self, config: EnvConfig, split: str = "train") -> None:
        self._task = config.name.partition("/")[2]
        self._sim = _make(self._task, config.size)
        self._buffers: dict[int, Any] = {}
        self._draw = partial(type(self._sim).render_obs, self._sim)
        self._shift = MiniworldLook(self._sim)
        limit = self._sim.max_episode_steps
        steps = _LIMIT if math.isinf(limit) else int(limit)
        super().__init__(
            config,
            action_spec=ActionSpec(int(self._sim.action_space.n), discrete=True),
            proprio_dim=0,
            max_steps=-(-steps // config.action_repeat),
            timestep=1 / self._sim.metadata["render_fps"],
        )
        self.split = split
        self._limit = steps
        self._success = math.nan

    def start(self, seed: SeedSequence) -> None:
        """Rooms, objects and the agent's place are drawn from the seed."""
        self._sim.reset(seed=int.from_bytes(seed.generate_state(4).tobytes(), "little"))
        self._shift.reset()
        self._success = math.nan if self._task in _WITHOUT_SUCCESS else 0.0

    def advance(self, action: NDArray) -> Outcome:
        """Repeat the choice, add up rewards, stop at the end of the episode."""
        reward, terminated, truncated = 0.0, False, False
        for _ in range(self.config.action_repeat):
            _, one, terminated, truncated, _ = self._sim.step(int(np.argmax(action)))
            reward += float(one)
            truncated = truncated or self._sim.step_count >= self._limit
            if terminated and one > 0 and not math.isnan(self._success):
                self._success = 1.0
            if terminated or truncated:
                break
        return Outcome(reward, terminated, truncated and not terminated)

    def frame(self, size: int | None = None) -> NDArray:
        """What the agent sees, drawn at that size by the simulator."""
        size = size or self.config.size
        if size not in self._buffers:
            self._buffers[size] = self._buffer(size)
        with self._shift.shown(self.look, self._steps):
            drawn = self._draw(self._buffers[size])
        if not self.look.has("video"):
            return drawn
        depth = self._buffers[size].get_depth_map(*_PLANES)[..., 0]  # (H, W) metres
        return self._behind(drawn, depth > _SKY_FROM)

    def proprio(self) -> NDArray:
        """Nothing: the simulator has no state vector."""
        return np.zeros(0, np.float32)

    def success(self) -> float:
        """1.0 once the goal is reached: the box, the wanted object, all objects picked up; nan without a goal."""
        return self._success

    def digest(self) -> int:
        """A checksum of where the agent and all objects are, which they are, and what is carried."""
        sim = self._sim
        state: list[Any] = [sim.step_count, sim.entities.index(sim.agent.carrying) if sim.agent.carrying else -1]
        for entity in sim.entities:  # the agent is one of them
            place = np.append(np.asarray(entity.pos, np.float64), entity.dir)
            state += [type(entity).__name__, getattr(entity, "color", ""), place.tobytes()]
        return zlib.crc32(repr(state).encode())

    def _buffer(self, size: int) -> Any:
        from miniworld.opengl import FrameBuffer

        self._sim.shadow_window.switch_to()
        with redirect_stdout(StringIO()):  # it says how many samples a driver has to offer
            return FrameBuffer(size, size, _SAMPLES)


def _make(task: str, size: int) -> Any:
    """The simulator's own object. Its second buffer, for people to look at, is made as small as the first."""
    if lacking := backend.missing("miniworld"):
        raise _cannot_draw(f"{' and '.join(name for name, _ in lacking)} not found")
    sides = dict.fromkeys(("obs_width", "obs_height", "window_width", "window_height"), size)
    try:
        from miniworld import envs

        kind = getattr(envs, task)
        sim = kind.__new__(kind)
        sim.render_obs = lambda *_: None  # it draws after every step, and in its constructor; here only `frame` does
        with redirect_stdout(StringIO()):
            sim.__init__(**sides)
    except ModuleNotFoundError as error:
        what = f"Miniworld is not installed: {error}"
        raise Unavailable(what, f"miniworld/{task}", "pip install miniworld") from error
    except ImportError as error:  # pyglet, of a library that does not load
        raise _cannot_draw(str(error)) from error
    except Exception as error:
        if not type(error).__module__.startswith("pyglet."):
            raise
        raise _cannot_draw(f"{type(error).__name__}: {error}") from error  # no configuration, no context: the driver
    return sim


def _cannot_draw(cause: str) -> EnvError:
    packages = " ".join(backend.packages("miniworld"))
    hint = f"On Debian: apt-get install -y --no-install-recommends {packages}."
    return EnvError(f"Miniworld cannot draw: {cause}", hint=hint)
