"""What goes into an agent, and how time steps are aligned.

The alignment is drawn once, here:

    obs[0] ──action[1]──► reward[1], is_terminal[1], obs[1] ──action[2]──► reward[2], is_terminal[2], obs[2] …

`action[t]` led to `obs[t]`; `reward[t]` and `is_terminal[t]` arrive with `obs[t]`. Where `is_first[t]` is true an
episode begins: `action[t]` and `reward[t]` are zero and mean nothing.

Dimension key: B batch, T time, H planning or imagination horizon, N environments or samples, A action, F feature, P
patches, D proprioception, S stacked frames, L latent, K classes or bins.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class ObsShapes:
    """Shapes of one frame's observation, without batch and stack; None where the agent does not get that part."""

    feature: tuple[int, ...] | None = None  # (F,) or (P, F)
    pixels: tuple[int, int, int] | None = None  # (height, width, 3)
    proprio: int | None = None  # D
    drawn_only: bool = False  # pixels are there to be reconstructed, and the agent does not see them

    def __post_init__(self) -> None:
        if self.feature is None and self.pixels is None and self.proprio is None:
            raise ValueError("an agent needs at least one of feature, pixels, proprio; all three are None")
        if self.drawn_only and (self.pixels is None or (self.feature is None and self.proprio is None)):
            raise ValueError(f"drawn_only wants pixels, and feature or proprio to be seen beside them; got {self}")


class Tail(Protocol):
    """The trainable end of an encoder, a module: what replay holds of N frames, to features with gradients.

    It stays in eval mode. Parameters that require no gradient are the encoder's own and no part of an agent's state.
    """

    feature_shape: tuple[int, ...]

    def __call__(self, held: Tensor) -> Tensor:
        """(N, *held) to (N, *feature_shape)."""
        ...


@dataclass(frozen=True)
class ActionSpec:
    """Actions lie in [-1, 1]^dim; where `discrete`, they are one-hot vectors over `dim` choices."""

    dim: int
    discrete: bool = False


@dataclass(frozen=True)
class SequenceSpec:
    """What an agent wants from replay: `batch` sequences of `length` observations, each of the last `stack` frames.

    Frames before the episode's first are that first frame again. With `within_episode` no sequence crosses a reset.
    `carried` numbers of the agent's recurrent state are kept beside each observation and given back with it.
    """

    batch: int
    length: int
    stack: int = 1
    within_episode: bool = True
    carried: int = 0


@dataclass(frozen=True)
class Obs:
    """Observations with leading shape * = (N,) when acting and (B, T) in a batch.

    feature: (*, S, F) or (*, S, P, F), float16 or float32; pixels: (*, S, height, width, 3), uint8; proprio: (*, D),
    float32, of the newest frame; is_first: (*,), bool. In a stack the newest frame is last.
    """

    is_first: Tensor
    feature: Tensor | None = None
    pixels: Tensor | None = None
    proprio: Tensor | None = None

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Obs":
        """The same observation with `fn` applied to every tensor that is there."""
        return replace(self, **{k: fn(v) for k, v in vars(self).items() if v is not None})

    def __getitem__(self, index: int | slice) -> "Obs":
        """The same observation at some places of the leading dimension."""
        return self.map(lambda x: x[index])

    def to(self, device: torch.device | str) -> "Obs":
        """The same observation on another device."""
        return self.map(lambda x: x.to(device))


@dataclass(frozen=True)
class Batch:
    """Sequences (B, T) from replay, aligned as drawn at the top of this file."""

    obs: Obs
    action: Tensor  # (B, T, A) float32
    reward: Tensor  # (B, T) float32
    is_last: Tensor  # (B, T) bool: the episode ends here, by termination or truncation
    is_terminal: Tensor  # (B, T) bool: the value after this step is zero
    carried: Tensor | None = None  # (B, T + 1, W) float16: the state before the first step, then that after each
    rows: Tensor | None = None  # (B, T) int64: where replay holds these states

    @property
    def is_first(self) -> Tensor:
        """(B, T) bool: an episode begins here."""
        return self.obs.is_first

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if v is not None}
        return replace(self, **moved)
