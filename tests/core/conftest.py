"""The toy run as a fixture: tests have no packages, so it is loaded from its file."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def toy():
    spec = importlib.util.spec_from_file_location("toy_run", Path(__file__).with_name("toy_run.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def whole(toy, tmp_path_factory):
    """The folder of a toy run that nothing disturbed. Copy it before changing it."""
    path = tmp_path_factory.mktemp("whole") / "run"
    toy.train(path)
    return path
