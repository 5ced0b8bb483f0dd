"""The commands that README and documentation show exist, take the options shown, and run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
GROUPS = ("bank", "encoders", "envs", "pretrain", "study")  # commands that have commands of their own
UNAVAILABLE = 8  # weights that are not on this machine


def commands(page: Path) -> list[str]:
    """The `mbrl-pvr …` lines of the page's code blocks, without comments."""
    blocks = re.findall(r"^```(?:\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("mbrl-pvr ")]


SHOWN = sorted({line for page in PAGES for line in commands(page)})


def _run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "mbrl-pvr"
    env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run([str(program), *words], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def _shrunk(line: str) -> list[str]:
    """The command with `--debug`; quick commands and `resume`, which takes the run's own, have no such option."""
    words = shlex.split(line)[1:]
    whole = words[0] in ("resume", "analyze", "report") or words[:2] == ["study", "status"]
    return words if whole else [*words, "--debug"]


def test_commands_are_found() -> None:
    assert len(commands(ROOT / "README.md")) >= 8


def test_quickstart_shows_what_make_demo_runs() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("$(DEMO)", "runs/demo")
    assert (
        re.findall(r"^\t\$\(BIN\)/(mbrl-pvr .*)$", makefile, re.MULTILINE) == commands(ROOT / "docs/quickstart.md")[:4]
    )


@pytest.mark.parametrize(
    "name", sorted({" ".join(line.split()[1 : 3 if line.split()[1] in GROUPS else 2]) for line in SHOWN})
)
def test_command_takes_the_options_shown(name: str, tmp_path: Path) -> None:
    done = _run([*name.split(), "--help"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = {word for line in SHOWN if line.startswith(f"mbrl-pvr {name}") for word in line.split() if word[:2] == "--"}
    assert [option for option in sorted(shown) if option not in done.stdout] == []


@pytest.mark.parametrize("line", [line for line in SHOWN if line.startswith("mbrl-pvr train ")])
def test_overrides_shown_are_accepted(line: str) -> None:
    words = shlex.split(line)[2:]
    preset = words[words.index("--config") + 1] if "--config" in words else None
    bank = ("data=", "agent.policy=", "steps=")  # whose folder is not here, and what is said beside it alone
    load_config([word for word in words if re.match(r"[\w.]+=", word) and not word.startswith(bank)], preset)


def test_example_of_world_models_runs() -> None:
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "world_models" / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["action"].shape == (1, 2)
    assert names["report"]["posterior"].shape == (4, 4, 32)


def test_third_job_runs(tmp_path: Path) -> None:
    """Train under shifts, evaluate out of distribution, record, draw: README's jobs two and three with `--debug`."""
    lines = [line for line in commands(ROOT / "README.md") if "runs/shifted" in line]
    assert [line.split()[1] for line in lines] == ["train", "ood", "record", "analyze", "report"]
    for line in lines:
        done = _run(_shrunk(line), tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    figures = {path.suffix for path in (tmp_path / "figures" / "shifted").iterdir()}
    assert {".pdf", ".png", ".html"} <= figures


@pytest.mark.slow
def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    for line in commands(ROOT / "README.md"):
        done = _run(_shrunk(line), tmp_path)
        assert done.returncode in (0, UNAVAILABLE), f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
