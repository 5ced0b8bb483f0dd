"""Trajectory banks: whole episodes of one task, stored once, on which every encoder and agent is trained or measured.

    bank = Bank.open("banks/pendulum")                      # checks bank.json
    bank.episode(3).frames                                  # checks that file, (T, H, W, 3) uint8

A bank is a folder: `bank.json`, sealed, and one file for each episode, whose checksum stands there. `bank.id` follows
from the content, so that a run that learned from a bank, or a record made on it, says exactly which.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.errors import ConfigError, IntegrityError
from mbrl_pvr.storage import digest, read_sealed, verify_file

FORMAT = 1
FILE = "bank.json"
SAME = ("name", "action_repeat", "camera", "size", "render", "reward", "time_limit")  # whose agents understand a bank
PLAIN = "none"  # the shift of the frames that the trajectories were made with
_FRAMES = "frames:"


@dataclass(frozen=True)
class Trajectory:
    """One episode of T frames. `action[t]` led to `frames[t]`, `reward[t]` came with it; both are zero at index 0."""

    kind: str  # how it was made: one of `bank_making.KINDS`
    looks: dict[str, np.ndarray]  # by shift, "none" first: (T, H, W, 3) uint8 of the same states
    action: np.ndarray  # (T, A) float32
    reward: np.ndarray  # (T,) float32
    is_terminal: np.ndarray  # (T,) bool
    proprio: np.ndarray | None  # (T, D) float32, the task's own state vector
    sim_state: np.ndarray | None  # (T, S) float64, what the simulator's `set_sim_state` takes

    @property
    def frames(self) -> np.ndarray:
        """The pictures that the trajectory was made with."""
        return self.looks[PLAIN]

    @property
    def length(self) -> int:
        """Number of actions."""
        return len(self.reward) - 1

    def first(self, steps: int) -> "Trajectory":
        """Its first so many actions."""
        end = steps + 1
        return Trajectory(
            self.kind,
            {shift: frames[:end] for shift, frames in self.looks.items()},
            self.action[:end],
            self.reward[:end],
            self.is_terminal[:end],
            None if self.proprio is None else self.proprio[:end],
            None if self.sim_state is None else self.sim_state[:end],
        )


class Bank:
    """A finished bank, for reading."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path, self.facts = path, facts

    @classmethod
    def open(cls, path: Path | str) -> "Bank":
        """Read and check `bank.json`. ConfigError where there is none or it is not finished; IntegrityError."""
        path = Path(path).expanduser().absolute()
        facts = read_facts(path)
        if not facts["complete"]:
            have, want = len(facts["episodes"]), facts["request"]["episodes"]
            how = f"Finish it with the command that began it: {facts['command']}"
            raise ConfigError(f"this bank has {have} of its {want} episodes", str(path), how)
        return cls(path, facts)

    @property
    def env(self) -> EnvConfig:
        """The environment that made it."""
        return EnvConfig(**_tuples(self.facts["request"]["env"]))

    @cached_property
    def id(self) -> str:
        """Twelve letters that follow from the content of its episodes."""
        return digest([entry["file"]["sha256"] for entry in self.facts["episodes"]])[:12]

    @property
    def shifts(self) -> tuple[str, ...]:
        """The shifts under which every frame was drawn too."""
        return tuple(self.facts["request"]["shifts"])

    @property
    def kinds(self) -> dict[str, int]:
        """How many episodes were made in which way."""
        return dict(Counter(entry["kind"] for entry in self.facts["episodes"]))

    @property
    def mean_return(self) -> float:
        """Of its episodes."""
        return float(np.mean([entry["return"] for entry in self.facts["episodes"]]))

    def __len__(self) -> int:
        return len(self.facts["episodes"])

    @property
    def frames(self) -> int:
        """Frames of all episodes, the first of each among them."""
        return sum(entry["length"] + 1 for entry in self.facts["episodes"])

    def episode(self, number: int, looks: Sequence[str] | None = None) -> Trajectory:
        """Read one episode, its frames under these looks (None: all); IntegrityError where its file was changed."""
        unread = {f"{_FRAMES}{one}" for one in (PLAIN, *self.shifts) if looks is not None and one not in looks}
        entry = self.facts["episodes"][number]
        path = self.path / entry["file"]["name"]
        verify_file(path, entry["file"])
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files if name not in unread}
        except (ValueError, OSError, KeyError) as error:
            raise IntegrityError(f"not an episode of a bank: {error}", str(path)) from error
        frames = {k.removeprefix(_FRAMES): arrays.pop(k) for k in list(arrays) if k.startswith(_FRAMES)}
        return Trajectory(
            kind=entry["kind"],
            looks=frames,
            proprio=arrays.pop("proprio", None),
            sim_state=arrays.pop("sim_state", None),
            **arrays,
        )

    def __iter__(self) -> Iterator[Trajectory]:
        return (self.episode(number) for number in range(len(self)))


def differences(own: EnvConfig, other: EnvConfig, least: int | None) -> list[str]:
    """The settings in which two environments differ, so that agents of one do not understand a bank of the other. Where
    an agent sees frames only through an encoder, any of `least` pixels will do; None: it wants its own size.
    """
    unlike = [key for key in SAME if getattr(own, key) != getattr(other, key)]
    return [key for key in unlike if key != "size" or least is None or other.size < least]


def arrays_of(trajectory: Trajectory) -> dict[str, np.ndarray]:
    """What is stored of a trajectory."""
    parts = {f"{_FRAMES}{shift}": frames for shift, frames in trajectory.looks.items()}
    for name in ("action", "reward", "is_terminal", "proprio", "sim_state"):
        if (value := getattr(trajectory, name)) is not None:
            parts[name] = value
    return parts


def read_facts(path: Path) -> dict[str, Any]:
    """`bank.json` of a bank, finished or not; ConfigError where there is none, IntegrityError where it is damaged."""
    if not (path / FILE).is_file():
        raise ConfigError("there is no trajectory bank here", str(path), "Make one with: mbrl-pvr bank make env=NAME")
    facts = read_sealed(path / FILE)
    if facts.get("format") != FORMAT:
        raise IntegrityError(f"a bank of format {facts.get('format')}, this version reads {FORMAT}", str(path))
    return facts


def _tuples(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()}
