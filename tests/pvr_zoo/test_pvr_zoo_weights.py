"""Finding weights on this machine: the cache, the hub's cache, package data; and what is said where there are none."""

import hashlib
import json
import os
from pathlib import Path

import pytest

import pvr_zoo
from pvr_zoo import WeightsError, WeightsUnavailable, weights
from pvr_zoo.specs import WeightsSource

CONTENT = bytes(range(256)) * 16
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("name", ["resnet18_in1k", "vits16_in1k", "dinov2_vitb14"])
def test_offline_says_everything(name: str) -> None:
    source = pvr_zoo.spec(name).weights
    assert source is not None
    with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE") as caught:
        pvr_zoo.create(name)
    for part in (source.address, source.sha256, str(weights.place(source))):
        assert part in caught.value.hint
    assert caught.value.exit_code == 8
    assert not weights.cache_root().exists()


def test_a_file_put_by_hand_is_used_and_checked() -> None:
    published = pvr_zoo.spec("resnet18_in1k").weights
    assert published is not None
    path = weights.place(published)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not the file")
    with pytest.raises(WeightsError, match=f"expected is {published.sha256}"):
        pvr_zoo.create("resnet18_in1k")


def test_hub_cache_is_found_and_its_content_hash_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of the hub client's cache: blobs named by SHA-256, snapshots by commit, links between them."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub, commit = WeightsSource(hub="timm/some.net"), "a" * 40
    repo = tmp_path / "hub" / "models--timm--some.net"
    for folder in ("blobs", "refs", f"snapshots/{commit}"):
        (repo / folder).mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "blobs" / SHA256).write_bytes(CONTENT)
    os.symlink(f"../../blobs/{SHA256}", repo / "snapshots" / commit / "model.safetensors")
    path, origin, sha256 = weights.locate(hub)
    assert path.read_bytes() == CONTENT
    assert (origin, sha256) == (f"hub timm/some.net@{commit}", SHA256)


def test_unshipped_package_data_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_PACKAGE", tmp_path)
    with pytest.raises(WeightsUnavailable, match="mbrl-pvr pretrain autoencoder"):
        pvr_zoo.create("embedded")


def test_a_file_of_the_hub_put_by_hand_is_used_and_a_note_beside_it_believed() -> None:
    source = WeightsSource(hub="timm/some.net")
    path = weights.place(source)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert weights.locate(source) == (path, source.address, "")
    note = {"origin": "hub timm/some.net@abc", "sha256": SHA256}
    path.with_name(path.name + ".origin").write_text(json.dumps(note))
    assert weights.locate(source) == (path, "hub timm/some.net@abc", SHA256)
    path.with_name(path.name + ".origin").write_text("")
    assert weights.locate(source) == (path, source.address, "")


def test_revisions_of_one_file_do_not_meet() -> None:
    places = {weights.place(WeightsSource(hub="a/b", revision=revision)) for revision in ("main", "v1", "v2")}
    assert len(places) == 3
