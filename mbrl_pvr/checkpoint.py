"""Checkpoints: the whole state of training at one step, or nothing.

A checkpoint is a folder that appears by one rename. Its MANIFEST.json, written last, holds size and sha256 of every
file and replay segment, and how long the logs were. Going back to it means: load the tensors, cut the logs to those
lengths, load the replay. What came after is computed again, identically, so nothing is journalled in between.
"""

import logging
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mbrl_pvr import __version__
from mbrl_pvr.errors import IntegrityError, StorageError
from mbrl_pvr.runfolder import RunFolder, read_run, read_status
from mbrl_pvr.storage import (
    RESTORE,
    make_folders,
    read_sealed,
    remove_files,
    remove_folder,
    require_space,
    sealed_json,
    set_aside,
    verify_file,
    write_folder,
)
from mbrl_pvr.tensorfile import load, nbytes, pieces

FORMAT = 1  # of a checkpoint; raised when older versions of this code could not read it
JOURNALS = ("metrics.jsonl", "episodes.jsonl")  # what a checkpoint commits and a restore cuts back
MANIFEST = "MANIFEST.json"
_STEP = re.compile(r"step_(\d{9})\Z")
_DAMAGED = re.compile(r"step_(\d{9})\.damaged\Z")
_SEGMENT = re.compile(r"replay/segment_\d{6}\.safetensors\Z")

Tensors = Mapping[str, Tensor | np.ndarray]
Warn = Callable[[str], None]
_log = logging.getLogger(__name__)


class Stored(Protocol):
    """What a checkpoint asks of replay."""

    @property
    def pending_bytes(self) -> int:
        """Bytes that `seal` will write."""
        ...

    def seal(self, folder: Path) -> dict[str, Any]:
        """Write new rows under the run's folder; returns the state, whose "segments" have file, length, sha256."""
        ...

    def committed(self, state: dict[str, Any]) -> None:
        """The checkpoint that holds `state` is durable."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files have been verified. Made by `latest` and `restore`."""

    path: Path
    step: int
    manifest: dict[str, Any]
    meta: dict[str, Any]  # what `save` was given; NaN comes back as None

    def tensors(self, group: str) -> dict[str, Tensor]:
        """The tensors of one group, on the CPU; IntegrityError where there is none of that name."""
        if f"{group}.safetensors" not in self.manifest["files"]:
            raise IntegrityError(f"holds no tensors {group!r}", str(self.path))
        return load(self.path / f"{group}.safetensors")

    @property
    def replay(self) -> dict[str, Any] | None:
        """The state that `Replay.load` wants; None where none was saved."""
        return self.manifest["replay"]

    @property
    def environment(self) -> dict[str, Any]:
        """Threads, device and versions that it was made with, as `environment` gives them."""
        return self.manifest["environment"]


