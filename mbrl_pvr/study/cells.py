"""From a study file to its runs: every point of the grids as a checked configuration with an id of its own."""

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mbrl_pvr.bank import Bank
from mbrl_pvr.config import from_dict, identity, load_config, run_name, to_dict
from mbrl_pvr.errors import ConfigError, Error, Unavailable
from mbrl_pvr.names import quoted
from mbrl_pvr.schema import convert, leaf_keys, section
from mbrl_pvr.schema import hints as hints_of
from mbrl_pvr.settings import RUNS, RunConfig, inert
from mbrl_pvr.splits import held_out_splits
from mbrl_pvr.study.file import OodStage, RecordStage, Resources, Stages, StudyFile, SubStudy, read_study_file

MANY = 10_000  # runs; more are a slip unless --yes says otherwise
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_./:-]*")  # text that Hydra's grammar takes without quotes
_NOT_TEXT = ("null", "true", "false", "nan", "inf", "none")


@dataclass(frozen=True)
class Kind:
    """Runs that differ in nothing but their seed."""

    part: str
    config: dict[str, Any]  # as `config.to_dict`; the seed in it is that of the first
    stages: Stages
    resources: Resources


@dataclass(frozen=True)
class Run:
    """One run of a study."""

    id: str  # sha256 of what decides its results: not the engine, folder or device
    name: str  # of its folder
    kind: int  # of Study.kinds
    seed: int
    settings: dict[str, Any]  # what grid or list gave it
    command: str  # what trains the same run alone

    @property
    def words(self) -> str:
        """Its settings in one line."""
        return ", ".join(f"{key}={value}" for key, value in self.settings.items())


@dataclass(frozen=True)
class Study:
    """The runs of a study, in the order in which they are started."""

    name: str
    retries: int
    kinds: list[Kind]
    runs: list[Run]
    text: str  # of the file

    def kind(self, run: Run) -> Kind:
        """What a run shares with those of other seeds."""
        return self.kinds[run.kind]

    def config(self, run: Run) -> RunConfig:
        """The configuration of a run."""
        return from_dict({**self.kinds[run.kind].config, "seed": run.seed})

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes the same study."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Study":
        """What `to_json` gave."""
        kinds = [{**k, "stages": _stages(k["stages"]), "resources": Resources(**k["resources"])} for k in tree["kinds"]]
        return cls(
            name=tree["name"],
            retries=tree["retries"],
            kinds=[Kind(**kind) for kind in kinds],
            runs=[Run(**run) for run in tree["runs"]],
            text=tree["text"],
        )


def _stages(tree: dict[str, Any]) -> Stages:
    ood, record = tree["ood"], tree["record"]
    if ood is not None:
        ood = OodStage(**{**ood, "shifts": tuple(ood["shifts"]), "severities": tuple(ood["severities"])})
    return Stages(ood, None if record is None else RecordStage(**record))


def load_study(source: str | Path, parts: Sequence[str] = (), *, debug: bool = False, yes: bool = False) -> Study:
    """The study of a file, or of some of its parts, every run's configuration checked; shrunk for `debug`.

    Raises ConfigError: for what is wrong in the file or in a run, for two runs with one id, and for none or more than
    MANY runs unless `yes`. UnsafeFile, Unavailable.
    """
    file = read_study_file(source, parts)
    _refuse_many(file, yes)
    kinds: list[Kind] = []
    runs: dict[str, Run] = {}
    for part in file.parts:
        found = [run for points in _by_kind(part) for run in _runs_of_kind(part, points, kinds, debug)]
        for _, run in sorted(found, key=lambda numbered: numbered[0]):
            _refuse_twin(runs.get(run.id), run, kinds, part)
            runs[run.id] = run
    if not runs:
        raise ConfigError("this study has 0 runs: every point of its grids is excluded", file.where)
    return Study(file.name, file.retries, kinds, list(runs.values()), file.text)


def _runs_of_kind(
    part: SubStudy, points: list[tuple[int, dict[str, Any]]], kinds: list[Kind], debug: bool
) -> Iterator[tuple[int, Run]]:
    """Runs with their place in the part; composing a configuration takes long, so all seeds share one."""
    kind, config, overrides = _kind(part, points[0][1], debug)
    kinds.append(kind)
    for number, point in points:
        seed = convert(point.get("seed", part.set.get("seed", config.seed)), int, "seed", part.where)
        try:
            own = replace(config, seed=seed)
        except ValueError as error:
            raise ConfigError(str(error), part.where) from error
        sha = identity(own)
        command = shlex.join(["mbrl-pvr", "train", *overrides, f"seed={seed}"])
        yield number, Run(sha, f"{run_name(own)}-{sha[:8]}", len(kinds) - 1, seed, point, command)


def _refuse_many(file: StudyFile, yes: bool) -> None:
    """ConfigError for a count that can only be a slip, before anything is built."""
    size = sum(part.size for part in file.parts)
    if size == 0:
        raise ConfigError("this study has 0 runs", file.where, "Give its parts a grid, or runs")
    if size > MANY and not yes:
        what = f"this study has {size:,} runs, more than {MANY:,}"
        raise ConfigError(what, file.where, "If that is meant, give --yes")


