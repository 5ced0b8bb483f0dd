"""What needs a GPU: `python -m pytest -m gpu`. Nobody has run these yet; on a processor (DEVICE = "cpu") they pass."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pvr_zoo
from mbrl_pvr import trainer

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("agent", ["tdmpc2_tiny", "dreamerv3_tiny"])
def test_a_run_learns_there_and_ends(agent: str, precision: str, make_config: Any, tmp_path: Path) -> None:
    config = make_config(f"device={DEVICE}", f"precision={precision}", agent=agent)
    result = trainer.train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [value for row in rows for key, value in row.items() if key.startswith("train/") and key.endswith("_loss")]
    assert result.steps == config.steps and np.isfinite(result.eval_return)
    assert losses and np.isfinite(losses).all()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["device"].startswith(DEVICE) and manifest["precision"]["name"] == precision


@pytest.mark.parametrize("name", ["embedded", "random_resnet18", "random_vits16"])
def test_features_are_those_of_the_processor(name: str) -> None:
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8))
    encoder = pvr_zoo.create(name)
    here = encoder(frames)
    there = encoder.to(DEVICE)(frames.to(DEVICE)).cpu()
    assert (here - there).norm() < 1e-2 * here.norm()  # convolutions there are in TF32
