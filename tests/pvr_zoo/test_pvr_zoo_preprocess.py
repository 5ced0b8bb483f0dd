"""The transforms against torchvision's and Pillow's, and the frames that are refused."""

import numpy as np
import pytest
import torch
from PIL import Image

import pvr_zoo
from pvr_zoo import FrameError
from pvr_zoo.preprocess import Preprocess, check_frames, resize_uint8
from pvr_zoo.specs import Transform
from pvr_zoo.torchvision_guard import ensure_torchvision

NAMES = ["resnet18_in1k", "vits16_in1k", "dinov2_vits14"]


def random_frames(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(300, 300), (256, 256), (480, 333), (64, 64), (97, 200)])
def test_transform_equals_torchvision(name: str, size: tuple[int, int]) -> None:
    ensure_torchvision()
    from torchvision.transforms import v2

    transform = pvr_zoo.spec(name).transform
    published = v2.Compose(
        [
            v2.Resize(transform.resize, v2.InterpolationMode(transform.kernel), antialias=True),
            v2.CenterCrop(transform.crop),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(transform.mean, transform.std),
        ]
    )
    frames = random_frames(2, *size)
    torch.testing.assert_close(
        Preprocess(transform)(frames), published(frames.permute(0, 3, 1, 2)), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_transform_is_within_a_level_of_pillow(name: str) -> None:
    transform = pvr_zoo.spec(name).transform
    frame = random_frames(301, 333)
    kernel = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[transform.kernel]
    long = int(transform.resize * 333 / 301)
    resized = np.asarray(Image.fromarray(frame.numpy()).resize((long, transform.resize), kernel)).astype(np.float32)
    top, left = round((transform.resize - 224) / 2), round((long - 224) / 2)
    wanted = (resized[top : top + 224, left : left + 224] / 255 - transform.mean) / np.array(transform.std)
    levels = (Preprocess(transform)(frame[None])[0].permute(1, 2, 0).numpy() - wanted) * np.array(transform.std) * 255
    assert np.abs(levels).max() < 1.01


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("target", [(48, 48), (100, 131), (256, 256)])
def test_devices_without_the_integer_kernel_give_the_same_pixels(kernel: str, target: tuple[int, int]) -> None:
    """Elsewhere than on a CPU the resize is two float passes; a subclass that hides its device runs them here."""

    class Elsewhere(torch.Tensor):
        @property
        def device(self) -> torch.device:
            return torch.device("meta")

    images = random_frames(2, 90, 100).permute(0, 3, 1, 2)
    ours = resize_uint8(images.as_subclass(Elsewhere), *target, kernel, True).as_subclass(torch.Tensor)
    integer = resize_uint8(images, *target, kernel, True).float()
    difference = (ours - integer).abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() < 0.04  # the integer kernel rounds its weights to 16 bits


def test_no_resize_and_no_crop_leaves_the_pixels_alone() -> None:
    frames = random_frames(3, 64, 64)
    plain = Transform(64, 64, mean=(0, 0, 0), std=(1, 1, 1))
    torch.testing.assert_close(Preprocess(plain)(frames), frames.permute(0, 3, 1, 2) / 255)
    signed = Transform(64, 64, mean=(0, 0, 0), std=(1, 1, 1), value_range=(-1, 1))
    torch.testing.assert_close(Preprocess(signed)(frames), frames.permute(0, 3, 1, 2) / 127.5 - 1, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalising_leaves_what_it_is_given_alone(dtype: torch.dtype) -> None:
    pixels = random_frames(2, 64, 64).to(dtype)
    before = pixels.clone()
    images = Preprocess(Transform(64, 64)).normalise(pixels)
    assert torch.equal(pixels, before) and images.is_contiguous(memory_format=torch.channels_last)


def test_an_empty_batch_passes() -> None:
    assert Preprocess(Transform(64, 64))(random_frames(0, 32, 32)).shape == (0, 3, 64, 64)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.rand(2, 64, 64, 3), "got float32"),
        (random_frames(2, 64, 64).permute(0, 3, 1, 2), r"channels come first.*permute\(0, 2, 3, 1\)"),
        (torch.zeros(2, 64, 64, dtype=torch.uint8), "grey"),
        (torch.zeros(2, 64, 64, 1, dtype=torch.uint8), "grey"),
        (torch.zeros(2, 64, 64, 4, dtype=torch.uint8), "RGBA"),
        (random_frames(64, 64), r"frames\[None\]"),
        (torch.zeros(2, 0, 64, 3, dtype=torch.uint8), r"\(2, 0, 64, 3\)"),
        (np.zeros((2, 64, 64, 3), np.uint8), "from_numpy"),
    ],
)
def test_other_frames_are_refused(frames: torch.Tensor, message: str) -> None:
    with pytest.raises(FrameError, match=f"(?s)uint8 frames of shape.*{message}") as caught:
        Preprocess(Transform(64, 64))(frames)
    assert caught.value.exit_code == 7
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 3, 3, 3), (1, 4, 200, 3), (1, 8, 9000, 3)])
def test_frames_of_senseless_sizes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FrameError, match="sides of 8 to 8192 pixels are expected, got frames of"):
        check_frames(torch.zeros(shape, dtype=torch.uint8))
