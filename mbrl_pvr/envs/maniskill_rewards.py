"""Staged rewards and success for ManiSkill's tasks that have none: stand-ins of ours, at most 1 a step.

ManiSkill 3 gives PlugCharger and AssemblingKits a success test and no dense reward, PickClutterYCB neither. What the
study used is not known. The stages follow those of ManiSkill's own tasks: reach, grasp, align, place; each adds to
those before it, all of them stay below 1, and only a solved task gives 1.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_REACH, _GRASP = 0.2, 0.2  # what the first two stages give; the others share 0.5
_PLACED, _STILL = 0.025, 0.2  # metres from the goal and rad/s of the joints, as in ManiSkill's PickSingleYCB


class StandIn(Protocol):
    """`sim` is the simulator's object, `info` what its last step said."""

    def state(self, sim: Any) -> NDArray:
        """What must be added to the simulator's state vector (D,) float32."""

    def solved(self, sim: Any, info: dict[str, Any]) -> bool:
        """Whether the task is solved at this moment."""

    def reward(self, sim: Any, info: dict[str, Any], solved: bool) -> float:
        """The dense reward of this moment, 0 to 1."""


class _OwnTest:
    """What tasks share whose success test and state are the simulator's own."""

    def state(self, sim: Any) -> NDArray:
        """Nothing: the simulator's has all."""
        return np.zeros(0, np.float32)

    def solved(self, sim: Any, info: dict[str, Any]) -> bool:
        """The simulator's own test."""
        return bool(info["success"])


class PlugCharger(_OwnTest):
    """Grasp the charger by its base, bring its pegs in line with the receptacle's axis, push them in: within 5 mm and
    0.2 rad.
    """

    def reward(self, sim: Any, info: dict[str, Any], solved: bool) -> float:
        """Lateral error and angle first; depth counts once they are small."""
        if solved:
            return 1.0
        grasped = bool(sim.agent.is_grasping(sim.charger))
        reward = _approach(sim, _numbers(sim.charger_base_pose.p), grasped)
        if grasped:
            along, *across = _numbers((sim.goal_pose.inv() * sim.charger.pose).p)  # in the frame of the goal
            lateral, angle = float(np.linalg.norm(across)), float(info["obj_to_goal_angle"])
            reward += 0.25 * _near(10 * lateral + angle)
            if lateral < 0.01 and angle < 0.2:
                reward += 0.25 * _near(10 * abs(along))
        return reward


class AssemblingKits(_OwnTest):
    """Grasp the piece, bring it over its slot, turn it, let it down: within 2 cm and 4 degrees, sunk into the slot."""

    def reward(self, sim: Any, info: dict[str, Any], solved: bool) -> float:
        """Place and rotation first; height counts, also without a grasp, once they are right."""
        if solved:
            return 1.0
        right = bool(info["pos_correct"]) and bool(info["rot_correct"])
        held = right or bool(sim.agent.is_grasping(sim.obj))  # a piece that is let go over its slot loses nothing
        piece = _numbers(sim.obj.pose.p)
        reward = _approach(sim, piece, held)
        if held:
            reward += 0.25 * _near(5 * float(info["pos_diff_norm"]) + float(info["rot_diff"]))
        if right:
            reward += 0.25 * _near(20 * max(0.0, float(piece[2])))
        return reward


class PickClutterYCB:
    """Grasp the object that is asked for, bring it to the goal in the air, hold it still."""

    def state(self, sim: Any) -> NDArray:
        """The object's pose (7), the goal (3) and the gripper's pose (7): the simulator gives joints alone."""
        parts = (sim.target_object.pose.raw_pose, sim.goal_pos, sim.agent.tcp.pose.raw_pose)
        return np.concatenate([_numbers(part) for part in parts]).astype(np.float32)

    def solved(self, sim: Any, info: dict[str, Any]) -> bool:
        """As in PickSingleYCB: the object within 2.5 cm of the goal, the arm still."""
        return _distance(sim.target_object.pose.p, sim.goal_pos) <= _PLACED and bool(sim.agent.is_static(_STILL))

    def reward(self, sim: Any, info: dict[str, Any], solved: bool) -> float:
        """Nearness to the goal counts in a grasp, stillness at the goal."""
        if solved:
            return 1.0
        grasped = bool(sim.agent.is_grasping(sim.target_object))
        reward = _approach(sim, _numbers(sim.target_object.pose.p), grasped)
        away = _distance(sim.target_object.pose.p, sim.goal_pos)
        if grasped:
            reward += 0.25 * _near(5 * away)
        if away <= _PLACED:
            reward += 0.25 * _near(5 * float(np.linalg.norm(_numbers(sim.agent.robot.get_qvel())[:-2])))
        return reward


STAND_INS: dict[str, StandIn] = {
    "AssemblingKits-v1": AssemblingKits(),
    "PickClutterYCB-v1": PickClutterYCB(),
    "PlugCharger-v1": PlugCharger(),
}


def _approach(sim: Any, place: NDArray, grasped: bool) -> float:
    """Reach and grasp; a grasp gives all of the first, so that closing the gripper never loses anything."""
    if grasped:
        return _REACH + _GRASP
    return _REACH * _near(5 * float(np.linalg.norm(_numbers(sim.agent.tcp.pose.p) - place)))


def _near(error: float) -> float:
    """1 without error, falling to 0."""
    return float(1 - np.tanh(error))


def _numbers(batch: Any) -> NDArray:
    """The one row of the simulator's batched tensors."""
    return batch[0].cpu().numpy()


def _distance(a: Any, b: Any) -> float:
    return float(np.linalg.norm(_numbers(a) - _numbers(b)))
