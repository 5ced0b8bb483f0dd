"""Generators that are functions of a seed, a stream's name and counters, so that resume needs no generator state."""

import zlib

import numpy as np
import torch
from torch import Generator


def generator(device: torch.device, seed: int, stream: str, *counters: int) -> Generator:
    """A generator that is a function of its arguments alone."""
    words = np.random.SeedSequence((seed, zlib.crc32(stream.encode()), *counters)).generate_state(1, np.uint64)
    return Generator(device).manual_seed(int(words[0]) >> 1)
