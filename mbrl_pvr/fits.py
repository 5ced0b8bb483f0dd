"""What fits together: tasks, agents, encoders and what is reconstructed; checked before anything is built."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mbrl_pvr.envs.names import DISCRETE, TERMINATING, resolve
from mbrl_pvr.envs.offers import check_offers, has_state
from mbrl_pvr.errors import ConfigError, Unavailable
from mbrl_pvr.presets import agents
from mbrl_pvr.settings import WITHOUT_ENCODER, EncoderConfig, RunConfig
from mbrl_pvr.sinks import check_sinks
from world_models.dreamerv3.config import DEPTHS, DreamerV3Config

POOL_HEADS = 4  # of agent.patches=attention; a test compares it with the module


def check_names(config: RunConfig) -> RunConfig:
    """The configuration with aliases of environments resolved; ConfigError where names are unknown or do not fit."""
    if config.agent_preset not in agents():
        raise ConfigError(f"unknown agent {config.agent_preset!r}", "agent_preset", f"Agents: {', '.join(agents())}")
    name = resolve(config.env.name)
    if name in DISCRETE:
        check_choices(config)
    if name != config.env.name:
        config = replace(config, env=replace(config.env, name=name))
    check_offers(config.env)
    if config.encoder.name == "state" and not has_state(name):
        what = f"encoder=state, but {name} gives pictures alone, no state vector"
        raise ConfigError(what, "encoder", "Take an encoder, or encoder=scratch")
    if name in TERMINATING and not config.agent.episodic:
        raise not_episodic(name)
    if not config.agent.policy and config.data is None:
        what = "agent.policy=false: without a policy nothing can be collected"
        raise ConfigError(what, "agent.policy", "Give a trajectory bank to learn from, data=PATH")
    _check_lengths(config)
    check_sinks(config.sinks)
    _check_encoder(config)
    if isinstance(config.agent, DreamerV3Config):
        _check_target(config, config.agent)
    return config


def _check_target(config: RunConfig, agent: DreamerV3Config) -> None:
    """What is reconstructed must be there, must have a size that can be drawn, and must not move as it is learnt."""
    name, learns = config.encoder.name, config.encoder.trainable
    if learns != 0 and agent.target in ("auto", "feature"):
        what = f"encoder.trainable={learns}, agent.target={agent.target}"
        why = "a network that reconstructs its own moving output collapses"
        raise ConfigError(f"{what}: {why}", "agent.target", "Train with agent.target=pixels or agent.target=none")
    given = {"scratch": ("pixels",), "state": ()}.get(name, ("feature", "pixels"))
    if agent.target in ("feature", "pixels") and agent.target not in given:
        legal = ", ".join(("auto", *given, "none"))
        what = f"agent.target={agent.target}, but with encoder={name} the agent is not given that"
        raise ConfigError(what, "agent.target", f"It may be: {legal}")
    key, size = "env.size", config.env.size
    if name != "scratch":
        if agent.drawn is None:
            return
        _check_not_enlarged(config, agent.drawn)
        key, size = "agent.target_size", agent.drawn
    if agent.convolutions == "strided":
        _check_strided(key, size)
    elif agent.target != "none":
        _check_drawn(agent, key, size)


def _check_not_enlarged(config: RunConfig, drawn: int) -> None:
    """Frames that are kept to be reconstructed are averaged from larger ones, or have their size already."""
    key, size = "env.size", config.env.size
    if isinstance(config.encoder.trainable, str):  # what is kept are the encoder's inputs
        key, size = "encoder.input_size", encoder_spec(config.encoder).input_size
    if size < drawn:
        what = f"agent.target_size={drawn}: frames of {key}={size} would be enlarged to be reconstructed"
        raise ConfigError(what, "agent.target_size", f"Take agent.target_size of at most {size}, or a larger {key}")


def _check_drawn(agent: DreamerV3Config, key: str, size: int) -> None:
    """Sides and filters that the decoder of frames can draw."""
    side, filters = 2 ** len(DEPTHS), agent.widths.depth * DEPTHS[-1]
    if size % side:
        what = f"{key}={size}: agent=dreamerv3 draws frames whose sides are multiples of {side}"
        raise ConfigError(what, key, f"Take {key}={size // side * side or side}, or agent.target=none")
    if filters % agent.blocks:
        what = f"agent.depth={agent.widths.depth} gives {filters} filters, not divisible by agent.blocks={agent.blocks}"
        raise ConfigError(what, "agent.depth")


def _check_strided(key: str, size: int) -> None:
    """Convolutions of the 2023 code halve frames until 4×4 pixels are left."""
    if size < 8 or size & (size - 1):
        what = f"{key}={size}: agent.convolutions=strided takes frames whose sides are powers of 2, from 8"
        raise ConfigError(what, key, f"Take {key}={max(8, 2 ** (size.bit_length() - 1))}")


def _check_lengths(config: RunConfig) -> None:
    """Replay and the random steps must hold what the first update wants."""
    agent, num, capacity = config.agent, config.env.num, config.replay.capacity
    length = f"agent.{agent.LENGTH}={getattr(agent, agent.LENGTH)}"
    if agent.sequence_steps > capacity // num:
        raise ConfigError(
            f"{length} needs sequences of {agent.sequence_steps} steps, but replay.capacity={capacity} keeps only"
            f" {capacity // num} of each of {num} environments"
        )
    if agent.batch_size > capacity:
        raise ConfigError(f"agent.batch_size={agent.batch_size} is above replay.capacity={capacity}")
    if config.data is not None:  # nothing is collected at random before learning
        return
    if config.random_steps <= (agent.sequence_steps - 1) * num:
        raise ConfigError(
            f"random_steps={config.random_steps} must be above {agent.sequence_steps - 1} times env.num={num}:"
            f" learning begins after them, on sequences of {agent.sequence_steps} steps ({length})"
        )
    if config.random_steps + num > config.steps:
        raise ConfigError(
            f"random_steps={config.random_steps} must be at most steps={config.steps} less env.num={num}:"
            " learning begins after them"
        )


def check_choices(config: RunConfig) -> None:
    """ConfigError where the agent cannot choose among actions; called for a task that is known to have choices."""
    if not config.agent.CHOICES:
        raise ConfigError(
            f"{config.env.name} has discrete actions, but agent {config.agent.name} acts in continuous ones",
            "env, agent",
            "Train with agent=dreamerv3",
        )


def not_episodic(task: str) -> ConfigError:
    """The error for a task that can terminate under an agent to which no episode ends."""
    what = f"episodes of {task} terminate, but with agent.episodic=false the agent learns as if they went on"
    return ConfigError(what, "agent.episodic", "Train with agent.episodic=true")


def _check_encoder(config: RunConfig) -> None:
    choice = config.encoder
    smallest = config.agent.smallest_pixels
    if choice.name == "scratch" and config.env.size < smallest:
        raise ConfigError(
            f"env.size={config.env.size}: encoder=scratch needs frames of at least {smallest} pixels",
            "env.size",
            f"The convolutions of agent={config.agent.name} leave nothing of smaller ones",
        )
    if choice.name in WITHOUT_ENCODER:
        given = [
            k
            for k in ("truncate", "feature", "norm", "input_size", "seed", "weights")
            if getattr(choice, k) is not None
        ] + ["trainable"] * (choice.trainable != 0)
        if given:
            raise ConfigError(f"encoder={choice.name} has no encoder, so encoder.{given[0]} means nothing", "encoder")
        return
    spec = encoder_spec(choice)
    if choice.trainable != 0:
        with _as_config_error():
            spec.check_trainable(choice.trainable)
    _check_patches(config.agent.patches, spec.feature_shape)
    if config.env.size < spec.render_size:
        step = max(spec.input_multiple, 1)
        fits = config.env.size * spec.input_size // spec.render_size // step * step
        smaller = f", or ask for a smaller input: encoder.input_size={fits}" * (spec.input_multiple > 0 and fits >= 32)
        raise ConfigError(
            f"env.size={config.env.size}: encoder {choice.name!r} would enlarge it to {spec.render_size} pixels",
            "env.size",
            f"Leave env.size out{smaller}",
        )


def _check_patches(kind: str, shape: tuple[int, ...]) -> None:
    if kind != "flatten" and len(shape) != 2:
        what = f"agent.patches={kind} wants patches (P, F), but the encoder gives {shape}"
        raise ConfigError(what, "agent.patches", "Ask for encoder.feature=patches, where the encoder has it")
    if kind == "attention" and shape[-1] % POOL_HEADS:
        what = f"agent.patches=attention has {POOL_HEADS} heads, which do not divide features of {shape[-1]}"
        raise ConfigError(what, "agent.patches", "Take agent.patches=each or flatten")


def seen_size(choice: EncoderConfig) -> int:
    """Pixels that the encoder wants to see, so that frames are never enlarged unnoticed; 0 without an encoder."""
    return 0 if choice.name in WITHOUT_ENCODER else encoder_spec(choice).render_size


def encoder_spec(choice: EncoderConfig) -> Any:
    """The `EncoderSpec` of a choice, nothing built; raises ConfigError, Unavailable, ZooError for damaged files."""
    import pvr_zoo

    if is_path(choice.name) and not Path(choice.name).is_file():
        make = f"mbrl-pvr pretrain autoencoder env=NAME --out {choice.name}"
        hint = f"Names: mbrl-pvr encoders list. An encoder of your own: {make}"
        raise Unavailable(f"no encoder file {choice.name!r}", "encoder", hint)
    if choice.weights is not None and not Path(choice.weights).is_file():
        raise Unavailable(
            f"no weights file {choice.weights!r}", "encoder.weights", "Give a file's path, or leave it out"
        )
    with _as_config_error():
        spec = pvr_zoo.spec(choice.name, **choice.request)
    if choice.weights is not None:
        if is_path(choice.name):
            raise ConfigError(f"{choice.name} holds its own weights", "encoder.weights", "Leave encoder.weights out")
        with _as_config_error("encoder.weights"):
            spec.check_takes_weights()
    return spec


def require_licence(choice: EncoderConfig, licence: str | None) -> None:
    """ConfigError where an encoder's licence is not of the class asked for; without an encoder there is none."""
    from pvr_zoo import catalogue

    with _as_config_error("--licence"):
        catalogue.check_licence_class(licence)
        if choice.name not in WITHOUT_ENCODER:
            catalogue.require_licence(encoder_spec(choice), licence)


@contextmanager
def _as_config_error(where: str = "encoder") -> Iterator[None]:
    """A request that an encoder does not offer is a mistake in the configuration; other errors pass."""
    from pvr_zoo.errors import ZooError

    try:
        yield
    except ZooError as error:
        if error.exit_code == ConfigError.exit_code:
            raise ConfigError(error.what, error.where or where, error.hint) from error
        raise


def is_path(name: str) -> bool:
    """Whether an encoder's name means a file."""
    from pvr_zoo.registry import is_file_name

    return is_file_name(name)
