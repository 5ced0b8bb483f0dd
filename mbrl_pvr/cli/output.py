"""What commands print: text for people, JSON for machines, errors in one or two lines. Imports nothing heavy."""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RED, PLAIN = "\x1b[31m", "\x1b[0m"


def clean(text: str) -> str:
    """Text without control characters, apart from line ends, so that a name cannot steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def say(text: str) -> None:
    """Print to standard output."""
    print(clean(text))


def say_json(value: Any) -> None:
    """Print as JSON; NaN becomes null."""
    print(json.dumps(jsonable(value), indent=2, allow_nan=False))


def complain(text: str) -> None:
    """Print an error to standard error, its first line red in a terminal."""
    first, _, rest = clean(text).partition("\n")
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        first = f"{RED}{first}{PLAIN}"
    print(first + (f"\n{rest}" if rest else ""), file=sys.stderr)


def jsonable(value: Any) -> Any:
    """Dataclasses, tables, paths and NumPy scalars as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return jsonable({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence | set | frozenset):
        return [jsonable(v) for v in value]
    if hasattr(value, "to_dict"):  # a pandas table: rows
        return jsonable(value.to_dict(orient="records"))
    if hasattr(value, "tolist"):  # a NumPy scalar or array
        return jsonable(value.tolist())
    raise TypeError(f"{type(value).__name__} is not plain data")


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Aligned columns."""
    cells = [[str(c) for c in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def nothing_matches(pattern: str, names: list[str]) -> None:
    """Raise ConfigError for a pattern under which there is nothing, with the nearest names."""
    from mbrl_pvr.errors import ConfigError
    from mbrl_pvr.names import did_you_mean

    hint = did_you_mean(pattern, names, "Leave the pattern out to see all")
    raise ConfigError(f"nothing matches {pattern!r}", hint=hint)
