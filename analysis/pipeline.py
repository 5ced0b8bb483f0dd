"""From run folders to figures: `analyze`. A new figure is one row in `FIGURES`."""

import difflib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from analysis import groups
from analysis.errors import DAMAGED, AnalysisError
from analysis.runs import Run, load_runs, look_up, read_latents, read_states

CONSTANT = "its latents are constant, so errors of predicting them mean nothing"
DOSES = "mbrl-pvr ood {run} --severity 0 --severity 0.25 --severity 0.5 --severity 0.75 --severity 1"
NO_POLICY = "it learned no policy, so it plays no episodes"
NO_MAXIMUM = "no normalised returns: no maximal return is declared for its task"
BEYOND_COMMANDS = (CONSTANT, NO_MAXIMUM, NO_POLICY)  # what a run lacks that no command makes


@dataclass(frozen=True)
class Options:
    """What a caller may choose for figures."""

    random_scores: Mapping[str, float] = field(default_factory=dict)  # task to the return of random actions
    max_points: int = 2000  # latents in a picture, drawn at random
    seed: int = 0  # of subsampling and UMAP


@dataclass(frozen=True)
class Names:
    """What things are called in figures."""

    series: Mapping[str, str]  # by run id
    encoders: Mapping[str, str]  # by encoder


@dataclass(frozen=True)
class FigureKind:
    """How run folders feed a figure: what a run lacks for it ("" for nothing), the step of the checkpoint that its
    input comes from (None where there is no one step), the command that makes the input, and the drawing. An `extra`
    figure is not missed where it was not asked for; one that compares encoders is drawn from as many as `encoders`, of
    one task and agent.
    """

    lacks: Callable[[Run], str]
    step: Callable[[Run], int | None]
    command: str  # takes the run folder
    draw: Callable[[Sequence[Run], Names, Options], Any]
    extra: bool = False
    encoders: int = 1


class Report(TypedDict):
    """What `analyze` made and what it could not make. Entries of `missing` have the keys figure, run, reason, command
    ("" where none helps), those of `unfinished` run, state, command; a run is named by its folder.
    """

    out: Path
    runs: list[str]
    figures: dict[str, list[Path]]
    captions: dict[str, str]
    notes: dict[str, list[str]]
    missing: list[dict[str, str]]
    unfinished: list[dict[str, str]]


def _labels(run: Run, names: Names) -> dict[str, Any]:
    return {
        "run": run.id,
        "series": names.series[run.id],
        "agent": run.agent,
        "encoder": names.encoders[run.encoder],
        "task": run.task,
        "seed": run.seed,
    }


def _stack(runs: Sequence[Run], names: Names, rows: Callable[[Run], pd.DataFrame | None]) -> pd.DataFrame:
    tables = [(run, rows(run)) for run in runs]
    return pd.concat(
        [table.assign(**_labels(run, names)) for run, table in tables if table is not None], ignore_index=True
    )


