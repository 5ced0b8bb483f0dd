"""Reads run folders: the only part of this package that knows their layout. To read a new file, add a field and its
check to `Run`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import files, latents
from analysis.errors import DAMAGED, AnalysisError, damaged
from analysis.files import INTEGER, NUMBER, OPTIONAL, TEXT

FORMAT = 1  # newest layout of a run folder that this code knows
IDENTITY = "identity"  # of manifest.json: digest of the configuration
NEW, RUNNING, FINISHED = "new", "running", "finished"  # states of status.json
KINDS = ("deterministic", "categorical")

METRIC_COLUMNS = {"step": INTEGER, "frame": INTEGER}
ROW_COLUMNS = {
    "agent": TEXT,
    "encoder": TEXT,
    "task": TEXT,
    "shift": TEXT,
    "severity": NUMBER,
    "seed": INTEGER,
    "step": INTEGER,
    "frame": INTEGER,
    "episode": INTEGER,
    "return": NUMBER,
    "length": INTEGER,
    "success": OPTIONAL,
}
EPISODE_COLUMNS = {"kind": TEXT, **ROW_COLUMNS}
OOD_COLUMNS = {"split": TEXT, **ROW_COLUMNS}
CONFIG_KEYS = {"seed": int, "env.name": str, "encoder.name": str, "agent.name": str}


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


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder. Logs are None where they are missing or empty; `latents` is read when first asked for.

    Steps of checkpoints are None where none is known: `step` of the newest, `ood_step` and `latents_step` of those that
    the out-of-distribution episodes and the latents come from.
    """

    path: Path
    id: str  # derives from the configuration: two folders of one id are one run
    state: str  # "finished", or how far it is
    step: int | None
    config: dict[str, Any]
    manifest: dict[str, Any]
    metrics: pd.DataFrame | None
    episodes: pd.DataFrame | None
    ood: pd.DataFrame | None
    latents_kind: str | None  # "deterministic", "categorical"; None where no latents were recorded
    latents_step: int | None

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def task(self) -> str:
        return self.config["env"]["name"]

    @property
    def encoder(self) -> str:
        return self.config["encoder"]["name"]

    @property
    def agent(self) -> str:
        return self.config["agent"]["name"]

    @property
    def finished(self) -> bool:
        return self.state == FINISHED

    @property
    def ood_step(self) -> int | None:
        """Of the newest rows: a run that went on has rows of several checkpoints."""
        return None if self.ood is None else int(self.ood["step"].max())

    @cached_property
    def latents(self) -> Latents | None:
        """The recorded rollouts, or None where none were recorded; raises AnalysisError where the file is damaged."""
        return read_latents(self.path) if self.latents_kind else None

    @cached_property
    def latents_constant(self) -> bool:
        """Whether recorded latents are (nearly) constant; they are not kept in memory for it."""
        if not self.latents_kind:
            return False
        recorded = read_latents(self.path)
        return latents.is_constant(recorded.posterior[recorded.valid])


def load_runs(paths: Iterable[str | Path | Run]) -> list[Run]:
    """Read run folders, in the order given; runs that have been read already are taken as they are. Unfinished runs are
    among them (`run.finished`).

    Raises AnalysisError for no folder at all, folders that are not runs, damaged files (naming file and column), and
    for one run given twice.
    """
    given = list(paths)
    if not given:
        raise AnalysisError("no run folders were given", hint="Name at least one folder that `mbrl-pvr train` has made")
    runs = [one if isinstance(one, Run) else load_run(one) for one in given]
    seen: dict[str, Run] = {}
    for run in runs:
        if run.id in seen:
            raise AnalysisError(
                f"run {run.id!r} is given twice",
                f"{seen[run.id].path} and {run.path}",
                "A run counts once; leave one of the two out",
            )
        seen[run.id] = run
    return runs


