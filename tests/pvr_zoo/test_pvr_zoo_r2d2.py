"""R2D2: keypoints repeat under a known homography, the selection rule, and files of its relatives.

The photographs and the real file are used in place; nothing of theirs is stored.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from references import published_keys, reference

import pvr_zoo
from pvr_zoo import checkpoint, network, verify
from pvr_zoo.families import r2d2

RADIUS = 3  # pixels within which a keypoint counts as found again


@pytest.fixture
def encoder(real_weights: Path) -> pvr_zoo.Encoder:
    return pvr_zoo.create("r2d2", weights=real_weights / "r2d2_WASF_N16.pt")


def photographs() -> torch.Tensor:
    """Two photographs, uint8 (2, 256, 256, 3)."""
    from sklearn.datasets import load_sample_images

    return torch.stack([torch.from_numpy(np.array(image[100:356, 200:456])) for image in load_sample_images().images])


def homography() -> torch.Tensor:
    """Turned by 12 degrees, smaller by a tenth and seen a little from the side; pixels of a 256 frame to pixels."""
    angle, scale = math.radians(12), 0.9
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    middle = torch.tensor([[1.0, 0, 127.5], [0, 1, 127.5], [0, 0, 1]])
    turned = torch.tensor([[cos, -sin, 4.3], [sin, cos, -6.7], [4e-4, -2e-4, 1]])
    return middle @ turned @ torch.linalg.inv(middle)


def carry(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Points (K, 2), columns first, through a homography."""
    moved = torch.cat([points, torch.ones(len(points), 1)], 1) @ matrix.T
    return moved[:, :2] / moved[:, 2:]


