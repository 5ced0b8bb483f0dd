"""From a configuration to its parts: encoder, environments, agent. Everything that is chosen by name is chosen here."""

import logging
from dataclasses import dataclass, field, replace

import torch

import pvr_zoo
from mbrl_pvr import envs
from mbrl_pvr.config import RunConfig, encoder_spec
from mbrl_pvr.doctor import compiler_lacks
from mbrl_pvr.downloads import Bars
from mbrl_pvr.errors import ConfigError, Unavailable
from mbrl_pvr.features import Features
from mbrl_pvr.fits import check_choices, seen_size
from mbrl_pvr.process import keep_freed_memory, set_threads
from mbrl_pvr.replay import row_bytes
from mbrl_pvr.settings import WITHOUT_ENCODER
from pvr_zoo import fast
from pvr_zoo.catalogue import count_flops
from pvr_zoo.fast import Precision
from pvr_zoo.specs import TRAINABLE
from pvr_zoo.trainable import Tail, Trunk, cut, held_shape
from world_models.agent import Agent
from world_models.dreamerv3.agent import DreamerV3
from world_models.dreamerv3.config import DreamerV3Config
from world_models.tdmpc2.agent import TDMPC2
from world_models.tdmpc2.config import TDMPC2Config
from world_models.types import ActionSpec, ObsShapes

COMPILED_FROM = 10_000  # steps from which `compile=auto` compiles on a CPU: it costs half a minute at the start

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnvFacts:
    """What an agent must know of an environment; kept in the manifest so that a run loads without a simulator."""

    action_dim: int
    discrete: bool
    proprio_dim: int
    episode_length: int  # agent steps
    proprio_names: list[str] = field(default_factory=list)  # empty in runs and banks made before names were kept

    @classmethod
    def of(cls, env: envs.VectorEnv) -> "EnvFacts":
        """Read off a running environment."""
        return cls(
            env.action_spec.dim,
            env.action_spec.discrete,
            env.proprio_dim,
            env.max_episode_steps,
            env.call("proprio_names")[0],
        )


def pick_device(config: RunConfig) -> torch.device:
    """`auto` becomes cuda where torch sees one; raises Unavailable where cuda is asked for and is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise Unavailable("device=cuda, but torch sees no CUDA device", hint="Use device=cpu or device=auto")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def pick_compile(config: RunConfig, device: torch.device) -> bool:
    """Whether updates and plans are compiled; `auto`: on a GPU, and of TD-MPC2 where the run is long enough to gain.

    On a CPU DreamerV3 takes minutes to compile and gains nothing at its default size. Never without a compiler, said
    once.
    """
    pays = device.type == "cuda" or (isinstance(config.agent, TDMPC2Config) and config.steps >= COMPILED_FROM)
    return _compiles(config.compile == "on" or (config.compile == "auto" and pays), "updates run")


def pick_encoder_compile(config: RunConfig, device: torch.device) -> bool:
    """Whether a frozen encoder is compiled; `auto`: on a GPU, since on a CPU it hardly pays (benchmarks/README.md)."""
    choice = config.encoder
    if choice.name in WITHOUT_ENCODER or choice.trainable != 0:
        return False
    wanted = choice.compile == "on" or (choice.compile == "auto" and device.type == "cuda")
    return _compiles(wanted, "the encoder runs")


def _compiles(wanted: bool, what: str) -> bool:
    if wanted and (lacking := compiler_lacks()):
        fix = f"Debian: apt-get install {' '.join(lacking)}"
        _log.warning("torch.compile cannot work here (%s): %s eager, which is slower", fix, what)
        return False
    return wanted


def setup_process(threads: int) -> None:
    """Fix this process's threads, and keep freed memory instead of handing it back to the kernel after every update."""
    set_threads(threads)
    keep_freed_memory()


def build_encoder(
    config: RunConfig, device: torch.device, *, precision: str = "", compiled: bool = False
) -> "tuple[pvr_zoo.Encoder | Trunk | None, Tail | None, Precision | None]":
    """What sees each frame once, the part of the encoder that learns with the agent, and what the first computes in.

    The first is None where the agent learns from pixels or is given the state, the second where all is frozen, the
    third where not. `precision` is used in place of the configuration's where it is given.
    """
    choice = config.encoder
    if choice.name in WITHOUT_ENCODER:
        return None, None, None
    with Bars() as bars:
        encoder = pvr_zoo.create(choice.name, weights=choice.weights, progress=bars.show, **choice.request)
    if choice.trainable == 0:
        encoder, chosen = fast.choose(encoder.to(device), precision or choice.precision, config.env.num)
        return fast.compiled(encoder) if compiled else encoder, None, chosen
    trunk, tail = cut(encoder, choice.trainable, rank=choice.lora_rank, seed=config.seed)
    return trunk.to(device), tail, None


