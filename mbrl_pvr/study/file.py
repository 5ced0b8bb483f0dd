"""The study file: what every run is given, and the parts of a study, each a grid of runs with its exceptions.

A file of `configs/studies/`, by its name, or a path. Every key of a configuration may be an axis; files of
`configs/study/` are something else, presets of one run (`train --config`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from mbrl_pvr.errors import ConfigError
from mbrl_pvr.names import did_you_mean, safe_name
from mbrl_pvr.presets import available, text
from mbrl_pvr.schema import build, check_tree, flatten
from mbrl_pvr.yamlfile import parse_yaml, read_yaml

GROUP = "studies"
NAMED = {"encoder.name": "encoder", "env.name": "env"}  # two ways to say the same
T = TypeVar("T")


@dataclass(frozen=True)
class OodStage:
    """What `mbrl-pvr ood` is asked after training; also the evaluation under the training looks."""

    episodes: int = 200  # of each kind
    shifts: tuple[str, ...] = ()  # none: that of training
    severities: tuple[float, ...] = ()  # none: that of training
    each_factor: bool = False  # also hold out each factor of a shift alone
    video: bool = True  # film the first episode of each kind

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes} must be at least 1")
        if wrong := [s for s in self.severities if not 0 <= s <= 1]:
            raise ValueError(f"severity {wrong[0]} must lie in 0..1")


@dataclass(frozen=True)
class RecordStage:
    """What `mbrl-pvr record` is asked after training."""

    episodes: int = 10
    context: int = 1  # observations given before the model goes on open loop
    starts: int = 8  # points of an episode from which it also goes on
    horizon: int = 33  # steps of these
    bank: str | None = None  # a trajectory bank to predict; null: fresh episodes

    def __post_init__(self) -> None:
        for name in ("episodes", "context", "starts", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class Stages:
    """What follows training; None: nothing of it."""

    ood: OodStage | None = None
    record: RecordStage | None = None


STAGES: dict[str, type[Any]] = {"ood": OodStage, "record": RecordStage}


@dataclass(frozen=True)
class Resources:
    """What one run takes of a machine."""

    cores: int = 1  # also the threads of torch, where `threads` says nothing
    memory: float = 4.0  # GiB
    gpu: float = 0.0  # 0.5: two runs share one

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise ValueError(f"cores={self.cores} must be at least 1")
        if not self.memory > 0:
            raise ValueError(f"memory={self.memory} must be above 0 (GiB)")
        if self.gpu < 0 or (self.gpu > 1 and self.gpu != int(self.gpu)):
            raise ValueError(f"gpu={self.gpu} must be a share of one GPU, up to 1, or a whole number of them")


@dataclass(frozen=True)
class Part:
    """A named part of a study; what it leaves out is the study's, and its `set` comes on top of the study's."""

    config: str | None = None  # a preset of runs, or a YAML file; null: none, also where the study has one
    set: dict[str, Any] = field(default_factory=dict)  # keys of every run; they may mean nothing in some
    grid: dict[str, Any] = field(default_factory=dict)  # key: values; or an axis of named settings
    runs: tuple[dict[str, Any], ...] = ()  # single runs beside the grid
    exclude: tuple[dict[str, Any], ...] = ()  # points of the grid that match all keys of an entry are left out
    stages: dict[str, Any] | None = None
    resources: dict[str, Any] = field(default_factory=dict)  # what differs from the study's


@dataclass(frozen=True)
class _Head:
    """What stands in the file beside its parts."""

    name: str = ""  # of the study; by default the file's
    config: str | None = None
    set: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, Any] | None = None
    resources: Resources = field(default_factory=Resources)
    retries: int = 2  # further tries of a run that fails

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries={self.retries} must be at least 0")


@dataclass(frozen=True)
class SubStudy:
    """A part with everything that it shares with the others written out."""

    name: str
    config: str | None
    set: dict[str, Any]  # flat, by dotted key
    axes: dict[str, list[dict[str, Any]]]  # settings of each value, flat
    labels: frozenset[str]  # axes that are names of settings, not keys
    runs: list[dict[str, Any]]
    exclude: list[dict[str, Any]]
    stages: Stages
    resources: Resources
    where: str  # file and part, for errors

    @property
    def size(self) -> int:
        """Points before exclusions."""
        count = 1 if self.axes else 0
        for values in self.axes.values():
            count *= len(values)
        return count + len(self.runs)


@dataclass(frozen=True)
class StudyFile:
    """A study file, read and checked as far as no configuration is needed."""

    name: str
    retries: int
    parts: list[SubStudy]
    text: str
    where: str


def studies() -> list[str]:
    """Names of the studies that come with the package."""
    return list(available(GROUP))


def read_study_file(source: str | Path, parts: Sequence[str] = ()) -> StudyFile:
    """A study of the package by its name, or a file; with `parts` only these. ConfigError, UnsafeFile."""
    name = str(source)
    if name in studies():
        raw, where = text(name, GROUP), f"study {name}"
        tree = parse_yaml(raw, where)
    elif "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        tree, where = read_yaml(path), name
        raw = path.read_text(encoding="utf-8-sig")
    else:
        hint = did_you_mean(name, studies(), f"Studies: {', '.join(studies())}; or give a path that ends in .yaml")
        raise ConfigError(f"unknown study {name!r}", hint=hint)
    if not isinstance(tree, dict) or not isinstance(tree.get("parts"), dict):
        what = "a study has `parts`: a name for each, and under it grid, runs, exclude"
        raise ConfigError(what, where, "A file of one run's settings is trained: mbrl-pvr train --config FILE")
    head = build(_Head, check_tree(_Head, {k: v for k, v in tree.items() if k != "parts"}, where), where)
    chosen = _choose(tree["parts"], parts, where)
    title = head.name or Path(name).stem
    if title != safe_name(title):
        raise ConfigError(f"name={title!r} must consist of letters, digits and ._-", where, f"Say {safe_name(title)}")
    found = [_sub_study(head, part, content, f"{where}, part {part}") for part, content in chosen.items()]
    return StudyFile(title, head.retries, found, raw, where)


def _choose(tree: dict[str, Any], parts: Sequence[str], where: str) -> dict[str, Any]:
    for part in parts:
        if part not in tree:
            raise ConfigError(f"unknown part {part!r}", where, did_you_mean(part, tree, f"Parts: {', '.join(tree)}"))
    return {str(k): v for k, v in tree.items() if not parts or k in parts}


def _sub_study(head: _Head, name: str, content: Any, where: str) -> SubStudy:
    if name != safe_name(name):
        raise ConfigError(f"a part's name consists of letters, digits and ._-, not {name!r}", where)
    part = build(Part, check_tree(Part, content, where), where)
    place = f"{where}, resources"
    axes = {key: _axis(key, values, where) for key, values in part.grid.items()}
    return SubStudy(
        name=name,
        config=part.config if "config" in content else head.config,
        set={**_flat(head.set, where), **_flat(part.set, where)},
        axes=axes,
        labels=frozenset(key for key, values in part.grid.items() if isinstance(values, dict)),
        runs=[_flat(point, where) for point in part.runs],
        exclude=[_flat(entry, where) for entry in part.exclude],
        stages=_stages(head.stages if part.stages is None else part.stages, where),
        resources=build(Resources, check_tree(Resources, {**asdict(head.resources), **part.resources}, place), place),
        where=where,
    )


def _axis(key: str, values: Any, where: str) -> list[dict[str, Any]]:
    """Settings of each value of an axis: a list of values of its key, or settings by a name that stands for them."""
    if isinstance(values, dict):
        for name, settings in values.items():
            if not isinstance(settings, dict):
                example = f"{key}: {{a: {{agent.lr: 1e-3}}, b: {{agent.lr: 3e-4}}}}"
                raise ConfigError(f"grid.{key}.{name} should hold settings", where, f"As in {example}")
        points = [{key: name, **_flat(settings, where)} for name, settings in values.items()]
    else:
        points = [{NAMED.get(key, key): value} for value in (values if isinstance(values, list) else [values])]
    if not points:
        raise ConfigError(
            f"grid.{key} has no values: this grid has 0 runs", where, "Give at least one, or leave it out"
        )
    return points


def _flat(tree: dict[str, Any], where: str) -> dict[str, Any]:
    """Settings by dotted key, with one name for encoder and environment."""
    found: dict[str, Any] = {}
    for dotted, value in flatten(tree):
        key = NAMED.get(dotted, dotted)
        if key in found:
            raise ConfigError(f"{key} is given twice", where)
        found[key] = value
    return found


def _stages(tree: dict[str, Any] | None, where: str) -> Stages:
    chosen: dict[str, Any] = {}
    for name, content in (tree or {}).items():
        if name not in STAGES:
            hint = did_you_mean(name, STAGES, f"Stages after training: {', '.join(STAGES)}")
            raise ConfigError(f"unknown stage {name!r}", where, hint)
        place = f"{where}, stages.{name}"
        chosen[name] = build(STAGES[name], check_tree(STAGES[name], content or {}, place), place)
    stages = Stages(**chosen)
    if stages.record and stages.record.bank:  # so that a run finds it from anywhere
        bank = str(Path(stages.record.bank).expanduser().absolute())
        stages = replace(stages, record=replace(stages.record, bank=bank))
    return stages
