"""ManiSkill's tasks for one Panda arm as a FrameEnv: `maniskill/PickCube-v1`, seen by the camera at its wrist.

Physics on the CPU, pictures by whatever `vulkan.py` finds. Every episode has 200 steps at 20 Hz and success does not
end it, so that a reward of at most 1 a step gives returns of at most 200, the maximum of the study. Its scene is built
anew, since contacts of one episode would otherwise reach into the next: then all follows from a seed of 31 bits, and
from what of its look is physical (`maniskill_scene.py`).

Actions (5): displacement of the gripper's target along x, y, z and about the vertical axis, and the gripper (-1 closed,
1 open); the other two rotations are held, pointing down. A stand-in for the study's velocity controller.
Deviations from the simulator: the camera is added to tasks whose list of robots lacks it, markers of goals are drawn,
and three tasks have rewards of ours (`maniskill_rewards.py`). It imports torch, which the simulator needs.
"""

import logging
import math
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from mbrl_pvr.envs import backend, vulkan
from mbrl_pvr.envs.actions import ActionSpec
from mbrl_pvr.envs.base import FrameEnv, Outcome, numbered
from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.maniskill_look import ManiSkillLook
from mbrl_pvr.envs.maniskill_rewards import STAND_INS
from mbrl_pvr.envs.maniskill_scene import Scene, mixins, scene_of
from mbrl_pvr.errors import EnvError, Unavailable

EPISODE_STEPS = 200
MOVE, TURN = 0.05, 0.1  # metres and radians that an action of 1 displaces the target, every 1/20 s
_LEASH, _TWIST = 0.1, 0.3  # metres and radians from the gripper to its target at most: a blocked arm winds up little
_ROBOT, _CAMERA = "panda_wristcam", "hand_camera"
_VULKAN = ("physical device", "vk::", "Vulkan")  # in errors of a driver that is too old, or does not load
_SIZES = {"ycb": "26 MB"}  # of downloads, where known; the others' publishers name none
_SCENE = len(Scene._fields)  # a state begins with its scene, success, and the target (x, y, z, yaw)
_NOT_NUMBERS = _SCENE + 5  # what it has before the simulator's numbers


