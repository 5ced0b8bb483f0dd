"""The look of every figure, its colours, and how it is written: picture, numbers, and where they come from.

Widths are a column (3.3 in) and a page (6.9 in) of two-column papers; text is 7 pt in print. One encoder has one colour
and one marker in every figure where no other encoder has that colour. To give a new encoder a colour of its own, add it
to `ENCODERS`.
"""

import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis import stats
from analysis.errors import AnalysisError
from analysis.figures import latex
from analysis.files import write_files

COLUMN, PAGE = 3.3, 6.9  # inches
LETTER, HANDLE, LINE = 0.05, 0.45, 0.15  # inches of a letter of a legend, of what stands before a label, of a line
FORMATS = ("pdf", "png", "svg")
GREY, LIGHT = "#6b6b6b", "#d9d9d9"

PAPER: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,  # two periods of the dashes with a dot
    "legend.columnspacing": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlepad": 4,
    "axes.labelpad": 2.5,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType, embedded: journals refuse Type 3
    "ps.fonttype": 42,
    "svg.hashsalt": "mbrl_pvr",
    "text.parse_math": False,  # names may hold a dollar sign
    "axes.formatter.use_mathtext": False,
}

# Okabe & Ito's colours without the yellow, and four of Tol's: apart in print and for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#44AA99", "#332288", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Look:
    """How an encoder is drawn."""

    colour: str
    marker: str


# Controls are black and grey, of a blue tint: plain grey as dark is a protanope's green. Encoders that meet in one
# figure most often are far apart.
ENCODERS = {
    "scratch": Look("#000000", "o"),
    "state": Look("#9090ae", "s"),
    "embedded": Look("#0072B2", "o"),
    "random_resnet18": Look("#999933", "v"),
    "random_resnet50": Look("#999933", "P"),
    "resnet18_in1k": Look("#D55E00", "s"),
    "resnet50_in1k": Look("#D55E00", "X"),
    "vits16_dino": Look("#56B4E9", "D"),
    "dinov2_vits14": Look("#009E73", "^"),
    "dinov2_vitb14": Look("#009E73", "D"),
    "mae_vitb16": Look("#882255", "P"),
    "r3m_resnet50": Look("#CC79A7", "D"),
    "vip_resnet50": Look("#E69F00", "s"),
    "vc1_vitb": Look("#332288", "^"),
    "vc1_vitl": Look("#332288", "X"),
    "clip_vitl14": Look("#44AA99", "v"),
    "clip_rn50x64": Look("#44AA99", "P"),
}
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1)), (0, (6, 2)))


def look(encoder: str) -> Look:
    """The encoder's own colour and marker: of `ENCODERS`, or from its name, the same ones always."""
    if encoder in ENCODERS:
        return ENCODERS[encoder]
    number = zlib.crc32(encoder.encode())
    return Look(COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)])


def looks(encoders: Iterable[str]) -> dict[str, Look]:
    """Encoder to look, for the encoders of one figure: its own, unless another one there has the colour.

    Of those that share a colour one keeps it, an encoder of `ENCODERS` first and then by name; the others get the next
    free colour, and where colours run out, the next free pair of marker and colour.
    """
    names = sorted(set(encoders), key=lambda name: (name not in ENCODERS, name))
    owner: dict[str, str] = {}  # of a colour
    for name in names:
        owner.setdefault(look(name).colour, name)
    chosen = {name: look(name) for name in owner.values()}
    for name in names:
        if name not in chosen:
            chosen[name] = _free(look(name), set(chosen.values()))
    return chosen


def _free(own: Look, taken: set[Look]) -> Look:
    """The look nearest to `own` that is not taken; `own` itself where all are."""
    colours, used = _from(COLOURS, own.colour), {one.colour for one in taken}
    looks = [Look(colour, own.marker) for colour in colours if colour not in used]
    looks += [Look(colour, marker) for marker in _from(MARKERS, own.marker) for colour in colours]
    return next((one for one in looks if one not in taken), own)


def _from(values: Sequence[str], first: str) -> list[str]:
    """The values in their order, from `first` on and round."""
    place = values.index(first)
    return [*values[place:], *values[:place]]


def line_styles(table: pd.DataFrame) -> dict[str, tuple]:
    """Series to line style: variants of one encoder share its colour and differ in the dashes."""
    styles: dict[str, tuple] = {}
    for _, names in series_of(table).groupby("encoder", sort=False)["series"]:
        styles |= {name: LINES[number % len(LINES)] for number, name in enumerate(sorted(names))}
    return styles


