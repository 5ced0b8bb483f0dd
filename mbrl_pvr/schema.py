"""Frozen dataclasses as the schema of a configuration: nested dictionaries checked against fields, types and names.

Knows nothing of agents or environments; `mbrl_pvr.config` puts it to use.
"""

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mbrl_pvr.errors import ConfigError, UnsafeFile
from mbrl_pvr.names import did_you_mean

T = TypeVar("T")
_FEW = 12  # keys that an error lists
_NAMES = {
    Any: "anything",
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
}


@cache
def hints(cls: type) -> dict[str, Any]:
    """Field names and their resolved types."""
    resolved = get_type_hints(cls)
    return {f.name: resolved[f.name] for f in fields(cls)}


def section(hint: Any) -> type | None:
    """The dataclass that a field of type `hint` holds, if it holds one."""
    return hint if isinstance(hint, type) and is_dataclass(hint) else None


@cache
def leaf_keys(cls: type) -> tuple[str, ...]:
    """All dotted keys that hold a value."""
    found: list[str] = []
    for name, hint in hints(cls).items():
        inner = section(hint)
        found += [f"{name}.{key}" for key in leaf_keys(inner)] if inner else [name]
    return tuple(found)


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested dictionary."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def has_types(tree: Any, types: Mapping[str, Any]) -> bool:
    """Whether a value read from JSON is an object whose entries of these names, those that it has, have these types."""
    return isinstance(tree, dict) and all(isinstance(tree[k], kind) for k, kind in types.items() if k in tree)


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """The nested dictionary of dotted keys."""
    tree: dict[str, Any] = {}
    for dotted, value in flat.items():
        *parents, last = dotted.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def check_tree(cls: type, tree: Any, where: str) -> dict[str, Any]:
    """A partial nested dictionary with its keys checked and its values converted; raises ConfigError, UnsafeFile."""
    return _check(cls, tree, "", where, leaf_keys(cls))


def _check(cls: type, tree: Any, prefix: str, where: str, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise ConfigError(f"{prefix.rstrip('.') or 'a configuration'} holds named values, not {_show(tree)}", where)
    checked: dict[str, Any] = {}
    for key, value in tree.items():
        refuse_code(key, where)
        hint = hints(cls).get(key) if isinstance(key, str) else None
        if hint is None and f"{prefix}{key}" in known:
            raise ConfigError(
                f"unknown key {key!r}", where, f"Nest it: {key.replace('.', ': {')}: …" + "}" * key.count(".")
            )
        if hint is None:
            raise unknown_key(f"{prefix}{key}", known, where)
        inner = section(hint)
        path = f"{prefix}{key}"
        checked[key] = _check(inner, value, path + ".", where, known) if inner else convert(value, hint, path, where)
    return checked


def refuse_code(key: Any, where: str) -> None:
    """Raise UnsafeFile for a key by which Hydra would build an object."""
    if key == "_target_":
        raise UnsafeFile(
            "the key '_target_' names code to run; it is refused", where, "Choose agents and encoders by name"
        )


def unknown_key(key: str, known: tuple[str, ...], where: str) -> ConfigError:
    """The error for a key that no configuration has, with the nearest ones."""
    sections = [k for k in known if k.startswith(f"{key}.")]
    if sections:
        return ConfigError(f"{key!r} is a section, not a value", where, f"Its keys: {', '.join(sections)}")
    few = len(known) <= _FEW
    everything = f"Keys: {', '.join(known)}" if few else "Show all keys: mbrl-pvr train --print-config"
    return ConfigError(f"unknown key {key!r}", where, did_you_mean(key, known, everything))


def build(cls: type[T], tree: dict[str, Any], where: str = "", prefix: str = "") -> T:
    """An instance of `cls` from a checked tree; keys that are absent take their defaults. Raises ConfigError."""
    fields_of: dict[str, Any] = hints(cls)  # type: ignore[arg-type]  # mypy: functools.cache wants Hashable
    values = {}
    for name, value in tree.items():
        inner = section(fields_of[name])
        values[name] = build(inner, value, where, f"{prefix}{name}.") if inner else value
    try:
        return cls(**values)
    except ValueError as error:
        named = prefix.rstrip(".")
        raise ConfigError(f"{named}: {error}" if named else str(error), where) from error


def convert(value: Any, hint: Any, key: str, where: str = "") -> Any:
    """`value` as the type that field `key` wants; raises ConfigError that says which."""
    try:
        return _convert(value, hint)
    except (TypeError, OverflowError):
        near = did_you_mean(str(value), _choices(hint)) if isinstance(value, str) else ""
        raise ConfigError(f"{key} wants {describe(hint)}, not {_show(value)}", where, near) from None


def _convert(value: Any, hint: Any) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin is dict:
        named = isinstance(value, dict) and all(isinstance(key, str) for key in value)
        return {key: _convert(inner, get_args(hint)[1]) for key, inner in value.items()} if named else _fail()
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in get_args(hint)):
            return value
        raise TypeError
    if origin in (Union, UnionType):
        return _convert_union(value, get_args(hint))
    if origin is tuple:
        inner = get_args(hint)
        if not isinstance(value, list | tuple):
            raise TypeError
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_convert(v, inner[0]) for v in value)
        return tuple(_convert(v, h) for v, h in zip(value, inner, strict=True)) if len(inner) == len(value) else _fail()
    return _convert_plain(value, hint)


def _fail() -> Any:
    raise TypeError


def _convert_union(value: Any, options: tuple[Any, ...]) -> Any:
    exact = [o for o in options if isinstance(o, type) and type(value) is o]
    for option in (*exact, *options):
        try:
            return _convert(value, option)
        except TypeError:
            continue
    raise TypeError


def _convert_plain(value: Any, hint: Any) -> Any:
    if hint is NoneType or hint is None:
        return None if value is None else _fail()
    if hint in (bool, str):
        return value if type(value) is hint else _fail()
    if type(value) not in (int, float) or hint not in (int, float):
        raise TypeError
    if not math.isfinite(value):
        raise TypeError
    if hint is int:
        return int(value) if value == int(value) else _fail()
    return float(value)


def _choices(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [str(c) for c in get_args(hint)]
    return [c for h in get_args(hint) for c in _choices(h)]


def describe(hint: Any) -> str:
    """A type in words: "an integer or null", "one of egl, osmesa"."""
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if origin in (Union, UnionType):
        return " or ".join(describe(h) for h in get_args(hint))
    if origin is dict:
        return "named values"
    if origin is tuple:
        return f"a list of {describe(get_args(hint)[0]).removeprefix('an ').removeprefix('a ')}s"
    return _NAMES.get(hint, str(hint))


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@cache
def field_docs(cls: type) -> dict[str, str]:
    """The comment beside each field, by dotted key; empty where the source is not at hand."""
    try:
        source = "".join(inspect.getsource(base) for base in reversed(cls.__mro__[:-1]))
    except OSError:
        return {}
    comments = dict(re.findall(r"^    (\w+)\s*:[^#\n]*#\s*(.*)$", source, flags=re.MULTILINE))
    docs = {name: text for name, text in comments.items() if name in hints(cls)}
    for name, hint in hints(cls).items():
        inner = section(hint)
        if inner:
            docs |= {f"{name}.{key}": text for key, text in field_docs(inner).items()}
    return docs
