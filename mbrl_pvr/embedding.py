"""Features of a user's own pictures or of a video's frames, for any analysis outside reinforcement learning.

The file is an .npz of `features` (N, *feature shape), `names` of the pictures relative to their folder or `times` of
the frames in seconds, and `identity`, the encoder's as JSON. Pictures are read one by one and each goes through the
encoder's own transform, so they may differ in size; of the features no more than a batch is in memory.
"""

import json
import re
import struct
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mbrl_pvr import storage
from mbrl_pvr.errors import ConfigError, IntegrityError, StorageError, Unavailable

if TYPE_CHECKING:
    import torch

    import pvr_zoo

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".gif")
DTYPES = ("float32", "float16")
FEATURES = "features.npy"  # the entry in the file
LONGEST = 200  # times the short side; resizing a thinner picture would ask for gigabytes
_FRAME = re.compile(rb"pts_time:\s*(\S+) .* s:(\d+)x(\d+) ")  # what ffmpeg's showinfo says of a frame
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error)  # what Pillow raises on bad files

Progress = Callable[[int, int], None]  # how many are done, and of how many


@dataclass(frozen=True)
class Embedding:
    """Features with what they are features of. `names` are those of pictures, `times` (N,) those of frames, or None."""

    features: np.ndarray  # (N, *feature shape) float32 or float16
    identity: dict[str, Any]
    names: list[str] | None
    times: np.ndarray | None


@dataclass(frozen=True)
class Source:
    """Pictures (height, width, 3) uint8, each with its name or its time; `total` is how many there should be."""

    items: Iterable[tuple[str | float, np.ndarray]]
    total: int
    of_video: bool


def find(path: Path) -> Source:
    """The pictures of a folder and of those below it, in order of their names, or a video's frames; ConfigError."""
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.suffix.lower() in PICTURES and file.is_file())
        files = sorted(file for file in inside if not file.name.startswith("."))
        if not files:
            raise ConfigError("there are no pictures in this folder", str(path), f"Endings: {' '.join(PICTURES)}")
        return Source(((file.relative_to(path).as_posix(), read_picture(file)) for file in files), len(files), False)
    if not path.is_file():
        raise ConfigError("there is no such folder or file", str(path))
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        return Source(((file.name, read_picture(file)) for file in [path]), 1, False)
    if suffix not in VIDEOS:
        endings = " ".join((*PICTURES, *VIDEOS))
        raise ConfigError(
            f"{suffix or 'no ending'} is not that of a picture or a video", str(path), f"Known: {endings}"
        )
    return Source(read_frames(path), _count(path), True)


