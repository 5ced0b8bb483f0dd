"""Cut an encoder in two: what stays frozen and is computed once a frame, and a tail that learns.

| trainable | once a frame | tail |
|---|---|---|
| k | tokens or maps after all but the last k levels | the last k levels and the read-out |
| "lora" | the frame at the network's input size, uint8 | normalisation and network, low-rank additions learn (peft) |
| "all" | the same | normalisation and network |

Batch statistics and dropout stay as at evaluation.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from pvr_zoo.encoder import Encoder
from pvr_zoo.errors import SpecError
from pvr_zoo.network import Network, build
from pvr_zoo.preprocess import Preprocess
from pvr_zoo.specs import EncoderSpec


class Trunk(nn.Module):
    """The frozen part: uint8 frames (N, H, W, 3) to (N, *feature_shape), float32 tokens or maps, or uint8 frames."""

    def __init__(
        self, preprocess: Preprocess, levels: nn.Module | None, held: tuple[int, ...], identity: dict[str, Any]
    ) -> None:
        super().__init__()
        self.preprocess, self.levels, self.feature_shape, self.identity = preprocess, levels, held, identity

    @property
    def device(self) -> torch.device:
        return self.preprocess.scale.device

    def forward(self, frames: Tensor) -> Tensor:
        """Raises FrameError for anything but uint8 (N, H, W, 3)."""
        if self.levels is None:
            return self.preprocess.crop(frames).to(torch.uint8).contiguous()
        with torch.no_grad():
            held: Tensor = self.levels(self.preprocess(frames))
        return held

    def train(self, mode: bool = True) -> Self:
        return self


class Tail(nn.Module):
    """The part that learns: what a trunk gives, to features (N, *feature_shape). Always in eval mode."""

    def __init__(self, network: nn.Module, preprocess: Preprocess | None, feature_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.preprocess, self.feature_shape = network, preprocess, feature_shape
        super().train(False)

    def forward(self, held: Tensor) -> Tensor:
        x = held.float() if self.preprocess is None else self.preprocess.normalise(held)
        feature: Tensor = self.network(x)
        return feature

    def train(self, mode: bool = True) -> Self:
        return self


def held_shape(spec: EncoderSpec, trainable: int | str) -> tuple[int, ...]:
    """What is kept of one frame for the tail; worked out on the meta device, nothing is computed."""
    size = spec.input_size
    if isinstance(trainable, str):
        return (size, size, 3)
    network = _levels(build(spec, None), spec)
    with torch.no_grad():
        x = network.stem(torch.empty(1, 3, size, size, device="meta"))
        for level in network.levels[: spec.truncate - trainable]:
            x = level(x)
    return tuple(x.shape[1:])


def _levels(network: nn.Module, spec: EncoderSpec) -> Network:
    if not isinstance(network, Network):
        raise SpecError(f"{spec.name} has no levels to cut between", hint="Train all of it: trainable=all.")
    return network


def cut(encoder: Encoder, trainable: int | str, *, rank: int = 8, seed: int = 0) -> tuple[Trunk, Tail]:
    """Take the encoder apart; `rank` and `seed` are of LoRA's additions, which begin at zero effect.

    Raises SpecError where the network has no levels to cut between.
    """
    spec, network = encoder.spec, encoder.network
    spec.check_trainable(trainable)
    identity = encoder.identity | {"trainable": trainable} | ({"lora_rank": rank} if trainable == "lora" else {})
    if isinstance(trainable, str):
        learning = _with_lora(network, rank, seed) if trainable == "lora" else network.requires_grad_(True)
        trunk = Trunk(encoder.preprocess, None, held_shape(spec, trainable), identity)
        return trunk, Tail(learning, encoder.preprocess, spec.feature_shape)
    network = _levels(network, spec)
    at = spec.truncate - trainable
    frozen = nn.Sequential(network.stem, *network.levels[:at]).requires_grad_(False)
    layers = tuple(layer - at for layer in network.layers)
    learning = Network(nn.Identity(), network.levels[at:], network.read, layers).requires_grad_(True)
    trunk = Trunk(encoder.preprocess, frozen, held_shape(spec, trainable), identity)
    return trunk, Tail(learning, None, spec.feature_shape)


def _with_lora(network: nn.Module, rank: int, seed: int) -> nn.Module:
    """Low-rank additions to every product of the network (Hu et al. 2021, arXiv:2106.09685); nothing else learns."""
    from peft import LoraConfig, inject_adapter_in_model

    products = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted: nn.Module = inject_adapter_in_model(
            LoraConfig(r=rank, lora_alpha=rank, target_modules=products, bias="none"), network
        )
    return adapted
