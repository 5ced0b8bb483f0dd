"""What a run is made of, put together: from a folder and a configuration to something that trains or is looked at."""

import logging
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mbrl_pvr import checkpoint, config, envs
from mbrl_pvr.bank import Bank
from mbrl_pvr.build import (
    EnvFacts,
    build_agent,
    build_features,
    env_config,
    pick_compile,
    pick_device,
    pick_encoder_compile,
    planned_shapes,
    refuse_unfit,
    running_cost,
    setup_process,
)
from mbrl_pvr.collect import Collector
from mbrl_pvr.config import RunConfig
from mbrl_pvr.display import Display
from mbrl_pvr.envs.video import check_files, listing
from mbrl_pvr.errors import IntegrityError
from mbrl_pvr.features import Features
from mbrl_pvr.logger import Logger
from mbrl_pvr.offline import BankReader, require_bank
from mbrl_pvr.precision import UpdatePrecision, pick_precision
from mbrl_pvr.replay import Replay, estimate, require_memory, row_bytes
from mbrl_pvr.runfolder import RunFolder, is_new, read_run
from mbrl_pvr.schema import flatten
from mbrl_pvr.settings import WITHOUT_ENCODER
from mbrl_pvr.sinks import make_sinks, require_sinks
from mbrl_pvr.storage import require_space
from mbrl_pvr.unchanged import refuse_other_encoder, refuse_other_videos
from world_models.agent import Agent

_log = logging.getLogger(__name__)

VERSIONS = ("torch", "numpy", "dm_control", "mujoco", "gymnasium", "mani_skill", "sapien", "miniworld", "timm")


@dataclass
class Trained:
    """An agent with what it needs to act: encoder, device, and the run folder it belongs to."""

    run: RunFolder
    config: RunConfig
    agent: Agent
    features: Features
    device: torch.device
    step: int  # agent steps behind these weights


