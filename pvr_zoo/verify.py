"""Whether an encoder computes what its publisher's code computes, by vectors that other code has computed.

`data/golden.json` holds, for each encoder at a small size (`family.small`), the names and shapes of the published file
and three vectors under weights drawn from these names, made by an independent implementation (tests/golden/zoo,
tools/make_golden.py):

- `frames`: the feature of the stored frames, through the published transform as other libraries compute it. A wrong
  value range, channel order, crop or resize kernel shows, and what is finer drowns in how they round pixels.
- `network`: the network alone, on images of pure noise: activation, pooling, number of heads.
- `faint`: the same with weights so small that variances come near the epsilon of the norms, which then shows.

Where the real weights are at hand they are loaded as well, strictly and with their checksum; no vector of other code
is there to compare their features with.
"""

import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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
TOLERANCES = {  # relative
    "frames": 1e-2,  # libraries round a few resized pixels apart; a wrong kernel gives 0.1, wrong colours 1
    "network": 1e-4,  # float32 gives 4e-6 at most; tanh-GELU for GELU 2e-4, QuickGELU 1e-2
    "faint": 1e-4,  # float32 gives 1e-5 at most; another epsilon more than 1e-4, but where docs/limits.md says
}
SAMPLE = 128  # numbers stored of an image's feature at most


@dataclass(frozen=True)
class Verdict:
    """One row of the table.

    `weights`: "synthetic", "real" (the published file), "file" (a user's own) or "none" (no vector is stored).
    `layout`, what the names in the published file are known from: "published list" (read from the file itself),
    "restated from code" (from code that writes or reads it), "loads" (the file at hand fits) or "unverified".
    `ok` is None where there is nothing to compare with: of a plugin's encoder, or one of another library.
    `errors`: of each of TOLERANCES; empty where nothing was compared.
    """

    name: str
    weights: str
    layout: str
    ok: bool | None
    errors: dict[str, float] = field(default_factory=dict)
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


def faint(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """These weights a hundred times smaller and the running variances to match; scales of norms stay."""
    return {key: value if _is_scale(key, value) else value * _shrink(key) for key, value in state.items()}


def _is_scale(key: str, value: Tensor) -> bool:
    counter = key.endswith("num_batches_tracked")
    return counter or (value.ndim < 2 and key.endswith(("weight", "gamma")))


def _shrink(key: str) -> float:
    return 1e-4 if key.endswith("running_var") else 1e-2


def noise(spec: EncoderSpec) -> Tensor:
    """Two images as the network takes them, of numpy's generator: float32 (2, 3, S, S).

    With seed 1 no two of R2D2's points lie so close that rounding decides between them; with 0 and 2 some do.
    """
    shape = (2, 3, spec.input_size, spec.input_size)
    return torch.from_numpy(np.random.default_rng(1).standard_normal(shape, dtype=np.float32))


def sample(features: Tensor) -> Tensor:
    """Evenly spaced numbers of each feature: (N, *shape) to (N, at most SAMPLE)."""
    flat = features.flatten(1)
    return flat[:, torch.linspace(0, flat.shape[1] - 1, min(flat.shape[1], SAMPLE)).round().long()]


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


def verify(pattern: str = "*", file: str | os.PathLike[str] | None = None) -> Iterator[Verdict]:
    """A verdict for every registered encoder that has weights to load; none is left out silently.

    A name of another library, such as timm:NAME, stands for itself. With a weights `file`, `pattern` is the name of the
    encoder that it is for, and the verdict is on that file alone. Raises UnknownEncoder and SpecError for those.
    """
    if file is not None:
        row = spec(pattern)
        row.check_takes_weights()
        yield _loads(row, "file", file)
        return
    golden = json.loads(GOLDEN.read_text())
    for name in [pattern] if ":" in pattern else list_encoders(pattern):
        row = spec(name)
        if row.seed is not None:
            continue  # a control has no weights to load
        yield _synthetic(row, golden)
        if row.sources and all(weights.place(source).is_file() for source in row.sources):
            yield _loads(row, "real")


def _shapes(row: EncoderSpec, golden: Mapping[str, Any]) -> dict[str, list[int]]:
    """Names and shapes of the small published file; those of a fused encoder are its parts'."""
    if not row.parts:
        return dict(golden[row.name]["shapes"])
    return {f"{part.name}.{key}": shape for part in row.parts for key, shape in golden[part.name]["shapes"].items()}


def _layout(row: EncoderSpec, golden: Mapping[str, Any]) -> str:
    """By the first line of the lists in tests/golden/zoo/keys; of a fused encoder, the weakest of its parts'."""
    origins = [golden[part.name]["keys"] for part in row.parts or (row,)]
    if not all(origins):
        return "unverified"
    return "published list" if all(o.startswith("published list") for o in origins) else "restated from code"


def _synthetic(row: EncoderSpec, golden: Mapping[str, Any]) -> Verdict:
    if row.name not in golden:
        return Verdict(row.name, "none", "unverified", ok=None, note="no golden vector is stored")
    stored, layout = golden[row.name], _layout(row, golden)
    state = synthetic(_shapes(row, golden))
    try:
        with tempfile.TemporaryDirectory() as folder:
            encoder = load_small(row, state, Path(folder))
            seen = {"frames": encoder(frames()), "network": sample(encoder.features(noise(encoder.spec)))}
            encoder = load_small(row, faint(state), Path(folder))
            seen["faint"] = sample(encoder.features(noise(encoder.spec)))
    except ZooError as failure:
        return Verdict(row.name, "synthetic", layout, ok=False, note=str(failure))
    errors = {key: relative_error(value.flatten(1), torch.tensor(stored[key])) for key, value in seen.items()}
    ok = all(errors[key] < tolerance for key, tolerance in TOLERANCES.items())
    return Verdict(row.name, "synthetic", layout, ok, errors, stored["source"])


def _loads(row: EncoderSpec, weights: str, file: str | os.PathLike[str] | None = None) -> Verdict:
    """Whether the published file, or this one, loads strictly and its features are finite and tell frames apart."""
    try:
        encoder = create(row.name, weights=file)
    except ZooError as failure:
        return Verdict(row.name, weights, "unverified", ok=False, note=str(failure))
    ours, what = (True, "") if file is None else _whose(row, encoder.identity["weights_sha256"])
    feature = encoder(frames())
    if not torch.isfinite(feature).all():
        return Verdict(row.name, weights, "loads", ok=False, note=f"loads, not finite{what}")
    if (feature[0] - feature[1]).abs().max() <= 1e-3 * feature.std():
        return Verdict(
            row.name, weights, "loads", ok=False, note=f"loads, finite, but gives every frame the same{what}"
        )
    return Verdict(row.name, weights, "loads", ok=ours, note=f"loads, finite, tells frames apart{what}")


def _whose(row: EncoderSpec, sha256: str) -> tuple[bool, str]:
    """Whether a file with that sum may be the row's, and what is known of it."""
    known = [name for name in list_encoders() if sha256 in {source.sha256 for source in spec(name).sources}]
    if row.name in known:
        return True, "; it is the published file"
    if known:
        return False, f"; it is the published file of {', '.join(known)}"
    some = any(source.sha256 for source in row.sources)
    return True, "; it is not the published file" if some else "; the published file's checksum is not known"
