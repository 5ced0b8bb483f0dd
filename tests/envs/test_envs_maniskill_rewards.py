"""Our rewards for three of ManiSkill's tasks: each stage adds to those before it, and only a solved task gives 1."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_up_scenes import assembling_kits, pick_clutter

from mbrl_pvr.envs import EnvConfig, VectorEnv, make
from mbrl_pvr.envs.maniskill_rewards import STAND_INS


class Pose:
    """A batch of one pose without rotation, as far as the rewards read it."""

    def __init__(self, *place: float) -> None:
        self.p = torch.tensor([place], dtype=torch.float32)
        self.raw_pose = torch.cat([self.p, torch.tensor([[1.0, 0, 0, 0]])], 1)

    def inv(self) -> "Pose":
        return Pose(*(-self.p[0]).tolist())

    def __mul__(self, other: "Pose") -> "Pose":
        return Pose(*(self.p[0] + other.p[0]).tolist())


def arm(tcp: tuple, grasped: bool, speed: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(
        tcp=SimpleNamespace(pose=Pose(*tcp)),
        is_grasping=lambda held: torch.tensor([grasped]),
        is_static=lambda threshold: torch.tensor([speed <= threshold]),
        robot=SimpleNamespace(get_qvel=lambda: torch.full((1, 9), speed)),
    )


def charger(tcp: tuple, place: tuple, grasped: bool, angle: float = 0.0, success: bool = False) -> float:
    sim = SimpleNamespace(
        agent=arm(tcp, grasped), charger=SimpleNamespace(pose=Pose(*place)), goal_pose=Pose(0.1, 0, 0.1)
    )
    sim.charger_base_pose = sim.charger.pose
    info = {"obj_to_goal_angle": torch.tensor([angle]), "success": torch.tensor([success])}
    return reward("PlugCharger-v1", sim, info)


def kit(tcp: tuple, place: tuple, grasped: bool, rotation: float = 0.0, success: bool = False) -> float:
    away = math.hypot(place[0] - 0.1, place[1])
    sim = SimpleNamespace(agent=arm(tcp, grasped), obj=SimpleNamespace(pose=Pose(*place)))
    info = {
        "pos_diff_norm": torch.tensor([away]),
        "rot_diff": torch.tensor([rotation]),
        "pos_correct": torch.tensor([away < 0.02]),
        "rot_correct": torch.tensor([rotation < 0.07]),
        "success": torch.tensor([success]),
    }
    return reward("AssemblingKits-v1", sim, info)


def clutter(tcp: tuple, place: tuple, grasped: bool, speed: float = 1.0) -> float:
    target = SimpleNamespace(pose=Pose(*place))
    sim = SimpleNamespace(agent=arm(tcp, grasped, speed), target_object=target, goal_pos=torch.tensor([[0.1, 0, 0.4]]))
    assert STAND_INS["PickClutterYCB-v1"].state(sim).shape == (17,)
    return reward("PickClutterYCB-v1", sim, {"success": torch.tensor([False])})


def reward(task: str, sim: Any, info: dict) -> float:
    return STAND_INS[task].reward(sim, info, STAND_INS[task].solved(sim, info))


AWAY, ON = (-0.2, 0.1, 0.2), (0.0, 0.1, 0.02)  # of the gripper, and of what lies on the table


@pytest.mark.parametrize(
    ("one", "moments"),
    [
        (
            charger,
            [
                (AWAY, ON, False, 0.5),
                (ON, ON, False, 0.5),
                (ON, ON, True, 0.5),
                ((0.0, 0.0, 0.1), (0.0, 0.0, 0.1), True, 0.5),  # on the axis of the receptacle
                ((0.0, 0.0, 0.1), (0.0, 0.0, 0.1), True, 0.0),  # and turned as it is
                ((0.08, 0.0, 0.1), (0.08, 0.0, 0.1), True, 0.0),
                ((0.1, 0.0, 0.1), (0.1, 0.0, 0.1), True, 0.0, True),
            ],
        ),
        (
            kit,
            [
                (AWAY, ON, False, 0.5),
                (ON, ON, False, 0.5),
                (ON, ON, True, 0.5),
                ((0.1, 0.0, 0.1), (0.1, 0.0, 0.1), True, 0.5),  # over its slot
                ((0.1, 0.0, 0.1), (0.1, 0.0, 0.1), True, 0.0),
                ((0.1, 0.0, 0.03), (0.1, 0.0, 0.03), True, 0.0),
                ((0.1, 0.0, 0.03), (0.1, 0.0, 0.01), False, 0.0),  # let go: it has sunk a little
                (AWAY, (0.1, 0.0, 0.002), False, 0.0, True),
            ],
        ),
        (
            clutter,
            [
                (AWAY, ON, False),
                (ON, ON, False),
                (ON, ON, True),
                ((0.1, 0.1, 0.3), (0.1, 0.1, 0.3), True),
                ((0.1, 0.0, 0.4), (0.1, 0.0, 0.4), True),  # there, and still moving
                ((0.1, 0.0, 0.4), (0.1, 0.0, 0.4), True, 0.3),
                ((0.1, 0.0, 0.4), (0.1, 0.0, 0.4), True, 0.0),
            ],
        ),
    ],
)
def test_each_stage_adds_to_those_before_it(one: Callable[..., float], moments: list[tuple]) -> None:
    rewards = [one(*moment) for moment in moments]
    assert rewards == sorted(rewards) and len(set(rewards)) == len(rewards), rewards
    assert rewards[0] > 0 and rewards[-2] < 0.9 and rewards[-1] == 1.0


class Script:
    """Plays a task by what its state vector says: places and turns of the gripper and of what it moves."""

    def __init__(self, envs: VectorEnv, episode: int) -> None:
        self.envs, self.step = envs, envs.reset(episode=episode)
        self.rewards: list[float] = []
        self.succeeded: list[float] = []

    def numbers(self, first: int, count: int) -> np.ndarray:
        return self.step.proprio[0, first : first + count]

    def pose(self, first: int) -> tuple[np.ndarray, float]:
        w, x, y, z = self.numbers(first + 3, 4)
        return self.numbers(first, 3), math.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))

    def move(self, first: int, place: np.ndarray, turn: float, grip: float, steps: int) -> float:
        """Bring what has its pose there to a place and a turn; the reward of the last step."""
        for _ in range(steps):
            here, turned = self.pose(first)
            error = (turn - turned + math.pi) % (2 * math.pi) - math.pi
            push = np.clip(0.5 * (place - here) / 0.05, -0.4, 0.4)
            self.step = self.envs.step(np.array([[*push, np.clip(5 * error, -0.5, 0.5), grip]], np.float32))
            self.rewards.append(float(self.step.reward[0]))
            self.succeeded.append(float(self.step.success[0]))
        return self.rewards[-1]

    def solved_at_last(self) -> bool:
        """Rewarded with 1 from the moment of success, never before it, and the episode has gone on."""
        first = self.rewards.index(1.0) if 1.0 in self.rewards else -1
        going = not self.step.is_last[0] and len(self.rewards) > first + 1
        return first > 0 and self.succeeded.index(1.0) == first and min(self.rewards) >= 0 and going


def nearest(turn: float, now: float, symmetry: float) -> float:
    """The turn that looks alike and is nearest."""
    return turn + symmetry * round((now - turn) / symmetry)


def test_a_scripted_plug_is_rewarded_stage_by_stage_and_goes_in(maniskill: None) -> None:
    config = EnvConfig(name="maniskill/PlugCharger-v1", size=64, action_repeat=1, pixels=False, proprio=True)
    with make(config, num=1, seed=3, stream="t", start_timeout=500) as envs:
        plug = Script(envs, 0)
        (charger, turn), (goal, at) = plug.pose(25), plug.pose(39)
        axis, up = np.array([math.cos(at), math.sin(at), 0]), np.array([0, 0, 0.1])
        base = charger - 0.02 * np.array([math.cos(turn), math.sin(turn), 0])
        near = nearest(turn, plug.pose(18)[1], math.pi)  # fingers are alike
        stages = [
            plug.move(18, base + up, near, 1, 15),
            plug.move(18, base, near, 1, 20),
            plug.move(18, base, near, -1, 6),
            plug.move(25, charger + up, turn, -1, 20),
            plug.move(25, goal - 0.05 * axis, at, -1, 45),
            plug.move(25, goal - 0.015 * axis, at, -1, 30),
        ]
        assert stages == sorted(stages) and stages[0] < 0.2 < 0.39 < stages[2] < 0.75 < stages[-1] < 0.9, stages
        plug.move(25, goal + 0.005 * axis, at, -1, 60)
        assert plug.solved_at_last() and len(plug.rewards) == 196


@pytest.fixture
def made_up(maniskill: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], VectorEnv]:
    """Opens a task without pictures on files of our own making."""

    def open_task(task: str) -> VectorEnv:
        {"AssemblingKits-v1": assembling_kits, "PickClutterYCB-v1": pick_clutter}[task](tmp_path / "data")
        monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
        config = EnvConfig(name=f"maniskill/{task}", size=64, action_repeat=1, pixels=False, proprio=True)
        return make(config, num=1, seed=3, stream="t", start_timeout=500)

    return open_task


def test_a_scripted_piece_is_rewarded_stage_by_stage_and_sinks_in(made_up: Callable[[str], VectorEnv]) -> None:
    """A square piece and a kit with its slot, both ours: the gripper is at 18 of the state, piece at 25, goal at 35."""
    with made_up("AssemblingKits-v1") as envs:
        script = Script(envs, 0)
        (piece, turn), goal, up = script.pose(25), script.numbers(35, 3), np.array([0, 0, 0.1])
        middle = piece + np.array([0, 0, 0.005])  # of what the fingers hold; its foot is on the table
        near = nearest(turn, script.pose(18)[1], math.pi / 2)
        stages = [
            script.move(18, middle + up, near, 1, 20),
            script.move(18, middle, near, 1, 20),
            script.move(18, middle, near, -1, 6),
            script.move(25, piece + up, turn, -1, 20),
            script.move(25, goal + up, nearest(0.0, turn, math.pi / 2), -1, 50),
            script.move(25, goal + 0.25 * up, nearest(0.0, turn, math.pi / 2), -1, 25),
        ]
        assert stages == sorted(stages) and stages[0] < 0.2 < 0.39 < stages[2] < 0.7 < stages[-1] < 0.9, stages
        script.move(25, goal - 0.1 * up, nearest(0.0, turn, math.pi / 2), -1, 20)
        script.move(18, goal + 2 * up, near, 1, 20)  # let it go
        assert script.solved_at_last()


def test_a_scripted_pick_is_rewarded_stage_by_stage(made_up: Callable[[str], VectorEnv]) -> None:
    """A cube on the table, ours: of the state the cube is at 18, the goal at 25, the gripper at 28."""
    with made_up("PickClutterYCB-v1") as envs:
        script = Script(envs, 0)
        (cube, turn), goal, up = script.pose(18), script.numbers(25, 3), np.array([0, 0, 0.1])
        near = nearest(turn, script.pose(28)[1], math.pi / 2)
        stages = [
            script.move(28, cube + up, near, 1, 20),
            script.move(28, cube, near, 1, 20),
            script.move(28, cube, near, -1, 6),
            script.move(18, (cube + goal) / 2, turn, -1, 30),
        ]
        assert stages == sorted(stages) and stages[0] < 0.2 < 0.39 < stages[2] < stages[-1] < 0.7, stages
        script.move(18, goal, turn, -1, 60)
        assert script.solved_at_last()
