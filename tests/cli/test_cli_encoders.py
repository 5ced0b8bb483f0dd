"""`encoders verify`, and licences, as the command line has them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pvr_zoo
from mbrl_pvr.cli.main import main
from pvr_zoo import registry, weights
from pvr_zoo import verify as checks
from pvr_zoo.network import bare


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pvr_zoo.EncoderSpec]:
    """A row that is not the zoo's own, and a cache of its own."""
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "cache"))
    yield pvr_zoo.register(replace(pvr_zoo.spec("resnet18_in1k"), name="lab_resnet"))
    registry.unregister("lab_resnet")


def verdicts(capsys: pytest.CaptureFixture[str], pattern: str, status: int = 0) -> list[dict]:
    assert main(["encoders", "verify", pattern, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_rows_that_nothing_is_stored_for_are_unverified_and_no_failure(
    plugin: pvr_zoo.EncoderSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("resnet18_in1k", "lab_resnet", "timm:resnet18.tv_in1k")
    ((own,), (lab,), (timm,)) = (verdicts(capsys, name) for name in names)
    assert (own["ok"], own["layout"]) == (True, "restated from code")
    for row in (lab, timm):
        assert (row["ok"], row["weights"], row["layout"]) == (None, "none", "unverified")
    assert main(["encoders", "verify", "lab_resnet"]) == 0
    assert capsys.readouterr().out.startswith("unverified lab_resnet")


def test_a_damaged_file_of_such_a_row_fails(plugin: pvr_zoo.EncoderSpec, capsys: pytest.CaptureFixture[str]) -> None:
    assert plugin.weights is not None
    path = weights.place(plugin.weights)
    path.parent.mkdir(parents=True)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    synthetic, real = verdicts(capsys, "lab_resnet", status=3)
    assert (synthetic["ok"], real["ok"], real["weights"]) == (None, False, "real")
    assert "hashes to" in real["note"]


def test_the_studys_encoders_are_listed_under_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoders", "list", "--group", "study"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("in the study")
    for theirs, ours in (("OpenCLIP", "imagebind_vith14"), ("Z-Depth (TKY)", "taskonomy_depth_zbuffer")):
        assert any(line.startswith(theirs) and ours in line.split() for line in lines)
    assert (
        any(line.startswith("Autoencoder: encoder=PATH") for line in lines) and "From Scratch: encoder=scratch" in lines
    )


def test_info_of_another_norm_and_input_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "encoders",
                "info",
                "dinov2_vits14",
                "--norm",
                "none",
                "--input-size",
                "112",
                "--feature",
                "patches",
                "--json",
            ]
        )
        == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert (facts["norm"], facts["input"], facts["feature_shape"]) == ("none", "112×112", [64, 384])
    assert main(["encoders", "info", "resnet18_in1k", "--norm", "keep"]) == 2
    assert "no norm='keep'" in capsys.readouterr().err


def test_info_of_what_is_no_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    """`encoder=` takes these two as well."""
    for name, words in (("scratch", "trained along with it"), ("state", "simulator's state")):
        assert main(["encoders", "info", name]) == 0
        assert words in capsys.readouterr().out
        assert main(["encoders", "info", name, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["name"] == name and words in told["what"]
    assert main(["encoders", "info", "scratch", "--feature", "mean"]) == 2
    assert "scratch is no encoder of the zoo" in capsys.readouterr().err


def test_info_says_which_sizes_are_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoders", "info", "random:timm:resnet18.tv_in1k", "--truncate", "2"]) == 0
    told = capsys.readouterr().out
    assert "parameters: 11,176,512" in told and "flops: not counted" in told and "of: the whole network" in told


def test_a_file_of_ones_own_is_loaded_strictly_and_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "mine.pth")
    shapes = {key: value.shape for key, value in bare(pvr_zoo.spec("resnet18_in1k")).state_dict().items()}
    state = checks.synthetic(shapes)
    flat = state | {"bn1.weight": torch.zeros(64), "bn1.bias": torch.ones(64)}  # nothing of the picture is left
    huge = state | {"conv1.weight": 1e38 * state["conv1.weight"]}
    for held, status, words in (
        (state, 0, "loads, finite, tells frames apart"),
        (flat, 3, "loads, finite, but gives every frame the same"),
        (huge, 3, "loads, not finite"),
        ({"conv1.weight": state["conv1.weight"]}, 3, "missing"),
    ):
        torch.save(held, file)
        assert main(["encoders", "verify", "resnet18_in1k", "--weights", file]) == status
        said = capsys.readouterr().out
        assert words in said and "resnet18_in1k" in said and " file " in said
    assert main(["encoders", "verify", "random_resnet18", "--weights", file]) == 2
    assert main(["encoders", "verify", "--weights", file]) == 2


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("random_resnet*", "random encoders alone"),
        ("random:resnet18_in1k", "random encoders alone"),
        ("resnt*", "nothing matches"),
        ("timm:resnet999", "timm has no 'resnet999'"),
    ],
)
def test_what_cannot_be_verified_is_said(pattern: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoders", "verify", pattern]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "encoders info NAME",
        "encoders download NAME",
        "encoders download embedded NAME",
        "encoders profile NAME --batch 1",
        "embed pictures --encoder NAME --out x.npz",
        "train encoder=NAME --dir run",
        "train encoder=NAME --dir run --dry-run",
    ],
)
def test_other_licences_are_refused_before_anything_is_fetched(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save("pictures/a.png")
    for name, licence, words in (
        ("mae_vitb16", "permissive", "mae_vitb16 is CC-BY-NC-4.0, which is not permissive but non-commercial"),
        ("embedded", "non-commercial", "embedded is MIT, which is not non-commercial but permissive"),
        ("embedded", "free", "there is no licence 'free'"),
    ):
        assert main([*command.replace("NAME", name).split(), "--licence", licence]) == 2
        assert words in capsys.readouterr().err
    assert not any((tmp_path / made).exists() for made in ("cache", "x.npz", "run"))


@pytest.mark.parametrize(
    "command",
    [
        "encoders download NAME",
        "encoders profile NAME --batch 1 --dtype float32",
        "embed . --encoder NAME --out x.npz",
        "train encoder=NAME --dry-run",
    ],
)
def test_the_licence_asked_for_passes(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save("a.png")
    assert main([*command.replace("NAME", "embedded").split(), "--licence", "permissive"]) == 0
    assert "embedded" in capsys.readouterr().out