def read_picture(path: Path) -> np.ndarray:
    """(height, width, 3) uint8, turned as the camera says; IntegrityError where it cannot be read as 8-bit colours."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise IntegrityError("this picture has more than 8 bits a colour", str(path), "Convert it to 8 bits")
            count = getattr(image, "n_frames", 1)
            if count > 1 and image.format != "MPO":  # phones put previews behind a picture
                raise IntegrityError(f"this file holds {count} pictures", str(path), "Store each on its own")
            picture = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise IntegrityError(f"this picture cannot be read: {error}", str(path)) from error
    return _proportionate(picture, path)


def _proportionate(picture: np.ndarray, path: Path) -> np.ndarray:
    height, width, _ = picture.shape
    if max(height, width) > LONGEST * min(height, width):
        raise IntegrityError(f"this picture of {width}×{height} pixels is too thin to be resized", str(path))
    return picture


def read_frames(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Every stored frame, upright, with its time in seconds; IntegrityError where there is none or one is cut off."""
    from imageio_ffmpeg import get_ffmpeg_exe

    asked = ["-v", "level+info", "-hide_banner", "-nostats", "-nostdin", "-protocol_whitelist", "file"]
    wanted = ["-map", "0:v:0", "-fps_mode", "passthrough", "-vf", "showinfo=checksum=0"]
    command = [
        get_ffmpeg_exe(),
        *asked,
        "-i",
        str(path.absolute()),
        *wanted,
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    facts: SimpleQueue[tuple[float, int, int] | None] = SimpleQueue()
    complaints: list[str] = []
    listener = threading.Thread(target=_listen, args=(process.stderr, facts, complaints), daemon=True)
    listener.start()
    count = 0
    try:
        while fact := facts.get():
            time, width, height = fact
            picture = np.empty((height, width, 3), np.uint8)
            if process.stdout.readinto(picture.data.cast("B")) < picture.nbytes:  # type: ignore[attr-defined]
                raise IntegrityError(f"the video ends within frame {count}", str(path))
            yield time, _proportionate(picture, path)
            count += 1
        if process.wait() != 0 or count == 0:
            reason = complaints[0] if complaints else "it holds no frame"
            raise IntegrityError(f"this video cannot be read: {reason}", str(path))
    finally:
        process.kill()
        process.wait()
        listener.join()
        process.stdout.close()
        process.stderr.close()


def _listen(lines: IO[bytes], facts: "SimpleQueue[tuple[float, int, int] | None]", complaints: list[str]) -> None:
    """Sort what ffmpeg says into facts about frames, None at the end, and complaints."""
    for line in lines:
        if match := _FRAME.search(line):
            stamp = match[1].decode()
            facts.put((float("nan") if stamp == "NOPTS" else float(stamp), int(match[2]), int(match[3])))
        elif b"[error]" in line or b"[fatal]" in line:
            complaints.append(line.decode(errors="replace").split("] ")[-1].strip())
    facts.put(None)


def _count(path: Path) -> int:
    """How many frames the container announces, for the progress; 0 where it cannot be opened."""
    from imageio_ffmpeg import count_frames_and_secs

    try:
        return int(count_frames_and_secs(str(path.absolute()))[0])
    except RuntimeError:
        return 0


def create(
    name: str | Path, asked: dict[str, Any], *, weights: str | Path | None, licence: str | None, device: str
) -> "pvr_zoo.Encoder":
    """The encoder, used as `asked`, on `device`: auto, cpu, cuda or cuda:N.

    Raises as `pvr_zoo.create` does, SpecError where it is not of the `licence` wanted, and Unavailable.
    """
    import pvr_zoo
    from pvr_zoo import catalogue

    catalogue.require_licence(pvr_zoo.spec(name, **asked), licence)  # mistakes are told before torch is imported
    import torch

    found = torch.cuda.is_available()
    if device != "auto" and not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError(f"device={device!r} is not one of auto, cpu, cuda, cuda:N")
    if device.startswith("cuda") and (not found or int(device[5:] or 0) >= torch.cuda.device_count()):
        raise Unavailable(f"device={device}, but torch sees {torch.cuda.device_count()} CUDA devices")
    from mbrl_pvr.downloads import Bars

    with Bars() as bars:
        encoder = pvr_zoo.create(name, weights=weights, progress=bars.show, **asked)
    return encoder.to(("cuda" if found else "cpu") if device == "auto" else device)


def embed(
    source: Source, encoder: "pvr_zoo.Encoder", out: Path | None, *, batch_size: int, dtype: str, progress: Progress
) -> Embedding:
    """Features of every picture: in memory, or written to `out`, whole or not at all.

    They gather in a file without a name beside `out`, so the disk needs twice their size. Raises IntegrityError for an
    unreadable picture and for a feature that `dtype` cannot hold, and StorageError.
    """
    keys: list[str | float] = []
    rows = _rows(source, encoder, keys, batch_size, dtype, progress)
    if out is None:
        features = np.concatenate(list(rows))
        return Embedding(features, encoder.identity, **_about(source, keys))
    shape = encoder.spec.feature_shape
    storage.make_folders(out.parent)
    needed = 2 * source.total * int(np.prod(shape)) * np.dtype(dtype).itemsize
    storage.require_space(out, needed, "writing the features")
    with _unnamed(out.parent) as spill:
        for features in rows:
            storage.write_all(spill.fileno(), features.data.cast("B"), out, features.nbytes)
        about = {key: np.array(value) for key, value in _about(source, keys).items() if value is not None}
        about["identity"] = np.array(json.dumps(encoder.identity))
        _write(out, about, spill, (len(keys), *shape), dtype)
    return load(out)


def _about(source: Source, keys: list[str | float]) -> dict[str, Any]:
    if source.of_video:
        return {"names": None, "times": np.array(keys, np.float64)}
    return {"names": [str(key) for key in keys], "times": None}


def _rows(
    source: Source, encoder: "pvr_zoo.Encoder", keys: list[str | float], size: int, dtype: str, progress: Progress
) -> Iterator[np.ndarray]:
    """Features batch by batch; what they are of is added to `keys`."""
    for batch, inputs in _batches(source.items, encoder, size):
        yield _features(encoder, inputs, batch, dtype)
        keys += batch
        progress(len(keys), max(source.total, len(keys)))


def _batches(
    items: Iterable[tuple[str | float, np.ndarray]], encoder: "pvr_zoo.Encoder", size: int
) -> Iterator[tuple[list[str | float], "torch.Tensor"]]:
    """Names or times, and the network's inputs (N, 3, S, S): of the pictures themselves one at a time is held."""
    import torch

    from pvr_zoo import FrameError

    def images(key: str | float, picture: np.ndarray) -> torch.Tensor:
        try:
            return encoder.images(torch.from_numpy(picture)[None].to(encoder.device))
        except FrameError as error:
            raise FrameError(error.what, str(key), error.hint) from error

    inputs = ((key, images(key, picture)) for key, picture in items)
    while batch := list(islice(inputs, size)):
        yield [key for key, _ in batch], torch.cat([pixels for _, pixels in batch])


def _features(encoder: "pvr_zoo.Encoder", inputs: "torch.Tensor", keys: list[str | float], dtype: str) -> np.ndarray:
    import torch

    try:
        with torch.inference_mode():
            features = encoder.features(inputs).cpu().numpy()
    except torch.OutOfMemoryError as error:
        what = f"the device has no memory for {len(inputs)} pictures at once"
        raise Unavailable(what, hint="Take a smaller batch size") from error
    with np.errstate(over="ignore"):  # told below
        features = features.astype(dtype, copy=False)
    if not np.isfinite(features).all():
        finite = np.isfinite(features).reshape(len(features), -1).all(1)
        raise IntegrityError(f"the feature has values that {dtype} cannot hold", str(keys[int(np.argmin(finite))]))
    return np.ascontiguousarray(features)


# -------------------------------------------------------------------------------------------------------- the file


def _unnamed(folder: Path) -> IO[bytes]:
    """A file that is gone when it is closed, also by a kill."""
    try:
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError as error:
        raise StorageError(f"no file can be written here: {error.strerror}", str(folder)) from error


def _write(out: Path, about: dict[str, np.ndarray], spill: IO[bytes], shape: tuple[int, ...], dtype: str) -> None:
    """The .npz, with the features from `spill`, uncompressed."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    try:
        with (
            storage.replace_atomic(out) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        ):
            for key, value in about.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, value, allow_pickle=False)
            with archive.open(FEATURES, "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(entry, header)
                spill.seek(0)
                while block := spill.read(1 << 20):
                    entry.write(block)
    except OSError as error:
        raise StorageError(f"the file was not written: {error.strerror}", str(out)) from error


def load(path: str | Path) -> Embedding:
    """What `embed` wrote; the features stay on disk until they are looked at."""
    with np.load(path, allow_pickle=False) as held:
        names = held["names"].tolist() if "names" in held else None
        times = held.get("times")
        identity = json.loads(str(held["identity"]))
    return Embedding(_mapped(Path(path)), identity, names, times)


def _mapped(path: Path) -> np.ndarray:
    """The features of the .npz, which stores them as they are, mapped into memory."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        file.seek(archive.getinfo(FEATURES).header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
        file.seek(name + extra, 1)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return np.memmap(path, dtype, "r", file.tell(), shape)
