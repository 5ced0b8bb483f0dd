"""`study plan`: how many runs, hours, memory and disk, before a study starts, from a few steps of each kind of run."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mbrl_pvr.bank import Bank
from mbrl_pvr.build import planned_shapes
from mbrl_pvr.config import from_dict, to_dict
from mbrl_pvr.errors import StorageError, TooSmall, Unavailable
from mbrl_pvr.evaluation import MAX_PARALLEL
from mbrl_pvr.film import COLUMNS
from mbrl_pvr.replay import row_bytes
from mbrl_pvr.schema import flatten
from mbrl_pvr.session import try_start
from mbrl_pvr.settings import RunConfig
from mbrl_pvr.splits import held_out_splits
from mbrl_pvr.storage import free_space
from mbrl_pvr.study.cells import Kind, Study
from mbrl_pvr.study.engine import Engine
from mbrl_pvr.study.file import OodStage, Resources, Stages
from mbrl_pvr.study.local import GIB, visible_gpus
from mbrl_pvr.study.measure import Measured, carried_bytes, measure

# keys that change what a run learns, or how long it is, but not what a step of it costs
NOT_COST = (
    *("seed", "steps", "random_steps", "catch_up", "checkpoint_every", "keep_checkpoints", "log_every", "sinks"),
    *("eval.every", "eval.episodes", "eval.video", "agent.lr", "agent.enc_lr_scale", "agent.reward_coef"),
)
RECORDING = 2.0  # a recorded step takes so much longer than one that is only played: a guess


@dataclass(frozen=True)
class KindPlan:
    """What the runs of one kind take."""

    part: str
    agent: str
    encoder: str
    env: str
    runs: int
    steps: int
    replay_gib: float  # of one run when full, in memory
    step_seconds: float | None = None  # this and below: None where nothing was measured
    run_hours: float | None = None
    memory_gib: float | None = None
    gpu_gib: float | None = None  # None also without a GPU, as the next
    gpu_share_gib: float | None = None  # what resources.gpu gives it
    disk_gib: float | None = None
    at_once: int = 1  # such runs on this machine; 0: none fits
    differs: dict[str, Any] = field(default_factory=dict)  # settings that others of this part, agent, … do not share


@dataclass(frozen=True)
class Plan:
    """What a study takes; `problems` are the reasons why it cannot be run, `notes` what does not fit this machine where
    it was not asked to run anything.
    """

    name: str
    runs: int
    kinds: list[KindPlan]
    worker_hours: float | None
    hours: float | None  # on this machine, with runs at once
    disk_gib: float | None
    free_disk_gib: float
    to_fetch: list[str] = field(default_factory=list)  # addresses of weights that are not here
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan(
    study: Study,
    engine: Engine,
    path: Path,
    *,
    measured: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Measure what is to be measured; `path` is where the study will lie. TooSmall where something is to be measured
    and a run does not fit this machine.
    """
    known: dict[str, Measured] = {}
    to_fetch: dict[str, None] = {}
    kinds: list[KindPlan] = []
    too_small: dict[tuple[str, str], str] = {}
    costs = [_cost_key(kind) for kind in study.kinds]
    for number, (kind, cost) in enumerate(zip(study.kinds, costs, strict=True)):
        config = from_dict(kind.config)
        absent, at_once = list[str](), 0
        with nullcontext() if measured else _noted(too_small, kind.part):
            absent = try_start(config, path / "never_made")
        with nullcontext() if measured else _noted(too_small, kind.part):
            at_once = engine.capacity(kind.resources)
        to_fetch |= dict.fromkeys(absent)
        if measured and cost not in known:
            short = _without_weights(config, absent)
            known[cost] = measure(short, kind.resources, _gpus(kind.resources), kind.stages)
        count = sum(run.kind == number for run in study.runs)
        kinds.append(_kind_plan(kind, config, count, known.get(cost), at_once))
        progress(number + 1, len(study.kinds))
    hours = [(k.runs * k.run_hours, k.at_once) for k in kinds if k.run_hours is not None]
    disk = sum(k.runs * k.disk_gib for k in kinds if k.disk_gib is not None)
    plain = Plan(
        name=study.name,
        runs=len(study.runs),
        kinds=_told_apart(kinds, study),
        worker_hours=sum(h for h, _ in hours) if measured else None,
        hours=sum(h / at_once for h, at_once in hours) if measured else None,
        disk_gib=disk if measured else None,
        free_disk_gib=free_space(path) / GIB,
        to_fetch=list(to_fetch),
    )
    full = _disk_problem(plain)
    return replace(
        plain,
        problems=[*_problems(plain, study), *(full if measured else ())],
        notes=[*too_small.values(), *(() if measured else full)],
    )


@contextmanager
def _noted(notes: dict[tuple[str, str], str], part: str) -> Iterator[None]:
    """What this machine lacks for a run is a note, one for each part and thing, and no error."""
    try:
        yield
    except (TooSmall, StorageError, Unavailable) as error:
        notes.setdefault((part, error.where), f"part {part}: {error.what}")


def _told_apart(kinds: list[KindPlan], study: Study) -> list[KindPlan]:
    """With the settings in which kinds differ that are else alike in all that a table shows of them."""
    settings: dict[int, dict[str, Any]] = {}
    for run in study.runs:
        settings.setdefault(run.kind, {k: v for k, v in run.settings.items() if k != "seed"})
    alike: dict[tuple[str, ...], list[int]] = {}
    for number, kind in enumerate(kinds):
        alike.setdefault((kind.part, kind.agent, kind.encoder, kind.env), []).append(number)
    found = list(kinds)
    for numbers in alike.values():
        given = [settings.get(number, {}) for number in numbers]
        keys = dict.fromkeys(key for own in given for key in own)
        keys = {key: None for key in keys if any(own.get(key) != given[0].get(key) for own in given)}
        for number, own in zip(numbers, given, strict=True):
            found[number] = replace(kinds[number], differs={key: own[key] for key in keys if key in own})
    return found


