"""Reads what `mbrl-pvr record` writes: `latents.npz` of fresh episodes, `latents_under_<shift>.npz` of such under a
shift, `latents_on_<bank>.npz` of a bank's trajectories, and `latents_on_<bank>_<shift>.npz` of the same states under a
shift.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis import files
from analysis.errors import damaged

KINDS = ("deterministic", "categorical")
_NAME = re.compile(r"latents(?:_on_([0-9a-z]+)(?:_(.+))?|_under_(.+))?\.npz")


@dataclass(frozen=True, eq=False)
class Latents:
    """Recorded rollouts of E episodes padded to T steps; `length` (E,) counts the valid ones.

    posterior, open_loop: (E, T, L), equal before index `context`; reward_*, value: (E, T). Index t holds the reward
    that arrives with obs[t]; index 0 has none. `kind`: "deterministic" (TD-MPC2) or "categorical" (DreamerV3: L logits,
    of L / `classes` latents).
    """

    posterior: np.ndarray
    open_loop: np.ndarray
    reward_true: np.ndarray
    reward_pred: np.ndarray
    reward_open_loop: np.ndarray
    value: np.ndarray
    length: np.ndarray
    context: int
    kind: str
    classes: int  # of a categorical latent; 0 for deterministic ones

    @property
    def valid(self) -> np.ndarray:
        """(E, T) bool: steps that belong to the episode."""
        return np.arange(self.posterior.shape[1])[None, :] < self.length[:, None]


_REQUIRED_ARRAYS = tuple(Latents.__dataclass_fields__)


def check_latents(path: Path) -> str:
    """The kind of the latents; reads headers alone and raises AnalysisError naming the array that is missing or has a
    wrong shape.
    """
    seen = files.read_npz_shapes(path)
    if missing := [name for name in _REQUIRED_ARRAYS if name not in seen]:
        raise damaged(f"{path.name} has no array {missing[0]!r}", path, f"It has: {', '.join(seen)}")
    shape = seen["posterior"][0]
    if len(shape) != 3 or 0 in shape:
        raise damaged(f"posterior of {path.name} should be (E, T, L) with no empty side, but is {shape}", path)
    wanted: dict[str, tuple[int, ...]] = {"open_loop": shape, "length": shape[:1]}
    wanted |= dict.fromkeys(("context", "kind", "classes"), ())
    wanted |= dict.fromkeys(("reward_true", "reward_pred", "reward_open_loop", "value"), shape[:2])
    for name, want in wanted.items():
        if seen[name][0] != want:
            raise damaged(f"{name} of {path.name} should be {want}, as posterior says, but is {seen[name][0]}", path)
    for name in _REQUIRED_ARRAYS:
        letters = {"kind": "U", "length": "iu", "context": "iu", "classes": "iu"}.get(name, "f")
        if seen[name][1].kind not in letters:
            raise damaged(f"{name} of {path.name} has type {seen[name][1]}", path)
    kind = str(files.read_npz(path, ["kind"])["kind"])
    if kind not in KINDS:
        raise damaged(f"kind of {path.name} should be one of {', '.join(KINDS)}, but is {kind!r}", path)
    _check_classes(path, kind, shape, seen.get("latent"))
    return kind


def _check_classes(
    path: Path, kind: str, shape: tuple[int, ...], latent: tuple[tuple[int, ...], np.dtype] | None
) -> None:
    """That logits divide into latents, and that the state they belong to is there, (E, T, W)."""
    classes = int(files.read_npz(path, ["classes"])["classes"])
    if kind == "deterministic" and classes != 0:
        raise damaged(f"classes of {path.name} should be 0 for deterministic latents, but is {classes}", path)
    if kind == "deterministic":
        return
    if classes < 2 or shape[2] % classes:
        raise damaged(f"classes of {path.name} should be at least 2 and divide {shape[2]}, but is {classes}", path)
    if latent is None or len(latent[0]) != 3 or latent[0][:2] != shape[:2] or latent[1].kind != "f":
        said = "is missing" if latent is None else f"is {latent[1]} of shape {latent[0]}"
        raise damaged(f"latent of {path.name} should be numbers ({shape[0]}, {shape[1]}, W), but {said}", path)


def latents_step(path: Path) -> int | None:
    """The step that the file says it was recorded at; it may leave that open."""
    if "step" not in (seen := files.read_npz_shapes(path)):
        return None
    shape, dtype = seen["step"]
    if shape != () or dtype.kind not in "iu":
        raise damaged(f"step of {path.name} should be one whole number, but is {dtype} of shape {shape}", path)
    return int(files.read_npz(path, ["step"])["step"])


def _episodes(path: Path) -> int:
    return files.read_npz_shapes(path)["posterior"][0][0]


def read_latents(path: Path) -> Latents:
    """The recorded rollouts of a file, checked; raises AnalysisError where it is missing or damaged."""
    kind = check_latents(path)
    arrays = files.read_npz(path, [name for name in _REQUIRED_ARRAYS if name != "kind"])
    steps = arrays["posterior"].shape[1]
    context, classes = int(arrays.pop("context")), int(arrays.pop("classes"))
    if not 1 <= context < steps:
        raise damaged(f"context of {path.name} should lie in 1..{steps - 1}, but is {context}", path)
    if arrays["length"].min() < 1 or arrays["length"].max() > steps:
        raise damaged(f"length of {path.name} should lie in 1..{steps}, but has {arrays['length'].tolist()}", path)
    return Latents(context=context, kind=kind, classes=classes, **arrays)


def read_states(path: Path, kind: str) -> np.ndarray:
    """What a picture of the latent space shows (E, T, W), of checked rollouts: the latent of TD-MPC2, [h, z] of
    DreamerV3 with z as it was drawn, one-hot (facts: section 7).
    """
    name = "latent" if kind == "categorical" else "posterior"
    return files.read_npz(path, [name])[name]


@dataclass(frozen=True, eq=False)
class Starts:
    """Open loops from several points of each episode: open_loop (E, P, K, L) and reward (E, P, K), whose k-th entry
    predicts step points[p] + k - 1; NaN where the episode is over. points (P,): the first step that was not given.
    """

    open_loop: np.ndarray
    reward: np.ndarray
    points: np.ndarray


def read_starts(path: Path) -> Starts | None:
    """Of a checked file; None where it holds no open loops from several points."""
    seen = files.read_npz_shapes(path)
    names = ("open_loop_from", "reward_open_loop_from", "starts")
    if not set(names) <= seen.keys():
        return None
    episodes, steps, width = seen["posterior"][0]
    (loop, _), (reward, _), (points, kind) = (seen[name] for name in names)
    if len(loop) != 4 or (loop[0], loop[3]) != (episodes, width) or reward != loop[:3] or points != loop[1:2]:
        wanted = f"({episodes}, P, K, {width}), (…, P, K) and (P,)"
        raise damaged(f"{', '.join(names)} of {path.name} should be {wanted}, but are {loop}, {reward}, {points}", path)
    found = files.read_npz(path, names)
    if kind.kind not in "iu" or 0 in loop or found["starts"].min() < 1 or found["starts"].max() >= steps:
        raise damaged(f"starts of {path.name} should lie in 1..{steps - 1}, but are {found['starts'].tolist()}", path)
    return Starts(found["open_loop_from"], found["reward_open_loop_from"], found["starts"])


def read_part(path: Path, name: str) -> np.ndarray | None:
    """An array (E, T, …) that not every checked file holds (`feature`, `state`, `action`); None where this one does
    not.
    """
    seen = files.read_npz_shapes(path)
    if name not in seen:
        return None
    shape, kind = seen[name]
    if shape[:2] != seen["posterior"][0][:2] or len(shape) < 3 or kind.kind not in "fiub":
        raise damaged(f"{name} of {path.name} should be numbers (E, T, …), but is {kind} of shape {shape}", path)
    return files.read_npz(path, [name])[name]


def state_names(path: Path) -> list[str]:
    """What each number of `state` is, of a checked file; numbers where it does not say, none where it has no state."""
    seen = files.read_npz_shapes(path)
    if "state" not in seen:
        return []
    width = seen["state"][0][2]
    shape, kind = seen.get("state_names", ((0,), np.dtype(np.str_)))
    if shape != (width,):
        return [f"state {number}" for number in range(width)]
    if kind.kind != "U":
        raise damaged(f"state_names of {path.name} should be {width} texts, but are {kind} of shape {shape}", path)
    return files.read_npz(path, ["state_names"])["state_names"].tolist()


def has_frames(path: Path) -> bool:
    """Whether a checked file has a picture of every recorded step; raises AnalysisError where its shape is not
    (E, T, h, w, 3) uint8.
    """
    seen = files.read_npz_shapes(path)
    if "frame" not in seen:
        return False
    (shape, dtype), steps = seen["frame"], seen["posterior"][0][:2]
    if len(shape) != 5 or shape[:2] != steps or shape[4] != 3 or 0 in shape or dtype != np.uint8:
        want = f"({steps[0]}, {steps[1]}, h, w, 3) uint8"
        raise damaged(f"frame of {path.name} should be {want}, but is {shape} {dtype}", path)
    return True


def read_frames(path: Path, episode: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The pictures (N, h, w, 3) of steps (N,) of episodes (N,), which must not fall; one episode is in memory at a
    time.
    """
    rows = files.read_npz_rows(path, "frame")
    return np.concatenate([row[step[episode == number]] for number, row in enumerate(rows)])


@dataclass(frozen=True)
class Record:
    """One recorded file, its headers checked: of fresh episodes (no `bank`), or of a bank's trajectories; under its own
    looks or under a shift, which of fresh episodes ends with its severity.
    """

    path: Path
    kind: str  # of its latents, one of `KINDS`
    step: int | None  # of the checkpoint that was recorded
    episodes: int
    bank: str = ""
    shift: str = ""


def named(path: Path) -> tuple[str, str] | None:
    """Bank and shift of a recorded file, by its name; None where it has another."""
    match = _NAME.fullmatch(path.name)
    return (match[1] or "", match[2] or match[3] or "") if match else None


def find_records(folder: Path) -> tuple[Record, ...]:
    """The recorded files of a run folder, in the order of their names."""
    whose = {path: name for path in sorted(folder.glob("latents*.npz")) if (name := named(path))}
    return tuple(
        Record(path, check_latents(path), latents_step(path), _episodes(path), bank, shift)
        for path, (bank, shift) in whose.items()
    )
