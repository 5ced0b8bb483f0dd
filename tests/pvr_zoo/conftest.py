"""Every test of the zoo runs offline, with a cache of its own, on one thread."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

REAL_WEIGHTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "weights"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (4, 72, 80, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def real_weights() -> Path:
    if not REAL_WEIGHTS.is_dir():
        pytest.skip(f"no real weights at {REAL_WEIGHTS}")
    return REAL_WEIGHTS
