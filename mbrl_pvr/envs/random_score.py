"""What uniformly random actions earn in a task, and returns normalised by it: (G - G_random) / (G_max - G_random).

As in the study (Schneider et al. 2024, section 4): the maximum is 1000 in dm_control, 200 in ManiSkill and 5 in
Miniworld's PickupObjects. Scores of the study's dm_control tasks are stored in `random_scores.json`, each with the
command that measured it; others are measured when they are first asked for and kept in the cache. What a shift changes
in the picture alone changes nothing here; sizes and scenes that physics has do, and are drawn as in training.
"""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.names import family, resolve, simulator_versions
from mbrl_pvr.envs.offers import physical
from mbrl_pvr.envs.vector import make
from mbrl_pvr.seeding import derive
from mbrl_pvr.storage import make_folders, write_atomic

_log = logging.getLogger(__name__)
EPISODES = 200  # of a task whose score is not stored


@dataclass(frozen=True)
class RandomScore:
    """The mean return of uniformly random actions, agent steps being `action_repeat` simulator steps."""

    task: str
    action_repeat: int
    episodes: int
    mean: float
    std: float  # over episodes
    command: str  # that measured it
    versions: dict[str, str]  # of the simulator

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the mean, by its standard error."""
        half = 1.96 * self.std / math.sqrt(self.episodes)
        return self.mean - half, self.mean + half


def maximum(config: EnvConfig) -> float | None:
    """The return that counts as 1, where one is declared: not for episodes or rewards that are not the task's own."""
    if config.max_steps is not None or config.time_limit is not None or config.reward != "dense":
        return None
    name = resolve(config.name)
    if name.startswith("dmc/lqr-"):  # which no time limit ends
        return None
    return 5.0 if name == "miniworld/PickupObjects" else {"dmc": 1000.0, "maniskill": 200.0}.get(family(name))


def normalised(total_reward: float, score: RandomScore, top: float) -> float:
    """0 for the random policy, 1 for the declared maximum; not cut off at either end."""
    return (total_reward - score.mean) / (top - score.mean)


def random_score(config: EnvConfig, folder: Path, progress: Callable[[int, int], None]) -> RandomScore:
    """The stored score of a task with its own time limit, or one measured once and kept in `folder`; neither counts
    where another version of the simulator has measured it.
    """
    blind = unseen(config)
    name, built = blind.name, blind.shifts != "none"
    versions = simulator_versions(name)
    for score in stored():
        known = (score.task, score.action_repeat, score.versions)
        if known == (name, config.action_repeat, versions) and not built:
            return score
    scenes = f"_{blind.shifts}_{blind.severity:g}_{blind.bands}" if built else ""
    path = folder / f"{name.replace('/', '_')}_repeat{config.action_repeat}{scenes}.json"
    if (kept := _kept(path)) is not None and kept.versions == versions:
        return kept
    score = measure(config, EPISODES, progress=progress)
    make_folders(folder)
    write_atomic(path, json.dumps(asdict(score), indent=1).encode())
    return score


def _kept(path: Path) -> RandomScore | None:
    """The score in a file of the cache; None where there is none, or a damaged one, which is measured again."""
    try:
        return RandomScore(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        _log.warning("%s is damaged: the random policy is played again", path)
        return None


@cache
def stored() -> tuple[RandomScore, ...]:
    """Scores that come with the package."""
    rows = json.loads(files("mbrl_pvr.envs").joinpath("random_scores.json").read_text())
    return tuple(RandomScore(**row) for row in rows)


def unseen(config: EnvConfig) -> EnvConfig:
    """The same task without pictures: of its shifts, those that change the physics."""
    name = resolve(config.name)
    built = [f for f in physical(config.shifts, name) if config.factors is None or f in config.factors]
    shifts = "+".join(built) or "none"
    return replace(config, name=name, pixels=False, shifts=shifts, factors=None)


def measure(
    config: EnvConfig,
    episodes: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RandomScore:
    """Play `episodes` with uniformly random actions, drawing nothing; repeatable from the seed."""
    blind = unseen(config)
    name = blind.name
    totals: list[float] = []
    with make(blind, num=1, seed=seed, stream="random") as env:
        for k in range(episodes):
            env.reset(episode=k)
            totals += env.call("play_random", derive(seed, "random", k))
            progress(k + 1, episodes)
    returns = np.array(totals)
    command = f"mbrl-pvr envs random-score {name} --action-repeat {config.action_repeat} --episodes {episodes}"
    if config.reward != "dense":
        command += f" --reward {config.reward}"
    if blind.shifts != "none":
        command += f" --shift {blind.shifts} --severity {blind.severity:g} --bands {blind.bands}"
    mean, std = round(float(returns.mean()), 4), round(float(returns.std(ddof=min(1, episodes - 1))), 4)
    return RandomScore(name, config.action_repeat, episodes, mean, std, command, simulator_versions(name))
