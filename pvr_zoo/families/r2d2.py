"""R2D2, the keypoint network of Revaud et al. 2019 (arXiv:1906.06195), and the study's eight descriptors.

The layout is that of naver/r2d2 at 0ff8f6a: nine convolutions at full resolution, dilated where an ordinary network
would stride, batch norm without scale or shift after the first eight, ReLU after the first six.

**The feature "output".** The study (arXiv:2411.10175) runs the network once at the size of the frame, takes the best
eight descriptors by reliability, repeatability and spatial distance, "as in" the spatial descriptor sets of Manuelli et
al. 2020 (arXiv:2009.05085), repeats those found where there are fewer, and gives zeros where there is none. Here:

1. A pixel is a candidate where its repeatability is the largest of its 3×3 neighbours', at least 0.7, and its
   reliability is at least 0.7: the published detector with its published thresholds.
2. Candidates are taken by falling reliability × repeatability, the published score; of equal ones the first in reading
   order. One that lies closer than 32 pixels to another taken before is passed over.
3. The L2-normalised descriptors are concatenated in that order. k < 8 of them are repeated in turn: 1 … k, 1 … k, ….

The study does not give the thresholds, how the three criteria are combined, the distance, the order in the vector, or
which descriptors are repeated. 32 pixels are the side of the patch that a descriptor describes, so that no two of them
describe the same one. Their order is by score and may change from frame to frame. Threshold and distance are options of
the row.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvr_zoo.network import Network, map_network
from pvr_zoo.specs import EncoderSpec

COUNT = 8  # descriptors
_STRIDES = (1, 1, 2, 1, 2, 1, 2, 2, 2)  # each becomes a dilation of the convolutions after it
_RELUS = 6


class R2D2(nn.Module):
    """The network with the file's key names; `channels` after each of its nine convolutions."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.ops = nn.ModuleList()
        dilation, before = 1, 3
        for number, (width, stride) in enumerate(zip(channels, _STRIDES, strict=True), start=1):
            kernel = 3 if number <= _RELUS else 2
            padding = (kernel - 1) * dilation // 2
            self.ops.append(nn.Conv2d(before, width, kernel, padding=padding, dilation=dilation))
            if number < len(channels):
                self.ops.append(nn.BatchNorm2d(width, affine=False))
            if number <= _RELUS:
                self.ops.append(nn.ReLU(inplace=True))
            dilation, before = dilation * stride, width
        self.clf = nn.Conv2d(before, 2, 1)  # reliability
        self.sal = nn.Conv2d(before, 1, 1)  # repeatability

    def levels(self) -> list[nn.Sequential]:
        """Each convolution with what follows it."""
        starts = [place for place, op in enumerate(self.ops) if isinstance(op, nn.Conv2d)]
        ends = [*starts[1:], len(self.ops)]
        return [nn.Sequential(*self.ops[start:end]) for start, end in zip(starts, ends, strict=True)]


class TopDescriptors(nn.Module):
    """The last map (N, D, H, W) to the descriptors of its best keypoints (N, COUNT · D): see the module's docstring."""

    def __init__(self, clf: nn.Module, sal: nn.Module, threshold: float, distance: float) -> None:
        super().__init__()
        self.clf, self.sal = clf, sal
        self.threshold, self.distance = threshold, distance

    def confidence(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reliability and repeatability, each (N, H, W) from 0 to 1."""
        reliability = self.clf(x.square()).softmax(1)[:, 1]
        repeatability = F.softplus(self.sal(x.square())[:, 0])  # one channel: softplus takes the softmax's place
        return reliability, repeatability / (1 + repeatability)

    def forward(self, x: Tensor) -> Tensor:
        places, found = keypoints(*self.confidence(x), COUNT, self.threshold, self.distance)
        several = found.sum(1, keepdim=True)  # (N, 1)
        turn = torch.arange(COUNT, device=x.device) % several.clamp(min=1)
        places = places.gather(1, turn)  # (N, COUNT)
        descriptors = x.flatten(2).gather(2, places[:, None].expand(-1, x.shape[1], -1))  # (N, D, COUNT)
        descriptors = F.normalize(descriptors, dim=1).masked_fill((several == 0)[:, :, None], 0)
        return descriptors.transpose(1, 2).flatten(1)


def keypoints(
    reliability: Tensor, repeatability: Tensor, count: int, threshold: float, distance: float
) -> tuple[Tensor, Tensor]:
    """From maps (N, H, W) the places of the best keypoints (N, count), row · W + column, and whether each exists."""
    height, width = reliability.shape[1:]
    peak = repeatability == F.max_pool2d(repeatability, 3, stride=1, padding=1)
    candidate = peak & (repeatability >= threshold) & (reliability >= threshold)
    score = (reliability * repeatability).where(candidate, 0).flatten(1)  # (N, H·W)
    place = torch.arange(height * width, device=score.device)
    row, column = place // width, place % width
    places, found = [], []
    for _ in range(count):
        best, at = score.max(1, keepdim=True)  # the first of equals
        near = (row - row[at]).square() + (column - column[at]).square() < distance**2
        score = score.masked_fill(near, 0)
        places.append(at)
        found.append(best > 0)
    return torch.cat(places, 1), torch.cat(found, 1)


def bare(spec: EncoderSpec) -> R2D2:
    """The whole network, untrained."""
    return R2D2(spec.widths)


def arrange(net: R2D2, spec: EncoderSpec) -> Network:
    """Nine convolutions, and the pooling that the spec asks for."""
    return map_network(spec, nn.Identity(), net.levels(), TopDescriptors(net.clf, net.sal, **spec.options))


def small(spec: EncoderSpec) -> EncoderSpec:
    """An eighth of the channels, and a detector that finds something under untrained weights: see verify.py."""
    widths = tuple(width // 8 for width in spec.widths)
    options = {"threshold": 0.25, "distance": 16.0}
    return replace(spec, widths=widths, output=(COUNT * widths[-1],), options=options).request(input_size=64)
