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

RESUME, OOD, RECORD = "mbrl-pvr resume {run}", "mbrl-pvr ood {run}", "mbrl-pvr record {run}"
DOSES = f"{OOD} --severity 0 --severity 0.25 --severity 0.5 --severity 0.75 --severity 1"
ON_BANK = " --bank BANK"  # what recording a bank adds; which one it is says the reason
BANK, BANK_SHIFTED = (
    f"mbrl-pvr bank make env={{task}}{shift} && {RECORD}{ON_BANK}" for shift in ("", " --shift SHIFT")
)
TRAIN = "mbrl-pvr train … "  # further runs, with all but this as it was


@dataclass(frozen=True)
class Lack:
    """What runs lack for a figure, and the command that makes it, with places for a run's folder and task; "" where
    none does.
    """

    why: str
    command: str = ""


CONSTANT = Lack("its latents are constant, so errors of predicting them mean nothing")
NO_MAXIMUM = Lack("no normalised returns: no maximal return is declared for its task")
NO_POLICY = Lack("it learned no policy, so it plays no episodes")
NO_HOURS = Lack("its log says nothing of time")
NO_EPISODES = Lack("no episodes are logged", RESUME)
NO_OOD = Lack("no out-of-distribution episodes", OOD)
NO_RETURNS = Lack("no evaluation is logged", OOD)
NO_BANK = Lack("no record of a bank", BANK)
NO_SHIFTED_EPISODES = Lack("no record of its own episodes under a shift", f"{RECORD} --shift SHIFT")
NO_SHIFTED = Lack("no record of a bank under a shift", BANK_SHIFTED)


@dataclass(frozen=True)
class FigureKind:
    """How run folders feed a figure: what a run lacks for it, the step of the checkpoint that its input comes from
    (None where there is no one step), the command that makes the input anew, and the drawing. A figure that compares
    runs may want something of them `together`; one that `compares` returns or errors says where controls did not learn.
    A figure of records has a form for each bank beside that of fresh episodes, unless it is `on_banks` alone.
    """

    lacks: Callable[[Run], Lack | None]
    step: Callable[[Run], int | None]
    command: str
    draw: Callable[[Sequence[Run], Names, Options], Any]
    together: Callable[[Sequence[Run], Options], Lack | None] | None = None
    on_banks: bool = False
    compares: bool = True

    @property
    def of_records(self) -> bool:
        return self.command == RECORD

    def renew(self, run: Run) -> str:
        """The command with a place for the run folder."""
        return self.command + (ON_BANK if self.of_records and run.bank else "")


def _no_step(run: Run) -> None:
    return None


def _ood_step(run: Run) -> int | None:
    return run.ood_step


def _latents_step(run: Run) -> int | None:
    return run.latents_step


def _lacks_latents(run: Run) -> Lack | None:
    if run.latents_kind:
        return None
    if run.exported:
        return Lack("an export holds no latents")
    if run.bank:
        return Lack(f"no record of bank {run.bank}", RECORD + ON_BANK)
    if _without_policy(run):
        return NO_POLICY if run.banks else Lack("no recorded latents", RECORD + ON_BANK)
    return Lack("no recorded latents", RECORD)


def _lacks_rollouts(run: Run) -> Lack | None:
    return CONSTANT if run.latents_constant else _lacks_latents(run)


def _lacks_errors(run: Run) -> Lack | None:
    if (sums := run.window_errors) is None:
        return Lack("no errors of records were exported") if run.exported else _lacks_rollouts(run)
    return CONSTANT if (sums["constant"] == 1).any() else None


def _without_policy(run: Run) -> bool:
    return look_up(run.config, "agent.policy") is False


def _unless_no_policy(run: Run, lack: Lack) -> Lack:
    return NO_POLICY if _without_policy(run) else lack


def _lacks_episodes(run: Run) -> Lack | None:
    return None if run.episodes is not None else _unless_no_policy(run, NO_EPISODES)


def _lacks_ood(run: Run) -> Lack | None:
    return None if run.ood is not None else _unless_no_policy(run, NO_OOD)


def _lacks_doses(run: Run) -> Lack | None:
    from analysis.figures import dose

    played = tables.newest_ood(run)
    if played is not None and len(dose.doses(played)):
        return None
    return _unless_no_policy(run, Lack("no shift was played at several severities", DOSES))


def _lacks_normalised(run: Run) -> Lack | None:
    if (played := tables.newest_ood(run)) is None:
        return _lacks_ood(run)
    return None if tables.is_normalised(played) else NO_MAXIMUM


def _lacks_two_evaluations(run: Run) -> Lack | None:
    rows = tables.evaluated(run)
    if len(rows) and rows["step"].nunique() > 1:
        return None
    return _unless_no_policy(run, Lack("fewer than two evaluations are logged", f"{TRAIN}eval.every=STEPS"))


def _lacks_returns(run: Run) -> Lack | None:
    return None if len(tables.evaluated(run)) or run.ood is not None else _unless_no_policy(run, NO_RETURNS)


def _lacks_point(run: Run) -> Lack | None:
    return _lacks_errors(run) or _lacks_returns(run)


def _lacks_depth(run: Run) -> Lack | None:
    if tables.depth(run) is None:
        return Lack("no depth of an encoder to compare", f"{TRAIN}encoder=ENCODER encoder.truncate=K")
    return _lacks_returns(run)


def _lacks_front_end(run: Run) -> Lack | None:
    if "agent.front_end" in groups.inert(run.config) or look_up(run.config, "agent.front_end") is None:
        return Lack("no front end behind its encoder", f"{TRAIN}encoder=ENCODER agent.front_end=mlp")
    return _lacks_returns(run)


