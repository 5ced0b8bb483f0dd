"""The encoder contract, on networks small enough to run; and parity with timm through the published file layouts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import pvr_zoo
from pvr_zoo import Encoder, WeightsError
from pvr_zoo.checkpoint import load_strictly
from pvr_zoo.families import vit
from pvr_zoo.network import bare
from pvr_zoo.pooling import pool_map, pool_tokens
from pvr_zoo.preprocess import Preprocess
from pvr_zoo.torchvision_guard import ensure_torchvision

QUICK = [
    ("random_resnet18", {"truncate": 1}),
    ("random_resnet50", {"truncate": 1, "feature": "patches", "input_size": 96}),
    ("random_vits16", {"truncate": 2}),
    ("random_vits14", {"truncate": 1, "feature": "patches", "input_size": 70}),
    ("random_vits8", {"truncate": 1, "feature": "mean", "norm": "none", "input_size": 64}),
]


@pytest.fixture(scope="module", params=QUICK, ids=lambda case: f"{case[0]}-{'-'.join(map(str, case[1].values()))}")
def encoder(request: pytest.FixtureRequest) -> Encoder:
    name, options = request.param
    return pvr_zoo.create(name, **options)


def test_features_have_the_declared_shape_and_type(encoder: Encoder, frames: torch.Tensor) -> None:
    features = encoder(frames)
    assert features.shape == (4, *encoder.spec.feature_shape)
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert encoder(frames[:0]).shape == (0, *encoder.spec.feature_shape)


def test_frozen_means_frozen(encoder: Encoder, frames: torch.Tensor) -> None:
    before = encoder(frames)
    assert encoder.train() is encoder
    assert not any(module.training for module in encoder.modules())
    after = encoder(frames)
    assert torch.equal(before, after)
    assert not after.requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_frame_does_not_see_its_batch(encoder: Encoder, frames: torch.Tensor) -> None:
    one_by_one = torch.cat([encoder(frame[None]) for frame in frames])
    torch.testing.assert_close(encoder(frames), one_by_one, atol=2e-5, rtol=1e-4)
    assert (one_by_one[0] - one_by_one[1]).abs().max() > 1e-3


def test_gradients_only_when_asked_for(frames: torch.Tensor) -> None:
    encoder = pvr_zoo.create("random_resnet18", truncate=1, input_size=64).requires_grad_(True)
    encoder(frames).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert not any(module.training for module in encoder.modules())
    with torch.no_grad():
        assert not encoder(frames).requires_grad
    assert not encoder.requires_grad_(False)(frames).requires_grad


def test_frames_are_checked_at_the_door() -> None:
    encoder = pvr_zoo.create("random_resnet18", truncate=1, input_size=32)
    with pytest.raises(pvr_zoo.FrameError, match="got float32"):
        encoder(torch.rand(1, 64, 64, 3))


def test_a_network_that_breaks_its_spec_is_caught(frames: torch.Tensor) -> None:
    spec = pvr_zoo.spec("random_resnet18", truncate=1, input_size=32)
    with pytest.raises(WeightsError, match=r"shape \(3, 32, 32\), its spec declares \(64,\)"):
        Encoder(spec, torch.nn.Identity(), {})(frames)


def timm_model(name: str, seed: int, **options: object) -> torch.nn.Module:
    ensure_torchvision()
    import timm

    torch.manual_seed(seed)
    model = timm.create_model(name, **options).eval()
    for key, value in model.state_dict().items():  # statistics and scales as training leaves them
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(0.2 * torch.randn_like(value) + (0 if key.endswith(("bias", "mean")) else 1))
    return model


@pytest.mark.parametrize(("truncate", "feature"), [(4, "mean"), (2, "patches")])
def test_resnet_equals_timm(tmp_path: Path, frames: torch.Tensor, truncate: int, feature: str) -> None:
    """The layout of torchvision's files, classifier and all, saved by torch.save."""
    model = timm_model("resnet18", 1)
    path = tmp_path / "resnet18.pth"
    torch.save(model.state_dict(), path)
    encoder = pvr_zoo.create("resnet18_in1k", weights=path, truncate=truncate, feature=feature, input_size=96)
    with torch.no_grad():
        maps = model.forward_intermediates(Preprocess(encoder.spec.transform)(frames), intermediates_only=True)
    wanted = {"mean": maps[truncate].mean((2, 3)), "patches": maps[truncate].permute(0, 2, 3, 1).flatten(1, 2)}
    torch.testing.assert_close(encoder(frames), wanted[feature], atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A ViT-S/16 checkpoint with a classifier, and timm's model of it for 64 pixels, positions resampled by timm."""
    import timm.models.vision_transformer as reference

    published = timm_model("vit_small_patch16_224", 2)
    path = tmp_path_factory.mktemp("vit") / "vits16.pth"
    torch.save(published.state_dict(), path)
    model = timm_model("vit_small_patch16_224", 3, img_size=64)
    model.load_state_dict(reference.checkpoint_filter_fn(published.state_dict(), model))
    return path, model


@pytest.mark.parametrize(
    ("truncate", "norm", "feature"), [(12, "keep", "cls"), (5, "keep", "mean"), (5, "none", "patches")]
)
def test_vit_equals_timm(
    vit_file: tuple[Path, torch.nn.Module], frames: torch.Tensor, truncate: int, norm: str, feature: str
) -> None:
    path, model = vit_file
    encoder = pvr_zoo.create("vits16_in1k", weights=path, truncate=truncate, norm=norm, feature=feature, input_size=64)
    with torch.no_grad():
        [(patches, prefix)] = model.forward_intermediates(
            Preprocess(encoder.spec.transform)(frames),
            [truncate - 1],
            norm=norm == "keep",
            return_prefix_tokens=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
    wanted = {"cls": prefix[:, 0], "mean": patches.mean(1), "patches": patches}[feature]
    torch.testing.assert_close(encoder(frames), wanted, atol=2e-5, rtol=1e-4)


def test_several_layers_are_the_single_ones_side_by_side(frames: torch.Tensor) -> None:
    both = pvr_zoo.create("random_vits16", truncate=[1, 3], input_size=32, feature="mean")(frames)
    one, three = (pvr_zoo.create("random_vits16", truncate=k, input_size=32, feature="mean")(frames) for k in (1, 3))
    assert both.shape == (4, 768)
    torch.testing.assert_close(both, torch.cat([one, three], 1))


def test_keypoints_say_where_a_channel_is_strongest() -> None:
    features = torch.zeros(1, 3, 5, 9)
    features[0, 0, 4, 0], features[0, 1, 2, 4], features[0, 2, 0, 8] = 1e3, 1e3, 1e3
    wanted = torch.tensor([[-1.0, 0.0, 1.0, 1.0, 0.0, -1.0]])  # x of each channel, then y
    torch.testing.assert_close(pool_map(features, "keypoints"), wanted)
    square = features[..., :5]
    tokens = torch.cat([torch.randn(1, 2, 3), square.flatten(2).transpose(1, 2)], 1)
    torch.testing.assert_close(pool_tokens(tokens, "keypoints", prefix=2), pool_map(square, "keypoints"))


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = −0.75."""
    x, a = np.abs(distance), -0.75
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def test_positions_follow_the_rule_of_the_dinov2_hub() -> None:
    """Sample i of 16 lies at (i + ½) · 37 / 16.1 − ½ of the trained grid of 37, read by a cubic of four taps."""
    table = torch.randn(1, 1 + 37 * 37, 384, generator=torch.Generator().manual_seed(0))
    spec = pvr_zoo.spec("dinov2_vits14")
    fitted = vit.convert({"pos_embed": table}, spec)["pos_embed"]
    assert fitted.shape == (1, 1 + 256, 384)
    assert torch.equal(fitted[:, 0], table[:, 0])
    places = (np.arange(16) + 0.5) * 37 / 16.1 - 0.5
    taps = np.floor(places).astype(int)[:, None] + np.arange(-1, 3)
    rows = np.zeros((16, 37))
    for i in range(16):
        np.add.at(rows[i], taps[i].clip(0, 36), cubic(places[i] - taps[i]))
    grid = table[0, 1:].reshape(37, 37, 384).double().numpy()
    wanted = np.einsum("ia,jb,abf->ijf", rows, rows, grid).reshape(256, 384)
    np.testing.assert_allclose(fitted[0, 1:].numpy(), wanted, atol=2e-5)
    timms = vit._antialias_rule(table[:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2), 16)
    assert (timms.permute(0, 2, 3, 1).reshape(256, 384) - fitted[0, 1:]).abs().mean() > 0.1  # the trap of facts 9.6


def test_dinov2_file_at_518_pixels_feeds_the_encoder_at_224(tmp_path: Path, frames: torch.Tensor) -> None:
    model = timm_model("vit_small_patch14_dinov2", 4, num_classes=0)
    assert model.pos_embed.shape[1] == 1 + 37 * 37
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save({**model.state_dict(), "mask_token": torch.zeros(1, 384)}, path)
    encoder = pvr_zoo.create("dinov2_vits14", weights=path, truncate=1)
    assert encoder(frames[:1]).shape == (1, 384)
    assert encoder.identity["weights_origin"] == "file"


def test_float16_files_with_a_head_are_read(tmp_path: Path, frames: torch.Tensor) -> None:
    model = timm_model("resnet18", 5)
    path = tmp_path / "half.safetensors"
    save_file(
        {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}, path
    )
    encoder = pvr_zoo.create("resnet18_in1k", weights=path, truncate=1, input_size=64)
    assert encoder(frames).dtype == torch.float32


@pytest.mark.parametrize(("name", "width"), [("resnet18_in1k", 512), ("resnet50_in1k", 2048)])
def test_real_weights(real_weights: Path, frames: torch.Tensor, name: str, width: int) -> None:
    """The trained files load strictly and tell pictures apart: pictures alike stay alike, others do not."""
    path = real_weights / f"{name.removesuffix('_in1k')}_in1k_pqf.safetensors"
    encoder = pvr_zoo.create(name, weights=path, input_size=96)
    noisy = (frames.int() + 1).clamp(max=255).to(torch.uint8)
    smooth = torch.zeros_like(frames)
    smooth[:, 20:50, 20:60] = torch.tensor([200, 40, 30], dtype=torch.uint8)
    a, b, c = encoder(frames[:1]), encoder(noisy[:1]), encoder(smooth[:1])
    assert a.shape == (1, width)
    assert (a - b).norm() < 0.1 * (a - c).norm()


def test_real_resnet_equals_timm_through_torchvisions_transform(real_weights: Path, frames: torch.Tensor) -> None:
    from safetensors.torch import load_file

    model = timm_model("resnet18", 6)
    path = real_weights / "resnet18_in1k_pqf.safetensors"
    state = {key: value.float() for key, value in load_file(path).items()}
    model.load_state_dict(state)
    from torchvision.transforms import v2

    published = v2.Compose(
        [
            *(v2.Resize(256, antialias=True), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True)),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.no_grad():
        wanted = model.forward_features(published(frames[:2].permute(0, 3, 1, 2))).mean((2, 3))
    torch.testing.assert_close(pvr_zoo.create("resnet18_in1k", weights=path)(frames[:2]), wanted, atol=1e-3, rtol=1e-3)


def test_strict_loading_names_the_first_keys(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    full = {key: torch.ones(value.shape) for key, value in network.state_dict().items()}
    load_strictly(network, {key: value for key, value in full.items() if "num_batches" not in key}, "x")
    assert network[1].num_batches_tracked == 0
    with pytest.raises(WeightsError, match=r"1 key missing \(first: 0.bias\), 1 key extra \(first: 9.bias\)"):
        load_strictly(network, {"9.bias" if key == "0.bias" else key: value for key, value in full.items()}, "x")
    with pytest.raises(WeightsError, match=r"0.bias has shape \(4,\), expected is \(3,\)"):
        load_strictly(network, full | {"0.bias": torch.ones(4)}, "x")
    with pytest.raises(WeightsError, match=r"0\.bias holds NaN"):
        load_strictly(network, full | {"0.bias": torch.tensor([0.0, float("nan"), 1])}, "x")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("vits16_in1k", "100 keys missing .* 150 keys extra"),
        ("resnet34_in1k", "96 keys extra"),
        ("missing", "1 key missing"),
        ("extra", "1 key extra"),
        ("NaN", "conv1.weight holds NaN"),
        ("shape", r"conv1.weight has shape \(1,\), expected is \(64, 3, 7, 7\)"),
    ],
)
def test_files_that_do_not_fit_are_named_with_what_is_wrong(given: str, words: str, tmp_path: Path) -> None:
    row = pvr_zoo.spec("resnet18_in1k" if given in ("missing", "extra", "NaN", "shape") else given)
    state = {key: torch.ones(value.shape) for key, value in bare(row).state_dict().items()}
    if given == "missing":
        del state["conv1.weight"]
    changes = {"extra": {"more": torch.ones(1)}, "shape": {"conv1.weight": torch.ones(1)}}
    changes["NaN"] = {"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}
    torch.save(state | changes.get(given, {}), tmp_path / "given.pth")
    with pytest.raises(WeightsError, match=rf"resnet18_in1k.*{words}.*\(.*given\.pth\)\n\w+") as caught:
        pvr_zoo.create("resnet18_in1k", weights=tmp_path / "given.pth")
    assert caught.value.exit_code == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", pvr_zoo.list_encoders("random_*"))
def test_full_size_controls(name: str, frames: torch.Tensor) -> None:
    """Every architecture at its published size and full depth."""
    encoder = pvr_zoo.create(name)
    features = encoder(frames[:2])
    assert features.shape == (2, *encoder.spec.feature_shape)
    assert (features[0] - features[1]).abs().max() > 1e-3
