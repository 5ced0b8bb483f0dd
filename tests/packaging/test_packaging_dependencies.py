"""What the code imports is what `pyproject.toml` asks for: nothing that only a developer's machine happens to have."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("mbrl_pvr", "world_models", "pvr_zoo", "analysis")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirement(line: str) -> str:
    return _canonical(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0])


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_are_declared(root: Path, package: str) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    optional = [
        line
        for extra, lines in project["optional-dependencies"].items()
        if extra not in ("dev", "docs")
        for line in lines
    ]
    declared = {_requirement(line) for line in project["dependencies"] + optional}
    providers = importlib.metadata.packages_distributions()
    undeclared = []
    for path in sorted((root / package).rglob("*.py")):
        for name in sorted(set(_imports(path)) - set(sys.stdlib_module_names) - set(PACKAGES)):
            names = {_canonical(provider) for provider in providers.get(name, [name])}
            if not names & declared:
                undeclared.append(f"{path.relative_to(root)}: {name} ({', '.join(sorted(names))})")
    assert undeclared == []


def test_constraints_cover_what_is_declared(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["dev"] + project["optional-dependencies"]["docs"]
    pinned = {
        _canonical(line.split("==")[0]) for line in (root / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert {_requirement(line) for line in lines} <= pinned
