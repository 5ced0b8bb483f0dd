"""The published evaluation transforms, on whole batches and on the frames' device."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvr_zoo.errors import FrameError
from pvr_zoo.specs import Transform

SIDES = (8, 8192)  # of frames; others are slips


def check_frames(frames: Tensor) -> None:
    """Raise FrameError unless frames are uint8 of shape (N, H, W, 3)."""
    wanted = "uint8 frames of shape (N, H, W, 3) are expected"
    if not isinstance(frames, Tensor):
        raise FrameError(f"{wanted}, got {type(frames).__name__}", hint="Use torch.from_numpy(frames).")
    shape = tuple(frames.shape)
    low, high = SIDES
    colour = frames.ndim == 4 and shape[-1] == 3
    if colour and min(shape[1:3]) > 0 and not low <= min(shape[1:3]) <= max(shape[1:3]) <= high:
        sides = f"sides of {low} to {high} pixels are expected"
        raise FrameError(f"{sides}, got frames of {shape[1]}×{shape[2]}", hint="Resize them first.")
    if frames.dtype != torch.uint8:
        hint = "Pass pixels from 0 to 255; the encoder scales and normalises them itself."
        raise FrameError(f"{wanted}, got {str(frames.dtype).removeprefix('torch.')} of shape {shape}", hint=hint)
    if frames.ndim == 4 and shape[-1] == 3 and min(shape[1:3]) > 0:
        return
    hints = {
        "grey": "This looks like grey pictures: repeat the channel three times.",
        "rgba": "This looks like RGBA: drop the last channel.",
        "chw": "The channels come first here: use frames.permute(0, 2, 3, 1).",
        "one": "One frame needs a batch dimension: frames[None].",
    }
    kind = ""
    if frames.ndim == 3:
        kind = "one" if shape[-1] == 3 else "grey"
    elif frames.ndim == 4:
        kind = {1: "grey", 4: "rgba"}.get(shape[-1], "chw" if shape[1] == 3 else "")
    raise FrameError(f"{wanted}, got shape {shape}", hint=hints.get(kind, ""))


def resize_uint8(images: Tensor, height: int, width: int, kernel: str, antialias: bool) -> Tensor:
    """Resize (N, 3, H, W) uint8 with Pillow's arithmetic: columns, then rows, rounded to integers after each.

    On a CPU torch has this as one integer kernel; elsewhere the two passes are made with floats.
    """
    if tuple(images.shape[-2:]) == (height, width):
        return images
    if images.device.type == "cpu" and antialias:
        return F.interpolate(images, (height, width), mode=kernel, antialias=True)
    pixels = images.float()
    for size in ((images.shape[-2], width), (height, width)):
        pixels = F.interpolate(pixels, size, mode=kernel, antialias=antialias)
        pixels = pixels.add_(0.5).floor_().clamp_(0, 255)
    return pixels


class Preprocess(nn.Module):
    """uint8 (N, H, W, 3) to the network's input, float32 (N, 3, S, S) with the channels last in memory.

    `scale` and `shift` are those of a whole row of pixels, 3S numbers: so the arithmetic runs along memory, five times
    faster than along three channels.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform
        low, high = transform.value_range
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (transform.mean, transform.std))
        row = transform.crop
        self.register_buffer("scale", ((high - low) / 255 / std).float().repeat(row), persistent=False)
        self.register_buffer("shift", ((low - mean) / std).float().repeat(row), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Raises FrameError for anything but uint8 (N, H, W, 3)."""
        return self.normalise(self.crop(frames))

    def crop(self, frames: Tensor) -> Tensor:
        """Frames (N, H, W, 3) at the network's size, whole numbers of 0..255 in (N, S, S, 3). Raises FrameError."""
        check_frames(frames)
        crop, target = self.transform.crop, self.transform.resize
        if len(frames) == 0:
            return frames.new_zeros(0, crop, crop, 3)
        height, width = frames.shape[1:3]
        short = min(height, width)
        size = (target, target) if self.transform.squash else (target * height // short, target * width // short)
        images = resize_uint8(frames.permute(0, 3, 1, 2), *size, self.transform.kernel, self.transform.antialias)
        top, left = (round((full - crop) / 2) for full in size)
        return images[..., top : top + crop, left : left + crop].permute(0, 2, 3, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels (N, S, S, 3) of 0..255, as `crop` gives them, to what the network was trained on (N, 3, S, S)."""
        rows = pixels.flatten(2).to(self.scale.dtype, copy=True)  # (N, S, 3S), ours to overwrite
        return torch.addcmul(self.shift, rows, self.scale, out=rows).view(pixels.shape).permute(0, 3, 1, 2)
