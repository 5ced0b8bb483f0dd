"""Packages that only some commands need."""

from importlib import import_module
from types import ModuleType

from mbrl_pvr.errors import Unavailable


def import_extra(module: str, where: str) -> ModuleType:
    """The package, which the extra of its name installs; Unavailable, with the line that does so, where it is not."""
    try:
        return import_module(module)
    except ImportError as error:
        raise Unavailable(f"{module} is not installed", where, f'pip install "mbrl-pvr[{module}]"') from error
