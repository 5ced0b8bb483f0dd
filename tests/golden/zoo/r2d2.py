"""R2D2 by the official code's arithmetic, in plain functions, and its keypoints one by one in numpy."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pvr_zoo.specs import EncoderSpec

SOURCE = "naver/r2d2 @ 0ff8f6a (nets/patchnet.py, extract.py), in plain functions"
CONVS = (0, 3, 6, 9, 12, 15, 18, 20, 22)  # places among the operations
NORMS = (1, 4, 7, 10, 13, 16, 19, 21)
DILATIONS = (1, 1, 1, 2, 2, 4, 4, 8, 16)


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    found: dict[str, tuple[int, ...]] = {}
    before = 3
    for number, (place, width) in enumerate(zip(CONVS, spec.widths, strict=True)):
        kernel = 3 if number < 6 else 2
        found |= {f"ops.{place}.weight": (width, before, kernel, kernel), f"ops.{place}.bias": (width,)}
        if number < len(NORMS):
            norm = f"ops.{NORMS[number]}."
            found |= {f"{norm}running_mean": (width,), f"{norm}running_var": (width,), f"{norm}num_batches_tracked": ()}
        before = width
    for head, outputs in (("clf", 2), ("sal", 1)):
        found |= {f"{head}.weight": (outputs, before, 1, 1), f"{head}.bias": (outputs,)}
    return {f"module.{key}": shape for key, shape in found.items()}


def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    x = images
    for number, (place, dilation) in enumerate(zip(CONVS[: spec.truncate], DILATIONS, strict=False)):
        weight, bias = (state[f"module.ops.{place}.{part}"] for part in ("weight", "bias"))
        x = F.conv2d(x, weight, bias, dilation=dilation, padding=dilation * (weight.shape[2] - 1) // 2)
        if number < len(NORMS):
            mean, var = (state[f"module.ops.{NORMS[number]}.running_{part}"] for part in ("mean", "var"))
            x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        if number < 6:
            x = x.clamp(min=0)
    if spec.feature == "patches":
        return x.permute(0, 2, 3, 1).flatten(1, 2)
    if spec.feature == "mean":
        return x.mean((2, 3))
    squares = x.square().movedim(1, -1)  # (N, H, W, D)
    clf = squares @ state["module.clf.weight"][:, :, 0, 0].T + state["module.clf.bias"]
    sal = squares @ state["module.sal.weight"][0, :, 0, 0] + state["module.sal.bias"]
    soft = torch.logaddexp(torch.zeros_like(sal), sal)
    reliability, repeatability = 1 / (1 + (clf[..., 0] - clf[..., 1]).exp()), soft / (1 + soft)
    maps = zip(x, reliability, repeatability, strict=True)
    return torch.stack([torch.from_numpy(top8(*(m.numpy() for m in triple), **spec.options)) for triple in maps])


def top8(
    x: np.ndarray, reliability: np.ndarray, repeatability: np.ndarray, threshold: float, distance: float
) -> np.ndarray:
    """Eight descriptors of one frame, by the rule in pvr_zoo/families/r2d2.py."""
    height, width = repeatability.shape
    padded = np.pad(repeatability, 1, constant_values=-np.inf)
    around = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    peak = (repeatability == np.max(around, 0)) & (repeatability >= threshold) & (reliability >= threshold)
    points = sorted(np.argwhere(peak).tolist(), key=lambda p: -reliability[*p] * repeatability[*p])
    taken: list[list[int]] = []
    for point in points:
        if len(taken) < 8 and all(np.hypot(point[0] - p[0], point[1] - p[1]) >= distance for p in taken):
            taken.append(point)
    if not taken:
        return np.zeros(8 * len(x), np.float32)
    chosen = [x[:, row, column] for row, column in (taken * 8)[:8]]
    return np.concatenate([vector / np.linalg.norm(vector) for vector in chosen])
