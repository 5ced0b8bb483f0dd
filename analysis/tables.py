"""From runs to the drawings that `analysis.kinds` lists: each function reads what its figure needs, as tables or
arrays, and hands it on. Runs are seen on policy or on one bank (`Run.on`), never on both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis import dynamics, horizons, records
from analysis.errors import DAMAGED, AnalysisError
from analysis.records import Latents, Record
from analysis.runs import Run, look_up


@dataclass(frozen=True)
class Options:
    """What a caller may choose for figures."""

    random_scores: Mapping[str, float] = field(default_factory=dict)  # task to the return of random actions
    max_points: int = 2000  # latents in a picture, drawn at random
    seed: int = 0  # of subsampling and UMAP
    windows: Sequence[int] = dynamics.STUDY_WINDOWS  # open-loop steps over which errors are summed


@dataclass(frozen=True)
class Names:
    """What things are called in figures."""

    series: Mapping[str, str]  # by run id
    encoders: Mapping[str, str]  # by encoder


def labels(run: Run, names: Names) -> dict[str, Any]:
    """The columns that say whose a row is."""
    return {
        "run": run.id,
        "series": names.series[run.id],
        "agent": run.agent,
        "encoder": names.encoders[run.encoder],
        "task": run.task,
        "seed": run.seed,
    }


def stack(runs: Sequence[Run], names: Names, rows: Callable[[Run], pd.DataFrame | None]) -> pd.DataFrame:
    """The rows of all runs that have some, with their labels."""
    tables = [(run, rows(run)) for run in runs]
    return pd.concat(
        [table.assign(**labels(run, names)) for run, table in tables if table is not None], ignore_index=True
    )


def newest_ood(run: Run) -> pd.DataFrame | None:
    """Episodes of the newest checkpoint that was played out of distribution."""
    return None if run.ood is None else run.ood[run.ood["step"] == run.ood_step]


def evaluated(run: Run) -> pd.DataFrame:
    """Evaluation episodes of a run that has a log."""
    episodes = run.episodes if run.episodes is not None else pd.DataFrame(columns=["kind"])
    return episodes[episodes["kind"] == "eval"]


def unimix(run: Run) -> float | None:
    """The share of the uniform distribution in the run's categorical latents; None where it has others."""
    if run.latents_kind != "categorical":
        return None
    share = look_up(run.config, "agent.unimix")
    if not isinstance(share, int | float) or not 0 <= share < 1:
        where = str(run.path / "config.yaml")
        raise AnalysisError(f"agent.unimix should be a number in [0, 1), but is {share!r}", where, exit_code=DAMAGED)
    return float(share)


def recorded(run: Run) -> tuple[Record, Latents]:
    """What was recorded of a run that has a record, read once and not kept."""
    assert run.record is not None, run.path
    return run.record, records.read_latents(run.record.path)


def returns(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import returns

    return returns.draw(stack(runs, names, lambda run: run.episodes), options.random_scores)


def ood(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import ood

    return ood.draw(stack(runs, names, newest_ood), options.random_scores)


def dose(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import dose

    return dose.draw(stack(runs, names, newest_ood), options.random_scores)


def profile(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import profile

    return profile.draw(stack(runs, names, newest_ood))


def dynamics_curves(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import dynamics

    return dynamics.draw(
        pd.concat([dynamics.error_table(recorded(run)[1], unimix(run), **labels(run, names)) for run in runs])
    )


def errors(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import errors

    return errors.draw(error_sums(runs, names, options.windows))


def error_sums(runs: Sequence[Run], names: Names, windows: Sequence[int]) -> pd.DataFrame:
    """`horizons.window_table` of all runs; windows of a task are cut to what its shortest record holds."""
    steps = {run.id: steps_ahead(run) for run in runs}
    shortest: dict[str, int] = {}
    for run in runs:
        shortest[run.task] = min(steps[run.id], shortest.get(run.task, steps[run.id]))
    tables = []
    for run in runs:
        record, latents = recorded(run)
        fitting = horizons.windows_that_fit(shortest[run.task], windows)
        starts = records.read_starts(record.path)
        tables.append(horizons.window_table(latents, starts, unimix(run), fitting, **labels(run, names)))
    return pd.concat(tables, ignore_index=True)


def steps_ahead(run: Run) -> int:
    """The most steps without an observation that an episode of the record has."""
    _, latents = recorded(run)
    return int(latents.length.max()) - latents.context


def calibration(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import calibration

    return calibration.draw([calibration.rewards_of(recorded(run)[1], **labels(run, names)) for run in runs])


def correlation(runs: Sequence[Run], names: Names, options: Options) -> Any:
    return _correlation(runs, names, options, per_run=False)


def correlation_of_runs(runs: Sequence[Run], names: Names, options: Options) -> Any:
    return _correlation(runs, names, options, per_run=True)


def _correlation(runs: Sequence[Run], names: Names, options: Options, *, per_run: bool) -> Any:
    from analysis.figures import correlation

    window = min(min(steps_ahead(run) for run in runs), options.windows[0])
    sums = error_sums(runs, names, [window])
    means = sums.groupby("run")[["error", "reward_error"]].mean()  # of the trajectories that last so long
    measure = sums.groupby("run")["measure"].first()
    score, returns = _scores(runs)
    rows = [
        {
            **labels(run, names),
            "measure": measure[run.id],
            "dynamics_error": means.loc[run.id, "error"],
            "reward_error": means.loc[run.id, "reward_error"],
            "return": returns[run.id],
        }
        for run in runs
    ]
    return correlation.draw(pd.DataFrame(rows), window, per_run=per_run, score=score)


def _scores(runs: Sequence[Run]) -> tuple[str, dict[str, float]]:
    """Run id to its mean return in distribution, and what it is: normalised where all runs have played such episodes,
    otherwise of the last evaluation.
    """
    normalised = {run.id: _normalised(run) for run in runs}
    if not any(np.isnan(value) for value in normalised.values()):
        return "normalised return", normalised
    found = {}
    for run in runs:
        rows = evaluated(run)
        found[run.id] = float(rows.loc[rows["step"] == rows["step"].max(), "return"].mean())
    return "episode return", found


def _normalised(run: Run) -> float:
    played = newest_ood(run)
    if played is None or "normalised" not in played:
        return np.nan
    return float(pd.to_numeric(played.loc[played["shift"] == "none", "normalised"]).mean())


def latents(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import latents

    chosen: dict[tuple[str, str, str], Run] = {}
    agents = {run.agent for run in runs}
    for run in sorted(runs, key=lambda run: run.seed):
        chosen.setdefault((run.task, run.agent, names.series[run.id]), run)
    clouds = []
    for (task, _, name), run in sorted(chosen.items(), key=lambda item: item[0]):
        record, read = recorded(run)
        title = f"{name}, seed {run.seed}" + (f" · {run.agent}" if len(agents) > 1 else "")
        clouds.append(latents.cloud(title, task, read, records.read_states(record.path, record.kind)))
    return latents.draw(clouds, max_points=options.max_points, seed=options.seed)
