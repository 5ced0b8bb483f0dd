"""The other side of the zoo's tests: tests/golden/zoo, a module of independent code for each family, and key lists.

Used by tools/make_golden.py and by the tests (pytest puts this folder on the path).
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

FOLDER = Path(__file__).parents[1] / "tests" / "golden" / "zoo"
KEYS = FOLDER / "keys"


def reference(builder: str) -> ModuleType:
    """The module with SOURCE, `shapes(spec)` and `feature(spec, state, images)` for the family of that builder."""
    ensure_torchvision()  # before transformers looks for it
    path = FOLDER / f"{builder.rpartition('.')[2]}.py"
    found = importlib.util.spec_from_file_location(f"reference_{path.stem}", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def published_keys(row: EncoderSpec) -> tuple[str, list[dict[str, list[int]]]]:
    """Where the lists of names and shapes in the full-size published files are from, and each file's list.

    Both are empty where a list is not at hand.
    """
    listings = [KEYS / f"{part.name}.txt" for part in row.parts or (row,)]
    if not all(listing.is_file() for listing in listings):
        return "", []
    texts = [listing.read_text().splitlines() for listing in listings]
    origin = "; ".join(dict.fromkeys(first.lstrip("# ") for first, *_ in texts))
    pairs = [[line.split(" ", 1) for line in lines] for _, *lines in texts]
    return origin, [{key: json.loads(shape) for key, shape in file} for file in pairs]
