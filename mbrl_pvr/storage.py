"""The only module that opens files for writing: atomic files and folders, append-only journals.

Every system call that changes the disk goes through `syscalls`, so that tests can fail or kill each of them in turn.
What it raises is `StorageError`, in one line, with the bytes needed and free. `lock.py` and `runfolder.py` build on it.
"""

import errno
import hashlib
import itertools
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from mbrl_pvr.errors import IntegrityError, StorageError

TEMPORARY = ".tmp"  # names that start with a dot and end so are leftovers of a killed writer
RESTORE = "Restore it from a copy, or start again with another --dir."  # what helps where a run's file is damaged
Buffer: TypeAlias = bytes | bytearray | memoryview
_PIECE = 64 << 20  # bytes per write call and per read when hashing

_REASONS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "disk quota used up",
    errno.EIO: "input/output error of the disk",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "not permitted",
    errno.ENAMETOOLONG: "path too long",
}


class Syscalls:
    """Calls `os.<name>(*args)`. Tests put a subclass in place that counts, fails or kills."""

    def __call__(self, name: str, *args: Any) -> Any:
        return getattr(os, name)(*args)


syscalls = Syscalls()


@contextmanager
def using(replacement: Syscalls) -> Iterator[None]:
    """Route all system calls of this module through `replacement`; for fault injection."""
    global syscalls
    before, syscalls = syscalls, replacement
    try:
        yield
    finally:
        syscalls = before


def free_space(path: Path | str) -> int:
    """Bytes that an ordinary user may still write where `path` is or will be."""
    try:
        return _free(Path(path).absolute())
    except OSError as error:
        raise StorageError(f"the disk does not say what is free: {error.strerror}", str(path)) from error


def _free(path: Path) -> int:
    while not path.exists():
        path = path.parent
    stat = syscalls("statvfs", path)
    return stat.f_bavail * stat.f_frsize


def require_space(path: Path | str, needed: int, purpose: str) -> None:
    """StorageError unless `needed` bytes are free where `path` is or will be."""
    free = free_space(path)
    if needed > free:
        numbers = f"{needed:,} bytes, {free:,} are free"
        raise StorageError(f"{purpose} needs {numbers}", str(path), "Make room, then give the same command again.")


def require_writable(folder: Path) -> None:
    """StorageError unless a file can be made in `folder`, or in the nearest of its parents that exists; leaves none."""
    while not os.path.lexists(folder):
        folder = folder.parent
    probe = _temporary(folder / "probe")
    try:
        write_new(probe, b"")
        remove_files([probe])
    except StorageError as error:
        raise StorageError(error.what, str(folder), "Choose a folder that you may write to.") from error


def call(name: str, path: Path, *args: Any, needed: int = 0) -> Any:
    """One system call `os.<name>(*args)`; StorageError naming `path` where it fails."""
    try:
        return syscalls(name, *args)
    except OSError as error:
        raise _refusal(error, name, path, needed) from error


def _refusal(error: OSError, name: str, path: Path, needed: int = 0) -> StorageError:
    """The error of a system call, in words and with the numbers that matter."""
    reason = _REASONS.get(error.errno or 0, os.strerror(error.errno or 0))
    try:
        free = f"{_free(path):,}"
    except OSError:
        free = "unknown"
    numbers = f"{needed:,} bytes needed, {free} free" if needed else f"{free} bytes free"
    return StorageError(f"{reason} ({name}): {numbers}", str(path))


