"""The configuration of a run: frozen dataclasses are schema, defaults and documentation; YAML files hold differences.

Hydra's Compose API and override grammar are used here and nowhere else. Layers, later ones win: the defaults of
`mbrl_pvr.settings`, `configs/agent/<agent>.yaml`, `configs/env/<family>.yaml`, the file given with `--config`, then
overrides such as `agent.lr=1e-3`. `agent=X`, `encoder=X` and `env=X` are names; only the first is a Hydra group. Keys,
types, ranges and names are checked here, before weights, simulators or the disk are touched.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.names import DISCRETE, TERMINATING, resolve
from mbrl_pvr.errors import ConfigError, Unavailable
from mbrl_pvr.names import did_you_mean, safe_name
from mbrl_pvr.presets import agents, available, presets, read
from mbrl_pvr.schema import (
    build,
    check_tree,
    field_docs,
    flatten,
    hints,
    leaf_keys,
    nest,
    refuse_code,
    section,
    unknown_key,
)
from mbrl_pvr.settings import WITHOUT_ENCODER, EncoderConfig, EvalConfig, ReplayConfig, RunConfig, inert, shrink
from mbrl_pvr.sinks import check_sinks
from mbrl_pvr.yamlfile import dump_flow, dump_yaml, read_yaml

__all__ = [
    "EncoderConfig",
    "EnvConfig",
    "EvalConfig",
    "ReplayConfig",
    "RunConfig",
    "agents",
    "diff",
    "encoder_spec",
    "from_dict",
    "identity",
    "load_config",
    "presets",
    "read_config",
    "run_name",
    "shrink",
    "to_dict",
    "to_yaml",
]

DEFAULT_AGENT = "tdmpc2"
# how a run is computed or called, not what is computed
NOT_IDENTITY = ("device", "threads", "compile", "encoder.compile", "sinks", "agent_preset", "env.backend")
NOT_GIVEN = ("env.pixels", "agent_preset")  # follow from encoder= and agent=
SMALLEST_PIXELS = 39  # that the convolutions of encoder=scratch leave one number of; a test compares it with them
_PATH_KEYS = ("encoder.name", "encoder.weights")


@dataclass
class _Overrides:
    """What the overrides say: values by dotted key, the text each came from, and all of them as Hydra reads them."""

    values: dict[str, Any] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    hydra: list[str] = field(default_factory=list)


def load_config(overrides: Sequence[str] = (), file: str | Path | None = None) -> RunConfig:
    """The configuration that a preset's name or a YAML file and Hydra overrides describe.

    `file` may be a preset of `configs/` ("demo") or any path, a run's own config.yaml included. Raises ConfigError,
    UnsafeFile, Unavailable.
    """
    changes = _parse_overrides(overrides)
    layer, where = _read_layer(file) if file is not None else ({}, "")
    agent, checked = _take_agent(layer, where, changes)
    typed = _check_overrides(changes)
    named = {"env.name": EnvConfig().name, **dict(flatten(checked)), **typed}["env.name"]
    tree = _compose(agent, named.partition("/")[0].partition("_")[0], checked, changes.hydra)
    for key in _PATH_KEYS:
        name = key.rpartition(".")[2]
        if (path := tree["encoder"][name]) is not None and is_path(path):
            tree["encoder"][name] = str(Path(path).expanduser().absolute())  # so that a run resumes from anywhere
    if "env.size" not in typed and "size" not in checked.get("env", {}):
        tree = _fit_frames(tree)
    config = from_dict(tree)
    for key, setting in inert(config).items():
        if key in typed:
            raise ConfigError(f"{key} means nothing with {setting}", changes.source[key], "Leave it out")
    return config


def typed_keys(overrides: Sequence[str]) -> set[str]:
    """The dotted keys that overrides name; raises ConfigError, UnsafeFile."""
    return set(_parse_overrides(overrides).values)


def _take_agent(layer: dict[str, Any], where: str, changes: _Overrides) -> tuple[str, dict[str, Any]]:
    """The agent's preset, and the rest of the file's layer, checked."""
    preset = layer.get("agent")
    by_name = isinstance(preset, str)
    checked = check_tree(RunConfig, {k: v for k, v in layer.items() if k != "agent" or not by_name}, where)
    name = preset if by_name else DEFAULT_AGENT
    if "agent" in changes.values:
        name, where = changes.values.pop("agent"), changes.source["agent"]
        checked.pop("agent", None)  # an agent that an override names starts from its own preset
        by_name = True
    if by_name:
        checked.pop("agent_preset", None)
    if not isinstance(name, str) or name not in agents():
        hint = did_you_mean(str(name), agents(), f"Agents: {', '.join(agents())}")
        raise ConfigError(f"unknown agent {name!r}", where, hint)
    return name, checked


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested plain values, ready for JSON or YAML."""
    tree = json.loads(json.dumps(asdict(config)))
    del tree["env"]["pixels"]  # follows from the encoder
    return tree


