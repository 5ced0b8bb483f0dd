"""V-JEPA 2: the traps of its layout."""

import math
from pathlib import Path

import pytest
import torch

import pvr_zoo
from pvr_zoo import checkpoint, verify
from pvr_zoo.families import vjepa
from pvr_zoo.network import build


@pytest.fixture
def small() -> pvr_zoo.EncoderSpec:
    return verify.small(pvr_zoo.spec("vjepa2_vitl"))


def test_a_still_image_is_a_clip_of_two_equal_frames() -> None:
    patches = vjepa.Patches(6, 16)
    image = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    clip = torch.stack([image, image], 2)
    whole = patches.proj(clip).flatten(2).transpose(1, 2)
    assert whole.shape == (2, 9, 6)
    assert torch.allclose(patches(image), whole, atol=1e-5)


def test_pairs_turn_with_the_published_frequencies() -> None:
    """Channels 2i and 2i + 1 turn together, by frequencies that repeat as (f₀ f₁ … f₀ f₁ …), not as (f₀ f₀ f₁ f₁ …)."""
    turn = vjepa.Rotation(grid=3, width=14, device=torch.device("cpu"))
    frequencies = torch.tensor([1.0, 0.01] * 2)  # two for four channels: 10000⁰ and 10000^(−1/2)
    for place, (row, column) in {1: (0, 1), 3: (1, 0), 8: (2, 2)}.items():
        angle = torch.cat([torch.zeros(4), row * frequencies, column * frequencies, torch.zeros(2)])
        assert torch.allclose(turn.cos[place], angle.cos())
        assert torch.allclose(turn.sin[place], angle.sin())
    x = torch.zeros(1, 1, 9, 14)
    x[..., 8, 4] = 1.0  # the first of the row's channels, at row 2
    turned = turn(x)[0, 0, 8]
    assert torch.allclose(turned[4:6], torch.tensor([math.cos(2.0), math.sin(0.02)]))


def test_other_input_sizes_keep_the_places_whole_numbers() -> None:
    """A patch turns by its row and column, whatever the size of the picture."""
    few, many = (vjepa.Rotation(grid, 14, torch.device("cpu")) for grid in (3, 5))
    assert torch.equal(few.cos.unflatten(0, (3, 3)), many.cos.unflatten(0, (5, 5))[:3, :3])


def test_the_384_row_is_resized_and_cropped_as_published() -> None:
    for name, resize, crop in (("vjepa2_vitl", 292, 256), ("vjepa2_vitg384", 438, 384)):
        transform = pvr_zoo.spec(name).transform
        assert (transform.resize, transform.crop, transform.kernel) == (resize, crop, "bilinear")


def test_a_training_checkpoint_is_refused(small: pvr_zoo.EncoderSpec, tmp_path: Path) -> None:
    """The files at dl.fbaipublicfiles.com nest the encoder and name its parts otherwise."""
    state = {"encoder": {"module.backbone.patch_embed.proj.weight": torch.zeros(1)}, "predictor": {}}
    with pytest.raises(pvr_zoo.WeightsError):
        build(small, checkpoint.unwrap(state, small.layout, tmp_path))


def test_the_rotation_is_built_where_the_weights_are(small: pvr_zoo.EncoderSpec) -> None:
    """On the meta device too, so that shapes are known without memory."""
    network = build(small, None)
    assert network(torch.empty(1, 3, small.input_size, small.input_size, device="meta")).shape == (1, small.widths[0])
    assert not any("rotation" in key for key in network.state_dict())
