"""The figures: what a run must hold for each, the command that makes it, and the drawing. A new figure is a module in
`figures/`, a function in `tables.py`, and one row in `FIGURES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis import tables
from analysis.runs import Run
from analysis.tables import Names, Options

CONSTANT = "its latents are constant, so errors of predicting them mean nothing"
NO_MAXIMUM = "no normalised returns: no maximal return is declared for its task"
BEYOND_COMMANDS = (CONSTANT, NO_MAXIMUM)  # what a run lacks that no command makes

RESUME, OOD, RECORD = "mbrl-pvr resume {run}", "mbrl-pvr ood {run}", "mbrl-pvr record {run}"
DOSES = f"{OOD} --severity 0 --severity 0.25 --severity 0.5 --severity 0.75 --severity 1"
ON_BANK = " --bank BANK"  # what recording a bank adds; which one it is says the reason


@dataclass(frozen=True)
class FigureKind:
    """How run folders feed a figure: what a run lacks for it ("" for nothing), the step of the checkpoint that its
    input comes from (None where there is no one step), the command that makes the input, and the drawing. An `extra`
    figure is not missed where it was not asked for; one that compares encoders is drawn from as many as `encoders`, of
    one task and agent. A figure of records has a form for each bank beside that of fresh episodes.
    """

    lacks: Callable[[Run], str]
    step: Callable[[Run], int | None]
    command: str  # takes the run folder
    draw: Callable[[Sequence[Run], Names, Options], Any]
    extra: bool = False
    encoders: int = 1

    @property
    def of_records(self) -> bool:
        return self.command == RECORD

    def command_for(self, run: Run) -> str:
        """With a place for the run folder."""
        return self.command + (ON_BANK if self.of_records and run.bank else "")


def _no_step(run: Run) -> None:
    return None


def _ood_step(run: Run) -> int | None:
    return run.ood_step


def _latents_step(run: Run) -> int | None:
    return run.latents_step


def _lacks_latents(run: Run) -> str:
    if run.latents_kind:
        return ""
    return f"no record of bank {run.bank}" if run.bank else "no recorded latents"


def _lacks_rollouts(run: Run) -> str:
    return CONSTANT if run.latents_constant else _lacks_latents(run)


def _lacks_episodes(run: Run) -> str:
    return "" if run.episodes is not None else "no episodes are logged"


def _lacks_ood(run: Run) -> str:
    return "" if run.ood is not None else "no out-of-distribution episodes"


def _lacks_doses(run: Run) -> str:
    if (played := tables.newest_ood(run)) is None:
        return _lacks_ood(run)
    from analysis.figures import dose

    return "" if len(dose.doses(played)) else "no shift was played at several severities"


def _lacks_normalised(run: Run) -> str:
    if (played := tables.newest_ood(run)) is None:
        return _lacks_ood(run)
    return "" if "normalised" in played and pd.to_numeric(played["normalised"]).notna().all() else NO_MAXIMUM


def _lacks_point(run: Run) -> str:
    return _lacks_rollouts(run) or ("" if len(tables.evaluated(run)) else "no evaluation is logged")


def _of_log(draw: Callable, lacks: Callable[[Run], str] = _lacks_episodes, **more: Any) -> FigureKind:
    return FigureKind(lacks, _no_step, RESUME, draw, **more)


def _of_ood(draw: Callable, lacks: Callable[[Run], str] = _lacks_ood, command: str = OOD, **more: Any) -> FigureKind:
    return FigureKind(lacks, _ood_step, command, draw, **more)


def _of_records(draw: Callable, lacks: Callable[[Run], str] = _lacks_rollouts, **more: Any) -> FigureKind:
    return FigureKind(lacks, _latents_step, RECORD, draw, **more)


FIGURES = {
    "returns": _of_log(tables.returns),
    "ood": _of_ood(tables.ood),
    "dose": _of_ood(tables.dose, _lacks_doses, DOSES, extra=True),
    "profile": _of_ood(tables.profile, _lacks_normalised, extra=True, encoders=2),
    "dynamics": _of_records(tables.dynamics_curves),
    "errors": _of_records(tables.errors),
    "calibration": _of_records(tables.calibration, _lacks_latents),
    "latents": _of_records(tables.latents, _lacks_latents),
    "correlation": _of_records(tables.correlation, _lacks_point, extra=True, encoders=3),
    "correlation_of_runs": _of_records(tables.correlation_of_runs, _lacks_point, extra=True, encoders=3),
}
