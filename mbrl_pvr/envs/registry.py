"""From a configuration to an environment in this process. Simulators are imported here, by name, and only then."""

from dataclasses import replace

from mbrl_pvr.envs.base import FrameEnv
from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.names import resolve
from mbrl_pvr.errors import ConfigError

SPLITS = ("train", "held_out")


def build_env(config: EnvConfig, split: str = "train") -> FrameEnv:
    """One environment, in this process; `split` says which part of a shift's values its episodes draw from."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    config = replace(config, name=resolve(config.name))
    if config.name.startswith("counting/"):
        from mbrl_pvr.envs.counting import CountingEnv

        if config.shifts != "none" or config.time_limit is not None:
            asked = f"env.shifts={config.shifts}, env.time_limit={config.time_limit}"
            raise ConfigError(f"{config.name} has neither looks nor simulated time, got {asked}")
        return CountingEnv(config, split)
    from mbrl_pvr.envs.dmc import DMCEnv

    return DMCEnv(config, split)
