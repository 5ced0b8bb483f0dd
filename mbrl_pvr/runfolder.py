"""The run folder: who may write it, what it was made from, and how far it is. Layout in DESIGN section 7."""

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mbrl_pvr import __version__
from mbrl_pvr.errors import ConfigError, IntegrityError, StorageError
from mbrl_pvr.lock import LOCK_NAME, Lock, lock
from mbrl_pvr.schema import has_types
from mbrl_pvr.storage import (
    TEMPORARY,
    Journal,
    digest,
    make_folders,
    plain,
    read_sealed,
    remove_files,
    remove_leftovers,
    replace_atomic,
    sealed_json,
    verify_file,
    write_atomic,
)
from mbrl_pvr.yamlfile import dump_yaml, read_yaml

FORMAT = 1  # of the run folder; raised when older versions of this code could not read it
MAX_PATH = 3900  # bytes; names inside a run folder are shorter than the rest up to Linux's 4096
_NOT_HERE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS)  # a folder cannot be made in this place
HEARTBEAT = 15.0  # seconds between rewrites of status.json while nothing but the step changes
_STATUS_TYPES = {"state": str, "step": int, "checkpoint": int | None, "time/heartbeat": int | float}
_log = logging.getLogger(__name__)


class RunFolder:
    """A locked run folder. Made by `open` or `attach`; a context manager that releases the lock."""

    def __init__(
        self, path: Path, config: dict[str, Any], manifest: dict[str, Any], held: Lock, made: Sequence[Path] = ()
    ) -> None:
        self.path, self.config, self.manifest = path, config, manifest
        self._lock, self._made = held, made
        self._journals: dict[str, Journal] = {}
        self._status = read_status(path)
        self._beat = float("-inf")

    @classmethod
    def open(
        cls,
        path: Path | str,
        config: dict[str, Any],
        *,
        identity: Any,
        diff: Callable[[dict[str, Any], dict[str, Any]], Iterable[str]],
    ) -> "RunFolder":
        """Create the folder, or continue it where it was made with the same `identity`, and lock it.

        `identity` (JSON-like) stands for what of the configuration decides the results; `diff(old, new configuration)`
        gives the lines of the ConfigError where it differs. A continued run keeps its configuration and manifest.
        """
        path = Path(path).absolute()
        is_new(path)  # a place that is not ours stays as it is
        made = [p for p in (path / LOCK_NAME, path, *path.parents) if not p.exists()]
        held = _make_and_lock(path)
        new = False
        try:
            _remove_all_leftovers(path)
            new = is_new(path)
            if new:
                _create(path, config, identity)
            old_config, old_manifest = read_run(path)
            if old_manifest["identity"] != digest(identity):
                lines = [f"  {line}" for line in diff(old_config, plain(config))]
                same = "  all settings are the same, but this version of the toolkit makes another run of them"
                hint = "\n".join([*(lines or [same]), "Give another --dir."])
                raise ConfigError("this run was made with another configuration", str(path), hint)
            return cls(path, old_config, old_manifest, held, made)
        except Exception:
            if new:
                _remove_start(path, made)
            held.release()
            raise

    @classmethod
    def attach(cls, path: Path | str) -> "RunFolder":
        """Lock a run folder that exists, whatever its configuration (resume, ood, record)."""
        path = Path(path).absolute()
        read_run(path)
        held = lock(path)
        try:
            _remove_all_leftovers(path)
            return cls(path, *read_run(path), held)
        except Exception:
            held.release()
            raise

    @property
    def identity(self) -> str:
        """Digest of what the run's results depend on."""
        return self.manifest["identity"]

    def set_manifest(self, facts: dict[str, Any]) -> None:
        """Add what was measured or chosen at the start (device, versions, …); a continued run keeps what it has."""
        if not self.manifest["complete"]:
            own = {k: self.manifest[k] for k in ("format", "mbrl_pvr", "identity", "config")}
            write_atomic(self.path / "manifest.json", sealed_json({**facts, **own, "complete": True}))
            self.manifest = read_sealed(self.path / "manifest.json")

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """For what a run needs before its first step: where that fails for a new run, there was none.

        The files that name it are removed, and lock and folder where this start made them and nothing else lies there.
        A run that had begun before, or that holds a row or a checkpoint, stays as it is.
        """
        new = not self.manifest["complete"]
        try:
            yield
        except BaseException:
            logs = [journal.path for journal in self._journals.values()]
            if new and not (self.path / "checkpoints").exists() and not any(log.stat().st_size for log in logs):
                _remove_start(self.path, self._made, logs)
            raise

    @property
    def status(self) -> dict[str, Any]:
        """What status.json holds: state, step, checkpoint (step of the last one committed, or None), time/… fields."""
        return dict(self._status)

    def set_status(self, state: str | None = None, step: int | None = None, checkpoint: int | None = None) -> None:
        """Update status.json; where only the step changes, at most every 15 s.

        States: running, finished, failed, interrupted; `checkpoint` is the step of the last one committed.
        """
        new: dict[str, Any] = {"state": state, "step": step, "checkpoint": checkpoint}
        new = {**self._status, **{k: v for k, v in new.items() if v is not None}}
        changed = any(new[k] != self._status[k] for k in ("state", "checkpoint"))
        self._status = new
        if changed or time.monotonic() - self._beat > HEARTBEAT:
            self._beat = time.monotonic()
            new |= {"time/pid": os.getpid(), "time/host": socket.gethostname(), "time/heartbeat": time.time()}
            write_atomic(self.path / "status.json", (json.dumps(new, indent=1) + "\n").encode())

    def journal(self, name: str) -> Journal:
        """The journal `name` (metrics.jsonl …), opened once."""
        if name not in self._journals:
            self._journals[name] = Journal(self.path / name)
        return self._journals[name]

    def replace(self, name: str) -> AbstractContextManager[Path]:
        """A temporary path for a library that writes itself; it becomes `name` when the block ends without an error."""
        path = self.path / name
        make_folders(path.parent)
        return replace_atomic(path)

    def close(self) -> None:
        """Close the journals and release the lock."""
        with ExitStack() as stack:  # an error in one does not keep the others open
            stack.callback(self._lock.release)
            for journal in self._journals.values():
                stack.callback(journal.close)
            self._journals.clear()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_new(path: Path | str) -> bool:
    """True where a run may be created, False where one is; writes nothing. StorageError where neither holds."""
    path = Path(path).absolute()
    if len(os.fsencode(path)) > MAX_PATH or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise StorageError("the path is too long", f"{str(path)[:60]}…", f"At most {MAX_PATH} bytes, 255 per name.")
    for place in [path, *path.parents]:
        if place.exists() and not place.is_dir():
            raise StorageError("a run folder was asked for, but this is a file", str(place), "Give another --dir.")
    if not path.exists():
        return True
    try:
        names = {p.name for p in path.iterdir()}
    except OSError as error:
        raise StorageError(f"the folder cannot be read: {error.strerror}", str(path)) from error
    if "manifest.json" in names:
        return False
    if LOCK_NAME in names and names & {"checkpoints", "replay", "metrics.jsonl", "status.json"}:
        raise IntegrityError("manifest.json of this run is missing", str(path), "Restore it or give another --dir.")
    rest = {n for n in names if not (n.startswith(".") and TEMPORARY in n)} - {LOCK_NAME}
    if rest - ({"config.yaml"} if LOCK_NAME in names else set()):
        raise StorageError("the folder is not empty and holds no run of mbrl-pvr", str(path), "Give another --dir.")
    return True