def series_of(table: pd.DataFrame) -> pd.DataFrame:
    """The distinct (series, encoder) of a table, sorted by name: the order of every legend."""
    return table[["series", "encoder"]].drop_duplicates("series").sort_values("series", ignore_index=True)


@dataclass
class Drawn:
    """A figure, the numbers in it, a sentence that says what is drawn, and what a reader must know besides.

    `table` is what of the numbers a paper prints, where that is not all of them.
    """

    figure: Figure
    numbers: pd.DataFrame
    caption: str
    notes: list[str] = field(default_factory=list)
    table: pd.DataFrame | None = None


@dataclass(frozen=True)
class Provenance:
    """What goes into the metadata of every file."""

    runs: Sequence[str] = ()
    command: str = ""


@contextmanager
def paper() -> Iterator[None]:
    """Draw and save inside of this; the caller's matplotlib settings are left alone."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(PAPER)
        yield


def prepare(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The table with the optional columns `series` (default: the encoder), `agent` and `run`; raises AnalysisError for
    a missing column.
    """
    if len(table) == 0:
        raise AnalysisError("the table has no rows")
    for column in columns:
        if column not in table:
            raise AnalysisError(
                f"the table has no column {column!r}", hint=f"It has: {', '.join(map(str, table.columns))}"
            )
    given = {"series": table["encoder"], "agent": "", "run": ""}
    return table.assign(**{name: value for name, value in given.items() if name not in table})


