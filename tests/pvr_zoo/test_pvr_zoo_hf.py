"""`hf:ORG/NAME`: folders that transformers writes, in the cache, against transformers' own forward pass."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from references import reference
from safetensors.torch import load_file, save_file

import pvr_zoo
from pvr_zoo import checkpoint, verify
from pvr_zoo.families import hf_names as hf
from pvr_zoo.network import build

KINDS = (
    *("vit", "vit_classifier", "dinov2", "dinov2_registers", "clip", "clip_vision", "clip_projected"),
    *("siglip", "siglip_vision", "ijepa", "vjepa2"),
)


@pytest.fixture(scope="module")
def other() -> ModuleType:
    return reference("hf_model")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the zoo's cache has the repository us/tiny."""
    path = tmp_path / "cache" / "us--tiny"
    path.mkdir(parents=True)
    return path


def load(spec: pvr_zoo.EncoderSpec, folder: Path, **request: Any) -> pvr_zoo.Encoder:
    """The road of `create`, from a spec."""
    used = spec.request(**request)
    path = folder / "model.safetensors"
    state, sha256 = checkpoint.read(path)
    return pvr_zoo.Encoder(used, build(used, checkpoint.unwrap(state, used.layout, path)), {"weights_sha256": sha256})


@pytest.mark.parametrize("kind", KINDS)
def test_features_equal_the_models_own(kind: str, other: ModuleType, folder: Path) -> None:
    """Preprocessing included: the processor's pixels against ours."""
    model, processor = other.write(kind, folder)
    spec = hf.spec_of("hf:us/tiny")
    frames = verify.frames()
    for feature in spec.offered:
        if feature == "keypoints":
            continue
        encoder = load(spec, folder, feature=feature)
        seen, wanted = encoder(frames), other.feature(kind, model, processor, frames.numpy(), feature)
        assert seen.shape == wanted.shape == (4, *encoder.spec.feature_shape)
        assert verify.relative_error(seen, wanted) < 1e-5, feature
        assert (seen[0] - seen[1]).abs().max() > 1e-2 * seen.std()
    assert torch.equal(pvr_zoo.create("hf:us/tiny")(frames), load(spec, folder)(frames))
    assert ("output" in spec.offered) == kind.startswith(("clip", "siglip")) * (kind != "clip_vision")
    cut = load(spec, folder, truncate=[1, 2])
    assert cut(frames).shape == (4, 2 * spec.widths[0])
    assert len(cut.network.levels) == 2
    shapes = build(spec, None)(torch.empty(2, 3, spec.input_size, spec.input_size, device="meta"))
    assert shapes.shape == (2, *spec.feature_shape)


@pytest.mark.parametrize("kind", ["vit_classifier", "clip", "vjepa2"])
def test_files_that_do_not_fit_are_refused(kind: str, other: ModuleType, folder: Path) -> None:
    other.write(kind, folder)
    spec = hf.spec_of("hf:us/tiny")
    path = folder / "model.safetensors"
    state = load_file(path)
    key = next(key for key in state if "layer" in key and key.endswith("weight") and not key.startswith("text"))
    wrong = {
        "missing": {name: value for name, value in state.items() if name != key},
        "extra": state | {"foreign.weight": torch.zeros(1)},
        "shape": state | {key: torch.zeros(1, 2, 3)},
        "NaN": state | {key: torch.full_like(state[key], torch.nan)},
    }
    for what, bad in wrong.items():
        save_file(bad, path)
        with pytest.raises(pvr_zoo.WeightsError):
            load(spec, folder)
            pytest.fail(f"{what} was accepted")


def test_the_hubs_own_cache_is_read(other: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, by the revision that was asked for."""
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    store = tmp_path / "hub" / "models--us--tiny"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "v1").write_text(commit)
    snapshot = store / "snapshots" / commit
    other.write("ijepa", snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = hf.spec_of("hf:us/tiny@v1")
    assert spec.weights.revision == "v1" and spec.features[0] == "mean"
    assert load(spec, snapshot)(verify.frames()).shape == (4, 32)
    with pytest.raises(pvr_zoo.WeightsUnavailable, match=r"config\.json"):
        hf.spec_of("hf:us/tiny@v2")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "swin"}, "'swin'.*It knows: .*dinov2"),
        ({"model_type": "theia", "auto_map": {"AutoModel": "modeling.Theia"}}, "'theia'"),
        ({}, "None"),
    ],
)
def test_other_types_are_refused_by_name(config: dict[str, Any], words: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(pvr_zoo.SpecError, match=f"(?s){words}"):
        hf.spec_of("hf:us/tiny")


def test_a_video_encoder_that_is_not_as_published_is_refused(other: ModuleType, folder: Path) -> None:
    other.write("vjepa2", folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "relu"}))
    with pytest.raises(pvr_zoo.SpecError, match="relu"):
        hf.spec_of("hf:us/tiny")


@pytest.mark.parametrize("name", ["hf:", "hf:tiny", "hf:a/b/c", "hf:../x/y", "hf:us/tiny@", "hf:us/tiny@../.."])
def test_names_that_are_no_repository(name: str) -> None:
    with pytest.raises(pvr_zoo.UnknownEncoder):
        hf.spec_of(name)


OLD_VIT = {
    "feature_extractor_type": "ViTFeatureExtractor",
    "size": 224,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def test_old_processor_files_mean_what_their_class_did() -> None:
    vit = hf.transform_of(OLD_VIT, "vit")
    assert (vit.resize, vit.crop, vit.squash, vit.kernel, vit.value_range) == (224, 224, True, "bilinear", (0.0, 1.0))
    clip = OLD_VIT | {"feature_extractor_type": "CLIPFeatureExtractor", "crop_size": 224, "do_center_crop": True}
    seen = hf.transform_of(clip, "clip")
    assert (seen.resize, seen.crop, seen.squash, seen.kernel) == (224, 224, False, "bicubic")
    raw = hf.transform_of(OLD_VIT | {"do_rescale": False}, "raw")
    assert raw.value_range == (0.0, 255.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"feature_extractor_type": "BeitFeatureExtractor"}, "BeitFeatureExtractor"),
        ({"resample": 1}, "resample"),
        ({"do_resize": False}, "do_resize"),
        ({"size": {"height": 224, "width": 256}}, "square"),
        ({"size": {"shortest_edge": 224}}, "do_center_crop"),
        ({"image_mean": None}, "image_mean"),
    ],
)
def test_processors_that_no_transform_says_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(pvr_zoo.SpecError, match=words):
        hf.transform_of(OLD_VIT | change, "hf:us/tiny")


def test_a_processor_of_another_size_than_the_model_is_refused(other: ModuleType, folder: Path) -> None:
    other.write("vit", folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"size": {"height": 64, "width": 64}}))
    with pytest.raises(pvr_zoo.SpecError, match="64 pixels"):
        hf.spec_of("hf:us/tiny")
