"""What could silently go wrong with the convolutional encoders, beside the contract of test_pvr_zoo_published.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references import published_keys

import pvr_zoo
from pvr_zoo import checkpoint, verify
from pvr_zoo.families import random
from pvr_zoo.network import bare, build
from pvr_zoo.preprocess import Preprocess
from pvr_zoo.rows import taskonomy

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
KINDS = ("vip_resnet50", "moco_aug_l3", "moco_aug_l4", "taskonomy_normal", "convnext_tiny_in1k")


def by_pillow(frames: torch.Tensor, kernel: Image.Resampling, resize: int, crop: int) -> torch.Tensor:
    """Short side to `resize`, centre crop, values from 0 to 255, as the publishers' examples do it."""
    pictures = []
    for frame in frames.numpy():
        picture = Image.fromarray(frame)
        short = min(picture.size)
        picture = picture.resize(tuple(resize * side // short for side in picture.size), kernel)
        left, top = (round((side - crop) / 2) for side in picture.size)
        pictures.append(np.asarray(picture.crop((left, top, left + crop, top + crop))))
    return torch.from_numpy(np.stack(pictures)).float()


def imagenet(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels / 255 - MEAN) / STD


PUBLISHED = {
    "r3m_resnet50": lambda frames: imagenet(by_pillow(frames, BILINEAR, 256, 224)),
    "vip_resnet50": lambda frames: imagenet(by_pillow(frames, BILINEAR, 256, 224)),
    "moco_aug": lambda frames: imagenet(by_pillow(frames, BILINEAR, 256, 224)),
    "mcr_resnet50": lambda frames: imagenet(by_pillow(frames, BILINEAR, 256, 224)),
    "mcr_resnet50_unnormalised": lambda frames: by_pillow(frames, BILINEAR, 256, 224) / 255,
    "dino_resnet50": lambda frames: imagenet(by_pillow(frames, BICUBIC, 256, 224)),
    "convnext_base_in1k": lambda frames: imagenet(by_pillow(frames, BICUBIC, 256, 224)),
    "taskonomy_depth_zbuffer": lambda frames: by_pillow(frames, BILINEAR, 256, 256) / 127.5 - 1,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_input_is_as_in_the_publishers_example(name: str, frames: torch.Tensor) -> None:
    """Also for a frame with no value above 2, which VIP's own module takes for scaled already."""
    frames = torch.cat([frames, frames[:1] // 100])
    images = Preprocess(pvr_zoo.spec(name).transform)(frames).permute(0, 2, 3, 1)
    wanted = PUBLISHED[name](frames)
    step = 1.01 * (wanted.max() - wanted.min()) / 255  # resizing rounds to whole numbers, once in a while otherwise
    assert (images - wanted).abs().max() <= step
    assert (images - wanted).abs().mean() < 0.01 * step


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("r3m_resnet18", (512,)),
        ("r3m_resnet50", (2048,)),
        ("vip_resnet50", (1024,)),
        ("taskonomy_keypoints3d", (2048,)),
        ("moco_aug_l3", (2156,)),
        ("moco_aug_l4", (2058,)),
        ("moco_aug", (2048,)),
        ("convnext_base_in1k", (1024,)),
    ],
)
def test_default_feature_is_the_published_one(name: str, shape: tuple[int, ...]) -> None:
    row = pvr_zoo.spec(name)
    assert row.feature_shape == shape
    first = pvr_zoo.spec(name, truncate=1)
    assert first.feature == "mean"
    assert first.feature_shape == row.widths[:1]


@pytest.mark.parametrize("name", KINDS)
def test_random_control(name: str) -> None:
    spec = replace(verify.small(pvr_zoo.spec(name)), seed=0, weights=None)
    feature = pvr_zoo.Encoder(spec, random.build(spec), random.identity())(verify.frames())
    assert torch.isfinite(feature).all()
    assert feature.std(0).mean() > 1e-2 * feature.std()  # it tells the frames apart


@pytest.mark.parametrize("name", KINDS)
def test_what_is_cut_off_is_not_kept(name: str) -> None:
    spec = verify.small(pvr_zoo.spec(name))
    whole, mean, first = (
        sum(value.numel() for value in build(spec.request(**request), None).state_dict().values())
        for request in ({}, {"feature": "mean"}, {"truncate": 1})
    )
    full = sum(value.numel() for value in bare(spec).state_dict().values())
    assert whole == full
    assert first < mean <= full
    assert (mean < full) == (name.startswith(("vip", "convnext")))  # the ends that follow the pooling


def written(row: pvr_zoo.EncoderSpec, prefix: str, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """Drawn weights of the small network under the published prefix, and more."""
    shapes = {key: tuple(value.shape) for key, value in bare(verify.small(row)).state_dict().items()}
    return {prefix + key: value for key, value in verify.synthetic(shapes).items()} | more


@pytest.mark.parametrize("name", ["r3m_resnet18", "vip_resnet50", "moco_aug"])
def test_only_the_named_parts_of_a_file_are_left_out(name: str, tmp_path: Path) -> None:
    row = pvr_zoo.spec(name)
    (prefix,) = row.layout.prefix
    for mark in row.layout.drop:
        verify.load_small(row, written(row, prefix, **{f"{mark}0.weight": torch.zeros(2)}), tmp_path)
    with pytest.raises(pvr_zoo.WeightsError):
        verify.load_small(row, written(row, prefix, **{"module.head.weight": torch.zeros(2)}), tmp_path)


def test_vip_is_refused_without_its_linear_layer(tmp_path: Path) -> None:
    """Its pooled map has twice the width, and is not what VIP's distance was trained on."""
    row = pvr_zoo.spec("vip_resnet50")
    state = {key: value for key, value in written(row, "module.convnet.").items() if ".fc." not in key}
    with pytest.raises(pvr_zoo.WeightsError, match="missing"):
        verify.load_small(row, state, tmp_path)


def test_moco_takes_the_query_encoder(tmp_path: Path) -> None:
    row = pvr_zoo.spec("moco_croponly")
    state = written(row, "module.encoder_q.")
    keys = {key.replace("encoder_q", "encoder_k"): torch.zeros_like(value) for key, value in state.items()}
    feature = verify.load_small(row, state, tmp_path)(verify.frames())
    assert torch.equal(feature, verify.load_small(row, state | keys, tmp_path)(verify.frames()))


@pytest.mark.parametrize(("name", "kept"), [("moco_aug", {3, 4}), ("moco_aug_l4", {3}), ("moco_aug_l3", set())])
def test_third_member_of_a_stage_is_dropped_where_it_is_not_a_block(name: str, kept: set[int], tmp_path: Path) -> None:
    """In a compressed file it is what followed the compression in training; elsewhere a block."""
    row = pvr_zoo.spec(name)
    state = {f"module.encoder_q.layer{stage}.2.conv1.weight": torch.zeros(1) for stage in (3, 4)}
    left = checkpoint.unwrap(verify.published(state, row.layout), row.layout, tmp_path)
    assert left.keys() == {f"layer{stage}.2.conv1.weight" for stage in kept}


def test_taskonomy_output_is_its_normalised_map_channel_by_channel() -> None:
    """The cells are offered before the norm, after which their mean would be 0 for every frame."""
    spec = verify.small(pvr_zoo.spec("taskonomy_autoencoding"))
    state = verify.synthetic({key: tuple(value.shape) for key, value in bare(spec).state_dict().items()})
    output, cells, mean = (
        pvr_zoo.Encoder(used, build(used, dict(state)), {})(verify.frames())
        for used in (spec, spec.request(feature="patches"), spec.request(feature="mean"))
    )
    maps = output.unflatten(1, (8, 16))  # (N, C, H·W)
    normalised = (cells - cells.mean(1, keepdim=True)) / (cells.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(maps.transpose(1, 2), normalised, atol=1e-4, rtol=1e-4)
    assert (mean.abs().sum(0) > 0.01).all()


def test_taskonomy_maps_are_larger_than_torchvisions() -> None:
    """Stage by stage, as declared: the encoder compares what the network returns with the spec."""
    row = pvr_zoo.spec("taskonomy_normal")
    assert [row.grid(layer) for layer in range(1, 6)] == [32, 16, 16, 16, 16]
    spec = verify.small(row)
    for layer, side in enumerate((8, 4, 4, 4, 4), start=1):
        used = spec.request(truncate=layer, feature="patches")
        encoder = pvr_zoo.Encoder(replace(used, seed=0), random.build(replace(used, seed=0)), {})
        assert encoder(verify.frames()).shape == (4, side**2, spec.widths[layer - 1])


def test_all_taskonomy_tasks_are_named_by_their_checksums() -> None:
    assert len(taskonomy.TASKS) == 25
    assert set(taskonomy.STUDY) <= set(taskonomy.TASKS)
    for task, (_, sha256) in taskonomy.TASKS.items():
        source = pvr_zoo.spec(f"taskonomy_{task}").weights
        assert source is not None
        assert source.sha256 == sha256
        assert source.filename == f"{task}_encoder-{sha256}.pth"


@pytest.mark.parametrize("name", ["taskonomy_normal", "moco_aug_l3"])
def test_flattened_maps_have_one_input_size(name: str) -> None:
    with pytest.raises(pvr_zoo.SpecError, match="only"):
        pvr_zoo.spec(name, input_size=128)


def test_mcr_differs_from_its_example_in_the_input_alone() -> None:
    row, example = (pvr_zoo.spec(f"mcr_resnet50{tail}") for tail in ("", "_unnormalised"))
    assert replace(example, name=row.name, transform=row.transform) == row


def test_r3m_lists_hold_the_language_heads() -> None:
    """Their names are what makes dropping them necessary."""
    _, (shapes,) = published_keys(pvr_zoo.spec("r3m_resnet50"))
    assert shapes["module.lang_rew.pred.0.weight"] == [1024, 2 * 2048 + 768]
    assert not any(".fc." in key for key in shapes)
