"""Cards, groups, licences, costs and profiles."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from make_costs import cost

import pvr_zoo
from pvr_zoo import SpecError, catalogue, profile, study


def test_cards_need_no_torch_and_are_json() -> None:
    code = (
        "import sys, json, pvr_zoo, pvr_zoo.catalogue as c;"
        "json.dumps([c.card(row) for row in c.choose()]); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("name", pvr_zoo.list_encoders())
def test_every_card_is_filled(name: str) -> None:
    row = pvr_zoo.spec(name)
    card = catalogue.card(row)
    assert card["parameters"] > 1e5 and card["flops"] > 1e6, "run tools/make_costs.py"
    assert card["objective"] and card["backbone"] and card["licence"]
    if row.seed is None:
        assert card["data"] and card["citation"]
    if "output" in row.features:
        assert card["output"]
    if row.depth > 1:
        assert card["when_truncated"], "say what of the network's end is applied when it is cut"


@pytest.mark.parametrize("name", ["resnet50_in1k", "dinov2_vits14"])
def test_stored_costs_are_counted_again(name: str) -> None:
    assert cost(pvr_zoo.spec(name)) == json.loads(catalogue.COSTS.read_text())[name]


def test_known_costs() -> None:
    """He et al. 2016: 3.8 G multiplications and additions (4.1 in torchvision's variant) and 25.6 M parameters, 2.05 M
    of them in the classifier that is left out."""
    card = catalogue.card(pvr_zoo.spec("resnet50_in1k"))
    assert card["parameters"] == 23_508_032
    assert card["flops"] / 2e9 == pytest.approx(4.09, rel=0.01)


def test_a_control_has_the_cost_of_what_it_controls_for() -> None:
    own, control = (catalogue.card(pvr_zoo.spec(name)) for name in ("dinov2_vits14", "random:dinov2_vits14"))
    assert control["parameters"] == own["parameters"] and control["flops"] == own["flops"] is not None


def test_parameters_that_are_not_stored_are_counted_whole() -> None:
    """The same network under the zoo's name and under another library's."""
    stored = catalogue.info(pvr_zoo.spec("resnet18_in1k"))["parameters"]
    for name in ("timm:resnet18.tv_in1k", "random:timm:resnet18.tv_in1k"):
        facts = catalogue.info(pvr_zoo.spec(name), truncate=2)
        assert (facts["parameters"], facts["flops"]) == (stored, None)
        assert "whole network" in facts["parameters_and_flops_of"] and facts["truncate"] == 2


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("openclip:ViT-B-32/laion2b_s34b_b79k", "openclip_vitb32"),
        ("openclip:RN50/openai", "clip_rn50"),
    ],
)
def test_open_clips_names_of_the_zoos_rows_agree_with_them(name: str, own: str) -> None:
    row, registered = pvr_zoo.spec(name), pvr_zoo.spec(own)
    for part in ("licence", "groups", "citation"):
        assert getattr(row, part) == getattr(registered, part)
    assert catalogue.info(row)["parameters"] == catalogue.card(registered)["parameters"]


def test_groups_and_licences_filter() -> None:
    names = {row.name for row in catalogue.choose(licence="permissive")}
    assert "resnet18_in1k" in names and "mae_vitb16" not in names
    assert {row.name for row in catalogue.choose("mae*", licence="non-commercial")} >= {"mae_vitb16", "mae_vitl16"}
    vits = {row.name for row in catalogue.choose(group="vit")}
    assert "dinov2_vits14" in vits and "resnet18_in1k" not in vits
    with pytest.raises(SpecError, match=r"no group 'size'.*\n?.*language"):
        catalogue.choose(group="size")
    with pytest.raises(SpecError, match=r"mae_vitb16 is CC-BY-NC-4.0, which is not permissive"):
        catalogue.require_licence(pvr_zoo.spec("mae_vitb16"), "permissive")
    catalogue.require_licence(pvr_zoo.spec("resnet18_in1k"), "permissive")


@pytest.mark.parametrize(
    ("name", "licence", "use"),
    [
        ("resnet18_in1k", "BSD-3-Clause", "allowed"),
        ("mae_vitb16", "CC-BY-NC-4.0", "not allowed"),
        ("theia_tiny", "LicenseRef-AI-Institute-non-commercial", "not allowed"),
        ("dinov3_vitb16", "LicenseRef-DINOv3", "read the terms"),
        ("cradio_v3_vitb16", "LicenseRef-NVIDIA-Open-Model", "read the terms"),
    ],
)
def test_cards_say_whether_commercial_use_is_allowed(name: str, licence: str, use: str) -> None:
    card = catalogue.card(pvr_zoo.spec(name))
    assert (card["licence"], card["commercial_use"]) == (licence, use)


def test_a_summary_that_is_not_offered_is_told() -> None:
    rows = [pvr_zoo.spec(name) for name in pvr_zoo.list_encoders("cradio_v*")]
    assert len(rows) == 6
    for row in rows:
        told = catalogue.card(row)["output"]
        assert ("is not offered" in told) is (row.name.startswith("cradio_v3") and "output" not in row.features), told


def test_the_group_study_has_its_fourteen_encoders() -> None:
    cards = [catalogue.card(row) for row in catalogue.choose(group="study")]
    assert {card["name_in_study"]: card["name"] for card in cards} == study.ENCODERS
    assert len(study.ENCODERS) + len(study.OTHERS) == 14
    sizes = {card["name"]: card["feature_shape"] for card in cards}  # of the embeddings: facts of the public code
    assert sizes["clip_rn50x64"] == sizes["imagebind_vith14"] == sizes["vc1_vitl"] == [1024]
    assert sizes["dinov2_vitg14"] == [1536] and sizes["r3m_resnet50"] == sizes["taskonomy_keypoints3d"] == [2048]
    assert sizes["r2d2"] == sizes["vip_resnet50"] == [1024] and sizes["clip_vitl14"] == [768]
    assert catalogue.card(pvr_zoo.spec("openclip_vith14"))["name_in_study"] == ""
    assert {row.name for row in catalogue.choose("*clip*", group="study")} == {"clip_rn50x64", "clip_vitl14"}


def test_cards_say_what_of_a_file_is_left_out() -> None:
    card = catalogue.card(pvr_zoo.spec("cradio_v3_vitb16"))
    assert card["prefix"] == ["radio_model.model."]
    assert catalogue.card(pvr_zoo.spec("r3m_resnet50"))["top"] == ["r3m"]
    assert card["dropped"] == ["radio_model.input_conditioner.", "radio_model.summary_idxs"]
    fused = pvr_zoo.spec("moco_aug_uber_345")
    dropped = catalogue.card(fused)["dropped"]
    assert dropped and set(dropped) == {text for part in fused.parts for text in part.layout.drop}
    control = catalogue.card(pvr_zoo.spec("random:cradio_v3_vitb16"))
    assert control["prefix"] == control["dropped"] == [], "it has no file"


def test_groups_are_editable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "groups.yaml"
    monkeypatch.setenv("MBRL_PVR_GROUPS", str(path))
    row = pvr_zoo.spec("resnet18_in1k")
    for text, wanted in (("resnet18_in1k: {sequential: true}", True), ("{}", False)):
        path.write_text(text)
        catalogue._others.cache_clear()
        assert catalogue.groups(row)["sequential"] is wanted
    for text in ("resnet19: {diverse: true}", "resnet18_in1k: {fast: true}", "resnet18_in1k: {vit: 3}", "[1]", "a: ["):
        path.write_text(text)
        catalogue._others.cache_clear()
        with pytest.raises(SpecError, match="table of groups"):
            catalogue.groups(row)
    catalogue._others.cache_clear()


def test_profile_measures_both_precisions() -> None:
    rows = list(profile.profile("random_vits16", batches=(1, 2), truncate=2, input_size=32))
    assert [(row.dtype, row.batch) for row in rows] == [(d, b) for d in ("float32", "bfloat16") for b in (1, 2)]
    single, double = rows[0], rows[2]
    assert single.error < 1e-5 < double.error < 0.1
    assert single.bytes_in_replay == 768 and single.truncate == 2
    tokens, width = 5, 384
    block = 2 * tokens * 12 * width**2  # qkv, proj, two layers of four times the width
    assert single.gigaflops * 1e9 == pytest.approx(2 * block + 2 * 4 * 768 * width, rel=0.02)  # and the patches
    assert 0 < single.megabytes < rows[1].megabytes
    assert all(row.images_per_second > 0 and row.share_of_bare > 0 for row in rows)
