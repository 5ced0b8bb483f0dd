"""From logs, episodes and manifests of runs to the drawings that `analysis.kinds` lists: each function makes the table
that its figure takes. What needs records stands in `analysis.recorded`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis import dynamics, groups
from analysis.errors import AnalysisError
from analysis.played import require_same
from analysis.runs import ELAPSED, Run, look_up

BLIND = "state"  # the "encoder" of agents that are given the simulator's state alone


@dataclass(frozen=True)
class Options:
    """What a caller may choose for figures."""

    random_scores: Mapping[str, float] = field(default_factory=dict)  # task to the return of random actions
    max_points: int = 2000  # latents in a picture, drawn at random
    seed: int = 0  # of subsampling and UMAP
    colour: str = "reward"  # of latents in a picture: reward, value, time, or a state variable: "velocity 3", "state 3"
    latent: str = "state"  # of DreamerV3: "state" is [h, z], as the study's; "z" the drawn latent alone
    windows: Sequence[int] = dynamics.STUDY_WINDOWS  # open-loop steps over which errors are summed
    properties: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)  # encoder to what it has


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
    tables = [(run, table) for run in runs if (table := rows(run)) is not None]
    whose = pd.DataFrame([labels(run, names) for run, _ in tables])
    stacked = pd.concat([table for _, table in tables], ignore_index=True)
    owners = np.repeat(np.arange(len(tables)), [len(table) for _, table in tables])
    return stacked.assign(**{name: column.to_numpy()[owners] for name, column in whose.items()})


def newest_ood(run: Run) -> pd.DataFrame | None:
    """Episodes of the newest checkpoint that was played out of distribution."""
    if run.ood is None:
        return None
    newest = run.ood["step"].to_numpy() == run.ood_step
    return run.ood if newest.all() else run.ood[newest]


def evaluated(run: Run) -> pd.DataFrame:
    """Evaluation episodes of a run that has a log."""
    episodes = run.episodes if run.episodes is not None else pd.DataFrame(columns=["kind"])
    return episodes[episodes["kind"] == "eval"]


def returns(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import returns

    return returns.draw(stack(runs, names, lambda run: run.episodes), options.random_scores)


def ood(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import ood

    drawn = ood.draw(stack(runs, names, newest_ood), options.random_scores)
    drawn.notes += blind(runs, names)
    return drawn


def blind(runs: Sequence[Run], names: Names) -> list[str]:
    """A note on every series whose agents see no pictures, for figures of shifts."""
    found = dict.fromkeys(names.series[run.id] for run in runs if run.encoder == BLIND)
    return [f"{series} sees no pictures: shifts of looks leave its episodes as they are" for series in found]


def dose(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import dose

    drawn = dose.draw(stack(runs, names, newest_ood), options.random_scores)
    drawn.notes += blind(runs, names)
    return drawn


def profile(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import profile

    return profile.draw(stack(runs, names, newest_ood))


def final(runs: Sequence[Run], names: Names, series: Mapping[str, str] | None = None) -> tuple[str, pd.DataFrame]:
    """One row per run with its mean return in distribution (`inside`), and under held-out shifts as in `Played`
    (`outside`, NaN where none was played); and what they are: normalised where all runs have such episodes, otherwise
    plain, and then `inside` is of the last evaluation where nothing was played later.
    """
    played = [run.played for run in runs]
    normalised = all(one is not None and one.inside.any() and np.isfinite(one.normalised).all() for one in played)
    rows = []
    for run, one in zip(runs, played, strict=True):
        found = {"inside": _mean(run.last_returns), "outside": np.nan}
        if one is not None:
            values = one.normalised if normalised else one.returns
            found["inside"] = _mean(values[one.inside]) if one.inside.any() else found["inside"]
            found["outside"] = _mean(values[~one.inside])
        rows.append({**labels(run, names), **found})
    table = pd.DataFrame(rows)
    if series is not None:
        table["series"] = table["run"].map(series)
    return ("normalised return" if normalised else "episode return"), table


def in_and_out(runs: Sequence[Run], names: Names, series: Mapping[str, str] | None = None) -> tuple[str, pd.DataFrame]:
    """`final`, for figures that show `outside`: AnalysisError where runs were played under different conditions."""
    require_same((run.task, str(run.path), run.played.conditions) for run in runs if run.played is not None)
    return final(runs, names, series)


def _mean(values: np.ndarray) -> float:
    """NaN of nothing."""
    return float(values.mean()) if len(values) else np.nan


def is_normalised(played: pd.DataFrame) -> bool:
    """Whether all episodes, some of them in distribution, have a normalised return."""
    there = "normalised" in played and pd.to_numeric(played["normalised"]).notna().all()
    return bool(there and (played["shift"] == "none").any())


def properties(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import properties

    known = [run for run in runs if run.encoder in options.properties]
    if not known:
        raise AnalysisError("the properties of none of these encoders are known")
    kinds = list(dict.fromkeys(name for run in known for name in options.properties[run.encoder]))
    _, scores = in_and_out(known, names)
    has = {run.id: options.properties[run.encoder] for run in known}
    for kind in kinds:
        scores[kind] = [bool(has[run].get(kind, False)) for run in scores["run"]]
    drawn = properties.draw(scores, kinds)
    others = sorted({names.encoders[run.encoder] for run in runs} - {names.encoders[run.encoder] for run in known})
    drawn.notes += [f"left out, since nothing is known of their properties: {', '.join(others)}"] if others else []
    return drawn


def truncation(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import settings

    score, scores = in_and_out(runs, names, groups.series_names(runs, ["encoder.truncate"]))
    depths = {run.id: depth(run) for run in runs}
    return settings.over_numbers(varying(scores.assign(setting=scores["run"].map(depths))), "blocks kept", score)


def varying(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of the series that have several values of the setting."""
    return scores[scores.groupby(["task", "agent", "series"])["setting"].transform("nunique") > 1]


