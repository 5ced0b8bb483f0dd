"""Whole episodes of a fixed policy, in rounds of one per environment: what evaluation, recording and videos share."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from mbrl_pvr.envs import EnvStep, VectorEnv
from mbrl_pvr.features import Features, View
from world_models.agent import Agent
from world_models.types import Obs

Policy = Callable[[Obs, int], np.ndarray]  # observation and tick within the round to actions (N, A)


@dataclass(frozen=True)
class Episode:
    """One finished episode of T frames; `action[t]` led to `view[t]`, `reward[t]` came with it (world_models.types)."""

    number: int
    views: list[View]  # T views of one environment, leading axis 1
    frames: list[np.ndarray]  # T pictures (height, width, 3) uint8, empty where none were rendered
    action: np.ndarray  # (T, A) float32
    reward: np.ndarray  # (T,) float32
    is_terminal: np.ndarray  # (T,) bool
    success: float | None
    fps: float  # at which its pictures run as fast as simulated time
    state: np.ndarray | None = None  # (T, D) float32, the task's own state vector where it was asked for

    @property
    def total_reward(self) -> float:
        """The undiscounted return."""
        return float(self.reward.sum(dtype=np.float64))

    @property
    def length(self) -> int:
        """Number of actions taken."""
        return len(self.reward) - 1


class Blind:
    """In place of the features of a policy that looks at nothing."""

    def view(self, step: EnvStep) -> View:
        """No part of an observation."""
        return View(None, None, None)


def stack_views(views: deque[View], is_first: np.ndarray, device: torch.device) -> Obs:
    """The newest S views as one observation: feature (N, S, …), pixels (N, S, height, width, 3), proprio (N, D)."""

    def stacked(name: str) -> torch.Tensor | None:
        parts = [getattr(view, name) for view in views]
        return None if parts[-1] is None else torch.from_numpy(np.stack(parts, axis=1)).to(device)

    proprio = views[-1].proprio
    return Obs(
        is_first=torch.from_numpy(is_first).to(device),
        feature=stacked("feature"),
        pixels=stacked("pixels"),
        proprio=None if proprio is None else torch.from_numpy(proprio).to(device),
    )


def agent_policy(agent: Agent, n: int, seed: int) -> Policy:
    """The agent acting without exploration noise; its planning noise is fixed by `seed`."""
    carry = agent.initial(n, seed)

    def policy(obs: Obs, tick: int) -> np.ndarray:
        nonlocal carry
        action, carry = agent.act(carry, obs, explore=False)
        return action.cpu().numpy()

    return policy


def play_round(
    policy: Policy, features: Features | Blind, env: VectorEnv, first: EnvStep, stack: int, device: torch.device
) -> list[Episode]:
    """Play every environment from its reset `first` to the end of that episode; environments that end early idle."""
    n = len(first.is_first)
    ticks: list[tuple[View, EnvStep, np.ndarray]] = []
    done = np.zeros(n, dtype=bool)
    step, action = first, np.zeros((n, env.action_spec.dim), dtype=np.float32)
    views: deque[View] = deque(maxlen=stack)
    while True:
        view = features.view(step)
        views.extend([view] * (stack if not views else 1))  # before the first frame stands the first frame
        ticks.append((view, step, action))
        done |= step.is_last
        if done.all():
            return [_episode(ticks, i, env.fps) for i in range(n)]
        action = policy(stack_views(views, step.is_first, device), len(ticks) - 1)
        step = env.step(action)


def rounds(
    make_policy: Callable[[int], Policy],
    features: Features | Blind,
    env: VectorEnv,
    *,
    stack: int,
    device: torch.device,
    start: int = 0,
) -> Iterator[list[Episode]]:
    """Rounds for ever, beginning with round `start`; round k plays episode k of every environment."""
    k = start
    while True:
        first = env.reset(episode=k)
        yield play_round(make_policy(k), features, env, first, stack, device)
        k += 1


def _episode(ticks: list[tuple[View, EnvStep, np.ndarray]], i: int, fps: float) -> Episode:
    end = next(t for t, (_, step, _) in enumerate(ticks) if step.is_last[i]) + 1
    mine = ticks[:end]

    def pick(view: View) -> View:
        return View(**{k: None if v is None else v[i : i + 1] for k, v in vars(view).items()})

    success = float(mine[-1][1].success[i])
    state = [step.proprio[i] for _, step, _ in mine if step.proprio is not None]
    return Episode(
        number=int(mine[0][1].episode[i]),
        views=[pick(view) for view, _, _ in mine],
        frames=[step.frame[i] for _, step, _ in mine if step.frame is not None],
        action=np.stack([action[i] for _, _, action in mine]),
        reward=np.array([step.reward[i] for _, step, _ in mine], dtype=np.float32),
        is_terminal=np.array([step.is_terminal[i] for _, step, _ in mine]),
        success=None if np.isnan(success) else success,
        fps=fps,
        state=np.stack(state) if state else None,
    )
