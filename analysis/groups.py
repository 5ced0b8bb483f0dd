"""Which runs are repetitions of one experiment, what it is called, and whether runs may stand on one axis."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from analysis.errors import AnalysisError
from analysis.runs import Run, look_up

# Settings that do not change what is measured: runs that differ in these alone are repetitions of one experiment.
NOT_THE_EXPERIMENT = (
    "agent_preset",
    "seed",
    "device",
    "threads",
    "compile",
    "sinks",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "env.backend",
    "eval.video",
)
# Settings of the environment that returns on one task must share to be compared at all.
PROTOCOL = tuple(
    f"env.{name}"
    for name in ("action_repeat", "time_limit", "max_steps", "shifts", "severity", "factors", "render", "camera")
)


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise AnalysisError where runs on one task follow different protocols, naming the key, values and runs."""
    first: dict[str, Run] = {}
    for run in runs:
        other = first.setdefault(run.task, run)
        for key in PROTOCOL:
            a, b = look_up(other.config, key), look_up(run.config, key)
            if a != b:
                raise AnalysisError(
                    f"runs on {run.task} cannot be compared: {key} is {a!r} in one and {b!r} in another",
                    f"{other.path} and {run.path}",
                    "Analyse them apart, one call for each protocol",
                )


def series_names(runs: Sequence[Run]) -> dict[str, str]:
    """Run id to the name of its line in a figure: the encoder, and the settings in which it differs from its namesakes.

    Runs with one agent, encoder and task that differ in more than seed and machine are different experiments: "vc1
    (truncate 12)".
    """
    encoders = encoder_names(runs)
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
            names[run.id] = encoders[run.encoder] + (f" ({settings})" if settings else "")
    return names


def encoder_names(runs: Sequence[Run]) -> dict[str, str]:
    """Encoder to the name it has in a figure; of an encoder file its name without folder and ending, where that is
    unique.
    """
    short = {run.encoder: _short(run.encoder) for run in runs}
    taken = Counter(short.values())
    return {encoder: name if taken[name] == 1 else encoder for encoder, name in short.items()}


def _short(encoder: str) -> str:
    return PurePath(encoder).stem if "/" in encoder or encoder.endswith(".safetensors") else encoder


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
