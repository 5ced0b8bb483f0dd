"""The numbers of a figure as a LaTeX table (booktabs), for a paper to `\\input`."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "²": r"\textsuperscript{2}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
}
CENTRES = ("mean", "r2", "return", "share", "value")  # columns that plain `low` and `high` may belong to
NOTHING = "--"


def table(numbers: pd.DataFrame, caption: str, comments: Sequence[str] = ()) -> str:
    """A `tabular`, its intervals joined ("0.61 [0.55, 0.68]"); `comments` and the caption stand above it behind %."""
    joined = _joined(numbers)
    text = [[_cell(value) for value in row] for row in joined.itertuples(index=False)]
    head = " & ".join(escape(str(name).replace("_", " ")) for name in joined.columns)
    letters = "".join("r" if pd.api.types.is_numeric_dtype(kind) else "l" for kind in joined.dtypes)
    lines = [*("% " + one_line(line) for line in (caption, *comments) if line), f"\\begin{{tabular}}{{{letters}}}"]
    lines += ["\\toprule", f"{head} \\\\", "\\midrule"]
    lines += [" & ".join(row) + " \\\\" for row in text]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def escape(text: str) -> str:
    """Text that LaTeX prints as it is: its own letters escaped, and none that cannot be printed."""
    return "".join(ESCAPED.get(letter, letter) for letter in one_line(text))


def one_line(text: str) -> str:
    """A comment must not end early, and a cell must not hold a line's end."""
    return re.sub(r"\s+", " ", "".join(letter if letter.isprintable() else " " for letter in text))


def _joined(numbers: pd.DataFrame) -> pd.DataFrame:
    """With x, x_low and x_high as one column of text."""
    triples = {name: (f"{name}_low", f"{name}_high") for name in numbers.columns}
    triples |= {name: ("low", "high") for name in CENTRES if name in numbers and {"low", "high"} <= {*numbers.columns}}
    triples = {name: ends for name, ends in triples.items() if set(ends) <= {*numbers.columns}}
    left_out = {end for ends in triples.values() for end in ends}
    columns = {}
    for name in numbers.columns:
        if name in triples:
            low, high = (numbers[end] for end in triples[name])
            texts = [_interval(*one) for one in zip(numbers[name], low, high, strict=True)]
            columns[name] = pd.Series(texts, numbers.index, dtype=object)  # pandas' own text would forget `_Number`
        elif name not in left_out:
            columns[name] = numbers[name]
    return pd.DataFrame(columns)


class _Number(str):
    """Written for LaTeX already."""


def _interval(point: float, low: float, high: float) -> _Number:
    ends = "" if np.isnan(low) or np.isnan(high) else f" [{_number(low)}, {_number(high)}]"
    return _Number(_number(point) + ends)


def _number(value: float) -> str:
    if not np.isfinite(value):
        return NOTHING
    digits, _, power = (f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}").partition("e")
    if power:
        return f"${digits}\\cdot10^{{{int(power)}}}$"
    return f"${digits}$" if value < 0 else digits


def _cell(value: object) -> str:
    if value is None or value is pd.NA:
        return NOTHING
    if isinstance(value, float | np.floating):
        return _number(float(value))
    return str(value) if isinstance(value, _Number) else escape(str(value))
