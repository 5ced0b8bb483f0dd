"""Hyper-parameters of TD-MPC2 (Hansen, Su, Wang 2024, arXiv 2310.16828); the defaults are the official ones."""

from dataclasses import dataclass, fields
from typing import ClassVar


@dataclass(frozen=True)
class Widths:
    """What a model size fixes."""

    latent_dim: int  # L
    mlp_dim: int  # hidden units of dynamics, reward, termination, policy and Q heads
    enc_dim: int  # hidden units of the state encoder
    num_enc_layers: int  # layers of the state encoder, its output layer included
    num_channels: int  # filters of each convolution
    num_q: int  # Q functions in the ensemble


SIZES: dict[int, Widths] = {  # by millions of parameters
    1: Widths(128, 384, 256, 2, 32, 2),
    5: Widths(512, 512, 256, 2, 32, 5),
    19: Widths(768, 1024, 1024, 3, 32, 5),
    48: Widths(768, 1792, 1792, 4, 32, 5),
    317: Widths(1376, 4096, 4096, 5, 32, 8),
}

AT_LEAST_ONE = ("stack", "batch_size", "horizon", "iterations", "num_samples", "num_elites", "patch_dim")
POSITIVE = (
    "lr",
    "enc_lr_scale",
    "tail_lr_scale",
    "grad_clip_norm",
    "temperature",
    "min_std",
    "discount_denom",
    "rho",
    "tau",
)
NOT_NEGATIVE = ("reward_coef", "value_coef", "termination_coef", "consistency_coef", "entropy_coef", "num_pi_trajs")
ORDERED = (("min_std", "max_std"), ("discount_min", "discount_max"), ("num_elites", "num_samples"))
RISING = (("vmin", "vmax"), ("log_std_min", "log_std_max"), ("num_pi_trajs", "num_samples"))


