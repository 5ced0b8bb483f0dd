"""The dataclasses of a run's configuration: every field is a typed, commented default. See `mbrl_pvr.config`."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.factors import FACTORS, PHYSICAL, names_in, strengths
from mbrl_pvr.envs.names import family
from mbrl_pvr.schema import flatten
from world_models.dreamerv3.config import DreamerV3Config
from world_models.tdmpc2.config import TDMPC2Config

AgentConfig = TDMPC2Config | DreamerV3Config

WITHOUT_ENCODER = ("scratch", "state")  # the agent gets pixels, or the simulator's state, instead of features
_CEILINGS = {  # sizes beyond these are slips of the keyboard
    "steps": 10**10,
    "seed": 2**31 - 1,
    "threads": 4096,
    "replay.capacity": 10**9,
    "eval.episodes": 10**6,
    "encoder.input_size": 4096,
    "agent.stack": 64,
    "agent.batch_size": 2**20,
    "agent.horizon": 1024,
    "agent.latent_dim": 2**16,
    "agent.mlp_dim": 2**16,
    "agent.enc_dim": 2**16,
    "agent.num_enc_layers": 64,
    "agent.num_channels": 2**12,
    "agent.num_q": 100,
    "agent.num_bins": 10_001,
    "agent.num_samples": 2**20,
    "agent.iterations": 1000,
    "agent.batch_length": 2**16,
    "agent.target_size": 1024,
    "agent.imagination": 1024,
    "agent.deter": 2**18,
    "agent.hidden": 2**16,
    "agent.classes": 2**11,  # kept states count them in float16, exact up to there
    "agent.depth": 2**12,
    "agent.units": 2**16,
    "agent.latents": 2**12,
    "agent.bins": 10_001,
    "agent.layers": 64,
    "agent.head_layers": 64,
    "agent.coder_layers": 64,
    "agent.prior_layers": 64,
    "agent.coder_units": 2**16,
    "agent.disagreement_heads": 1000,
}


@dataclass(frozen=True)
class EncoderConfig:
    """Which frozen network sees the frames, and what is taken from it."""

    name: str = "embedded"  # a name of `mbrl-pvr encoders list`, the path of an encoder file, scratch, or state
    truncate: int | tuple[int, ...] | None = None  # stages or blocks kept; several: concatenated; null: all
    feature: str | None = None  # cls, mean, patches, keypoints or output; null: the encoder's own
    norm: Literal["keep", "none"] | None = None  # final norm of the network; null: the encoder's own
    input_size: int | None = None  # pixels the encoder sees; null: its published size
    seed: int | None = None  # of a random encoder's weights; null: its own, 0
    weights: str | None = None  # path of other weights for the same architecture
    trainable: int | Literal["lora", "all"] = 0  # last blocks or stages that learn with the agent; lora; all
    lora_rank: int = 8  # of the additions that learn with trainable=lora
    precision: Literal["float32", "bfloat16", "auto"] = "float32"  # auto: bfloat16 where it pays, by a probe
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile of the frozen encoder; auto: on a GPU

    def __post_init__(self) -> None:
        if self.lora_rank < 1:
            raise ValueError(f"lora_rank={self.lora_rank} must be at least 1")
        if self.input_size is not None and self.input_size < 8:
            raise ValueError(f"input_size={self.input_size} must be at least 8 pixels")

    @property
    def request(self) -> dict[str, Any]:
        """How the encoder is used, as `pvr_zoo.spec` and `pvr_zoo.create` take it."""
        return {key: getattr(self, key) for key in ("truncate", "feature", "norm", "input_size", "seed")}


@dataclass(frozen=True)
class ReplayConfig:
    """What is kept to learn from."""

    capacity: int = 1_000_000  # agent steps; the oldest are dropped beyond it

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"capacity={self.capacity} must be at least 1")


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation episodes in the training distribution, without exploration."""

    every: int = 10_000  # agent steps between evaluations
    episodes: int = 12  # per evaluation
    video: bool = True  # film the first episode of each

    def __post_init__(self) -> None:
        for name in ("every", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run; `TDMPC2Run` and `DreamerV3Run` say what the agent's settings are."""

    seed: int = 1  # of the agent, the environments, replay sampling and random actions
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    threads: int = 0  # of torch; 0: all cores
    steps: int = 100_000  # agent steps to train for, over all environments
    random_steps: int = 1000  # agent steps with uniform actions before learning begins
    updates_per_step: float = 1.0  # gradient steps per agent step
    catch_up: bool = True  # the first step that learns makes up for the updates of the random steps (TD-MPC2's code)
    checkpoint_every: int = 5000  # agent steps
    keep_checkpoints: int = 2  # the newest ones; at least two, since the newest may be damaged
    log_every: int = 500  # agent steps
    compile: Literal["auto", "on", "off"] = "auto"  # of updates; auto: on a GPU, TD-MPC2 also from 10,000 steps
    precision: Literal["float32", "bfloat16", "auto"] = "float32"  # of products in updates and acting; auto: by a probe
    sinks: tuple[str, ...] = ("tensorboard",)  # where curves also go: tensorboard, wandb, trackio, mlflow; [] for none
    debug: bool = False  # shrunk by --debug to under a minute; every code path but compilation is kept
    agent_preset: str = "tdmpc2"  # the preset that `agent=` named; it names the run and is set with it
    data: str | None = None  # a trajectory bank to learn from, whose environment is the run's; null: what it collects
    env: EnvConfig = field(default_factory=EnvConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    agent: AgentConfig = field(default_factory=TDMPC2Config)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        smallest = {"seed": 0, "threads": 0, "random_steps": 0}
        smallest |= {"steps": 1, "checkpoint_every": 1, "keep_checkpoints": 2, "log_every": 1}
        for name, low in smallest.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {low}")
        if not 0 < self.updates_per_step <= 1024:
            raise ValueError(f"updates_per_step={self.updates_per_step} must be above 0 and at most 1024")
        values = dict(flatten(asdict(self)))
        for key, high in _CEILINGS.items():
            if (value := values.get(key)) is not None and value > high:
                raise ValueError(f"{key}={value} must be at most {high}")


@dataclass(frozen=True)
class TDMPC2Run(RunConfig):
    """A run of TD-MPC2."""

    agent: TDMPC2Config = field(default_factory=TDMPC2Config)


@dataclass(frozen=True)
class DreamerV3Run(RunConfig):
    """A run of DreamerV3."""

    updates_per_step: float = 0.25  # 16 sequences of 64 steps each: a train ratio of 256, as published for dm_control
    catch_up: bool = False  # the published code begins to count after them
    agent_preset: str = "dreamerv3"
    agent: DreamerV3Config = field(default_factory=DreamerV3Config)


RUNS: dict[str, type[RunConfig]] = {"tdmpc2": TDMPC2Run, "dreamerv3": DreamerV3Run}  # by the agent's `name`
Rules = tuple[tuple[bool, str, tuple[str, ...]], ...]  # whether it holds, the setting, keys that mean nothing beside it


def inert(config: RunConfig) -> dict[str, str]:
    """Keys that change nothing in this run, each with the setting beside which it means nothing."""
    agent, shifts, trainable = config.agent, config.env.shifts, config.encoder.trainable
    encoder = f"encoder={config.encoder.name}"
    without, state = config.encoder.name in WITHOUT_ENCODER, config.encoder.name == "state"
    factors = names_in(shifts, config.env.factors)
    rebuilt = strengths(shifts, config.env.name, config.env.factors).keys() & set(PHYSICAL)  # more than pictures
    looks = ("env.severity", "env.factors", "env.bands", "env.video")
    front = ("agent.front_end", "agent.patches", "agent.patch_dim")
    fast = ("encoder.precision", "encoder.compile")
    evaluation = ("eval.every", "eval.episodes", "eval.video")
    rules: Rules = (
        (without, encoder, (*front, *fast)),
        (trainable != 0, f"encoder.trainable={trainable}", fast),
        (trainable != "lora", f"encoder.trainable={trainable}", ("encoder.lora_rank",)),
        (agent.patches != "each", f"agent.patches={agent.patches}", ("agent.patch_dim",)),
        (state, encoder, ("env.proprio", "agent.feature_norm")),
        (state and not rebuilt, encoder, looks),
        (state and shifts != "none" and not rebuilt, encoder, ("env.shifts",)),
        (shifts == "none", "env.shifts=none", looks),
        (not any(FACTORS[name].numbers for name in factors), f"env.shifts={shifts}", ("env.bands",)),
        ("video" not in factors, f"env.shifts={shifts}", ("env.video",)),
        (family(config.env.name) != "maniskill", f"env={config.env.name}", ("env.reward",)),
        (config.data is not None, f"data={config.data}", ("random_steps", "catch_up", "env.num")),
        (not agent.policy, "agent.policy=false", evaluation + tuple(f"agent.{key}" for key in agent.BEHAVIOUR)),
    )
    own = _inert_tdmpc2(config, agent) if isinstance(agent, TDMPC2Config) else _inert_dreamerv3(config, agent)
    return {key: setting for holds, setting, keys in (*rules, *own) if holds for key in keys}


def _inert_dreamerv3(config: RunConfig, agent: DreamerV3Config) -> Rules:
    encoder, scratch = f"encoder={config.encoder.name}", config.encoder.name == "scratch"
    target, laprop = f"agent.target={agent.target}", agent.optimizer == "laprop"
    draws = agent.target != "none" if scratch else agent.drawn is not None
    drawn_in_blocks = draws and agent.convolutions == "pooled"
    features = config.encoder.name not in WITHOUT_ENCODER
    only_linear = features and agent.front_end == "linear" and agent.target in ("pixels", "none")
    adam = ("agent.clip", "agent.behaviour_lr", "agent.behaviour_clip")
    return (
        (not scratch and not draws, f"{encoder}, {target}", ("agent.depth", "agent.convolutions")),
        (scratch, encoder, ("agent.target_size",)),
        (not scratch and not draws, target, ("agent.target_size",)),
        (scratch, encoder, ("agent.feature_norm",)),
        (scratch and not config.env.proprio, encoder, ("agent.coder_layers", "agent.coder_units", "agent.symlog")),
        (only_linear and not config.env.proprio, f"{target}, agent.front_end=linear", ("agent.coder_layers",)),
        (agent.target != "none", target, ("agent.barlow",)),
        (agent.target == "none", target, ("agent.reconstruction",)),
        (agent.sequence == "dense" and not drawn_in_blocks, "agent.sequence=dense", ("agent.blocks",)),
        (laprop, "agent.optimizer=laprop", adam),
        (not laprop, "agent.optimizer=adam", ("agent.agc", "agent.warmup")),
        (agent.exploration == 0, "agent.exploration=0", ("agent.exploration_critics", "agent.disagreement_heads")),
    )


def _inert_tdmpc2(config: RunConfig, agent: TDMPC2Config) -> Rules:
    name = config.encoder.name
    encoder, state_encoder = f"encoder={name}", ("agent.enc_dim", "agent.num_enc_layers")
    pixels = config.encoder.trainable in ("lora", "all")  # frames are kept, so that they can be shifted
    linear = name not in WITHOUT_ENCODER and agent.front_end == "linear"
    return (
        (config.encoder.trainable == 0, "encoder.trainable=0", ("agent.tail_lr_scale",)),
        (name != "scratch" and not pixels, encoder, ("agent.augment",)),
        (name != "scratch", encoder, ("agent.num_channels",)),
        (name == "scratch", encoder, state_encoder),
        (name == "state", encoder, ("agent.stack",)),
        (linear, "agent.front_end=linear", state_encoder),
        (not agent.episodic, "agent.episodic=false", ("agent.termination_coef",)),
    )


def shrink(config: RunConfig) -> RunConfig:
    """The same run in under a minute: few steps, short episodes, tiny networks, eager; what is smaller stays."""
    agent, env = config.agent, config.env
    sizes = asdict(agent) | asdict(agent.widths)
    return replace(
        config,
        debug=True,
        threads=config.threads or 1,
        steps=min(config.steps, 200),
        random_steps=min(config.random_steps, 60),
        checkpoint_every=min(config.checkpoint_every, 50),
        log_every=min(config.log_every, 50),
        compile="off",
        encoder=replace(config.encoder, compile="off"),
        agent=replace(agent, **{name: min(sizes[name], high) for name, high in agent.smallest().items()}),
        env=replace(env, max_steps=min(env.max_steps or 20, 20), num=min(env.num, 2)),
        replay=config.replay if config.data else replace(config.replay, capacity=min(config.replay.capacity, 1000)),
        eval=replace(config.eval, every=min(config.eval.every, 100), episodes=1),
    )
