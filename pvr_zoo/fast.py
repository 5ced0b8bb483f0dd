"""How a frozen encoder runs fast here: bfloat16 where a probe finds that it pays, and compilation.

Runs, `embed` and `encoders profile` all take this road. What was tried and left out: benchmarks/README.md.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pvr_zoo.encoder import Encoder
from pvr_zoo.families import calibration

PRECISIONS = ("float32", "bfloat16", "auto")
PAYS = 1.2  # times as fast as float32, from which "auto" takes bfloat16
TOLERATED = 0.1  # error up to which it does: a network that picks maxima, such as R2D2, picks others
HOPELESS = 0.2  # times as fast: without instructions for bfloat16 it may be a hundredth, and two calls must do
_CALLS = 3  # of each
_FRAMES = 4  # most that the probe gives at once


@dataclass(frozen=True)
class Precision:
    """What an encoder computes in, and what that does to its features."""

    name: str  # float32 or bfloat16
    error: float = 0.0  # from float32's features, root mean square over their standard deviation; of stored frames
    speedup: float | None = None  # of bfloat16 over float32 here; None where it was not measured

    def __str__(self) -> str:
        measured = "" if self.speedup is None else f" (bfloat16 is {self.speedup:.2g} times as fast here)"
        differs = (
            f", features differ from float32's by {self.error:.2%} of their spread" if self.name != "float32" else ""
        )
        return f"{self.name}{measured}{differs}"


def choose(encoder: Encoder, precision: str, batch: int = 1) -> tuple[Encoder, Precision]:
    """The encoder in that precision; "auto" probes with `batch` frames for whether bfloat16 pays and is near enough.

    Where it becomes bfloat16 the encoder given is left as it is, and its weights are not shared.
    """
    assert precision in PRECISIONS, precision
    if precision == "float32":
        return encoder, Precision("float32")
    half = encoder.cast(torch.bfloat16)
    if precision == "bfloat16":
        return half, Precision("bfloat16", error(half, encoder))
    speedup = _speedup(encoder, half, min(batch, _FRAMES))
    if speedup >= PAYS and (differs := error(half, encoder)) <= TOLERATED:
        return half, Precision("bfloat16", differs, speedup)
    return encoder, Precision("float32", speedup=speedup)


def compiled(encoder: Encoder) -> Encoder:
    """The same encoder with its network compiled at the first call of each batch size; on a GPU with CUDA graphs.

    There a result lies in memory that the next call overwrites. On a CPU this gains about 5 %: benchmarks/README.md.
    """
    mode = "reduce-overhead" if encoder.device.type == "cuda" else "default"
    encoder.network.compile(dynamic=False, mode=mode)
    return encoder


@torch.inference_mode()
def error(used: Encoder, exact: Encoder) -> float:
    """Root mean square difference of the features of the stored frames, over the exact ones' standard deviation."""
    frames = _frames(exact)
    wanted = exact(frames)
    return float((used(frames) - wanted).square().mean().sqrt() / wanted.std())


def _frames(encoder: Encoder) -> Tensor:
    """Scenes like a simulator's, (4, 64, 64, 3); the transform enlarges them."""
    return torch.from_numpy(calibration.load()).to(encoder.device)


@torch.inference_mode()
def _speedup(exact: Encoder, half: Encoder, batch: int) -> float:
    """How many times as fast the network of `half` is; after a look with one frame where that is hopeless."""
    first = _ratio(exact, half, 1, calls=1)
    return first if first < HOPELESS else _ratio(exact, half, batch, _CALLS)


def _ratio(exact: Encoder, half: Encoder, batch: int, calls: int) -> float:
    """`ratio` of the two networks."""
    one, other = (partial(used.network, used.images(_frames(used)[:batch])) for used in (exact, half))
    return ratio((one, other), calls)


def ratio(pair: tuple[Callable[[], object], Callable[[], object]], calls: int) -> float:
    """Seconds of the one call over those of the other, the fastest of `calls` that take turns."""
    for call in pair:
        _seconds(call)  # the first call prepares
    rounds = [[_seconds(call) for call in pair] for _ in range(calls)]
    one, other = (min(times) for times in zip(*rounds, strict=True))
    return one / other


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_initialized():  # it returns before the device is done
        torch.cuda.synchronize()
    return time.perf_counter() - start