@dataclass
class Session(Trained):
    """A run while it trains."""

    replay: Replay
    collector: Collector | BankReader
    logger: Logger
    updates: int = 0
    evaluation_due: bool = False  # at the present step
    eval_return: float = float("nan")  # of the last evaluation in this process

    def save(self) -> None:
        """Commit everything that continuing needs."""
        carry, numbers = split_carry(self.collector.carry)
        groups: dict[str, checkpoint.Tensors] = {"agent": self.agent.state_dict(), "carry": carry}
        if states := self.replay.states():
            groups["replay_states"] = states
        meta = {
            "collector": self.collector.state_dict(),
            "carry": numbers,
            "updates": self.updates,
            "evaluation_due": self.evaluation_due,
            "logger": self.logger.state_dict(),
        }
        checkpoint.save(
            self.run,
            self.collector.steps,
            groups,
            meta,
            replay=self.replay,
            device=self.device,
            keep=self.config.keep_checkpoints,
        )

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Continue from `saved`, whose logs `checkpoint.restore` has cut."""
        self.agent.load_state_dict(saved.tensors("agent"))
        if saved.replay is None:
            raise IntegrityError("the checkpoint holds no replay", str(saved.path))
        self.replay.load(self.run.path, saved.replay)
        if self.agent.sequence.carried:
            self.replay.load_states(saved.tensors("replay_states"))
        exact = self.collector.load_state_dict(saved.meta["collector"])
        tensors = {k: v.to(self.device) for k, v in saved.tensors("carry").items()}
        self.collector.carry = replace(self.collector.carry, **tensors, **saved.meta["carry"])
        self.updates, self.step = saved.meta["updates"], saved.step
        self.evaluation_due = saved.meta.get("evaluation_due", False)  # older checkpoints came after it
        self.logger.load_state_dict(saved.meta["logger"])
        changed = checkpoint.inexact(saved, self.device)
        if not all(exact):
            changed.append("the simulator came to another state")
        if changed:
            _log.warning("the run continues, but not bit for bit as it would have: %s", ", ".join(changed))


class _Parts:
    """Environments and encoder of a run, started on first use; the environments end with `stack`."""

    def __init__(self, chosen: RunConfig, stack: ExitStack) -> None:
        self.config, self._stack = chosen, stack
        self.device = pick_device(chosen)
        self.compiled = pick_compile(chosen, self.device)
        self.encoder_compiled = pick_encoder_compile(chosen, self.device)
        self.encoder_precision: str = chosen.encoder.precision
        setup_process(chosen.threads)

    @cached_property
    def env(self) -> envs.VectorEnv:
        """The training environments."""
        made = envs.make(env_config(self.config), seed=self.config.seed, stream="train")
        return self._stack.enter_context(made)

    @cached_property
    def bank(self) -> Bank | None:
        """What the run learns from in place of environments."""
        return None if self.config.data is None else Bank.open(self.config.data)

    @cached_property
    def facts(self) -> EnvFacts:
        """What the agent must know of the environments."""
        return EnvFacts.of(self.env) if self.bank is None else EnvFacts(**self.bank.facts["env_facts"])

    @cached_property
    def features(self) -> Features:
        """The feature provider with its encoder."""
        precision, compiled = self.encoder_precision, self.encoder_compiled
        return build_features(self.config, self.facts, self.device, precision=precision, compiled=compiled)

    def keep(self, manifest: dict[str, Any]) -> None:
        """Build the encoder as at the start of the run, whatever a probe or another machine would say now."""
        self.encoder_precision, self.encoder_compiled = _encoder_precision(manifest), manifest["encoder_compiled"]

    def manifest(self) -> dict[str, Any]:
        """What the results depend on beside the configuration."""
        encoder, seen = self.features.encoder, self.features.precision
        return {
            "command": _command(),
            "git": _git_state(),
            "versions": _versions(self.device),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "compiled": self.compiled,
            "encoder": None if encoder is None else encoder.identity,
            "encoder_compiled": self.encoder_compiled,
            "encoder_precision": asdict(seen) if seen else None,
            "precision": asdict(pick_precision(self.config, self.features, self.facts, self.device)),
            "env": asdict(self.facts),
            "cost": running_cost(self.features, self.facts, self.config.agent.carried),
            "videos": None if self.config.env.video is None else listing(self.config.env.video),
            "data": None if self.bank is None else {"bank": self.bank.id, "episodes": len(self.bank)},
            "seed": self.config.seed,
            "action_repeat": self.config.env.action_repeat,
        }


def check_start(wanted: RunConfig, directory: Path | str) -> None:
    """What can be told before anything is built and of a new folder: whether sinks are installed, and room."""
    require_sinks(wanted.sinks)
    if is_new(directory):
        _require_room(wanted, Path(directory), row_bytes(planned_shapes(wanted), 1, wanted.agent.carried))


@contextmanager
def open_session(wanted: RunConfig, directory: Path | str) -> Iterator[Session]:
    """The run in `directory`, new or continued from its newest whole checkpoint; closes everything at the end."""
    check_start(wanted, directory)
    with ExitStack() as stack:
        parts = _Parts(wanted, stack)
        run = stack.enter_context(open_folder(wanted, directory))
        with run.abandoned_on_error():
            session = _assemble(run, parts, stack)
        yield session


def open_folder(wanted: RunConfig, directory: Path | str) -> RunFolder:
    """The folder of a run, new or made with the same configuration; ConfigError with the difference where not."""
    identity = {"sha256": config.identity(wanted)}
    return RunFolder.open(directory, config.to_dict(wanted), identity=identity, diff=_diff)


def _assemble(run: RunFolder, parts: _Parts, stack: ExitStack) -> Session:
    """Everything that a run needs before its first step, in the state of its newest whole checkpoint."""
    wanted, new = parts.config, not run.manifest["complete"]
    if new:
        refuse_unfit(wanted, parts.facts)
        if wanted.eval.video and parts.bank is None:
            parts.env.call("check_pictures")
        if wanted.env.video is not None:
            check_files(wanted.env.video)
        run.set_manifest(parts.manifest())
    else:
        parts.keep(run.manifest)
    setup_process(run.manifest["threads"])  # a continued run keeps the threads it began with, or sums would differ
    facts, features, device = parts.facts, parts.features, parts.device
    refuse_other_encoder(run, features)
    refuse_other_videos(run, wanted)
    agent = build_agent(
        wanted, features, facts, device, compiled=run.manifest["compiled"], precision=_precision(run.manifest).name
    )
    if parts.bank is not None:
        require_bank(run.manifest["data"], parts.bank, wanted)
    rows = _rows(wanted, facts.episode_length) if parts.bank is None else parts.bank.frames
    replay = Replay(
        features.shapes,
        facts.action_dim,
        wanted.replay.capacity,
        wanted.env.num if parts.bank is None else 1,
        rows=rows,
        carried=agent.sequence.carried,
    )
    weights = sum(value.nbytes for value in agent.state_dict().values())
    _require_room(wanted, run.path, replay.bytes_per_step, weights)
    saved = checkpoint.restore(run)
    sinks = make_sinks(wanted.sinks, run)
    repeat = wanted.env.action_repeat
    display = Display()
    asked = features.precision is not None and wanted.encoder.precision != "float32"
    computes = [f"encoder: {features.precision}"] if asked else []
    computes += [f"updates: {_precision(run.manifest)}"] if wanted.precision != "float32" else []
    room = estimate(replay.expected, replay.bytes_per_step)
    for line in (*_continuation(run, wanted, saved, new), *computes, room):
        display.say(line)
    logger = stack.enter_context(Logger(run, sinks, frames_per_step=repeat, display=display))
    collector: Collector | BankReader
    if parts.bank is None:
        collector = Collector(parts.env, features, replay, agent, wanted.seed, device)
    else:
        collector = BankReader(parts.bank, features, replay, agent)
    session = Session(run, wanted, agent, features, device, 0, replay, collector, logger)
    if saved is not None:
        session.restore(saved)
    return session


def _continuation(run: RunFolder, wanted: RunConfig, saved: checkpoint.Checkpoint | None, new: bool) -> list[str]:
    """What to say of a run that goes on: from where, and which keys keep what the run began with."""
    if new:
        return []
    switches = {"compile": run.manifest["compiled"], "encoder.compile": run.manifest["encoder_compiled"]}
    kept = {"threads": run.manifest["threads"], **{key: "on" if on else "off" for key, on in switches.items()}}
    old, now = (dict(flatten(tree)) for tree in (run.config, config.to_dict(wanted)))
    ignored = [f"{key}={value}" for key, value in kept.items() if now[key] != old[key]]
    start = (
        f"continues at step {saved.step:,} of {wanted.steps:,}" if saved else "begins anew: it has no checkpoint yet"
    )
    return [f"this run {start}", *([f"kept from the start of this run: {', '.join(ignored)}"] if ignored else [])]


def _rows(chosen: RunConfig, episode_length: int) -> int:
    """Rows of replay that a run adds where no episode ends early: its steps, and a first frame for each episode."""
    num = chosen.env.num
    return chosen.steps + num * (chosen.steps // (num * episode_length) + 2)


def _require_room(chosen: RunConfig, path: Path, bytes_per_step: int, weights: int = 0) -> None:
    """TooSmall, StorageError: memory and disk for replay by the end of the run, and disk for its checkpoints.

    `weights` are the bytes of an agent's state, once that is known; one checkpoint more than are kept lies there for
    a moment.
    """
    rows = min(chosen.steps, chosen.replay.capacity)
    require_memory(rows, bytes_per_step)
    checkpoints = (chosen.keep_checkpoints + 1) * weights
    require_space(path, int(1.2 * rows * bytes_per_step) + checkpoints, "this run")


def split_carry(carry: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A carry (a dataclass) as its tensors and its plain numbers."""
    tensors = {k: v for k, v in vars(carry).items() if isinstance(v, torch.Tensor)}
    return tensors, {k: v for k, v in vars(carry).items() if k not in tensors}