def warp(frames: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Frames (N, S, S, 3) as they look after the homography; black where nothing is known."""
    side = frames.shape[1]
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).float()
    source = carry(torch.linalg.inv(matrix), pixels).reshape(1, side, side, 2) / (side - 1) * 2 - 1
    images = frames.permute(0, 3, 1, 2).float()
    moved = F.grid_sample(images, source.expand(len(frames), -1, -1, -1), mode="bicubic", align_corners=True)
    return moved.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def detect(
    encoder: pvr_zoo.Encoder, frames: torch.Tensor, count: int, distance: float
) -> list[tuple[torch.Tensor, ...]]:
    """For each frame its keypoints (K, 2), columns first, and their descriptors (K, D)."""
    x = encoder.preprocess(frames)
    for level in encoder.network.levels:
        x = level(x)
    places, found = r2d2.keypoints(*encoder.network.read.confidence(x), count, 0.7, distance)
    side = x.shape[-1]
    return [
        (
            torch.stack([place[ok] % side, place[ok] // side], 1).float(),
            F.normalize(m.flatten(1)[:, place[ok]].T, dim=1),
        )
        for m, place, ok in zip(x, places, found, strict=True)
    ]


def test_keypoints_repeat_under_a_known_homography(encoder: pvr_zoo.Encoder) -> None:
    """At least six of ten are found again within 3 pixels where a tenth would be by chance, and look alike."""
    matrix = homography()
    frames = photographs()
    before, after = (detect(encoder, f, 150, 4.0) for f in (frames, warp(frames, matrix)))
    for (points, descriptors), (others, their_descriptors) in zip(before, after, strict=True):
        target = carry(matrix, points)
        inside = ((target > 4) & (target < 251)).all(1)
        target, descriptors = target[inside], descriptors[inside]
        assert len(target) > 50
        apart = torch.cdist(target, others)
        repeated = (apart.min(1).values <= RADIUS).float().mean().item()
        chance = 1 - (1 - math.pi * RADIUS**2 / 256**2) ** len(others)
        nearest = (descriptors @ their_descriptors.T).argmax(1)
        matched = (apart[torch.arange(len(target)), nearest] <= RADIUS).float().mean().item()
        print(f"repeatability {repeated:.2f}, by chance {chance:.2f}; matched by descriptor {matched:.2f}")
        assert chance < 0.1 and repeated > 0.6 and matched > 0.4


def test_the_real_file_is_the_published_one_and_gives_the_reference_feature(real_weights: Path) -> None:
    """The reference is computed here, with the published thresholds."""
    file = real_weights / "r2d2_WASF_N16.pt"
    encoder = pvr_zoo.create("r2d2", weights=file, input_size=128)
    assert encoder.identity["weights_sha256"] == pvr_zoo.spec("r2d2").weights.sha256
    frames = photographs()[:, :128, :128]
    feature = encoder(frames)
    wanted = reference("r2d2").feature(encoder.spec, checkpoint.read(file)[0]["state_dict"], encoder.preprocess(frames))
    assert feature.shape == (2, 1024)
    assert torch.allclose(feature, wanted, atol=1e-5)
    assert torch.equal(encoder(frames), feature)
    assert torch.allclose(feature.unflatten(1, (8, 128)).norm(dim=2), torch.ones(2, 8))


def test_frames_at_the_render_size_are_not_resized() -> None:
    frames = photographs()
    row = pvr_zoo.spec("r2d2")
    assert row.render_size == 256
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (row.transform.mean, row.transform.std))
    images = (frames.permute(0, 3, 1, 2) / 255 - mean) / std
    assert torch.allclose(pvr_zoo.encoder.Preprocess(row.transform)(frames), images, atol=1e-6)


def maps(*points: tuple[int, int, float], side: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """Reliability and repeatability (1, side, side) with a peak of that repeatability at each (row, column)."""
    repeatability = torch.zeros(1, side, side)
    for row, column, value in points:
        repeatability[0, row, column] = value
    return torch.full((1, side, side), 0.9), repeatability


def chosen(maps: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[int, int]]:
    places, found = r2d2.keypoints(*maps, 8, 0.7, 32.0)
    side = maps[0].shape[-1]
    return [(p // side, p % side) for p in places[found].tolist()]


def test_the_best_keypoints_are_taken_in_turn_and_keep_their_distance() -> None:
    assert chosen(maps((10, 10, 0.8), (10, 50, 0.95), (80, 80, 0.9))) == [(10, 50), (80, 80), (10, 10)]
    assert chosen(maps((10, 10, 0.8), (10, 41, 0.95))) == [(10, 41)], "31 pixels are too near"
    assert chosen(maps((10, 10, 0.8), (10, 42, 0.95))) == [(10, 42), (10, 10)], "32 are not"
    assert chosen(maps((60, 60, 0.9), (10, 10, 0.9))) == [(10, 10), (60, 60)], "equals in reading order"
    assert chosen(maps((10, 10, 0.69))) == [], "below the threshold"
    reliability, repeatability = maps((10, 10, 0.9), (60, 60, 0.8))
    reliability[0, 10, 10] = 0.6
    assert chosen((reliability, repeatability)) == [(60, 60)], "not reliable"


@pytest.mark.parametrize("several", [0, 1, 3, 8, 9])
def test_fewer_than_eight_are_repeated_and_none_is_zeros(several: int) -> None:
    head = r2d2.TopDescriptors(torch.nn.Identity(), torch.nn.Identity(), 0.7, 32.0)
    points = [(5 + 40 * (k // 3), 5 + 40 * (k % 3), 0.99 - 0.01 * k) for k in range(several)]
    head.confidence = lambda x: maps(*points)  # type: ignore[method-assign]
    x = torch.randn(1, 4, 96, 96, generator=torch.Generator().manual_seed(0))
    vectors = head(x).reshape(8, 4)
    if several == 0:
        assert torch.equal(vectors, torch.zeros(8, 4))
    for place, vector in enumerate(vectors[: 8 * bool(several)]):
        row, column, _ = points[place % several]
        assert torch.allclose(vector, F.normalize(x[0, :, row, column], dim=0))


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_every_convolution_gives_a_full_resolution_map(depth: int, real_weights: Path) -> None:
    """Nothing beyond it stays in memory."""
    encoder = pvr_zoo.create(
        "r2d2", truncate=depth, feature="patches", input_size=64, weights=real_weights / "r2d2_WASF_N16.pt"
    )
    width = encoder.spec.widths[depth - 1]
    assert encoder(photographs()).shape == (2, 64 * 64, width)
    assert len(encoder.network.levels) == depth
    assert not any(key.startswith("read.") for key in encoder.network.state_dict())


def test_files_of_its_relatives_are_refused(tmp_path: Path) -> None:
    """By shape (N8_big) or by name (the Fast variant, whose pooling moves the numbers)."""
    row = pvr_zoo.spec("r2d2")
    _, (shapes,) = published_keys(pvr_zoo.spec("r2d2_wasf_n8_big"))
    big = {key: torch.zeros(shape) for key, shape in shapes.items()}
    fast = {key.replace("ops.9.", "ops.10."): value for key, value in big.items()}
    for state, words in ((big, "shape"), (fast, "missing")):
        torch.save({"state_dict": state}, tmp_path / "other.pt")
        read, _ = checkpoint.read(tmp_path / "other.pt")
        with pytest.raises(pvr_zoo.WeightsError, match=words):
            network.build(row, checkpoint.unwrap(read, row.layout, tmp_path))


def test_a_file_that_names_another_network_is_refused(tmp_path: Path) -> None:
    """The text is compared, never evaluated: what it says beyond the shapes (dilation) would change the features."""
    row = pvr_zoo.spec("r2d2")
    for net in ("Quad_L2Net_ConfCFS(dilation=2)", "__import__('os').getcwd()"):
        torch.save({"net": net, "state_dict": {}}, tmp_path / "other.pt")
        read, _ = checkpoint.read(tmp_path / "other.pt")
        with pytest.raises(pvr_zoo.WeightsError, match="expected is 'Quad_L2Net_ConfCFS"):
            checkpoint.unwrap(read, row.layout, tmp_path)


def test_a_published_file_is_known_and_another_rows_is_refused(real_weights: Path) -> None:
    """Two of R2D2's networks have one architecture; only the checksum tells their files apart."""
    file = real_weights / "r2d2_WASF_N16.pt"
    (own,), (other,) = verify.verify("r2d2", file), verify.verify("r2d2_waf_n16", file)
    assert own.ok and own.note.endswith("; it is the published file")
    assert not other.ok and other.note.endswith("; it is the published file of r2d2")
