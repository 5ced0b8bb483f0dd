"""`encoders verify` sees a wrong activation and a wrong epsilon of the norms, and says no more than it knows."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pvr_zoo
from pvr_zoo import verify
from pvr_zoo.specs import EncoderSpec


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"quick": QuickGELU(), "exact": nn.GELU(), "tanh": nn.GELU(approximate="tanh")}
PUBLISHED = {  # activation and epsilon
    "clip_vitl14": ("quick", 1e-5),
    "openclip_vitb32": ("exact", 1e-5),
    "mae_vitb16": ("exact", 1e-6),
    "dinov2_vits14": ("exact", 1e-6),
    "siglip_vitb16": ("tanh", 1e-6),
    "theia_tiny": ("exact", 1e-12),
    "convnext_tiny_in1k": ("exact", 1e-6),
}
EPSILONS = (1e-5, 1e-6, 1e-12)


def swap_activation(network: nn.Module, activation: nn.Module) -> int:
    """Every GELU of whatever form; how many there were."""
    found = [(m, name) for m in network.modules() for name, child in m.named_children() if "GELU" in repr(type(child))]
    for module, name in found:
        setattr(module, name, activation)
    return len(found)


def set_epsilon(network: nn.Module, epsilon: float) -> int:
    norms = [module for module in network.modules() if isinstance(getattr(module, "eps", None), float)]
    for norm in norms:
        norm.eps = epsilon  # type: ignore[assignment]
    return len(norms)


def verdict(name: str, monkeypatch: pytest.MonkeyPatch, change: object = None) -> verify.Verdict:
    """With every network that `verify` loads changed before it is used."""
    load = verify.load_small

    def changed(row: EncoderSpec, state: Mapping[str, Tensor], folder: Path) -> pvr_zoo.Encoder:
        encoder = load(row, state, folder)
        if isinstance(change, nn.Module):
            assert swap_activation(encoder.network, change) > 1
        elif isinstance(change, float):
            assert set_epsilon(encoder.network, change) > 1
        return encoder

    with monkeypatch.context() as patch:
        patch.setattr(verify, "load_small", changed)
        found, *_ = verify.verify(name)  # of `embedded`, its real weights follow
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_another_activation_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for form, activation in ACTIVATIONS.items():
        found = verdict(name, monkeypatch, activation)
        assert found.ok == (form == PUBLISHED[name][0]), (form, found.errors)


@pytest.mark.parametrize("name", PUBLISHED)
def test_another_epsilon_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for epsilon in EPSILONS:
        found = verdict(name, monkeypatch, epsilon)
        assert found.ok == (epsilon == PUBLISHED[name][1]), (epsilon, found.errors)


@pytest.mark.parametrize("name", ["resnet18_in1k", "clip_rn50", "r2d2", "r2d2_wasf_n8_big", "taskonomy_normal"])
def test_another_epsilon_of_batch_norms_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for epsilon in EPSILONS:
        assert verdict(name, monkeypatch, epsilon).ok == (epsilon == 1e-5), epsilon


@pytest.mark.parametrize(
    ("name", "layout"),
    [("r2d2", "published list"), ("resnet18_in1k", "restated from code"), ("embedded", "unverified")],
)
def test_the_layout_is_as_good_as_the_list_of_keys(name: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict(name, monkeypatch).layout == layout


def test_a_fused_encoder_is_known_no_better_than_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = pvr_zoo.spec("moco_aug_uber_34")
    golden = json.loads(verify.GOLDEN.read_text())
    first, *rest = (part.name for part in row.parts)
    golden[first]["keys"] = "published list: for this test"
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    monkeypatch.setattr(verify, "GOLDEN", tmp_path / "golden.json")
    assert verdict(row.name, monkeypatch).layout == "restated from code"
    golden[rest[0]]["keys"] = ""
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    assert verdict(row.name, monkeypatch).layout == "unverified"
