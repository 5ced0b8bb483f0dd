"""The configuration of a run: frozen dataclasses are schema, defaults and documentation; YAML files hold differences.

Hydra's Compose API and override grammar are used here and nowhere else. Layers, later ones win: the defaults of
`mbrl_pvr.settings`, `configs/agent/<agent>.yaml`, `configs/env/<family>.yaml`, the file given with `--config`, then
overrides such as `agent.lr=1e-3`. `agent=X`, `encoder=X` and `env=X` are names; only the first is a Hydra group. Keys,
types, ranges and names are checked here, before weights, simulators or the disk are touched.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.names import family, resolve
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.fits import check_names, encoder_spec, is_path, seen_size
from mbrl_pvr.names import did_you_mean, quoted, safe_name
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
from mbrl_pvr.settings import RUNS, EncoderConfig, EvalConfig, ReplayConfig, RunConfig, inert, shrink
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
FAMILIES = "families"  # of a preset: what differs in families of environments that are not the preset's own
# how a run is computed or called, not what is computed
NOT_IDENTITY = ("device", "threads", "compile", "encoder.compile", "sinks", "agent_preset", "env.backend")
NOT_GIVEN = ("env.pixels", "agent_preset")  # follow from encoder= and agent=
_PATH_KEYS = ("encoder.name", "encoder.weights", "data")
_OF_THE_BANK = tuple(f.name for f in fields(EnvConfig) if f.name not in ("num", "proprio", "pixels", "backend"))


@dataclass
class _Overrides:
    """What the overrides say: values by dotted key, the text each came from, and all of them as Hydra reads them."""

    values: dict[str, Any] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    hydra: list[str] = field(default_factory=list)


def load_config(
    overrides: Sequence[str] = (), file: str | Path | None = None, *, debug: bool = False, shared: Sequence[str] = ()
) -> RunConfig:
    """The configuration that a preset's name or a YAML file and Hydra overrides describe; shrunk for `debug`.

    `file` may be a preset of `configs/` ("demo") or any path, a run's own config.yaml included. `shared` are overrides
    that many runs are given: between file and `overrides`, and they may mean nothing in this run, as what stands in a
    file may. Raises ConfigError, UnsafeFile, Unavailable.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"overrides come as a list, not as one text: [{overrides!r}]")
    layer, where = _read_layer(file) if file is not None else ({}, "")
    families = layer.pop(FAMILIES, {})
    overrides, own = [*shared, *overrides], {_origin(text) for text in overrides}
    cls = _run_class(overrides, layer)
    changes = _parse_overrides(overrides, cls)
    other_agent = "agent" in changes.values
    agent, checked = _take_agent(layer, where, changes, cls)
    typed = _check_overrides(changes, cls)
    named = {"env.name": EnvConfig().name, **dict(flatten(checked)), **typed}["env.name"]
    differs = _of_family(family(named), families, where)
    differs = {key: value for key, value in differs.items() if key != "agent" or not other_agent}
    checked = nest({**dict(flatten(checked)), **dict(flatten(check_tree(cls, differs, f"{where}, {FAMILIES}")))})
    tree = _compose(agent, family(named), checked, changes.hydra)
    _make_absolute(tree)
    asked = {**dict(flatten(checked)), **typed}
    if tree["data"] is not None:
        tree = _take_bank(tree, asked)
    elif "env.size" not in asked:
        tree["env"]["size"] = max(
            tree["env"]["size"],
            _seen_size(tree),
        )
    config = from_dict(tree, debug=debug)
    for key, setting in inert(config).items():
        if key in typed and changes.source[key] in own:
            raise ConfigError(f"{key} means nothing with {setting}", changes.source[key], "Leave it out")
    return config


def replaced(overrides: Sequence[str], config: RunConfig) -> list[str]:
    """What overrides asked for and `config` has not, as "steps: 5000 -> 200"; raises ConfigError, UnsafeFile."""
    cls: type = type(config)
    changes = _parse_overrides(overrides, cls)
    changes.values.pop("agent", None)
    asked, has = _check_overrides(changes, cls), dict(flatten(to_dict(config)))
    same = (*_PATH_KEYS, "env.name")  # made absolute, or resolved from an alias
    given = {key: value for key, value in asked.items() if key not in same}
    return [f"{k}: {_plain(v)} -> {_plain(has[k])}" for k, v in given.items() if _json(v) != has[k]]


