"""Errors of the encoder zoo: what went wrong, where, what to do about it, and an exit status by class."""


class ZooError(Exception):
    """Base of all errors of `pvr_zoo`; `str` is one or two lines."""

    exit_code = 1

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what, where, hint)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.what}{place}" + (f"\n{self.hint}" if self.hint else "")


class UnknownEncoder(ZooError):
    """No encoder of this name, and no file at this path."""

    exit_code = 2


class SpecError(ZooError):
    """The encoder exists, but not with this truncation, feature, norm or input size."""

    exit_code = 2


class WeightsError(ZooError):
    """A weights file is damaged, of another architecture, or not what its checksum says."""

    exit_code = 3


class UnsafeWeights(ZooError):
    """A weights file holds, or may hold, code; it is refused unread."""

    exit_code = 6


class FrameError(ZooError):
    """Frames of the wrong type, shape or channel order."""

    exit_code = 7


class WeightsUnavailable(ZooError):
    """Weights that are not on this machine and cannot be fetched."""

    exit_code = 8
