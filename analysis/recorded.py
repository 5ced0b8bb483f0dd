"""From what `mbrl-pvr record` wrote to the drawings that `analysis.kinds` lists. Runs are seen on policy or on one bank
(`Run.on`), never on both.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import drift as drifting
from analysis import horizons, records
from analysis import latents as space
from analysis import probes as probing
from analysis.errors import AnalysisError
from analysis.records import Latents, Record
from analysis.runs import Run
from analysis.tables import Names, Options, blind, final, labels
from analysis.window_errors import unimix

COLOURS = ("reward", "value", "time")  # that latents can be coloured by, beside the variables of their state
SEEN = ("state", "z")  # of DreamerV3's latents: [h, z], or z alone
MOST_PROBED, MOST_PAIRS = 20_000, 10_000  # steps that probes and drifts look at, drawn at random


def recorded(run: Run) -> tuple[Record, Latents]:
    """What was recorded of a run that has a record, read once and not kept."""
    assert run.record is not None, run.path
    return run.record, records.read_latents(run.record.path)


def dynamics_curves(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import dynamics

    return dynamics.draw(
        pd.concat(
            [
                dynamics.error_table(recorded(run)[1], unimix(run, run.latents_kind), **labels(run, names))
                for run in runs
            ]
        )
    )


def errors(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import errors

    sums, notes = error_sums(runs, names, options.windows)
    drawn = errors.draw(sums)
    drawn.notes += notes
    return drawn


def errors_shifted(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import errors_shifted, shifted

    looks = ["", *sorted({shift for run in runs for shift in run.shifts})]
    seen = [run.under(look) for look in looks for run in runs if look in ("", *run.shifts)]
    sums, notes = error_sums(seen, names, options.windows)
    drawn = errors_shifted.draw(sums.assign(looks=sums["looks"].replace("", shifted.INSIDE)))
    drawn.notes += _of_other_checkpoints(runs) + blind(runs, names) + notes
    return drawn


def _of_other_checkpoints(runs: Sequence[Run]) -> list[str]:
    return [
        f"{run.path}: its record under {shift} is of another checkpoint than that without, and is left out"
        for run in runs
        for shift in run.older_shifts
    ]


def error_sums(runs: Sequence[Run], names: Names, windows: Sequence[int]) -> tuple[pd.DataFrame, list[str]]:
    """`horizons.window_table` of all runs, with windows that all runs of a task have, and the shift they are seen under
    as `looks`; and notes on what was cut.
    """
    tables, notes = [], []
    for task in dict.fromkeys(run.task for run in runs):
        mine = [run for run in runs if run.task == task]
        fitting, cut = _windows_that_all_have(mine, windows)
        tables += [_window_sums(run, fitting).assign(**labels(run, names), looks=run.shift) for run in mine]
        notes += [f"{task}: {note}" for note in cut]
    return pd.concat(tables, ignore_index=True), notes


def _windows_that_all_have(runs: Sequence[Run], wanted: Sequence[int]) -> tuple[list[int], list[str]]:
    """Windows cut to what the shortest record holds, and where runs come from an export, to the next that all of these
    have; a note on each that stands for others.
    """
    steps = [steps_ahead(run) for run in runs]
    shortest, longest = min(steps), max(steps)
    short = runs[steps.index(shortest)]
    stored = [set(run.window_errors["window"]) for run in runs if run.window_errors is not None]
    common = set.intersection(*stored) if stored else set(wanted) | {shortest}
    instead: dict[int, list[int]] = {}
    for window in sorted(set(wanted)):
        instead.setdefault(max(n for n in common if n <= min(window, shortest)), []).append(window)
    why = "episodes are no longer"
    if shortest < longest:
        why = f"the record of {short.path} is no longer than {shortest}, others go on to {longest}"
    notes = [
        f"{used} steps stand for {', '.join(map(str, cut))}: "
        + (why if min(cut) > shortest == used else "no longer window is in all exports")
        for used, windows in instead.items()
        if (cut := [window for window in windows if window != used])
    ]
    return list(instead), notes


def _window_sums(run: Run, windows: Sequence[int]) -> pd.DataFrame:
    if (stored := run.window_errors) is not None:
        return stored[stored["window"].isin(windows)]
    record, latents = recorded(run)
    starts = records.read_starts(record.path)
    return horizons.window_table(latents, starts, unimix(run, run.latents_kind), windows)


def steps_ahead(run: Run) -> int:
    """The most steps without an observation that an episode of the record has."""
    if (stored := run.window_errors) is not None:
        return int(stored["window"].max())
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

    sums, notes = error_sums(runs, names, options.windows)
    per_step = sums["scale"] * sums["window"]
    sums = sums.assign(
        dynamics_error=sums["error"] / per_step,
        reward_error=sums["reward_error"] / sums["window"],
        dynamics_error_sum=sums["error"],
        reward_error_sum=sums["reward_error"],
    )
    keys = ["run", "task", "agent", "series", "encoder", "seed", "measure", "window"]
    means = sums.groupby(keys)[[*correlation.DRAWN, *correlation.SUMS]].mean()  # of trajectories that last so long
    score, scores = final(runs, names)
    returns = scores.set_index("run")["inside"].rename("return")
    drawn = correlation.draw(means.reset_index().join(returns, on="run"), per_run=per_run, score=score)
    drawn.notes += notes
    return drawn


def latents(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import latents

    clouds, notes = [], list[str]()
    for title, run in _pictured(runs, names):
        record, read = recorded(run)
        if (shown := colour_of(record, read, options.colour)) is None:
            notes.append(f"{title}: nothing of {options.colour} is recorded")
            continue
        states, whose = _seen(record, read, options), {"agent": run.agent, "series": names.series[run.id]}
        clouds.append(latents.cloud(title, run.task, read, states, shown, **whose))
    if not clouds:
        raise _uncoloured(options.colour)
    drawn = latents.draw(clouds, max_points=options.max_points, seed=options.seed, colour=options.colour)
    drawn.caption += _of_dreamer(runs, options)
    drawn.notes += notes
    return drawn


def latents_shifted(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import shifted

    pairs, notes = [], _of_other_checkpoints(runs)
    for title, run in _pictured(runs, names):
        clouds, episodes = {}, _shared_episodes(run)
        for look in ("", *run.shifts):
            record, read = recorded(run.under(look))
            use = read.valid.copy()
            use[:, 0] = False  # no reward arrives with an episode's first observation
            use[episodes:] = False
            if (shown := colour_of(record, read, options.colour)) is not None:
                points = _seen(record, read, options)[use]
                clouds[look or shifted.INSIDE] = shifted.Look(points, shown[use], np.nonzero(use)[0])
        if shifted.INSIDE in clouds and len(clouds) > 1:
            pairs.append(shifted.Shifted(title, run.task, clouds, paired=bool(run.bank)))
        else:
            notes.append(f"{title}: nothing of {options.colour} is recorded")
    if not pairs:
        raise _uncoloured(options.colour)
    drawn = shifted.draw(pairs, max_points=options.max_points, seed=options.seed, colour=options.colour)
    drawn.caption += _of_dreamer(runs, options)
    drawn.notes += notes
    return drawn


def _shared_episodes(run: Run) -> int:
    """How many episodes were recorded under all looks: the first ones of each."""
    return min(found.episodes for look in ("", *run.shifts) if (found := run.under(look).record) is not None)


def _pictured(runs: Sequence[Run], names: Names) -> list[tuple[str, Run]]:
    """One run for each series, of its lowest seed, with its title; sorted by task, agent and series."""
    chosen: dict[tuple[str, str, str], Run] = {}
    agents = {run.agent for run in runs}
    for run in sorted(runs, key=lambda run: run.seed):
        chosen.setdefault((run.task, run.agent, names.series[run.id]), run)
    return [
        (f"{series}, seed {run.seed}" + (f" · {run.agent}" if len(agents) > 1 else ""), run)
        for (_, _, series), run in sorted(chosen.items(), key=lambda item: item[0])
    ]


def _seen(record: Record, read: Latents, options: Options) -> np.ndarray:
    """What a picture shows (E, T, W): z of DreamerV3 stands behind h, as wide as its logits."""
    states = records.read_states(record.path, record.kind)
    return states if options.latent == "state" else states[..., -read.posterior.shape[2] :]


def _of_dreamer(runs: Sequence[Run], options: Options) -> str:
    if all(run.latents_kind != "categorical" for run in runs):
        return ""
    return f" Of DreamerV3: {'recurrent state and drawn latent' if options.latent == 'state' else 'drawn latent'}."


def colour_of(record: Record, read: Latents, colour: str) -> np.ndarray | None:
    """(E, T) what points are coloured by; None where it was not recorded."""
    steps = np.broadcast_to(np.arange(read.value.shape[1]), read.value.shape)
    known = dict(zip(COLOURS, (read.reward_true, read.value, steps), strict=True))
    if colour in known:
        return known[colour] if np.isfinite(known[colour]).any() else None
    state, names = records.read_part(record.path, "state"), records.state_names(record.path)
    return None if state is None or colour not in names else state[..., names.index(colour)]


def check_colour(runs: Sequence[Run], colour: str) -> None:
    """AnalysisError where runs were recorded, and none of them with what latents should be coloured by."""
    if colour in COLOURS or not any(run.records for run in runs):
        return
    found = [name for run in runs for record in run.records for name in records.state_names(record.path)]
    if colour not in found:
        raise _uncoloured(colour, dict.fromkeys(found))


def _uncoloured(colour: str, others: Iterable[str] = ()) -> AnalysisError:
    hint = f"There are: {', '.join([*COLOURS, *others])}"
    return AnalysisError(f"latents cannot be coloured by {colour!r}: no record has it", hint=hint)


def probes(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import probes

    return probes.draw(pd.concat([_probe_scores(run).assign(**labels(run, names)) for run in runs], ignore_index=True))


def _probe_scores(run: Run) -> pd.DataFrame:
    """One row per source and variable: state, action and reward as read from the feature and from the latent."""
    record, read = recorded(run)
    use = read.valid.copy()
    use[:, 0] = False  # no reward arrives with an episode's first observation, and no action led to it
    episode = np.broadcast_to(np.arange(len(use))[:, None], use.shape)[use]
    some = space.thinned(len(episode), MOST_PROBED)
    targets = {"reward": read.reward_true[use][some]}
    for name in ("state", "action"):
        part = records.read_part(record.path, name)
        columns = [] if part is None else list(part[use][some].T)
        called = records.state_names(record.path) if name == "state" else [f"action {k}" for k in range(len(columns))]
        targets |= dict(zip(called, columns, strict=True))
    rows = []
    for source, inputs in _sources(record).items():
        found = probing.probe(inputs[use][some], targets, episode[some])
        for variable, one in found.items():
            ends = {"low": one.r2.low, "high": one.r2.high, "penalty": one.penalty}
            rows.append({"source": source, "variable": variable, "r2": one.r2.point, "held_out": one.r2.runs, **ends})
    return pd.DataFrame(rows)


def _sources(record: Record) -> dict[str, np.ndarray]:
    """What the model is given (E, T, F), of patches their mean, where it was recorded; and what it makes of it."""
    feature = records.read_part(record.path, "feature")
    latent = {"latent": records.read_states(record.path, record.kind)}
    return latent if feature is None else {"feature": _pooled(feature), **latent}


def _pooled(feature: np.ndarray) -> np.ndarray:
    return feature if feature.ndim == 3 else feature.mean(axis=tuple(range(2, feature.ndim - 1)), dtype=np.float32)


def drifts(runs: Sequence[Run], names: Names, options: Options) -> Any:
    from analysis.figures import drift

    drawn = drift.draw(pd.concat([_drifts(run).assign(**labels(run, names)) for run in runs], ignore_index=True))
    drawn.notes += _of_other_checkpoints(runs)
    return drawn


def _drifts(run: Run) -> pd.DataFrame:
    """One row per shift of the bank and stage; a stage that does not vary has NaN."""
    record, read = recorded(run)
    use = read.valid.copy()
    use[:, 0] = False
    use[_shared_episodes(run) :] = False
    some = space.thinned(int(use.sum()), MOST_PAIRS)
    trajectory, step = (index[some] for index in np.nonzero(use))
    place = trajectory, step
    clean, rows = _stages(record, read, place), []
    for shift in run.shifts:
        moved = _stages(*recorded(run.under(shift)), place)
        for stage in clean.keys() & moved.keys():
            if space.is_constant(clean[stage].reshape(len(step), -1)):
                rows.append({"shift": shift, "stage": stage, "pairs": len(step)})
                continue
            one = drifting.drift(clean[stage], moved[stage], trajectory)
            numbers = {"relative": one.relative.point, "low": one.relative.low, "high": one.relative.high}
            rows.append({"shift": shift, "stage": stage, **numbers, "offset": one.offset, "cka": one.cka})
            rows[-1]["pairs"] = one.pairs
    return pd.DataFrame(rows)


def _stages(record: Record, read: Latents, place: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model makes of n steps, by episode and step: each (n, …). Without a policy there is no value."""
    arrays = {**_sources(record), "value": read.value, "predicted reward": read.reward_pred}
    found = {name: array[place] for name, array in arrays.items()}
    return {name: array for name, array in found.items() if np.isfinite(array).any()}
