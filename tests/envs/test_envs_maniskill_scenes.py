"""Which stored scene an episode of AssemblingKits or PickClutterYCB has: on made-up files in the layout read there."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.random import SeedSequence

from mbrl_pvr.envs import EnvConfig, VectorEnv, make
from mbrl_pvr.envs.maniskill_scene import Scene, scene_of
from mbrl_pvr.envs.shifts import Look, draw_look, split_indices

pytestmark = pytest.mark.xdist_group("maniskill")
SCENES = 12  # number k has its goal, or its object, k centimetres further along y
_CORNERS = [(x, y, z) for x in (-0.01, 0.01) for y in (-0.01, 0.01) for z in (-0.01, 0.01)]
_FACES = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)]
_FACES += [(2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)]


def _cube(path: Path) -> None:
    """A cube of 2 cm, as .obj or .ply."""
    path.parent.mkdir(parents=True, exist_ok=True)
    points = [" ".join(map(str, corner)) for corner in _CORNERS]
    if path.suffix == ".obj":
        faces = [" ".join(str(i + 1) for i in face) for face in _FACES]
        path.write_text("\n".join([*(f"v {p}" for p in points), *(f"f {f}" for f in faces)]) + "\n")
        return
    head = ["ply", "format ascii 1.0", f"element vertex {len(points)}", *(f"property float {a}" for a in "xyz")]
    head += [f"element face {len(_FACES)}", "property list uchar int vertex_indices", "end_header"]
    path.write_text("\n".join([*head, *points, *(f"3 {a} {b} {c}" for a, b, c in _FACES)]) + "\n")


def _assembling_kits(data: Path) -> None:
    root = data / "tasks" / "assembling_kits"
    for piece in (0, 1):
        for kind in ("collision", "visual"):
            _cube(root / "models" / kind / f"{piece:02d}.obj")
    for k in range(SCENES):
        _cube(root / "kits" / f"{k}.obj")
        objects = [{"object_id": i, "pos": [0.1 * i, 0.01 * k, 0.0], "rot": 0.0} for i in (0, 1)]
        (root / "kits" / f"{k}.json").write_text(json.dumps({"objects": objects}))
    config = {"symmetry": [0.0, 0.0], "color": [[1, 0, 0, 1], [0, 1, 0, 1]], "object_scale": [1.0, 1.0, 1.0]}
    episodes = [{"kit": str(k), "obj_to_place": 0, "obj_in_place": [1]} for k in range(SCENES)]
    (root / "episodes.json").write_text(json.dumps({"config": config, "episodes": episodes}))


def _pick_clutter(data: Path) -> None:
    models, lists = data / "assets" / "mani_skill2_ycb", data / "tasks" / "pick_clutter"
    for name in ("collision.ply", "textured.obj"):
        _cube(models / "models" / "box" / name)
    bounds = {"min": [-0.01] * 3, "max": [0.01] * 3}
    (models / "info_pick_v0.json").write_text(json.dumps({"box": {"bbox": bounds, "scales": [1.0], "density": 1000}}))
    actors = [
        {"model_id": "box", "pose": [0.0, 0.01 * k, 0.01, 1.0, 0.0, 0.0, 0.0], "rep_pts": []} for k in range(SCENES)
    ]
    lists.mkdir(parents=True)
    with gzip.open(lists / "ycb_train_5k.json.gz", "wt") as file:
        json.dump([{"actors": [actor]} for actor in actors], file)


_MADE_UP: dict[str, tuple[Callable[[Path], None], Callable[[np.ndarray], float]]] = {
    # files, and the y of goal or object among the last numbers of the state
    "AssemblingKits-v1": (_assembling_kits, lambda state: float(state[-6])),
    "PickClutterYCB-v1": (_pick_clutter, lambda state: float(state[-16])),
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
