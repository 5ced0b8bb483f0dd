"""`create` a frozen encoder; `Encoder` maps uint8 frames to features."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from pvr_zoo.errors import SpecError, WeightsError, WeightsUnavailable
from pvr_zoo.network import build
from pvr_zoo.preprocess import Preprocess
from pvr_zoo.registry import is_file_name
from pvr_zoo.registry import spec as find_spec
from pvr_zoo.specs import EncoderSpec

if TYPE_CHECKING:
    from pvr_zoo.weights import Progress


class Encoder(nn.Module):
    """A frozen network with its published preprocessing.

    Always in eval mode: `train()` does nothing. Gradients flow only after `requires_grad_(True)`.
    """

    def __init__(self, spec: EncoderSpec, network: nn.Module, weights: dict[str, Any]) -> None:
        super().__init__()
        self.spec = spec
        self.identity = identity(spec, weights)
        self.preprocess = Preprocess(spec.transform)
        self.network, self.dtype = network, torch.float32
        if spec.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().train(False)
        self.requires_grad_(False)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return self.spec.feature_shape

    @property
    def device(self) -> torch.device:
        return self.preprocess.scale.device

    def cast(self, dtype: torch.dtype) -> Self:
        """This encoder in another precision, with weights of its own; features stay float32.

        The precision is part of the new one's identity.
        """
        memo: dict[int, Any] = {
            id(self.spec): self.spec
        }  # what the copy takes instead of copying: no weight is there thrice
        memo |= {id(p): nn.Parameter(p.to(dtype), p.requires_grad) for p in self.network.parameters()}
        memo |= {id(b): b.to(dtype) for b in self.network.buffers() if b.is_floating_point()}
        cast = copy.deepcopy(self, memo)
        cast.dtype = dtype
        cast.identity = self.identity | {"precision": str(dtype).removeprefix("torch.")}
        return cast

    def images(self, frames: Tensor) -> Tensor:
        """What the network is given for these frames, (N, 3, S, S). Raises FrameError."""
        return self.preprocess(frames).to(self.dtype)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) to float32 (N, *spec.feature_shape), on the device of the frames.

        Raises FrameError for other frames and WeightsError where the network's output is not what the spec declares.
        """
        return self.features(self.images(frames))

    def features(self, images: Tensor) -> Tensor:
        """float32 (N, *spec.feature_shape) of what `images` gives, so that frames of several sizes fit one batch.

        Raises WeightsError as above.
        """
        with torch.set_grad_enabled(self._trainable and torch.is_grad_enabled()):
            features: Tensor = self.network(images).float()
        seen, declared = tuple(features.shape[1:]), self.spec.feature_shape
        if seen != declared:
            raise WeightsError(f"{self.spec.name} gives features of shape {seen}, its spec declares {declared}")
        return features

    def train(self, mode: bool = True) -> Self:
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        self._trainable = requires_grad
        return super().requires_grad_(requires_grad)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.identity.items())


def identity(spec: EncoderSpec, weights: dict[str, Any]) -> dict[str, Any]:
    """What makes two encoders the same: plain JSON values, no paths."""
    return {
        "name": spec.name,
        "architecture": spec.architecture,
        "truncate": spec.truncate if len(spec.layers) == 1 else list(spec.layers),
        "feature": spec.feature,
        "norm": spec.norm,
        "input_size": spec.input_size,
        "transform": spec.transform.describe(),
        "seed": spec.seed,
        "weights_sha256": None,
        "weights_origin": "",
        **weights,
    }


def create(
    name: str | os.PathLike[str],
    *,
    truncate: int | Sequence[int] | None = None,
    feature: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    norm: str | None = None,
    input_size: int | None = None,
    seed: int | None = None,
    progress: "Progress | None" = None,
) -> Encoder:
    """Build a registered encoder, or the one in an encoder file, with its weights.

    `weights` is a file to use instead of the published one: it must fit the architecture, is hashed and recorded in
    `identity`, and is not compared with the registry's checksum. `seed` draws a random encoder anew. `progress` is told
    what is fetched (weights.py). Raises UnknownEncoder and SpecError before any file is touched, then
    WeightsUnavailable, UnsafeWeights or WeightsError.
    """
    spec = find_spec(name, truncate=truncate, feature=feature, norm=norm, input_size=input_size, seed=seed)
    from_file = is_file_name(name) and spec.weights is None
    if from_file and weights is not None:
        raise SpecError(f"{os.fspath(name)} holds its own weights", hint="Leave out weights=, or name an encoder.")
    if weights is not None:
        spec.check_takes_weights()
    if spec.seed is not None:
        from pvr_zoo.families import random

        return Encoder(spec, random.build(spec), random.identity())
    from pvr_zoo import cards
    from pvr_zoo import weights as cache

    if from_file or weights is not None:
        files = [(Path(os.fspath(name if weights is None else weights)).expanduser(), "file", "")]
    elif spec.sources:
        files = [cache.locate(source, progress) for source in spec.sources]
    else:
        raise WeightsUnavailable(f"{spec.name} has no published weights", hint="Give a file with weights=PATH.")
    if from_file:
        cards.check_digest(files[0][0])
    return open_files(spec, files)


def open_files(spec: EncoderSpec, files: Sequence[tuple[Path, str, str]]) -> Encoder:
    """The encoder with the weights of its file, or of the files of its parts, in their order.

    Each is a path, where it is from in words, and the SHA-256 that it must have ("" for any). Raises WeightsError and
    UnsafeWeights.
    """
    from pvr_zoo import checkpoint
    from pvr_zoo.families import fused

    states, hashes = {}, []
    for part, (path, _, expected) in zip(spec.parts or (spec,), files, strict=True):
        read, sha256 = checkpoint.read(path, expected)
        states[part.name] = checkpoint.unwrap(read, part.layout, path)
        hashes.append(sha256)
    state = fused.join(states) if spec.parts else states[spec.name]
    try:
        network = build(spec, state)
    except WeightsError as error:
        where = ", ".join(str(path) for path, _, _ in files)
        raise WeightsError(error.what, error.where or where, error.hint) from error
    origins = [origin for _, origin, _ in files]
    if spec.parts:
        return Encoder(spec, network, {"weights_sha256": hashes, "weights_origin": origins})
    return Encoder(spec, network, {"weights_sha256": hashes[0], "weights_origin": origins[0]})
