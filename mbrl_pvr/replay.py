"""Replay: one row per tick and environment, stacked and cut into sequences when sampled.

Why not torchrl: its memory-mapped buffer runs ahead of the weights and cannot be cut back to a checkpoint, and a sample
of 16 × 64 × 768 float16 takes it 2.8 ms where NumPy takes 0.24 ms (2 cores, torchrl 0.14.1, both from 20 000 rows).

Rows live in arrays (ticks, N, …) that are allocated once and overwritten as a ring of `capacity` ticks. On disk the
rows added between two checkpoints are one sealed segment file; a checkpoint names the segments that cover the ring.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mbrl_pvr.errors import ConfigError, EnvError, IntegrityError, TooSmall
from mbrl_pvr.memory import available_memory
from mbrl_pvr.storage import make_folders, write_atomic
from mbrl_pvr.tensorfile import load, pieces
from world_models.types import Batch, Obs, ObsShapes, SequenceSpec

_ROUNDS = 8  # of drawing starts at random before all valid ones are listed


Columns = dict[str, tuple[tuple[int, ...], type]]


def row_bytes(shapes: ObsShapes, action_dim: int, carried: int = 0) -> int:
    """Bytes of one row, the tick of one environment."""
    return 2 * carried + sum(
        int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in _columns(shapes, action_dim).values()
    )


def estimate(rows: int, bytes_per_step: int) -> str:
    """One line on the memory that so many rows take."""
    return f"replay: {rows:,} steps of {bytes_per_step:,} bytes, {rows * bytes_per_step / 1e9:.2f} GB when full"


def require_memory(rows: int, bytes_per_step: int) -> None:
    """TooSmall where so many rows do not fit into free memory."""
    free = available_memory()
    if rows * bytes_per_step > free:
        raise TooSmall(
            f"{estimate(rows, bytes_per_step)}, but {free / 1e9:.2f} GB of memory are available",
            "replay.capacity",
            f"At most {free // bytes_per_step:,} steps fit.",
        )


def _columns(shapes: ObsShapes, action_dim: int) -> Columns:
    columns: Columns = {}
    if shapes.feature is not None:
        columns["feature"] = (shapes.feature, np.float16)
    if shapes.pixels is not None:
        columns["pixels"] = (shapes.pixels, np.uint8)
    if shapes.proprio is not None:
        columns["proprio"] = ((shapes.proprio,), np.float32)
    columns |= {"action": ((action_dim,), np.float32), "reward": ((), np.float32), "age": ((), np.int32)}
    return columns | dict.fromkeys(("is_first", "is_last", "is_terminal"), ((), np.bool_))


class Replay:
    """The last `capacity` rows of `num_envs` environments that step together.

    `rows` is how many a run adds where no episode ends early. No more are taken from memory than it can fill;
    ConfigError where they do not fit.
    """

    def __init__(
        self,
        shapes: ObsShapes,
        action_dim: int,
        capacity: int,
        num_envs: int,
        *,
        rows: int | None = None,
        carried: int = 0,
    ) -> None:
        self.num_envs, self.capacity = num_envs, capacity // num_envs  # the latter in ticks
        if self.capacity < 2:
            raise ConfigError(
                f"replay.capacity={capacity} leaves {self.capacity} rows for each of {num_envs} environments"
            )
        self.bytes_per_step = row_bytes(shapes, action_dim, carried)
        self.expected = min(self.capacity * num_envs, capacity if rows is None else rows)  # rows, for estimates
        require_memory(self.expected, self.bytes_per_step)
        # a tick is a reset at most every second time; memory is taken from the system only where it is written
        ticks = self.capacity if rows is None else min(self.capacity, 2 * (rows // num_envs + 1))
        self._data: dict[str, np.ndarray] = {
            k: np.zeros((ticks, num_envs, *shape), kind) for k, (shape, kind) in _columns(shapes, action_dim).items()
        }
        self._carried = np.zeros((ticks * num_envs, carried), np.float16) if carried else None  # agent's states, by row
        # the same memory as (rows, numbers of one row), for gathering
        self._rows = {k: v.reshape(ticks * num_envs, -1) for k, v in self._data.items()}
        self.ticks = 0  # added so far; row t lies at t % capacity
        self._age = np.full(num_envs, -1, np.int32)  # ticks since the first of the episode, of the newest row
        self._sealed = 0  # ticks below are on disk
        self._segments: list[dict[str, Any]] = []
        self._next_segment = 0

    @property
    def oldest(self) -> int:
        """The first tick that is still held."""
        return max(0, self.ticks - self.capacity)

    def __len__(self) -> int:
        return (self.ticks - self.oldest) * self.num_envs

    def add(self, **columns: np.ndarray | None) -> None:
        """One tick of arrays (N, …): action, reward, is_first, is_last, is_terminal, and those of the observation.

        Where `is_first`, action and reward are stored as zero. EnvError for numbers that are not finite.
        """
        given = {k: v for k, v in columns.items() if v is not None}
        if given.keys() != self._data.keys() - {"age"}:
            raise ValueError(f"columns {sorted(given)} given, {sorted(self._data.keys() - {'age'})} wanted")
        first = np.asarray(given["is_first"])
        age = np.where(first, 0, self._age + 1).astype(np.int32)
        for name, value in {**given, "age": age}.items():
            target = self._data[name]
            value = np.asarray(value)
            if value.shape != target.shape[1:] or not np.can_cast(value.dtype, target.dtype, "same_kind"):
                raise ValueError(f"{name}: {value.dtype}{value.shape} given, {target.dtype}{target.shape[1:]} wanted")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise EnvError(f"{name} is NaN or infinite at tick {self.ticks}", "replay")
        row = self.ticks % self.capacity
        for name, value in {**given, "age": age}.items():
            self._data[name][row] = value
        self._data["action"][row][first] = 0
        self._data["reward"][row][first] = 0
        if self._carried is not None:
            self._carried[row * self.num_envs : (row + 1) * self.num_envs] = 0
        self._age = age
        self.ticks += 1

    # ---- states of the agent, which change after they were stored ---------------------------------------------------

    def keep(self, states: torch.Tensor | None) -> None:
        """The agent's states (N, W) after the newest observation; zero where it was not asked for an action."""
        if self._carried is not None and states is not None:
            row = (self.ticks - 1) % self.capacity * self.num_envs
            self._carried[row : row + self.num_envs] = states.cpu().numpy()

    def refresh(self, batch: Batch) -> None:
        """Take over the states that an update has written into its batch."""
        if self._carried is not None and batch.carried is not None and batch.rows is not None:
            self._carried[batch.rows.numpy(force=True)] = batch.carried[:, 1:].numpy(force=True)

    def states(self) -> dict[str, np.ndarray]:
        """All states that are held, for a checkpoint; empty where the agent has none."""
        return (
            {} if self._carried is None else {"states": self._carried[: min(self.ticks, self.capacity) * self.num_envs]}
        )

    def load_states(self, states: dict[str, torch.Tensor]) -> None:
        """Restore `states`, after `load`."""
        if self._carried is not None:
            self._carried[: len(states["states"])] = states["states"].numpy()

    # ---- sampling --------------------------------------------------------------------------------------------------

    def sample(self, spec: SequenceSpec, rng: np.random.Generator) -> Batch:
        """Sequences drawn uniformly, with repetition, from all that are whole, stacks included."""
        start, env = self._starts(spec, rng)
        ticks = start[:, None] + np.arange(spec.length)  # (B, T)
        index = ticks % self.capacity * self.num_envs + env[:, None]
        part = {name: self._take(name, index) for name in ("action", "reward", "is_last", "is_terminal")}
        if self._carried is not None:
            before = np.maximum(start - 1, 0) % self.capacity * self.num_envs + env
            known = (start > self.oldest) & ~self._rows["is_first"][index[:, 0], 0]
            states = self._carried[np.concatenate([before[:, None], index], 1)]  # (B, T + 1, W)
            states[~known, 0] = 0
            part |= {"carried": torch.from_numpy(states), "rows": torch.from_numpy(index)}
        return Batch(obs=self._obs(ticks, env[:, None], spec.stack), **part)

    def latest(self, stack: int) -> Obs:
        """The newest observation of every environment (N, …), for acting."""
        ticks = np.full(self.num_envs, self.ticks - 1)
        if self.ticks == 0 or (ticks - np.minimum(self._age, stack - 1)).min() < self.oldest:
            raise ValueError(f"replay holds {self.ticks - self.oldest} ticks, too few for a stack of {stack}")
        return self._obs(ticks, np.arange(self.num_envs), stack)

    def _starts(self, spec: SequenceSpec, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Ticks and environments (B,) at which sequences begin."""
        count = (self.ticks - spec.length - self.oldest + 1) * self.num_envs
        chosen: list[np.ndarray] = []
        missing = spec.batch
        for _ in range(_ROUNDS if count > 0 else 0):
            draws = rng.integers(0, count, size=missing + missing // 4 + 16)
            chosen.append(draws[self._valid(draws, spec)][:missing])
            missing -= len(chosen[-1])
            if not missing:
                break
        if missing:  # few are valid
            every = np.arange(max(count, 0))
            every = every[self._valid(every, spec)]
            if not len(every):
                whole = " of one episode" if spec.within_episode else " with the frames stacked before them"
                raise ConfigError(
                    f"replay holds {self.ticks - self.oldest} ticks and among them no {spec.length} in a row{whole}",
                    "replay",
                    "Collect more before learning, or use shorter sequences.",
                )
            chosen.append(every[rng.integers(0, len(every), size=missing)])
        draws = np.concatenate(chosen)
        return self.oldest + draws // self.num_envs, draws % self.num_envs

    def _valid(self, draws: np.ndarray, spec: SequenceSpec) -> np.ndarray:
        """Whether the stack of the start is still held and, where asked, no episode begins inside."""
        start, env = self.oldest + draws // self.num_envs, draws % self.num_envs
        age = self._data["age"]
        ok = start - np.minimum(age[start % self.capacity, env], spec.stack - 1) >= self.oldest
        if spec.within_episode:
            ok &= age[(start + spec.length - 1) % self.capacity, env] >= spec.length - 1
        return ok

    def _obs(self, ticks: np.ndarray, env: np.ndarray, stack: int) -> Obs:
        newest = ticks % self.capacity * self.num_envs + env
        age = self._rows["age"][newest, 0]
        back = np.minimum(np.arange(stack - 1, -1, -1), age[..., None])  # frames before the first are the first
        stacked = (ticks[..., None] - back) % self.capacity * self.num_envs + env[..., None]
        index = {"feature": stacked, "pixels": stacked, "proprio": newest}
        parts = {name: self._take(name, rows) for name, rows in index.items() if name in self._data}
        return Obs(is_first=self._take("is_first", newest), **parts)

    def _take(self, name: str, index: np.ndarray) -> torch.Tensor:
        rows = self._rows[name].take(index, axis=0)
        return torch.from_numpy(rows.reshape(*index.shape, *self._data[name].shape[2:]))

    # ---- on disk ---------------------------------------------------------------------------------------------------

    @property
    def pending_bytes(self) -> int:
        """Bytes that `seal` will write."""
        row = sum(rows.itemsize * rows.shape[1] for rows in self._rows.values())
        return (self.ticks - max(self._sealed, self.oldest)) * self.num_envs * row

    def seal(self, folder: Path) -> dict[str, Any]:
        """Write the rows added since the last commit as one segment; returns the state for a checkpoint.

        Nothing changes here until `committed`, so that a checkpoint that fails can be tried again.
        """
        segments = [s for s in self._segments if s["stop"] > self.oldest]
        start, number = max(self._sealed, self.oldest), self._next_segment
        if start < self.ticks:
            rows = np.arange(start, self.ticks) % self.capacity
            name = f"replay/segment_{number:06d}.safetensors"
            make_folders(folder / "replay")
            data = pieces({k: v[rows] for k, v in self._data.items()}, {"start": str(start), "stop": str(self.ticks)})
            entry = write_atomic(folder / name, data, self.pending_bytes)
            segments.append({"file": name, "start": start, "stop": self.ticks, **entry})
            number += 1
        return {"ticks": self.ticks, "next_segment": number, "shape": self._shape(), "segments": segments}

    def committed(self, state: dict[str, Any]) -> None:
        """The checkpoint that holds `state` is durable: its rows need not be written again."""
        self._sealed, self._next_segment = state["ticks"], state["next_segment"]
        self._segments = list(state["segments"])

    def load(self, folder: Path, state: dict[str, Any]) -> None:
        """Restore rows and counters exactly as `seal` saw them; the segments have been verified. IntegrityError."""
        if state["shape"] != self._shape():
            raise IntegrityError(f"replay was saved with {state['shape']}, this one has {self._shape()}", str(folder))
        oldest = max(0, state["ticks"] - self.capacity)
        covered = oldest
        for entry in state["segments"]:
            start, stop = max(entry["start"], oldest), entry["stop"]
            rows = np.arange(start, stop) % self.capacity
            columns = load(folder / entry["file"])
            if entry["start"] > covered or set(columns) != set(self._data):
                raise IntegrityError(f"does not continue at tick {covered}", str(folder / entry["file"]))
            for name, values in columns.items():
                self._data[name][rows] = values.numpy()[start - entry["start"] :]
            covered = stop
        if covered != state["ticks"]:
            raise IntegrityError(f"replay segments end at tick {covered}, should at {state['ticks']}", str(folder))
        self.ticks = state["ticks"]
        if self.ticks:
            self._age = self._data["age"][(self.ticks - 1) % self.capacity].copy()
        self.committed(state)

    def _shape(self) -> dict[str, Sequence[int]]:
        return {name: [self.capacity, *array.shape[1:]] for name, array in self._data.items()}
