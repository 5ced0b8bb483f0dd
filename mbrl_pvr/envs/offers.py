"""What the families of environments do not offer, so that it is refused by name before anything is started."""

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.names import MANISKILL_SPARSE, family
from mbrl_pvr.errors import ConfigError

_STEPS = "it counts steps and no seconds; env.max_steps=N ends episodes earlier"
_OWN_LOOK = "shifts are there for dm_control alone"
_OWN_REWARD = "its reward is the task's own"
LACKS: dict[str, dict[str, str]] = {  # family -> key of EnvConfig that must stay as it is by default -> why
    "dmc": {"reward": _OWN_REWARD},
    "maniskill": {
        "shifts": _OWN_LOOK,
        "camera": "it is seen by the camera at the wrist",
        "time_limit": _STEPS,
        "render": "it draws one way only",
        "backend": "it draws through Vulkan",
    },
    "miniworld": {
        "reward": _OWN_REWARD,
        "shifts": _OWN_LOOK,
        "proprio": "it gives pictures alone, no state vector",
        "camera": "it shows what the agent sees",
        "time_limit": _STEPS,
        "render": "it has no shadows and draws one way only",
        "backend": "it draws through EGL alone",
    },
    "gym": {
        "reward": _OWN_REWARD,
        "shifts": _OWN_LOOK,
        "camera": "it has a picture of its own",
        "time_limit": _STEPS,
    },
    "counting": {"reward": _OWN_REWARD, "shifts": "it has no looks", "time_limit": "it has no simulated time"},
}
_PLUGIN = {"reward": _OWN_REWARD, "shifts": _OWN_LOOK}


def check_offers(config: EnvConfig) -> None:
    """ConfigError for the first setting that means nothing in this environment, with the reason."""
    for key, why in LACKS.get(family(config.name), _PLUGIN).items():
        value, default = getattr(config, key), getattr(EnvConfig(), key)
        if value != default:
            usual = {None: "null", False: "false"}.get(default, default)
            what = f"env.{key}={value} means nothing in {config.name}: {why}"
            raise ConfigError(what, f"env.{key}", f"Leave it out, or give env.{key}={usual}")
    if (
        family(config.name) == "maniskill"
        and config.reward == "dense"
        and config.name.partition("/")[2] in MANISKILL_SPARSE
    ):
        what = f"env.reward=dense, but {config.name} has no dense reward"
        raise ConfigError(what, "env.reward", "Give env.reward=sparse")


def has_state(name: str) -> bool:
    """Whether an environment may have a state vector, as far as its name tells."""
    return "proprio" not in LACKS.get(family(name), _PLUGIN)
