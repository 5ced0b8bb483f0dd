"""The autoencoder family: its loss by hand, its files, and that a small object survives the bottleneck."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

import pvr_zoo
from pvr_zoo import ConvAutoencoder, WeightsError
from pvr_zoo.cards import digest
from pvr_zoo.families.autoencoder import ConvEncoder, foreground_loss


def test_loss_by_hand() -> None:
    """One changed pixel in a 5×5 frame: its 3×3 neighbourhood is foreground, the other 16 pixels background."""
    background = torch.zeros(1, 3, 5, 5)
    images = background.clone()
    images[0, 0, 2, 2] = 0.5
    predicted = torch.zeros_like(images)
    predicted[:, :, 0, 0] = 0.2
    foreground = 0.5**2 / 3 / 9
    rest = 0.2**2 / 16
    torch.testing.assert_close(foreground_loss(predicted, images, background), torch.tensor((foreground + rest) / 2))


def test_loss_without_a_foreground_or_without_a_background_is_the_plain_mean() -> None:
    still = torch.full((2, 3, 6, 6), 0.5)
    for images in (still, torch.zeros_like(still)):
        predicted = images + 0.1
        torch.testing.assert_close(foreground_loss(predicted, images, still), torch.tensor(0.01))


def test_size_and_range() -> None:
    encoder = ConvEncoder()
    assert sum(parameter.numel() for parameter in encoder.parameters()) < 1_800_000
    assert encoder(torch.rand(3, 3, 64, 64)).shape == (3, 256)
    frames = torch.randint(0, 256, (16, 64, 64, 3), dtype=torch.uint8)
    model = ConvAutoencoder(32)
    feature = model.encode(frames)
    torch.testing.assert_close(feature.square().mean(1), torch.ones(16), atol=1e-2, rtol=0)
    assert model.reconstruct(frames).shape == frames.shape
    assert 0.2 < model(frames).mean() < 0.8  # the first pictures are greyish


def test_a_thin_moving_pole_is_in_the_feature() -> None:
    """After a few updates the place of a one-pixel pole, 0.6 % of the picture, is read linearly from the feature."""
    torch.manual_seed(0)
    background = torch.full((64, 64, 3), 90, dtype=torch.uint8)
    columns = torch.arange(4, 60)
    frames = background.repeat(len(columns), 1, 1, 1)
    for frame, column in zip(frames, columns.tolist(), strict=True):
        frame[20:44, column] = torch.tensor([230, 180, 60], dtype=torch.uint8)
    model = ConvAutoencoder(64)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(30):
        loss = model.loss(frames[torch.randint(len(columns), (16,))], background)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    with torch.no_grad():
        features = model.encode(frames)
        features = torch.nn.functional.pad((features - features.mean(0)) / features.std(0), (0, 1), value=1.0)
    place = columns.float()[:, None] - columns.float().mean()
    fit = torch.linalg.solve(features.T @ features + 0.1 * torch.eye(65), features.T @ place)
    assert losses[-1] < 0.5 * losses[0]
    assert (features @ fit - place).square().mean() < 0.1 * place.square().mean()


def test_file_round_trip(tmp_path: Path, frames: torch.Tensor) -> None:
    torch.manual_seed(1)
    model = ConvAutoencoder(48)
    path = tmp_path / "runs" / "mine.safetensors"
    pvr_zoo.save_encoder(path, model, {"recipe": "test", "seed": 3, "licence": "CC0-1.0"})
    assert [file.name for file in path.parent.iterdir()] == ["mine.safetensors"]
    spec = pvr_zoo.spec(path)
    assert (spec.name, spec.feature_shape, spec.licence, spec.render_size) == ("mine", (48,), "CC0-1.0", 64)
    encoder = pvr_zoo.create(str(path))
    small = torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2), (64, 71), mode="bilinear", antialias=True)
    wanted = model.encode(small.permute(0, 2, 3, 1)[:, :, 4:68]).detach()
    torch.testing.assert_close(encoder(frames), wanted, atol=1e-2, rtol=1e-2)
    assert encoder.identity["weights_sha256"]
    assert not encoder(frames).requires_grad
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["card"])["recipe"] == "test"
        assert all(file.get_tensor(key).dtype == torch.float16 for key in file.keys())  # noqa: SIM118


def test_a_flipped_bit_in_an_encoder_file_is_noticed(tmp_path: Path) -> None:
    path = pvr_zoo.save_encoder(tmp_path / "x.safetensors", ConvAutoencoder(8), {"seed": 1})
    data = bytearray(path.read_bytes())
    data[-1000] ^= 4
    path.write_bytes(data)
    with pytest.raises(pvr_zoo.WeightsError, match="is damaged: its tensors"):
        pvr_zoo.create(path)


def test_the_shipped_file_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    data = bytearray((Path(pvr_zoo.__file__).parent / "data" / "embedded.safetensors").read_bytes())
    data[-1001] ^= 1
    (tmp_path / "copy.safetensors").write_bytes(data)
    with pytest.raises(pvr_zoo.WeightsError, match="is damaged: its tensors"):
        pvr_zoo.create(tmp_path / "copy.safetensors")


def test_same_weights_and_card_give_the_same_bytes(tmp_path: Path) -> None:
    model = ConvAutoencoder(8)
    a, b = (pvr_zoo.save_encoder(tmp_path / name / "x.safetensors", model, {"seed": 1}) for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_nothing_is_written_when_saving_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ConvAutoencoder(8)
    with pytest.raises(TypeError):
        pvr_zoo.save_encoder(tmp_path / "x.safetensors", model, {"bad": object()})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        pvr_zoo.save_encoder(tmp_path / "x.safetensors", model, {})
    with torch.no_grad():
        model.encoder.out.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"out\.bias does not fit float16"):
        pvr_zoo.save_encoder(tmp_path / "x.safetensors", model, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pvr_zoo.encoder/2"}, "not of the format pvr_zoo.encoder/1"),
        ({"family": "transformer"}, "family is 'transformer'"),
        ({"architecture": "conv128"}, "architecture is 'conv128'"),
        ({"feature_dim": -1}, "feature_dim=-1"),
        ({"feature_dim": "256"}, "feature_dim='256'"),
        ({"feature_dim": 10**9}, "feature_dim=1000000000"),
        ({"input_size": 128}, "input_size=128"),
        ({"feature_dim": 16}, r"out\.\w+ has shape"),
        ({"tensors_sha256": None}, "is damaged: its tensors"),
    ],
)
def test_cards_that_lie(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "x.safetensors"
    state = {key: value.half() for key, value in ConvEncoder(8).state_dict().items()}
    card = {
        "tensors_sha256": digest(save(state)),
        "format": "pvr_zoo.encoder/1",
        "family": "autoencoder",
        "architecture": "conv64",
        "feature_dim": 8,
        "input_size": 64,
    } | change
    save_file(state, path, metadata={"card": json.dumps(card)})
    with pytest.raises(WeightsError, match=message):
        pvr_zoo.create(path)


@pytest.mark.parametrize("content", [b"", b"x" * 100, struct.pack("<Q", 2**60), struct.pack("<Q", 2) + b"{}"])
def test_files_without_a_card(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="no readable card"):
        pvr_zoo.spec(path)


def test_wrong_uses_of_a_path(tmp_path: Path) -> None:
    with pytest.raises(pvr_zoo.WeightsUnavailable, match="does not exist"):
        pvr_zoo.create(tmp_path / "none.safetensors")
    path = pvr_zoo.save_encoder(tmp_path / "x.safetensors", ConvAutoencoder(8), {})
    with pytest.raises(pvr_zoo.SpecError, match="holds its own weights"):
        pvr_zoo.create(path, weights=path)
    with pytest.raises(pvr_zoo.SpecError, match="1 stages"):
        pvr_zoo.create(path, truncate=2)