def _cost_key(kind: Kind) -> str:
    """Equal for runs whose steps cost the same."""
    tree = {key: value for key, value in flatten(kind.config) if key not in NOT_COST}
    tree["resources"] = [kind.resources.cores, kind.resources.gpu]
    ood, record = kind.stages.ood, kind.stages.record
    tree["stages"] = [kind.config["eval"]["video"] or (ood is not None and ood.video), record is not None]
    return json.dumps(tree, sort_keys=True)


def _gpus(resources: Resources) -> list[str]:
    return visible_gpus()[: max(int(resources.gpu), 1)] if resources.gpu else []


def _without_weights(config: RunConfig, absent: Sequence[str]) -> RunConfig:
    """The same network with random weights where the published ones are not here: it costs the same."""
    if not absent or config.encoder.name.startswith("random:"):
        return config
    return from_dict(
        {**to_dict(config), "encoder": {**to_dict(config)["encoder"], "name": f"random:{config.encoder.name}"}}
    )


def _kind_plan(kind: Kind, config: RunConfig, count: int, found: Measured | None, at_once: int) -> KindPlan:
    rows = min(config.steps, config.replay.capacity)
    row = row_bytes(planned_shapes(config), 1) if found is None else found.replay_row
    replay = rows * row + carried_bytes(config, rows)
    plain = KindPlan(
        part=kind.part,
        agent=config.agent_preset,
        encoder=config.encoder.name,
        env=config.env.name,
        runs=count,
        steps=config.steps,
        replay_gib=replay / GIB,
        at_once=at_once,
    )
    if found is None:
        return plain
    episodes = max(config.eval.episodes, kind.stages.ood.episodes if kind.stages.ood else 0)
    workers = config.env.num + min(MAX_PARALLEL, episodes)
    return replace(
        plain,
        step_seconds=found.step,
        run_hours=_run_seconds(config, kind.stages, found) / 3600,
        memory_gib=(found.learner + workers * found.worker + replay) / GIB,
        gpu_gib=None if found.gpu is None else found.gpu / GIB,
        gpu_share_gib=None if found.gpu_total is None else min(kind.resources.gpu, 1) * found.gpu_total / GIB,
        disk_gib=_disk_bytes(config, kind.stages, found) / GIB,
    )


def _disk_bytes(config: RunConfig, stages: Stages, found: Measured) -> float:
    """Of a run: replay, checkpoints, records and films. Logs and tables, a few MB at most, are left out."""
    rows, length = min(config.steps, config.replay.capacity), found.episode_length
    kept = rows * found.replay_row
    kept += config.keep_checkpoints * (found.checkpoint + carried_bytes(config, rows))
    films = _evaluations(config) if config.eval.video else 0
    if (ood := stages.ood) is not None and ood.video:
        films += 2 * _looks(config, ood)  # each alone, and all side by side
    if (record := stages.record) is not None:
        episode = length * found.record_step + record.starts * record.horizon * found.record_ahead
        looks = 1 if record.bank is None else 1 + len(Bank.open(record.bank).shifts)
        kept += looks * record.episodes * episode + min(record.episodes, COLUMNS) * length * found.drawn_step
    return kept + films * length * found.film_step


def _evaluations(config: RunConfig) -> int:
    """How often a run is evaluated while it trains: before, between, and after."""
    return 1 + -(-config.steps // config.eval.every) if config.agent.policy else 0


def _looks(config: RunConfig, ood: OodStage) -> int:
    """Under how many looks the stage plays, those of training among them."""
    return 1 + len(held_out_splits(config, ood.shifts, ood.severities, each_factor=ood.each_factor))


def _run_seconds(config: RunConfig, stages: Stages, found: Measured) -> float:
    """Start, steps, evaluations, and the stages after training; each of these builds the agent anew."""
    episodes = _evaluations(config) * config.eval.episodes
    starts = 1
    if (ood := stages.ood) is not None:
        episodes += _looks(config, ood) * ood.episodes
        starts += 1
    recorded = 0 if stages.record is None else stages.record.episodes
    starts += stages.record is not None
    played = (episodes + RECORDING * recorded) * found.episode_length * found.play
    return starts * found.start + config.steps * found.step + played


def _problems(found: Plan, study: Study) -> list[str]:
    """Why its runs cannot be run, with the numbers."""
    problems: dict[str, None] = {}
    for kind, planned in zip(study.kinds, found.kinds, strict=True):
        what = f"part {planned.part}: a run of {planned.agent} on {planned.encoder} in {planned.env} takes"
        needed = planned.replay_gib if planned.memory_gib is None else planned.memory_gib
        if needed > kind.resources.memory:
            problems[f"{what} {needed:.1f} GiB of memory, resources.memory gives it {kind.resources.memory:g}"] = None
        gpu, share = planned.gpu_gib, planned.gpu_share_gib
        if gpu is not None and share is not None and gpu > share:
            gives = f"resources.gpu={kind.resources.gpu:g} gives it {share:.1f}"
            problems[f"{what} {gpu:.1f} GiB of GPU memory, {gives}"] = None
    return list(problems)


def _disk_problem(found: Plan) -> list[str]:
    if found.disk_gib is None:
        what, disk = "replay of all runs takes", sum(k.runs * k.replay_gib for k in found.kinds)
    else:
        what, disk = "all runs take", found.disk_gib
    return [f"{what} {disk:,.1f} GiB of disk, {found.free_disk_gib:,.1f} are free"] * (disk > found.free_disk_gib)