def try_start(wanted: RunConfig, directory: Path | str) -> list[str]:
    """All that a start would refuse short of building anything; returns the addresses of weights not at hand."""
    import pvr_zoo
    from pvr_zoo import weights

    pick_device(wanted)
    check_start(wanted, directory)
    if not is_new(directory):
        with open_folder(wanted, directory):
            pass
    choice = wanted.encoder
    if choice.name in WITHOUT_ENCODER:
        return []
    if choice.weights is not None:
        pvr_zoo.create(choice.name, weights=choice.weights, **choice.request)  # whether they fit
        return []
    sources = config.encoder_spec(choice).sources
    return [source.address for source in sources if not source.package and not weights.place(source).is_file()]


@contextmanager
def load_trained(directory: Path | str) -> Iterator[Trained]:
    """The newest whole checkpoint of a run, ready to act, its folder locked; IntegrityError where there is none."""
    with RunFolder.attach(directory) as run:
        chosen = config.from_dict(run.config)
        saved = checkpoint.latest(run.path, to_continue=False)
        if saved is None:
            raise IntegrityError("this run has no checkpoint yet", str(run.path), "Continue it: mbrl-pvr resume RUN")
        facts = EnvFacts(**run.manifest["env"])
        device = pick_device(chosen)
        setup_process(chosen.threads)
        features = build_features(chosen, facts, device, precision=_encoder_precision(run.manifest))
        refuse_other_encoder(run, features)
        refuse_other_videos(run, chosen)
        agent = build_agent(chosen, features, facts, device, compiled=False, precision=_precision(run.manifest).name)
        agent.load_state_dict(saved.tensors("agent"))
        yield Trained(run, chosen, agent, features, device, saved.step)


def _precision(manifest: dict[str, Any]) -> UpdatePrecision:
    """What the run's updates and acting compute in, found at its start."""
    return UpdatePrecision(**manifest.get("precision", {"name": "float32"}))  # of older runs all was


def _encoder_precision(manifest: dict[str, Any]) -> str:
    """What the run's frozen encoder computes in, found at its start; "" where there is none."""
    return manifest["encoder_precision"]["name"] if manifest["encoder_precision"] else ""


def read_config(directory: Path | str) -> RunConfig:
    """The configuration that a run folder was made with."""
    return config.from_dict(read_run(directory)[0])


def _diff(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return config.diff(config.from_dict(old), config.from_dict(new))


def _command() -> list[str]:
    """What was typed; after a call from Python, what repeats the run from inside its folder."""
    typed = Path(sys.argv[0]).name == "mbrl-pvr"
    return sys.argv if typed else ["mbrl-pvr", "train", "--config", "./config.yaml"]


def _versions(device: torch.device) -> dict[str, str | None]:
    """Of packages and Python, and of the GPU's driver where one is used."""
    found: dict[str, str | None] = {name: version(name) for name in VERSIONS}
    found["python"] = platform.python_version()
    if device.type == "cuda":
        found["nvidia_driver"] = _ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout that this code runs from, and whether it was changed; None for an installed package."""
    commit, changes = _ask("git", "rev-parse", "HEAD"), _ask("git", "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changes is None else {"commit": commit, "dirty": bool(changes)}


def _ask(*command: str) -> str | None:
    """What a program prints, run beside this file; None where it is not there or fails."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
