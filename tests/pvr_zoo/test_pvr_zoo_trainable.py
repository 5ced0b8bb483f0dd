"""An encoder cut in two gives the features of the whole, and only what should learn gets gradients."""

import pytest
import torch

import pvr_zoo
from pvr_zoo.network import Network
from pvr_zoo.trainable import cut, held_shape

VIT = {"truncate": 3, "input_size": 32, "feature": "mean"}
RESNET = {"input_size": 64}


@pytest.mark.parametrize(
    ("name", "request_", "trainable", "held"),
    [
        ("random_vits16", VIT, 1, (5, 384)),
        ("random_vits16", VIT, 3, (5, 384)),
        ("random_resnet18", RESNET, 2, (128, 8, 8)),
        ("random_vits16", VIT, "lora", (32, 32, 3)),
        ("random_resnet18", RESNET, "lora", (64, 64, 3)),
        ("random_resnet18", RESNET, "all", (64, 64, 3)),
        ("embedded", {}, "all", (64, 64, 3)),
    ],
)
def test_the_two_parts_are_the_whole(
    frames: torch.Tensor, name: str, request_: dict, trainable: int | str, held: tuple[int, ...]
) -> None:
    whole = pvr_zoo.create(name, **request_)
    wanted = whole(frames)
    trunk, tail = cut(pvr_zoo.create(name, **request_), trainable, rank=4)
    kept = trunk(frames)
    assert kept.shape == (4, *held) and held_shape(whole.spec, trainable) == trunk.feature_shape == held
    assert kept.dtype == (torch.uint8 if isinstance(trainable, str) else torch.float32)
    feature = tail.train()(kept)
    assert feature.shape == (4, *tail.feature_shape)
    torch.testing.assert_close(feature, wanted, atol=2e-5, rtol=1e-4)  # LoRA begins at zero effect
    assert not any(module.training for module in tail.modules())
    extra = {"trainable": trainable, **({"lora_rank": 4} if trainable == "lora" else {})}
    assert trunk.identity == whole.identity | extra


def test_k_levels_learn_and_the_rest_is_gone(frames: torch.Tensor) -> None:
    trunk, tail = cut(pvr_zoo.create("random_vits16", **VIT), 2)
    assert isinstance(tail.network, Network) and len(tail.network.levels) == 2
    assert not any(p.requires_grad for p in trunk.parameters()) and not trunk(frames).requires_grad
    tail(trunk(frames)).square().sum().backward()
    blocks = {name: p.grad for name, p in tail.network.levels.named_parameters()}
    assert all(grad is not None and grad.abs().sum() > 0 for grad in blocks.values())


@pytest.mark.parametrize(("name", "request_"), [("random_vits16", VIT), ("random_resnet18", RESNET)])
def test_lora_adds_few_parameters_and_nothing_else_learns(frames: torch.Tensor, name: str, request_: dict) -> None:
    trunk, tail = cut(pvr_zoo.create(name, **request_), "lora", rank=4, seed=1)
    learnt = {key: p for key, p in tail.named_parameters() if p.requires_grad}
    everything = sum(p.numel() for p in tail.parameters())
    assert learnt and all("lora_" in key for key in learnt)
    assert sum(p.numel() for p in learnt.values()) < 0.1 * everything
    again = cut(pvr_zoo.create(name, **request_), "lora", rank=4, seed=1)[1].state_dict()
    assert all(torch.equal(value, again[key]) for key, value in tail.state_dict().items())
    optimiser = torch.optim.Adam(learnt.values(), lr=1e-2)
    before = tail(trunk(frames)).detach()
    for _ in range(2):  # the first step moves one factor, the second sees both
        optimiser.zero_grad()
        tail(trunk(frames)).square().mean().backward()
        optimiser.step()
    assert (tail(trunk(frames)) - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "request_", "trainable", "message"),
    [
        ("random_vits16", VIT, 4, "trainable=4.*3 blocks"),
        ("random_vits16", VIT, "some", "trainable='some'.*lora, all"),
        ("random_vits16", VIT | {"truncate": [1, 3]}, 1, "leaves layer 1 frozen"),
    ],
)
def test_impossible_cuts_are_refused(name: str, request_: dict, trainable: int | str, message: str) -> None:
    with pytest.raises(pvr_zoo.SpecError, match=f"(?s){message}"):
        cut(pvr_zoo.create(name, **request_), trainable)


def test_the_feature_of_several_layers_survives_the_cut(frames: torch.Tensor) -> None:
    request_ = VIT | {"truncate": [2, 3]}
    trunk, tail = cut(pvr_zoo.create("random_vits16", **request_), 2)
    wanted = pvr_zoo.create("random_vits16", **request_)(frames)
    torch.testing.assert_close(tail(trunk(frames)), wanted, atol=2e-5, rtol=1e-4)
