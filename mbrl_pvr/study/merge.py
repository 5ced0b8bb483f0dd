"""What a study file asks of a folder where runs of it lie already: which are new, what has changed, and what may."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mbrl_pvr.errors import ConfigError
from mbrl_pvr.schema import flatten
from mbrl_pvr.storage import plain
from mbrl_pvr.study.cells import Run, Study

SHOWN = 10  # lines of each kind in a difference
ABSENT = "nothing"


def merge(old: Study, new: Study, path: Path, *, parts: Sequence[str] = (), extend: bool = False) -> Study:
    """What the folder should hold: all runs that are there and the new ones; resources and retries are those of `new`.

    `parts`: `new` is only these, others are left as they are; a part is begun without `extend`. ConfigError with the
    difference where the file was changed and `extend` is not given, or would have to change stages of runs.
    """
    if old.name != new.name:
        what = f"this folder holds the study {old.name}, not {new.name}"
        raise ConfigError(what, str(path), "Give another --dir")
    wanted = {run.id for run in new.runs}
    gone = [run for run in old.runs if run.id not in wanted]
    accepted = old.text == new.text and wanted <= {run.id for run in old.runs}  # by an --extend of this very file
    meant = [run for run in gone if not accepted and (not parts or old.kind(run).part in parts)]
    changed, lines = _difference(old, meant, new, whole_parts=bool(parts) or old.text == new.text)
    if changed or (lines and not extend):
        can = "" if changed else "--extend keeps all runs that are there and adds what is new. "
        hint = "\n".join([*(f"  {line}" for line in [*changed, *lines]), f"{can}Or give another --dir."])
        raise ConfigError("the study was changed since it began", str(path), hint)
    places = {kind: len(new.kinds) + place for place, kind in enumerate(sorted({run.kind for run in gone}))}
    kinds = [*new.kinds, *(old.kinds[kind] for kind in places)]
    return replace(new, kinds=kinds, runs=[*new.runs, *(replace(run, kind=places[run.kind]) for run in gone)])


def _difference(old: Study, gone: Sequence[Run], new: Study, *, whole_parts: bool) -> tuple[list[str], list[str]]:
    """Lines on what may not change, and on what --extend adds; with `whole_parts` not on parts without a run so far."""
    there, begun = {run.id for run in old.runs}, {old.kind(run).part for run in old.runs}
    added = [run for run in new.runs if run.id not in there and (new.kind(run).part in begun or not whole_parts)]
    before = {(old.kind(run).part, run.words): run for run in gone}
    settings: Counter[str] = Counter()
    same_point: set[str] = set()
    for run in added:
        if was := before.get((new.kind(run).part, run.words)):
            same_point |= {run.id, was.id}
            pair = ({**study.kind(one).config, "seed": one.seed} for study, one in ((old, was), (new, run)))
            settings.update(f"part {new.kind(run).part}, {line}" for line in _changes(*pair))
    changed, more = _stages(old, new)
    lines = [f"{line} (in {count} runs, done again)" for line, count in settings.items()]
    for sign, study, runs in (("+", new, added), ("-", old, gone)):
        others = [f"{sign} part {study.kind(run).part}: {run.words}" for run in runs if run.id not in same_point]
        more += _first(others, f"{sign} and")
    return changed, [*_first(lines, "and"), *more]


def _stages(old: Study, new: Study) -> tuple[list[str], list[str]]:
    """Of runs that are in both: stages that changed or are gone, and those that are new."""
    before = {run.id: old.kind(run).stages for run in old.runs}
    changed: dict[str, None] = {}
    more: dict[str, None] = {}
    for run in new.runs:
        if run.id in before and (kind := new.kind(run)).stages != before[run.id]:
            was, now = asdict(before[run.id]), asdict(kind.stages)
            for name in now:
                if was[name] is None and now[name] is not None:
                    more[f"+ part {kind.part}, stages.{name}"] = None
                else:
                    lines = _changes({name: plain(was[name])}, {name: plain(now[name])})
                    changed.update(dict.fromkeys(f"part {kind.part}, stages.{line}" for line in lines))
    return list(changed), list(more)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Keys whose values differ, as "agent.lr: 0.001 -> 0.002"."""
    a, b = dict(flatten(before)), dict(flatten(after))
    for key in sorted({*a, *b}):
        if a.get(key, ABSENT) != b.get(key, ABSENT):
            yield f"{key}: {a.get(key, ABSENT)} -> {b.get(key, ABSENT)}"


def _first(lines: list[str], more: str) -> list[str]:
    return [*lines[:SHOWN], *([f"{more} {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else [])]
