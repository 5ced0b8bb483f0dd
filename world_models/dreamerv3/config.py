"""Hyper-parameters of DreamerV3 (Hafner et al. 2025, arXiv 2301.04104v2); the defaults are the published code's.

"2023" below is the code of that year (danijar/dreamerv3, commit 8fa35f8), which the study used; what differs in it is a
choice of its own, and `configs/agent/dreamerv3_study.yaml` makes them all.
"""

from dataclasses import dataclass, fields
from typing import ClassVar


@dataclass(frozen=True)
class Widths:
    """What a model size fixes."""

    deter: int  # D, numbers of the recurrent state
    hidden: int  # units inside the recurrent state-space model
    classes: int  # K, of each latent
    depth: int  # filters of a convolution, times DEPTHS
    units: int  # units of every head
    layers: int = 3  # of actor and critic
    head_layers: int = 1  # of reward and continue heads
    coder_layers: int = 3  # of state encoders and decoders
    coder_units: int = 0  # of these; 0: `units`
    prior_layers: int = 2  # of the prior


SIZES: dict[str, Widths] = {
    "1M": Widths(512, 64, 4, 4, 64),
    "12M": Widths(2048, 256, 16, 16, 256),
    "25M": Widths(3072, 384, 24, 24, 384),
    "50M": Widths(4096, 512, 32, 32, 512),
    "100M": Widths(6144, 768, 48, 48, 768),
    "200M": Widths(8192, 1024, 64, 64, 1024),
    "400M": Widths(12288, 1536, 96, 96, 1536),
    # of 2023; its patterns `.*\.layers` and `.*\.units` leave `mlp_layers` and `mlp_units` of every size alone
    "small": Widths(512, 512, 32, 32, 512, 2, 2, 5, 1024, 1),
    "medium": Widths(1024, 640, 32, 48, 640, 3, 3, 5, 1024, 1),
    "large": Widths(2048, 768, 32, 64, 768, 4, 4, 5, 1024, 1),
    "xlarge": Widths(4096, 1024, 32, 96, 1024, 5, 5, 5, 1024, 1),
}
DEPTHS = (2, 3, 4, 4)  # filters of the four convolutions, in multiples of `depth`

AT_LEAST_ONE = ("latents", "blocks", "batch_size", "batch_length", "imagination", "bins", "patch_dim", "target_size")
POSITIVE = (
    "lr",
    "agc",
    "clip",
    "behaviour_lr",
    "behaviour_clip",
    "slow_rate",
    "return_rate",
    "min_std",
)
NOT_NEGATIVE = (
    "warmup",
    "free_bits",
    "entropy",
    "dynamics",
    "representation",
    "reconstruction",
    "barlow",
    "replay_value",
    "actor_scale",
    "exploration",
)


