"""Which runs are repetitions of one experiment, what it is called, and whether runs may stand on one axis."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from analysis.errors import AnalysisError
from analysis.runs import Run, look_up

# Settings that do not change what is measured: runs that differ in these alone are repetitions of one experiment.
NOT_THE_EXPERIMENT = (
    "seed",
    "device",
    "threads",
    "compile",
    "tensorboard",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "env.backend",
    "eval.video",
)
# Settings of the environment that returns on one task must share to be compared at all.
PROTOCOL = ("env.action_repeat", "env.time_limit", "env.max_steps", "env.shifts", "env.render", "env.camera")


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise AnalysisError where runs on one task follow different protocols, naming the key, both values and both runs."""
    first: dict[str, Run] = {}
    for run in runs:
        other = first.setdefault(run.task, run)
        for key in PROTOCOL:
            a, b = look_up(other.config, key), look_up(run.config, key)
            if a != b:
                raise AnalysisError(
                    f"runs on {run.task} cannot be compared: {key} is {a!r} in {other.id!r} and {b!r} in {run.id!r}",
                    f"{other.path} and {run.path}",
                    "Analyse them apart, one call for each protocol",
                )


def series_names(runs: Sequence[Run]) -> dict[str, str]:
    """Run id to the name of its line in a figure: the encoder, and the settings in which it differs from its namesakes.

    Runs with one agent, encoder and task that differ in more than seed and machine are different experiments: "vc1 (truncate 12)".
    """
    namesakes: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        namesakes[run.agent, run.encoder, run.task].append(run)
    names = {}
    for group in namesakes.values():
        configs = {run.id: _flat(run.config) for run in group}
        keys = sorted({key for config in configs.values() for key in config if key not in NOT_THE_EXPERIMENT})
        differing = [key for key in keys if len({repr(config.get(key)) for config in configs.values()}) > 1]
        for run in group:
            settings = ", ".join(f"{key.rpartition('.')[2]} {configs[run.id].get(key)}" for key in differing)
            names[run.id] = short_name(run.encoder) + (f" ({settings})" if settings else "")
    return names


def short_name(encoder: str) -> str:
    """The encoder's name; of an encoder file its name without folder and ending."""
    return PurePath(encoder).stem if "/" in encoder or encoder.endswith(".safetensors") else encoder


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
