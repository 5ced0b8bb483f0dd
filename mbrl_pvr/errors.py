"""Errors that a user can act on: what went wrong, where, what to do, and the exit status of the command."""


class Error(Exception):
    """Base of all errors of `mbrl_pvr`; printed as one or two lines, never as a traceback."""

    exit_code = 1

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what, where, hint)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.what}{place}" + (f"\n{self.hint}" if self.hint else "")


class ConfigError(Error):
    """A name, type, range or combination in the request is wrong."""

    exit_code = 2


class TooSmall(ConfigError):
    """This machine, or any that is asked for, has not the cores, memory or GPUs that the request takes."""


class IntegrityError(Error):
    """Stored data is damaged, missing or not what its checksum says."""

    exit_code = 3


class RunLocked(Error):
    """Another process writes to this run folder."""

    exit_code = 4


class StorageError(Error):
    """The disk refused: full, read-only, no permission, or a folder that is not ours."""

    exit_code = 5


class UnsafeFile(Error):
    """A file holds, or may hold, code; it is refused."""

    exit_code = 6


class EnvError(Error):
    """A simulator, a renderer or a worker process failed."""

    exit_code = 7


class WorkerDied(EnvError):
    """The process of an environment is gone: killed, out of memory, or crashed."""


class Unavailable(Error):
    """A missing extra, weights that cannot be fetched, or a device that is not there."""

    exit_code = 8