class ManiSkillEnv(FrameEnv):
    """One task. The first picture of a process takes 10 to 60 s in software: the driver compiles its shaders."""

    def __init__(self, config: EnvConfig, split: str = "train") -> None:
        self._task = config.name.partition("/")[2]
        self._sim = _make(self._task, config.size)
        self._stand_in = STAND_INS.get(self._task)
        self._cameras: dict[int, Any] = {}
        self._shift = ManiSkillLook()
        self._scene, self._success = Scene(), 0.0
        self._target = np.zeros(4)  # x, y, z and yaw in the frame of the arm's foot
        self._observation = self._sim.get_obs()
        super().__init__(
            config,
            action_spec=ActionSpec(5),
            proprio_dim=self.proprio().size,
            max_steps=-(-EPISODE_STEPS // config.action_repeat),
            timestep=self._sim.control_timestep,
        )
        self.split = split
        if hasattr(self._sim, "_episodes"):
            self._stored["configurations"] = len(self._sim._episodes)
        self._count = 0

    def start(self, seed: SeedSequence) -> None:
        """Build the scene and draw all that is random in it."""
        self._reset(scene_of(int(seed.generate_state(1)[0] >> 1), self.look))
        self._count, self._success = 0, 0.0

    def advance(self, action: NDArray) -> Outcome:
        """Repeat the action, add up rewards; an episode ends by its count of steps alone."""
        total = 0.0
        for _ in range(self.config.action_repeat):
            self._observation, reward, _, _, info = self._sim.step(self._command(action))
            solved = self._solved(info)
            total += self._reward(float(reward), info, solved)
            self._success = max(self._success, float(solved))
            self._count += 1
            if self._count >= EPISODE_STEPS:
                break
        return Outcome(total, False, self._count >= EPISODE_STEPS)

    def frame(self, size: int | None = None) -> NDArray:
        """What the camera at the wrist sees, markers of goals included."""
        camera = self._camera(size or self.config.size)
        with self._shift.shown(self.look, camera.camera._render_cameras[0], self._steps):
            self._sim.scene.update_render(update_sensors=True, update_human_render_cameras=False)
            camera.capture()  # only begins to draw
            seen = camera.get_obs(rgb=True, depth=False, position=False, segmentation=False)["rgb"]  # (1, H, W, 3)
            return seen[0].cpu().numpy().copy()

    def proprio(self) -> NDArray:
        """ManiSkill's own state: joints, the gripper's pose, and what pictures must tell: objects and goals."""
        own = self._observation[0].numpy().astype(np.float32)
        return own if self._stand_in is None else np.concatenate([own, self._stand_in.state(self._sim)])

    def proprio_names(self) -> list[str]:
        """ManiSkill's names, such as `qpos 0`; those of our own numbers, where it gives none, are `state 18`, …"""
        own = numbered(_sizes(self._sim._get_obs_state_dict(self._sim.get_info())))
        return own + [f"state {number}" for number in range(len(own), self.proprio_dim)]

    def success(self) -> float:
        """1.0 once the task has been solved in this episode."""
        return self._success

    def digest(self) -> int:
        """A checksum of the simulator's state, the target and what is observed."""
        return zlib.crc32(self.get_sim_state().tobytes() + self.proprio().tobytes())

    def get_sim_state(self) -> NDArray:
        """This moment as numbers: what its scene is built from, success, the gripper's target, poses and velocities."""
        own = [*self._scene, self._success, *self._target]
        return np.concatenate([own, self._sim.get_state()[0].numpy()]).astype(np.float64)

    def set_sim_state(self, state: NDArray) -> None:
        """Go to a state of `get_sim_state` of this task; the step count stays this episode's.

        Exact to the rounding of float32. Forces are no part of it: what follows from contacts (a grasp in the
        observation) is right after the next step.
        """
        length = self.get_sim_state().size
        if len(state) != length:
            counts = f"{len(state)} numbers, where this task's has {length}"
            raise EnvError(f"a state of {counts}", self.config.name, "Set states of the same task only.")
        seed, size, shape, number = state[:_SCENE].tolist()
        scene = Scene(int(seed), size, shape, int(number))
        if scene != self._scene:  # shapes and goals are drawn with it
            self._reset(scene)
        self._success, self._target = float(state[_SCENE]), np.array(state[_SCENE + 1 : _NOT_NUMBERS])
        self._sim.set_state(state[None, _NOT_NUMBERS:].astype(np.float32))
        self._observation = self._sim.get_obs()

    def close(self) -> None:
        """Free the scene and the renderer."""
        self._cameras.clear()
        self._sim.close()

    def _reset(self, scene: Scene) -> None:
        self._cameras.clear()  # they belong to the scene
        self._scene = self._sim.built = scene
        self._observation, _ = self._sim.reset(seed=scene.seed, options={"reconfigure": True})
        self._shift.reset(self._sim)
        position, yaw = self._gripper()
        self._target = np.array([*position, yaw])

    def _reward(self, dense: float, info: dict[str, Any], solved: bool) -> float:
        if self.config.reward == "sparse":
            return float(solved)
        return dense if self._stand_in is None else self._stand_in.reward(self._sim, info, solved)

    def _solved(self, info: dict[str, Any]) -> bool:
        return bool(info["success"]) if self._stand_in is None else self._stand_in.solved(self._sim, info)

    def _command(self, action: NDArray) -> NDArray:
        """Move the target, and say it as position, rotation (Euler angles x, y, z) and gripper (7,) float32."""
        position, yaw = self._gripper()
        moved = self._target + np.asarray(action[:4], np.float64) * (MOVE, MOVE, MOVE, TURN)
        moved[:3] = np.clip(moved[:3], position - _LEASH, position + _LEASH)
        turned = (moved[3] - yaw + math.pi) % (2 * math.pi) - math.pi
        moved[3] = yaw + np.clip(turned, -_TWIST, _TWIST)
        self._target = moved
        return np.array([*moved[:3], math.pi, 0.0, -moved[3], action[4]], np.float32)

    def _gripper(self) -> tuple[NDArray, float]:
        """Where the gripper is (3,) and how it is turned about the vertical, in the frame of the arm's foot."""
        pose = self._sim.agent.controller.controllers["arm"].ee_pose_at_base
        w, x, y, z = pose.q[0].numpy().astype(np.float64)
        yaw = math.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))  # of its x axis
        return pose.p[0].numpy().astype(np.float64), yaw

    def _camera(self, size: int) -> Any:
        if size == self.config.size:
            return self._sim._sensors[_CAMERA]
        if size not in self._cameras:
            from mani_skill.sensors.camera import Camera

            config = replace(self._sim._sensor_configs[_CAMERA], uid=f"{_CAMERA}_{size}", width=size, height=size)
            self._cameras[size] = Camera(config, self._sim.scene, articulation=self._sim.agent.robot)
        return self._cameras[size]


