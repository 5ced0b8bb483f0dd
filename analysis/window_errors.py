"""What a run's records say of its model's errors, as one table of sums over windows.

`errors.parquet` lies beside `latents.npz`, `errors_on_<bank>.parquet` beside `latents_on_<bank>.npz`: latents are
large, and nobody should read them anew for a number. `mbrl-pvr record` writes it. A file that is older than its record
does not count; errors are then computed from the record each time.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from analysis import files, horizons, records
from analysis import latents as space
from analysis.errors import DAMAGED, AnalysisError
from analysis.files import INTEGER, NUMBER, OPTIONAL, TEXT
from analysis.runs import Run, look_up, read_head

WINDOWS = (1, 3, 10, 33, 100, 333, 500, 1000)  # among them the study's, 33 and 500; and the whole of the record
ERROR_COLUMNS = {
    "bank": TEXT,  # whose trajectories were recorded; "": episodes of its own
    "shift": TEXT,  # under which looks; "": the bank's, or those of training
    "record_step": OPTIONAL,  # of the checkpoint
    "window": INTEGER,  # steps without an observation
    "trajectory": INTEGER,
    "points": INTEGER,  # starting points that a row is the mean of
    "context": INTEGER,  # observations given before
    "measure": TEXT,  # of the latent's error: MSE or KL
    "scale": NUMBER,  # of one step's error: the latent's variance, or the number of latents
    "constant": NUMBER,  # 1 where the latents do not vary, so that errors of them mean nothing
    "error": OPTIONAL,  # this and below: sums over the window, null where the trajectory is shorter
    "copy_last_error": OPTIONAL,
    "reward_error": OPTIONAL,
    "mean_reward_error": OPTIONAL,
}


def errors_of_run(run: Run) -> pa.Table | None:
    """The errors of all records of a run (`ERROR_COLUMNS`), those that are stored and no older than their record as
    they are; also of records that are gone. None where there are none; raises AnalysisError for damaged files.
    """
    latents = {errors_file(path): path for path in sorted(run.path.glob("latents*.npz")) if records.named(path)}
    stored = [path for path in sorted(run.path.glob("errors*.parquet")) if records.named(latents_file(path))]
    tables = []
    for path in dict.fromkeys([*stored, *latents]):
        current = path.exists() and (path not in latents or path.stat().st_mtime_ns >= latents[path].stat().st_mtime_ns)
        computed = None if current else pa.Table.from_pandas(window_errors(latents[path], run), preserve_index=False)
        tables.append(files.read_arrow(path) if computed is None else computed.replace_schema_metadata(None))
    return pa.concat_tables(tables, promote_options="permissive") if tables else None


def store_errors(path: Path, run: Path) -> Path:
    """Write what `window_errors` gives of a record of a run folder beside it; returns the file."""
    data = window_errors(path, read_head(run)).to_parquet(index=False, write_page_checksum=True)
    return files.write_files(path.parent, {errors_file(path).name: data})[0]


def window_errors(path: Path, run: Run) -> pd.DataFrame:
    """Errors of one record of a run, summed over those of `WINDOWS` that fit and over all of it. Raises AnalysisError
    where the record is damaged.
    """
    bank, shift = records.named(path) or ("", "")
    read, starts, step = records.read_latents(path), records.read_starts(path), records.latents_step(path)
    longest = int(read.length.max()) - read.context
    windows = horizons.windows_that_fit(longest, [*WINDOWS, longest])
    table = horizons.window_table(read, starts, unimix(run, read.kind), windows, bank=bank, shift=shift)
    constant = float(space.is_constant(read.posterior[read.valid]))
    return table.assign(record_step=step, constant=constant)[list(ERROR_COLUMNS)]


def unimix(run: Run, kind: str | None) -> float | None:
    """The share of the uniform distribution in categorical latents of a run; None where its latents are others."""
    if kind != "categorical":
        return None
    share = look_up(run.config, "agent.unimix")
    if not isinstance(share, int | float) or not 0 <= share < 1:
        where = str(run.path / "config.yaml")
        raise AnalysisError(f"agent.unimix should be a number in [0, 1), but is {share!r}", where, exit_code=DAMAGED)
    return float(share)


def errors_file(latents: Path) -> Path:
    """Where the errors of a record lie."""
    return latents.with_name(f"errors{latents.stem.removeprefix('latents')}.parquet")


def latents_file(errors: Path) -> Path:
    """Where the record of errors lies, or lay."""
    return errors.with_name(f"latents{errors.stem.removeprefix('errors')}.npz")