def _of_family(name: str, families: Any, where: str) -> dict[str, Any]:
    """What a preset says of one family of environments alone."""
    if not isinstance(families, dict) or not isinstance(families.get(name, {}), dict):
        raise ConfigError(f"{FAMILIES} should be a mapping from families to settings, got {families!r}", where)
    return dict(families.get(name, {}))


def _run_class(overrides: Sequence[str], layer: dict[str, Any]) -> type[Any]:
    """What kind of run it is, by the agent that an override or a file's layer names; unknown names are told later."""
    named = layer.get("agent", DEFAULT_AGENT)
    for text in overrides:
        key, _, value = text.partition("=")
        named = value.strip("'\"") if key.strip() == "agent" else named
    if isinstance(named, dict):
        return RUNS.get(str(named.get("name", DEFAULT_AGENT)), RUNS[DEFAULT_AGENT])
    return RUNS[read(named, "agent").get("name", DEFAULT_AGENT)] if named in agents() else RUNS[DEFAULT_AGENT]


def _take_agent(layer: dict[str, Any], where: str, changes: _Overrides, cls: type) -> tuple[str, dict[str, Any]]:
    """The agent's preset, and the rest of the file's layer, checked."""
    preset = layer.get("agent")
    by_name, replaced = isinstance(preset, str), "agent" in changes.values
    rest = {k: v for k, v in layer.items() if k != "agent" or not (by_name or replaced)}
    checked = check_tree(cls, rest, where)
    name = preset if by_name else _preset_of(cls)
    if replaced:  # an agent that an override names starts from its own preset
        name, where, by_name = changes.values.pop("agent"), changes.source["agent"], True
    if by_name:
        checked.pop("agent_preset", None)
    if not isinstance(name, str) or name not in agents():
        hint = did_you_mean(str(name), agents(), f"Agents: {', '.join(agents())}")
        raise ConfigError(f"unknown agent {name!r}", where, hint)
    return name, checked


def _preset_of(cls: type) -> str:
    """The preset of an algorithm's published settings: it has the algorithm's name."""
    return next(name for name, run in RUNS.items() if run is cls)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested plain values, ready for JSON or YAML."""
    tree = json.loads(json.dumps(asdict(config)))
    del tree["env"]["pixels"]  # follows from the encoder
    return tree


def from_dict(tree: dict[str, Any], *, debug: bool = False) -> RunConfig:
    """The configuration of a nested dictionary, fully checked; absent keys take their defaults. Raises ConfigError.

    With `debug` it is shrunk before it is asked whether its numbers fit one another.
    """
    cls = _run_class((), tree)
    checked = check_tree(cls, tree, "")
    if "pixels" in checked.get("env", {}):
        raise unknown_key("env.pixels", _given_keys(cls), "")
    config: RunConfig = build(cls, checked)
    return check_names(shrink(config) if debug else config)


def read_config(path: Path | str) -> RunConfig:
    """The configuration that a run folder's config.yaml holds; raises ConfigError, UnsafeFile."""
    return from_dict(read_yaml(path))


def to_yaml(config: RunConfig, docs: bool = False) -> str:
    """The configuration as YAML that `read_config` reads back; with `docs` every field carries its explanation."""
    if not docs:
        return dump_yaml(to_dict(config))
    cls: type = type(config)
    comments = field_docs(cls)
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
    if a.agent.name != b.agent.name:  # whose keys have nothing to do with each other
        old, new = ({k: v for k, v in x.items() if k == "agent.name" or k[:6] != "agent."} for x in (old, new))
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


def _make_absolute(tree: dict[str, Any]) -> None:
    """Write out paths, so that a run resumes from anywhere."""
    encoder = tree["encoder"]
    for part, key in ((encoder, "name"), (encoder, "weights"), (tree["env"], "video"), (tree, "data")):
        value = part[key]
        if value is not None and (key != "name" or is_path(value)):
            part[key] = str(Path(value).expanduser().absolute())