def _sync_folder(folder: Path) -> None:
    fd = call("open", folder, folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call("fsync", folder, fd)
    finally:
        call("close", folder, fd)


def make_folders(folder: Path) -> None:
    """Create `folder` and its parents durably; existing ones are kept."""
    missing = list(itertools.takewhile(lambda p: not p.exists(), [folder, *folder.parents]))
    for path in reversed(missing):
        try:
            call("mkdir", path, path)
        except StorageError:
            if not path.is_dir():  # else another process was faster
                raise
        _sync_folder(path.parent)


def write_all(fd: int, data: memoryview, path: Path, needed: int) -> None:
    """Write all of `data` at the file's position."""
    while len(data):
        data = data[call("write", path, fd, data[:_PIECE], needed=needed) :]


def write_new(path: Path, data: Buffer | Iterable[Buffer], needed: int = 0) -> dict[str, Any]:
    """Write and fsync a file that must not exist yet (not its folder); returns its {"length", "sha256"}."""
    pieces = [data] if isinstance(data, Buffer) else data
    sha, length = hashlib.sha256(), 0
    fd = call("open", path, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        for piece in pieces:
            view = memoryview(piece).cast("B")
            sha.update(view)
            length += len(view)
            write_all(fd, view, path, max(needed, len(view)))
        call("fsync", path, fd, needed=needed)
    finally:
        call("close", path, fd)
    return {"length": length, "sha256": sha.hexdigest()}


_unique = itertools.count()


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name}.{os.getpid()}-{next(_unique)}{TEMPORARY}"


def write_atomic(path: Path | str, data: Buffer | Iterable[Buffer], needed: int = 0) -> dict[str, Any]:
    """Replace `path` by `data` (bytes, or pieces): all or nothing, and durable. Returns {"length", "sha256"}."""
    path = Path(path)
    temporary = _temporary(path)
    try:
        entry = write_new(temporary, data, needed)
        call("rename", path, temporary, path)
    except Exception:
        _forget(temporary)
        raise
    _sync_folder(path.parent)
    return entry


@contextmanager
def replace_atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path for a library that writes files itself (video, figures); it takes the name `path` at the end.

    StorageError also where the disk refuses the library.
    """
    path = Path(path)
    temporary = _temporary(path).with_suffix(TEMPORARY + path.suffix)  # libraries choose the format by the ending
    try:
        yield temporary
        fd = call("open", temporary, temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            call("fsync", temporary, fd)
        finally:
            call("close", temporary, fd)
        call("rename", path, temporary, path)
    except Exception as error:
        _forget(temporary)
        if isinstance(error, OSError) and error.errno in _REASONS:
            raise _refusal(error, "write", path) from error
        raise
    _sync_folder(path.parent)


def _forget(path: Path) -> None:
    with suppress(OSError):  # the error that led here is the one to report
        syscalls("unlink", path)


def write_folder(
    path: Path, files: Mapping[str, Buffer | Iterable[Buffer]], last: tuple[str, Any], needed: int
) -> None:
    """Write a folder of files, all or nothing and durable, in place of any folder at `path`.

    `last` is (name, function from the entries of `files` to bytes): the manifest, written after all others.
    """
    partial = path.parent / f".{path.name}.new{TEMPORARY}"
    remove_folder(partial)
    call("mkdir", partial, partial)
    try:
        entries = {name: write_new(partial / name, data, needed) for name, data in files.items()}
        write_new(partial / last[0], last[1](entries), needed)
        _sync_folder(partial)
    except Exception:
        with suppress(StorageError):
            remove_folder(partial)
        raise
    if path.exists():
        set_aside(path, f".{path.name}.old{TEMPORARY}")
    call("rename", path, partial, path)
    _sync_folder(path.parent)
    remove_folder(path.parent / f".{path.name}.old{TEMPORARY}")


def set_aside(path: Path, name: str) -> None:
    """Rename a folder within its parent, durably; a folder that has that name is removed first."""
    target = path.parent / name
    remove_folder(target)
    call("rename", path, path, target)
    _sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder of files where it exists."""
    if path.exists():
        remove_files(sorted(path.iterdir()))
        call("rmdir", path, path)
        _sync_folder(path.parent)


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files."""
    for path in paths:
        call("unlink", path, path)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in `folder`; only for who holds the lock."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") and TEMPORARY in path.name:
            if path.is_dir():
                remove_folder(path)
            else:
                call("unlink", path, path)


# ---- reading: hash, then parse -------------------------------------------------------------------------------------


def hash_file(path: Path) -> dict[str, Any]:
    """{"length", "sha256"} of a file, read in pieces."""
    sha, length = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                sha.update(piece)
                length += len(piece)
    except FileNotFoundError as error:
        raise IntegrityError("file is missing", str(path), RESTORE) from error
    except OSError as error:
        raise IntegrityError(f"cannot be read: {error.strerror}", str(path), RESTORE) from error
    return {"length": length, "sha256": sha.hexdigest()}


def verify_file(path: Path, entry: dict[str, Any]) -> None:
    """IntegrityError unless the file is there and has the length and sha256 of `entry`."""
    seen = hash_file(path)
    if seen["length"] != entry["length"]:
        raise IntegrityError(f"{seen['length']:,} bytes long, should be {entry['length']:,}", str(path), RESTORE)
    if seen["sha256"] != entry["sha256"]:
        raise IntegrityError(f"sha256 is {seen['sha256'][:12]}…, should be {entry['sha256'][:12]}…", str(path), RESTORE)


def plain(value: Any) -> Any:
    """The same value for JSON: NaN and infinities become None, numpy and torch numbers Python's."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def digest(value: Any) -> str:
    """sha256 of a JSON-like value, whatever the order of its keys."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


_SEAL = re.compile(rb'"sha256": "([0-9a-f]{64})"\n}\n\Z')


def sealed_json(value: dict[str, Any]) -> bytes:
    """Indented JSON whose last field is the sha256 of the file with that field empty."""
    text = json.dumps({**plain(value), "sha256": ""}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    seal = hashlib.sha256(text.encode()).hexdigest()
    return (text[: -len('""\n}\n')] + f'"{seal}"\n}}\n').encode()


def read_sealed(path: Path) -> dict[str, Any]:
    """What `sealed_json` wrote, without the seal; IntegrityError where one byte differs."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise IntegrityError("file is missing", str(path), RESTORE) from error
    except OSError as error:
        raise IntegrityError(f"cannot be read: {error.strerror}", str(path), RESTORE) from error
    seal = _SEAL.search(data)
    if seal is None or hashlib.sha256(data[: seal.start(1)] + data[seal.end(1) :]).hexdigest().encode() != seal[1]:
        raise IntegrityError("file was changed or cut short (its own checksum does not fit)", str(path), RESTORE)
    value = json.loads(data)
    del value["sha256"]
    return value


# ---- journals ------------------------------------------------------------------------------------------------------


class Journal:
    """A file of JSON lines that only grows, and can be cut back to what a checkpoint committed."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        created = not self.path.exists()
        self._fd = call("open", self.path, self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if created:
            _sync_folder(self.path.parent)
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # the line that a killed process was writing
            call("ftruncate", self.path, self._fd, whole)
        self._length, self._crc = whole, zlib.crc32(data[:whole])

    def append(self, row: dict[str, Any]) -> None:
        """Append one row; NaN and infinities become null."""
        line = (json.dumps(plain(row), allow_nan=False, ensure_ascii=False) + "\n").encode()
        write_all(self._fd, memoryview(line), self.path, len(line))
        self._length += len(line)
        self._crc = zlib.crc32(line, self._crc)

    def commit(self) -> dict[str, int]:
        """Make all rows durable; returns {"length", "crc32"} for a checkpoint's manifest."""
        call("fsync", self.path, self._fd)
        return {"length": self._length, "crc32": self._crc}

    def verify(self, length: int, crc32: int) -> None:
        """IntegrityError where what was committed is not there or differs."""
        data = self.path.read_bytes()[:length]
        if len(data) < length:
            raise IntegrityError(f"{len(data):,} bytes left of {length:,} committed", str(self.path), RESTORE)
        if zlib.crc32(data) != crc32:
            raise IntegrityError(f"the first {length:,} bytes are not those committed (CRC)", str(self.path), RESTORE)

    def cut(self, length: int, crc32: int) -> None:
        """Truncate to what was committed; IntegrityError where that is not there or differs."""
        self.verify(length, crc32)
        call("ftruncate", self.path, self._fd, length)
        call("fsync", self.path, self._fd)
        self._length, self._crc = length, crc32

    def rows(self) -> list[dict[str, Any]]:
        """All rows."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def close(self) -> None:
        """Close the file; no row may follow."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            call("close", self.path, fd)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
