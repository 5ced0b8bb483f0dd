"""Episodes as H.264 videos that any browser plays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np

MIN_SIDE = 256  # smaller frames are enlarged by a whole factor, so that the agent's pixels stay visible as they are


def write_video(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write frames (height, width, 3) uint8 as an MP4 of `fps` pictures a second."""
    factor = max(1, -(-MIN_SIDE // frames[0].shape[0]))
    block = np.ones((factor, factor, 1), dtype=np.uint8)
    enlarged: list[Any] = [np.kron(frame, block) for frame in frames]
    imageio.mimwrite(path, enlarged, format="FFMPEG", fps=fps, codec="libx264", quality=8, macro_block_size=2)
