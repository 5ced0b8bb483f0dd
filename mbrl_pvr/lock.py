"""One writer for a run folder."""

import fcntl
import json
import os
import socket
import time
import weakref
from pathlib import Path

from mbrl_pvr.errors import RunLocked, StorageError
from mbrl_pvr.storage import call, write_all

LOCK_NAME = ".lock"
_held: "weakref.WeakSet[Lock]" = weakref.WeakSet()


class Lock:
    """An flock held for life; the kernel frees it when the process ends, also by kill -9. Made by `lock`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path, self._fd = path, fd
        _held.add(self)

    def has_name(self) -> bool:
        """Whether the file still lies where it was opened; a lock on one that was removed keeps nobody out."""
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Free the lock; the file stays."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            call("close", self.path, fd)


def _close_in_child() -> None:
    for held in list(_held):  # a forked child that outlives its parent would keep the lock
        if held._fd >= 0:
            os.close(held._fd)
            held._fd = -1


os.register_at_fork(after_in_child=_close_in_child)


def lock(folder: Path | str) -> Lock:
    """Take the folder for this process; RunLocked, with pid, host and start time, where another one holds it."""
    path = Path(folder) / LOCK_NAME
    fd = call("open", path, path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        call("close", path, fd)
        raise RunLocked(f"in use by {_holder(path)}", str(folder), "Wait for it or stop it.") from error
    except OSError as error:
        call("close", path, fd)
        raise StorageError(f"this file system cannot lock files: {error.strerror}", str(folder)) from error
    who = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    try:
        call("ftruncate", path, fd, 0)
        write_all(fd, memoryview(json.dumps(who).encode()), path, 0)
    except StorageError:
        call("close", path, fd)
        raise
    return Lock(path, fd)


def _holder(path: Path) -> str:
    for _ in range(50):  # the holder may just be writing its name
        try:
            who = json.loads(path.read_bytes())
            if who["host"] != socket.gethostname() or _alive(who["pid"]):
                return f"process {who['pid']} on {who['host']} since {who['started']}"
        except (ValueError, KeyError, OSError):
            pass
        time.sleep(0.01)
    return "another process, which has not said its name"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
