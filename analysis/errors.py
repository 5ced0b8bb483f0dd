"""The error of this package: what went wrong, where, what to do, and the exit status of the command that met it."""

BAD_REQUEST = 2  # names, combinations or inputs that cannot give what was asked for
DAMAGED = 3  # a stored file is missing, cut, or not what it should be
NOT_WRITTEN = 5  # the disk refused


class AnalysisError(Exception):
    """Printed as one or two lines; `exit_code` is one of the constants above."""

    def __init__(self, what: str, where: str = "", hint: str = "", exit_code: int = BAD_REQUEST) -> None:
        self.what, self.where, self.hint, self.exit_code = what, where, hint, exit_code
        super().__init__(what, where, hint, exit_code)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.what}{place}" + (f"\n{self.hint}" if self.hint else "")


def damaged(what: str, where: object, hint: str = "") -> AnalysisError:
    """An error about a stored file."""
    return AnalysisError(what, str(where), hint, DAMAGED)
