"""A run that trains nothing but goes through every file: what the fault tests kill, fail, damage and resume.

As a script, `toy_run.py FOLDER`: kill a child with os._exit(137) at every system call in turn, resume each, and report.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from mbrl_pvr import checkpoint, storage
from mbrl_pvr.fingerprint import fingerprint
from mbrl_pvr.logger import Logger
from mbrl_pvr.replay import Replay
from mbrl_pvr.runfolder import RunFolder
from mbrl_pvr.schedule import Every
from mbrl_pvr.seeding import rng
from world_models.types import ObsShapes, SequenceSpec

STEPS, EVERY, CAPACITY, EPISODE = 9, 3, 5, 4
CONFIG = {"seed": 3, "lr": 1e-3, "name": "toy"}


class Killed(BaseException):
    """Stands for kill -9: no handler of ordinary errors sees it."""


class Faulty(storage.Syscalls):
    """Counts calls; number `at` raises `error`, or dies `before` the call or in its `middle` (a write)."""

    def __init__(
        self, at: int = -1, how: str = "before", error: int = 0, die: Callable[[], None] | None = None
    ) -> None:
        self.at, self.how, self.error, self.die = at, how, error, die
        self.count, self.dead, self.names = 0, False, []
        self.files: set[int] = set()

    def __call__(self, name, *args):
        if self.dead:
            raise Killed
        self.names.append(name)
        number, self.count = self.count, self.count + 1
        if number != self.at:
            return self._really(name, args)
        if self.error:
            if name == "close":  # the kernel closes the file also where close reports an error
                self._really(name, args)
            raise OSError(self.error, os.strerror(self.error))
        if self.how == "middle" and name == "write":
            os.write(args[0], args[1][: len(args[1]) // 2])
        return self._die()

    def _really(self, name, args):
        if name == "fsync":  # nothing here loses power
            return None
        result = super().__call__(name, *args)
        if name == "open":
            self.files.add(result)
        elif name == "close":
            self.files.discard(args[0])
        return result

    def _die(self):
        if self.die is not None:
            self.die()
        self.dead = True
        for fd in self.files:  # as the kernel does; this also frees the lock
            os.close(fd)
        raise Killed


def make_replay() -> Replay:
    return Replay(ObsShapes(feature=(3,), proprio=2), 2, 2 * CAPACITY, 2)


def add_row(replay: Replay, tick: int) -> None:
    noise = rng(CONFIG["seed"], "env", tick)
    position = (tick + np.array([0, 2])) % EPISODE
    replay.add(
        feature=noise.standard_normal((2, 3)).astype(np.float16),
        proprio=noise.standard_normal((2, 2)).astype(np.float32),
        action=noise.uniform(-1, 1, (2, 2)).astype(np.float32),
        reward=noise.standard_normal(2).astype(np.float32),
        is_first=(position == 0) | (tick == 0),
        is_last=position == EPISODE - 1,
        is_terminal=np.zeros(2, bool),
    )


def train(path: Path, saved: list[int] | None = None, warn=lambda line: None, steps: int = STEPS) -> None:
    """Create or continue the run at `path` and finish it; appends each committed step to `saved`."""
    saved = [] if saved is None else saved
    with RunFolder.open(path, CONFIG, identity=CONFIG, diff=lambda a, b: ["changed"]) as run:
        run.set_manifest({"device": "cpu"})
        found = checkpoint.restore(run, warn)
        replay, weights, start = make_replay(), torch.zeros(4), 0
        with Logger(run) as logger:
            if found is not None:
                weights, start = found.tensors("agent")["weights"], found.meta["step"]
                replay.load(run.path, found.replay)
                logger.load_state_dict(found.meta["logger"])
            for now in range(start + 1, steps + 1):
                add_row(replay, now - 1)
                batch = replay.sample(SequenceSpec(4, 1, 2), rng(CONFIG["seed"], "sample", now))
                weights = 0.9 * weights + batch.obs.feature.float().mean() + batch.reward.mean()
                logger.metrics({"train/weight": weights.sum(), "time/speed": float(now)})
                if Every(2)(now - 1, now):  # not at the same steps as checkpoints, so that means wait across them
                    logger.flush(now)
                if Every(EPISODE)(now - 1, now):
                    logger.episode({"kind": "train", "step": now, "return": float(weights[0]), "success": float("nan")})
                if Every(EVERY)(now - 1, now):
                    meta = {"step": now, "logger": logger.state_dict()}
                    groups = {"agent": {"weights": weights, "counter": torch.tensor(now)}}
                    checkpoint.save(run, now, groups, meta, replay=replay, device="cpu")
                    saved.append(now)
                logger.progress(now, steps)
        run.set_status("finished", steps)


def _in_child(action: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _killed_session(path: Path, at: int, how: str) -> None:
    with storage.using(Faulty(at, how, die=lambda: os._exit(137))):
        train(path)


def kill_every_call(root: Path) -> None:
    """Prints one line per surprise, and at the end how many kills there were."""
    torch.set_num_threads(1)
    counting = Faulty()
    with storage.using(counting):
        train(root / "whole")
    wanted = fingerprint(root / "whole")
    for at in range(counting.count):
        path, how = root / f"{at}", ("before", "middle")[at % 2]
        code = _in_child(lambda path=path, at=at, how=how: _killed_session(path, at, how))
        with storage.using(Faulty()):
            train(path)
        if code != 137 or fingerprint(path) != wanted:
            print(f"surprise at call {at} ({counting.names[at]}, {how}): exit code {code}")
    print(f"kills: {counting.count}")


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        kill_every_call(Path(sys.argv[1]))