def _lacks_cost(run: Run) -> Lack | None:
    return _lacks_returns(run) or (NO_HOURS if np.isnan(tables.hours(run)) else None)


def _lacks_episodes_of(number: int) -> Callable[[Run], Lack | None]:
    def lacks(run: Run) -> Lack | None:
        if run.record is not None and run.record.episodes < number:
            return Lack(f"fewer than {number} recorded episodes", RECORD + (ON_BANK if run.bank else ""))
        return _lacks_rollouts(run)

    return lacks


def _lacks_pairs(run: Run) -> Lack | None:
    if not run.bank:
        return _lacks_latents(run) if run.exported else NO_SHIFTED
    return _lacks_looks(run)


def _lacks_shift(run: Run) -> Lack | None:
    if run.shifts:
        return None
    if run.older_shifts:
        again = RECORD + ON_BANK if run.bank else f"{RECORD} && {RECORD} --shift SHIFT"
        return Lack("its records with and without a shift are of different checkpoints", again)
    return Lack(f"no record of bank {run.bank} under a shift", BANK_SHIFTED) if run.bank else NO_SHIFTED_EPISODES


def _lacks_looks(run: Run) -> Lack | None:
    return _lacks_latents(run) or _lacks_shift(run) or _lacks_rollouts(run)


def _lacks_shifted_errors(run: Run) -> Lack | None:
    lack = _lacks_errors(run)
    return _lacks_shift(run) or lack if lack in (None, CONSTANT) else lack


def _encoders(wanted: int) -> Callable[[Sequence[Run], Options], Lack | None]:
    def too_few(runs: Sequence[Run], options: Options) -> Lack | None:
        met: dict[tuple[str, str], set[str]] = {}
        for run in runs:
            met.setdefault((run.task, run.agent), set()).add(run.encoder)
        most = max(map(len, met.values()))
        compares = f"it compares {wanted} encoders or more with one agent on one task"
        return (
            None
            if most >= wanted
            else Lack(f"{compares}, and there {'is' if most == 1 else 'are'} {most}", f"{TRAIN}encoder=ENCODER")
        )

    return too_few


def _values(
    of: Callable[[Run], Any], setting: str, others: Callable[[Any], str]
) -> Callable[[Sequence[Run], Options], Lack | None]:
    """Runs that differ in one setting; `others`: to one of its values another to train."""

    def one_alone(runs: Sequence[Run], options: Options) -> Lack | None:
        series, seen = groups.series_names(runs, [setting]), dict[tuple[str, str, str], set[Any]]()
        for run in runs:
            seen.setdefault((run.task, run.agent, series[run.id]), set()).add(of(run))
        if max(map(len, seen.values())) > 1:
            return None
        return Lack(f"it compares runs that differ in {setting} alone", f"{TRAIN}{setting}={others(of(runs[0]))}")

    return one_alone


def _properties(runs: Sequence[Run], options: Options) -> Lack | None:
    known = any(any(options.properties.get(run.encoder, {}).values()) for run in runs)
    unknown = Lack("none of these encoders is known to have a property", f"{TRAIN}encoder=ENCODER")
    return _encoders(2)(runs, options) or (None if known else unknown)


def _of_log(draw: Callable, lacks: Callable[[Run], Lack | None] = _lacks_episodes, **more: Any) -> FigureKind:
    return FigureKind(lacks, _no_step, RESUME, draw, **more)


def _of_ood(
    draw: Callable, lacks: Callable[[Run], Lack | None] = _lacks_ood, command: str = OOD, **more: Any
) -> FigureKind:
    return FigureKind(lacks, _ood_step, command, draw, **more)


def _of_records(draw: Callable, lacks: Callable[[Run], Lack | None] = _lacks_rollouts, **more: Any) -> FigureKind:
    return FigureKind(lacks, _latents_step, RECORD, draw, **more)


def _front_end(run: Run) -> Any:
    return look_up(run.config, "agent.front_end")


_DEPTHS = _values(tables.depth, "encoder.truncate", lambda depth: "K")
_FRONT_ENDS = _values(_front_end, "agent.front_end", lambda layer: "linear" if layer == "mlp" else "mlp")

FIGURES = {
    "returns": _of_log(tables.returns),
    "ood": _of_ood(tables.ood),
    "dose": _of_ood(tables.dose, _lacks_doses, DOSES),
    "profile": _of_ood(tables.profile, _lacks_normalised, together=_encoders(2)),
    "properties": _of_ood(tables.properties, _lacks_normalised, together=_properties),
    "area": _of_log(tables.area, _lacks_two_evaluations),
    "truncation": _of_log(tables.truncation, _lacks_depth, together=_DEPTHS),
    "front_end": _of_log(tables.front_end, _lacks_front_end, together=_FRONT_ENDS),
    "cost": _of_log(tables.cost, _lacks_cost, together=_encoders(2)),
    "dynamics": _of_records(recorded.dynamics_curves),
    "errors": _of_records(recorded.errors, _lacks_errors),
    "calibration": _of_records(recorded.calibration, _lacks_latents),
    "latents": _of_records(recorded.latents, _lacks_latents, compares=False),
    "probes": _of_records(recorded.probes, _lacks_episodes_of(3), compares=False),
    "latents_shifted": _of_records(recorded.latents_shifted, _lacks_looks, compares=False),
    "errors_shifted": _of_records(recorded.errors_shifted, _lacks_shifted_errors),
    "drift": _of_records(recorded.drifts, _lacks_pairs, on_banks=True, compares=False),
    "correlation": _of_records(recorded.correlation, _lacks_point, together=_encoders(3)),
    "correlation_of_runs": _of_records(recorded.correlation_of_runs, _lacks_point, together=_encoders(3)),
}