def _make(task: str, size: int) -> Any:
    """The task with the camera at the wrist as its only one. Without a driver not even the arm can be built."""
    driver = vulkan.select()
    if lacking := backend.missing("maniskill"):
        what = f"ManiSkill does not start without {' and '.join(name for name, _ in lacking)}"
        hint = f"On Debian: apt-get install -y --no-install-recommends {' '.join(package for _, package in lacking)}"
        raise Unavailable(what, f"maniskill/{task}", hint)
    try:
        import mani_skill.envs  # noqa: F401 (registers its tasks)
        from mani_skill.utils.registration import REGISTERED_ENVS
    except ModuleNotFoundError as error:
        what = f"ManiSkill is not installed: {error}"
        raise Unavailable(what, f"maniskill/{task}", "pip install mani_skill") from error

    logging.getLogger("mani_skill").setLevel(logging.ERROR)  # it warns about poses of its own scenes, at every reset
    _require_assets(task)
    base = REGISTERED_ENVS[task].cls
    # other cameras would be drawn with it, and cost as much; the arm with a camera is supported by being listed
    cameras: dict[str, Any] = {"_default_sensor_configs": [], "_default_human_render_camera_configs": []}
    kind: Any = type(f"Wrist{base.__name__}", (*mixins(task), base), cameras | {"SUPPORTED_ROBOTS": [_ROBOT]})
    try:
        sim = kind(
            obs_mode="state",
            reward_mode="normalized_dense" if "normalized_dense" in base.SUPPORTED_REWARD_MODES else "none",
            control_mode="pd_ee_pose",
            robot_uids=_ROBOT,
            sim_backend="physx_cpu",
            render_backend=f"sapien_{driver.device}",
            sensor_configs={"shader_pack": "minimal", "width": size, "height": size},
        )
    except RuntimeError as error:
        if any(word in str(error) for word in _VULKAN):
            raise vulkan.no_driver(f"{error} (driver {driver.where})") from error
        raise
    if not sim.scene.can_render():
        raise vulkan.no_driver(f"SAPIEN does not take the driver {driver.where}")
    return sim


def _sizes(tree: dict[str, Any]) -> dict[str, int]:
    """Names of what the state vector is made of, in its order, with how many numbers each has."""
    sizes: dict[str, int] = {}
    for name, value in tree.items():
        sizes |= _sizes(value) if isinstance(value, dict) else {name: np.asarray(value).size}
    return sizes


def _require_assets(task: str) -> None:
    """Unavailable where models must be fetched first: the simulator would ask on the terminal, and wait."""
    from mani_skill.utils import assets

    lacking = []
    for name in assets.expand_data_group_into_individual_data_source_ids(task):
        source = assets.DATA_SOURCES[name]
        place = source.output_dir / source.target_path
        if not place.exists() or (place.is_dir() and not any(place.iterdir())):  # a failed download leaves it empty
            lacking.append((name, place))
    if lacking:
        name, place = min(lacking)
        more = f" and {len(lacking) - 1} more" * (len(lacking) > 1)
        sizes = [f"{key} is {_SIZES[key]}" for key, _ in sorted(lacking) if key in _SIZES] or ["its size is not known"]
        what = f"ManiSkill's files {name!r}{more} are not here ({place}; {', '.join(sizes)})"
        hint = f"Run: python -m mani_skill.utils.download_asset -y {task}   (MS_ASSET_DIR=DIR puts them elsewhere)"
        raise Unavailable(what, f"maniskill/{task}", hint)
