"""Whether an encoder computes what its publisher's code computes, by vectors that other code has computed.

`data/golden.json` holds, for each encoder at a small size (`family.small`), the names and shapes of the published file
and the feature of the stored frames under weights drawn from these names. The vectors were made by an independent
implementation (tests/golden/zoo, tools/make_golden.py), so that a wrong value range, channel order, resize kernel,
pooling, activation, norm epsilon or number of heads cannot go unseen. Where the real weights are at hand they are
loaded as well, strictly and with their checksum.
"""

import json
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pvr_zoo import weights
from pvr_zoo.encoder import Encoder, create, open_files
from pvr_zoo.errors import ZooError
from pvr_zoo.families import calibration
from pvr_zoo.network import family
from pvr_zoo.registry import list_encoders, spec
from pvr_zoo.specs import EncoderSpec, Layout

GOLDEN = Path(__file__).parent / "data" / "golden.json"
TOLERANCE = 1e-2  # relative: libraries round a few resized pixels apart; a wrong kernel gives 0.1, wrong colours 1


@dataclass(frozen=True)
class Verdict:
    """One row of the table. `weights`: "real" or "synthetic"; `layout`: "verified" or "unverified".

    `ok` is None where there is nothing to compare with: of a plugin's encoder, or one of another library.
    """

    name: str
    weights: str
    layout: str
    ok: bool | None
    error: float | None  # relative, of the feature
    note: str = ""


def small(row: EncoderSpec) -> EncoderSpec:
    """The same builder, layout and transform at depth 2 (or one block a stage), small width and small input."""
    shrunk: EncoderSpec = family(row).small(row)  # type: ignore[attr-defined]
    return shrunk


def synthetic(shapes: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
    """Weights as training might leave them, each drawn from a generator keyed by its name."""
    return {key: _draw(key, tuple(shape)) for key, shape in shapes.items()}


def _draw(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        noise = np.exp(0.3 * noise)
    elif len(shape) < 2:
        noise = 0.2 * noise + (1 if key.endswith(("weight", "gamma")) else 0)
    elif key.endswith("weight"):
        noise = noise / np.prod(shape[1:]) ** 0.5
    else:
        noise = 0.5 * noise
    return torch.from_numpy(np.asarray(noise, dtype=np.float32))


def published(state: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """The tensors under their published names, wrapped as the publisher's file wraps them."""
    return {layout.top[0]: dict(state)} if layout.top else dict(state)


def load_small(row: EncoderSpec, state: Mapping[str, Any], folder: Path) -> Encoder:
    """The small encoder, through files in the published layout and the road that real files take."""
    return load(small(row), state, folder)


def load(spec: EncoderSpec, state: Mapping[str, Any], folder: Path) -> Encoder:
    """A small encoder used as `spec` says; where it has parts, their names stand in front of the keys."""
    files = []
    for part in spec.parts or (spec,):
        prefix = f"{part.name}." if spec.parts else ""
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        path = folder / f"{part.name.replace('/', '_')}.pth"
        torch.save(published(own, part.layout), path)
        files.append((path, "file", ""))
    return open_files(spec, files)


def frames() -> Tensor:
    """The stored frames, uint8 (4, 64, 64, 3)."""
    return torch.from_numpy(calibration.load())


def relative_error(feature: Tensor, wanted: Tensor) -> float:
    """Largest difference over the spread of the wanted values."""
    return float((feature - wanted).abs().max() / wanted.std())


def verify(pattern: str = "*") -> Iterator[Verdict]:
    """A verdict for every registered encoder that has weights to load; none is left out silently.

    A name of another library, such as timm:NAME, stands for itself. Raises UnknownEncoder and SpecError for those.
    """
    golden = json.loads(GOLDEN.read_text())
    for name in [pattern] if ":" in pattern else list_encoders(pattern):
        row = spec(name)
        if row.seed is not None:
            continue  # a control has no weights to load
        yield _synthetic(row, golden)
        if row.sources and all(weights.place(source).is_file() for source in row.sources):
            yield _real(row)


def _shapes(row: EncoderSpec, golden: Mapping[str, Any]) -> dict[str, list[int]]:
    """Names and shapes of the small published file; those of a fused encoder are its parts'."""
    if not row.parts:
        return dict(golden[row.name]["shapes"])
    return {f"{part.name}.{key}": shape for part in row.parts for key, shape in golden[part.name]["shapes"].items()}


def _synthetic(row: EncoderSpec, golden: Mapping[str, Any]) -> Verdict:
    if row.name not in golden:
        return Verdict(row.name, "synthetic", "unverified", ok=None, error=None, note="no golden vector is stored")
    stored = golden[row.name]
    layout = "verified" if stored["source"] else "unverified"
    try:
        with tempfile.TemporaryDirectory() as folder:
            encoder = load_small(row, synthetic(_shapes(row, golden)), Path(folder))
        error = relative_error(encoder(frames()), torch.tensor(stored["feature"]))
    except ZooError as failure:
        return Verdict(row.name, "synthetic", layout, ok=False, error=None, note=str(failure))
    return Verdict(row.name, "synthetic", layout, ok=error < TOLERANCE, error=error, note=stored["source"])


def _real(row: EncoderSpec) -> Verdict:
    try:
        feature = create(row.name)(frames())
    except ZooError as failure:
        return Verdict(row.name, "real", "unverified", ok=False, error=None, note=str(failure))
    finite = bool(torch.isfinite(feature).all())
    return Verdict(row.name, "real", "verified", ok=finite, error=None, note="" if finite else "not finite")
