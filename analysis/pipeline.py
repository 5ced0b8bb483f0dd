"""From run folders to figures: `analyze`. A new figure is one row in `FIGURES`."""

import difflib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import groups
from analysis.errors import AnalysisError
from analysis.runs import Run, load_runs


@dataclass(frozen=True)
class Options:
    """What a caller may choose for figures."""

    random_scores: Mapping[str, float] = field(default_factory=dict)  # task to the return of random actions
    max_points: int = 2000  # latents in a picture, drawn at random
    seed: int = 0  # of subsampling and UMAP


@dataclass(frozen=True)
class FigureKind:
    """How run folders feed a figure: whether a run has its inputs, the command that makes them, and the drawing."""

    has_inputs: Callable[[Run], bool]
    lacks: str
    command: str  # takes the run folder
    draw: Callable[[Sequence[Run], Mapping[str, str], Options], Any]


@dataclass
class Report:
    """What `analyze` made and what it could not make; plain data, see `to_dict`."""

    out: Path
    runs: list[str]
    figures: dict[str, list[Path]] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    missing: list[dict[str, str]] = field(default_factory=list)  # figure, run, reason, command
    unfinished: list[dict[str, str]] = field(default_factory=list)  # run, state, command

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able data."""
        figures = {name: [str(path) for path in paths] for name, paths in self.figures.items()}
        return {**vars(self), "out": str(self.out), "figures": figures}


def _labels(run: Run, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "run": run.id,
        "series": names[run.id],
        "agent": run.agent,
        "encoder": run.encoder,
        "task": run.task,
        "seed": run.seed,
    }


def _stack(runs: Sequence[Run], names: Mapping[str, str], rows: Callable[[Run], pd.DataFrame | None]) -> pd.DataFrame:
    tables = [(run, rows(run)) for run in runs]
    return pd.concat([table.assign(**_labels(run, names)) for run, table in tables if table is not None], ignore_index=True)


def _returns(runs: Sequence[Run], names: Mapping[str, str], options: Options) -> Any:
    from analysis.figures import returns

    return returns.draw(_stack(runs, names, lambda run: run.episodes), options.random_scores)


def _ood(runs: Sequence[Run], names: Mapping[str, str], options: Options) -> Any:
    from analysis.figures import ood

    return ood.draw(_stack(runs, names, lambda run: run.ood), options.random_scores)


def _deterministic(run: Run) -> Any:
    latents = run.latents
    if latents is None or latents.kind != "deterministic":
        raise AnalysisError(f"the latents of run {run.id!r} are not deterministic", str(run.path / "latents.npz"))
    return latents


def _dynamics(runs: Sequence[Run], names: Mapping[str, str], options: Options) -> Any:
    from analysis.figures import dynamics

    return dynamics.draw(pd.concat([dynamics.error_table(_deterministic(run), **_labels(run, names)) for run in runs]))


def _latents(runs: Sequence[Run], names: Mapping[str, str], options: Options) -> Any:
    from analysis.figures import latents

    chosen: dict[tuple[str, str, str], Run] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        chosen.setdefault((run.task, run.agent, names[run.id]), run)
    several = len({task for task, _, _ in chosen}) > 1
    clouds = []
    for (task, _, name), run in sorted(chosen.items()):
        title = f"{name}, seed {run.seed}" + (f", {task.rpartition('/')[2]}" if several else "")
        clouds.append(latents.cloud(title, _deterministic(run)))
    return latents.draw(clouds, max_points=options.max_points, seed=options.seed)


FIGURES = {
    "returns": FigureKind(
        lambda run: run.episodes is not None, "no episodes are logged", "mbrl-pvr resume {run}", _returns
    ),
    "ood": FigureKind(
        lambda run: run.ood is not None, "no out-of-distribution episodes", "mbrl-pvr ood {run}", _ood
    ),
    "dynamics": FigureKind(
        lambda run: run.has_latents, "no recorded latents", "mbrl-pvr record {run}", _dynamics
    ),
    "latents": FigureKind(
        lambda run: run.has_latents, "no recorded latents", "mbrl-pvr record {run}", _latents
    ),
}  # fmt: skip


def analyze(
    paths: Sequence[str | Path],
    out: str | Path,
    figures: Sequence[str] | None = None,
    *,
    unfinished: bool = False,
    random_scores: Mapping[str, float] | None = None,
    max_points: int = 2000,
    seed: int = 0,
    formats: Sequence[str] = ("pdf", "png"),
    command: str = "",
) -> Report:
    """Make every figure whose inputs exist, as `out/<name>.<format>` with its numbers in `out/<name>.csv`.

    What is missing is listed with the command that makes it; a figure asked for by name in `figures` raises AnalysisError instead.
    Runs that have not finished are listed and left out unless `unfinished`. `command` goes into the metadata of the files.
    """
    wanted = list(FIGURES) if figures is None else [_known(name) for name in figures]
    runs = load_runs(paths)
    report = Report(Path(out), [])
    used = [run for run in runs if run.finished or unfinished]
    for run in (run for run in runs if not run.finished):
        report.unfinished.append({"run": run.id, "state": run.state, "command": _for(run, "mbrl-pvr resume {run}")})
    if not used:
        listed = ", ".join(f"{run.id} ({run.state})" for run in runs)
        raise AnalysisError(f"no run has finished: {listed}", hint=f"Continue with: {report.unfinished[0]['command']}")
    groups.check_comparable(used)
    report.runs = [run.id for run in used]
    names = groups.series_names(used)
    options = Options(random_scores or {}, max_points, seed)
    command = command or f"analysis.analyze({[str(path) for path in paths]}, {str(out)!r})"
    for name in wanted:
        kind = FIGURES[name]
        ready = [run for run in used if kind.has_inputs(run)]
        report.missing += [_missing(name, run) for run in used if run not in ready]
        if ready:
            _make(report, name, kind, ready, names, options, formats, command)
        elif figures is not None:
            raise AnalysisError(f"figure {name!r} cannot be made: {kind.lacks}", hint=_hint(kind, used))
    return report


def _make(
    report: Report,
    name: str,
    kind: FigureKind,
    runs: Sequence[Run],
    names: Mapping[str, str],
    options: Options,
    formats: Sequence[str],
    command: str,
) -> None:
    from analysis.figures import style

    drawn = kind.draw(runs, names, options)
    provenance = style.Provenance([run.id for run in runs], command)
    report.figures[name] = style.save(drawn, report.out, name, provenance, formats)
    report.captions[name], report.notes[name] = drawn.caption, drawn.notes


def _known(name: str) -> str:
    if name in FIGURES:
        return name
    near = difflib.get_close_matches(name, FIGURES, 1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    raise AnalysisError(f"unknown figure {name!r}", hint=f"{meant}Available: {', '.join(FIGURES)}")


def _missing(name: str, run: Run) -> dict[str, str]:
    kind = FIGURES[name]
    return {"figure": name, "run": run.id, "reason": kind.lacks, "command": _for(run, kind.command)}


def _for(run: Run, command: str) -> str:
    return command.format(run=shlex.quote(str(run.path)))


def _hint(kind: FigureKind, runs: Sequence[Run]) -> str:
    return f"Make its inputs with: {_for(runs[0], kind.command)}" + (" (and the other runs)" if len(runs) > 1 else "")
