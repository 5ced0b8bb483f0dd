"""Environments: every one in a process of its own, seen through `make(config, ...) -> VectorEnv`. Imports no torch.

How to add one: README.md beside this file.
"""

from typing import TYPE_CHECKING

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.names import list_envs

if TYPE_CHECKING:
    from mbrl_pvr.envs.actions import ActionSpec
    from mbrl_pvr.envs.gym_vector import make_gym
    from mbrl_pvr.envs.probe import probe_backend, probe_maniskill, probe_miniworld
    from mbrl_pvr.envs.vector import EnvStep, VectorEnv, make

__all__ = [
    "ActionSpec",
    "EnvConfig",
    "EnvStep",
    "VectorEnv",
    "list_envs",
    "make",
    "make_gym",
    "probe_backend",
    "probe_maniskill",
    "probe_miniworld",
]

_LAZY = {
    "ActionSpec": "mbrl_pvr.envs.actions",
    "EnvStep": "mbrl_pvr.envs.vector",
    "VectorEnv": "mbrl_pvr.envs.vector",
    "make": "mbrl_pvr.envs.vector",
    "make_gym": "mbrl_pvr.envs.gym_vector",
    "probe_backend": "mbrl_pvr.envs.probe",
    "probe_maniskill": "mbrl_pvr.envs.probe",
    "probe_miniworld": "mbrl_pvr.envs.probe",
}


def __getattr__(name: str) -> object:  # keeps `--help` and lists free of numpy and subprocess machinery
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
