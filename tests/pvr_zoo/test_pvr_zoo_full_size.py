"""Every kind of encoder at its full size, one at a time: written in its published layout, loaded, used, truncated.

Minutes and gigabytes: `pytest -m slow tests/pvr_zoo/test_pvr_zoo_full_size.py`. That the numbers are right is shown at
a small size (test_pvr_zoo_published.py); here nothing may depend on the size.
"""

import shutil
from pathlib import Path

import pytest
import torch
from references import published_keys

import pvr_zoo
from pvr_zoo import verify
from pvr_zoo.network import bare
from pvr_zoo.specs import EncoderSpec

ROWS = [pvr_zoo.spec(name) for name in pvr_zoo.list_encoders()]


def kind(row: EncoderSpec) -> str:
    """What decides which network a row has; rows that share it differ in their weights alone."""
    return repr((row.builder, row.architecture, row.options, row.layout, row.features, row.parts))


KINDS = {kind(row): row.name for row in reversed(ROWS) if row.seed is None}


def shapes(row: EncoderSpec) -> dict[str, list[int]]:
    """Names and shapes of the published file, or of our own network where no list of them is at hand."""
    _, files = published_keys(row)
    if not files:
        return {key: list(value.shape) for key, value in bare(row).state_dict().items()}
    if not row.parts:
        return files[0]
    return {f"{part.name}.{k}": v for part, file in zip(row.parts, files, strict=True) for k, v in file.items()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted(KINDS.values()))
def test_a_full_size_file_loads_and_is_used(name: str, tmp_path: Path) -> None:
    row = pvr_zoo.spec(name)
    if row.family == "r2d2":  # drawn weights make no point reliable
        row = row.request(feature="patches")
    state = verify.synthetic(shapes(row))
    frames = verify.frames()[:2]
    try:
        encoder = verify.load(row, state, tmp_path)
        feature = encoder(frames)
        assert feature.shape == (2, *row.feature_shape) and torch.isfinite(feature).all()
        assert (feature[0] - feature[1]).abs().max() > 1e-3 * feature.std()  # it sees the frames
        whole = sum(p.numel() for p in encoder.parameters())
        del encoder
        if row.depth > 1:
            half = verify.load(row.request(truncate=row.depth // 2), state, tmp_path)
            feature = half(frames)
            assert feature.shape == (2, *half.spec.feature_shape) and torch.isfinite(feature).all()
            assert sum(p.numel() for p in half.parameters()) < whole  # what is cut off is not kept
    finally:
        shutil.rmtree(tmp_path)  # gigabytes, which pytest would keep for three sessions
