"""Interactive forms of figures, from the numbers that stand beside each, as `forms.FORMS` says.

Plotly reads names, titles and hover texts as a kind of HTML: `plain` goes around everything that comes from a run.
"""

import html
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import ood, shifted, style
from analysis.report.forms import FORMS, Curves, Dots, Form, Intervals

MOST = 150  # points of one line; more are thinned
ROW = 300  # height of a row of panels in pixels
ACROSS = 3
PAGE, LABEL, LETTER = 1150, 30, 6.5  # pixels: width of a page, of a name of a row without its letters, and of one
TITLE_LETTER, TITLE_LINE = 7.5, 16  # pixels of a title of a panel
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross",
           "X": "x"}  # fmt: skip
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
INSIDE = (ood.IN, shifted.INSIDE)
LINE, GRID = "#444444", "#e6e6e6"


@dataclass(frozen=True)
class Palette:
    """How series are drawn, the same in all figures of a page: colour, symbol and dashes."""

    looks: Mapping[str, style.Look]
    dashes: Mapping[str, str]

    @classmethod
    def of(cls, encoders: Mapping[str, str]) -> "Palette":
        """`encoders`: series to encoder. Series of one encoder share its colour and differ in their dashes."""
        looks, counts, dashes = style.looks(encoders.values()), dict.fromkeys(encoders.values(), 0), {}
        for series in sorted(encoders):
            dashes[series] = DASHES[counts[encoders[series]] % len(DASHES)]
            counts[encoders[series]] += 1
        return cls({series: looks[encoder] for series, encoder in encoders.items()}, dashes)

    def look(self, series: str) -> style.Look:
        """Of a series; one that no run has is grey."""
        return self.looks.get(series, style.Look(style.GREY, "o"))


def plain(text: object) -> str:
    """Text as plotly must be given it to draw it as it is."""
    return html.escape(str(text), quote=False)


