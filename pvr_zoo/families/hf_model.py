"""transformers' vision models taken apart: `hf:ORG/NAME` (hf_names.py). Files keep their stored names.

transformers 5 has other names in memory than its files have; its own loader translates them.
"""

from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from pvr_zoo.errors import WeightsError
from pvr_zoo.network import Network, token_network
from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

_BLOCKS = ("layers", "encoder.layers", "encoder.layer")  # where the models keep them, by type and version


class Stem(nn.Module):
    """Images to the tokens before the first block; CLIP normalises them there."""

    def __init__(self, embeddings: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.embeddings, self.norm = embeddings, norm

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.embeddings(images))
        return tokens


class Block(nn.Module):
    """One of the model's blocks; older versions return a tuple."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, tokens: Tensor) -> Tensor:
        out = self.block(tokens, attention_mask=None)
        tokens = out[0] if isinstance(out, tuple) else out
        return tokens


class Pool(nn.Module):
    """The last block's tokens to what the model returns: CLIP's projected class token, SigLIP's attention pooling."""

    def __init__(self, norm: nn.Module, head: nn.Module, first: bool) -> None:
        super().__init__()
        self.norm, self.head, self.first = norm, head, first

    def forward(self, tokens: Tensor) -> Tensor:
        feature: Tensor = self.head(self.norm(tokens[:, 0] if self.first else tokens))
        return feature


def bare(spec: EncoderSpec) -> Any:
    """The model without classifier and pooling layer, untrained."""
    model, config, arguments = _model(spec)
    return model(config, **arguments)


def _model(spec: EncoderSpec) -> tuple[Any, Any, dict[str, Any]]:
    """Class, configuration and arguments."""
    ensure_torchvision()
    import transformers

    model = getattr(transformers, spec.options["model"])
    arguments = {"add_pooling_layer": False} if spec.options["model"] in ("ViTModel", "IJepaModel") else {}
    return model, model.config_class.from_dict(spec.options["config"]), arguments


def convert(state: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """The same weights with the names that the model has in memory; raises WeightsError where they do not fit."""
    from transformers.utils import logging

    model, config, arguments = _model(spec)
    said = logging.get_verbosity()
    logging.set_verbosity_error()  # it tells of missing keys as of something normal
    try:
        net, problems = model.from_pretrained(
            None,
            config=config,
            state_dict=dict(state),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are listed instead of raised
            **arguments,
        )
    finally:
        logging.set_verbosity(said)
    for what, found in problems.items():
        if found:
            first, kind = min(map(str, found)), what.replace("_", " ")
            raise WeightsError(f"the weights do not fit {spec.name}: {len(found)} {kind} (first: {first})")
    fitted: dict[str, Tensor] = net.state_dict()
    if len(fitted) != len(state):
        raise WeightsError(f"the weights do not fit {spec.name}: {len(state)} tensors, expected are {len(fitted)}")
    return fitted


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """The model as stem, blocks and read-out."""
    trunk = getattr(net, "vision_model", net)
    norm = getattr(trunk, "layernorm", None) or trunk.post_layernorm
    if hasattr(trunk.embeddings, "position_ids"):  # no weights: these were left on the meta device
        table = trunk.embeddings.position_embedding.weight
        trunk.embeddings.position_ids = torch.arange(len(table), device=table.device)[None]
    stem = Stem(trunk.embeddings, getattr(trunk, "pre_layrnorm", nn.Identity()))
    output = None
    if spec.feature == "output":
        head = getattr(net, "visual_projection", None)
        output = Pool(norm, head or trunk.head, first=head is not None)
    blocks = next(found for path in _BLOCKS if (found := _part(trunk, path)) is not None)
    return token_network(spec, stem, map(Block, blocks), norm, spec.options["tokens"], output)


def _part(module: Any, path: str) -> Any:
    return reduce(lambda part, name: getattr(part, name, None), path.split("."), module)
