"""How fast an encoder is here, and what it costs: `mbrl-pvr encoders profile`.

Every row measures the encoder and the bare network beside each other: same frames, same device, the bare network with
its preprocessing done outside, so that `overhead` is what our preprocessing and bookkeeping take.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pvr_zoo.encoder import Encoder, create

ROUNDS = 5


@dataclass(frozen=True)
class Profile:
    """One encoder at one batch size and precision. Speeds are medians over rounds that take turns."""

    name: str
    truncate: int
    dtype: str
    batch: int
    images_per_second: float
    share_of_bare: float  # of the bare network's speed, preprocessing done beforehand
    error: float  # of the feature against float32, relative to its spread
    megabytes: float  # rise of the process's or the device's peak memory over one batch
    gigaflops: float  # of one image
    bytes_in_replay: int  # of one feature, float16


def profile(
    name: str,
    *,
    batches: tuple[int, ...] = (1, 32),
    dtypes: tuple[str, ...] = ("float32", "bfloat16"),
    size: int | None = None,
    device: str = "cpu",
    **request: object,
) -> Iterator[Profile]:
    """Rows for one encoder; `request` goes to `create`. Frames are noise of `size` pixels (default: render_size)."""
    encoder = create(name, **request).to(device)  # type: ignore[arg-type]
    side = size or encoder.spec.render_size
    with torch.inference_mode():
        wanted = encoder(_frames(4, side, device))
    flops = _flops(encoder, side, device)
    for dtype in dtypes:
        used = encoder.cast(getattr(torch, dtype))
        with torch.inference_mode():
            error = float((used(_frames(4, side, device)) - wanted).abs().max() / wanted.std())
        for batch in batches:
            frames = _frames(batch, side, device)
            with torch.inference_mode():
                images = used.images(frames)
                whole, bare = _take_turns(partial(used, frames), partial(used.network, images), device)
            yield Profile(
                encoder.spec.name,
                encoder.spec.truncate,
                dtype,
                batch,
                batch / whole,
                bare / whole,
                error,
                _memory(used, frames, device),
                flops / 1e9,
                2 * int(np.prod(encoder.spec.feature_shape)),
            )


def _frames(batch: int, side: int, device: str) -> Tensor:
    noise = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(noise).to(device)


def _take_turns(first: Callable[[], Tensor], second: Callable[[], Tensor], device: str) -> tuple[float, float]:
    """Median seconds of two calls, measured in turns of about a fifth of a second each, after warming up."""

    def seconds(call: Callable[[], Tensor], repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    repeats = max(1, int(0.2 / max(seconds(first, 2), 1e-5)))
    seconds(second, 2)
    pairs = [(seconds(first, repeats), seconds(second, repeats)) for _ in range(ROUNDS)]
    a, b = zip(*pairs, strict=True)
    return statistics.median(a), statistics.median(b)


def _flops(encoder: Encoder, side: int, device: str) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder(_frames(1, side, device))
    total: int = counter.get_total_flops()
    return total


def _memory(encoder: Encoder, frames: Tensor, device: str) -> float:
    """Megabytes that one batch takes at its peak: on a GPU by torch's count, else by the process's resident memory."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.inference_mode():
            encoder(frames)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(profile_memory=True) as seen, torch.inference_mode():
        encoder(frames)
    held, peak = 0, 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 1e6
