"""Vision transformers: what goes wrong without a message, the layouts in which a network is published, timm:NAME."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from references import reference
from torch import Tensor

import pvr_zoo
from pvr_zoo import SpecError, UnknownEncoder, WeightsError, checkpoint, verify
from pvr_zoo.families import vit
from pvr_zoo.network import bare, build
from pvr_zoo.passthrough import spec_of
from pvr_zoo.preprocess import Preprocess
from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision


def features(spec: EncoderSpec, state: Mapping[str, Tensor]) -> Tensor:
    """Of the stored frames, with a file's tensors."""
    network = build(spec, checkpoint.unwrap(state, spec.layout, Path("file")))
    return pvr_zoo.Encoder(spec, network, {})(verify.frames())


TRAPS = [
    ("mvp_vits16", {"options": {"num_heads": 6}}),  # timm's ViT-S takes the same file
    ("siglip_vitb16", {"options": {"act_layer": "gelu"}}),  # timm's own default
    ("dinov2_vits14", {"positions": "antialias"}),  # timm's rule
    ("dinov2_vits14", {"positions": "plain"}),  # the rule without the offset
    ("dinov2_vits14_reg", {"positions": "hub"}),
    ("cradio_v3_vitb16", {"positions": "radio"}),
    ("cradio_v4_vith16", {"positions": "radio-corners"}),
    ("vits16_in1k", {"positions": "plain"}),
    ("ijepa_vitg16_22k", {"options": {"num_heads": 32}}),
]


@pytest.mark.parametrize(("name", "trap"), TRAPS, ids=lambda value: str(value))
def test_a_wrong_head_count_activation_or_position_rule_shows(name: str, trap: dict[str, Any]) -> None:
    spec = verify.small(pvr_zoo.spec(name))
    other = reference(spec.builder)
    state = verify.synthetic(other.shapes(spec))
    wanted = other.feature(spec, state, Preprocess(spec.transform)(verify.frames()))
    wrong = replace(spec, **(trap | {"options": spec.options | trap.get("options", {})}))
    assert verify.relative_error(features(spec, state), wanted) < 1e-5
    assert verify.relative_error(features(wrong, state), wanted) > 5e-5


def test_norms_divide_by_the_published_epsilon() -> None:
    for name, epsilon in (
        ("mae_vitb16", 1e-6),
        ("vits16_in1k", 1e-6),
        ("dinov2_vits14", 1e-6),
        ("dinov3_vits16", 1e-5),
    ):
        assert bare(pvr_zoo.spec(name)).norm.eps == epsilon, name


def test_ijepa_reads_the_target_encoder(tmp_path: Path) -> None:
    """Files hold both encoders, the predictor and the optimiser's state."""
    spec = verify.small(pvr_zoo.spec("ijepa_vith14"))
    target = verify.synthetic(reference(spec.builder).shapes(spec))
    context = {key: value + 1 for key, value in target.items()}
    file = {
        "encoder": context,
        "predictor": {},
        "opt": {"state": {}},
        "target_encoder": target,
        "epoch": 300,
        "lr": 0.1,
    }
    torch.save(file, tmp_path / "IN1K-vit.h.14-300e.pth.tar")
    read, _ = checkpoint.read(tmp_path / "IN1K-vit.h.14-300e.pth.tar")
    assert torch.equal(features(spec, read), features(spec, target))


def test_spa_and_vc1_files_hold_pretraining_parts_that_are_dropped_by_name() -> None:
    for name in ("spa_vitb16", "vc1_vitb"):
        spec = verify.small(pvr_zoo.spec(name))
        state = verify.synthetic(reference(spec.builder).shapes(spec))
        prefix = spec.layout.prefix[0] if spec.layout.prefix else ""
        with pytest.raises(WeightsError, match="extra"):
            features(spec, state | {f"{prefix}adapter.weight": torch.zeros(1)})


def test_dinov2_with_registers_in_timms_layout_is_the_same_network() -> None:
    """timm adds the class token's position to the token and drops it from the table."""
    spec = verify.small(pvr_zoo.spec("dinov2_vits14_reg"))
    state = verify.synthetic(reference(spec.builder).shapes(spec))
    timms = vit.convert({key: value for key, value in state.items() if key != "mask_token"}, spec)
    assert {"reg_token", "cls_token"} <= timms.keys() and "register_tokens" not in timms
    assert torch.equal(features(spec, timms), features(spec, state))


def metas(state: Mapping[str, Tensor], bias: float) -> dict[str, Tensor]:
    """A DINOv3 file of timm's with the names of Meta's own, and what that holds beside them."""
    names = (("reg_token", "storage_tokens"), (".gamma_1", ".ls1.gamma"), (".gamma_2", ".ls2.gamma"))
    found = {}
    for key, value in state.items():
        for timm, meta in names:
            key = key.replace(timm, meta)
        found[key] = value
        if key.endswith("attn.qkv.weight"):
            found[key.replace("weight", "bias")] = torch.full((len(value),), bias)
            found[key.replace("weight", "bias_mask")] = torch.ones(len(value))
    width = state["cls_token"].shape[-1]
    return found | {"mask_token": torch.zeros(1, width), "rope_embed.periods": torch.ones(16)}


