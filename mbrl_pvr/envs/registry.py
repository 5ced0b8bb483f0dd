"""From a configuration to an environment in this process. Simulators are imported here, by name, and only then."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mbrl_pvr.envs.base import FrameEnv
from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.names import family, plugins, resolve
from mbrl_pvr.envs.offers import check_offers
from mbrl_pvr.envs.shifts import check_split
from mbrl_pvr.errors import EnvError


def build_env(config: EnvConfig, split: str = "train") -> FrameEnv:
    """One environment, in this process; `split` says which part of a shift's values its episodes draw from."""
    check_split(split)
    config = replace(config, name=resolve(config.name))
    check_offers(config)
    env = _constructor(config.name)(config, split)
    env.split = split
    return env


def _constructor(name: str) -> Callable[[EnvConfig, str], FrameEnv]:
    match family(name):
        case "dmc":
            from mbrl_pvr.envs.dmc import DMCEnv

            return DMCEnv
        case "maniskill":
            from mbrl_pvr.envs.maniskill import ManiSkillEnv

            return ManiSkillEnv
        case "miniworld":
            from mbrl_pvr.envs.miniworld import MiniworldEnv

            return MiniworldEnv
        case "gym":
            from mbrl_pvr.envs.gym import GymEnv

            return GymEnv
        case "counting":
            from mbrl_pvr.envs.counting import CountingEnv

            return CountingEnv
    point = plugins()[name]
    made: Any = point.load()
    if not (isinstance(made, type) and issubclass(made, FrameEnv)):
        raise EnvError(f"{point.value} is no subclass of mbrl_pvr.envs.base.FrameEnv", name)
    return made
