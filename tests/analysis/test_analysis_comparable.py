"""Runs that are not comparable are refused with the reason; those that say less than others are not."""

import json

import pandas as pd
import pytest

from analysis import AnalysisError, load_runs
from analysis.groups import check_comparable
from analysis.tables import Names, in_and_out

VERSIONS = {"dm_control": "1.0.50", "mujoco": "3.17.0", "torch": "2.13.0", "sapien": "3.0"}


def told(folder, **facts):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    return folder


@pytest.fixture
def pair(make_run):
    """Maker of two runs that differ in the seed and in what is given of each."""

    def make(first, second, **settings):
        folders = [make_run(f"run{seed}", seed=seed, parts=(), **settings) for seed in (1, 2)]
        return load_runs([told(folder, **facts) for folder, facts in zip(folders, (first, second), strict=True)])

    return make


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"versions": {"mujoco": "3.18.0"}}, {}, "the version of mujoco is '3.17.0' in one and '3.18.0' in another"),
        ({"encoder": {"weights_sha256": "ab"}}, {}, "the encoder's weights_sha256 is 'cd' in one and 'ab' in another"),
        ({"encoder": {"weights_sha256": "cd", "transform": "x"}}, {}, "the encoder's transform is 'y' in one and 'x'"),
    ],
)
def test_other_simulators_and_encoders_are_refused(pair, one, other, said):
    plain = {"versions": VERSIONS, "encoder": {"weights_sha256": "cd", "transform": "y"}}
    changed = {key: {**value, **one.get(key, {})} for key, value in plain.items()}
    with pytest.raises(AnalysisError, match="runs on dmc/walker-walk cannot be compared") as caught:
        check_comparable(pair(plain | other, changed))
    assert said in str(caught.value) and "run1 and " in caught.value.where


def test_another_renderer_is_refused_where_it_draws(make_run):
    def backends(encoder, place):
        made = [
            make_run(f"{place}/{one}", encoder, seed, parts=(), env__backend=one)
            for seed, one in enumerate(("egl", "osmesa"))
        ]
        return load_runs(made)

    with pytest.raises(AnalysisError, match=r"env\.backend is 'egl' in one and 'osmesa' in another"):
        check_comparable(backends("embedded", "pixels"))
    check_comparable(backends("state", "states"))


def test_what_makes_no_difference_is_not_compared(pair, make_run):
    """Versions of other simulators and of torch; weights of different encoders; manifests that say nothing."""
    check_comparable(pair({"versions": VERSIONS}, {"versions": VERSIONS | {"torch": "3", "sapien": "4"}}))
    clip = told(make_run("clip", "clip_vitl14", parts=()), encoder={"weights_sha256": "ab"})
    vit = told(make_run("vit", "vc1_vitb", parts=()), encoder={"weights_sha256": "cd"})
    check_comparable(load_runs([clip, vit, make_run("silent", "vc1_vitb", 3, parts=())]))


def test_returns_under_other_severities_are_not_averaged(make_run):
    """A run that was also played at lower severities and under single factors counts as one that was not."""
    folders = [make_run(name, seed=seed) for name, seed in (("plain", 1), ("doses", 2), ("mild", 3))]
    for folder, top in zip(folders[1:], (1.0, 0.5), strict=True):
        rows = pd.read_parquet(folder / "ood.parquet").astype({"severity": float})
        shifted = rows[rows["shift"] != "none"]
        weak = shifted.assign(severity=0.25, **{"return": 1000.0})
        alone = shifted.assign(split="held_out:agent", **{"return": 0.0})
        rows.loc[rows["shift"] != "none", "severity"] = top
        pd.concat([rows, weak, alone]).to_parquet(folder / "ood.parquet")
    plain, doses, mild = load_runs(folders)
    names = Names({run.id: "embedded" for run in (plain, doses, mild)}, {"embedded": "embedded"})
    _, table = in_and_out([plain, doses], names)
    assert table["outside"].between(100, 900).all() and (table["outside"] < table["inside"]).all()
    assert doses.played.conditions == plain.played.conditions == {("color_easy", 1.0)}
    with pytest.raises(AnalysisError, match=r"color_easy at 1 and color_easy at 0\.5") as caught:
        in_and_out([plain, doses, mild], names)
    assert "plain and " in caught.value.where and "mbrl-pvr ood RUN" in caught.value.hint
