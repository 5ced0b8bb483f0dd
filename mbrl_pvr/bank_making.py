"""Making a trajectory bank: play, draw every state under each shift too, write episode after episode.

Kinds of trajectories, in turns, because one kind alone covers little of a task's states: `random` (uniform actions),
`held` (uniform actions, each held for some steps, which swings what jitter leaves hanging) and, given a trained run,
`noisy` (its agent with Gaussian noise, or random choices) and `expert` (its agent). Whatever is random in an episode
follows from the bank's seed and the episode's number, so that a bank that was interrupted goes on where it stopped.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import SeedSequence

from mbrl_pvr import envs
from mbrl_pvr.bank import FILE, FORMAT, PLAIN, Bank, Trajectory, arrays_of, differences, read_facts
from mbrl_pvr.build import EnvFacts, least_frame
from mbrl_pvr.envs import EnvConfig, EnvStep, VectorEnv
from mbrl_pvr.envs.actions import ActionSpec, random_actions
from mbrl_pvr.envs.names import resolve, simulator_versions
from mbrl_pvr.envs.offers import check_offers, check_pairs, has_state
from mbrl_pvr.envs.shifts import Look, draw_look
from mbrl_pvr.envs.video import count_clips
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.features import Features
from mbrl_pvr.lock import lock
from mbrl_pvr.rollout import Blind, Episode, Policy, agent_policy, play_round
from mbrl_pvr.seeding import derive, rng
from mbrl_pvr.session import Trained, load_trained
from mbrl_pvr.storage import hash_file, make_folders, plain, remove_leftovers, replace_atomic, sealed_json, write_atomic
from world_models.types import Obs

KINDS = ("random", "held", "noisy", "expert")
_UNTAUGHT = KINDS[:2]  # those that need no trained run
_STREAM = "bank"
_HOLD = (2, 16)  # steps for which an action is held, drawn once an episode
_REDRAWN = 100  # states drawn in one call
_NOISE = (0.2, 1.0)  # standard deviation, or share of random choices, drawn once an episode


@dataclass(frozen=True)
class Request:
    """What decides a bank's content, apart from the expert's weights."""

    env: EnvConfig
    episodes: int
    shifts: tuple[str, ...]  # drawn from their held-out values, at severity 1
    seed: int
    expert: str | None  # identity of the run and step of its checkpoint


def make_bank(
    config: EnvConfig,
    path: Path,
    *,
    episodes: int,
    expert: Path | None = None,
    shifts: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Bank:
    """Write a bank of `episodes` episodes into the folder `path`, or finish the one that was begun there.

    Raises ConfigError for a shift that the environment cannot draw, an expert of another environment, and a folder that
    holds another bank.
    """
    for shift in shifts:
        check_offers(replace(config, shifts=shift))
        check_pairs(shift, config.name)
    config = replace(config, name=resolve(config.name), num=1, pixels=True, proprio=has_state(config.name))
    with ExitStack() as stack:
        trained = stack.enter_context(load_trained(expert)) if expert is not None else None
        if trained is not None:
            _require_same(trained, config)
        who = None if trained is None else f"{trained.run.identity} at step {trained.step}"
        request = Request(config, episodes, tuple(shifts), seed, who)
        make_folders(path)
        stack.callback(lock(path).release)
        facts = _begin(path, request)
        if facts["complete"]:
            return Bank.open(path)
        remove_leftovers(path)
        env = stack.enter_context(envs.make(config, num=1, seed=seed, stream=_STREAM))
        facts["env_facts"] = asdict(EnvFacts.of(env))
        for number in range(len(facts["episodes"]), episodes):
            progress(number, episodes)
            facts["episodes"].append(_write(path, number, _play(env, trained, number, request)))
            facts["complete"] = len(facts["episodes"]) == episodes
            write_atomic(path / FILE, sealed_json(facts))
        progress(episodes, episodes)
    return Bank.open(path)


def _begin(path: Path, request: Request) -> dict[str, Any]:
    """The facts of the bank in `path`, or of a new one."""
    wanted = plain(asdict(request))
    if (path / FILE).is_file():
        facts = read_facts(path)
        if facts["request"] != wanted:
            old, new = facts["request"], wanted
            differs = [f"{key}: {old.get(key)} -> {new[key]}" for key in new if old.get(key) != new[key]]
            raise ConfigError(f"another bank is here: {'; '.join(differs)}", str(path), "Give another --dir")
        return facts
    if found := sorted(p.name for p in path.iterdir() if not p.name.startswith(".")):
        raise ConfigError(f"the folder is not empty (it holds {found[0]})", str(path), "Give another --dir")
    return {
        "format": FORMAT,
        "request": wanted,
        "command": shlex.join(["mbrl-pvr", *sys.argv[1:]]),
        "versions": simulator_versions(request.env.name),
        "complete": False,
        "episodes": [],
    }


def _require_same(trained: Trained, config: EnvConfig) -> None:
    """ConfigError where the expert learned in an environment that differs in more than its looks."""
    own = trained.config.env
    if differs := differences(own, config, least_frame(trained.config)):
        each = ", ".join(f"env.{k}={getattr(own, k)}" for k in differs)
        raise ConfigError(f"the expert was trained with {each}", str(trained.run.path), f"Give {each.replace(',', '')}")


def _write(path: Path, number: int, trajectory: Trajectory) -> dict[str, Any]:
    name = f"episode_{number:05d}.npz"
    with replace_atomic(path / name) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays_of(trajectory))
    entry = hash_file(path / name)
    total = float(trajectory.reward.sum(dtype=np.float64))
    return {"kind": trajectory.kind, "length": trajectory.length, "return": total, "file": {"name": name, **entry}}


def _play(env: VectorEnv, trained: Trained | None, number: int, request: Request) -> Trajectory:
    kinds = KINDS if trained is not None else _UNTAUGHT
    kind, spec = kinds[number % len(kinds)], env.action_spec
    watched = _Watched(env, request, number)
    noise = rng(request.seed, "bank-actions", number)
    features: Features | Blind
    if kind in _UNTAUGHT:
        hold = 1 if kind == "random" else int(noise.integers(_HOLD[0], _HOLD[1] + 1))
        policy, features, stack, device = _random(spec, noise, hold), Blind(), 1, torch.device("cpu")
    else:
        assert trained is not None
        policy = agent_policy(trained.agent, 1, derive(request.seed, "bank-plan", number))
        if kind == "noisy":
            policy = _noisy(policy, spec, noise, float(noise.uniform(*_NOISE)))
        features, stack, device = trained.features, trained.agent.sequence.stack, trained.device
    (episode,) = play_round(policy, features, watched, watched.reset(number), stack, device)  # type: ignore[arg-type]
    return watched.trajectory(kind, episode)


def _random(spec: ActionSpec, noise: np.random.Generator, hold: int) -> Policy:
    action = random_actions(spec, 1, noise)

    def policy(obs: Obs, tick: int) -> np.ndarray:
        nonlocal action
        if tick % hold == 0 and tick:
            action = random_actions(spec, 1, noise)
        return action

    return policy


def _noisy(policy: Policy, spec: ActionSpec, noise: np.random.Generator, amount: float) -> Policy:
    def noisy(obs: Obs, tick: int) -> np.ndarray:
        action = policy(obs, tick)
        if spec.discrete:
            return random_actions(spec, 1, noise) if noise.random() < amount else action
        return np.clip(action + amount * noise.standard_normal(action.shape), -1, 1).astype(np.float32)

    return noisy


class _Watched:
    """An environment whose every state is kept, and drawn under the shifts too."""

    def __init__(self, env: VectorEnv, request: Request, number: int) -> None:
        self.action_spec, self.fps = env.action_spec, env.fps
        self._env = env
        seeds = [SeedSequence((request.seed, number, i)) for i in range(len(request.shifts))]
        how: dict[str, Any] = {"env": request.env.name, "bands": request.env.bands}
        how["stored"] = {"video": count_clips(request.env.video)}
        self._looks = {
            shift: draw_look(seed, shift, "held_out", **how) for shift, seed in zip(request.shifts, seeds, strict=True)
        }
        self._drawn: list[np.ndarray] = []  # of each tick (shifts, H, W, 3), where states cannot be drawn later
        self._states: list[np.ndarray] = []
        self._proprio: list[np.ndarray] = []

    def reset(self, number: int) -> EnvStep:
        return self._keep(self._env.reset(episode=number))

    def step(self, action: np.ndarray) -> EnvStep:
        return self._keep(self._env.step(action))

    def _keep(self, step: EnvStep) -> EnvStep:
        if step.proprio is not None:
            self._proprio.append(step.proprio[0])
        if (state := self._env.call("get_sim_state")[0]) is not None:
            self._states.append(state)
        elif self._looks:
            self._drawn.append(self._env.call("frames_of", list(self._looks.values()))[0])
        return step

    def trajectory(self, kind: str, episode: Episode) -> Trajectory:
        looks = {PLAIN: np.stack(episode.frames)}
        for i, (shift, look) in enumerate(self._looks.items()):
            looks[shift] = np.stack([drawn[i] for drawn in self._drawn]) if self._drawn else self._redraw(look)
        return Trajectory(
            kind,
            looks,
            episode.action,
            episode.reward,
            episode.is_terminal,
            np.stack(self._proprio) if self._proprio else None,
            np.stack(self._states) if self._states else None,
        )

    def _redraw(self, look: Look) -> np.ndarray:
        """Every state of the episode that is over; some at a time, since a call to a simulator has a time limit."""
        starts = range(0, len(self._states), _REDRAWN)
        parts = [self._env.call("redraw", np.stack(self._states[n : n + _REDRAWN]), look, n)[0] for n in starts]
        return np.concatenate(parts)
