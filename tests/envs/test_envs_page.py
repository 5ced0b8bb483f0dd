"""docs/extending/environment.md, followed literally: its package installed in a folder of its own, its commands run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "extending" / "environment.md").read_text()
BLOCKS = re.findall(r"(?:^`([\w./]+)`\n\n)?^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {file: code for file, _, code in BLOCKS if file}
(COMMANDS,) = (code for file, language, code in BLOCKS if not language and not file)


def test_the_page_can_be_found() -> None:
    assert "\nextending/environment\n" in (ROOT / "docs" / "index.md").read_text()
    assert "docs/extending/environment.md" in (ROOT / "README.md").read_text()
    assert "docs/extending/environment.md" in (ROOT / "mbrl_pvr" / "envs" / "README.md").read_text()


@pytest.mark.timeout(900)
def test_the_package_works(tmp_path: Path) -> None:
    """Both kinds train and are filmed, the one by its entry point and the other by its module."""
    assert sorted(Path(name).name for name in FILES) == ["__init__.py", "corridor.py", "pyproject.toml"]
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    install, *commands = COMMANDS.splitlines()
    isolated = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", "site"]
    _run([sys.executable, "-m", *shlex.split(install), *isolated], tmp_path)
    said = [_run([sys.executable, "-m", "mbrl_pvr.cli.main", *shlex.split(line)[1:]], tmp_path) for line in commands]
    assert said[0].split() == ["mylab/Corridor"]
    for name, task, choices in ("corridor", "mylab/Corridor", False), ("dot", "gym:mylab_envs:Dot-v0", True):
        run = tmp_path / "runs" / name
        assert json.loads((run / "status.json").read_text())["state"] == "finished"
        assert json.loads((run / "manifest.json").read_text())["env"]["discrete"] == choices
        rows = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
        assert len(rows) > 5 and {row["task"] for row in rows} == {task}
        assert list((run / "videos").glob("*.mp4"))


def _run(command: list[str], folder: Path) -> str:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "site")])}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
