"""`study plan`: how many runs, hours, memory and disk, before a study starts, from a few steps of each kind of run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mbrl_pvr.build import planned_shapes
from mbrl_pvr.config import from_dict, to_dict
from mbrl_pvr.evaluation import MAX_PARALLEL
from mbrl_pvr.replay import row_bytes
from mbrl_pvr.schema import flatten
from mbrl_pvr.session import try_start
from mbrl_pvr.settings import RunConfig
from mbrl_pvr.splits import held_out_splits
from mbrl_pvr.storage import free_space
from mbrl_pvr.study.cells import Kind, Study
from mbrl_pvr.study.engine import Engine
from mbrl_pvr.study.file import Resources, Stages
from mbrl_pvr.study.local import GIB, visible_gpus
from mbrl_pvr.study.measure import Measured, measure

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
    replay_gib: float  # of one run when full, in memory and on the disk
    step_seconds: float | None = None  # this and below: None where nothing was measured
    run_hours: float | None = None
    memory_gib: float | None = None
    gpu_gib: float | None = None
    disk_gib: float | None = None
    at_once: int = 1  # such runs on this machine


@dataclass(frozen=True)
class Plan:
    """What a study takes; `problems` are the reasons why it cannot be run here."""

    name: str
    runs: int
    kinds: list[KindPlan]
    worker_hours: float | None
    hours: float | None  # on this machine, with runs at once
    disk_gib: float | None
    free_disk_gib: float
    to_fetch: list[str] = field(default_factory=list)  # addresses of weights that are not here
    problems: list[str] = field(default_factory=list)


def plan(
    study: Study,
    engine: Engine,
    path: Path,
    *,
    measured: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Measure what is to be measured; `path` is where the study will lie."""
    known: dict[str, Measured] = {}
    to_fetch: dict[str, None] = {}
    kinds: list[KindPlan] = []
    costs = [_cost_key(kind) for kind in study.kinds]
    for number, (kind, cost) in enumerate(zip(study.kinds, costs, strict=True)):
        config = from_dict(kind.config)
        absent = try_start(config, path / "never_made")
        to_fetch |= dict.fromkeys(absent)
        if measured and cost not in known:
            known[cost] = measure(_without_weights(config, absent), kind.resources, _gpus(kind.resources))
        count = sum(run.kind == number for run in study.runs)
        kinds.append(_kind_plan(kind, config, count, known.get(cost), engine.capacity(kind.resources)))
        progress(number + 1, len(study.kinds))
    hours = [(k.runs * k.run_hours, k.at_once) for k in kinds if k.run_hours is not None]
    disk = sum(k.runs * k.disk_gib for k in kinds if k.disk_gib is not None)
    plain = Plan(
        name=study.name,
        runs=len(study.runs),
        kinds=kinds,
        worker_hours=sum(h for h, _ in hours) if measured else None,
        hours=sum(h / at_once for h, at_once in hours) if measured else None,
        disk_gib=disk if measured else None,
        free_disk_gib=free_space(path) / GIB,
        to_fetch=list(to_fetch),
    )
    return replace(plain, problems=_problems(plain, study))


def _cost_key(kind: Kind) -> str:
    """Equal for runs whose steps cost the same."""
    tree = {key: value for key, value in flatten(kind.config) if key not in NOT_COST}
    tree["resources"] = [kind.resources.cores, kind.resources.gpu]
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
    row = row_bytes(planned_shapes(config), 1, config.agent.carried) if found is None else found.replay_row
    plain = KindPlan(
        part=kind.part,
        agent=config.agent_preset,
        encoder=config.encoder.name,
        env=config.env.name,
        runs=count,
        steps=config.steps,
        replay_gib=rows * row / GIB,
        at_once=at_once,
    )
    if found is None:
        return plain
    episodes = max(config.eval.episodes, kind.stages.ood.episodes if kind.stages.ood else 0)
    workers = config.env.num + min(MAX_PARALLEL, episodes)
    disk = config.steps * row + config.keep_checkpoints * found.checkpoint
    return replace(
        plain,
        step_seconds=found.step,
        run_hours=_run_seconds(config, kind.stages, found) / 3600,
        memory_gib=(found.learner + workers * found.worker + rows * row) / GIB,
        gpu_gib=None if found.gpu is None else found.gpu / GIB,
        disk_gib=disk / GIB,
    )


def _run_seconds(config: RunConfig, stages: Stages, found: Measured) -> float:
    """Start, steps, evaluations, and the stages after training; each of these builds the agent anew."""
    evaluations = 1 + -(-config.steps // config.eval.every) if config.agent.policy else 0
    episodes = evaluations * config.eval.episodes
    starts = 1
    if (ood := stages.ood) is not None:
        splits = held_out_splits(config, ood.shifts, ood.severities, each_factor=ood.each_factor)
        episodes += (1 + len(splits)) * ood.episodes
        starts += 1
    recorded = 0 if stages.record is None else stages.record.episodes
    starts += stages.record is not None
    played = (episodes + RECORDING * recorded) * found.episode_length * found.play
    return starts * found.start + config.steps * found.step + played


def _problems(found: Plan, study: Study) -> list[str]:
    """Why it cannot be run here, with the numbers."""
    problems: dict[str, None] = {}
    for kind, planned in zip(study.kinds, found.kinds, strict=True):
        what = f"part {planned.part}: a run of {planned.agent} on {planned.encoder} in {planned.env}"
        needed = planned.replay_gib if planned.memory_gib is None else planned.memory_gib
        if needed > kind.resources.memory:
            problems[
                f"{what} takes {needed:.1f} GiB of memory, resources.memory gives it {kind.resources.memory:g}"
            ] = None
    disk = sum(k.runs * (k.replay_gib if k.disk_gib is None else k.disk_gib) for k in found.kinds)
    if disk > found.free_disk_gib:
        problems[f"all runs take {disk:,.1f} GiB of disk, {found.free_disk_gib:,.1f} are free"] = None
    return list(problems)
