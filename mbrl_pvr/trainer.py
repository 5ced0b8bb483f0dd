"""The main job: train a world model and its agent, from a configuration to a finished run folder."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from mbrl_pvr import checkpoint
from mbrl_pvr.config import RunConfig
from mbrl_pvr.display import Display
from mbrl_pvr.errors import IntegrityError, StorageError
from mbrl_pvr.evaluation import evaluate_agent, mean_return, row
from mbrl_pvr.finite import refuse_bad_batch
from mbrl_pvr.fits import not_episodic
from mbrl_pvr.runfolder import is_new, read_status
from mbrl_pvr.schedule import Every
from mbrl_pvr.seeding import rng
from mbrl_pvr.session import Session, open_folder, open_session, read_config
from mbrl_pvr.splits import IN_DISTRIBUTION

BURST = 20  # more first updates than this are not waited for by Ctrl-C
_STOPPING = b"stopping: the run is saved after this step, or the evaluation under way; Ctrl-C again ends it at once\n"


@dataclass(frozen=True)
class Result:
    """What a training run ended with."""

    path: Path
    steps: int  # agent steps
    eval_return: float  # mean of the last evaluation; NaN without a policy


class Interrupted(KeyboardInterrupt):
    """The user or the scheduler asked to stop; the run was saved and can be resumed."""


def train(config: RunConfig, directory: Path | str) -> Result:
    """Train in `directory`; continues what the folder holds.

    Raises ConfigError where the folder holds a run of another configuration, RunLocked where another process uses it,
    Interrupted after a first Ctrl-C or SIGTERM, once the state is saved.
    """
    if (ended := _ended(config, directory)) is not None:
        return ended
    with open_session(config, directory) as session, _StopFlag() as stop, _reported(session):
        return _loop(session, stop)


def resume(directory: Path | str) -> Result:
    """Continue the run in `directory` with the configuration stored there."""
    return train(read_config(Path(directory)), directory)


def _ended(config: RunConfig, directory: Path | str) -> Result | None:
    """What the run in `directory` ended with; None where there is something left to do."""
    if is_new(directory) or read_status(directory)["state"] != "finished":
        return None
    with open_folder(config, directory) as run:
        saved = checkpoint.latest(run.path)
        for name, committed in (saved.manifest["journals"] if saved else {}).items():
            run.journal(name).verify(**committed)
        rows = run.journal("metrics.jsonl").rows()
    returns = {row["step"]: row["eval/return"] for row in rows if "eval/return" in row}
    if saved is None or saved.step < config.steps:  # the end of it was damaged
        return None
    if config.agent.policy and saved.step not in returns:
        return None
    Display().say(f"this run has finished: {saved.step:,} of {config.steps:,} steps")
    return Result(run.path, saved.step, returns.get(saved.step, float("nan")))


def _loop(s: Session, stop: "_StopFlag") -> Result:
    """Collect, learn, evaluate, save; each tick of the environments is one turn."""
    config, collector = s.config, s.collector
    should_log, should_evaluate = Every(config.log_every), Every(config.eval.every)
    should_save = Every(config.checkpoint_every)
    if collector.ticks == 0:
        collector.start()
        with stop.at_once(f"stopped before the first step; start it with: mbrl-pvr resume {s.run.path}"):
            _evaluate(s)
    elif s.evaluation_due:  # the run was saved, then ended before it could evaluate
        _evaluate(s)
    while collector.steps < config.steps:
        before = collector.steps
        collector.send(explore_randomly=before < config.random_steps)
        if s.updates == 0 and (due := _due(s)) > BURST:  # minutes, and cannot be saved half done
            again = f"stopped in the {due} updates after the random steps, which are done again; continue with"
            with stop.at_once(f"{again}: mbrl-pvr resume {s.run.path}"):
                _learn(s)
        else:
            _learn(s)
        for episode in collector.receive():
            if episode.terminal and not config.agent.episodic:
                raise not_episodic(config.env.name)
            s.logger.episode(row(config, "train", IN_DISTRIBUTION, collector.steps, episode.number, episode))
        now, last = collector.steps, collector.steps >= config.steps
        if should_log(before, now) or last:
            s.logger.metrics({f"time/{part}": seconds for part, seconds in collector.clock.take().items()})
            s.logger.flush(now)
        s.evaluation_due = should_evaluate(before, now) or last
        if should_save(before, now) or last or stop.requested:
            s.save()  # before the evaluation, which may take long; a run that ends within is resumed with it
        if stop.requested:
            raise Interrupted(f"stopped at step {now} and saved; continue with: mbrl-pvr resume {s.run.path}")
        if s.evaluation_due:
            _evaluate(s)
        s.logger.progress(now, config.steps)
    s.logger.commit()
    return Result(s.run.path, collector.steps, s.eval_return)


def _learn(s: Session) -> None:
    """As many updates as are due, on data that is already stored."""
    for _ in range(_due(s)):
        with s.collector.clock("sample"):
            batch = s.replay.sample(s.agent.sequence, rng(s.config.seed, "sample", s.updates))
            refuse_bad_batch(batch, s.run, s.updates, s.collector.steps)  # before it goes to a device
            batch = batch.to(s.device)
        with s.collector.clock("update"):
            metrics = s.agent.update(batch)
        s.replay.refresh(batch)
        s.updates += 1
        _refuse_nan(metrics, s)
        s.logger.metrics({f"train/{k}": v for k, v in metrics.items()})


def _due(s: Session) -> int:
    """How many updates are to follow this tick."""
    config, steps = s.config, s.collector.steps
    random = config.random_steps if config.data is None else 0
    if steps < random:
        return 0
    counted = steps if config.catch_up else steps - random
    return int(counted * config.updates_per_step) - s.updates


def _refuse_nan(metrics: dict[str, torch.Tensor], s: Session) -> None:
    """Stop at the first update whose loss is not finite, before it can reach a checkpoint."""
    if not torch.stack(list(metrics.values())).isfinite().all():  # one tensor: a GPU is waited for once an update
        bad = sorted(k for k, v in metrics.items() if not v.isfinite())
        raise IntegrityError(
            f"{', '.join(bad)} became NaN or infinite at update {s.updates} (agent step {s.collector.steps})",
            str(s.run.path),
            "The newest checkpoint is from before it; lower agent.lr or look at the rewards, then start a new run",
        )


def _evaluate(s: Session) -> None:
    """Episodes in the training distribution, always the same ones, so that the curve compares like with like; none
    without a policy.
    """
    s.step = s.collector.steps
    if not s.config.agent.policy:
        s.evaluation_due = False
        return
    rows = list(evaluate_agent(s, "eval", IN_DISTRIBUTION, s.config.eval.episodes, video=s.config.eval.video))
    for entry in rows:
        s.logger.episode(entry)
    s.evaluation_due, s.eval_return = False, mean_return(rows)
    s.logger.metrics({"eval/return": s.eval_return})
    s.logger.flush(s.step)


@contextmanager
def _reported(s: Session) -> Iterator[None]:
    """Say in status.json how the run ends."""
    s.run.set_status("running", s.collector.steps)
    try:
        yield
    except BaseException as error:
        with suppress(StorageError):  # the error that led here is the one to report
            s.run.set_status("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", s.collector.steps)
        raise
    s.run.set_status("finished", s.collector.steps)


class _StopFlag:
    """Ctrl-C or SIGTERM asks for a stop at the next tick; a second one ends the process at once."""

    def __enter__(self) -> "_StopFlag":
        self.requested = False
        self._nothing_lost = ""
        self._old = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._nothing_lost:
            raise Interrupted(self._nothing_lost)
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        with suppress(OSError):  # a closed terminal is no reason to stop in another way
            os.write(2, _STOPPING)  # print could meet itself: the signal may come while something is being printed

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """The first signal ends the process too: nothing has been done that would have to be saved."""
        self._nothing_lost = message
        try:
            yield
        finally:
            self._nothing_lost = ""

    def __exit__(self, *exc: object) -> None:
        for s, handler in self._old.items():
            signal.signal(s, handler)
