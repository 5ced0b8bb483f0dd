"""Shifts of the finished frame: brightness, contrast, blur, sensor noise, JPEG. The same for every simulator."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mbrl_pvr.envs.factors import IMAGE
from mbrl_pvr.envs.shifts import Look

_BLUR_SIDE = 64  # the blur is given for frames of this side and grows with the frame
_GREY = 127.5


def distort(frame: NDArray, look: Look, step: int) -> NDArray:
    """A frame (H, W, 3) uint8 under a look; what is random is a function of the look's seed and the step."""
    if not any(map(look.has, IMAGE)):
        return frame
    if look.has("brightness") or look.has("contrast"):
        (gain,), (contrast,) = look.numbers("brightness"), look.numbers("contrast")
        levels = _GREY + contrast * (gain * np.arange(256) - _GREY)
        frame = np.take(np.clip(np.round(levels), 0, 255).astype(np.uint8), frame)
    if look.has("blur"):
        (width,) = look.numbers("blur")
        radius = width * frame.shape[0] / _BLUR_SIDE
        frame = np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius)))
    if look.has("noise"):
        (deviation,) = look.numbers("noise")
        rng = np.random.default_rng((look.draws["noise"].seed, step))
        noise = rng.standard_normal(frame.shape, np.float32) * np.float32(deviation)
        frame = np.clip(np.rint(noise + frame), 0, 255).astype(np.uint8)
    if look.has("compression"):
        (coarse,) = look.numbers("compression")
        quality = 100 - 50 * coarse if coarse <= 1 else 50 / coarse  # JPEG's own scale of its steps, turned around
        packed = BytesIO()
        Image.fromarray(frame).save(packed, "JPEG", quality=max(1, round(quality)), subsampling="4:4:4")
        frame = np.asarray(Image.open(packed))
    return frame
