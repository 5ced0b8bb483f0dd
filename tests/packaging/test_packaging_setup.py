"""`tools/setup.sh` with a stand-in for pip: what it asks for, when it does nothing, what a failure leaves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = [
    "bash",
    "awk",
    "cat",
    "cp",
    "cut",
    "date",
    "dirname",
    "env",
    "flock",
    "grep",
    "head",
    "id",
    "mkdir",
    "mktemp",
    "rm",
    "sed",
    "sha256sum",
    "sudo",
    "tail",
    "tee",
]

# answers as the .venv's Python would: pip is recorded, not run; `held` is the version of torch that it holds
PYTHON = """#!/bin/bash
here=$(dirname "$0")/../..
case "$*" in
  *"-m pip install"*) echo "$*" >>"$here/calls"; echo "Collecting something"; exit $(cat "$here/pip_status") ;;
  *'m.version("torch").split'*) cat "$here/held" ;;
  *) exec {python} "$@" ;;
esac
"""

# a Debian where root has no python3-venv yet; apt-get is recorded, and python3-venv then makes `-m venv` work
DEBIAN = {
    "id": "echo 0",
    "dpkg-query": "echo installed",
    "gcc": "exit 0",
    "g++": "exit 0",
    "apt-get": """echo "$*" >>apt; case "$*" in *python3-venv*) : >has_ensurepip ;; esac""",
    "python3.11": """
case "$*" in
  *"import ensurepip"*) [ -f has_ensurepip ] ;;
  "-m venv .venv") [ -f has_ensurepip ] && mkdir -p .venv/bin && cp venv_python .venv/bin/python ;;
  *) exec {python} "$@" ;;
esac""",
}


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A checkout with a set-up script and a .venv that is not current, on a machine without Debian's tools."""
    for name in ("pyproject.toml", "constraints.txt", "tools/setup.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / "programs").mkdir()
    for tool in TOOLS:
        if path := shutil.which(tool):
            (tmp_path / "programs" / tool).symlink_to(path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(PYTHON.replace("{python}", sys.executable))
    python.chmod(0o755)
    (tmp_path / "held").write_text("")
    (tmp_path / "pip_status").write_text("0")
    return tmp_path


def _setup(checkout: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(checkout / "programs"), "HOME": str(checkout), "LANG": os.environ.get("LANG", "C.UTF-8")}
    command = ["bash", "tools/setup.sh"]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)


def _calls(checkout: Path) -> list[str]:
    return (checkout / "calls").read_text().splitlines() if (checkout / "calls").exists() else []


def test_second_call_is_silent_and_does_nothing(checkout: Path) -> None:
    first = _setup(checkout)
    assert first.returncode == 0, first.stderr
    assert "-e .[dev]" in _calls(checkout)[-1]
    number = len(_calls(checkout))
    second = _setup(checkout)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert len(_calls(checkout)) == number


def test_changed_pins_set_up_again_and_changed_checks_do_not(checkout: Path) -> None:
    _setup(checkout)
    number = len(_calls(checkout))
    with (checkout / "pyproject.toml").open("a") as file:
        file.write('\n[tool.somechecker]\nlevel = "strict"\n')
    assert _setup(checkout).stdout == ""
    with (checkout / "constraints.txt").open("a") as file:
        file.write("another==1.0\n")
    assert _setup(checkout).stdout != ""
    assert len(_calls(checkout)) > number


def test_torch_that_is_there_is_kept(checkout: Path) -> None:
    (checkout / "held").write_text("2.14.0\n")
    done = _setup(checkout)
    assert "keeping the torch 2.14.0" in done.stdout
    pins = (checkout / ".venv" / "constraints.txt").read_text().splitlines()
    assert "torch==2.14.0" in pins
    assert [pin for pin in pins if pin.startswith(("torch==", "torchvision=="))] == ["torch==2.14.0"]
    assert all("-c .venv/constraints.txt" in call for call in _calls(checkout))


def test_failure_of_pip_is_told_and_tried_again(checkout: Path) -> None:
    (checkout / "pip_status").write_text("1")
    failed = _setup(checkout)
    assert failed.returncode == 1
    assert "setup.log" in failed.stderr
    (checkout / "pip_status").write_text("0")
    again = _setup(checkout)
    assert (again.returncode, "done in" in again.stdout) == (0, True)


def test_no_python_says_what_to_install(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    done = _setup(checkout)
    assert done.returncode == 1
    assert "apt-get install" in done.stderr


def test_root_gets_what_a_virtual_environment_needs(checkout: Path) -> None:
    shutil.move(checkout / ".venv" / "bin" / "python", checkout / "venv_python")
    shutil.rmtree(checkout / ".venv")
    for name, lines in DEBIAN.items():
        program = checkout / "programs" / name
        program.unlink(missing_ok=True)  # not through the link to the real one
        program.write_text(f"#!/bin/bash\n{lines.replace('{python}', sys.executable)}\n")
        program.chmod(0o755)
    done = _setup(checkout)
    assert done.returncode == 0, done.stderr
    assert "Debian packages: " in done.stdout and "python3-venv" in (checkout / "apt").read_text()
    (checkout / "apt").unlink()
    (checkout / ".venv" / ".setup-current").unlink()
    assert _setup(checkout).returncode == 0
    assert not (checkout / "apt").exists()


def _setup_maniskill(checkout: Path, root: Path) -> subprocess.CompletedProcess[str]:
    shutil.copy(root / "tools" / "setup_maniskill.sh", checkout / "tools")
    env = {"PATH": str(checkout / "programs"), "HOME": str(checkout)}
    command = ["bash", "tools/setup_maniskill.sh"]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)


def test_maniskills_driver_is_fetched_once(checkout: Path, root: Path) -> None:
    mesa = checkout / ".venv" / "mesa"
    mesa.mkdir()
    (mesa / "lvp_icd.json").touch()
    digest = subprocess.run(
        ["sha256sum", root / "tools" / "setup_maniskill.sh"], capture_output=True, text=True, check=True
    )
    (mesa / ".current").write_text(digest.stdout.split()[0])
    done = _setup_maniskill(checkout, root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (mesa / "lvp_icd.json").unlink()
    assert _setup_maniskill(checkout, root).returncode == 1  # fetched again; this machine has nothing to fetch it with


def test_without_debians_tools_maniskills_driver_is_left_to_the_user(checkout: Path, root: Path) -> None:
    done = _setup_maniskill(checkout, root)
    assert done.returncode == 1
    assert "no apt-get here. Install Mesa 25" in done.stderr and not (checkout / ".venv" / "mesa").exists()