def load_run(folder: str | Path) -> Run:
    """Read one run folder; raises AnalysisError where it is not one, or is damaged."""
    folder = Path(folder)
    _check_is_run(folder)
    config = files.read_yaml(folder / "config.yaml")
    for key, kind in CONFIG_KEYS.items():
        if not isinstance(value := look_up(config, key), kind):
            raise damaged(
                f"config.yaml should hold {key} as {kind.__name__}, but has {value!r}", folder / "config.yaml"
            )
    manifest = _manifest(folder / "manifest.json")
    state, step = _status(folder / "status.json")
    torn = state == RUNNING
    ood = folder / "ood.parquet"
    recorded = folder / "latents.npz"
    return Run(
        path=folder,
        id=manifest[IDENTITY][:12],
        state=state,
        step=step,
        config=config,
        manifest=manifest,
        metrics=_log(folder / "metrics.jsonl", METRIC_COLUMNS, torn),
        episodes=_log(folder / "episodes.jsonl", EPISODE_COLUMNS, torn),
        ood=_rows_or_none(files.read_parquet(ood), OOD_COLUMNS, ood) if ood.exists() else None,
        latents_kind=check_latents(recorded) if recorded.exists() else None,
        latents_step=_latents_step(recorded) if recorded.exists() else None,
    )


def _manifest(path: Path) -> dict[str, Any]:
    manifest = files.read_json(path)
    if not isinstance(number := manifest.get("format"), int) or number > FORMAT:
        raise damaged(f"{path.name} has format {number!r}; this version reads up to {FORMAT}", path)
    if not isinstance(manifest.get(IDENTITY), str):
        raise damaged(f"{path.name} should hold a text {IDENTITY!r}, but has {manifest.get(IDENTITY)!r}", path)
    return manifest


def _status(path: Path) -> tuple[str, int | None]:
    """How far the run is, and the step of its newest checkpoint."""
    status = files.read_json(path) if path.exists() else {"state": NEW}
    state, step = status.get("state"), status.get("checkpoint")
    if not isinstance(state, str):
        raise damaged(f"{path.name} should hold a text 'state', but has {state!r}", path)
    if not isinstance(step, int | None):
        raise damaged(f"{path.name} should hold a whole number or null 'checkpoint', but has {step!r}", path)
    return state, step


