"""How far resident memory rises while an encoder is loaded, as a multiple of its file's size.

    python benchmarks/loading.py [FOLDER]     # writes files of about 1.3 GB there, one at a time, and deletes them

Each file is a full-size checkpoint in the published layout with drawn numbers, loaded by a process of its own.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import pvr_zoo
from pvr_zoo import verify

KEYS = Path(__file__).parents[1] / "tests" / "golden" / "zoo" / "keys"
CASES = (("mae_vitl16", "pth"), ("mae_vitl16", "safetensors"), ("clip_vitl14", "fp16.pth"), ("clip_vitl14", "pth"))
LOAD = """
import re, sys, pvr_zoo
def resident(key):
    return int(re.search(rf"{key}:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
pvr_zoo.create("random_vits16")  # imports, which are not what is measured
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = resident("VmRSS")
encoder = pvr_zoo.create(sys.argv[1], weights=sys.argv[2])
print(resident("VmHWM") - before, resident("VmRSS") - before)
"""


def shapes(name: str) -> dict[str, list[int]]:
    """Of the published file."""
    lines = (KEYS / f"{name}.txt").read_text().splitlines()[1:]
    return {key: json.loads(shape) for key, shape in (line.split(" ", 1) for line in lines)}


def write(name: str, kind: str, folder: Path) -> Path:
    """A checkpoint of that encoder."""
    dtype = torch.float16 if kind.startswith("fp16") else torch.float32
    state = {key: torch.full(shape, 0.01, dtype=dtype) for key, shape in shapes(name).items()}
    path = folder / f"{name}.{kind}"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(verify.published(state, pvr_zoo.spec(name).layout), path)
    return path


def main() -> None:
    """Print a line for each case: the file's size, the peak's and the final rise over it."""
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    for name, kind in CASES:
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            path = write(name, kind, Path(folder))
            size = path.stat().st_size
            command = [sys.executable, "-c", LOAD, name, str(path)]
            peak, final = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        print(f"{path.name:24} {size / 1e9:.2f} GB  peak × {peak / size:.2f}  after × {final / size:.2f}", flush=True)


if __name__ == "__main__":
    main()
