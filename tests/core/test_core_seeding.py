"""Randomness and schedules are functions of counters."""

from itertools import pairwise
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbrl_pvr.schedule import Every, Stopwatch
from mbrl_pvr.seeding import derive, rng


def test_rng_is_the_contract():
    wanted = np.random.default_rng(np.random.SeedSequence((3, crc32(b"sample"), 17))).random(4)
    assert rng(3, "sample", 17).random(4).tolist() == wanted.tolist()


def test_streams_seeds_and_counters_are_apart():
    draws = {rng(s, name, k).random() for s in (0, 1) for name in ("env", "act") for k in (0, 1, 2)}
    seeds = {derive(s, name, k) for s in (0, 1) for name in ("env", "act") for k in (0, 1, 2)}
    assert len(draws) == len(seeds) == 12
    assert derive(0, "act") == derive(0, "act") < 2**32


@given(st.integers(1, 50), st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(0, 29))
def test_every_fires_once_per_multiple_wherever_the_run_was_cut(interval, strides, cut):
    steps = np.cumsum([0, *strides]).tolist()
    every = Every(interval)
    fired = [every(a, b) for a, b in pairwise(steps)]
    crossed = [any(n % interval == 0 for n in range(a + 1, b + 1)) for a, b in pairwise(steps)]
    assert fired == crossed
    again = [Every(interval)(a, b) for a, b in list(pairwise(steps))[cut:]]
    assert fired[cut:] == again


def test_every_refuses_nonsense():
    with pytest.raises(ValueError, match="interval=0"):
        Every(0)


def test_stopwatch_adds_up_and_starts_anew():
    clock = Stopwatch()
    for _ in range(2):
        with clock("a"), clock("b"):
            pass
    taken = clock.take()
    assert taken.keys() == {"a", "b"}
    assert taken["a"] >= taken["b"] >= 0
    assert clock.take() == {}
