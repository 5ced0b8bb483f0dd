"""The figures: what a run must hold for each, the command that makes it, and the drawing. A new figure is a module in
`figures/`, a function in `tables.py`, and one row in `FIGURES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import groups, recorded, tables
from analysis.runs import Run, look_up
from analysis.tables import Names, Options

CONSTANT = "its latents are constant, so errors of predicting them mean nothing"
NO_MAXIMUM = "no normalised returns: no maximal return is declared for its task"
NO_POLICY = "it learned no policy, so it plays no episodes"
NO_HOURS = "its log says nothing of time"
EXPORTED = "an export holds no latents"
BEYOND_COMMANDS = (CONSTANT, NO_MAXIMUM, NO_POLICY, NO_HOURS, EXPORTED)  # what a run lacks that no command makes

RESUME, OOD, RECORD = "mbrl-pvr resume {run}", "mbrl-pvr ood {run}", "mbrl-pvr record {run}"
DOSES = f"{OOD} --severity 0 --severity 0.25 --severity 0.5 --severity 0.75 --severity 1"
ON_BANK = " --bank BANK"  # what recording a bank adds; which one it is says the reason


@dataclass(frozen=True)
class FigureKind:
    """How run folders feed a figure: what a run lacks for it ("" for nothing), the step of the checkpoint that its
    input comes from (None where there is no one step), the command that makes the input, and the drawing. An `extra`
    figure is not missed where it was not asked for, and may want something of its runs `together` ("" for nothing).
    A figure of records has a form for each bank beside that of fresh episodes, unless it is `on_banks` alone.
    """

    lacks: Callable[[Run], str]
    step: Callable[[Run], int | None]
    command: str  # takes the run folder
    draw: Callable[[Sequence[Run], Names, Options], Any]
    extra: bool = False
    together: Callable[[Sequence[Run], Options], str] = lambda runs, options: ""
    on_banks: bool = False

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
    if run.exported:
        return EXPORTED
    return f"no record of bank {run.bank}" if run.bank else "no recorded latents"


def _lacks_rollouts(run: Run) -> str:
    return CONSTANT if run.latents_constant else _lacks_latents(run)


def _lacks_errors(run: Run) -> str:
    if (sums := run.window_errors) is None:
        return "no errors of records were exported" if run.exported else _lacks_rollouts(run)
    return CONSTANT if (sums["constant"] == 1).any() else ""


def _without_policy(run: Run) -> bool:
    return look_up(run.config, "agent.policy") is False


def _lacks_episodes(run: Run) -> str:
    if run.episodes is not None:
        return ""
    return NO_POLICY if _without_policy(run) else "no episodes are logged"


def _lacks_ood(run: Run) -> str:
    if run.ood is not None:
        return ""
    return NO_POLICY if _without_policy(run) else "no out-of-distribution episodes"


def _lacks_doses(run: Run) -> str:
    if (played := tables.newest_ood(run)) is None:
        return _lacks_ood(run)
    from analysis.figures import dose

    return "" if len(dose.doses(played)) else "no shift was played at several severities"


def _lacks_normalised(run: Run) -> str:
    if (played := tables.newest_ood(run)) is None:
        return _lacks_ood(run)
    return "" if tables.is_normalised(played) else NO_MAXIMUM


def _lacks_two_evaluations(run: Run) -> str:
    rows = tables.evaluated(run)
    return "" if len(rows) and rows["step"].nunique() > 1 else "fewer than two evaluations are logged"


def _lacks_point(run: Run) -> str:
    return _lacks_errors(run) or ("" if len(tables.evaluated(run)) else "no evaluation is logged")


def _lacks_depth(run: Run) -> str:
    return _lacks_point_of_returns(run) or (
        "" if tables.depth(run) is not None else "no depth of an encoder to compare"
    )


def _lacks_front_end(run: Run) -> str:
    unread = "agent.front_end" in groups.inert(run.config) or look_up(run.config, "agent.front_end") is None
    return _lacks_point_of_returns(run) or ("no front end behind its encoder" if unread else "")


def _lacks_point_of_returns(run: Run) -> str:
    return "" if len(tables.evaluated(run)) or run.ood is not None else "no evaluation is logged"


def _lacks_cost(run: Run) -> str:
    return _lacks_point_of_returns(run) or (NO_HOURS if np.isnan(tables.hours(run)) else "")


def _lacks_episodes_of(number: int) -> Callable[[Run], str]:
    def lacks(run: Run) -> str:
        few = run.record is not None and run.record.episodes < number
        return f"fewer than {number} recorded episodes" if few else _lacks_rollouts(run)

    return lacks


def _lacks_pairs(run: Run) -> str:
    without = f"no record of bank {run.bank} under a shift" if run.bank else "no record of a bank under a shift"
    return _lacks_rollouts(run) or ("" if run.shifted else without)


def _encoders(wanted: int) -> Callable[[Sequence[Run], Options], str]:
    def too_few(runs: Sequence[Run], options: Options) -> str:
        met: dict[tuple[str, str], set[str]] = {}
        for run in runs:
            met.setdefault((run.task, run.agent), set()).add(run.encoder)
        most = max(map(len, met.values()))
        compares = f"it compares {wanted} encoders or more with one agent on one task"
        return "" if most >= wanted else f"{compares}, and there are {most}"

    return too_few


def _values(of: Callable[[Run], Any], setting: str) -> Callable[[Sequence[Run], Options], str]:
    def one_alone(runs: Sequence[Run], options: Options) -> str:
        series, seen = groups.series_names(runs, [setting]), dict[tuple[str, str, str], set[Any]]()
        for run in runs:
            seen.setdefault((run.task, run.agent, series[run.id]), set()).add(of(run))
        return "" if max(map(len, seen.values())) > 1 else f"it compares runs that differ in {setting} alone"

    return one_alone


def _properties(runs: Sequence[Run], options: Options) -> str:
    known = {run.encoder for run in runs if any(options.properties.get(run.encoder, {}).values())}
    return _encoders(2)(runs, options) or ("" if known else "none of these encoders is known to have a property")


def _of_log(draw: Callable, lacks: Callable[[Run], str] = _lacks_episodes, **more: Any) -> FigureKind:
    return FigureKind(lacks, _no_step, RESUME, draw, **more)


def _of_ood(draw: Callable, lacks: Callable[[Run], str] = _lacks_ood, command: str = OOD, **more: Any) -> FigureKind:
    return FigureKind(lacks, _ood_step, command, draw, **more)


def _of_records(draw: Callable, lacks: Callable[[Run], str] = _lacks_rollouts, **more: Any) -> FigureKind:
    return FigureKind(lacks, _latents_step, RECORD, draw, **more)


def _front_end(run: Run) -> Any:
    return look_up(run.config, "agent.front_end")


FIGURES = {
    "returns": _of_log(tables.returns),
    "ood": _of_ood(tables.ood),
    "dose": _of_ood(tables.dose, _lacks_doses, DOSES, extra=True),
    "profile": _of_ood(tables.profile, _lacks_normalised, extra=True, together=_encoders(2)),
    "properties": _of_ood(tables.properties, _lacks_normalised, extra=True, together=_properties),
    "area": _of_log(tables.area, _lacks_two_evaluations, extra=True),
    "truncation": _of_log(
        tables.truncation, _lacks_depth, extra=True, together=_values(tables.depth, "encoder.truncate")
    ),
    "front_end": _of_log(
        tables.front_end, _lacks_front_end, extra=True, together=_values(_front_end, "agent.front_end")
    ),
    "cost": _of_log(tables.cost, _lacks_cost, extra=True, together=_encoders(2)),
    "dynamics": _of_records(recorded.dynamics_curves),
    "errors": _of_records(recorded.errors, _lacks_errors),
    "calibration": _of_records(recorded.calibration, _lacks_latents),
    "latents": _of_records(recorded.latents, _lacks_latents),
    "probes": _of_records(recorded.probes, _lacks_episodes_of(3), extra=True),
    "latents_shifted": _of_records(recorded.latents_shifted, _lacks_pairs, extra=True, on_banks=True),
    "drift": _of_records(recorded.drifts, _lacks_pairs, extra=True, on_banks=True),
    "correlation": _of_records(recorded.correlation, _lacks_point, extra=True, together=_encoders(3)),
    "correlation_of_runs": _of_records(recorded.correlation_of_runs, _lacks_point, extra=True, together=_encoders(3)),
}