def environment(device: torch.device | str) -> dict[str, Any]:
    """What a bitwise repetition depends on beside the configuration."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"threads": torch.get_num_threads(), "device": device.type, "device_name": name, "versions": versions}


def save(
    run: RunFolder,
    step: int,
    groups: Mapping[str, Tensors],
    meta: dict[str, Any],
    *,
    replay: Stored | None,
    device: torch.device | str,
    keep: int = 2,
) -> Checkpoint:
    """Commit the state at agent step `step`, read it back, then remove what is older than the `keep` newest.

    All rows so far of the journals and of `replay` belong to it. StorageError leaves older checkpoints as they are.
    """
    if keep < 2:
        raise ValueError(f"keep={keep}: the newest checkpoint may be damaged, so at least 2 are kept")
    folder = run.path / "checkpoints"
    needed = int(1.2 * (sum(map(nbytes, groups.values())) + (replay.pending_bytes if replay else 0) + 100_000))
    require_space(folder, needed, "a checkpoint")
    make_folders(folder)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "mbrl_pvr": __version__,
        "step": step,
        "sequence": _next_sequence(folder),
        "identity": run.identity,
        "environment": environment(device),
        "keep": keep,
        "journals": {name: run.journal(name).commit() for name in JOURNALS},
        "replay": replay.seal(run.path) if replay else None,
    }
    path = folder / f"step_{step:09d}"
    files = {f"{group}.safetensors": pieces(tensors) for group, tensors in groups.items()}
    files["meta.json"] = iter([memoryview(sealed_json(meta))])
    write_folder(path, files, (MANIFEST, lambda entries: sealed_json({**manifest, "files": entries})), needed)
    try:
        written = _verified(path, run.path, run.identity, old_segments=False)
    except IntegrityError as error:
        remove_folder(path)
        raise StorageError(f"the disk did not keep what was written: {error.what}", error.where) from error
    if replay and written.replay:
        replay.committed(written.replay)
    run.set_status(step=step, checkpoint=step)
    _prune(run.path, keep)
    return written


def latest(path: Path | str, warn: Warn = _log.warning, *, to_continue: bool = True) -> Checkpoint | None:
    """The newest checkpoint of the run at `path` that is whole, None where none was ever made; changes nothing.

    Not `to_continue`, but only to look at the agent, its replay need not be there.
    Damaged ones are skipped and reported through `warn`. IntegrityError where all are damaged.
    """
    path = Path(path)
    _, run_manifest = read_run(path)
    promised = read_status(path)["checkpoint"]
    found = _steps(path / "checkpoints", _STEP)
    damage: list[str] = []
    for step, folder in sorted(found.items(), reverse=True):
        try:
            checkpoint = _verified(folder, path, run_manifest["identity"], segments=to_continue)
        except _TooNew:
            raise
        except IntegrityError as error:
            damage.append(f"checkpoint {step} is damaged: {os.path.relpath(error.where, path)}: {error.what}")
            continue
        if promised is not None and promised > step and promised not in found:
            damage.insert(0, f"checkpoint {promised} is missing")
        for line in damage:
            warn(line)
        if damage:
            lost = max([*found, promised or 0]) - step
            warn(
                f"continuing from checkpoint {step}; {lost} steps are lost and will be done again"
                if to_continue
                else f"taking checkpoint {step} instead, {lost} steps earlier; to repair the run: mbrl-pvr resume RUN"
            )
        return checkpoint
    if promised is not None and promised not in found:
        damage.insert(0, f"checkpoint {promised} is missing")
    if damage:
        raise IntegrityError(f"no checkpoint of this run is whole: {'; '.join(damage)}", str(path), RESTORE)
    return None


def restore(run: RunFolder, warn: Warn = _log.warning) -> Checkpoint | None:
    """Bring the folder back to its newest whole checkpoint, or to the start: logs cut, damaged checkpoints set aside.

    The caller loads tensors, meta and replay. IntegrityError where a log is shorter than committed or differs.
    """
    checkpoint = latest(run.path, warn)
    for step, folder in _steps(run.path / "checkpoints", _STEP).items():
        if checkpoint is not None and step > checkpoint.step:  # else it could come to life with other logs
            set_aside(folder, folder.name + ".damaged")
    committed = checkpoint.manifest["journals"] if checkpoint else {}
    for name in JOURNALS:
        run.journal(name).cut(**committed.get(name, {"length": 0, "crc32": 0}))
    if checkpoint is not None:
        run.set_status(step=checkpoint.step, checkpoint=checkpoint.step)
        _prune(run.path, checkpoint.manifest["keep"])  # a kill may have come before the end of it
    return checkpoint


class _TooNew(IntegrityError):
    """Written by a later version of this code."""


def _verified(
    folder: Path, run_path: Path, identity: str, *, segments: bool = True, old_segments: bool = True
) -> Checkpoint:
    manifest = read_sealed(folder / MANIFEST)
    try:
        if manifest["format"] > FORMAT:
            raise _TooNew(
                f"made by a newer version: needs mbrl-pvr >= {manifest['mbrl_pvr']}, this is {__version__}", str(folder)
            )
        if manifest["identity"] != identity or folder.name != f"step_{manifest['step']:09d}":
            raise IntegrityError("belongs to another run or step", str(folder))
        for name, entry in manifest["files"].items():
            verify_file(folder / Path(name).name, entry)
        stored = manifest["replay"]["segments"] if manifest["replay"] and segments else []
        for entry in stored if old_segments else stored[-1:]:
            if not _SEGMENT.match(entry["file"]):
                raise IntegrityError(f"names a strange replay file {entry['file']!r}", str(folder))
            verify_file(run_path / entry["file"], entry)
        return Checkpoint(folder, manifest["step"], manifest, read_sealed(folder / "meta.json"))
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"manifest without {error}", str(folder)) from error


def _steps(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    return {int(m[1]): p for p in sorted(folder.iterdir()) if (m := pattern.match(p.name))}


def _next_sequence(folder: Path) -> int:
    found = _steps(folder, _STEP)
    return read_sealed(found[max(found)] / MANIFEST)["sequence"] + 1 if found else 0


def _prune(run_path: Path, keep: int) -> None:
    folder = run_path / "checkpoints"
    found = _steps(folder, _STEP)
    kept = sorted(found)[-keep:]
    for step in sorted(found)[:-keep]:
        _remove(found[step])
    for step, path in _steps(folder, _DAMAGED).items():
        if step <= max(kept):
            _remove(path)
    try:
        replays = [read_sealed(found[step] / MANIFEST)["replay"] for step in kept]
    except IntegrityError as error:  # it cannot say what it needs, so everything stays
        _log.warning("a kept checkpoint is damaged, old replay is not removed: %s (%s)", error.what, error.where)
        return
    needed = {entry["file"] for replay in replays if replay for entry in replay["segments"]}
    segments = sorted((run_path / "replay").glob("segment_*.safetensors"))
    remove_files(p for p in segments if f"replay/{p.name}" not in needed)


def _remove(folder: Path) -> None:
    name = f".{folder.name}.old.tmp"
    set_aside(folder, name)  # in one step, so that no half-removed checkpoint looks damaged
    remove_folder(folder.parent / name)


def inexact(checkpoint: Checkpoint, device: torch.device | str) -> list[str]:
    """What differs between then and now and can change results, as "threads: 2 -> 4"."""
    now, then = environment(device), checkpoint.environment
    return [f"{key}: {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key]]
