"""Moving pictures behind the scene: procedural clips, or the videos and pictures of a folder (`env.video`).

Files are numbered in the order of their sorted names; every fifth (5th, 10th, ...) is held out from training.
"""

import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mbrl_pvr.envs.factors import FACTORS
from mbrl_pvr.envs.textures import clip
from mbrl_pvr.errors import ConfigError, EnvError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
MIN_FILES = 5  # so that one can be held out
MAX_STEPS = 256  # frames of a video that are used, one an agent step; then it begins again
_SIDE = 128  # pixels that a file is scaled to


def count_clips(folder: str | None) -> int:
    """How many clips there are: the procedural ones, or the files of a folder, which ConfigError says are missing."""
    return FACTORS["video"].stored if folder is None else len(_files(folder))


def frames(folder: str | None, index: int) -> NDArray:
    """Clip or file `index`, (T, side, side, 3) uint8; one frame where it is a picture."""
    return clip(index) if folder is None else _read(_files(folder)[index])


def behind(frame: NDArray, sky: NDArray, picture: NDArray, strength: float) -> NDArray:
    """A frame (H, W, 3) with `picture`, of any size, mixed into its sky (H, W) bool."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(frame.shape[:2], picture.shape[:2], strict=True))
    seen = picture[rows[:, None], columns][sky]  # (pixels of sky, 3)
    out = frame.copy()
    out[sky] = np.round((1 - strength) * frame[sky] + strength * seen).astype(np.uint8)
    return out


def listing(folder: str) -> dict[str, int]:
    """Names of the files that are numbered, and their bytes: what a run's split into training and held-out rests on."""
    return {file.name: file.stat().st_size for file in _files(folder)}


def check_files(folder: str) -> None:
    """Read the first picture of every file; EnvError names one that cannot be read."""
    for file in _files(folder):
        _decoded(file, 1)


def _files(folder: str) -> list[Path]:
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise ConfigError("env.video is no folder", folder, "Give a folder of videos or pictures, or env.video=null.")
    found = sorted(p for p in place.iterdir() if p.suffix.lower() in (*PICTURES, *VIDEOS) and p.is_file())
    if len(found) < MIN_FILES:
        kinds = " ".join((*VIDEOS, *PICTURES))
        hint = f"Put at least {MIN_FILES} there, so that a fifth can be held out: {kinds}"
        raise ConfigError(f"env.video holds {len(found) or 'no'} videos or pictures", folder, hint)
    return found


@lru_cache(maxsize=4)
def _read(path: Path) -> NDArray:
    return _decoded(path, 1 if path.suffix.lower() in PICTURES else MAX_STEPS)


def _decoded(path: Path, steps: int) -> NDArray:
    """The first pictures of a file, (T, side, side, 3) uint8, T at most `steps`."""
    from imageio_ffmpeg import get_ffmpeg_exe

    limit = ["-frames:v", str(steps)]
    chosen = ["-i", f"file:{path}", *limit, "-vf", f"scale={_SIDE}:{_SIDE}"]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = [get_ffmpeg_exe(), "-v", "error", *chosen, *raw]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else "there is no picture in it"
        raise EnvError(
            f"this file cannot be read as a video or picture: {reason}", str(path), "Take it out of env.video."
        )
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, _SIDE, _SIDE, 3)