def from_dict(tree: dict[str, Any]) -> RunConfig:
    """The configuration of a nested dictionary, fully checked; absent keys take their defaults. Raises ConfigError."""
    checked = check_tree(RunConfig, tree, "")
    if "pixels" in checked.get("env", {}):
        raise unknown_key("env.pixels", _given_keys(), "")
    config = build(RunConfig, checked)
    return check_names(config)


def read_config(path: Path | str) -> RunConfig:
    """The configuration that a run folder's config.yaml holds; raises ConfigError, UnsafeFile."""
    return from_dict(read_yaml(path))


def to_yaml(config: RunConfig, docs: bool = False) -> str:
    """The configuration as YAML that `read_config` reads back; with `docs` every field carries its explanation."""
    if not docs:
        return dump_yaml(to_dict(config))
    comments = field_docs(RunConfig)
    lines: list[str] = []
    opened = ""
    for key, value in flatten(to_dict(config)):
        parent, _, name = key.rpartition(".")
        if parent != opened:
            lines += ["", f"{parent}:"]
            opened = parent
        line = "  " * bool(parent) + (
            f"{name}: {dump_flow(value)}" if isinstance(value, list) else dump_yaml({name: value}).rstrip("\n")
        )
        lines.append(f"{line:<32}  # {comments[key]}" if key in comments else line)
    return "\n".join(lines) + "\n"


def diff(a: RunConfig, b: RunConfig) -> list[str]:
    """What differs, as "agent.lr: 0.0003 -> 0.001"."""
    old, new = dict(flatten(to_dict(a))), dict(flatten(to_dict(b)))
    return [f"{key}: {_plain(old[key])} -> {_plain(new[key])}" for key in old if old[key] != new[key]]


def identity(config: RunConfig) -> str:
    """sha256 of everything that decides the run's result; what is in NOT_IDENTITY does not."""
    tree = nest({k: v for k, v in flatten(to_dict(config)) if k not in NOT_IDENTITY})
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def run_name(config: RunConfig) -> str:
    """<agent's preset>-<encoder>-<task>-seed<k>, with -debug for a shrunk run; safe as a folder's name."""
    encoder = config.encoder.name
    encoder = Path(encoder).stem if is_path(encoder) else encoder
    task = config.env.name.partition("/")[2] or config.env.name
    return safe_name(f"{config.agent_preset}-{encoder}-{task}-seed{config.seed}{'-debug' * config.debug}")


# ---------------------------------------------------------------------------------------------------------- names


def check_names(config: RunConfig) -> RunConfig:
    """The configuration with aliases of environments resolved; ConfigError where names are unknown or do not fit."""
    if config.agent_preset not in agents():
        raise ConfigError(f"unknown agent {config.agent_preset!r}", "agent_preset", f"Agents: {', '.join(agents())}")
    name = resolve(config.env.name)
    if name in DISCRETE:
        raise ConfigError(
            f"{name} has discrete actions, but agent {config.agent.name} acts in continuous ones", "env, agent"
        )
    if name != config.env.name:
        config = replace(config, env=replace(config.env, name=name))
    if name in TERMINATING and not config.agent.episodic:
        raise not_episodic(name)
    check_sinks(config.sinks)
    _check_encoder(config)
    return config


def not_episodic(task: str) -> ConfigError:
    """The error for a task that can terminate under an agent to which no episode ends."""
    what = f"episodes of {task} terminate, but with agent.episodic=false the agent learns as if they went on"
    return ConfigError(what, "agent.episodic", "Train with agent.episodic=true")


