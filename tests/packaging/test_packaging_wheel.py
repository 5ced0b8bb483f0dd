"""A wheel and an editable install hold every module, configuration and data file, and work outside the checkout."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("mbrl_pvr", "world_models", "pvr_zoo", "analysis")
BUILD_FILES = ("pyproject.toml", "README.md", "LICENSE")

PROBE = """
import json, sys
from importlib.resources import files
import mbrl_pvr
from mbrl_pvr.config import load_config, to_dict
import mbrl_pvr.cli.main, mbrl_pvr.envs, pvr_zoo, world_models, analysis
def names(folder, prefix=""):
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from names(entry, prefix + entry.name + "/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name
print(json.dumps({
    "folders": sorted({module.__path__[0] for module in (mbrl_pvr, pvr_zoo, world_models, analysis)}),
    "version": mbrl_pvr.__version__,
    "configs": sorted(names(files("mbrl_pvr._configs"))),
    "run": to_dict(load_config([])),
    "envs": len(mbrl_pvr.envs.list_envs()),
    "encoders": len(pvr_zoo.list_encoders()),
    "torch": "torch" in sys.modules,
}))
"""
# without `site`, so that no other install of this project is found: its .pth files are not read, those of argv[1] are
ISOLATED = """
import site, sys
site.addsitedir(sys.argv[1])
sys.path.extend(sys.argv[2:])
"""
ENCODE = """
import pvr_zoo, torch
print(pvr_zoo.create("embedded")(torch.full((1, 64, 64, 3), 9, dtype=torch.uint8)).shape, pvr_zoo.__file__)
"""


def _project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


def _files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def _configs(root: Path) -> list[str]:
    return sorted(name for name in _files(root / "configs") if name.endswith(".yaml"))


def _output(command: list[str], cwd: Path, **env: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def _run(code: str, cwd: Path, site: Path) -> str:
    """What `code` prints with the packages below `site`, and with this Python's for all that is not ours."""
    others = [folder for folder in sys.path if folder.endswith("-packages")]
    return _output([sys.executable, "-I", "-S", "-c", ISOLATED + code, str(site), *others], cwd)


def _install(site: Path, *what: str) -> Path:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    _output([*pip, "--target", str(site), *what], site.parent)
    return site


@pytest.fixture(scope="module")
def source(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that no build folder of the checkout gets into what is built."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILD_FILES:
        shutil.copy(root / name, source)
    for name in (*PACKAGES, "configs"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    return source


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """The wheel."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist")]
    _output(command, source)
    (path,) = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is installed."""
    return _install(tmp_path_factory.mktemp("wheel") / "site", str(wheel))


def test_packages_are_the_folders_with_python_files(root: Path) -> None:
    found = {
        str(path.parent.relative_to(root)).replace("/", ".")
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    }
    assert sorted(found | {"mbrl_pvr._configs"}) == sorted(_project(root)["tool"]["setuptools"]["packages"])


def test_wheel_holds_every_file_of_the_packages(root: Path, wheel: Path) -> None:
    expected = {f"{package}/{name}" for package in PACKAGES for name in _files(root / package)}
    expected |= {f"mbrl_pvr/_configs/{name}" for name in _files(root / "configs")}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert sorted(held) == sorted(expected)


def test_wheel_works_outside_the_checkout(root: Path, site: Path, tmp_path: Path) -> None:
    seen = json.loads(_run(PROBE, tmp_path, site))
    assert seen["folders"] == sorted(str(site / package) for package in PACKAGES)
    assert seen["configs"] == _configs(root)
    assert seen["version"] == _project(root)["project"]["version"]
    assert seen["envs"] > 0
    assert seen["encoders"] > 0
    assert not seen["torch"], "configuration and tables answer without importing torch"


def test_wheel_encodes_a_frame(site: Path, tmp_path: Path) -> None:
    """The embedded weights are read from the wheel."""
    assert _run(ENCODE, tmp_path, site).strip() == f"torch.Size([1, 256]) {site}/pvr_zoo/__init__.py"


def test_wheel_brings_the_command(root: Path, site: Path, tmp_path: Path) -> None:
    assert _project(root)["project"]["scripts"] == {"mbrl-pvr": "mbrl_pvr.cli.main:main"}
    shown = _output([str(site / "bin" / "mbrl-pvr"), "--help"], tmp_path, PYTHONPATH=str(site))
    assert "train" in shown and "doctor" in shown


def test_editable_install_works_outside_the_checkout(root: Path, source: Path, tmp_path: Path) -> None:
    """Of the copy: whatever is installed beside this Python has no part in it."""
    site = _install(tmp_path / "site", "--editable", str(source))
    seen = json.loads(_run(PROBE, tmp_path, site))
    assert seen["folders"] == sorted(str(source / package) for package in PACKAGES)
    assert seen["configs"] == _configs(root)
    assert seen["run"]["agent"]


def test_one_version_everywhere(root: Path) -> None:
    version = _project(root)["project"]["version"]
    assert f'__version__ = "{version}"' in (root / "mbrl_pvr" / "__init__.py").read_text()
    assert f"\nversion: {version}\n" in (root / "CITATION.cff").read_text()
    assert (
        f"## [{version}]" in (root / "CHANGELOG.md").read_text()
        or "## [Unreleased]" in (root / "CHANGELOG.md").read_text()
    )


def test_constraints_pin_the_pairs_that_must_go_together(root: Path) -> None:
    pins = dict(line.split("==") for line in (root / "constraints.txt").read_text().splitlines() if "==" in line)
    assert (pins["torch"], pins["torchvision"]) == ("2.13.0", "0.28.0"), "torchvision 0.29 asks for torch 2.14"
    assert pins["mujoco"].startswith("3."), "mujoco 4.0.0 breaks dm_control"
    assert all("+" not in pin for pin in pins.values()), "no local versions: the registry has none"