def panel_names(table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(task, agent) to the title of its panel; the agent is named only where there are several."""
    pairs = sorted(set(zip(table["task"], table["agent"], strict=True)))
    several = len({agent for _, agent in pairs}) > 1
    return {(task, agent): task.rpartition("/")[2] + (f" · {agent}" if several else "") for task, agent in pairs}


@dataclass(frozen=True)
class Panel:
    """One panel of a grid, and whether it lies at an edge of it."""

    axis: Axes
    left: bool
    top: bool
    bottom: bool


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, laid out so that nothing overlaps or is cut."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04))


def panels(count: int, height: float) -> tuple[Figure, list[Panel]]:
    """A figure with `count` panels of that height: one fills a column, more fill the page, two or three across."""
    across = 2 if count in (2, 4) else min(count, 3)
    rows = -(-count // across)
    figure = new_figure(COLUMN if count == 1 else PAGE, rows * height + 0.35)
    places = [(number, figure.add_subplot(rows, across, number + 1)) for number in range(count)]
    return figure, [Panel(axis, n % across == 0, n < across, n + across >= count) for n, axis in places]


def legend(figure: Figure, entries: Sequence[Artist], columns: int = 4) -> None:
    """Below all panels, with as many entries side by side as `columns` and the width of the figure allow. The figure
    grows by what more than two lines of them take.
    """
    longest = max((len(str(entry.get_label())) for entry in entries), default=0)
    fitting = int(figure.get_figwidth() / (HANDLE + LETTER * longest))
    across = max(1, min(columns, fitting))
    figure.set_figheight(figure.get_figheight() + LINE * max(0, -(-len(entries) // across) - 2))
    figure.legend(handles=entries, loc="outside lower center", ncols=across)


def series_entries(table: pd.DataFrame, chosen: Mapping[str, Look], *, lines: Mapping[str, Any] | None = None,
                   markers: bool = True) -> list[Line2D]:  # fmt: skip
    """An entry of the legend for every series and its number of seeds: markers, lines of these dashes, or both."""
    counts, entries = seed_counts(table), []
    for name, encoder in series_of(table).itertuples(index=False):
        how: dict[str, Any] = {"ls": "" if lines is None else lines[name], "color": chosen[encoder].colour}
        how |= {"marker": chosen[encoder].marker} if markers else {}
        entries.append(Line2D([], [], **how, label=with_seeds(name, counts[name])))
    return entries


def thousands(axis: XAxis | YAxis) -> None:
    """Ticks as 5k and 1.5M, few enough not to touch."""
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def value_limits(values: pd.DataFrame | pd.Series) -> tuple[float, float | None]:
    """Limits of an axis of returns: it holds zero and what is below, and equal returns are not blown up. None: as far
    as the data.
    """
    low, high = min(0.0, float(np.nanmin(values))), float(np.nanmax(values))
    return low - (0.05 * (high - low) if low < 0 else 0), low + 1 if high - low < 1e-3 else None


def short_number(value: float) -> str:
    """2500 as 2.5k, 3000000 as 3M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def with_seeds(name: str, counts: Iterable[int]) -> str:
    """The name of a series and its number of seeds in the panels that show it: "vc1 (3 seeds)", "vc1 (1-3 seeds)"."""
    given = list(counts)
    return f"{name} ({_from_to(given)} seed{'s' if max(given) > 1 else ''})"


def spread(counts: Iterable[int], units: str = "seeds") -> str:
    """What bands over that many units are: "range of 3 seeds", "95 % bootstrap interval over 6 seeds", both, or ""."""
    given = list(counts)
    few, many = [n for n in given if 1 < n < stats.FEW], [n for n in given if n >= stats.FEW]
    words = {"range of": few, "95 % bootstrap interval over": many}
    return "; ".join(f"{word} {_from_to(some)} {units}" for word, some in words.items() if some)


def single_seeds(counts: pd.Series) -> list[str]:
    """A note on every series of a task that has one seed, with its agent where there are several; `counts` as of
    `seed_counts`.
    """
    agents = counts.index.get_level_values("agent")
    return [
        f"{named(task, agent, series, agents)} has one seed, so no interval"
        for (series, task, agent), n in counts.items()
        if n == 1
    ]


def named(task: str, agent: str, series: str, agents: Iterable[str]) -> str:
    """How a note begins: whose it is, with the agent where there are several."""
    return f"{task}: {f'{agent}: ' if len(set(agents)) > 1 else ''}{series}"


def unequal(episodes: pd.Series) -> list[str]:
    """A note where means compare different numbers of episodes of one task, agent and series; `episodes` by these
    three first.
    """
    found = []
    for (task, _, series), counts in episodes.groupby(level=[0, 1, 2]):
        if counts.min() < counts.max():
            found.append(f"{task}: {series} was played in {_from_to(list(counts))} episodes a condition")
    return found


def _from_to(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low}-{high}"


def seed_counts(table: pd.DataFrame) -> pd.Series:
    """Number of seeds by (series, task, agent)."""
    return table.groupby(["series", "task", "agent"])["seed"].nunique()


def check_formats(formats: Sequence[str]) -> None:
    """Raise AnalysisError for what is no format of figures."""
    if unknown := [kind for kind in formats if kind not in FORMATS]:
        raise AnalysisError(f"unknown figure format {unknown[0]!r}", hint=f"Available: {', '.join(FORMATS)}")


def save(
    drawn: Drawn,
    folder: str | Path,
    name: str,
    provenance: Provenance | None = None,
    formats: Sequence[str] = ("pdf", "png"),
) -> list[Path]:
    """Write the figure in every format, its numbers as CSV, and as a LaTeX table what a paper prints of them (with a
    CSV of its own where that is not all); all files appear or none does. Returns the paths.
    """
    check_formats(formats)
    provenance = provenance or Provenance()
    files = {
        f"{name}.{kind}": picture(drawn.figure, kind, metadata=_metadata(kind, name, drawn.caption, provenance))
        for kind in formats
    }
    files[f"{name}.csv"] = drawn.numbers.to_csv(index=False, float_format="%.6g").encode()
    printed = drawn.numbers if drawn.table is None else drawn.table
    if drawn.table is not None:
        files[f"{name}_table.csv"] = drawn.table.to_csv(index=False, float_format="%.6g").encode()
    sources = (f"runs: {', '.join(provenance.runs)}", f"command: {provenance.command}")
    files[f"{name}.tex"] = latex.table(printed, drawn.caption, sources).encode()
    return write_files(Path(folder), files)


def picture(figure: Figure, kind: str, **options: Any) -> bytes:
    """The content of a file of that format; options are those of matplotlib's savefig."""
    buffer = io.BytesIO()
    with paper():
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def _metadata(kind: str, title: str, caption: str, provenance: Provenance) -> dict[str, str | None]:
    runs = f"runs: {', '.join(provenance.runs)}" if provenance.runs else ""
    command = f"command: {provenance.command}" if provenance.command else ""
    text = {key: "".join(c if c.isprintable() else " " for c in value) for key, value in
            {"title": title, "caption": caption, "runs": runs, "command": command}.items()}  # fmt: skip
    if kind == "png":
        return {
            "Title": text["title"],
            "Description": text["caption"],
            "Source": text["runs"],
            "Comment": text["command"],
        }
    if kind == "svg":
        return {
            "Title": text["title"],
            "Description": text["caption"],
            "Keywords": text["runs"],
            "Source": text["command"],
            "Date": None,
        }
    return {
        "Title": text["title"],
        "Subject": text["caption"],
        "Keywords": "; ".join(filter(None, (text["runs"], text["command"]))),
        "Creator": "mbrl_pvr analysis",
        "CreationDate": None,
    }
