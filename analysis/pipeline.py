"""From run folders to figures: `analyze`. The figures stand in `analysis.kinds`."""

import difflib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from analysis import controls, groups, recorded
from analysis.errors import BAD_REQUEST, AnalysisError
from analysis.kinds import FIGURES, NO_BANK, FigureKind, Lack
from analysis.results import load_sources
from analysis.runs import Run
from analysis.tables import Names, Options

DEFAULTS = Options()
ON = "_on_"  # between the name of a figure and the bank it was recorded on


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


def analyze(
    paths: Sequence[str | Path | Run],
    out: str | Path,
    figures: Sequence[str] | None = None,
    *,
    unfinished: bool = False,
    options: Options = DEFAULTS,
    formats: Sequence[str] = ("pdf", "png"),
    command: str = "",
    keep: Callable[[str, Any], None] = lambda name, drawn: None,
) -> Report:
    """Make every figure whose inputs exist, as `out/<name>.<format>` with its numbers in `out/<name>.csv` and `.tex`.

    Figures of records come in two forms: of episodes that each agent played itself, and, as `<name>_on_<bank>`, of the
    trajectories of each bank that a run was recorded on. What is missing is listed with the command that makes it; a
    figure asked for by name in `figures`, of which no form can be made, raises AnalysisError, as damaged files do. Runs
    that have not finished are listed and left out unless `unfinished`. `command` goes into the metadata of the files.
    `keep` is given the name and the `style.Drawn` of every figure once its files are there.
    """
    _check(options, formats)
    runs, skipped = load_sources(paths)
    wanted = list(_forms(list(FIGURES) if figures is None else figures, runs))
    used = [run for run in runs if run.finished or unfinished]
    waiting = [
        {"run": str(run.path), "state": run.state, "command": _for(run, "mbrl-pvr resume {run}")}
        for run in runs
        if not run.finished
    ]
    if not used:
        listed = ", ".join(f"{run.path} ({run.state})" for run in runs)
        command = waiting[0]["command"]
        raise AnalysisError(f"no run has finished: {listed}", hint=f"Continue with: {command}" if command else "")
    if figures is None or any(name.startswith("latents") for name in figures):
        recorded.check_colour(used, options.colour)
    groups.check_comparable(used)
    job = _Job(
        runs=used,
        names=Names(groups.series_names(used), groups.encoder_names(used)),
        options=options,
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
        missing=left_out(skipped),
        unfinished=waiting,
    )
    refused: dict[str, AnalysisError] = {}
    for name, bank in wanted:
        kind, seen = FIGURES[name], [run.on(bank) for run in used]
        lacks = [(run, kind.lacks(run)) for run in seen]
        lacking, ready = [(run, lack) for run, lack in lacks if lack], [run for run, lack in lacks if not lack]
        unlike = kind.together(ready, options) if ready and kind.together else None
        if unlike:
            report["missing"].append(_entry(_file_name(name, bank), ready, unlike))
        elif not (ready and kind.together):
            report["missing"] += _missing(_file_name(name, bank), lacking, one_each=bool(ready))
        if unlike or not ready:
            refused.setdefault(name, _refusal(name, unlike or lacking[0][1], seen))
            continue
        try:
            _make(report, name, ready, job)
        except AnalysisError as problem:
            if figures is not None or problem.exit_code != BAD_REQUEST:
                raise
            report["missing"].append(_entry(_file_name(name, bank), ready, Lack(problem.what)))
    here = [run for run in used if not run.exported]
    if figures is None and here and not any(run.banks for run in used):
        report["missing"] += _missing("figures of records on a bank", [(run, NO_BANK) for run in here], one_each=False)
    for name, error in refused.items():
        if figures is not None and not any(made.partition(ON)[0] == name for made in report["figures"]):
            raise error
    return report


def _check(options: Options, formats: Sequence[str]) -> None:
    """Raise AnalysisError for what no run could be drawn with."""
    from analysis.figures import style

    style.check_formats(formats)
    if wrong := [window for window in options.windows if window < 1]:
        raise AnalysisError(f"errors are summed over windows of one step or more, not {wrong[0]}")
    if options.latent not in recorded.SEEN:
        raise AnalysisError(f"a picture shows latent {' or '.join(recorded.SEEN)}, not {options.latent!r}")


def left_out(skipped: Mapping[str, str]) -> list[dict[str, str]]:
    """Entries of `Report["missing"]` for files and folders that could not be read."""
    return [{"figure": "all", "run": path, "reason": why, "command": ""} for path, why in skipped.items()]


