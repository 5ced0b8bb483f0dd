"""transformers' RADIO as the independent side of family `radio`, fed with NVIDIA's key names.

transformers has the networks without layer scale and version 4's position rule; what version 3 has beside that is added
here, after NVlabs/RADIO@c0f3701 and, for the corners, timm 1.0.31's note on the code beside the files.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "transformers 5.23 (Radio), position rule of version 3 by hand"
SIDE = 11  # of the small files' position table
HEADS = {"vitb": 12, "vitl": 16, "vith": 16, "vitg": 24, "so400m": 16}
PREFIX = "radio_model.model."


def facts(spec: EncoderSpec) -> tuple[int, int, int, bool, bool]:
    """Heads, class tokens and registers, width of the feed-forward layers, layer scale, corners matched."""
    _, version, size = spec.name.split("_")
    size = size.removesuffix("16")
    hidden = int(spec.widths[0] * 4304 / 1152) if size == "so400m" else 4 * spec.widths[0]
    scaled = version == "v3" and size in ("vitb", "vitl")
    return HEADS[size], 8 if version == "v3" else 10, hidden, scaled, version == "v3" and size in ("vitb", "vith")


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    _, tokens, hidden, scaled, _ = facts(spec)
    width = spec.widths[0]
    found: dict[str, tuple[int, ...]] = {
        "patch_generator.embedder.weight": (width, 3 * 16 * 16),
        "patch_generator.pos_embed": (1, SIDE**2, width),
        "patch_generator.cls_token.token": (tokens, width),
    }
    for number in range(spec.depth):
        block = {"attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,)}
        block |= {"attn.proj.weight": (width, width), "attn.proj.bias": (width,)}
        block |= {"mlp.fc1.weight": (hidden, width), "mlp.fc1.bias": (hidden,)}
        block |= {"mlp.fc2.weight": (width, hidden), "mlp.fc2.bias": (width,)}
        block |= {f"{norm}.{end}": (width,) for norm in ("norm1", "norm2") for end in ("weight", "bias")}
        block |= {"ls1.grandma": (width,), "ls2.grandma": (width,)} if scaled else {}
        found |= {f"blocks.{number}.{key}": shape for key, shape in block.items()}
    beside = {f"radio_model.input_conditioner.norm_{name}": (3, 1, 1) for name in ("mean", "std")}
    return {PREFIX + key: shape for key, shape in found.items()} | beside | {"radio_model.summary_idxs": (2,)}


def model(spec: EncoderSpec) -> nn.Module:
    """transformers' network of the small size, with the table for SIDE² patches."""
    ensure_torchvision()
    from transformers import RadioConfig, RadioModel

    heads, tokens, hidden, _, _ = facts(spec)
    config = RadioConfig(
        hidden_size=spec.widths[0],
        mlp_ratio=(hidden + 0.5) / spec.widths[0],
        num_hidden_layers=spec.depth,
        num_attention_heads=heads,
        image_size=spec.input_size,
        max_img_size=16 * SIDE,
        num_cls_tokens=3,
        num_registers=tokens - 3,
    )
    return RadioModel(config).eval()


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    _, tokens, _, scaled, corners = facts(spec)
    net = model(spec)
    found = net.state_dict() | renamed(state)
    if corners:  # a table that the network's own rule leaves as it is
        grid = spec.input_size // 16
        found["embeddings.position_embedding"] = cornered(found["embeddings.position_embedding"], grid)
        net.embeddings.position_embedding = nn.Parameter(found["embeddings.position_embedding"])  # type: ignore[union-attr]
        net.embeddings.max_rows = net.embeddings.max_cols = grid  # type: ignore[union-attr]
    net.load_state_dict(found, strict=True)
    assert scaled == any("lambda1" in key for key in renamed(state))
    x = net.embeddings(images)  # type: ignore[operator]
    features = []
    for number, block in enumerate(net.encoder.layer[: spec.truncate], start=1):  # type: ignore[index,union-attr]
        x = block(x)
        if number in spec.layers:
            patches = x[:, tokens:]
            kinds = {"cls": x[:, 0], "patches": patches, "mean": patches.mean(1), "output": x[:, :2].flatten(1)}
            features.append(kinds[spec.feature])
    return torch.cat(features, -1)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors under transformers' names, which its conversion table lists."""
    names = [
        (r"^patch_generator\.embedder", "embeddings.patch_projection"),
        (r"^patch_generator\.pos_embed", "embeddings.position_embedding"),
        (r"^patch_generator\.cls_token\.token", "embeddings.cls_register_token"),
        (r"^blocks", "encoder.layer"),
        (r"attn\.proj", "attention.o_proj"),
        (r"attn\.([qkv])\.", r"attention.\1_proj."),
        (r"ls([12])\.grandma", r"layer_scale\1.lambda1"),
    ]
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.startswith(PREFIX):
            continue
        key = key.removeprefix(PREFIX)
        parts = {key: value}
        if ".attn.qkv." in key:
            parts = {key.replace("qkv", letter): part for letter, part in zip("qkv", value.chunk(3), strict=True)}
        for pattern, name in names:
            parts = {re.sub(pattern, name, part): tensor for part, tensor in parts.items()}
        found |= parts
    return found


def cornered(table: Tensor, grid: int) -> Tensor:
    """(1, SIDE², C) read at `grid` places from corner to corner by straight lines, (1, grid², C)."""
    rows = torch.zeros(grid, SIDE)
    for i in range(grid):
        place = i * (SIDE - 1) / (grid - 1)
        below = min(int(place), SIDE - 2)
        rows[i, below], rows[i, below + 1] = 1 - (place - below), place - below
    cells = table[0].unflatten(0, (SIDE, SIDE))
    return torch.einsum("ia,jb,abc->ijc", rows, rows, cells).flatten(0, 1)[None]