def _check_encoder(config: RunConfig) -> None:
    choice = config.encoder
    if choice.name == "scratch" and config.env.size < SMALLEST_PIXELS:
        raise ConfigError(
            f"env.size={config.env.size}: encoder=scratch needs frames of at least {SMALLEST_PIXELS} pixels",
            "env.size",
            "Its four convolutions leave nothing of smaller ones",
        )
    if choice.name in WITHOUT_ENCODER:
        given = [
            k
            for k in ("truncate", "feature", "norm", "input_size", "seed", "weights")
            if getattr(choice, k) is not None
        ] + ["trainable"] * (choice.trainable != 0)
        if given:
            raise ConfigError(f"encoder={choice.name} has no encoder, so encoder.{given[0]} means nothing", "encoder")
        return
    spec = encoder_spec(choice)
    if choice.trainable != 0:
        with _as_config_error():
            spec.check_trainable(choice.trainable)
    if config.env.size < spec.render_size:
        step = max(spec.input_multiple, 1)
        fits = config.env.size * spec.input_size // spec.render_size // step * step
        smaller = f", or ask for a smaller input: encoder.input_size={fits}" * (spec.input_multiple > 0 and fits >= 32)
        raise ConfigError(
            f"env.size={config.env.size}: encoder {choice.name!r} would enlarge it to {spec.render_size} pixels",
            "env.size",
            f"Leave env.size out{smaller}",
        )


def encoder_spec(choice: EncoderConfig) -> Any:
    """The `EncoderSpec` of a choice, nothing built; raises ConfigError, Unavailable, ZooError for damaged files."""
    import pvr_zoo

    if is_path(choice.name) and not Path(choice.name).is_file():
        raise Unavailable(f"no encoder file {choice.name!r}", "encoder", "List names: mbrl-pvr encoders list")
    if choice.weights is not None and not Path(choice.weights).is_file():
        raise Unavailable(
            f"no weights file {choice.weights!r}", "encoder.weights", "Give a file's path, or leave it out"
        )
    with _as_config_error():
        spec = pvr_zoo.spec(choice.name, **choice.request)
    if choice.weights is not None:
        if is_path(choice.name):
            raise ConfigError(f"{choice.name} holds its own weights", "encoder.weights", "Leave encoder.weights out")
        with _as_config_error("encoder.weights"):
            spec.check_takes_weights()
    return spec


@contextmanager
def _as_config_error(where: str = "encoder") -> Iterator[None]:
    """A request that an encoder does not offer is a mistake in the configuration; other errors pass."""
    from pvr_zoo.errors import ZooError

    try:
        yield
    except ZooError as error:
        if error.exit_code == ConfigError.exit_code:
            raise ConfigError(error.what, error.where or where, error.hint) from error
        raise


def _fit_frames(tree: dict[str, Any]) -> dict[str, Any]:
    """Frames as large as the encoder's input, unless a size was asked for: they are never enlarged unnoticed."""
    choice = build(EncoderConfig, check_tree(EncoderConfig, tree["encoder"], ""), prefix="encoder.")
    if choice.name in WITHOUT_ENCODER:
        return tree
    size = max(tree["env"]["size"], encoder_spec(choice).render_size)
    return {**tree, "env": {**tree["env"], "size": size}}


def _read_layer(file: str | Path) -> tuple[dict[str, Any], str]:
    """A preset or file as a tree in which `env: X` and `encoder: X` are spelt out, and where it came from."""
    name = str(file)
    if "/" in name or name.endswith((".yaml", ".yml")):
        layer, where = read_yaml(Path(name).expanduser()), name
    elif name in presets():
        layer, where = read(name), f"preset {name}"
    else:
        hint = did_you_mean(name, presets(), f"Presets: {', '.join(presets())}; or give a path that ends in .yaml")
        raise ConfigError(f"unknown preset {name!r}", "--config", hint)
    if layer is None:
        return {}, where
    _refuse_interpolation(layer, where)
    if not isinstance(layer, dict):
        return check_tree(RunConfig, layer, where), where
    return {k: {"name": v} if k in ("env", "encoder") and isinstance(v, str) else v for k, v in layer.items()}, where


