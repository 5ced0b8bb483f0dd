"""Controls: runs on the simulator's state, and on pixels from scratch. Where one of them did not learn a task, what is
compared there between encoders says nothing about them.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.runs import Run

CONTROLS = ("state", "scratch")
LEARNED = 0.1  # of the way from random actions to the maximum: a control that gains less has not learned
GAIN = "in_distribution"  # mean normalised return under the looks of training


def unlearned(runs: pd.DataFrame) -> str:
    """Which controls did not gain what is called learning, of runs on one task with one agent (`encoder`, `GAIN`); ""
    where all did, or none was run.
    """
    means = runs[runs["encoder"].isin(CONTROLS)].groupby("encoder")[GAIN].mean()
    return ", ".join(f"{name} gained {gain:.3f} of {LEARNED}" for name, gain in means.items() if not gain >= LEARNED)


def notes(runs: Sequence[Run], shown: Sequence[Run], series: Mapping[str, str]) -> list[str]:
    """A note on each task and agent where a control among all finished runs did not learn, and several series of runs
    (by their ids) are shown. Controls without a normalised return are passed over.
    """
    gains = _gains([run for run in runs if run.finished and run.encoder in CONTROLS])
    lines: dict[tuple[str, str], set[str]] = {}
    for run in shown:
        lines.setdefault((run.task, run.agent), set()).add(series[run.id])
    found = []
    for (task, agent), mine in gains.groupby(["task", "agent"]):
        if len(lines.get((task, agent), ())) > 1 and (why := unlearned(mine)):
            what = f"{task}, {agent}: a control did not learn: {why} (0: random actions, 1: the maximum)"
            found.append(f"{what}. Differences between encoders there say nothing about them")
    return found


def _gains(controls: Sequence[Run]) -> pd.DataFrame:
    rows = []
    for run in controls:
        if run.played is not None and run.played.inside.any():
            gain = float(run.played.normalised[run.played.inside].mean())
            rows.append({"task": run.task, "agent": run.agent, "encoder": run.encoder, GAIN: gain})
    return pd.DataFrame(rows, columns=["task", "agent", "encoder", GAIN]).dropna()
