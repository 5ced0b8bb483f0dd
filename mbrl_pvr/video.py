"""Episodes as H.264 videos that any browser plays."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from imageio_ffmpeg import count_frames_and_secs, get_ffmpeg_exe
from PIL import Image, ImageDraw, ImageFont

from mbrl_pvr.errors import StorageError

GRID_COLUMNS = 4
TITLE = 16  # pixels above every film of a grid
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


def write_grid(path: Path, films: Mapping[str, Path]) -> None:
    """Films by title side by side in one video, at most GRID_COLUMNS in a row, as long as the longest of them."""
    pictures = {title: _read(film) for title, film in films.items()}
    longest, fps = max(len(frames) for frames, _ in pictures.values()), max(fps for _, fps in pictures.values())
    tiles = [_titled(title, frames, longest) for title, (frames, _) in pictures.items()]
    columns = min(len(tiles), GRID_COLUMNS)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=2) for i in range(0, len(tiles), columns)]
    write_video(path, list(np.concatenate(rows, axis=1)), fps)


def _read(path: Path) -> tuple[np.ndarray, float]:
    """Frames (T, MIN_SIDE // 2, MIN_SIDE // 2, 3) uint8 of a film of ours, and how many there are a second."""
    count, seconds = count_frames_and_secs(path)
    side = MIN_SIDE // 2
    form = ["-vf", f"scale={side}:{side}:flags=area", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = [get_ffmpeg_exe(), "-v", "error", "-i", str(path), *form]
    data = subprocess.run(command, capture_output=True, check=True, start_new_session=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, side, side, 3), count / seconds


def _titled(title: str, frames: np.ndarray, length: int) -> np.ndarray:
    """(length, TITLE + side, side, 3): a line of text above, the last frame kept to the end."""
    strip = Image.new("RGB", (frames.shape[2], TITLE))
    font = ImageFont.load_default(TITLE - 5)
    drawn = ImageDraw.Draw(strip)
    while title and drawn.textlength(title, font) > frames.shape[2] - 4:
        title = title[:-1]
    drawn.text((2, 1), title, fill=(255, 255, 255), font=font)
    held = np.concatenate([frames, np.repeat(frames[-1:], length - len(frames), axis=0)])
    return np.concatenate([np.broadcast_to(np.asarray(strip), (length, *np.asarray(strip).shape)), held], axis=1)


def _frames(path: Path) -> int:
    """How many frames a player finds; 0 where it cannot open the file."""
    try:
        return count_frames_and_secs(path)[0]
    except RuntimeError:
        return 0
