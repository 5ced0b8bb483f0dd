"""Learning from a trajectory bank: its frames are encoded once, put into replay, and nothing is collected.

A step of such a run is what would be an agent's step: it makes `updates_per_step` updates, and curves, checkpoints and
evaluations count it, so that runs on a bank and runs that collect are compared at equal numbers of updates.
"""

from typing import Any

import numpy as np

from mbrl_pvr.bank import PLAIN, Bank, Trajectory
from mbrl_pvr.collect import Finished
from mbrl_pvr.config import RunConfig
from mbrl_pvr.display import Display
from mbrl_pvr.envs import EnvStep
from mbrl_pvr.errors import ConfigError, IntegrityError
from mbrl_pvr.features import Features, View
from mbrl_pvr.replay import Replay
from mbrl_pvr.schedule import Stopwatch
from world_models.agent import Agent

ENCODED_AT_ONCE = 64  # frames


def view_of(trajectory: Trajectory, features: Features, shift: str) -> View:
    """All T frames of a trajectory as the agent sees them under one of its looks: a view with leading axis T."""
    frames, steps = trajectory.looks[shift], len(trajectory.reward)
    views = []
    for start in range(0, steps, ENCODED_AT_ONCE):
        part = slice(start, min(start + ENCODED_AT_ONCE, steps))
        proprio = None if trajectory.proprio is None else trajectory.proprio[part]
        nothing = np.zeros(part.stop - start)
        flags = nothing.astype(bool)
        step = EnvStep(frames[part], proprio, nothing, flags, flags, flags, nothing, nothing)
        views.append(features.view(step))

    def joined(name: str) -> np.ndarray | None:
        parts = [getattr(view, name) for view in views]
        return None if parts[0] is None else np.concatenate(parts)

    return View(joined("feature"), joined("pixels"), joined("proprio"))


class BankReader:
    """Stands in the place of a `Collector`: fills replay at the start, then only counts."""

    def __init__(self, bank: Bank, features: Features, replay: Replay, agent: Agent) -> None:
        self.bank, self.features, self.replay = bank, features, replay
        self.ticks = self.steps = 0
        self.carry = agent.initial(1, 0)  # nobody acts
        self.clock = Stopwatch()

    def start(self) -> None:
        """Encode the whole bank into replay, one trajectory behind the other."""
        with Display(what="encoding the bank, trajectories:") as display:
            for number in range(len(self.bank)):
                trajectory = self.bank.episode(number, (PLAIN,))
                self._store(trajectory, view_of(trajectory, self.features, PLAIN))
                display.progress(number + 1, len(self.bank))
        self.ticks = 1

    def _store(self, trajectory: Trajectory, view: View) -> None:
        last = trajectory.length
        for t in range(last + 1):
            seen = {k: None if v is None else v[t : t + 1] for k, v in vars(view).items()}
            self.replay.add(
                **seen,
                action=trajectory.action[t : t + 1],
                reward=trajectory.reward[t : t + 1],
                is_first=np.array([t == 0]),
                is_last=np.array([t == last]),
                is_terminal=trajectory.is_terminal[t : t + 1],
            )

    def send(self, *, explore_randomly: bool) -> None:
        """Nobody acts."""

    def receive(self) -> list[Finished]:
        """A step has passed."""
        self.ticks, self.steps = self.ticks + 1, self.steps + 1
        return []

    def state_dict(self) -> dict[str, Any]:
        """Counters."""
        return {"ticks": self.ticks, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> list[bool]:
        """Continue; nothing could have come out otherwise."""
        self.ticks, self.steps = state["ticks"], state["steps"]
        return [True]


def require_bank(known: dict[str, Any], bank: Bank, config: RunConfig) -> None:
    """IntegrityError where the bank is not the one that the run began with; ConfigError where replay cannot hold it."""
    if known["bank"] != bank.id:
        what = f"the bank's content is {bank.id}, this run began with {known['bank']}"
        raise IntegrityError(what, str(bank.path), "Put the old bank back, or start a new run")
    if bank.frames > config.replay.capacity:
        what = f"the bank has {bank.frames:,} frames, replay.capacity={config.replay.capacity:,}"
        raise ConfigError(what, "replay.capacity", f"Give replay.capacity={bank.frames}")