def interactive(name: str, numbers: pd.DataFrame, palette: Palette) -> dict[str, Any] | None:
    """The figure as plotly's JSON, {data, layout}; None where it has no interactive form, or nothing to show in it."""
    forms = FORMS.get(name, ())
    found = [(form, title, rows) for form in forms for title, rows in _panels(form, numbers) if len(rows)]
    panels = [(form, _title(form, title), rows) for form, title, rows in sorted(found, key=lambda one: one[1])]
    if not panels:
        return None
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    across = len(forms) if len(forms) > 1 else 2 if len(panels) in (2, 4) else min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    height = max(_height(form, rows) for form, _, rows in panels)
    titles = [textwrap.wrap(title, int(PAGE / across / TITLE_LETTER)) for _, title, _ in panels]
    lines = max(map(len, titles))
    spaces: dict[str, Any] = {
        "vertical_spacing": min(0.3, (80 + TITLE_LINE * lines) / (down * height)),
        "horizontal_spacing": max(0.25 / across, _labels(panels)),
    }
    figure = make_subplots(down, across, subplot_titles=["<br>".join(map(plain, title)) for title in titles], **spaces)
    shown: set[str] = set()
    for number, (form, _, rows) in enumerate(panels):
        place: dict[str, Any] = {"row": number // across + 1, "col": number % across + 1}
        for trace in _traces(form, rows, palette):
            if (group := trace.get("legendgroup")) and trace.get("showlegend", True):
                trace["showlegend"] = group not in shown
                shown.add(group)
            figure.add_trace(go.Scatter(**trace), **place)
        _axes(figure, form, rows, numbers, place)
    _lay_out(figure, down * height, len(shown), top=24 + TITLE_LINE * lines)
    return json.loads(figure.to_json())


def _panels(form: Form, numbers: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """What tells each panel from others of its form, and its rows; what all have in common, the task apart, is left
    out. The forms of one panel have the same words, and lie side by side.
    """
    if isinstance(form, Dots):
        numbers = numbers[numbers[[form.x, form.y]].notna().all(axis=1)]
    telling = [column for column in form.by if column == "task" or numbers[column].nunique() > 1]
    for key, rows in numbers.groupby(list(form.by), sort=True):
        values = dict(zip(form.by, key, strict=True))
        words = [str(values[column]).rpartition("/" if column == "task" else "\0")[2] for column in telling]
        told = zip(telling, words, strict=True)
        yield " · ".join(f"{word} steps" if column == "window" else word for column, word in told), rows


def _title(form: Form, words: str) -> str:
    return f"{words}: {form.what}" if form.what and words else words or form.what


def _labels(panels: list[tuple[Form, str, pd.DataFrame]]) -> float:
    """Widest names of rows as a share of the page, of which panels side by side have one each."""
    letters = [len(name) for form, _, rows in panels if isinstance(form, Intervals) for name in _row_names(form, rows)]
    return (LABEL + LETTER * max(letters)) / PAGE if letters else 0.0


def _height(form: Form, rows: pd.DataFrame) -> int:
    if isinstance(form, Intervals):
        return max(ROW, 60 + rows[form.row].nunique() * (13 + 9 * len(_entries(form, rows))))
    return ROW


def _traces(form: Form, rows: pd.DataFrame, palette: Palette) -> Iterator[dict[str, Any]]:
    if isinstance(form, Intervals):
        yield from _intervals(form, rows, palette)
        return
    if isinstance(form, Dots) and form.shade:
        yield _shaded(form, rows)
        return
    if isinstance(form, Dots):
        for number, (name, mine) in enumerate(rows.groupby(form.name, sort=True)):
            look = palette.look(str(name)) if form.name == "series" else _unnamed(number)
            yield _dot(form, str(name), mine, look)
        return
    for series, mine in rows.groupby("series", sort=True):
        yield from _curves(form, str(series), mine, palette)


def _curves(form: Curves, series: str, rows: pd.DataFrame, palette: Palette) -> Iterator[dict[str, Any]]:
    colour = palette.look(series).colour
    parts = rows.groupby(form.dash, sort=True) if form.dash else [("", rows)]
    for number, (kind, part) in enumerate(parts):
        part = _thinned(part.sort_values(form.x))
        x, y = _short(part[form.x]), _short(part[form.y])
        low, high = _short(part[form.low]), _short(part[form.high])
        name = plain(f"{series}, {kind}" if form.dash else series)
        group = plain(f"{series}, {kind}")
        dashes = DASHES[number] if form.dash else palette.dashes.get(series, "solid")
        line = {"color": colour, "width": 2, "dash": dashes}
        quiet = {"hoverinfo": "skip", "legendgroup": group, "showlegend": False}
        known = np.isfinite(low) & np.isfinite(high)
        if known.any():
            along, upper, lower = x[known], high[known], low[known]
            edge = {
                "x": np.concatenate([along, along[::-1]]),
                "y": np.concatenate([upper, lower[::-1]]),
                "mode": "none",
            }
            yield {**quiet, **edge, "fill": "toself", "fillcolor": colour, "opacity": 0.16}
        if form.base:
            base = {"x": x, "y": _short(part[form.base]), "mode": "lines", "opacity": 0.7}
            yield {**quiet, **base, "line": {"color": colour, "width": 1.2, "dash": "4px,2px"}}
        interval = " [%{customdata[0]:.4g}, %{customdata[1]:.4g}]" if known.all() else ""
        yield {
            **{"x": x, "y": y, "name": name, "legendgroup": group, "line": line},
            "mode": "lines+markers" if len(x) <= 12 else "lines",
            "customdata": np.stack([low, high], axis=1),
            "hovertemplate": f"%{{x:,.4~g}}: %{{y:.4g}}{interval}<extra>%{{fullData.name}}</extra>",
        }


def _intervals(form: Intervals, rows: pd.DataFrame, palette: Palette) -> Iterator[dict[str, Any]]:
    """A grey entry of the legend for each symbol, one in its colour for each series that no row names, and a point with
    its bar for each row of numbers.
    """
    entries, names = _entries(form, rows), _row_names(form, rows)
    kinds = list(dict.fromkeys(kind for _, kind in entries))
    for series in dict.fromkeys(series for series, _ in entries if series):
        marker = _coloured({"symbol": "circle", "size": 9}, palette.look(series).colour)
        yield {"mode": "markers", "x": [None], "y": [None], "name": plain(series), "legendgroup": plain(series),
               "marker": marker}  # fmt: skip
    for place, kind in enumerate(kinds):
        if kind:
            marker = _coloured({"symbol": _symbol(place), "size": 9}, style.GREY)
            yield {"mode": "markers", "x": [None], "y": [None], "name": plain(kind), "legendgroup": plain(kind),
                   "marker": marker}  # fmt: skip
    for row in rows.to_dict("records"):
        kind = str(row[form.symbol]) if form.symbol else ""
        entry = (row["series"] if form.row != "series" else "", kind)
        value, low, high = row[form.value], row[form.low], row[form.high]
        colour, known = palette.look(row["series"]).colour, bool(np.isfinite(low) and np.isfinite(high))
        said = f"{value:.4g}"
        if form.floor is not None:
            value, low = max(value, form.floor), max(low, form.floor)
        if form.base:
            tick = {"symbol": "line-ns-open", "size": 14, "color": style.GREY, "line": {"width": 2}}
            yield {"mode": "markers", "x": [row[form.base]], "y": [names.index(row[form.row])], "showlegend": False,
                   "marker": tick, "hovertemplate": "baseline: %{x:.4g}<extra></extra>"}  # fmt: skip
        bar = {"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low]}
        interval = f" [{low:.4g}, {high:.4g}]" if known else ""
        shift = (entries.index(entry) - (len(entries) - 1) / 2) * 0.7 / len(entries)
        yield {
            **{"mode": "markers", "name": plain(kind or row["series"]), "legendgroup": plain(kind or row["series"])},
            **{"x": [value], "y": [names.index(row[form.row]) + shift], "showlegend": False},
            "marker": _coloured({"symbol": _symbol(kinds.index(kind)), "size": 9}, colour),
            "error_x": {**bar, "color": colour, "thickness": 1.5, "width": 3, "visible": known},
            "customdata": [plain(row["series"])],
            "hovertemplate": f"%{{customdata}}: {said}{interval}<extra>%{{fullData.name}}</extra>",
        }


def _entries(form: Intervals, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """What stands in every row: (series, kind), a series where rows are something else, a kind where symbols differ."""
    kinds = _inside_first(rows[form.symbol]) if form.symbol else [""]
    series = [""] if form.row == "series" else sorted(rows["series"].unique())
    return [(one, kind) for one in series for kind in kinds]


def _row_names(form: Intervals, rows: pd.DataFrame) -> list[str]:
    """Series by name, others as the figure has them."""
    return sorted(rows["series"].unique()) if form.row == "series" else list(dict.fromkeys(rows[form.row]))


def _symbol(place: int) -> str:
    return list(SYMBOLS.values())[place % len(SYMBOLS)] + ("-open" if place else "")


def _unnamed(number: int) -> style.Look:
    """Of what is no series: colours that no encoder is asked for."""
    return style.Look(style.COLOURS[number % len(style.COLOURS)], list(SYMBOLS)[number % len(SYMBOLS)])


def _coloured(marker: dict[str, Any], colour: str) -> dict[str, Any]:
    return {**marker, "color": colour, "line": {"color": colour, "width": 1.5}}


def _inside_first(kinds: pd.Series) -> list[str]:
    return sorted(map(str, kinds.unique()), key=lambda kind: (kind not in INSIDE, kind))


def _dot(form: Dots, series: str, rows: pd.DataFrame, look: style.Look) -> dict[str, Any]:
    return {
        **{"x": _short(rows[form.x]), "y": _short(rows[form.y]), "mode": "markers", "name": plain(series)},
        "legendgroup": plain(series),
        "marker": {
            "color": look.colour,
            "symbol": SYMBOLS.get(look.marker, "circle"),
            "size": form.size,
            "opacity": 0.7,
        },
        "hovertemplate": "%{x:.4g}, %{y:.4g}<extra>%{fullData.name}</extra>",
    }


def _shaded(form: Dots, rows: pd.DataFrame) -> dict[str, Any]:
    """Points on the colour axis that all panels share."""
    return {
        **{"x": _short(rows[form.x]), "y": _short(rows[form.y]), "mode": "markers", "showlegend": False},
        "marker": {"color": _short(rows[form.shade]), "coloraxis": "coloraxis", "size": form.size},
        "hovertemplate": f"{plain(form.shade)} %{{marker.color:.4g}}<extra></extra>",
    }


def _short(column: pd.Series) -> np.ndarray:
    return column.to_numpy(dtype=np.float32)


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST` rows, the first and the last among them, closer together at the beginning as errors grow there."""
    if len(rows) <= MOST:
        return rows
    return rows.iloc[np.unique(np.round(np.geomspace(1, len(rows), MOST)).astype(int) - 1)]


def _axes(figure: Any, form: Form, rows: pd.DataFrame, whole: pd.DataFrame, place: dict[str, Any]) -> None:
    if isinstance(form, Intervals):
        names = _row_names(form, rows)
        ticks = {"tickvals": list(range(len(names))), "ticktext": [plain(name) for name in names]}
        figure.update_yaxes(**ticks, range=[len(names) - 0.5, -0.5], showgrid=False, **place)
        figure.update_xaxes(title_text=form.title, rangemode="tozero", **place)
        if form.floor is not None:
            figure.update_xaxes(
                range=[form.floor, 1.05 * max(1.0, rows[form.high].max(), rows[form.value].max())], **place
            )
        return
    figure.update_xaxes(title_text=form.titles[0], **place)
    figure.update_yaxes(title_text=form.titles[1], rangemode="tozero", **place)
    if isinstance(form, Curves) and form.log:
        figure.update_xaxes(type="log", dtick=1, **place)
    if isinstance(form, Curves) and form.diagonal:
        ends = [rows[[form.x, form.y]].min().min(), rows[[form.x, form.y]].max().max()]
        line = {"color": style.GREY, "width": 1, "dash": "dot"}
        figure.add_shape(type="line", x0=ends[0], y0=ends[0], x1=ends[1], y1=ends[1], line=line, layer="below", **place)
    if isinstance(form, Dots) and form.shade:
        figure.update_xaxes(showticklabels=False, **place).update_yaxes(showticklabels=False, **place)
        bar = {"title": {"text": plain(form.shade)}, "thickness": 12, "outlinewidth": 0}
        low, high = np.nanquantile(whole[form.shade], [0.01, 0.99])
        figure.update_layout(coloraxis={"colorscale": "Viridis", "colorbar": bar, "cmin": low, "cmax": high})
    for mark in form.marks if isinstance(form, Curves) else ():
        if mark <= rows[form.x].max():
            figure.add_vline(mark, line={"color": style.GREY, "width": 1, "dash": "dot"}, layer="below", **place)


def _lay_out(figure: Any, height: int, entries: int, top: int) -> None:
    """Below panels of that height in all stands the legend, about five entries to a line."""
    figure.update_xaxes(gridcolor=GRID, zeroline=False, linecolor=LINE, ticks="outside", automargin=True)
    figure.update_xaxes(title_standoff=8)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, linecolor=LINE, ticks="outside", automargin=True)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        template="none",
        height=height + 50 + top + 20 * -(-entries // 5),
        margin={"l": 60, "r": 15, "t": top, "b": 50},
        font={"family": FONT, "size": 12, "color": "#222222"},
        legend={"orientation": "h", "y": -60 / height, "yanchor": "top", "x": 0},
        hoverlabel={"bgcolor": "white", "font": {"family": FONT, "size": 12}, "namelength": -1},
    )