def test_dinov3_reads_metas_own_files() -> None:
    spec = verify.small(pvr_zoo.spec("dinov3_vits16"))
    state = verify.synthetic(reference(spec.builder).shapes(spec))
    assert torch.equal(features(spec, metas(state, bias=0.0)), features(spec, state))
    with pytest.raises(WeightsError, match=r"attn\.qkv\.bias"):
        features(spec, metas(state, bias=0.1))


def test_registers_are_neither_patches_nor_in_their_mean() -> None:
    spec = verify.small(pvr_zoo.spec("dinov2_vits14_reg"))
    state = verify.synthetic(reference(spec.builder).shapes(spec))
    patches = features(spec.request(feature="patches"), state)
    assert patches.shape[1] == 16
    torch.testing.assert_close(features(spec.request(feature="mean"), state), patches.mean(1))


def test_nothing_of_a_pooling_head_stays_behind_when_it_is_not_used() -> None:
    spec = pvr_zoo.spec("siglip_vitb16", truncate=2)
    names = [name for name, _ in build(spec, None).named_parameters()]
    assert not any("attn_pool" in name for name in names)
    assert {name.split(".")[1] for name in names if name.startswith("levels.")} == {"0", "1"}


PASSED_ON = [  # one of each road: plain ViT, ResNet, whole network, windows and rotations that no file holds
    ("timm:test_vit.r160_in1k", {"truncate": 3}),
    ("timm:test_resnet.r160_in1k", {"truncate": 2, "feature": "patches"}),
    ("timm:test_convnext.r160_in1k", {"feature": "output"}),
    ("timm:test_efficientnet.r160_in1k", {"truncate": [3, 4], "feature": "mean"}),
    ("timm:swin_tiny_patch4_window7_224.ms_in1k", {"truncate": 2, "feature": "mean"}),
    ("timm:eva02_tiny_patch14_224.mim_in22k", {"truncate": 2, "feature": "cls"}),
]


@pytest.mark.parametrize(("name", "request_"), PASSED_ON, ids=lambda value: str(value))
def test_timm_names_give_timms_features(name: str, request_: dict[str, Any], tmp_path: Path) -> None:
    """The classifier's tensors included in the file, through timm's own evaluation transform."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name.removeprefix("timm:")).eval()
    torch.save(model.state_dict(), tmp_path / "file.pth")
    encoder = pvr_zoo.create(name, weights=tmp_path / "file.pth", **request_)
    data = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**data, is_training=False)
    frames = verify.frames()[:2]
    images = torch.stack([transform(Image.fromarray(frame.numpy())) for frame in frames])
    wanted = timms_feature(model, images, request_)
    torch.testing.assert_close(encoder(frames), wanted, atol=2e-3, rtol=1e-3)


@torch.no_grad()
def timms_feature(model: Any, images: Tensor, request: Mapping[str, Any]) -> Tensor:
    if request.get("feature") == "output":
        model.reset_classifier(0)
        return model(images)
    layers = request["truncate"] if isinstance(request["truncate"], list) else [request["truncate"]]
    first = 1 if type(model).__name__ == "ResNet" else 0  # the stem is no level
    indices = [layer - 1 + first for layer in layers]
    if hasattr(model, "num_prefix_tokens"):
        options = {"norm": True, "return_prefix_tokens": True, "intermediates_only": True}
        [(_, prefix)] = model.forward_intermediates(images, indices, **options)
        return prefix[:, 0]
    maps = model.forward_intermediates(images, indices, intermediates_only=True)
    if request["feature"] == "patches":
        return maps[0].flatten(2).transpose(1, 2)
    return torch.cat([features.mean((2, 3)) for features in maps], 1)


def test_a_timm_name_says_everything_without_building_the_network() -> None:
    spec = spec_of("timm:convnext_tiny.fb_in22k")
    assert spec.widths == (96, 192, 384, 768) and spec.strides == (4, 8, 16, 32)
    assert spec.weights is not None and spec.weights.hub == "timm/convnext_tiny.fb_in22k"
    assert (spec.transform.resize, spec.transform.crop, spec.transform.kernel) == (256, 224, "bicubic")
    assert spec.licence == "Apache-2.0"
    assert pvr_zoo.spec("timm:convnext_tiny.fb_in22k", truncate=2, feature="patches").feature_shape == (784, 192)
    assert pvr_zoo.spec("timm:vit_base_patch16_siglip_224.webli").feature_shape == (768,)


def test_a_timm_name_that_does_not_exist_suggests_one_that_does() -> None:
    for name in ("timm:convnext_tiny.nope", "timm:convnext_tinny"):
        with pytest.raises(UnknownEncoder, match="Did you mean timm:convnext_tiny"):
            pvr_zoo.spec(name)


def test_openais_weights_under_the_wrong_activation_are_refused() -> None:
    with pytest.raises(SpecError, match="activation") as caught:
        pvr_zoo.spec("timm:vit_base_patch16_clip_224.openai")
    assert "timm:vit_base_patch16_clip_quickgelu_224.openai" in caught.value.hint
    assert pvr_zoo.spec("timm:vit_base_patch16_clip_quickgelu_224.openai").feature_shape == (768,)


def test_a_control_of_a_passed_on_network(frames: Tensor) -> None:
    encoder = pvr_zoo.create("random:timm:test_vit.r160_in1k")
    spread = encoder(frames).std(0)
    assert np.isfinite(spread.numpy()).all() and (spread > 0).any()