@dataclass(frozen=True)
class DreamerV3Config:
    """The agent's settings; widths left at None are what `size` says (`widths` resolves them)."""

    LENGTH: ClassVar[str] = "batch_length"  # the field that says how long sequences are
    CHOICES: ClassVar[bool] = True  # whether it can act where actions are choices
    BEHAVIOUR: ClassVar[tuple[str, ...]] = (  # what nothing reads without a policy
        *("imagination", "discount_horizon", "return_lambda", "replay_value", "entropy", "actor_gradient"),
        *("ends", "evaluate", "behaviour_lr", "behaviour_clip", "slow_rate", "return_rate", "min_std", "max_std"),
        *("actor_scale", "layers", "exploration", "exploration_critics", "disagreement_heads"),
    )
    episodic: ClassVar[bool] = True  # its continue head learns where episodes end

    name: str = "dreamerv3"  # the algorithm

    # architecture
    size: str = "12M"  # roughly parameters: 1M, 12M, 25M, 50M, 100M, 200M, 400M; of 2023: small, medium, large, xlarge
    deter: int | None = None  # numbers of the recurrent state; null: what `size` says
    hidden: int | None = None  # units inside the recurrent state-space model; null: what `size` says
    classes: int | None = None  # of each latent; null: what `size` says
    depth: int | None = None  # filters of convolutions, in multiples of 2, 3, 4, 4; null: what `size` says
    units: int | None = None  # units of heads, encoder and decoder; null: what `size` says
    layers: int | None = None  # of actor and critic; null: what `size` says
    head_layers: int | None = None  # of reward and continue heads; null: what `size` says
    coder_layers: int | None = None  # of state encoders and decoders; null: what `size` says
    coder_units: int | None = None  # of state encoders and decoders; null: what `size` says, or `units`
    prior_layers: int | None = None  # of the prior; null: what `size` says
    latents: int = 32  # categorical latents, S
    blocks: int = 8  # blocks of the recurrent state
    unimix: float = 0.01  # share of the uniform distribution in every categorical one
    bins: int = 255  # classes of reward and value, evenly spaced in symlog space from -20 to 20
    two_hot: str = "symexp"  # where classes are weighed: "symexp" (among rewards themselves) or "symlog" (2023)
    sequence: str = "block"  # recurrent unit: "block" (block-diagonal, RMS norm) or "dense" (2023, layer norm)
    initial: str = "zero"  # recurrent state of a new episode: "zero" or "learned" (2023)
    norm: str = "rms"  # of layers: "rms", or "layer" (2023, whose weights are drawn by inputs and outputs)
    convolutions: str = "pooled"  # "pooled" (5×5 and RMS norm) or "strided" (2023: 4×4, layer norm, down to 4×4 pixels)
    actor_scale: float = 0.01  # of the initial weights of the actor's last layer

    # observations
    front_end: str = "linear"  # of features: "linear" (the study: one layer) or "mlp" (the published state encoder)
    patches: str = "flatten"  # of patch features: "flatten", "each" (a linear layer for all alike) or "attention"
    patch_dim: int = 32  # numbers that "each" makes of a patch
    feature_norm: str = "none"  # of features, before all else: "none" (the study), "running" or "layernorm"
    symlog: bool = True  # of features and proprioception, as inputs and as targets
    target: str = "auto"  # what is reconstructed: "feature", "pixels", "none", or "auto" (what the agent is given)
    target_size: int = 64  # side of frames that are reconstructed beside features, averaged from larger ones

    # training
    policy: bool = True  # learn values and to act; false: the world model alone, from a bank (data=)
    batch_size: int = 16  # sequences of an update
    batch_length: int = 64  # steps of a sequence
    imagination: int = 15  # steps that the policy is imagined for, from every replayed state
    discount_horizon: float = 333.0  # discount = 1 - 1 / discount_horizon
    return_lambda: float = 0.95  # of λ-returns
    context: str = "replayed"  # the state that a replayed sequence begins with: "replayed" (kept from before) or "zero"
    free_bits: float = 1.0  # nats of each KL below which it is left alone
    dynamics: float = 1.0  # weight of the KL that moves the prior
    representation: float = 0.1  # weight of the KL that moves the posterior
    reconstruction: float = 1.0  # weight of each reconstruction loss
    barlow: float = 0.05  # weight of the redundancy reduction loss, where target is "none"
    replay_value: float = 0.3  # weight of the value loss on replayed steps
    entropy: float = 3e-4  # weight of the policy's entropy
    actor_gradient: str = "reinforce"  # of continuous actions: "reinforce" or "dynamics" (2023: through imagined steps)
    ends: str = "expected"  # imagined ends of episodes: "expected" (probabilities) or "likeliest" (2023: yes or no)
    evaluate: str = "mode"  # actions without exploration: "mode" (the likeliest) or "sample" (2023)
    optimizer: str = "laprop"  # "laprop" (one for all) or "adam" (2023: one for each network)
    lr: float = 4e-5  # learning rate of LaProp, or of the world model's and the ensemble's Adam
    agc: float = 0.3  # adaptive gradient clipping: largest norm of a gradient, in norms of its tensor
    warmup: int = 1000  # updates over which the learning rate rises
    clip: float = 1000.0  # largest norm of the world model's gradients, with Adam
    behaviour_lr: float = 3e-5  # learning rate of every actor's and critic's Adam
    behaviour_clip: float = 100.0  # largest norm of every actor's, critic's and the ensemble's gradients, with Adam
    slow_rate: float = 0.02  # share of the value head that its slow copy takes on at each update
    return_rate: float = 0.01  # the same of the running percentiles of returns
    min_std: float = 0.1  # least deviation of continuous actions
    max_std: float = 1.0  # their greatest deviation

    # exploration by Plan2Explore
    exploration: float = 0.0  # weight of disagreement, beside 1 of reward, for the actor that collects; 0: one actor
    exploration_critics: str = "separate"  # the collecting actor's: "separate" for reward and disagreement, or "summed"
    disagreement_heads: int = 10  # networks of the ensemble

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_ranges()

    def _check_choices(self) -> None:
        choices = {
            "name": ("dreamerv3",),
            "size": (*SIZES,),
            "front_end": ("linear", "mlp"),
            "patches": ("flatten", "each", "attention"),
            "feature_norm": ("none", "running", "layernorm"),
            "context": ("replayed", "zero"),
            "two_hot": ("symexp", "symlog"),
            "sequence": ("block", "dense"),
            "initial": ("zero", "learned"),
            "norm": ("rms", "layer"),
            "convolutions": ("pooled", "strided"),
            "actor_gradient": ("reinforce", "dynamics"),
            "ends": ("expected", "likeliest"),
            "evaluate": ("mode", "sample"),
            "optimizer": ("laprop", "adam"),
            "exploration_critics": ("separate", "summed"),
            "target": ("auto", "feature", "pixels", "none"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field}={getattr(self, field)!r} is not one of {', '.join(allowed)}")

    def _check_ranges(self) -> None:
        widths = self.widths
        for names, holds, rule in (
            (AT_LEAST_ONE, lambda x: x >= 1, "at least 1"),
            (POSITIVE, lambda x: x > 0, "greater than 0"),
            (NOT_NEGATIVE, lambda x: x >= 0, "at least 0"),
            (("unimix",), lambda x: 0 <= x < 1, "in [0, 1)"),
            (("return_lambda", "slow_rate", "return_rate"), lambda x: 0 <= x <= 1, "in [0, 1]"),
            (("discount_horizon",), lambda x: x > 1, "above 1: the discount is 1 - 1 / discount_horizon"),
            (("batch_length",), lambda x: x >= 2, "at least 2: a step needs one before it"),
            (("disagreement_heads",), lambda x: x >= 2, "at least 2: one alone has nobody to disagree with"),
            (("bins",), lambda x: x >= 3 and x % 2 == 1, "an odd number of at least 3, so that one class is 0"),
        ):
            for name in names:
                if not holds(getattr(self, name)):
                    raise ValueError(f"{name}={getattr(self, name)!r} must be {rule}")
        for name, value in vars(widths).items():
            if value < 1:
                raise ValueError(f"{name}={value!r} must be at least 1")
        if widths.classes < 2:
            raise ValueError(f"classes={widths.classes} must be at least 2")
        if self.sequence == "block" and widths.deter % self.blocks:
            raise ValueError(f"deter={widths.deter} is not divisible by blocks={self.blocks}")
        if self.min_std >= self.max_std:
            raise ValueError(f"min_std={self.min_std} is not below max_std={self.max_std}")

    @property
    def widths(self) -> Widths:
        """The widths of `size`, replaced by those given one by one."""
        table = SIZES[self.size]
        given = {f.name: getattr(self, f.name) for f in fields(Widths)}
        found = {k: getattr(table, k) if v is None else v for k, v in given.items()}
        if self.coder_units is None and table.coder_units == 0:
            found["coder_units"] = found["units"]
        return Widths(**found)

    @property
    def sequence_steps(self) -> int:
        """Observations in a sequence that an update learns from."""
        return self.batch_length

    @property
    def carried(self) -> int:
        """Numbers of recurrent state that replay keeps beside each observation."""
        return self.widths.deter + self.latents if self.context == "replayed" else 0

    @property
    def drawn(self) -> int | None:
        """Side of the frames that an agent on features reconstructs; None where it reconstructs none."""
        return self.target_size if self.target == "pixels" else None

    @property
    def smallest_pixels(self) -> int:
        """Side of the smallest frames that the convolutions of encoder=scratch take."""
        return 2 ** len(DEPTHS) if self.convolutions == "pooled" else 8

    def smallest(self) -> dict[str, int]:
        """Sizes at which everything still happens, for trials."""
        table = {"deter": 4 * self.blocks, "hidden": 16, "classes": 4, "depth": 2, "units": 16, "coder_units": 16}
        return table | {"latents": 4, "disagreement_heads": 2, "batch_size": 4, "batch_length": 8, "imagination": 3}

    @property
    def discount(self) -> float:
        """γ."""
        return 1 - 1 / self.discount_horizon