def _forms(names: Sequence[str], runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """(figure, bank) of each form of the figures that are named; the bank is "" for what agents played themselves."""
    banks = sorted({bank for run in runs for bank in run.banks})
    for asked in names:
        name, on, bank = asked.partition(ON)
        if name not in FIGURES or (on and not FIGURES[name].of_records):
            raise _unknown(asked)
        if on and bank not in banks:
            known = f"Recorded are: {', '.join(banks)}" if banks else "No run was recorded on a bank"
            raise AnalysisError(f"figure {asked!r} cannot be made: no run has a record of bank {bank!r}", hint=known)
        every = ["", *banks] if FIGURES[name].of_records else [""]
        forms = [bank] if on else every[1:] or every if FIGURES[name].on_banks else every
        yield from ((name, form) for form in forms)


def _file_name(name: str, bank: str) -> str:
    return f"{name}{ON}{bank}" if bank else name


@dataclass(frozen=True)
class _Job:
    runs: Sequence[Run]
    names: Names
    options: Options
    formats: Sequence[str]
    command: str
    keep: Callable[[str, Any], None]


def _make(report: Report, name: str, runs: Sequence[Run], job: _Job) -> None:
    from analysis.figures import style

    file = _file_name(name, runs[0].bank if FIGURES[name].of_records else "")
    drawn = FIGURES[name].draw(runs, job.names, job.options)
    if FIGURES[name].of_records:
        whose = f"the trajectories of bank {runs[0].bank}" if runs[0].bank else "episodes that each agent played itself"
        drawn.caption += f" Recorded on {whose}."
    provenance = style.Provenance([f"{run.path.name} ({run.id})" for run in runs], job.command)
    report["figures"][file] = style.save(drawn, report["out"], file, provenance, job.formats)
    report["captions"][file] = drawn.caption
    job.keep(file, drawn)
    of_controls = controls.notes(job.runs, runs, job.names.series) if FIGURES[name].compares else []
    older = [note for run in runs if (note := _outdated(FIGURES[name], run))]
    report["notes"][file] = [*of_controls, *drawn.notes, *older]


def _outdated(kind: FigureKind, run: Run) -> str:
    """That the figure shows an older checkpoint than the run has now, and the command that mends it; "" otherwise."""
    if (step := kind.step(run)) is None or run.step is None or step == run.step:
        return ""
    renew = "" if run.exported else f"; renew with: {_for(run, kind.renew(run))}"
    return f"{run.path}: drawn is step {step}, the run is at {run.step}{renew}"


def _unknown(name: str) -> AnalysisError:
    near = difflib.get_close_matches(name, FIGURES, 1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    return AnalysisError(f"unknown figure {name!r}", hint=f"{meant}Available: {', '.join(FIGURES)}")


def _missing(file: str, lacking: Sequence[tuple[Run, Lack]], *, one_each: bool) -> list[dict[str, str]]:
    """Entries for runs that lack something for a figure: one for each run, or for all that lack the same; of exported
    runs always that.
    """
    alike: dict[tuple[Lack, bool, str], list[Run]] = {}
    for run, lack in lacking:
        alike.setdefault((lack, run.exported, run.id if one_each and not run.exported else ""), []).append(run)
    return [_entry(file, runs, lack) for (lack, _, _), runs in alike.items()]


def _entry(file: str, runs: Sequence[Run], lack: Lack) -> dict[str, str]:
    """Of `Report["missing"]`: one run by its folder, more by their number, and the first where the command is for it;
    exported ones have no folder here.
    """
    if runs[0].exported:
        whose = f"{len(runs)} exported run{'s' * (len(runs) > 1)}"
    elif len(runs) == 1:
        whose = str(runs[0].path)
    else:
        whose = f"{len(runs)} runs" + (f", first {runs[0].path}" if "{run}" in lack.command else "")
    return {"figure": file, "run": whose, "reason": lack.why, "command": _for(runs[0], lack.command)}


def _refusal(name: str, lack: Lack, runs: Sequence[Run]) -> AnalysisError:
    command = _for(runs[0], lack.command)
    others = " (and the other runs)" if len(runs) > 1 and str(runs[0].path) in command else ""
    hint = f"Make its inputs with: {command}{others}" if command else ""
    return AnalysisError(f"figure {name!r} cannot be made: {lack.why}", hint=hint)


def _for(run: Run, command: str) -> str:
    """The command for a run; "" where its folder is not here."""
    places = {"run": shlex.quote(str(run.path)), "task": shlex.quote(run.task)}
    return "" if run.exported and "{run}" in command else command.format(**places)
