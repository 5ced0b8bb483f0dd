"""Listing and looking up: without torch, with helpful errors, with shapes known before anything is built."""

import fnmatch
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import pvr_zoo
from pvr_zoo import SpecError, UnknownEncoder, registry
from pvr_zoo.encoder import identity
from pvr_zoo.network import build


def test_listing_and_specs_do_not_import_torch() -> None:
    code = (
        "import sys, pvr_zoo; assert pvr_zoo.list_encoders('*resnet*');"
        "pvr_zoo.spec('dinov2_vits14', truncate=3).feature_shape;"
        "print([m for m in ('torch', 'timm', 'numpy', 'huggingface_hub') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_list_takes_a_pattern() -> None:
    assert pvr_zoo.list_encoders("random_resnet*") == ["random_resnet18", "random_resnet34", "random_resnet50"]
    assert pvr_zoo.list_encoders("nothing*") == []


@pytest.mark.parametrize("name", pvr_zoo.list_encoders())
def test_every_encoder_has_a_random_control(name: str) -> None:
    row = pvr_zoo.spec(name)
    if row.seed is None:
        control = pvr_zoo.spec(f"random:{name}")
        assert (control.seed, control.weights, control.architecture) == (0, None, row.architecture)
        assert control.feature_shape == row.feature_shape


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownEncoder, match=r"'dinov2_vits16'.*Did you mean .*'dinov2_vits14'") as caught:
        pvr_zoo.create("dinov2_vits16")
    assert caught.value.exit_code == 2
    assert "encoders list" in caught.value.hint


def test_duplicate_names_raise() -> None:
    with pytest.raises(SpecError, match="registered already"):
        pvr_zoo.register(pvr_zoo.spec("resnet18_in1k"))


@pytest.mark.parametrize(
    ("name", "request_", "shape"),
    [
        ("resnet18_in1k", {}, (512,)),
        ("resnet50_in1k", {"truncate": 3}, (1024,)),
        ("resnet50_in1k", {"feature": "patches"}, (49, 2048)),
        ("resnet18_in1k", {"feature": "patches", "truncate": 2, "input_size": 100}, (13 * 13, 128)),
        ("vits16_dino", {}, (384,)),
        ("vits8_dino", {"feature": "patches"}, (784, 384)),
        ("dinov2_vits14", {"feature": "patches"}, (256, 384)),
        ("dinov2_vitl14", {"feature": "patches", "input_size": 112, "truncate": 20}, (64, 1024)),
        ("mae_vitl16", {"feature": "mean", "truncate": 1}, (1024,)),
        ("embedded", {}, (256,)),
        ("resnet18_in1k", {"truncate": [2, 4]}, (128 + 512,)),
        ("vits16_dino", {"truncate": (4, 8, 12), "feature": "patches"}, (196, 3 * 384)),
        ("vits16_dino", {"truncate": 6, "feature": "keypoints"}, (768,)),
    ],
)
def test_feature_shape(name: str, request_: dict, shape: tuple[int, ...]) -> None:
    assert pvr_zoo.spec(name, **request_).feature_shape == shape


@pytest.mark.parametrize(
    ("name", "request_", "message"),
    [
        ("vits16_dino", {"truncate": 13}, "truncate=13.*12 blocks"),
        ("vits16_dino", {"truncate": 0}, "truncate=0.*12 blocks"),
        ("resnet18_in1k", {"truncate": 5}, "4 stages"),
        ("resnet18_in1k", {"truncate": True}, "truncate=True"),
        ("resnet18_in1k", {"truncate": 1.0}, "truncate=1.0"),
        ("resnet18_in1k", {"truncate": [4, 2]}, r"truncate=\[4, 2\].*rising"),
        ("resnet18_in1k", {"truncate": []}, r"truncate=\[\]"),
        ("resnet18_in1k", {"truncate": "3"}, "truncate='3'"),
        ("resnet18_in1k", {"truncate": [3, 4], "feature": "patches"}, "different grids: 14×14, 7×7"),
        ("resnet18_in1k", {"feature": "output"}, "no feature='output'"),
        ("resnet18_in1k", {"feature": "cls"}, "no feature='cls'.*mean, patches"),
        ("resnet18_in1k", {"norm": "keep"}, "no norm='keep'"),
        ("vits16_dino", {"norm": "layer"}, "keep, none"),
        ("vits16_dino", {"input_size": 100}, "multiple of 16"),
        ("dinov2_vits14", {"input_size": 14}, "input_size=14"),
        ("embedded", {"input_size": 128}, "64 only"),
    ],
)
def test_impossible_requests_are_refused_before_any_file_is_touched(name: str, request_: dict, message: str) -> None:
    with pytest.raises(SpecError, match=f"(?s){message}"):
        pvr_zoo.create(name, weights="/does/not/exist", **request_)


