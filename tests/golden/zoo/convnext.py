"""ConvNeXt of transformers as the independent side of family `convnext`, under timm's key names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "transformers.ConvNextModel"
NAMES = (  # from transformers' to timm's
    (r"^embeddings\.patch_embeddings\.", "stem.0."),
    (r"^embeddings\.layernorm\.", "stem.1."),
    (r"^encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
    (r"^encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
    (r"\.layer_scale_parameter$", ".gamma"),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.layernorm\.", ".norm."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"^layernorm\.", "head.norm."),
)


def model(spec: EncoderSpec) -> nn.Module:
    """transformers' network of the small size."""
    ensure_torchvision()
    from transformers import ConvNextConfig, ConvNextModel

    config = ConvNextConfig(
        depths=spec.options["depths"], hidden_sizes=spec.options["dims"], hidden_act="gelu", layer_norm_eps=1e-6
    )
    return ConvNextModel(config).eval()


def timm_name(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file, classifier included."""
    found = {timm_name(key): tuple(value.shape) for key, value in model(spec).state_dict().items()}
    return {"head.fc.weight": (10, spec.widths[-1]), "head.fc.bias": (10,)} | found


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    net = model(spec)
    net.load_state_dict({key: state[timm_name(key)] for key in net.state_dict()})
    found = net(images, output_hidden_states=True)
    if spec.feature == "output":
        return found.pooler_output
    chosen = [found.hidden_states[layer] for layer in spec.layers]  # the first is the stem's
    if spec.feature == "patches":
        return torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in chosen], -1)
    return torch.cat([x.mean((2, 3)) for x in chosen], -1)
