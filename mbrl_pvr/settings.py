"""The dataclasses of a run's configuration: every field is a typed, commented default. See `mbrl_pvr.config`."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.schema import flatten
from world_models.tdmpc2.config import TDMPC2Config

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
    """Everything that decides a run."""

    seed: int = 1  # of the agent, the environments, replay sampling and random actions
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    threads: int = 0  # of torch; 0: all cores
    steps: int = 100_000  # agent steps to train for, over all environments
    random_steps: int = 1000  # agent steps with uniform actions before learning begins
    updates_per_step: float = 1.0  # gradient steps per agent step
    checkpoint_every: int = 5000  # agent steps
    keep_checkpoints: int = 2  # the newest ones; at least two, since the newest may be damaged
    log_every: int = 500  # agent steps
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on a GPU, or from 10,000 steps
    sinks: tuple[str, ...] = ("tensorboard",)  # where curves also go: tensorboard, wandb, trackio, mlflow; [] for none
    debug: bool = False  # shrunk by --debug to under a minute; every code path but compilation is kept
    agent_preset: str = "tdmpc2"  # the preset that `agent=` named; it names the run and is set with it
    env: EnvConfig = field(default_factory=EnvConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    agent: TDMPC2Config = field(default_factory=TDMPC2Config)
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
        self._check_replay()
        self._check_random_steps()

    def _check_replay(self) -> None:
        rows, length = self.replay.capacity // self.env.num, self.agent.horizon + 1
        if length > rows:
            raise ValueError(
                f"agent.horizon={self.agent.horizon} needs sequences of {length} steps,"
                f" but replay.capacity={self.replay.capacity} keeps only {rows} of each of {self.env.num} environments"
            )
        if self.agent.batch_size > self.replay.capacity:
            raise ValueError(
                f"agent.batch_size={self.agent.batch_size} is above replay.capacity={self.replay.capacity}"
            )

    def _check_random_steps(self) -> None:
        if self.random_steps <= self.agent.horizon * self.env.num:
            raise ValueError(
                f"random_steps={self.random_steps} must be above agent.horizon={self.agent.horizon} times"
                f" env.num={self.env.num}: learning begins after them, on sequences of {self.agent.horizon + 1} steps"
            )
        if self.random_steps + self.env.num > self.steps:
            raise ValueError(
                f"random_steps={self.random_steps} must be at most steps={self.steps} less env.num={self.env.num}:"
                " learning begins after them"
            )


def inert(config: RunConfig) -> dict[str, str]:
    """Keys that change nothing in this run, each with the setting beside which it means nothing."""
    name, agent, shifts = config.encoder.name, config.agent, config.env.shifts
    encoder, state_encoder = f"encoder={name}", ("agent.enc_dim", "agent.num_enc_layers")
    pixels = config.encoder.trainable in ("lora", "all")  # frames are kept, so that they can be shifted
    fast = ("encoder.precision", "encoder.compile")
    linear = name not in WITHOUT_ENCODER and agent.front_end == "linear"
    rules = (
        (
            name in WITHOUT_ENCODER,
            encoder,
            ("agent.front_end", "agent.feature_norm", "agent.patches", "agent.patch_dim"),
        ),
        (name in WITHOUT_ENCODER, encoder, fast),
        (config.encoder.trainable != 0, f"encoder.trainable={config.encoder.trainable}", fast),
        (config.encoder.trainable == 0, "encoder.trainable=0", ("agent.tail_lr_scale",)),
        (config.encoder.trainable != "lora", f"encoder.trainable={config.encoder.trainable}", ("encoder.lora_rank",)),
        (agent.patches != "each", f"agent.patches={agent.patches}", ("agent.patch_dim",)),
        (name != "scratch" and not pixels, encoder, ("agent.augment",)),
        (name != "scratch", encoder, ("agent.num_channels",)),
        (name == "scratch", encoder, state_encoder),
        (name == "state", encoder, ("agent.stack", "env.proprio", "env.severity", "env.factors")),
        (name == "state" and shifts != "none", encoder, ("env.shifts",)),
        (linear, "agent.front_end=linear", state_encoder),
        (shifts == "none", "env.shifts=none", ("env.severity", "env.factors")),
        (not agent.episodic, "agent.episodic=false", ("agent.termination_coef",)),
    )
    return {key: setting for holds, setting, keys in rules if holds for key in keys}


def shrink(config: RunConfig) -> RunConfig:
    """The same run in under a minute: few steps, short episodes, tiny networks, eager; what is smaller stays."""
    agent, env = config.agent, config.env
    most = {
        "size": 1,
        "horizon": 5,
        "latent_dim": 2 * agent.simnorm_dim,
        "mlp_dim": 32,
        "enc_dim": 32,
        "num_enc_layers": 2,
        "num_channels": 8,
        "num_q": 2,
        "batch_size": 8,
        "num_samples": 16,
        "num_elites": 4,
        "num_pi_trajs": 4,
        "iterations": 2,
    }
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
        agent=replace(agent, **{name: min(sizes[name], high) for name, high in most.items()}),
        env=replace(env, max_steps=min(env.max_steps or 20, 20), num=min(env.num, 2)),
        replay=replace(config.replay, capacity=min(config.replay.capacity, 1000)),
        eval=replace(config.eval, every=min(config.eval.every, 100), episodes=1),
    )