def test_published_transforms() -> None:
    resnet = pvr_zoo.spec("resnet18_in1k").transform
    assert (resnet.resize, resnet.crop, resnet.kernel, resnet.antialias) == (256, 224, "bilinear", True)
    augreg = pvr_zoo.spec("vits16_in1k").transform
    assert (augreg.resize, augreg.crop, augreg.kernel, augreg.mean, augreg.std) == (
        *(248, 224, "bicubic"),
        *((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )
    for name in ("vits8_dino", "dinov2_vitb14", "mae_vitl16"):
        transform = pvr_zoo.spec(name).transform
        assert (transform.resize, transform.crop, transform.kernel) == (256, 224, "bicubic")


def test_another_input_size_keeps_the_share_of_the_crop_and_is_part_of_the_identity() -> None:
    spec = pvr_zoo.spec("resnet18_in1k", input_size=112)
    assert (spec.transform.resize, spec.transform.crop, spec.render_size) == (128, 112, 128)
    assert identity(spec, {}) != identity(pvr_zoo.spec("resnet18_in1k"), {})


TRAINED = [name for name in pvr_zoo.list_encoders() if pvr_zoo.spec(name).seed is None]
BUILT = {  # twins differ in weights alone
    repr((row.builder, row.architecture, row.options, row.features, row.input_size)): row.name
    for row in map(pvr_zoo.spec, reversed(TRAINED))
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in BUILT.values() else pytest.mark.slow) for n in TRAINED]
)
def test_row_agrees_with_the_network_it_builds(name: str) -> None:
    """Every trained row: what it builds has the declared shape for every feature.

    The networks live on the meta device, where shapes are worked out and nothing is computed.
    """
    row = pvr_zoo.spec(name)
    several = sorted({1, row.depth})
    requests = [{"truncate": 1}, {"truncate": several}, *({"feature": feature} for feature in row.features)]
    for spec in (row.request(**request) for request in requests):
        network = build(spec, None).eval()
        with torch.no_grad():
            output = network(torch.empty(2, 3, spec.input_size, spec.input_size, device="meta"))
        assert tuple(output.shape) == (2, *spec.feature_shape)


@pytest.mark.parametrize("name", pvr_zoo.list_encoders())
def test_every_row_says_what_it_is(name: str) -> None:
    row = pvr_zoo.spec(name)
    assert row.licence and row.groups.objective
    assert json.loads(json.dumps(identity(row, {}))) == identity(row, {})


UNPINNED = ("dino_resnet50", "ijepa_*", "moco_*", "pvr_resnet50_*", "r3m_*", "vip_*")  # no public record of a checksum


@pytest.mark.parametrize("name", pvr_zoo.list_encoders())
def test_url_sources_are_pinned_where_a_checksum_is_on_record(name: str) -> None:
    source = pvr_zoo.spec(name).weights
    if source is not None and source.url:
        known = not any(fnmatch.fnmatch(name, pattern) for pattern in UNPINNED)
        assert len(source.sha256) == 64 * known
        if "download.pytorch.org" in source.url:  # torchvision puts the first digits into the file's name
            assert source.sha256[:8] in source.filename


def test_plugins_can_be_taken_out_again() -> None:
    pvr_zoo.register(replace(pvr_zoo.spec("resnet18_in1k"), name="mine"))
    assert "mine" in pvr_zoo.list_encoders()
    registry.unregister("mine")
    assert "mine" not in pvr_zoo.list_encoders()
