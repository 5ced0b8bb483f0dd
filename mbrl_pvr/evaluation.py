"""Evaluation episodes of an agent, in the training distribution and outside it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mbrl_pvr import envs
from mbrl_pvr.build import env_config
from mbrl_pvr.config import RunConfig
from mbrl_pvr.envs.config import SHIFTS
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.rollout import Episode, agent_policy, rounds
from mbrl_pvr.seeding import derive
from mbrl_pvr.session import Trained, load_trained
from mbrl_pvr.video import write_video

MAX_PARALLEL = 4  # environments of one round; part of the protocol, since the episodes' seeds depend on it
VIDEO_SECONDS_PER_STEP = 0.02  # of one simulator step on screen; dm_control's tasks take 0.01 to 0.04


@dataclass(frozen=True)
class Split:
    """The looks that episodes are drawn from: those of training ("train") or those held out from it."""

    name: str = "train"
    shift: str = "none"  # what differs from the training distribution
    severity: float = 0.0

    def apply(self, config: envs.EnvConfig) -> envs.EnvConfig:
        """The environment under this split's shift; in distribution it stays as it was trained on."""
        return config if self.shift == "none" else replace(config, shifts=self.shift, severity=self.severity)


IN_DISTRIBUTION = Split()


def play(
    trained: Trained, split: Split, stream: str, episodes: int, *, skip: int = 0, pixels: bool = False
) -> Iterator[tuple[int, Episode]]:
    """Number and content of `episodes` episodes without exploration noise; the first `skip` are left out.

    Episodes are a function of the run's seed, `stream` and the number of episodes asked for (up to MAX_PARALLEL).
    """
    n = min(episodes, MAX_PARALLEL)
    seed = trained.config.seed
    choice = split.apply(env_config(trained.config, pixels=pixels))
    with envs.make(choice, num=n, seed=seed, stream=stream, split=split.name) as env:
        played = rounds(
            lambda k: agent_policy(trained.agent, n, derive(seed, f"plan-{stream}", k)),
            trained.features,
            env,
            stack=trained.agent.sequence.stack,
            device=trained.device,
            start=skip // n,
        )
        for k, one_round in enumerate(islice(played, ceil(episodes / n) - skip // n), start=skip // n):
            for number, episode in enumerate(one_round, start=k * n):
                if skip <= number < episodes:
                    yield number, episode


def row(config: RunConfig, kind: str, split: Split, step: int, number: int, episode: Any) -> dict[str, Any]:
    """An episode as a row of episodes.jsonl or ood.jsonl; `episode` has total_reward, length and success."""
    return {
        "kind": kind,
        "agent": config.agent.name,
        "encoder": config.encoder.name,
        "task": config.env.name,
        "shift": split.shift,
        "severity": split.severity,
        "seed": config.seed,
        "step": step,
        "frame": step * config.env.action_repeat,
        "episode": number,
        "return": episode.total_reward,
        "length": episode.length,
        "success": episode.success,
    }


def evaluate_agent(
    trained: Trained, kind: str, split: Split, episodes: int, *, video: bool, skip: int = 0
) -> Iterator[dict]:
    """Rows of `episodes` episodes as they end; with `video` the first is filmed into the run's videos/."""
    stream = f"{kind}-{split.shift}"
    for number, episode in play(trained, split, stream, episodes, skip=skip, pixels=video):
        if video and number == 0:
            name = f"videos/{kind}_{split.name}_step_{trained.step:09d}.mp4"
            fps = 1 / (VIDEO_SECONDS_PER_STEP * trained.config.env.action_repeat)
            with trained.run.replace(name) as temporary:
                write_video(temporary, episode.frames, fps)
        yield row(trained.config, kind, split, trained.step, number, episode)


def evaluate_run(run: Path | str, *, episodes: int = 12, video: bool = False) -> pd.DataFrame:
    """Play `episodes` in the training distribution with the newest checkpoint; one row each. Writes only videos."""
    with load_trained(run) as trained:
        return pd.DataFrame(evaluate_agent(trained, "eval", IN_DISTRIBUTION, episodes, video=video))


def ood(
    run: Path | str, *, episodes: int = 200, shift: str | None = None, severity: float | None = None, video: bool = True
) -> pd.DataFrame:
    """Play `episodes` under the training looks, and as many under the held-out looks of `shift`.

    `held_out` says what the defaults mean. Rows are appended to ood.jsonl as episodes end, ood.parquet is rebuilt from
    it; episodes that have a row are not played again. Raises ConfigError where the run was trained without shifts and
    none is named.
    """
    with load_trained(run) as trained:
        tested = held_out(trained.config, shift, severity)
        journal = trained.run.journal("ood.jsonl")
        for split in (IN_DISTRIBUTION, tested):
            key = {"split": split.name, "shift": split.shift, "severity": split.severity, "step": trained.step}
            done = sum(all(r[k] == v for k, v in key.items()) for r in journal.rows())
            for entry in evaluate_agent(trained, "ood", split, episodes, video=video, skip=min(done, episodes)):
                journal.append({**entry, "split": split.name})
                journal.commit()
        table = pd.DataFrame(journal.rows())
        with trained.run.replace("ood.parquet") as temporary:
            table.to_parquet(temporary, index=False)
        return table


def held_out(config: RunConfig, shift: str | None = None, severity: float | None = None) -> Split:
    """The looks to test a run on: as in training unless named; severity 1 for a shift that training did not have."""
    chosen = shift or config.env.shifts
    if chosen not in SHIFTS or chosen == "none":
        raise ConfigError(
            f"shift={chosen!r} is no shift to test on",
            "ood",
            f"Name one: --shift {' or '.join(s for s in SHIFTS if s != 'none')}",
        )
    as_trained = config.env.severity if chosen == config.env.shifts else 1.0
    return Split("held_out", chosen, as_trained if severity is None else severity)


def mean_return(rows: list[dict[str, Any]]) -> float:
    """Mean return of episode rows."""
    return float(np.mean([r["return"] for r in rows]))
