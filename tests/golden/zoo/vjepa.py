"""transformers' V-JEPA 2 on a clip of two equal frames."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "transformers.VJEPA2Model"


def model(spec: EncoderSpec, depth: int) -> nn.Module:
    """transformers' network, with a small predictor beside the encoder."""
    ensure_torchvision()
    from transformers import VJEPA2Config, VJEPA2Model

    width = spec.widths[0]
    config = VJEPA2Config(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=spec.options["heads"],
        mlp_ratio=spec.options["hidden"] / width,
        crop_size=spec.input_size,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )
    return VJEPA2Model(config).eval()


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    return {key: tuple(value.shape) for key, value in model(spec, spec.depth).state_dict().items()}


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    net = model(spec, spec.truncate)
    beyond = tuple(f"encoder.layer.{number}." for number in range(spec.truncate, spec.depth))
    net.load_state_dict({key: value for key, value in state.items() if not key.startswith(beyond)})
    tokens = net(images[:, None].repeat(1, 2, 1, 1, 1), skip_predictor=True).last_hidden_state
    return tokens if spec.feature == "patches" else tokens.mean(1)
