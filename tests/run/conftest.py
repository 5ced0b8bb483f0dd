"""A small real run: TD-MPC2 on a frozen convolutional encoder in the counting environment, seconds long."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl_pvr.config import RunConfig, load_config, shrink

Make = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder file with untrained weights; what it computes does not matter here."""
    from pvr_zoo.families.autoencoder import ConvAutoencoder, save_encoder

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "tiny.safetensors"
    return save_encoder(path, ConvAutoencoder(feature_dim=32), {"recipe": "untrained, for tests"})


@pytest.fixture
def make_config(encoder_file: Path) -> Make:
    """The debug version of a run's configuration, with overrides on top of it."""

    def make(
        *overrides: str, env: str = "counting/default", encoder: str | None = None, agent: str = "tdmpc2"
    ) -> RunConfig:
        terminates = [
            f"agent.episodic={str(env.startswith('counting')).lower()}"
        ]  # the counting environment's episodes
        common = [
            f"agent={agent}",
            f"env={env}",
            f"encoder={encoder or encoder_file}",
            "threads=1",
            "sinks=[]",
            "eval.video=false",
            "random_steps=60",
            *(terminates if agent.startswith("tdmpc2") else []),
        ]
        return shrink(load_config([*common, *overrides]))

    return make


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what may differ between equal runs."""
    return {k: v for k, v in row.items() if not k.startswith("time/")}


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, Any]]:
    """What two runs share that differ only in when they saved: logs, weights, replay rows, counters."""
    return _content


def _content(path: Path) -> dict[str, Any]:
    from mbrl_pvr import checkpoint
    from mbrl_pvr.tensorfile import load

    saved = checkpoint.latest(path)
    assert saved is not None and saved.replay is not None
    pieces = [load(path / entry["file"]) for entry in saved.replay["segments"]]
    replay = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    tensors = {**saved.tensors("agent"), **saved.tensors("carry")}
    return {
        "step": saved.step,
        "meta": saved.meta,
        "agent": {name: value.numpy().tobytes() for name, value in tensors.items()},
        "replay": {name: value.numpy().tobytes() for name, value in replay.items()},
        **{
            name: [untimed(json.loads(line)) for line in (path / name).read_text().splitlines()]
            for name in ("metrics.jsonl", "episodes.jsonl")
        },
    }
