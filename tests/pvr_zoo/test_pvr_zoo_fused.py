"""Encoders put together from several files: read, hashed and refused one by one, used as one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from references import reference

import pvr_zoo
from pvr_zoo import checkpoint, registry, verify, weights
from pvr_zoo.network import build
from pvr_zoo.rows.fused import fuse
from pvr_zoo.trainable import cut, held_shape

NAME = "lab_uber_345"


@pytest.fixture
def cached() -> Iterator[dict[str, Path]]:
    """A small fused encoder under the name NAME, and its parts' files in the cache, by the parts' names."""
    spec = verify.small(pvr_zoo.spec("moco_aug_uber_345"))
    files = {}
    for part in spec.parts:
        assert part.weights is not None
        state = verify.synthetic(reference(part.builder).shapes(part))
        files[part.name] = weights.place(part.weights)
        files[part.name].parent.mkdir(parents=True)
        torch.save(verify.published(state, part.layout), files[part.name])
    pvr_zoo.register(replace(spec, name=NAME))
    yield files
    registry.unregister(NAME)


def test_the_features_of_three_files_stand_side_by_side(cached: dict[str, Path]) -> None:
    encoder = pvr_zoo.create(NAME)
    alone = []
    for part in encoder.spec.parts:
        state, _ = checkpoint.read(cached[part.name])
        network = build(part, checkpoint.unwrap(state, part.layout, cached[part.name]))
        alone.append(pvr_zoo.Encoder(part, network, {})(verify.frames()))
    assert [part.name for part in encoder.spec.parts] == ["moco_aug_l3", "moco_aug_l4", "moco_aug"]
    assert torch.equal(encoder(verify.frames()), torch.cat(alone, 1))
    assert encoder.identity["weights_sha256"] == [checkpoint.file_sha256(path) for path in cached.values()]
    assert len(set(encoder.identity["weights_origin"])) == 3


def test_a_part_that_is_missing_or_damaged_is_named(cached: dict[str, Path]) -> None:
    path = cached["moco_aug_l4"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-500])
    with pytest.raises(pvr_zoo.WeightsError, match=path.name):
        pvr_zoo.create(NAME)
    path.unlink()
    with pytest.raises(pvr_zoo.WeightsUnavailable, match=r"moco_aug_l4\.pth is not on this machine"):
        pvr_zoo.create(NAME)
    path.write_bytes(cached["moco_aug_l3"].read_bytes())
    with pytest.raises(pvr_zoo.WeightsError, match=rf"do not fit {NAME}: .*moco_aug_l4\.layer3"):
        pvr_zoo.create(NAME)


def test_one_file_cannot_replace_them() -> None:
    with pytest.raises(
        pvr_zoo.SpecError, match=r"put together from 2 files.*(?s:.)*moco_aug_l3, moco_aug_l4"
    ) as caught:
        pvr_zoo.create("moco_aug_uber_34", weights="x.pth")
    assert caught.value.exit_code == 2


def test_what_upstream_lists_is_there() -> None:
    """The widths: 11 × 14² after stage 3, 42 × 7² after stage 4, 2048 at the end."""
    widths = {"345": 2156 + 2058 + 2048, "35": 2156 + 2048, "34": 2156 + 2058, "45": 2058 + 2048}
    trained = ("moco_aug", "moco_aug_places", "moco_croponly", "moco_croponly_places")
    wanted = {f"{base}_uber_{stages}": (width,) for base in trained for stages, width in widths.items()}
    assert {name: pvr_zoo.spec(name).feature_shape for name in pvr_zoo.list_encoders("*_uber_*")} == wanted
    assert len(pvr_zoo.spec("moco_aug_uber").sources) == 1  # one network, not to be mistaken for these


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((pvr_zoo.spec("moco_aug"), pvr_zoo.spec("dino_resnet50")), "parts see different images"),
        ((pvr_zoo.spec("moco_aug"), pvr_zoo.spec("moco_aug", truncate=3)), r"\['moco_aug', 'moco_aug'\]"),
        ((pvr_zoo.spec("moco_aug"), pvr_zoo.spec("moco_croponly", feature="patches")), r"\(49, 2048\)"),
    ],
)
def test_parts_that_cannot_stand_side_by_side(parts: tuple[pvr_zoo.EncoderSpec, ...], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        fuse("odd", parts)


def test_the_control_is_drawn_part_by_part(frames: torch.Tensor) -> None:
    spec = pvr_zoo.spec("random:moco_aug_uber_35")
    assert spec.sources == () and spec.feature_shape == (2156 + 2048,)
    encoder = pvr_zoo.create("random:moco_aug_uber_35")
    state = encoder.state_dict()
    first, second = (state[f"network.{part}.stem.0.weight"] for part in ("moco_aug_l3", "moco_aug"))
    assert not torch.equal(first, second)
    features = encoder(frames)
    for part in features.split([2156, 2048], 1):
        assert (part[0] - part[1]).norm() > 0.02 * part.norm(dim=1).mean()


@pytest.mark.parametrize("trainable", ["lora", "all"])
def test_it_learns_as_a_whole(cached: dict[str, Path], trainable: str) -> None:
    wanted = pvr_zoo.create(NAME)(verify.frames())
    trunk, tail = cut(pvr_zoo.create(NAME), trainable, rank=2)
    feature = tail(trunk(verify.frames()))
    torch.testing.assert_close(feature, wanted, atol=2e-5, rtol=1e-4)
    feature.square().sum().backward()
    assert len(tail.network) == len(trunk.identity["weights_sha256"]) == 3
    for part in tail.network.values():
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_it_has_no_levels_to_cut_between() -> None:
    with pytest.raises(pvr_zoo.SpecError, match=r"no levels to cut between\nTrain all of it"):
        held_shape(pvr_zoo.spec("moco_aug_uber_345"), 1)
