"""The YAML files of `configs/`, installed as `mbrl_pvr/_configs`; they hold only what differs from the defaults."""

from functools import cache
from importlib.resources import files
from typing import Any

from mbrl_pvr.yamlfile import parse_yaml

_SHORT = {"study": "study/schneider2024"}


@cache
def available(group: str = "") -> tuple[str, ...]:
    """Files of a group ("agent", "env", "study" for runs, "studies"); without a group, those beside the groups."""
    folder = files("mbrl_pvr._configs").joinpath(group)
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def agents() -> list[str]:
    """Names of the agent presets."""
    return list(available("agent"))


def presets() -> list[str]:
    """Names that `--config` knows."""
    return sorted([*available(), *_SHORT, *(f"study/{name}" for name in available("study"))])


def read(name: str, group: str = "") -> dict[str, Any]:
    """The content of one file; empty where it has none."""
    name = name if group else _SHORT.get(name, name)
    return parse_yaml(text(name, group), f"configs/{group}/{name}.yaml") or {}


def text(name: str, group: str) -> str:
    """One file as it stands."""
    return files("mbrl_pvr._configs").joinpath(group, f"{name}.yaml").read_text(encoding="utf-8")
