"""The random control: every architecture with weights that were never trained.

Recipe 1. Each tensor is drawn from a generator of its own, keyed by (seed, crc32 of its name), so that it depends on
neither the torch version nor on which other tensors are built. Products: normal with variance 2 / fan_in (networks of
stages) or 1 / fan_in (of blocks); tokens and positions: normal with standard deviation 0.5, so that places in the
picture stay distinguishable; biases 0; scales 1, also those that start at 0 in training (the last batch norm of a
residual branch, DINOv2's layer scale), which would switch the branch off. Batch-norm statistics are those of the stored
frames.
"""

import re
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pvr_zoo import network
from pvr_zoo.checkpoint import file_sha256, load_strictly
from pvr_zoo.families import calibration
from pvr_zoo.preprocess import Preprocess
from pvr_zoo.specs import EncoderSpec

RECIPE = 1  # to be raised with every change of what is drawn: `identity` carries it into runs
# Class tokens and positions, as timm and transformers name them. CLIP's ResNets have positions in their last pooling
# only, where the map says already what is where: these are drawn like products, as at the start of CLIP's training.
_EMBEDDINGS = re.compile(r"(.*\.)?(cls_token|class_embedding|pos_embed|position_embeddings?(\.weight)?)")
_EMBEDDING_STD = 0.5


def build(spec: EncoderSpec) -> nn.Module:
    """The control network of a spec with a seed. Costs seconds for the large ones."""
    assert spec.seed is not None, spec.name
    net = network.bare(spec)
    gain = 2.0 if spec.unit == "stage" else 1.0
    drawn = {key: draw(key, tuple(value.shape), spec.seed, gain) for key, value in net.state_dict().items()}
    load_strictly(net, {key: value for key, value in drawn.items() if value is not None}, spec.name)
    arranged = network.family(spec).arrange(net, spec)
    calibrate(arranged, spec)
    return arranged


def identity() -> dict[str, Any]:
    """What decides the weights beside seed and architecture, in the place of a weights file's checksum."""
    return {
        "weights_origin": "drawn from the seed",
        "recipe": RECIPE,
        "calibration_sha256": file_sha256(calibration.FILE),
    }


def draw(key: str, shape: tuple[int, ...], seed: int, gain: float) -> Tensor | None:
    """The tensor named `key`; None for batch counters."""
    if key.endswith("num_batches_tracked"):
        return None
    embedding = _EMBEDDINGS.fullmatch(key) is not None
    if len(shape) < 2 and not embedding:
        return torch.zeros(shape) if key.endswith(("bias", "running_mean")) else torch.ones(shape)
    generator = np.random.default_rng(np.random.SeedSequence((seed, zlib.crc32(key.encode()))))
    std = _EMBEDDING_STD if embedding else (gain / int(np.prod(shape[1:]))) ** 0.5
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32) * np.float32(std))


@torch.no_grad()
def calibrate(net: nn.Module, spec: EncoderSpec) -> None:
    """Set every batch norm's statistics to those of its input on the stored frames.

    In double precision, so that the order of summation (threads, processor) does not show in the float32 result.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # the statistics become those of the one batch
    net.double().train()
    net(Preprocess(spec.transform)(torch.from_numpy(calibration.load())).double())
    net.float().eval()
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
