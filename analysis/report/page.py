"""`write_report`: one self-contained HTML page about run folders."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from analysis import claims, controls, groups, pipeline
from analysis.claims import ClaimVerdict
from analysis.errors import AnalysisError
from analysis.files import write_files
from analysis.report import explorer, overview, plots
from analysis.results import load_sources
from analysis.runs import Run
from analysis.tables import Options

NAME = "report.html"
MOST_BYTES = 15_000_000  # of the page
SPARE = 200_000  # bytes for what surrounds the latents
VECTOR_BYTES = 400_000  # of an SVG; a larger picture is put in as PNG
PIXELS = 125  # of a picture for each inch in print
TABLE_ROWS = 100  # of numbers that are shown; all of them are in the CSV beside the page
HERE = Path(__file__).parent
TITLES = {  # of sections; a figure that is not here is called by its name
    "returns": "Returns over steps",
    "ood": "In and out of distribution",
    "dose": "Return over severity",
    "profile": "Performance profiles",
    "dynamics": "Errors of dynamics and reward",
    "latents": "Latent spaces",
    "correlation": "Errors against return",
}


class Made(TypedDict):
    """What `write_report` wrote, and what it lacks: as `pipeline.Report`, of the page."""

    page: Path
    runs: list[str]
    figures: list[str]
    explored: list[str]
    claims: str  # the file that they stand in; "" where there are none
    notes: list[str]
    missing: list[dict[str, str]]
    unfinished: list[dict[str, str]]


@dataclass
class Section:
    """A figure in the page: its picture as a data URI, plotly's JSON where it has that form, and its first numbers."""

    name: str
    title: str
    caption: str
    notes: list[str]
    picture: str
    width: int  # of the picture in pixels
    plot: dict[str, Any] | None
    columns: list[str]
    rows: list[list[str]]
    total: int  # rows of numbers


def write_report(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    unfinished: bool = False,
    options: Options = pipeline.DEFAULTS,
    command: str = "",
    verdicts: Sequence[ClaimVerdict] = (),
) -> Made:
    """Write `out/report.html`, and beside it the numbers of each figure as CSV.

    The page holds a table of the runs, what they say of claims where `verdicts` are given, every figure that `analyze`
    makes of them, what is missing with the command that makes it, and the latents of recorded runs, on policy and on
    each bank, at most `options.max_points` of each. Errors are those of `analyze`; also where the page would be larger
    than `MOST_BYTES`. It appears whole or not at all.
    """
    (runs, skipped), drawn = load_sources(paths), dict[str, Section]()
    palette = _palette([run for run in runs if run.finished or unfinished])
    made = pipeline.analyze(
        runs,
        out,
        unfinished=unfinished,
        options=options,
        formats=(),
        command=command,
        keep=lambda name, figure: drawn.update({name: _section(name, figure, palette)}),
    )
    made["missing"] += pipeline.left_out(skipped)
    for name, section in drawn.items():
        section.notes = made["notes"][name]
    used = [run for run in runs if str(run.path) in made["runs"]]
    unlearned = controls.notes(used, used, groups.series_names(used))
    content = _content(runs, made, list(drawn.values()), command, verdicts) | {"unlearned": unlearned}
    seen = [run.on(bank) for run in used for bank in ("", *run.banks)]
    room = _room(content)
    clouds, notes = explorer.clouds(seen, _run_names(seen), room, most=options.max_points, seed=options.seed)
    page = _render(**content, clouds=clouds, cloud_notes=notes)
    if len(page) > MOST_BYTES:
        what = f"the page would have {len(page) / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}"
        raise AnalysisError(what, str(Path(out) / NAME), "Give fewer runs at a time")
    (path,) = write_files(Path(out), {NAME: page})
    return Made(
        page=path,
        runs=made["runs"],
        figures=list(drawn),
        explored=[cloud.name for cloud in clouds],
        claims=verdicts[0].source if verdicts else "",
        notes=[*unlearned, *notes, *(f"{cloud.name}: {note}" for cloud in clouds for note in cloud.notes)],
        missing=made["missing"],
        unfinished=made["unfinished"],
    )


def _content(
    runs: Sequence[Run], made: pipeline.Report, sections: list[Section], command: str, verdicts: Sequence[ClaimVerdict]
) -> dict[str, Any]:
    """What `page.html` shows, the latents apart."""
    scripts = {"plotly": _plotly(), "page": _read("page.js")}
    return {
        "command": command,
        "runs": list(zip(overview.rows(runs), [str(run.path) for run in runs], strict=True)),
        "columns": overview.COLUMNS,
        "overview_caption": overview.caption(),
        "verdicts": verdicts,
        "claims_caption": claims.caption(),
        "sections": sections,
        "missing": made["missing"],
        "unfinished": made["unfinished"],
        "scripts": scripts,
        "policy": _policy(list(scripts.values())),
        "style": _read("page.css"),
    }


def _room(content: dict[str, Any]) -> int:
    """Bytes that are left for the latents."""
    return MOST_BYTES - SPARE - len(_render(**content, clouds=[], cloud_notes=[]))


def _palette(runs: Sequence[Run]) -> plots.Palette:
    series, encoders = groups.series_names(runs), groups.encoder_names(runs)
    return plots.Palette.of({series[run.id]: encoders[run.encoder] for run in runs})


def _run_names(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """What latents are called, by the id of their run and the bank that they were recorded on."""
    series = groups.series_names(runs)
    return {
        (run.id, run.bank): f"{series[run.id]}, {run.agent}, {run.task}, seed {run.seed} ({run.path.name})"
        + (f", on bank {run.bank}" if run.bank else "")
        for run in runs
    }


def _section(name: str, drawn: Any, palette: plots.Palette) -> Section:
    numbers, (kind, _, bank) = drawn.numbers, name.partition(pipeline.ON)
    return Section(
        name,
        TITLES.get(kind, kind.replace("_", " ").capitalize()) + (f", on bank {bank}" if bank else ""),
        drawn.caption,
        drawn.notes,
        _picture(drawn.figure),
        round(PIXELS * drawn.figure.get_figwidth()),
        plots.interactive(kind, numbers, palette),
        list(map(str, numbers.columns)),
        [[_cell(value) for value in row] for row in numbers.head(TABLE_ROWS).itertuples(index=False)],
        len(numbers),
    )


def _cell(value: Any) -> str:
    if isinstance(value, int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        return "" if pd.isna(value) else f"{value:.4g}"
    return str(value)


def _picture(figure: Any) -> str:
    """The figure as a data URI. A browser runs no script in a picture."""
    from analysis.figures import style

    media, data = "image/svg+xml", style.picture(figure, "svg", metadata={"Date": None})
    if len(data) > VECTOR_BYTES:
        media, data = "image/png", style.picture(figure, "png", dpi=200)
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def _render(**content: Any) -> bytes:
    """The page; Jinja escapes all text in it. Letters of folder names that are no text become question marks."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["script_json"] = _script_json
    return environment.from_string(_read("page.html")).render(**content).encode(errors="replace")


def _script_json(value: Any) -> str:
    """JSON for the inside of a script element, which no text in it can end."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _policy(scripts: Sequence[str]) -> str:
    """What the page may load and run: these scripts, and nothing from elsewhere."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    rules = {
        "default-src": "'none'",
        "script-src": allowed,
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _read(name: str) -> str:
    return (HERE / name).read_text()
