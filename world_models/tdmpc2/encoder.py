"""From stacked features, pixels and proprioception to the latent z; every subset of the three works.

| given | front end |
|---|---|
| features | `FeatureNorm`, `patches`, one linear layer (`front_end="linear"`, the study) or the state encoder ("mlp") |
| what a tail takes | the trainable end of an encoder makes features of it, then as above |
| pixels | `FeatureNorm`, the official four convolutions; one normed layer more if these give no `latent_dim` numbers |
| proprioception alone | the official state encoder |
| several | each image part as above, then [parts, proprioception] concatenated, one normed layer |

The result goes through SimNorm. The official code knows one part at a time,
and pixels only of 64x64 with a latent of 512. A layer of ours in front of SimNorm has the layer norm that the official
state encoder ends with: without it a small pixel encoder's latents were the same for all frames, one-hot or uniform.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from world_models import patches
from world_models.feature_norm import FeatureNorm
from world_models.nets import MLP, Conv, Linear, NormedLinear, simnorm
from world_models.precision import products
from world_models.tdmpc2.config import TDMPC2Config
from world_models.types import Obs, ObsShapes, Tail

PAD = 3  # pixels of random shift in each direction
KERNELS, STRIDES = (7, 5, 3, 3), (2, 2, 2, 1)


def shift_pixels(pixels: Tensor, shift: Tensor) -> Tensor:
    """Each image (*, S, height, width, C) moved by its own whole number of pixels; borders repeat.

    shift is (*, 2), rows and columns, from 0 to 2 PAD; PAD leaves an image in place. Whole steps interpolate nothing:
    rows are copied as windows of padded rows.
    """
    stack, height, width, colours = pixels.shape[-4:]
    left, right = (
        pixels[..., :1, :].expand_as(pixels[..., :PAD, :]),
        pixels[..., -1:, :].expand_as(pixels[..., :PAD, :]),
    )
    padded = torch.cat([left, pixels, right], -2).contiguous()
    line, window = (width + 2 * PAD) * colours, width * colours
    shift = shift.reshape(-1, 2)
    rows = (shift[:, :1] + torch.arange(height, device=shift.device) - PAD).clamp(0, height - 1)
    images = torch.arange(len(shift) * stack, device=shift.device).view(-1, stack, 1) * height
    starts = (images + rows.unsqueeze(1)) * line + (shift[:, 1] * colours).view(-1, 1, 1)
    windows = padded.view(-1).as_strided((padded.numel() - window + 1, window), (1, 1))
    return windows.index_select(0, starts.view(-1)).view(pixels.shape)


def to_channels(pixels: Tensor) -> Tensor:
    """Images (N, S, height, width, C) as (N, SC, height, width), channels-last: bytes in [-0.5, 0.5], others as is."""
    stacked = torch.cat(pixels.unbind(1), -1)  # (N, height, width, SC)
    if stacked.dtype == torch.uint8:
        stacked = stacked.float().mul_(1 / 255).sub_(0.5)
    return stacked.permute(0, 3, 1, 2)


class PixelEncoder(nn.Module):
    """Four convolutions with ReLU between them; the output is flattened as (channels, rows, columns)."""

    def __init__(self, channels: int, size: int, width: int, generator: Generator):
        super().__init__()
        inputs = [channels, width, width, width]
        self.convs = nn.ModuleList(
            [Conv(i, width, k, s, generator) for i, k, s in zip(inputs, KERNELS, STRIDES, strict=True)]
        )
        for kernel, stride in zip(KERNELS, STRIDES, strict=True):
            size = (size - kernel) // stride + 1
        self.outputs = width * max(size, 0) ** 2

    def forward(self, pixels: Tensor) -> Tensor:
        x = to_channels(pixels)
        for conv in self.convs[:-1]:
            x = F.relu(conv(x))
        return self.convs[-1](x).flatten(1).float()


class Encoder(nn.Module):
    """z = SimNorm(front ends of what the observation holds)."""

    def __init__(self, shapes: ObsShapes, config: TDMPC2Config, generator: Generator, tail: Tail | None = None):
        super().__init__()
        if shapes.drawn_only:
            raise ValueError("TD-MPC2 reconstructs nothing, so pixels that it does not see are of no use to it")
        self.tail = tail
        self.shapes, self.stack, self.simnorm_dim = shapes, config.stack, config.simnorm_dim
        w = config.widths
        hidden = [w.enc_dim] * max(w.num_enc_layers - 1, 1)
        self.feature: nn.Module | None = None
        self.feature_norm: FeatureNorm | None = None
        self.patches: nn.Module | None = None
        self.pixel_norm: FeatureNorm | None = None
        self.pixels: PixelEncoder | None = None
        self.state: nn.Module | None = None
        self.merge: nn.Module | None = None
        widths: list[int] = []  # of what is merged
        shape = shapes.feature if tail is None else tail.feature_shape
        if shape is not None:
            self.patches = patches.front(config.patches, shape, config.patch_dim, generator)
            inputs = config.stack * self.patches.outputs
            linear = config.front_end == "linear"
            layer = Linear(inputs, w.latent_dim, generator) if linear else MLP(inputs, hidden, w.latent_dim, generator)
            self.feature = layer
            self.feature_norm = FeatureNorm(shape[-1], config.feature_norm)
            widths.append(w.latent_dim)
        if shapes.pixels is not None and tail is None:
            self.pixels = self._pixel_encoder(shapes.pixels, config, generator)
            if config.feature_norm != "none":
                self.pixel_norm = FeatureNorm(prod(shapes.pixels), config.feature_norm)
            widths.append(self.pixels.outputs)
        if shapes.proprio is not None:
            if not widths:
                self.state = MLP(shapes.proprio, hidden, w.latent_dim, generator)
            widths.append(w.latent_dim if not widths else shapes.proprio)
        if len(widths) > 1 or widths[0] != w.latent_dim:
            self.merge = NormedLinear(sum(widths), w.latent_dim, generator, activate=False)

    @staticmethod
    def _pixel_encoder(shape: tuple[int, int, int], config: TDMPC2Config, generator: Generator) -> PixelEncoder:
        height, width, colours = shape
        if height != width:
            raise ValueError(f"pixels of {height}x{width}: height and width must be equal")
        encoder = PixelEncoder(config.stack * colours, height, config.widths.num_channels, generator)
        if encoder.outputs == 0:
            raise ValueError(f"pixels of {height}x{width} are too small for kernels {KERNELS} with strides {STRIDES}")
        return encoder

    def inputs(self, obs: Obs, shift: Tensor | None = None) -> dict[str, Tensor]:
        """The parts of `obs` (*, ...) that are read, shapes checked: feature (*, S, *feature), proprio (*, D), pixels.

        Features come out normalised; those of a tail carry its gradient. `shift` (*, 2) moves the pixels. Where * is
        (T, B), steps follow one another within an episode: a frame that stacks share goes through a tail once.
        """
        parts: dict[str, Tensor] = {}
        lead = obs.is_first.shape
        wanted = {
            "feature": None if self.shapes.feature is None else (self.stack, *self.shapes.feature),
            "pixels": None if self.shapes.pixels is None else (self.stack, *self.shapes.pixels),
            "proprio": None if self.shapes.proprio is None else (self.shapes.proprio,),
        }
        for name, shape in wanted.items():
            if shape is None:
                continue
            value = getattr(obs, name)
            if value is None or value.shape != (*lead, *shape):
                found = None if value is None else tuple(value.shape)
                raise ValueError(f"{name} of shape {found}, expected {(*lead, *shape)}")
            if name == "pixels" and self.pixel_norm is not None:
                value = self.pixel_norm(value.flatten(-3)).unflatten(-1, shape[1:])
            if name == "pixels" and shift is not None:
                value = shift_pixels(value, shift)
            parts[name] = value.float() if name == "proprio" else value
        if self.tail is not None:
            shared = len(lead) == 2 and shift is None  # each stack is moved by a shift of its own
            feature = self._through_tail(parts, shared=shared)
            parts = {"feature": feature, **{k: v for k, v in parts.items() if k == "proprio"}}
        if self.feature_norm is not None:
            parts["feature"] = self.feature_norm(parts["feature"])
        return parts

    def _through_tail(self, parts: dict[str, Tensor], *, shared: bool) -> Tensor:
        """Features (*, S, *feature) of what replay holds for the tail; `shared`: of steps (T, B) in a row."""
        assert self.tail is not None
        held, shape = ("feature", self.shapes.feature) if self.shapes.feature else ("pixels", self.shapes.pixels)
        assert shape is not None
        frames = parts[held]  # (*, S, *held)
        if shared:  # the first stack, then the newest frame of each later one: (S + T - 1, B, *held)
            with products(frames.device, "float32"):  # autocast joins no float16
                frames = torch.cat([frames[0].transpose(0, 1), frames[1:, :, -1]])
        lead = frames.shape[: -len(shape)]
        features = self.tail(frames.flatten(0, len(lead) - 1)).unflatten(0, lead)
        return features.unfold(0, self.stack, 1).movedim(-1, 2) if shared else features

    @torch.no_grad()
    def observe(self, obs: Obs) -> None:
        """Show observations (T, B, ...) to the running statistics; of a tail and of pixels the first step is enough."""
        if self.pixel_norm is not None:
            assert obs.pixels is not None
            self.pixel_norm.observe(obs.pixels[0].flatten(-3))
        if self.feature_norm is None or self.feature_norm.kind != "running":
            return
        first = {k: v for k, v in vars(obs[0]).items() if v is not None}
        feature = obs.feature if self.tail is None else self._through_tail(first, shared=False)
        assert feature is not None
        self.feature_norm.observe(feature)

    def forward(self, parts: dict[str, Tensor]) -> Tensor:
        """z (*, L) of parts (*, ...) as `inputs` gives them."""
        fronts = []
        if self.feature is not None:
            assert self.patches is not None
            fronts.append(self.feature(self.patches(parts["feature"]).flatten(-2)))
        if self.pixels is not None:
            lead = parts["pixels"].shape[:-4]
            fronts.append(self.pixels(parts["pixels"].flatten(0, -5)).unflatten(0, lead))
        if self.shapes.proprio is not None:
            proprio = parts["proprio"]
            fronts.append(proprio if self.state is None else self.state(proprio))
        x = fronts[0] if len(fronts) == 1 else torch.cat(fronts, -1)
        return simnorm(x if self.merge is None else self.merge(x), self.simnorm_dim)
