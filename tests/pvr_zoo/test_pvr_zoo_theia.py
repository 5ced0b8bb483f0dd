"""Theia: the traps of its layout and of its value range."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from references import reference

import pvr_zoo
from pvr_zoo import verify
from pvr_zoo.families import theia
from pvr_zoo.network import bare
from pvr_zoo.preprocess import Preprocess


@pytest.fixture
def small() -> pvr_zoo.EncoderSpec:
    return verify.small(pvr_zoo.spec("theia_tiny"))


@pytest.fixture
def other() -> ModuleType:
    return reference("theia")


def test_pixels_are_divided_once() -> None:
    """The published model takes 0..255 and divides itself: white is (1 − mean) / std, not 254 and not 1/255 of it."""
    white = Preprocess(pvr_zoo.spec("theia_base").transform)(torch.full((1, 8, 8, 3), 255, dtype=torch.uint8))
    wanted = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(white.mean((0, 2, 3)), wanted, atol=1e-5)


def test_frames_are_squeezed_and_cropped_as_by_the_models_processor() -> None:
    """Both sides to 256, bicubic, then the middle 224."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC).crop((16, 16, 240, 240))
    transform = pvr_zoo.spec("theia_tiny").transform
    wanted = (torch.from_numpy(np.array(picture)) / 255 - torch.tensor(transform.mean)) / torch.tensor(transform.std)
    seen = Preprocess(transform)(torch.from_numpy(pixels)[None])[0].permute(1, 2, 0)
    steps = ((seen - wanted) * 255 * torch.tensor(transform.std)).abs()
    assert steps.max() < 2.5 and (steps < 0.5).float().mean() > 0.99  # Pillow rounds a few pixels of noise otherwise


def test_names_in_memory_are_refused(small: pvr_zoo.EncoderSpec, other: ModuleType, tmp_path: Path) -> None:
    """transformers 5 keeps `layers.0.attention.q_proj`; no file of Theia has it."""
    stored = verify.synthetic(other.shapes(small))
    net = other.model(small, stored)
    renamed = {f"backbone.model.{key}": value for key, value in net.state_dict().items()}
    assert any(".q_proj." in key for key in renamed)
    with pytest.raises(pvr_zoo.WeightsError, match="missing"):
        verify.load_small(pvr_zoo.spec("theia_tiny"), renamed, tmp_path)


def test_query_key_and_value_are_joined_in_this_order(small: pvr_zoo.EncoderSpec) -> None:
    width = small.widths[0]
    parts = {
        f"encoder.layer.0.attention.attention.{name}.bias": torch.full((width,), float(number))
        for number, name in enumerate(("value", "key", "query"))
    }
    joined = theia.convert(parts, small)
    assert list(joined) == ["blocks.0.attn.qkv.bias"]
    assert joined["blocks.0.attn.qkv.bias"].reshape(3, width)[:, 0].tolist() == [2.0, 1.0, 0.0]
    parts.popitem()
    assert sorted(theia.convert(parts, small)) == ["blocks.0.attn.k.bias", "blocks.0.attn.v.bias"]


@pytest.mark.parametrize(("name", "heads"), [("theia_tiny", 3), ("theia_small", 6), ("theia_base", 12)])
def test_heads_and_epsilon_are_those_of_deit(name: str, heads: int) -> None:
    net = bare(pvr_zoo.spec(name))
    assert {block.attn.num_heads for block in net.blocks} == {heads}
    assert {module.eps for module in net.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-12}
