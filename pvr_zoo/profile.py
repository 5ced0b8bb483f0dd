"""How fast an encoder is here, and what it costs: `mbrl-pvr encoders profile`.

Every row measures the encoder and the bare network beside each other: same frames, same device, the bare network with
its preprocessing done outside, so that `share_of_bare` says what our preprocessing and bookkeeping leave.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pvr_zoo import fast
from pvr_zoo.encoder import Encoder, create

ROUNDS = 5
SPAN = 0.1  # seconds of a turn


@dataclass(frozen=True)
class Profile:
    """One encoder at one batch size and precision. Speeds are medians over rounds that take turns."""

    name: str
    truncate: int
    dtype: str
    compiled: bool
    batch: int
    images_per_second: float
    share_of_bare: float  # of the bare network's speed, preprocessing done beforehand
    error: float  # of the feature against float32: `fast.error`
    megabytes: float  # at the peak of one batch, beside the weights
    weights_megabytes: float
    gigaflops: float  # of one image
    bytes_in_replay: int  # of one feature, float16


def profile(
    name: str,
    *,
    batches: Sequence[int] = (1, 32),
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    compiled: bool = False,
    size: int | None = None,
    device: str = "cpu",
    **request: object,
) -> Iterator[Profile]:
    """Rows for one encoder; `request` goes to `create`. Frames are noise of `size` pixels (default: render_size)."""
    exact = create(name, **request).to(device)  # type: ignore[arg-type]
    side = size or exact.spec.render_size
    flops = _flops(exact, side)
    for dtype in dtypes:
        used, precision = fast.choose(exact, dtype)
        if compiled:
            used = fast.compiled(used)
        for batch in batches:
            frames = _frames(batch, side, used)
            with torch.inference_mode():
                images = used.images(frames)
                whole, share = against(partial(used, frames), partial(used.network, images))
            yield Profile(
                exact.spec.name,
                exact.spec.truncate,
                precision.name,
                compiled,
                batch,
                batch / whole,
                share,
                precision.error,
                _memory(used, frames),
                sum(weight.nbytes for weight in used.network.state_dict().values()) / 1e6,
                flops / 1e9,
                2 * int(np.prod(exact.spec.feature_shape)),
            )


def _frames(batch: int, side: int, encoder: Encoder) -> Tensor:
    noise = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(noise).to(encoder.device)


def against(call: Callable[[], Tensor], bare: Callable[[], Tensor]) -> tuple[float, float]:
    """Seconds of a call, and the share of another's speed that it reaches: medians over rounds of a turn each.

    The share is taken within each round, so that what slows down the machine meanwhile slows down both.
    """

    def seconds(which: Callable[[], Tensor], repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            result = which()
        if result.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    for which in (call, bare):
        seconds(which, 1)  # prepares
    repeats = max(1, int(SPAN / max(seconds(call, 1), 1e-5)))
    rounds = [(seconds(call, repeats), seconds(bare, repeats)) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in rounds), statistics.median(b / a for a, b in rounds)


def _flops(encoder: Encoder, side: int) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder(_frames(1, side, encoder))
    total: int = counter.get_total_flops()
    return total


def _memory(encoder: Encoder, frames: Tensor) -> float:
    """Megabytes that one batch takes at its peak, by torch's own count."""
    if frames.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.inference_mode():
            encoder(frames)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler prints two lines for every use
    with torch.profiler.profile(profile_memory=True) as seen, torch.inference_mode():
        encoder(frames)
    held, peak = 0, 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 1e6
