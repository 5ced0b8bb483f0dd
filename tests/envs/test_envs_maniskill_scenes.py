"""Which stored scene an episode of AssemblingKits or PickClutterYCB has: on made-up files in the layout read there."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from made_up_scenes import SCENES, assembling_kits, pick_clutter
from numpy.random import SeedSequence

from mbrl_pvr.envs import EnvConfig, VectorEnv, make
from mbrl_pvr.envs.maniskill_scene import Scene, scene_of
from mbrl_pvr.envs.shifts import Look, draw_look, split_indices

pytestmark = pytest.mark.xdist_group("maniskill")
_MADE_UP: dict[str, tuple[Callable[[Path], None], Callable[[np.ndarray], float]]] = {
    # files, and the y of goal or object among the last numbers of the state
    "AssemblingKits-v1": (assembling_kits, lambda state: float(state[-6])),
    "PickClutterYCB-v1": (pick_clutter, lambda state: float(state[-16])),
}


@pytest.fixture
def scenes(maniskill: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """Opens a task on made-up files; `number` reads from the state which scene is there."""
    opened: list[VectorEnv] = []

    def open_task(task: str, split: str, shifts: str = "study") -> tuple[VectorEnv, Callable[[], int]]:
        write, height = _MADE_UP[task]
        if not opened:
            monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
            write(tmp_path / "data")
        config = EnvConfig(f"maniskill/{task}", 1, proprio=True, pixels=False, shifts=shifts)
        opened.append(make(config, num=1, seed=5, stream="t", split=split, start_timeout=500))
        return opened[-1], lambda: round(100 * height(opened[-1].call("proprio")[0]))

    yield open_task
    for envs in opened:
        envs.close()


@pytest.mark.parametrize("task", _MADE_UP)
def test_held_out_scenes_are_every_fifth(scenes: Callable, task: str) -> None:
    envs, number = scenes(task, "held_out")
    seen = []
    for episode in range(6):
        envs.reset(episode=episode)
        seen.append(number())
    assert set(seen) == {4, 9}
    state, moment = envs.get_state(), envs.call("get_sim_state")[0]
    other = next(episode for episode in range(6) if seen[episode] != seen[-1])
    envs.reset(episode=other)
    assert number() == seen[other]
    envs.call("set_sim_state", moment)
    assert number() == seen[-1]
    envs.reset(episode=other)
    assert envs.set_state(state) == [True] and number() == seen[-1]


def test_scenes_of_training_are_the_others(scenes: Callable) -> None:
    envs, number = scenes("AssemblingKits-v1", "train")
    seen = set()
    for episode in range(8):
        envs.reset(episode=episode)
        seen.add(number())
    assert seen <= set(split_indices("train", SCENES)) and len(seen) > 2
    envs, number = scenes("AssemblingKits-v1", "train", "none")  # the simulator's own draw, of all
    seen = set()
    for episode in range(12):
        envs.reset(episode=episode)
        seen.add(number())
    assert seen & set(split_indices("held_out", SCENES)) and len(seen) > 4


def test_numbers_are_drawn_of_as_many_as_there_are() -> None:
    drawn = {
        split: {
            scene_of(7, draw_look(SeedSequence(i), "configurations", split, stored={"configurations": 5000})).number
            for i in range(500)
        }
        for split in ("train", "held_out")
    }
    assert all((number % 5 == 4) == (split == "held_out") for split, numbers in drawn.items() for number in numbers)
    assert all(len(numbers) > 350 and max(numbers) > 4900 for numbers in drawn.values())
    assert scene_of(7, Look()) == Scene(7, 1.0, 1.0, -1)
    assert scene_of(7, draw_look(SeedSequence(1), "configurations", severity=0.0)).number == -1
