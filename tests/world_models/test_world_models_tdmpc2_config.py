"""The configuration: official defaults, sizes by name, impossible combinations refused with both values."""

import subprocess
import sys
from dataclasses import replace

import pytest

from world_models.tdmpc2 import TDMPC2Config
from world_models.tdmpc2.config import Widths


def test_defaults_are_the_official_five_million():
    config = TDMPC2Config()
    assert config.widths == Widths(512, 512, 256, 2, 32, 5)
    assert config.bin_size == pytest.approx(0.2)


def test_single_widths_win_over_the_size_and_survive_replace():
    config = TDMPC2Config(size=1, latent_dim=256)
    assert (config.widths.latent_dim, config.widths.mlp_dim, config.widths.num_q) == (256, 384, 2)
    assert replace(config, size=19).widths == Widths(256, 1024, 1024, 3, 32, 5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 7}, ("7", "317")),
        ({"front_end": "conv"}, ("conv", "linear", "mlp")),
        ({"augment": "flip"}, ("flip", "shift")),
        ({"latent_dim": 100}, ("100", "8")),
        ({"num_elites": 600}, ("600", "512")),
        ({"num_pi_trajs": 512}, ("512",)),
        ({"vmin": 10.0}, ("vmin", "vmax", "10.0")),
        ({"min_std": 3.0}, ("3.0", "max_std", "2")),
        ({"discount_min": 0.999}, ("0.999", "0.995")),
        ({"num_q": 1}, ("num_q=1", "2")),
        ({"num_bins": 1}, ("num_bins=1",)),
        ({"dropout": 1.0}, ("dropout=1.0",)),
        ({"batch_size": 0}, ("batch_size=0",)),
        ({"lr": 0.0}, ("lr=0.0",)),
        ({"mlp_dim": 0}, ("mlp_dim=0",)),
        ({"tau": 1.5}, ("tau=1.5",)),
        ({"entropy_coef": -1.0}, ("entropy_coef=-1.0",)),
    ],
)
def test_impossible_values_are_named(wrong, said):
    with pytest.raises(ValueError) as error:
        TDMPC2Config(**wrong)
    assert all(word in str(error.value) for word in said), str(error.value)


def test_importing_the_configuration_loads_no_torch():
    code = "import sys, world_models.tdmpc2; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