def _returns(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import returns

    return returns.draw(_stack(runs, names, lambda run: run.episodes), options.random_scores)


def _ood(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import ood

    return ood.draw(_stack(runs, names, _newest_ood), options.random_scores)


def _dose(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import dose

    return dose.draw(_stack(runs, names, _newest_ood), options.random_scores)


def _newest_ood(run: Run) -> pd.DataFrame | None:
    """Episodes of the newest checkpoint that was played out of distribution."""
    return None if run.ood is None else run.ood[run.ood["step"] == run.ood_step]


def _dynamics(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import dynamics

    tables = [dynamics.error_table(read_latents(run.path), _unimix(run), **_labels(run, names)) for run in runs]
    return dynamics.draw(pd.concat(tables))


def _unimix(run: Run) -> float | None:
    """The share of the uniform distribution in the run's categorical latents; None where it has others."""
    if run.latents_kind != "categorical":
        return None
    unimix = look_up(run.config, "agent.unimix")
    if not isinstance(unimix, int | float) or not 0 <= unimix < 1:
        where = str(run.path / "config.yaml")
        raise AnalysisError(f"agent.unimix should be a number in [0, 1), but is {unimix!r}", where, exit_code=DAMAGED)
    return float(unimix)


def _latents(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import latents

    chosen: dict[tuple[str, str, str], Run] = {}
    agents = {run.agent for run in runs}
    for run in sorted(runs, key=lambda run: run.seed):
        chosen.setdefault((run.task, run.agent, names.series[run.id]), run)
    clouds = [
        latents.cloud(_cloud_name(run, name, len(agents)), task, read_latents(run.path), _states(run))
        for (task, _, name), run in sorted(chosen.items(), key=lambda item: item[0])
    ]
    return latents.draw(clouds, max_points=options.max_points, seed=options.seed)


def _profile(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import profile

    return profile.draw(_stack(runs, names, _newest_ood))


def _correlation(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.dynamics import STUDY_WINDOWS
    from analysis.figures import correlation, dynamics

    errors = {run.id: dynamics.error_table(read_latents(run.path), _unimix(run)) for run in runs}
    window = int(min(STUDY_WINDOWS[0], *(table["k"].max() for table in errors.values())))
    rows = [{**_labels(run, names), **_errors_and_return(run, errors[run.id], window)} for run in runs]
    return correlation.draw(pd.DataFrame(rows), window)


def _errors_and_return(run: Run, errors: pd.DataFrame, window: int) -> dict[str, Any]:
    """Of one run: errors summed over the window, mean of the trajectories that last so long, and the mean return of the
    last evaluation.
    """
    inside = errors[errors["k"] <= window].groupby("trajectory")[["error", "reward_error"]]
    sums = inside.sum(min_count=window).mean()  # NaN where a step of the window has no error
    evaluated = _evaluated(run)
    last = evaluated[evaluated["step"] == evaluated["step"].max()]
    return {
        "measure": errors["measure"].iloc[0],
        "dynamics_error": sums["error"],
        "reward_error": sums["reward_error"],
        "return": last["return"].mean(),
    }


def _evaluated(run: Run) -> pd.DataFrame:
    """Evaluation episodes of a run that has a log."""
    episodes = run.episodes if run.episodes is not None else pd.DataFrame(columns=["kind"])
    return episodes[episodes["kind"] == "eval"]


def _states(run: Run) -> np.ndarray:
    return read_states(run.path, run.latents_kind or "")


def _cloud_name(run: Run, series: str, agents: int) -> str:
    """What a picture of latents is called; its agent is named only where there are several."""
    return f"{series}, seed {run.seed}" + (f" · {run.agent}" if agents > 1 else "")


def _lacks_latents(run: Run) -> str:
    return "" if run.latents_kind else "no recorded latents"


def _lacks_rollouts(run: Run) -> str:
    return CONSTANT if run.latents_constant else _lacks_latents(run)


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
    if (played := _newest_ood(run)) is None:
        return _lacks_ood(run)
    from analysis.figures import dose

    return "" if len(dose.doses(played)) else "no shift was played at several severities"


def _lacks_normalised(run: Run) -> str:
    if (played := _newest_ood(run)) is None:
        return _lacks_ood(run)
    return "" if "normalised" in played and pd.to_numeric(played["normalised"]).notna().all() else NO_MAXIMUM


def _lacks_point(run: Run) -> str:
    return _lacks_rollouts(run) or ("" if len(_evaluated(run)) else "no evaluation is logged")


FIGURES = {
    "returns": FigureKind(_lacks_episodes, lambda run: None, "mbrl-pvr resume {run}", _returns),
    "ood": FigureKind(_lacks_ood, lambda run: run.ood_step, "mbrl-pvr ood {run}", _ood),
    "dose": FigureKind(_lacks_doses, lambda run: run.ood_step, DOSES, _dose, extra=True),
    "profile": FigureKind(
        _lacks_normalised, lambda run: run.ood_step, "mbrl-pvr ood {run}", _profile, extra=True, encoders=2
    ),
    "dynamics": FigureKind(_lacks_rollouts, lambda run: run.latents_step, "mbrl-pvr record {run}", _dynamics),
    "latents": FigureKind(_lacks_latents, lambda run: run.latents_step, "mbrl-pvr record {run}", _latents),
    "correlation": FigureKind(
        _lacks_point,
        lambda run: run.latents_step,
        "mbrl-pvr record {run}",
        _correlation,
        extra=True,
        encoders=3,
    ),
}


def analyze(
    paths: Sequence[str | Path | Run],
    out: str | Path,
    figures: Sequence[str] | None = None,
    *,
    unfinished: bool = False,
    random_scores: Mapping[str, float] | None = None,
    max_points: int = 2000,
    seed: int = 0,
    formats: Sequence[str] = ("pdf", "png"),
    command: str = "",
    keep: Callable[[str, Any], None] = lambda name, drawn: None,
) -> Report:
    """Make every figure whose inputs exist, as `out/<name>.<format>` with its numbers in `out/<name>.csv`.

    What is missing is listed with the command that makes it; a figure asked for by name in `figures` raises
    AnalysisError instead. Runs that have not finished are listed and left out unless `unfinished`. `command` goes into
    the metadata of the files. `keep` is given the name and the `style.Drawn` of every figure once its files are there.
    """
    wanted = list(FIGURES) if figures is None else [_known(name) for name in figures]
    runs = load_runs(paths)
    used = [run for run in runs if run.finished or unfinished]
    waiting = [
        {"run": str(run.path), "state": run.state, "command": _for(run, "mbrl-pvr resume {run}")}
        for run in runs
        if not run.finished
    ]
    if not used:
        listed = ", ".join(f"{run.path} ({run.state})" for run in runs)
        raise AnalysisError(f"no run has finished: {listed}", hint=f"Continue with: {waiting[0]['command']}")
    groups.check_comparable(used)
    job = _Job(
        names=Names(groups.series_names(used), groups.encoder_names(used)),
        options=Options(random_scores or {}, max_points, seed),
        formats=formats,
        command=command or f"analysis.analyze({[str(run.path) for run in runs]}, {str(out)!r})",
        keep=keep,
    )
    report = Report(
        out=Path(out),
        runs=[str(run.path) for run in used],
        figures={},
        captions={},
        notes={},
        missing=[],
        unfinished=waiting,
    )
    for name in wanted:
        kind = FIGURES[name]
        ready = [run for run in used if not kind.lacks(run)]
        if not kind.extra:
            report["missing"] += [_missing(name, run) for run in used if kind.lacks(run)]
        if not ready and figures is not None:
            raise AnalysisError(f"figure {name!r} cannot be made: {kind.lacks(used[0])}", hint=_hint(kind, used))
        if (most := _encoders(ready)) >= kind.encoders:
            _make(report, name, ready, job)
        elif ready and figures is not None:
            needs = f"it compares {kind.encoders} encoders or more with one agent on one task, and there are {most}"
            raise AnalysisError(f"figure {name!r} cannot be made: {needs}")
    return report


def _encoders(runs: Sequence[Run]) -> int:
    """The most encoders that meet with one agent on one task; 0 without runs."""
    met: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        met.setdefault((run.task, run.agent), set()).add(run.encoder)
    return max(map(len, met.values()), default=0)


@dataclass(frozen=True)
class _Job:
    names: Names
    options: Options
    formats: Sequence[str]
    command: str
    keep: Callable[[str, Any], None]


def _make(report: Report, name: str, runs: Sequence[Run], job: _Job) -> None:
    from analysis.figures import style

    drawn = FIGURES[name].draw(runs, job.names, job.options)
    provenance = style.Provenance([f"{run.path.name} ({run.id})" for run in runs], job.command)
    report["figures"][name] = style.save(drawn, report["out"], name, provenance, job.formats)
    report["captions"][name] = drawn.caption
    job.keep(name, drawn)
    report["notes"][name] = drawn.notes + [note for run in runs if (note := _outdated(FIGURES[name], run))]


def _outdated(kind: FigureKind, run: Run) -> str:
    """That the figure shows an older checkpoint than the run has now, and the command that mends it; "" otherwise."""
    if (step := kind.step(run)) is None or run.step is None or step == run.step:
        return ""
    return f"{run.path}: drawn is step {step}, the run is at {run.step}; renew with: {_for(run, kind.command)}"


def _known(name: str) -> str:
    if name in FIGURES:
        return name
    near = difflib.get_close_matches(name, FIGURES, 1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    raise AnalysisError(f"unknown figure {name!r}", hint=f"{meant}Available: {', '.join(FIGURES)}")


def _missing(name: str, run: Run) -> dict[str, str]:
    kind = FIGURES[name]
    reason = kind.lacks(run)
    command = "" if reason in BEYOND_COMMANDS else _for(run, kind.command)
    return {"figure": name, "run": str(run.path), "reason": reason, "command": command}


def _for(run: Run, command: str) -> str:
    return command.format(run=shlex.quote(str(run.path)))


def _hint(kind: FigureKind, runs: Sequence[Run]) -> str:
    if kind.lacks(runs[0]) in BEYOND_COMMANDS:
        return ""
    return f"Make its inputs with: {_for(runs[0], kind.command)}" + (" (and the other runs)" if len(runs) > 1 else "")
