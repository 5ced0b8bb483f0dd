"""Every encoder, at a small size, from a file in its published layout, against code that is not ours.

For each family, tests/golden/zoo/<family>.py gives SOURCE (what the other side is), `shapes(spec)` (names and shapes of
the published file, heads that are dropped included) and `feature(spec, state, images)`.
"""

import json
from pathlib import Path

import pytest
import torch
from references import published_keys, reference

import pvr_zoo
from pvr_zoo import checkpoint, verify
from pvr_zoo.families import fused
from pvr_zoo.network import bare, convert
from pvr_zoo.specs import EncoderSpec

TRAINED = [name for name in pvr_zoo.list_encoders() if pvr_zoo.spec(name).seed is None]


def kind(row: EncoderSpec) -> str:
    """What decides which code a row runs through; rows that share it differ in their weights alone."""
    parts = [kind(part) for part in row.parts]
    own = (row.builder, row.architecture, row.options, row.layout, row.transform, row.features, row.positions)
    return repr((own, parts))


FIRST = {kind(pvr_zoo.spec(name)): name for name in reversed(TRAINED)}
NAMES = [pytest.param(n, marks=[] if n in FIRST.values() else pytest.mark.slow) for n in TRAINED]  # twins are slow


@pytest.mark.parametrize("name", NAMES)
def test_features_equal_an_independent_implementation(name: str, tmp_path: Path) -> None:
    """Every feature kind at full depth, and the default one after the first level, from the same images."""
    row = pvr_zoo.spec(name)
    other = reference(row.builder)
    shrunk = verify.small(row)
    state = verify.synthetic(other.shapes(shrunk))
    requests = [{"feature": kind} for kind in shrunk.offered] + [{"truncate": 1}] * (shrunk.depth > 1)
    for request in requests:
        spec = shrunk.request(**request)
        if spec.feature == "keypoints":
            continue  # our own reading of a map that "patches" has checked
        encoder = verify.load(spec, state, tmp_path)
        images = encoder.preprocess(verify.frames())
        feature = encoder(verify.frames())
        wanted = other.feature(spec, state, images)
        assert feature.shape == wanted.shape == (4, *spec.feature_shape)
        assert verify.relative_error(feature, wanted) < 1e-5, request
        assert (feature[0] - feature[1]).abs().max() > 1e-2 * feature.std()  # it sees the frames
        encoder.train()
        one = torch.cat([encoder(frame[None]) for frame in verify.frames()])
        assert verify.relative_error(one, feature) < 1e-4  # eval after train(), and batch-invariant


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_layout_is_refused(name: str, tmp_path: Path) -> None:
    row = pvr_zoo.spec(name)
    state = verify.synthetic(reference(row.builder).shapes(verify.small(row)))
    idle = (
        "num_batches_tracked",
        *(mark for part in row.parts or (row,) for mark in part.layout.drop),
    )  # may be absent
    kept = [key for key in state if not any(mark in key for mark in idle)]
    wrong = {
        "missing": {key: value for key, value in state.items() if key != kept[-1]},
        "extra": state | {f"{kept[0]}_of_another_model": torch.zeros(1)},
        "shape": state | {kept[0]: torch.zeros(1, 2, 3)},
        "NaN": state | {kept[0]: torch.full_like(state[kept[0]], torch.nan)},
    }
    for part in row.parts or (row,):
        for prefix in part.layout.prefix:  # another encoder's file may have the same names without it
            wrong[f"without {prefix}"] = {key.replace(prefix, ""): value for key, value in state.items()}
    for bad in wrong.values():
        with pytest.raises(pvr_zoo.WeightsError):
            verify.load_small(row, bad, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_full_size_network_takes_the_published_keys(name: str, tmp_path: Path) -> None:
    """The stored list of the published file's keys and shapes, wrapped and dropped as the row says, fits exactly."""
    row = pvr_zoo.spec(name)
    origin, files = published_keys(row)
    assert json.loads(verify.GOLDEN.read_text())[name]["keys"] == origin, "run tools/make_golden.py"
    if not files:
        pytest.skip(f"layout unverified: no list of the published keys of {name} is at hand")
    states = {}
    for part, shapes in zip(row.parts or (row,), files, strict=True):
        state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        states[part.name] = checkpoint.unwrap(verify.published(state, part.layout), part.layout, tmp_path)
    fitted = convert(fused.join(states) if row.parts else states[name], row)
    expected = {key: value.shape for key, value in bare(row).state_dict().items()}
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    assert {key: value.shape for key, value in fitted.items()} | {k: torch.Size() for k in counters} == expected


@pytest.mark.parametrize("name", NAMES)
def test_golden_vectors(name: str) -> None:
    assert [verdict for verdict in verify.verify(name) if not verdict.ok] == []


def test_stored_vectors_are_what_the_other_side_computes() -> None:
    golden = json.loads(verify.GOLDEN.read_text())
    assert sorted(golden) == TRAINED
