"""Evaluation episodes of an agent, in the training distribution and outside it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mbrl_pvr import envs
from mbrl_pvr.build import env_config
from mbrl_pvr.config import RunConfig
from mbrl_pvr.display import Display
from mbrl_pvr.envs import random_score
from mbrl_pvr.envs.offers import has_state
from mbrl_pvr.errors import ConfigError, WorkerDied
from mbrl_pvr.rollout import Episode, Policy, agent_policy, rounds
from mbrl_pvr.seeding import derive
from mbrl_pvr.session import Trained, load_trained
from mbrl_pvr.splits import IN_DISTRIBUTION, Split, held_out_splits
from mbrl_pvr.storage import make_folders
from mbrl_pvr.video import write_grid, write_video
from pvr_zoo.weights import cache_root
from world_models.types import Obs

MAX_PARALLEL = 4  # environments of one round; part of the protocol, since the episodes' seeds depend on it
OOD_SEED = 0  # of the episodes of `ood`: every run meets the same states and looks
DEBUG_STEPS = 20  # agent steps of an episode under --debug, as in training


def episode_steps(trained: Trained) -> int:
    """Agent steps of the longest possible episode."""
    longest = int(trained.run.manifest["env"]["episode_length"])
    return min(longest, trained.config.env.max_steps or longest)


def shortened(trained: Trained, debug: bool) -> Trained:
    """For --debug: the same agent, whose episodes end after DEBUG_STEPS."""
    if not debug:
        return trained
    env = replace(trained.config.env, max_steps=min(DEBUG_STEPS, episode_steps(trained)))
    return replace(trained, config=replace(trained.config, env=env))


def output(trained: Trained, name: str) -> str:
    """Where a file goes in the run folder: shortened episodes must not stand among, or in place of, whole ones."""
    whole = episode_steps(trained) == trained.run.manifest["env"]["episode_length"]
    return name if whole else f"debug/{name}"


def play(
    trained: Trained,
    split: Split,
    stream: str,
    episodes: int,
    *,
    skip: int = 0,
    pixels: bool = False,
    state: bool = False,
    seed: int | None = None,
) -> Iterator[tuple[int, Episode]]:
    """Number and content of `episodes` episodes without exploration noise; the first `skip` are left out.

    With `state` they have the task's state vector, which the agent need not see. Episodes are a function of `seed` (by
    default the run's), `stream` and the number of episodes asked for (up to MAX_PARALLEL); two splits of one stream
    start alike and differ in looks alone. A round whose worker dies is played again; WorkerDied where it does so twice.
    """
    n = min(episodes, MAX_PARALLEL)
    begin, end = skip // n, ceil(episodes / n)  # rounds
    if begin == end:
        return
    if not trained.config.agent.policy:
        what = "this run learned no policy (agent.policy=false), so it plays no episodes"
        how = f"Record what it predicts of a bank: mbrl-pvr record {trained.run.path} --bank BANK"
        raise ConfigError(what, str(trained.run.path), how)
    own, per_round = trained.config.seed, n * episode_steps(trained)
    choice = split.apply(env_config(trained.config, pixels=pixels))
    choice = replace(choice, proprio=choice.proprio or (state and has_state(choice.name)))
    stack, device = trained.agent.sequence.stack, trained.device
    first, died_in = begin, -1
    with Display(what=f"{stream.partition('-')[0]}, {split.name} looks:") as display:

        def policy(k: int) -> Policy:
            chosen = agent_policy(trained.agent, n, derive(own, f"plan-{stream}", k))

            def watched(obs: Obs, tick: int) -> np.ndarray:
                display.progress((k - first) * per_round + tick * n, (end - first) * per_round)
                return chosen(obs, tick)

            return watched

        def from_round(k: int) -> Iterator[tuple[int, list[Episode]]]:
            with envs.make(choice, num=n, seed=own if seed is None else seed, stream=stream, split=split.name) as env:
                played = rounds(policy, trained.features, env, stack=stack, device=device, start=k)
                yield from islice(enumerate(played, start=k), end - k)

        while begin < end:
            try:
                for k, one_round in from_round(begin):
                    numbered = enumerate(one_round, start=k * n)
                    yield from ((number, episode) for number, episode in numbered if skip <= number < episodes)
                    begin = k + 1
            except WorkerDied as error:
                if died_in == begin:
                    raise
                died_in = begin
                display.say(f"{error.what}; episodes {begin * n} to {begin * n + n - 1} are played again")
        display.progress((end - first) * per_round, (end - first) * per_round)


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
    """Rows of `episodes` episodes but the first `skip`, as they end.

    With `video` episode 0 is filmed into the run's videos/; where it is among the skipped, only if its film is missing.
    """
    stream = f"{kind}-{IN_DISTRIBUTION.shift}"  # of every split, so that episode k starts the same under other looks
    film, seed = _film(trained, kind, split), OOD_SEED if kind == "ood" else None
    if video and skip and not (trained.run.path / film).exists():
        (_, first), *_ = play(trained, split, stream, min(episodes, MAX_PARALLEL), pixels=True, seed=seed)
        _write_film(trained, film, first)
    filmed = video and not skip
    for number, episode in play(trained, split, stream, episodes, skip=skip, pixels=filmed, seed=seed):
        if filmed and number == 0:
            _write_film(trained, film, episode)
        yield row(trained.config, kind, split, trained.step, number, episode)


def _film(trained: Trained, kind: str, split: Split) -> str:
    return output(trained, f"videos/{kind}_{split.label}_step_{trained.step:09d}.mp4")


def _write_film(trained: Trained, name: str, episode: Episode) -> None:
    with trained.run.replace(name) as temporary:
        write_video(temporary, episode.frames, episode.fps)


def evaluate_run(run: Path | str, *, episodes: int = 12, video: bool = False, debug: bool = False) -> pd.DataFrame:
    """Play `episodes` in the training distribution with the newest checkpoint; one row each. Writes only videos."""
    with load_trained(run) as loaded:
        trained = shortened(loaded, debug)
        return pd.DataFrame(evaluate_agent(trained, "eval", IN_DISTRIBUTION, episodes, video=video))


def ood(
    run: Path | str,
    *,
    episodes: int = 200,
    shifts: Sequence[str] = (),
    severities: Sequence[float] = (),
    each_factor: bool = False,
    video: bool = True,
    debug: bool = False,
) -> pd.DataFrame:
    """Play `episodes` under the training looks, and as many under each of the `held_out_splits`; one row each.

    Episode k starts from the same state under every look, and of every run. Rows are appended to ood.jsonl as episodes
    end, ood.parquet is rebuilt from it; episodes that have a row are not played again. `normalised` is the return as a
    share of the way from the random policy's to the task's declared maximum, null where none is declared
    (`mbrl_pvr.envs.random_score`). These files keep what was played at other checkpoints and under other shifts too,
    which is not returned. With `video` the first episode of each is filmed, and all of them once more side by side.
    Raises ConfigError where the run was trained without shifts and none is named.
    """
    with load_trained(run) as loaded:
        trained = shortened(loaded, debug)
        splits = (IN_DISTRIBUTION, *held_out_splits(trained.config, shifts, severities, each_factor=each_factor))
        make_folders((trained.run.path / output(trained, "ood.jsonl")).parent)
        journal = trained.run.journal(output(trained, "ood.jsonl"))
        normalise = _normaliser(trained.config.env)
        for split in splits:
            done = len(_rows_of(journal.rows(), split, trained.step))
            for entry in evaluate_agent(trained, "ood", split, episodes, video=video, skip=min(done, episodes)):
                journal.append({**entry, "normalised": normalise(entry["return"]), "split": split.name})
                journal.commit()
        rows = journal.rows()
        with trained.run.replace(output(trained, "ood.parquet")) as temporary:
            pd.DataFrame(rows).to_parquet(temporary, index=False, write_page_checksum=True)
        if video:
            _write_grid(trained, splits)
        asked = [r for split in splits for r in _rows_of(rows, split, trained.step) if r["episode"] < episodes]
        return pd.DataFrame(asked)  # of each split the same episodes, also where an earlier call has played more


def _write_grid(trained: Trained, splits: Sequence[Split]) -> None:
    """The first episode under every look side by side; a picture stays where its episode is over."""
    films = {split: trained.run.path / _film(trained, "ood", split) for split in splits}
    pictures = {s.title: film for s, film in films.items()}
    with trained.run.replace(output(trained, f"videos/ood_grid_step_{trained.step:09d}.mp4")) as temporary:
        write_grid(temporary, pictures)


def _normaliser(env: envs.EnvConfig) -> Callable[[float], float | None]:
    """From returns to normalised returns; measures the random policy's score where that is not known yet."""
    top = random_score.maximum(env)
    if top is None:
        return lambda total: None
    with Display(what="random policy, episodes:") as display:
        score = random_score.random_score(env, cache_root() / "random_scores", display.progress)
    return partial(random_score.normalised, score=score, top=top)


def _rows_of(rows: Sequence[dict[str, Any]], split: Split, step: int) -> list[dict[str, Any]]:
    """The rows of one split that a checkpoint has played."""
    key = {"split": split.name, "shift": split.shift, "severity": split.severity, "step": step}
    return [r for r in rows if all(r[k] == v for k, v in key.items())]


def mean_return(rows: list[dict[str, Any]]) -> float:
    """Mean return of episode rows."""
    return float(np.mean([r["return"] for r in rows]))
