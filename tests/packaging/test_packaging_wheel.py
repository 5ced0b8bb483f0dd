"""A wheel and an editable install hold every module, configuration and data file, and work outside the checkout."""

import importlib.metadata
import json
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
# the editable install's finder would fill the gaps of an incomplete wheel
WHEEL_ONLY = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
sys.path.insert(0, sys.argv[1])
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


def _run(code: str, cwd: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, so that no build folder of the checkout gets into it."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILD_FILES:
        shutil.copy(root / name, source)
    for name in (*PACKAGES, "configs"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist")]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = (source / "dist").glob("*.whl")
    return path


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


def test_wheel_works_outside_the_checkout(root: Path, wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    seen = json.loads(_run(WHEEL_ONLY + PROBE, tmp_path, str(site)))
    assert seen["folders"] == sorted(str(site / package) for package in PACKAGES)
    assert seen["configs"] == _configs(root)
    assert seen["version"] == _project(root)["project"]["version"]
    assert seen["envs"] > 0
    assert seen["encoders"] > 0
    assert not seen["torch"], "configuration and tables answer without importing torch"


def test_editable_install_works_outside_the_checkout(root: Path, tmp_path: Path) -> None:
    try:
        importlib.metadata.distribution("mbrl-pvr")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed here: `make setup` installs the checkout as editable")
    seen = json.loads(_run(PROBE, tmp_path))
    if seen["folders"] != sorted(str(root / package) for package in PACKAGES):
        pytest.skip(f"this Python runs another install of mbrl_pvr: {seen['folders']}")
    assert seen["configs"] == _configs(root)
    assert seen["run"]["agent"]


def test_command_is_installed(root: Path) -> None:
    assert _project(root)["project"]["scripts"] == {"mbrl-pvr": "mbrl_pvr.cli.main:main"}
    with_help = "import sys; from mbrl_pvr.cli.main import main; sys.argv = ['mbrl-pvr', '--help']; sys.exit(main())"
    assert "train" in _run(with_help, root)


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