def read_run(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and manifest of a run, verified; takes no lock. IntegrityError, StorageError."""
    path, manifest = Path(path).absolute(), read_manifest(path)
    config = path / "config.yaml"
    verify_file(config, manifest["config"])
    return read_yaml(config), manifest


def read_manifest(path: Path | str) -> dict[str, Any]:
    """The manifest of a run that this code can read, verified. IntegrityError, StorageError."""
    path = Path(path).absolute()
    if is_new(path):
        raise StorageError("there is no run here", str(path), "Start one with `mbrl-pvr train`.")
    manifest = read_sealed(path / "manifest.json")
    if manifest.get("format", FORMAT + 1) > FORMAT:
        raise IntegrityError(
            f"made by a newer version: needs mbrl-pvr >= {manifest.get('mbrl_pvr', '?')}, this is {__version__}",
            str(path),
        )
    return manifest


def read_status(path: Path | str) -> dict[str, Any]:
    """What status.json says, or that nothing has happened yet: also where it is damaged, since it only reports."""
    return {"state": "new", "step": 0, "checkpoint": None, **(_stored_status(Path(path)) or {})}


def _stored_status(path: Path) -> dict[str, Any] | None:
    """None where the file is missing or damaged, which a value of another type is, too."""
    try:
        stored = json.loads((path / "status.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return stored if has_types(stored, _STATUS_TYPES) else None


def _create(path: Path, config: dict[str, Any], identity: Any) -> None:
    entry = write_atomic(path / "config.yaml", dump_yaml(plain(config)).encode())
    own = {"format": FORMAT, "mbrl_pvr": __version__, "identity": digest(identity), "config": entry, "complete": False}
    write_atomic(path / "manifest.json", sealed_json(own))


def _make_and_lock(path: Path) -> Lock:
    """Lock the folder, made where it is missing; again where a start that failed removed either in between."""
    while True:
        try:
            make_folders(path)
        except StorageError as error:
            if getattr(error.__cause__, "errno", None) not in _NOT_HERE:
                raise
            hint = "Give another --dir, below a folder that you may write to."
            raise StorageError(error.what, error.where, hint) from error
        try:
            held = lock(path)
        except StorageError:
            if path.exists():
                raise
            continue
        if held.has_name():
            return held
        held.release()


def _remove_start(path: Path, made: Sequence[Path], logs: Sequence[Path] = ()) -> None:
    """Remove what names a run that never began, then of `made` (inner first) what holds nothing else."""
    with suppress(OSError, StorageError):  # the error that led here is the one to report
        names = [path / name for name in ("manifest.json", "status.json", "config.yaml")]
        remove_files(p for p in (*names, *logs) if p.exists())
        if os.listdir(path) == [LOCK_NAME]:
            for entry in made:
                entry.rmdir() if entry.is_dir() else entry.unlink()


def _remove_all_leftovers(path: Path) -> None:
    for folder in (path, path / "checkpoints", path / "replay"):
        remove_leftovers(folder)
    status = path / "status.json"
    if status.exists() and _stored_status(path) is None:
        _log.warning("%s is damaged and removed; it only reports progress", status)
        remove_files([status])
