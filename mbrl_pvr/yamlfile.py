"""YAML from files that nobody has to trust: plain values only, every mistake with its line, and limits against bombs.

Numbers and booleans follow YAML 1.2 (`1e-3` is a number, `on` and `no` are text), so that a value means in a file what
it means on the command line.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from mbrl_pvr.errors import ConfigError, UnsafeFile

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_VALUES = 20_000  # after aliases are written out

_CORE = "tag:yaml.org,2002:"
_FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[
        dict[str, list[Any]]
    ] = {}  # none of YAML 1.1's: no dates, no `on`, no base-60 numbers


class _Dumper(yaml.SafeDumper):
    """Also quotes text that `_Loader`, but not YAML 1.1, would take for a number."""


_Loader.add_implicit_resolver(_CORE + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), [*"~nN", ""])
_Loader.add_implicit_resolver(_CORE + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_CORE + "int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_CORE + "float", _FLOAT, list("-+0123456789."))
_Dumper.add_implicit_resolver(_CORE + "float", _FLOAT, list("-+0123456789."))


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value.replace("_", ""))  # never octal: `010` is ten


_Loader.add_constructor(_CORE + "int", _decimal)


def parse_yaml(text: str, where: str) -> Any:
    """The plain value of a YAML text; raises ConfigError with line and column, UnsafeFile for tags of objects."""
    try:
        loader = _Loader(text)
        try:
            _limit_depth(text, where)
            node = loader.get_single_node()
            if node is None:
                return None
            _check_node(node, where)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise ConfigError(f"this is not valid YAML: {error.problem or error.context}", place) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"this is not valid YAML: {' '.join(str(error).split())}", where) from error


def read_yaml(path: Path | str) -> Any:
    """The plain value of a UTF-8 file; a byte-order mark and CRLF are accepted. Raises ConfigError, UnsafeFile."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(f"this file has {size:,} bytes; at most {MAX_BYTES:,} are read", str(path))
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read this file: {reason}", str(path)) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"this file is not UTF-8 (byte {error.start} is 0x{raw[error.start]:02x})", str(path)
        ) from error
    return parse_yaml(text, str(path))


def dump_yaml(value: Any) -> str:
    """`value` as YAML that `parse_yaml` reads back unchanged."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def dump_flow(value: Any) -> str:
    """A list as YAML on one line."""
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6).rstrip("\n")


def _limit_depth(text: str, where: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigError(
                    f"nested deeper than {MAX_DEPTH} levels", f"{where}, line {event.start_mark.line + 1}"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_node(root: yaml.Node, where: str) -> None:
    """Refuse duplicate keys, tags of objects, and aliases that expand beyond MAX_VALUES or contain themselves."""
    sizes: dict[int, int | None] = {}  # None while the node is being counted

    def expanded(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise ConfigError("an alias refers to itself", _line(node, where))
            return known
        sizes[id(node)] = None
        _check_tag(node, where)
        if isinstance(node, yaml.MappingNode):
            _check_duplicates(node, where)
            total = 1 + sum(expanded(part) for pair in node.value for part in pair)
        else:
            total = 1 + (sum(map(expanded, node.value)) if isinstance(node, yaml.SequenceNode) else 0)
        if total > MAX_VALUES:
            raise ConfigError(f"aliases expand to more than {MAX_VALUES:,} values", _line(node, where))
        sizes[id(node)] = total
        return total

    expanded(root)


def _check_tag(node: yaml.Node, where: str) -> None:
    plain = {_CORE + name for name in ("null", "bool", "int", "float", "str", "seq", "map")}
    if node.tag not in plain:
        raise UnsafeFile(
            f"the tag {node.tag.replace(_CORE, '!!')!r} asks for something else than a plain value",
            _line(node, where),
            "Write plain text, numbers, lists and mappings",
        )


def _check_duplicates(node: yaml.MappingNode, where: str) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError("a key must be text", _line(key, where))
        line = key.start_mark.line + 1
        if key.value in seen:
            raise ConfigError(f"the key {key.value!r} stands twice, in lines {seen[key.value]} and {line}", where)
        seen[key.value] = line


def _line(node: yaml.Node, where: str) -> str:
    return f"{where}, line {node.start_mark.line + 1}"
