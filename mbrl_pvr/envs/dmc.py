"""Every task of the DeepMind control suite as a FrameEnv: `dmc/walker-walk`.

Deviations from `dm_control.suite.load`: actions are in [-1, 1] (scaled to the task's bounds; tasks without bounds take
them as they are), time limits are counted here and reported as truncation, and the two `lqr` tasks, which have no time
limit and draw another system at each start, get 1000 simulator steps and one fixed system.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from mbrl_pvr.envs import backend
from mbrl_pvr.envs.actions import ActionSpec
from mbrl_pvr.envs.base import FrameEnv, Outcome, numbered
from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.dmc_look import Paint, shift_scene, sky_mask
from mbrl_pvr.envs.dmc_size import Sizes, recorded
from mbrl_pvr.envs.names import resolve
from mbrl_pvr.envs.shifts import Look
from mbrl_pvr.errors import ConfigError, EnvError

EPISODE_STEPS = 1000  # simulator steps; every task of the suite that has a time limit lasts this long
_UNBOUNDED = 1e9  # MuJoCo's own value for "no bound" is 1e10
_FAST_FLAGS = {"shadow": False, "reflection": False}
# fields of the model that tasks draw at the start of an episode: targets, tendons, terrain
_DRAWN = ("body_pos", "body_quat", "geom_pos", "site_pos", "light_pos", "wrap_prm", "hfield_data")


class DMCEnv(FrameEnv):
    """One task. Frames come from one camera object per size, kept from tick to tick."""

    def __init__(self, config: EnvConfig, split: str = "train") -> None:
        config = replace(config, name=resolve(config.name))
        self._can_draw = backend.select(config.backend, required=config.pixels)
        self._env, xml, assets = _load(config)
        self.physics = self._env.physics
        self._sizes = Sizes(self.physics.model.ptr, xml, assets)
        self._prepare_renderer(config)
        spec = self._env.action_spec()
        bounded = np.abs(spec.minimum) < _UNBOUNDED
        self._low = np.where(bounded, spec.minimum, -1.0)
        self._high = np.where(bounded, spec.maximum, 1.0)
        limit = EPISODE_STEPS if config.time_limit is None else config.time_limit / self._env.control_timestep()
        self._limit = math.ceil(limit - 1e-6)  # simulator steps
        self._count = 0
        self._timestep = self._env.reset()
        self._cameras: dict[int, Any] = {}
        self._paint = Paint(self.physics.model.ptr)
        self._drawn_look = Look()
        super().__init__(
            config,
            action_spec=ActionSpec(spec.shape[0]),
            proprio_dim=_flatten(self._timestep.observation).size,
            max_steps=-(-self._limit // config.action_repeat),
            timestep=self._env.control_timestep(),
        )
        self.split = split

    def start(self, seed: SeedSequence) -> None:
        """Initial state from the first words of the seed; of the look only `physical_size` changes anything."""
        self._sizes.apply(self.look.numbers("physical_size")[0])
        self._env.task.random.seed(seed.generate_state(4))
        self._timestep = self._env.reset()
        self._count = 0

    def advance(self, action: NDArray) -> Outcome:
        """Repeat the action, add up rewards, stop at the end of the episode."""
        control = self._low + (action.astype(np.float64) + 1.0) * 0.5 * (self._high - self._low)
        reward, terminated = 0.0, False
        for _ in range(self.config.action_repeat):
            self._timestep = self._env.step(control)
            reward += float(self._timestep.reward)
            self._count += 1
            terminated = self._timestep.last() and self._timestep.discount == 0.0
            if self._timestep.last() or self._count >= self._limit:
                break
        over = self._timestep.last() or self._count >= self._limit
        return Outcome(reward, terminated, over and not terminated)

    def frame(self, size: int | None = None) -> NDArray:
        """Draw the current state under the look."""
        self._show_look()
        camera = self._camera(size or self.config.size)
        flags = dict(_FAST_FLAGS) if self.config.render == "fast" else None
        drawn = camera.render(render_flag_overrides=flags).copy()
        if not self.look.has("video"):
            return drawn
        return self._behind(drawn, sky_mask(self.physics.model, self._depth(camera)))

    def proprio(self) -> NDArray:
        """The task's observations, in the suite's order."""
        return _flatten(self._timestep.observation)

    def proprio_names(self) -> list[str]:
        """The suite's names: `height`, and `velocity 0` where there are several."""
        return numbered({name: np.size(value) for name, value in self._timestep.observation.items()})

    def get_sim_state(self) -> NDArray:
        """This moment as numbers: MuJoCo's integration state, what the task drew into its model, sensors, and size."""
        mujoco, model, data = _mujoco(), self.physics.model.ptr, self.physics.data.ptr
        state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION), np.float64)
        mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        return np.concatenate([state, *(part.ravel() for part in self._drawn()), data.sensordata, [self._sizes.gain]])

    def set_sim_state(self, state: NDArray) -> None:
        """Go to a state of `get_sim_state`, of any episode of this task; look and step count stay this episode's."""
        mujoco, model, data = _mujoco(), self.physics.model.ptr, self.physics.data.ptr
        sizes = [mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION), *(p.size for p in self._drawn())]
        if len(state) != (count := sum(sizes) + model.nsensordata + 1):
            counts = f"{len(state)} numbers, where this task's has {count}"
            raise EnvError(f"a state of {counts}", self.config.name, "Set states of the same task only.")
        self._sizes.apply(float(state[-1]))
        integration, *drawn, sensors = np.split(state[:-1], np.cumsum(sizes))
        for part, values in zip(self._drawn(), drawn, strict=True):
            part[...] = values.reshape(part.shape)
        mujoco.mj_setState(model, data, integration, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)
        mujoco.mj_setState(
            model, data, integration, mujoco.mjtState.mjSTATE_INTEGRATION
        )  # forward moved the warm start
        data.sensordata[:] = sensors  # after a step, forces are those of the step before
        self._upload(mujoco.mjr_uploadHField, range(model.nhfield))
        self._timestep = self._timestep._replace(observation=self._env.task.get_observation(self.physics))

    def _drawn(self) -> list[NDArray]:
        return [getattr(self.physics.model.ptr, name) for name in _DRAWN]

    def close(self) -> None:
        """Free the renderer."""
        self._cameras.clear()
        self.physics.free()

    def _prepare_renderer(self, config: EnvConfig) -> None:
        model = self.physics.model
        if config.camera >= model.ncam:
            names = ", ".join(f"{i} {model.id2name(i, 'camera')}" for i in range(model.ncam))
            raise ConfigError(f"env.camera={config.camera} does not exist", config.name, f"There are: {names}.")
        view = model.vis.global_
        view.offwidth, view.offheight = max(view.offwidth, config.size), max(view.offheight, config.size)
        if config.render == "fast":  # before the first frame, or it has no effect
            model.vis.quality.shadowsize = 0
            model.vis.quality.offsamples = 0

    def _show_look(self) -> None:
        """Paint the model, only where the next frame's look differs from the last one's."""
        if self.look == self._drawn_look:
            return
        self._upload(_mujoco().mjr_uploadTexture, self._paint.apply(self.look))
        self._drawn_look = self.look

    def _upload(self, function: Any, ids: Iterable[int]) -> None:
        """Send textures or terrain to the renderer; one that is yet to be made takes them from the model."""
        if self._cameras:
            contexts = self.physics.contexts
            with contexts.gl.make_current() as gl:
                for i in ids:
                    gl.call(function, self.physics.model.ptr, contexts.mujoco.ptr, i)

    def _shift_scene(self, physics: Any, scene: Any) -> None:
        shift_scene(physics.model.ptr, physics.data.ptr, scene.ptr, self.look, self._steps)

    def _depth(self, camera: Any) -> NDArray:
        """The depth buffer (H, W) in 0..1 of the frame that was just drawn, its first row at the top."""
        depth = np.empty((camera.height, camera.width), np.float32)
        contexts, view = self.physics.contexts, _mujoco().MjrRect(0, 0, camera.width, camera.height)
        with contexts.gl.make_current() as gl:
            gl.call(_mujoco().mjr_readPixels, None, depth, view, contexts.mujoco.ptr)
        return contexts.gl.to_pixels(depth)

    def _camera(self, size: int) -> Any:
        if not self._can_draw:
            raise backend.no_renderer(self.config.backend, "its libraries were missing when this environment was made")
        view = self.physics.model.vis.global_
        if size > min(view.offwidth, view.offheight):
            raise EnvError(f"a picture of {size} pixels does not fit the buffer of {view.offwidth}x{view.offheight}")
        if size not in self._cameras:
            from dm_control.mujoco import Camera

            try:
                shift = self._shift_scene
                self._cameras[size] = Camera(self.physics, size, size, self.config.camera, scene_callback=shift)
            except (RuntimeError, AttributeError) as error:  # no display, no context, a driver without OpenGL
                raise backend.no_renderer(self.config.backend, str(error)) from error
        return self._cameras[size]


def _load(config: EnvConfig) -> tuple[Any, str, Mapping[str, bytes]]:
    """The task, and the XML with its assets that it was compiled from."""
    domain, task = config.name.removeprefix("dmc/").split("-")
    try:
        from dm_control import suite
    except (ImportError, AttributeError, RuntimeError) as error:  # PyOpenGL fails in many ways
        raise backend.no_renderer(config.backend, f"{type(error).__name__}: {error}") from error
    with recorded() as compiled:
        env = suite.load(domain, task, task_kwargs={"random": 0, "time_limit": math.inf})
    return env, *compiled[-1]


def _flatten(observation: Any) -> NDArray:
    return np.concatenate([np.ravel(value) for value in observation.values()]).astype(np.float32)


def _mujoco() -> Any:
    import mujoco

    return mujoco
