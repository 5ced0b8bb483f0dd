"""The results of a study: what `analysis` reads and writes of them, at the places of this package."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mbrl_pvr import __version__
from mbrl_pvr.storage import make_folders, replace_atomic

SUFFIX = ".duckdb"


@dataclass(frozen=True)
class Exported:
    """An export that was written, how many rows its tables have, and what of the runs was left out."""

    path: Path
    bytes: int
    rows: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)


def export(paths: Sequence[Path], out: Path | None) -> Exported:
    """Write the tables of all runs in `paths` into one file, by default beside the first of them. AnalysisError,
    StorageError.
    """
    from analysis.export import write_export
    from analysis.results import read_tables

    first = paths[0].expanduser().absolute()
    out = first.with_name(f"{first.name}{SUFFIX}") if out is None else out.absolute()
    tables, skipped = read_tables(paths)
    make_folders(out.parent)
    with replace_atomic(out) as temporary:
        write_export(
            temporary, tables, {"mbrl_pvr": __version__, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        )
    rows = {name: table.num_rows for name, table in tables.items()}
    return Exported(out, out.stat().st_size, rows, skipped)