def _refuse_interpolation(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_interpolation(key, where)
            _refuse_interpolation(inner, where)
    elif isinstance(value, list):
        for inner in value:
            _refuse_interpolation(inner, where)
    elif isinstance(value, str) and "${" in value:
        raise ConfigError(f"interpolation is not supported: {value[:60]!r}", where, "Write the value itself")


# -------------------------------------------------------------------------------------------------- Hydra's grammar


def _parse_overrides(texts: Sequence[str]) -> _Overrides:
    """Overrides in Hydra's grammar, with names and single values only; raises ConfigError, UnsafeFile."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if isinstance(texts, str):
        raise ConfigError(f"overrides come as a list, not as one text: [{texts!r}]")
    parser, found = OverridesParser.create(), _Overrides()
    for text in texts:
        where = f"override {text!r}"
        key, value = _split(text, where)
        try:
            parsed = parser.parse_override(f"{key}={value}")
        except HydraException as error:
            reason = str(error).splitlines()[0]
            hint = f"Quote a value with special characters: {key}='\"…\"'"
            raise ConfigError(f"this override cannot be read: {reason}", where, hint) from error
        if parsed.is_sweep_override():
            raise ConfigError(
                "several values ask for several runs, but one command trains one", where, "Give one value"
            )
        found.hydra.append(f"{key}={value}")
        given = parsed.value()
        inner = flatten(given, f"{key}.") if isinstance(given, dict) and key != "agent" else [(key, given)]
        for dotted, one in inner:
            found.values[dotted] = one
            found.source[dotted] = where
    return found


def _split(text: str, where: str) -> tuple[str, str]:
    """Key and value, with `env=X` and `encoder=X` as names and paths quoted; the key exists."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or key[:1] in ("+", "~"):
        raise ConfigError("an override has the form KEY=VALUE with a key that exists", where, "Example: agent.lr=1e-3")
    if "${" in value:
        _refuse_interpolation(value, where)
    if key in ("env", "encoder") and value[:1] != "{":
        key += ".name"
    for part in key.split("."):
        refuse_code(part, where)
    known = _given_keys()
    if key not in (*known, *_sections()) or (key in _sections() and key != "agent" and value[:1] != "{"):
        raise unknown_key(key, known, where)
    if key in _PATH_KEYS and is_path(value) and value[:1] not in "'\"":
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return key, value


def _given_keys() -> tuple[str, ...]:
    return tuple(key for key in leaf_keys(RunConfig) if key not in NOT_GIVEN)


def _sections() -> tuple[str, ...]:
    return tuple(name for name, hint in hints(RunConfig).items() if section(hint))


def _check_overrides(found: _Overrides) -> dict[str, Any]:
    """Values by dotted key, converted to the types of their fields."""
    flat: dict[str, Any] = {}
    for key, value in found.values.items():
        if key in NOT_GIVEN:
            raise unknown_key(key, _given_keys(), found.source[key])
        flat |= dict(flatten(check_tree(RunConfig, nest({key: value}), found.source[key])))
    return flat


def _compose(agent: str, family: str, layer: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """All layers merged by Hydra, as a plain tree."""
    from hydra import compose, initialize
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    store.store(name="mbrl_pvr_defaults", node=to_dict(RunConfig(agent_preset=agent)))
    for name in agents():
        store.store(group="agent", name=name, node=read(name, "agent"), package="agent")
    env = read(family, "env") if family in available("env") else {}
    store.store(name="mbrl_pvr_env", node={"env": env})
    store.store(name="mbrl_pvr_file", node=layer)
    order = ["mbrl_pvr_defaults", {"agent": agent}, "mbrl_pvr_env", "mbrl_pvr_file", "_self_"]
    store.store(name="mbrl_pvr_run", node={"defaults": order})
    with initialize(config_path=None, version_base="1.3"):
        composed = compose("mbrl_pvr_run", overrides=overrides)
    tree = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(tree, dict)
    return {str(k): v for k, v in tree.items()}


def is_path(name: str) -> bool:
    """Whether an encoder's name means a file."""
    from pvr_zoo.registry import is_file_name

    return is_file_name(name)


def _plain(value: Any) -> str:
    return "null" if value is None else str(value)
