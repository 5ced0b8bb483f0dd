"""A small real run: TD-MPC2 on a frozen convolutional encoder in the counting environment, seconds long."""

from collections.abc import Callable
from pathlib import Path

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
