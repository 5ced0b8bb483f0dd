"""What the families of environments offer and lack, so that it is refused by name before anything is started."""

from fnmatch import fnmatchcase

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.factors import FACTORS, IMAGE, PALETTE, PHYSICAL, PRESETS, strengths
from mbrl_pvr.envs.names import MANISKILL_SIZED, MANISKILL_SPARSE, MANISKILL_STORED, family, spelled
from mbrl_pvr.envs.video import count_clips
from mbrl_pvr.errors import ConfigError

_STEPS = "it counts steps and no seconds; env.max_steps=N ends episodes earlier"
_OWN_REWARD = "its reward is the task's own"
LACKS: dict[str, dict[str, str]] = {  # family -> key of EnvConfig that must stay as it is by default -> why
    "dmc": {"reward": _OWN_REWARD},
    "maniskill": {
        "camera": "it is seen by the camera at the wrist",
        "time_limit": _STEPS,
        "render": "it draws one way only",
        "backend": "it draws through Vulkan",
    },
    "miniworld": {
        "reward": _OWN_REWARD,
        "proprio": "it gives pictures alone, no state vector",
        "camera": "it shows what the agent sees",
        "time_limit": _STEPS,
        "render": "it has no shadows and draws one way only",
        "backend": "it draws through EGL alone",
    },
    "gym": {"reward": _OWN_REWARD, "camera": "it has a picture of its own", "time_limit": _STEPS},
    "counting": {"reward": _OWN_REWARD, "time_limit": "it has no simulated time"},
}
_PLUGIN = {"reward": _OWN_REWARD}
_AFAR = ("light_direction", "light_color")  # of lights that shine from everywhere alike
_CAMERA = ("camera_pose", "camera_fov")
SHIFTED = {  # family -> factors that it can draw, beside those of the finished frame, which all can
    "dmc": (
        *PALETTE,
        "size",
        "physical_size",
        "light_position",
        *_AFAR,
        "shadows",
        *_CAMERA,
        "textures",
        "distractors",
        "video",
    ),
    "maniskill": ("agent", "floor", "tint", *_AFAR, *_CAMERA, "textures", "distractors"),
    "miniworld": ("floor", "background", "objects", "size", *_AFAR, *_CAMERA, "textures", "distractors", "video"),
}
_TASKS_LACK = {  # tasks -> factors that they lack beside their family
    "dmc/dog-*": {"size", "physical_size"},  # it is a skin, whose points MuJoCo places itself
    "miniworld/PutNext": {"objects"},  # these two are about colours
    "miniworld/Sign": {"objects"},
    "maniskill/Pick*YCB-v1": {"tint"},  # their objects wear photographs
    "maniskill/TurnFaucet-v1": {"tint"},
}
_TASKS_ADD = {f"maniskill/{task}": {"physical_size"} for task in MANISKILL_SIZED} | {
    f"maniskill/{task}": {"configurations"} for task in MANISKILL_STORED
}


def shifted(name: str) -> tuple[str, ...]:
    """The factors that an environment can draw, in the table's order."""
    own = set(SHIFTED.get(family(name), ())) | set(IMAGE) | _TASKS_ADD.get(spelled(name), set())
    for pattern, lacking in _TASKS_LACK.items():
        if fnmatchcase(spelled(name), pattern):
            own -= lacking
    return tuple(f for f in FACTORS if f in own)


def presets(name: str) -> tuple[str, ...]:
    """The presets that mean something in an environment: those that shift it, and nothing that it cannot draw."""
    can = set(shifted(name))
    return tuple(p for p in PRESETS if (factors := strengths(p, name).keys()) and factors <= can)


def physical(shifts: str, name: str) -> tuple[str, ...]:
    """The factors of a shift that change the physics of an environment, so that no state has a pair."""
    return tuple(f for f in strengths(shifts, name) if f in PHYSICAL)


def check_pairs(shift: str, name: str) -> None:
    """ConfigError for a shift under which no state of an environment has a pair."""
    if barred := physical(shift, name):
        what = f"shift={shift} in {name}: {', '.join(barred)} changes the physics, so no state has a pair"
        rest = "+".join(f for f in strengths(shift, name) if f not in barred)
        raise ConfigError(
            what, "shift", f"Take the rest of it: {rest}" if rest else "Take one that changes the picture alone"
        )


def sparse_only(name: str) -> bool:
    """Whether a task has no dense reward."""
    return name.startswith("maniskill/") and name.partition("/")[2] in MANISKILL_SPARSE


def check_offers(config: EnvConfig) -> None:
    """ConfigError for the first setting that means nothing in this environment, with the reason."""
    for key, why in LACKS.get(family(config.name), _PLUGIN).items():
        value, default = getattr(config, key), getattr(EnvConfig(), key)
        if value != default:
            usual = {None: "null", False: "false"}.get(default, default)
            what = f"env.{key}={value} means nothing in {config.name}: {why}"
            raise ConfigError(what, f"env.{key}", f"Leave it out, or give env.{key}={usual}")
    if config.reward == "dense" and sparse_only(config.name):
        what = f"env.reward=dense, but {config.name} has no dense reward"
        raise ConfigError(what, "env.reward", "Give env.reward=sparse")
    if config.shifts != "none":
        _check_shift(config)


def _check_shift(config: EnvConfig) -> None:
    name, shift, can = config.name, f"env.shifts={config.shifts}", shifted(config.name)
    hint = f"It can do: {', '.join((*presets(name), *can))}"
    whole = strengths(config.shifts, name)
    if not whole:
        raise ConfigError(f"{shift} means nothing in {name}: the preset has no factor for it", "env.shifts", hint)
    if lacking := [f for f in whole if f not in can]:
        what = f"{shift} means nothing in {name}: it cannot draw {', '.join(lacking)}"
        raise ConfigError(what, "env.shifts", hint)
    if lacking := [f for f in config.factors or () if f not in whole]:
        what = f"env.factors={list(config.factors or ())}: {', '.join(lacking)} is no factor of {shift} in {name}"
        raise ConfigError(what, "env.factors", f"Its factors: {', '.join(whole)}")
    used = strengths(config.shifts, name, config.factors)
    if "shadows" in used and config.render == "fast":
        what = f"{shift} with env.render=fast: no shadows are drawn"
        raise ConfigError(what, "env.shifts", "Give env.render=standard, or leave shadows out")
    if config.video is not None and "video" in used:
        count_clips(config.video)


def has_state(name: str) -> bool:
    """Whether an environment may have a state vector, as far as its name tells."""
    return "proprio" not in LACKS.get(family(name), _PLUGIN)