def depth(run: Run) -> int | None:
    """Blocks of the encoder that are kept; None where it has none, or features are of several."""
    kept = look_up(run.manifest, "encoder.truncate")
    return kept if isinstance(kept, int) else None


def front_end(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import settings

    score, scores = in_and_out(runs, names, groups.series_names(runs, ["agent.front_end"]))
    layers = {run.id: look_up(run.config, "agent.front_end") for run in runs}
    return settings.over_words(varying(scores.assign(setting=scores["run"].map(layers))), "front end", score)


def cost(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import cost

    score, scores = final(runs, names)
    costs = pd.DataFrame([{"run": run.id, **_cost(run)} for run in runs])
    return cost.draw(scores.rename(columns={"inside": "return"}).merge(costs, on="run"), score)


def _cost(run: Run) -> dict[str, float]:
    """Hours as logged, bytes of replay at the end, FLOPs of a frame; NaN where the run folder does not say."""
    per_step = look_up(run.manifest, "cost.replay_bytes_per_step")
    steps, capacity = look_up(run.config, "steps"), look_up(run.config, "replay.capacity")
    held = min(run.step if run.step is not None else steps, capacity or np.inf)
    unknown = per_step is None or look_up(run.config, "data") is not None  # of a bank, steps are not what is held
    return {
        "hours": hours(run),
        "bytes": np.nan if unknown else float(per_step) * held,
        "flops": float(look_up(run.manifest, "cost.encoder_flops_per_frame") or np.nan),
    }


def hours(run: Run) -> float:
    """That the run has taken, evaluations included; NaN where its log does not say."""
    if run.metrics is None or ELAPSED not in run.metrics:
        return np.nan
    return float(pd.to_numeric(run.metrics[ELAPSED]).max()) / 3600


def area(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import area

    return area.draw(stack(runs, names, evaluated))
