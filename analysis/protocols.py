"""What runs must share before a claim compares them: of one task the protocol, of one encoder every setting, too."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import groups
from analysis.errors import AnalysisError
from analysis.folders import Tables, flat
from analysis.runs import FINISHED, Run, look_up

PROTOCOL, SETTINGS = "protocol", "settings"  # columns: frozensets of (key, value)
_NO_SETTINGS = ("encoder.name", "encoder.weights", "data", "env.name", "env.video")  # or where a file lies on a machine
_STORED = ("encoder.weights_sha256", "encoder.transform", "data.bank")  # of the manifest: what such a file holds
Facts = frozenset[tuple[str, str]]


def shared_table(tables: Tables) -> pd.DataFrame:
    """`PROTOCOL` and `SETTINGS` of the finished runs, by their ids."""
    runs = tables["runs"].select(["id", "name", "state", "config", "manifest"]).to_pylist()
    known: dict[Facts, Facts] = {}  # seeds of one experiment have the same
    rows = {
        row["id"]: [known.setdefault(facts, facts) for facts in _facts(row)] for row in runs if row["state"] == FINISHED
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=[PROTOCOL, SETTINGS])


def _facts(row: Mapping[str, Any]) -> tuple[Facts, Facts]:
    config, manifest = (json.loads(row[name]) for name in ("config", "manifest"))
    run = Run(Path(row["name"]), row["id"], row["state"], step=None, config=config, manifest=manifest)
    unread = {*groups.NOT_THE_EXPERIMENT, *groups.inert(config), *_NO_SETTINGS}
    settings = {key: value for key, value in flat(config).items() if key not in unread}
    stored = {key: value for key in _STORED if (value := look_up(manifest, key)) is not None}
    protocol = {**groups.protocol(run), "steps": config.get("steps"), "data": stored.get("data.bank")}
    return _frozen(protocol), _frozen({**settings, **stored})


def _frozen(facts: Mapping[str, Any]) -> Facts:
    return frozenset((key, json.dumps(value, default=str)) for key, value in facts.items())


def require_alike(left: pd.DataFrame, right: pd.DataFrame, apart: Mapping[str, Collection[str]]) -> None:
    """AnalysisError where runs of both sides on one task differ in their protocol, or those of a side on one encoder
    in any setting; `apart`: the settings in which `left` and `right` are meant to differ. What one of two runs does not
    read, or does not say, is not compared.
    """
    both = {*apart["left"], *apart["right"]}
    for task, rows in pd.concat([left, right]).groupby("task"):
        _require(rows[PROTOCOL], both, f"runs on {task}")
    for side, meant in ((left, apart["left"]), (right, apart["right"])):
        for (task, encoder), rows in side.groupby(["task", "encoder"]):
            _require(rows[SETTINGS], meant, f"runs of {encoder} on {task}")


def _require(facts: Iterable[Facts], apart: Collection[str], whose: str) -> None:
    seen: dict[str, str] = {}
    for key, value in sorted(pair for one in set(facts) for pair in one):
        if seen.setdefault(key, value) != value and key not in apart:
            what = f"{whose} cannot be compared: {key} is {seen[key]} in one and {value} in another"
            raise AnalysisError(f"{what}; `where` should say which")