def _check_is_run(folder: Path) -> None:
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise AnalysisError(f"run folder {folder.name!r} {problem}", str(folder))
    needed = ("config.yaml", "manifest.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if not missing:
        return
    if len(missing) < len(needed):
        raise AnalysisError(
            f"run folder is half-written: {', '.join(missing)} is missing", str(folder), exit_code=DAMAGED
        )
    inside = sorted(path.name for path in folder.iterdir())
    if not inside:
        raise AnalysisError("the folder is empty", str(folder), "A run folder holds config.yaml and manifest.json")
    runs = [name for name in inside if (folder / name / "config.yaml").is_file()]
    hint = f"It holds {len(runs)} run folders; name those: {folder}/*" if runs else f"It holds: {', '.join(inside[:5])}"
    raise AnalysisError("not a run folder: no config.yaml and no manifest.json", str(folder), hint)


def _log(path: Path, columns: Mapping[str, str], torn_tail: bool) -> pd.DataFrame | None:
    return _rows_or_none(files.read_jsonl(path, torn_tail), columns, path) if path.exists() else None


def _rows_or_none(rows: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame | None:
    if len(rows) == 0:
        return None
    return files.check_columns(rows, columns, path)


def look_up(config: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key, None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def check_latents(path: Path) -> str:
    """The kind of the latents; reads headers alone and raises AnalysisError naming the array that is missing or has a
    wrong shape.
    """
    seen = files.read_npz_shapes(path)
    if missing := [name for name in _REQUIRED_ARRAYS if name not in seen]:
        raise damaged(f"latents.npz has no array {missing[0]!r}", path, f"It has: {', '.join(seen)}")
    shape = seen["posterior"][0]
    if len(shape) != 3 or 0 in shape:
        raise damaged(f"posterior of latents.npz should be (E, T, L) with no empty side, but is {shape}", path)
    wanted: dict[str, tuple[int, ...]] = {"open_loop": shape, "length": shape[:1]}
    wanted |= dict.fromkeys(("context", "kind", "classes"), ())
    wanted |= dict.fromkeys(("reward_true", "reward_pred", "reward_open_loop", "value"), shape[:2])
    for name, want in wanted.items():
        if seen[name][0] != want:
            raise damaged(f"{name} of latents.npz should be {want}, as posterior says, but is {seen[name][0]}", path)
    for name in _REQUIRED_ARRAYS:
        letters = {"kind": "U", "length": "iu", "context": "iu", "classes": "iu"}.get(name, "f")
        if seen[name][1].kind not in letters:
            raise damaged(f"{name} of latents.npz has type {seen[name][1]}", path)
    kind = str(files.read_npz(path, ["kind"])["kind"])
    if kind not in KINDS:
        raise damaged(f"kind of latents.npz should be one of {', '.join(KINDS)}, but is {kind!r}", path)
    _check_classes(path, kind, shape, seen.get("latent"))
    return kind


def _check_classes(
    path: Path, kind: str, shape: tuple[int, ...], latent: tuple[tuple[int, ...], np.dtype] | None
) -> None:
    """That logits divide into latents, and that the state they belong to is there, (E, T, W)."""
    classes = int(files.read_npz(path, ["classes"])["classes"])
    if kind == "deterministic" and classes != 0:
        raise damaged(f"classes of latents.npz should be 0 for deterministic latents, but is {classes}", path)
    if kind == "deterministic":
        return
    if classes < 2 or shape[2] % classes:
        raise damaged(f"classes of latents.npz should be at least 2 and divide {shape[2]}, but is {classes}", path)
    if latent is None or len(latent[0]) != 3 or latent[0][:2] != shape[:2] or latent[1].kind != "f":
        said = "is missing" if latent is None else f"is {latent[1]} of shape {latent[0]}"
        raise damaged(f"latent of latents.npz should be numbers ({shape[0]}, {shape[1]}, W), but {said}", path)


def _latents_step(path: Path) -> int | None:
    """The step that the file says it was recorded at; it may leave that open."""
    if "step" not in (seen := files.read_npz_shapes(path)):
        return None
    shape, dtype = seen["step"]
    if shape != () or dtype.kind not in "iu":
        raise damaged(f"step of latents.npz should be one whole number, but is {dtype} of shape {shape}", path)
    return int(files.read_npz(path, ["step"])["step"])


def read_latents(folder: str | Path) -> Latents:
    """The recorded rollouts of a run folder, checked; raises AnalysisError where they are missing or damaged."""
    path = Path(folder) / "latents.npz"
    kind = check_latents(path)
    arrays = files.read_npz(path, [name for name in _REQUIRED_ARRAYS if name != "kind"])
    steps = arrays["posterior"].shape[1]
    context, classes = int(arrays.pop("context")), int(arrays.pop("classes"))
    if not 1 <= context < steps:
        raise damaged(f"context of latents.npz should lie in 1..{steps - 1}, but is {context}", path)
    if arrays["length"].min() < 1 or arrays["length"].max() > steps:
        raise damaged(f"length of latents.npz should lie in 1..{steps}, but has {arrays['length'].tolist()}", path)
    return Latents(context=context, kind=kind, classes=classes, **arrays)


def read_states(folder: str | Path, kind: str) -> np.ndarray:
    """What a picture of the latent space shows (E, T, W), of checked rollouts: the latent of TD-MPC2, [h, z] of
    DreamerV3 with z as it was drawn, one-hot (facts: section 7).
    """
    name = "latent" if kind == "categorical" else "posterior"
    return files.read_npz(Path(folder) / "latents.npz", [name])[name]


def has_frames(folder: str | Path) -> bool:
    """Whether a picture of every recorded step is there, of checked rollouts; raises AnalysisError where its shape is
    not (E, T, h, w, 3) uint8.
    """
    path = Path(folder) / "latents.npz"
    seen = files.read_npz_shapes(path)
    if "frame" not in seen:
        return False
    (shape, dtype), steps = seen["frame"], seen["posterior"][0][:2]
    if len(shape) != 5 or shape[:2] != steps or shape[4] != 3 or 0 in shape or dtype != np.uint8:
        want = f"({steps[0]}, {steps[1]}, h, w, 3) uint8"
        raise damaged(f"frame of latents.npz should be {want}, but is {shape} {dtype}", path)
    return True


def read_frames(folder: str | Path, episode: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The pictures (N, h, w, 3) of steps (N,) of episodes (N,), which must not fall; one episode is in memory at a
    time.
    """
    rows = files.read_npz_rows(Path(folder) / "latents.npz", "frame")
    return np.concatenate([row[step[episode == number]] for number, row in enumerate(rows)])