def _refuse_twin(other: Run | None, run: Run, kinds: Sequence[Kind], part: SubStudy) -> None:
    """A run is done once, so that two points that ask for the same one are a mistake in the file."""
    if other is not None:
        what = f"two points are the same run: {run.words}; and {other.words}, of part {kinds[other.kind].part}"
        raise ConfigError(what, part.where, "Take one of them out, or exclude it")


def _by_kind(part: SubStudy) -> list[list[tuple[int, dict[str, Any]]]]:
    """Numbered points of a part, those that differ in their seed alone together."""
    groups: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, point in enumerate([*_grid(part), *part.runs]):
        same = sorted((key, repr(value)) for key, value in point.items() if key != "seed")
        groups.setdefault(repr(same), []).append((number, point))
    return list(groups.values())


def _grid(part: SubStudy) -> list[dict[str, Any]]:
    """Points of the grid that no entry of `exclude` matches."""
    _check_labels(part)
    points = []
    for values in itertools.product(*part.axes.values()) if part.axes else ():
        point: dict[str, Any] = {}
        for settings in values:
            if both := point.keys() & settings.keys():
                raise ConfigError(f"two axes of the grid give {sorted(both)[0]}", part.where)
            point |= settings
        points.append(point)
    keys = {*part.set, *(key for point in points for key in point)}
    for entry in part.exclude:
        if unknown := [key for key in entry if key not in keys]:
            what = f"exclude names {unknown[0]}, which no point of the grid has"
            raise ConfigError(what, part.where, f"Its keys: {', '.join(sorted(keys))}")
        kept = [p for p in points if not all({**part.set, **p}.get(k) == v for k, v in entry.items())]
        if len(kept) == len(points):
            words = ", ".join(f"{key}={value}" for key, value in entry.items())
            raise ConfigError(f"exclude ({words}) leaves nothing out", part.where, "Take it out, or correct it")
        points = kept
    return points


def _check_labels(part: SubStudy) -> None:
    """A name for settings must not be a key, or nobody could tell which is meant."""
    for label in part.labels:
        for run in RUNS.values():
            cls: Any = run
            if label in leaf_keys(cls) or section(hints_of(cls).get(label)):
                what = f"grid.{label} is a key of a run, so its values are a list"
                raise ConfigError(what, part.where, "Name an axis of several keys otherwise, such as `variant`")


def _kind(part: SubStudy, point: dict[str, Any], debug: bool) -> tuple[Kind, RunConfig, list[str]]:
    """Kind, configuration, and the arguments that train it alone but for the seed."""
    typed = {key: value for key, value in point.items() if key not in part.labels}
    shared = [as_override(key, value) for key, value in part.set.items()]
    where = f"{part.where}: {', '.join(f'{k}={v}' for k, v in point.items() if k != 'seed')}"
    try:
        overrides = [as_override(key, value) for key, value in typed.items()]
        config = load_config(overrides, part.config, debug=debug, shared=shared)
        _check_stages(part.stages, config)
    except Error as error:
        place = f"{where}, {error.where}" if error.where else where
        apart = "\nOr leave this part out: --part NAME takes others alone" * isinstance(error, Unavailable)
        raise type(error)(error.what, place, f"{error.hint or ''}{apart}") from error
    if config.threads > part.resources.cores:
        what = f"threads={config.threads}, but resources.cores={part.resources.cores}"
        raise ConfigError(what, where, "Leave threads out: a run has as many as it has cores")
    needless = inert(config)
    given = {k: v for k, v in {**part.set, **typed}.items() if k != "seed" and k not in needless}
    arguments = [as_override(k, v) for k, v in given.items()]
    arguments += ["--config", part.config] if part.config else []
    return Kind(part.name, to_dict(config), part.stages, part.resources), config, arguments + ["--debug"] * debug


def _check_stages(stages: Stages, config: RunConfig) -> None:
    """What a stage would refuse only after training."""
    if stages.ood is not None:
        if not config.agent.policy:
            what = "agent.policy=false: without a policy there are no episodes for stages.ood"
            raise ConfigError(what, "stages.ood", "Give this part stages of its own, without ood")
        held_out_splits(config, stages.ood.shifts, stages.ood.severities, each_factor=stages.ood.each_factor)
    if stages.record is not None and stages.record.bank is not None:
        if not Path(stages.record.bank).exists():
            make = f"mbrl-pvr bank make env={config.env.name} --dir {stages.record.bank}"
            raise Unavailable("there is no trajectory bank here", stages.record.bank, f"Make one with: {make}")
        Bank.open(stages.record.bank)
    elif stages.record is not None and not config.agent.policy:
        what = "agent.policy=false: without a policy there are no fresh episodes to record"
        raise ConfigError(what, "stages.record", "Give a trajectory bank: stages.record.bank")


def as_override(key: str, value: Any) -> str:
    """`key=value` in the grammar of the command line, which reads back the same value."""
    return f"{key}={_text(value)}"


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    if not isinstance(value, str):
        return repr(value)
    if _BARE.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return quoted(value)
