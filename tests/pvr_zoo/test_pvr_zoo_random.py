"""The random control: alive at every depth, repeatable, independent of what else is built."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from references import reference

import pvr_zoo
from pvr_zoo import verify
from pvr_zoo.families import calibration, random
from pvr_zoo.preprocess import Preprocess


def scenes() -> torch.Tensor:
    """Frames that the calibration has not seen, and one of them with a single small object moved."""
    frames = torch.from_numpy(calibration.draw(seed=5))
    moved = frames[0].clone()
    moved[30:36, 30:36] = torch.tensor([250, 250, 20], dtype=torch.uint8)
    return torch.cat([frames, moved[None]])


SLOW = ("random_vitl14", "random_vitl16", "random_convnext_small", "random_convnext_base")  # seconds each
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in pvr_zoo.list_encoders("random_*")
]


@pytest.mark.parametrize("name", NAMES)
def test_features_differ_between_frames_at_every_depth(name: str) -> None:
    """Relative spread over different scenes, and over one small object, after each stage or block."""
    row = pvr_zoo.spec(name)
    kind = "cls" if "cls" in row.features else "mean"
    sizes = [size for size in (112, 128) if row.input_multiple and size % row.input_multiple == 0]
    spec = pvr_zoo.spec(name, feature=kind, input_size=sizes[0] if sizes else None)
    images = Preprocess(spec.transform)(scenes())
    network = random.build(spec).eval()
    with torch.no_grad():
        x = network.stem(images)
        depths = [network.read(x := level(x)) for level in network.levels]
    assert len(depths) == spec.depth
    for depth, features in enumerate(depths, 1):
        size = features[:4].norm(dim=1).mean()
        spread = (features[:4] - features[:4].mean(0)).norm(dim=1).mean() / size
        small = (features[0] - features[4]).norm() / size
        assert 0.05 < spread < 1.5, (depth, spread)
        assert small > 0.005, (depth, small)


TRAINED = [row for row in map(pvr_zoo.spec, pvr_zoo.list_encoders()) if row.seed is None]
FAMILIES = {row.builder: row.name for row in reversed(TRAINED)}  # one row each
HF = ("vit", "dinov2", "dinov2_registers", "clip", "clip_vision", "siglip_vision", "ijepa", "vjepa2")
LEARNT = [FAMILIES[f"pvr_zoo.families.{kind}"] for kind in ("vit", "clip_vit", "imagebind", "radio", "theia")]


def small_control(name: str, cache: Path) -> pvr_zoo.EncoderSpec:
    """The control of a row at the size of verify.py, or of a small repository of the hub that is in the cache."""
    if name not in HF:
        return replace(verify.small(pvr_zoo.spec(name)), seed=0)
    folder = cache / f"us--{name}"
    folder.mkdir(parents=True)
    reference("hf_model").write(name, folder)
    return pvr_zoo.spec(f"random:hf:us/{name}")


def features_of(spec: pvr_zoo.EncoderSpec, frames: torch.Tensor) -> torch.Tensor:
    return pvr_zoo.Encoder(spec, random.build(spec), {})(frames)


def spread(features: torch.Tensor, over: int) -> float:
    """Mean distance from the mean over that dimension, relative to the features' size."""
    away = (features - features.mean(over, keepdim=True)).norm(dim=-1).mean()
    return float(away / features.norm(dim=-1).mean())


@pytest.mark.parametrize("name", [*FAMILIES.values(), *HF])
def test_controls_of_every_family_see_frames_and_places_at_every_depth(name: str, tmp_path: Path) -> None:
    control = small_control(name, tmp_path / "cache")
    for depth in range(1, control.depth + 1):
        offered = control.request(truncate=depth).offered
        for kind in offered:
            features = features_of(control.request(truncate=depth, feature=kind), scenes()[:4])
            assert spread(features, 0) > 0.1, (depth, kind)
            if kind == "patches":
                assert spread(features, 1) > 0.2, depth


@pytest.mark.parametrize("name", [*LEARNT, *(kind for kind in HF if kind != "vjepa2")])
def test_learnt_positions_tell_the_places_of_a_white_picture_apart(name: str, tmp_path: Path) -> None:
    """Whatever the library calls its tokens and positions, they are drawn as such."""
    control = small_control(name, tmp_path / "cache").request(truncate=1, feature="patches", norm="none")
    white = torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)
    assert spread(features_of(control, white), 1) > 0.15