@dataclass(frozen=True)
class TDMPC2Config:
    """The agent's settings; widths left at None are what `size` says (`widths` resolves them)."""

    LENGTH: ClassVar[str] = "horizon"  # the field that says how long sequences are
    carried: ClassVar[int] = 0  # numbers of recurrent state that replay keeps beside each observation
    drawn: ClassVar[None] = None  # it reconstructs no frames
    smallest_pixels: ClassVar[int] = 39  # side of frames that its convolutions leave one number of
    CHOICES: ClassVar[bool] = False  # whether it can act where actions are choices
    BEHAVIOUR: ClassVar[tuple[str, ...]] = (  # what nothing reads without a policy
        *("value_coef", "entropy_coef", "tau", "discount_denom", "discount_min", "discount_max", "dropout"),
        *("log_std_min", "log_std_max", "iterations", "num_samples", "num_elites", "num_pi_trajs"),
        *("min_std", "max_std", "temperature"),
    )

    name: str = "tdmpc2"  # the algorithm

    # architecture
    size: int = 5  # millions of parameters: 1, 5, 19, 48, 317
    latent_dim: int | None = None  # numbers in a latent, z; null: what `size` says
    mlp_dim: int | None = None  # hidden units of every head but the encoder's; null: what `size` says
    enc_dim: int | None = None  # hidden units of the state encoder; null: what `size` says
    num_enc_layers: int | None = None  # layers of the state encoder, its output layer included; null: what `size` says
    num_channels: int | None = None  # filters of each convolution; null: what `size` says
    num_q: int | None = None  # Q functions in the ensemble; null: what `size` says
    simnorm_dim: int = 8  # entries of one simplex
    dropout: float = 0.01  # in the first layer of each Q function

    # observations
    stack: int = 3  # newest frames of a feature or image that enter together
    front_end: str = "linear"  # of features: "linear" (the study: 3F -> latent -> SimNorm) or "mlp" (official encoder)
    patches: str = "flatten"  # of patch features: "flatten", "each" (a linear layer for all alike) or "attention"
    patch_dim: int = 32  # numbers that "each" makes of a patch
    feature_norm: str = "none"  # of features or pixels: "none" (the study), "running" or "layernorm"; feature_norm.py
    augment: str = "shift"  # of pixels: "shift" (up to 3 pixels, as the official code) or "none"
    episodic: bool = False  # the task can terminate: a termination head enters losses and planner

    # training
    policy: bool = True  # learn values and to act; false: encoder, dynamics and reward alone, from a bank (data=)
    batch_size: int = 256  # sequences of an update
    horizon: int = 3  # steps that an update unrolls and a plan looks ahead
    consistency_coef: float = 20.0  # weight of the latent consistency loss
    reward_coef: float = 0.1  # weight of the reward loss
    value_coef: float = 0.1  # weight of the value loss
    termination_coef: float = 1.0  # weight of the termination loss (episodic tasks)
    entropy_coef: float = 1e-4  # weight of the policy prior's entropy
    rho: float = 0.5  # weight of step t is rho^t
    lr: float = 3e-4  # learning rate of Adam
    enc_lr_scale: float = 0.3  # the encoder's share of lr
    tail_lr_scale: float = 0.1  # the share of a pretrained encoder's trainable part
    grad_clip_norm: float = 20.0  # largest norm of a gradient
    tau: float = 0.01  # of target Q functions and of the running scale
    discount_denom: float = 5.0  # discount = (T - 1) / T with T = agent steps of an episode / discount_denom …
    discount_min: float = 0.95  # … but at least this
    discount_max: float = 0.995  # … and at most this

    # two-hot regression in symlog space
    num_bins: int = 101  # classes of reward and value
    vmin: float = -10.0  # the lowest class, in symlog space
    vmax: float = 10.0  # the highest class, in symlog space

    # policy prior
    log_std_min: float = -10.0  # of the policy prior before squashing
    log_std_max: float = 2.0  # of the policy prior before squashing

    # planner (MPPI)
    iterations: int = 6  # two more where actions have 20 dimensions or more
    num_samples: int = 512  # action sequences in an iteration, those of the policy prior included
    num_elites: int = 64  # sequences that the next mean and deviation are made of
    num_pi_trajs: int = 24  # sequences that the policy prior proposes
    min_std: float = 0.05  # least deviation of the sampled actions
    max_std: float = 2.0  # their first and greatest deviation
    temperature: float = 0.5  # of the weights of elites, exp(temperature × (value - best value))

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_ranges()

    def _check_choices(self) -> None:
        choices = {
            "name": ("tdmpc2",),
            "size": (*SIZES,),
            "front_end": ("linear", "mlp"),
            "patches": ("flatten", "each", "attention"),
            "feature_norm": ("none", "running", "layernorm"),
            "augment": ("shift", "none"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field}={getattr(self, field)!r} is not one of {', '.join(map(str, allowed))}")

    def _check_ranges(self) -> None:
        widths = self.widths
        for names, holds, rule in (
            (AT_LEAST_ONE, lambda x: x >= 1, "at least 1"),
            (POSITIVE, lambda x: x > 0, "greater than 0"),
            (NOT_NEGATIVE, lambda x: x >= 0, "at least 0"),
            (("tau",), lambda x: x <= 1, "at most 1"),
            (("dropout", "discount_min"), lambda x: 0 <= x < 1, "in [0, 1)"),
            (("discount_max",), lambda x: x <= 1, "at most 1"),
            (("num_bins",), lambda x: x >= 2, "at least 2 (two-hot regression)"),
            (("simnorm_dim",), lambda x: x >= 2, "at least 2: a group of one is always 1"),
        ):
            for name in names:
                if not holds(getattr(self, name)):
                    raise ValueError(f"{name}={getattr(self, name)!r} must be {rule}")
        for field in fields(widths):
            if getattr(widths, field.name) < 1:
                raise ValueError(f"{field.name}={getattr(widths, field.name)!r} must be at least 1")
        for low, high in ORDERED:
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low}={getattr(self, low)!r} exceeds {high}={getattr(self, high)!r}")
        for low, high in RISING:
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(f"{low}={getattr(self, low)!r} is not below {high}={getattr(self, high)!r}")
        if widths.latent_dim % self.simnorm_dim:
            raise ValueError(f"latent_dim={widths.latent_dim} is not divisible by simnorm_dim={self.simnorm_dim}")
        if widths.num_q < 2:
            raise ValueError(f"num_q={widths.num_q}, but targets and values need 2 Q functions")

    @property
    def widths(self) -> Widths:
        """The widths of `size`, replaced by those given one by one."""
        table = SIZES[self.size]
        given = {f.name: getattr(self, f.name) for f in fields(Widths)}
        return Widths(**{k: getattr(table, k) if v is None else v for k, v in given.items()})

    @property
    def sequence_steps(self) -> int:
        """Observations in a sequence that an update learns from."""
        return self.horizon + 1

    def smallest(self) -> dict[str, int]:
        """Sizes at which everything still happens, for trials."""
        table = {"size": 1, "horizon": 5, "latent_dim": 2 * self.simnorm_dim, "batch_size": 8, "num_q": 2}
        table |= {"mlp_dim": 32, "enc_dim": 32, "num_enc_layers": 2, "num_channels": 8}
        return table | {"num_samples": 16, "num_elites": 4, "num_pi_trajs": 4, "iterations": 2}

    @property
    def bin_size(self) -> float:
        """Distance of two bins in symlog space."""
        return (self.vmax - self.vmin) / (self.num_bins - 1)
