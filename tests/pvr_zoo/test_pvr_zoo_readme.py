"""docs/add_encoder.md, followed literally: its row in this process, its package installed into a folder of its own."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pvr_zoo
from pvr_zoo import registry

ROOT = Path(pvr_zoo.__file__).parent.parent
PAGE = (ROOT / "docs" / "add_encoder.md").read_text()
BLOCKS = re.findall(r"(?:^`([\w./]+)`\n\n)?^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {file: code for file, _, code in BLOCKS if file}
EXAMPLES = [code for file, language, code in BLOCKS if language == "python" and not file]
(COMMANDS,) = (code for _, language, code in BLOCKS if not language)


def test_the_readme_points_to_the_page() -> None:
    assert "docs/add_encoder.md" in (ROOT / "pvr_zoo" / "README.md").read_text()
    assert "\nadd_encoder\n" in (ROOT / "docs" / "index.md").read_text()


def test_the_row_works(tmp_path: Path, frames: torch.Tensor) -> None:
    exec(compile(EXAMPLES[0], "add_encoder.md", "exec"), {})
    try:
        assert "mylab_resnet50" in pvr_zoo.list_encoders("mylab*")
        assert pvr_zoo.spec("mylab_resnet50").groups.sequential
        with pytest.raises(pvr_zoo.WeightsUnavailable, match=r"mylab_resnet50\.pth"):
            pvr_zoo.create("mylab_resnet50")
        control = pvr_zoo.create("random_resnet50", input_size=32)
        names = {"stem.0": "conv1", "stem.1": "bn1", **{f"levels.{k}": f"layer{k + 1}" for k in range(4)}}
        state = {"module.head.bias": torch.zeros(3)}
        for key, value in control.network.state_dict().items():
            old = next(old for old in names if key.startswith(old))
            state[f"module.encoder.{names[old]}{key.removeprefix(old)}"] = value
        torch.save({"state_dict": state}, tmp_path / "mylab_resnet50.pth")
        encoder = pvr_zoo.create("mylab_resnet50", weights=tmp_path / "mylab_resnet50.pth", input_size=32)
        torch.testing.assert_close(encoder(frames), control(frames), atol=1e-5, rtol=1e-5)
    finally:
        registry.unregister("mylab_resnet50")


def test_the_package_works(tmp_path: Path) -> None:
    """The page's files, its commands in their order, and its last example, with what the page says they print."""
    assert sorted(Path(name).name for name in FILES) == ["__init__.py", "pyproject.toml", "tinynet.py"]
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((70, 90, 3), 200, np.uint8)).save(tmp_path / "photos" / "one.png")
    install, *commands = COMMANDS.splitlines()
    isolated = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", "site"]
    _run([sys.executable, "-m", *shlex.split(install), *isolated], tmp_path)
    said = [_run([sys.executable, "-m", "mbrl_pvr.cli.main", *shlex.split(line)[1:]], tmp_path) for line in commands]
    assert [line.split()[0] for line in said[0].splitlines()[1:2]] == ["mylab_tinynet"]
    assert "feature shape: 16" in said[1]
    assert "1 features of 32" in said[2] and np.load(tmp_path / "features.npz")["features"].shape == (1, 32)
    promised = re.findall(r"# (torch\.Size.*)", EXAMPLES[1])
    assert _run([sys.executable, "-c", EXAMPLES[1]], tmp_path).splitlines() == promised


def _run(command: list[str], folder: Path) -> str:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "site")])}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