def _seen_size(tree: dict[str, Any]) -> int:
    return seen_size(build(EncoderConfig, check_tree(EncoderConfig, tree["encoder"], ""), prefix="encoder."))


def _take_bank(tree: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The environment of the bank that the run learns from; ConfigError where another was asked for, or larger frames
    are wanted.
    """
    from mbrl_pvr.bank import Bank

    bank = Bank.open(tree["data"])
    own = {key: _json(getattr(bank.env, key)) for key in _OF_THE_BANK}
    for key, value in own.items():
        wanted = asked.get(f"env.{key}", value)
        if (resolve(wanted) if key == "name" else _json(wanted)) != value:
            what = f"env.{key}={_plain(wanted)}, but this bank was made with {_plain(value)}"
            raise ConfigError(what, str(bank.path), f"Leave env.{key} out")
    if (size := _seen_size(tree)) > bank.env.size:
        what = f"the frames of this bank have {bank.env.size} pixels, the encoder sees {size}"
        how = f"Make a bank with env.size={size}, or ask for a smaller input: encoder.input_size"
        raise ConfigError(what, str(bank.path), how)
    return {**tree, "env": {**tree["env"], **own}}


def _read_layer(file: str | Path) -> tuple[dict[str, Any], str]:
    """A preset or file as a tree in which `env: X` and `encoder: X` are spelt out, and where it came from."""
    name = str(file)
    if name in presets():
        layer, where = read(name), f"preset {name}"
    elif "/" in name or name.endswith((".yaml", ".yml")):
        layer, where = read_yaml(Path(name).expanduser()), name
    else:
        hint = did_you_mean(name, presets(), f"Presets: {', '.join(presets())}; or give a path that ends in .yaml")
        raise ConfigError(f"unknown preset {name!r}", "--config", hint)
    if layer is None:
        return {}, where
    _refuse_interpolation(layer, where)
    if not isinstance(layer, dict):
        return check_tree(RUNS[DEFAULT_AGENT], layer, where), where
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


def _parse_overrides(texts: Sequence[str], cls: type) -> _Overrides:
    """Overrides in Hydra's grammar, with names and single values only; raises ConfigError, UnsafeFile."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, found = OverridesParser.create(), _Overrides()
    for text in texts:
        where = _origin(text)
        key, value = _split(text, where, cls)
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


def _origin(text: str) -> str:
    return f"override {text!r}"


def _split(text: str, where: str, cls: type) -> tuple[str, str]:
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
    if key in ("agent.name", "agent_preset"):
        raise ConfigError(f"{key} follows from the agent", where, f"Choose one with agent=NAME: {', '.join(agents())}")
    known, sections = _given_keys(cls), _sections(cls)
    if key not in (*known, *sections) or (key in sections and key != "agent" and value[:1] != "{"):
        raise unknown_key(key, (*known, "agent", "env", "encoder"), where)
    path = is_path(value) if key.startswith("encoder.") else value != "null"
    if key in _PATH_KEYS and path and value[:1] not in "'\"":
        value = quoted(value)
    return key, value


def _given_keys(cls: type) -> tuple[str, ...]:
    return tuple(key for key in leaf_keys(cls) if key not in NOT_GIVEN)


def _sections(cls: type) -> tuple[str, ...]:
    return tuple(name for name, hint in hints(cls).items() if section(hint))


def _check_overrides(found: _Overrides, cls: type) -> dict[str, Any]:
    """Values by dotted key, converted to the types of their fields."""
    flat: dict[str, Any] = {}
    for key, value in found.values.items():
        if key in NOT_GIVEN:
            raise unknown_key(key, _given_keys(cls), found.source[key])
        flat |= dict(flatten(check_tree(cls, nest({key: value}), found.source[key])))
    return flat


def _compose(agent: str, family: str, layer: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """All layers merged by Hydra, as a plain tree."""
    from hydra import compose, initialize
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    run = RUNS[read(agent, "agent").get("name", DEFAULT_AGENT)]
    store.store(name="mbrl_pvr_defaults", node=to_dict(run(agent_preset=agent)))
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


def _plain(value: Any) -> str:
    return "null" if value is None else str(value)


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