def test_no_residual_branch_is_switched_off() -> None:
    resnet = random.build(pvr_zoo.spec("random_resnet50", input_size=64))
    assert all((block.bn3.weight == 1).all() for stage in resnet.levels for block in stage)
    vit = random.build(pvr_zoo.spec("random_vits14", input_size=56, truncate=2))
    assert all((block.ls1.gamma == 1).all() for block in vit.levels)


def test_batch_norms_see_standard_inputs_on_the_stored_frames() -> None:
    """After calibration each channel has mean 0 and variance 1, but for the n − 1 in the stored variance."""
    spec = pvr_zoo.spec("random_resnet18", input_size=96)
    network = random.build(spec)
    seen: list[torch.Tensor] = []
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        network(Preprocess(spec.transform)(torch.from_numpy(calibration.load())))
    assert len(seen) == 20
    for output in seen:
        assert output.mean((0, 2, 3)).abs().max() < 0.1
        assert (output.std((0, 2, 3)) - 1).abs().max() < 0.1


def test_repeatable_and_the_same_at_every_truncation_and_thread_count() -> None:
    frames = scenes()
    first = pvr_zoo.create("random_resnet18", truncate=2, input_size=64)
    torch.manual_seed(123)
    torch.set_num_threads(2)
    again = pvr_zoo.create("random_resnet18", truncate=2, input_size=64)
    deeper = pvr_zoo.create("random_resnet18", truncate=3, input_size=64)
    state = first.state_dict()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in state.items())
    assert all(torch.equal(value, deeper.state_dict()[key]) for key, value in state.items())
    torch.set_num_threads(1)
    assert torch.equal(first(frames), again(frames))


def test_another_seed_is_another_network() -> None:
    spec = pvr_zoo.spec("random_vits16", truncate=1, input_size=32)
    other = spec.request(seed=1)
    assert other == replace(spec, seed=1)
    a, b = (random.build(s).state_dict()["stem.net.patch_embed.proj.weight"] for s in (spec, other))
    assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 0.02


def test_the_seed_is_chosen_by_the_user_and_part_of_the_identity() -> None:
    encoder = pvr_zoo.create("random_vits16", truncate=1, input_size=32, seed=5)
    assert (encoder.identity["seed"], pvr_zoo.create("random_vits16", truncate=1).identity["seed"]) == (5, 0)
    with pytest.raises(pvr_zoo.SpecError, match="resnet18_in1k is not random"):
        pvr_zoo.spec("resnet18_in1k", seed=1)
    with pytest.raises(pvr_zoo.SpecError, match="seed=-1"):
        pvr_zoo.spec("random_vits16", seed=-1)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    pvr_zoo.create("random_vits16", truncate=1, input_size=32)
    assert torch.equal(before, torch.get_rng_state())


def test_stored_frames_are_what_the_script_draws() -> None:
    stored = calibration.load()
    assert stored.dtype == np.uint8
    assert np.array_equal(stored, calibration.draw())


def test_a_random_encoder_takes_no_weights() -> None:
    with pytest.raises(pvr_zoo.SpecError, match="random by definition"):
        pvr_zoo.create("random_resnet18", weights="x.pth")
    assert pvr_zoo.create("random_vits16", truncate=1, input_size=32).identity["seed"] == 0


def test_another_recipe_or_other_stored_frames_are_another_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of a random encoder have no checksum of their own; a run that goes on compares this instead."""

    def identity() -> dict:
        return pvr_zoo.create("random_resnet18", truncate=1, input_size=32).identity

    before = identity()
    assert identity() == before
    assert (before["recipe"], before["weights_sha256"]) == (1, None)
    with monkeypatch.context() as patch:
        patch.setattr(random, "RECIPE", 2)
        assert identity() == before | {"recipe": 2}
    other = tmp_path / "calibration.npz"
    np.savez(other, frames=calibration.draw(seed=1))
    monkeypatch.setattr(calibration, "FILE", other)
    changed = identity()
    assert changed != before and changed == before | {"calibration_sha256": changed["calibration_sha256"]}


def test_encoders_with_weights_carry_no_recipe() -> None:
    assert "recipe" not in pvr_zoo.create("embedded").identity
