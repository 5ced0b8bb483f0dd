"""Collection in lockstep: send actions, let the learner work on data already stored, receive; so that runs repeat."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mbrl_pvr.envs import EnvStep, VectorEnv
from mbrl_pvr.envs.actions import random_actions
from mbrl_pvr.features import Features
from mbrl_pvr.replay import Replay
from mbrl_pvr.schedule import Stopwatch
from mbrl_pvr.seeding import derive, rng
from world_models.agent import Agent


@dataclass(frozen=True)
class Finished:
    """An episode that ended in one of the training environments."""

    number: int  # counted over all environments
    total_reward: float
    length: int  # agent steps
    success: float | None
    terminal: bool  # not cut off by a time limit


class Collector:
    """Steps the training environments; everything that it needs to continue is in `state_dict` and in replay."""

    def __init__(
        self, env: VectorEnv, features: Features, replay: Replay, agent: Agent, seed: int, device: torch.device
    ) -> None:
        self.env, self.features, self.replay, self.agent = env, features, replay, agent
        self.seed, self.device = seed, device
        self.ticks = 0  # frames per environment so far, resets included
        self.steps = 0  # agent steps so far, over all environments
        self.episodes = 0
        self.total_reward = np.zeros(env.num, dtype=np.float64)
        self.length = np.zeros(env.num, dtype=np.int64)
        self.carry = agent.initial(env.num, derive(seed, "act"))
        self.clock = Stopwatch()

    def start(self) -> None:
        """Reset the environments and store their first frames."""
        self._store(self.env.reset(), np.zeros((self.env.num, self.env.action_spec.dim), dtype=np.float32))

    def send(self, *, explore_randomly: bool) -> None:
        """Choose actions from the newest stored observation and send them off."""
        with self.clock("plan"):
            if explore_randomly:
                action = random_actions(
                    self.env.action_spec, self.env.num, rng(self.seed, "random_actions", self.ticks)
                )
            else:
                obs = self.replay.latest(self.agent.sequence.stack).to(self.device)
                chosen, self.carry = self.agent.act(self.carry, obs, explore=True)
                action = chosen.cpu().numpy()
                self.replay.keep(self.agent.kept(self.carry))
        self.env.send(action)
        self._sent = action

    def receive(self) -> list[Finished]:
        """Take the environments' answer, encode its frames once, store it; returns the episodes that ended."""
        with self.clock("env"):
            step = self.env.recv()
        self._store(step, self._sent)
        return self._account(step)

    def _store(self, step: EnvStep, action: np.ndarray) -> None:
        with self.clock("encode"):
            view = self.features.view(step)
        with self.clock("store"):
            self.replay.add(
                feature=view.feature,
                pixels=view.pixels,
                proprio=view.proprio,
                action=np.where(
                    step.is_first[:, None], np.float32(0), action
                ),  # the tick of a reset ignores its action
                reward=step.reward,
                is_first=step.is_first,
                is_last=step.is_last,
                is_terminal=step.is_terminal,
            )
        self.ticks += 1

    def _account(self, step: EnvStep) -> list[Finished]:
        acted = ~step.is_first
        self.steps += int(acted.sum())
        self.total_reward = np.where(acted, self.total_reward + step.reward, 0.0)
        self.length = np.where(acted, self.length + 1, 0)
        finished = []
        for i in np.flatnonzero(step.is_last):
            success = None if np.isnan(step.success[i]) else float(step.success[i])
            total, length, terminal = float(self.total_reward[i]), int(self.length[i]), bool(step.is_terminal[i])
            finished.append(Finished(self.episodes, total, length, success, terminal))
            self.episodes += 1
        return finished

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and lists: counters, running returns, and where every environment stands."""
        return {
            "ticks": self.ticks,
            "steps": self.steps,
            "episodes": self.episodes,
            "total_reward": self.total_reward.tolist(),
            "length": self.length.tolist(),
            "env": self.env.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[bool]:
        """Continue where `state_dict` was taken; the environments replay their actions without rendering.

        Returns which of them came to exactly the state that they had.
        """
        self.ticks, self.steps, self.episodes = state["ticks"], state["steps"], state["episodes"]
        self.total_reward = np.array(state["total_reward"], dtype=np.float64)
        self.length = np.array(state["length"], dtype=np.int64)
        return self.env.set_state(state["env"])
