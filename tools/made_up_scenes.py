"""Files of AssemblingKits and PickClutterYCB in the layout that ManiSkill reads, of our own making: boxes on a table.

The published ones are a download that no test may ask for.
"""

import gzip
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

SCENES = 12  # number k has its goal, or its object, k centimetres further along y
_FACES = np.array([(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)])
_FACES = np.concatenate([_FACES, [(2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)]])
_PIECE, _SLOT, _DEEP = 0.03, 0.038, 0.02  # metres: sides of a piece and of its slot, the kit's height
_BAR = 0.015  # of the kit's walls
SLOT_X, BESIDE_X = 0.05, -0.3  # where the slot of piece 0 is, and piece 1

Box = tuple[Sequence[float], Sequence[float]]  # its low and its high corner, in metres


def _write(path: Path, *boxes: Box) -> None:
    """Boxes as .obj or .ply."""
    path.parent.mkdir(parents=True, exist_ok=True)
    corners = [corner for box in boxes for corner in product(*zip(*box, strict=True))]
    points = [" ".join(map(str, corner)) for corner in corners]
    faces = [(face + 8 * k).tolist() for k in range(len(boxes)) for face in _FACES]
    if path.suffix == ".obj":
        lines = [*(f"v {p}" for p in points), *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces)]
    else:
        lines = ["ply", "format ascii 1.0", f"element vertex {len(points)}", *(f"property float {a}" for a in "xyz")]
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", *points]
        lines += [f"3 {a} {b} {c}" for a, b, c in faces]
    path.write_text("\n".join(lines) + "\n")


def assembling_kits(data: Path) -> None:
    """Kits of four bars about one square slot; the simulator places a kit a centimetre up, pieces by their foot."""
    root, half = data / "tasks" / "assembling_kits", _PIECE / 2
    for piece in (0, 1):
        for kind in ("collision", "visual"):
            _write(root / "models" / kind / f"{piece:02d}.obj", ((-half, -half, 0.0), (half, half, _PIECE)))
    inner, outer, low, high = _SLOT / 2, _SLOT / 2 + _BAR, -0.01, _DEEP - 0.01
    for k in range(SCENES):
        x, y = SLOT_X, 0.01 * k
        bars = [
            ((x - outer, y - outer, low), (x - inner, y + outer, high)),
            ((x + inner, y - outer, low), (x + outer, y + outer, high)),
            ((x - inner, y - outer, low), (x + inner, y - inner, high)),
            ((x - inner, y + inner, low), (x + inner, y + outer, high)),
        ]
        _write(root / "kits" / f"{k}.obj", *bars)
        objects = [{"object_id": i, "pos": [(SLOT_X, BESIDE_X)[i], y, 0.0], "rot": 0.0} for i in (0, 1)]
        (root / "kits" / f"{k}.json").write_text(json.dumps({"objects": objects}))
    turn = np.pi / 2  # of a square, until it looks as before
    config = {"symmetry": [turn, turn], "color": [[1, 0, 0, 1], [0, 1, 0, 1]], "object_scale": [1.0, 1.0, 1.0]}
    episodes = [{"kit": str(k), "obj_to_place": 0, "obj_in_place": [1]} for k in range(SCENES)]
    (root / "episodes.json").write_text(json.dumps({"config": config, "episodes": episodes}))


def pick_clutter(data: Path) -> None:
    """One cube of 3 cm on the table."""
    models, lists, half = data / "assets" / "mani_skill2_ycb", data / "tasks" / "pick_clutter", _PIECE / 2
    for name in ("collision.ply", "textured.obj"):
        _write(models / "models" / "box" / name, ((-half,) * 3, (half,) * 3))
    bounds = {"min": [-half] * 3, "max": [half] * 3}
    (models / "info_pick_v0.json").write_text(json.dumps({"box": {"bbox": bounds, "scales": [1.0], "density": 1000}}))
    places = [[0.0, 0.01 * k, half, 1.0, 0.0, 0.0, 0.0] for k in range(SCENES)]
    lists.mkdir(parents=True)
    with gzip.open(lists / "ycb_train_5k.json.gz", "wt") as file:
        json.dump([{"actors": [{"model_id": "box", "pose": place, "rep_pts": []}]} for place in places], file)
