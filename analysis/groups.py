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
    "encoder.compile",
    "sinks",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "env.backend",
    "eval.video",
)
_SHIFT = ("severity", "factors", "bands", "video")  # of env: what means nothing without env.shifts
_STORED = {  # shifts that draw from stored things alone, and from no range
    *("none", "color_easy", "color_hard", "agent", "floor", "background", "objects", "textures", "distractors"),
    *("configurations", "video"),
}
_PHYSICAL = {"physical_size", "configurations"}  # shifts that are more than pictures; `study` has them in ManiSkill
_WITH_VIDEO = {"video", "distracting_easy", "distracting_medium", "distracting_hard"}
_EVALUATION = ("eval.every", "eval.episodes", "eval.video")
_BEHAVIOUR = tuple(  # of both agents
    f"agent.{name}"
    for name in (
        *("value_coef", "entropy_coef", "tau", "discount_denom", "discount_min", "discount_max", "dropout"),
        *("log_std_min", "log_std_max", "iterations", "num_samples", "num_elites", "num_pi_trajs"),
        *("min_std", "max_std", "temperature", "imagination", "discount_horizon", "return_lambda", "replay_value"),
        *("entropy", "actor_gradient", "ends", "evaluate", "behaviour_lr", "behaviour_clip", "slow_rate"),
        *("return_rate", "actor_scale", "layers", "exploration", "exploration_critics", "disagreement_heads"),
    )
)
# Settings of the environment that returns on one task must share to be compared at all.
PROTOCOL = tuple(
    f"env.{name}"
    for name in ("action_repeat", "time_limit", "max_steps", "shifts", *_SHIFT, "render", "camera", "reward")
)


# Versions in the manifest that decide what an episode is, by the family of the environment.
SIMULATORS = {
    "dmc": ("dm_control", "mujoco"),
    "maniskill": ("mani_skill", "sapien"),
    "miniworld": ("miniworld",),
    "gym": ("gymnasium", "mujoco"),
}


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise AnalysisError where runs on one task follow different protocols, or were made by different simulators,
    renderers, or (repetitions of one experiment) encoders of one name; it names what differs, the values and runs.

    What a manifest does not say is not compared.
    """
    first: dict[tuple[str, str], tuple[Run, Any]] = {}
    series = series_names(runs)
    for run in runs:
        for key, value in protocol(run).items():
            _same(run, key, value, first.setdefault((run.task, key), (run, value)))
        for key in ("weights_sha256", "transform"):
            if (value := look_up(run.manifest, f"encoder.{key}")) is not None:
                who = f"{run.task} {run.agent} {series[run.id]}"
                _same(run, f"the encoder's {key}", value, first.setdefault((who, key), (run, value)))


def protocol(run: Run) -> dict[str, Any]:
    """What the returns of runs on one task must share, of what the run's configuration reads and its manifest says."""
    unread = inert(run.config) | ({"env.backend"} if run.encoder == "state" else set())
    settings = {key: look_up(run.config, key) for key in (*PROTOCOL, "env.backend") if key not in unread}
    simulators = SIMULATORS.get(run.task.replace(":", "/").partition("/")[0], ())
    versions = {f"the version of {name}": look_up(run.manifest, f"versions.{name}") for name in simulators}
    return settings | {name: version for name, version in versions.items() if version is not None}


def _same(run: Run, key: str, value: Any, first: tuple[Run, Any]) -> None:
    other, seen = first
    if value != seen:
        raise AnalysisError(
            f"runs on {run.task} cannot be compared: {key} is {seen!r} in one and {value!r} in another",
            f"{other.path} and {run.path}",
            "Analyse them apart, one call for each protocol",
        )


def inert(config: Mapping[str, Any]) -> frozenset[str]:
    """Settings that nothing reads under the others (of agents: TD-MPC2's), so that they tell no two runs apart."""
    encoder = look_up(config, "encoder.name")
    state, pixels, features = encoder == "state", encoder == "scratch", encoder not in ("scratch", "state")
    dreamer, drawn = look_up(config, "agent.name") == "dreamerv3", look_up(config, "agent.target") == "pixels"
    linear, learns = look_up(config, "agent.front_end") == "linear", look_up(config, "encoder.trainable") or 0
    shifts = look_up(config, "env.shifts") or "none"
    shifted = set(look_up(config, "env.factors") or shifts.split("+"))
    env = str(look_up(config, "env.name"))
    rebuilt = shifted & _PHYSICAL or ("study" in shifted and env.startswith("maniskill/"))
    unread = {
        ("env.render", "env.camera", "env.size", "env.proprio"): state,
        tuple(f"env.{name}" for name in ("shifts", *_SHIFT)): state and not rebuilt,
        tuple(f"env.{name}" for name in _SHIFT): shifts == "none",
        ("env.bands",): shifted <= _STORED,
        ("env.video",): not shifted & _WITH_VIDEO,
        ("env.reward",): not env.startswith("maniskill/"),
        ("random_steps", "catch_up", "env.num"): look_up(config, "data") is not None,
        (*_EVALUATION, *_BEHAVIOUR): look_up(config, "agent.policy") is False,
        ("agent.symlog",): dreamer and pixels and not look_up(config, "env.proprio"),
        ("agent.stack",): state,
        ("agent.front_end", "agent.patches"): not features,
        ("agent.feature_norm",): state or (pixels and look_up(config, "agent.name") != "tdmpc2"),
        ("agent.patch_dim",): not features or look_up(config, "agent.patches") != "each",
        ("agent.tail_lr_scale",): learns == 0,
        ("encoder.lora_rank",): learns != "lora",
        ("encoder.precision", "encoder.compile"): not features or learns != 0,
        ("agent.augment",): not pixels and learns not in ("lora", "all"),
        ("agent.num_channels",): not pixels,
        ("agent.enc_dim", "agent.num_enc_layers"): pixels or (features and linear),
        ("agent.target_size",): dreamer and not (features and drawn),
        ("agent.termination_coef",): look_up(config, "agent.episodic") is False,
    }
    return frozenset(key for keys, here in unread.items() if here for key in keys)


def series_names(runs: Sequence[Run], without: Sequence[str] = ()) -> dict[str, str]:
    """Run id to the name of its line in a figure: the encoder, and the settings in which it differs from its namesakes,
    but for those `without`.

    Runs with one agent, encoder and task that differ in more than seed, machine and settings that they do not read are
    different experiments: "vc1 (truncate 12)".
    """
    encoders = encoder_names(runs)
    namesakes: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        namesakes[run.agent, run.encoder, run.task].append(run)
    names = {}
    for group in namesakes.values():
        configs = {run.id: _flat(run.config) for run in group}
        unread = {run.id: {*NOT_THE_EXPERIMENT, *without, *inert(run.config)} for run in group}
        values = {
            key: {repr(config.get(key)) for name, config in configs.items() if key not in unread[name]}
            for key in sorted({key for config in configs.values() for key in config})
        }
        for run in group:
            differing = [key for key, seen in values.items() if len(seen) > 1 and key not in unread[run.id]]
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
