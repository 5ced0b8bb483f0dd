"""Episodes as H.264 videos that any browser plays."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from imageio_ffmpeg import count_frames_and_secs, get_ffmpeg_exe

from mbrl_pvr.errors import StorageError

MIN_SIDE = 256  # smaller frames are enlarged by a whole factor, so that the agent's pixels stay visible as they are


def write_video(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write frames (height, width, 3) uint8 as an MP4 of `fps` pictures a second.

    Raises StorageError where the file does not come out whole: libraries that wrap ffmpeg pass over a full disk.
    """
    height, width, _ = frames[0].shape
    factor = max(1, -(-MIN_SIDE // height))
    shown = "x".join(str(-(-side * factor // 2) * 2) for side in (width, height))  # the codec wants even sides
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    codec = ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p", "-sws_flags", "neighbor", "-s", shown]
    done = subprocess.run(
        [get_ffmpeg_exe(), "-v", "error", "-y", *raw, *codec, str(path)],
        input=b"".join(frame.tobytes() for frame in frames),
        capture_output=True,
        start_new_session=True,  # Ctrl-C is for the run, which stops at the next step
        check=False,
    )
    if done.returncode != 0 or _frames(path) != len(frames):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = said[0].split("] ")[-1] if said else f"ffmpeg ended with status {done.returncode}"
        raise StorageError(f"the video was not written whole: {reason}", str(path), "Make room, or go without video")


def _frames(path: Path) -> int:
    """How many frames a player finds; 0 where it cannot open the file."""
    try:
        return count_frames_and_secs(path)[0]
    except RuntimeError:
        return 0