def env_config(config: RunConfig, *, pixels: bool = False) -> envs.EnvConfig:
    """The environment as the agent needs it: nothing is rendered where only the state is seen, unless `pixels` asks."""
    only_state = config.encoder.name == "state"
    return replace(config.env, pixels=pixels or not only_state, proprio=config.env.proprio or only_state)


def running_cost(features: Features, facts: EnvFacts, carried: int) -> dict[str, int | None]:
    """Bytes of replay for a step, and FLOPs of a wholly frozen encoder for a frame, None without one."""
    encoder = features.encoder
    return {
        "replay_bytes_per_step": row_bytes(features.shapes, facts.action_dim, carried),
        "encoder_flops_per_frame": count_flops(encoder.spec) if isinstance(encoder, pvr_zoo.Encoder) else None,
    }


def least_frame(config: RunConfig) -> int | None:
    """Height in pixels of the smallest frames that can stand in for the environment's; None where none but its own."""
    if config.encoder.name == "scratch":
        return None
    return max(seen_size(config.encoder), config.agent.drawn or 0)


def planned_shapes(config: RunConfig) -> ObsShapes:
    """What replay will hold at least, known before anything is started; the state's width is not, and counts as 1."""
    held, trainable = None, config.encoder.trainable
    if config.encoder.name not in WITHOUT_ENCODER:
        spec = encoder_spec(config.encoder)
        held = spec.feature_shape if trainable == 0 else held_shape(spec, trainable)
    return _obs_shapes(config, held, 1 if env_config(config).proprio else None)


def _obs_shapes(config: RunConfig, held: tuple[int, ...] | None, proprio: int | None) -> ObsShapes:
    """What the agent gets and replay keeps, `held` being what the encoder gives of a frame; None without one."""
    if config.encoder.name == "scratch":
        return ObsShapes(pixels=(config.env.size, config.env.size, 3), proprio=proprio)
    if config.encoder.trainable in TRAINABLE:  # frames at its input size, of which the agent makes its features
        assert held is not None
        return ObsShapes(pixels=(held[0], held[1], 3), proprio=proprio)
    if (side := config.agent.drawn) is not None:
        return ObsShapes(feature=held, pixels=(side, side, 3), proprio=proprio, drawn_only=True)
    return ObsShapes(feature=held, proprio=proprio)


def refuse_unfit(config: RunConfig, facts: EnvFacts) -> None:
    """ConfigError for what only the simulator knows: choices as actions of an agent that has none, and episodes that
    are never as long as the sequences that the agent learns from.
    """
    agent = config.agent
    if facts.discrete:
        check_choices(config)
    if isinstance(agent, TDMPC2Config) and agent.horizon > facts.episode_length:
        raise ConfigError(
            f"agent.horizon={agent.horizon}, but an episode of {config.env.name} has at most"
            f" {facts.episode_length} agent steps",
            "agent.horizon",
            "Take a shorter horizon, or longer episodes: env.max_steps, env.time_limit, env.action_repeat",
        )


def build_features(
    config: RunConfig, facts: EnvFacts, device: torch.device, *, precision: str = "", compiled: bool = False
) -> Features:
    """The feature provider that fits the environment's frames and the run's encoder."""
    proprio = facts.proprio_dim if env_config(config).proprio else None
    encoder, tail, chosen = build_encoder(config, device, precision=precision, compiled=compiled)
    held = None if encoder is None else encoder.feature_shape
    return Features(_obs_shapes(config, held, proprio), encoder, tail, chosen)


def build_agent(
    config: RunConfig, features: Features, facts: EnvFacts, device: torch.device, *, compiled: bool, precision: str
) -> Agent:
    """The agent of `config.agent`, with weights drawn from the run's seed."""
    settings, action = config.agent, ActionSpec(facts.action_dim, facts.discrete)
    if isinstance(settings, DreamerV3Config):
        return DreamerV3(
            features.shapes,
            action,
            settings,
            seed=config.seed,
            tail=features.tail,
            compile=compiled,
            precision=precision,
            device=device,
        )
    return TDMPC2(
        features.shapes,
        action,
        settings,
        episode_length=facts.episode_length,
        seed=config.seed,
        tail=features.tail,
        compile=compiled,
        precision=precision,
        device=device,
    )
