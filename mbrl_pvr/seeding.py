"""Counter-based randomness: a generator is a function of (seed, stream, counters), so nothing of it has to be saved."""

from zlib import crc32

import numpy as np


def _sequence(seed: int, stream: str, counters: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed, crc32(stream.encode()), *counters))


def rng(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """A fresh generator. Use a stream always with the same number of counters: a trailing 0 counts as none."""
    return np.random.default_rng(_sequence(seed, stream, counters))


def derive(seed: int, stream: str, *counters: int) -> int:
    """A seed below 2^32 for a library that wants an integer; the same rule as for `rng`."""
    return int(_sequence(seed, stream, counters).generate_state(1, np.uint32)[0])
