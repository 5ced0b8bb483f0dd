"""transformers' vision models as the independent side of family `vit`, fed with the publishers' own key names.

How position embeddings change grid is written out with numpy: the sampling places and weights of a separable cubic.
Sources of that and of what the files hold: facebookresearch/dino@7c446df, dinov2@b8931f7, mae@efb2a80, eai-vc@e782c35,
ijepa@52c1ae9, ir413/mvp@5746656, HaoyiZhu/SPA@37b7e04, timm 1.0.31 for its own files.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "transformers 5.23 (ViT, Dinov2, Dinov2WithRegisters, IJepa, Siglip), positions by hand"
SIDE = 7  # of the small files' position grid: never the network's
HEADS = {"s": 6, "b": 12, "l": 16, "h": 16, "g": 24}
OTHER_HEADS = {"mvp_vits16": 12, "ijepa_vitg16_22k": 16, "siglip_so400m14": 16, "siglip2_so400m14": 16}

# How each class of transformers names a part, and where its blocks are.
_VIT = [
    (r"^(cls_token)", r"embeddings.\1"),
    (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.([qkv])\.", r".attention.\1_proj."),
]
_DINOV2 = [
    (r"^(cls_token|mask_token|register_tokens)", r"embeddings.\1"),
    (r"^blocks\.", "encoder.layer."),
    *(rule for rule in _VIT[1:] if "blocks" not in rule[0] and r"\.norm" not in rule[0]),
    (r"\.ls([12])\.gamma", r".layer_scale\1.lambda1"),
    (r"\.mlp\.w1\.", ".mlp.gate_proj."),
    (r"\.mlp\.w2\.", ".mlp.up_proj."),
    (r"\.mlp\.w3\.", ".mlp.down_proj."),
]
_SIGLIP = [
    (r"^pos_embed", "embeddings.position_embedding.weight"),
    (r"^patch_embed\.proj", "embeddings.patch_embedding"),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.out_proj."),
    (r"^blocks\.(\d+)\.attn\.([qkv])\.", r"encoder.layers.\1.self_attn.\2_proj."),
    (r"^blocks\.", "encoder.layers."),
    (r"^attn_pool\.latent", "head.probe"),
    (r"^attn_pool\.in_proj\.", "head.attention.in_proj_"),
    (r"^attn_pool\.proj\.", "head.attention.out_proj."),
    (r"^attn_pool\.norm\.", "head.layernorm."),
    (r"^attn_pool\.mlp\.", "head.mlp."),
]


def publisher(spec: EncoderSpec) -> str:
    """in1k, dino, dinov2, mae, vc1, mvp, spa, ijepa, siglip or siglip2."""
    first, last = spec.name.split("_")[0], spec.name.split("_")[-1]
    return last if last in ("in1k", "dino") else first


def heads(spec: EncoderSpec) -> int:
    """Of the published network, by its name."""
    size = re.search(r"vit([sblhg])", spec.name)
    return OTHER_HEADS.get(spec.name) or HEADS[size.group(1)]  # type: ignore[union-attr]


def hidden(spec: EncoderSpec) -> int:
    """Width of the feed-forward layers: four times the tokens', but for the odd ones."""
    width = spec.widths[0]
    if "so400m" in spec.name:
        return int(width * 3.7362)  # 1152 to 4304
    return int(width * 48 / 11) if spec.name == "ijepa_vitg16_22k" else 4 * width


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    source, width, patch = publisher(spec), spec.widths[0], spec.strides[0]
    tokens = 0 if source in ("ijepa", "siglip", "siglip2") else 1
    found: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width)} if tokens else {}
    found |= {"pos_embed": (1, tokens + SIDE**2, width)}
    found |= {"patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,)}
    for number in range(spec.depth):
        found |= {f"blocks.{number}.{key}": shape for key, shape in _block(spec, width).items()}
    found |= _norm("norm", width)
    if source in ("siglip", "siglip2"):
        found |= _map_head(spec, width)
    found |= _beside(spec, source, width)
    prefix = {"ijepa": "module.", "spa": "model.img_backbone."}.get(source, "")
    found = {prefix + key: shape for key, shape in found.items()}
    return found | ({"model.dense_head.proj.weight": (4, 5)} if source == "spa" else {})


def _block(spec: EncoderSpec, width: int) -> dict[str, tuple[int, ...]]:
    found = _norm("norm1", width) | _linear("attn.qkv", width, 3 * width) | _linear("attn.proj", width, width)
    found |= _norm("norm2", width)
    if publisher(spec) == "dinov2":
        found |= {"ls1.gamma": (width,), "ls2.gamma": (width,)}
    if "dinov2_vitg" in spec.name:
        gated = (int(4 * width * 2 / 3) + 7) // 8 * 8
        return found | _linear("mlp.w12", width, 2 * gated) | _linear("mlp.w3", gated, width)
    return found | _linear("mlp.fc1", width, hidden(spec)) | _linear("mlp.fc2", hidden(spec), width)


def _map_head(spec: EncoderSpec, width: int) -> dict[str, tuple[int, ...]]:
    """timm's attention pooling: one learned query."""
    found = {"attn_pool.latent": (1, 1, width)}
    found |= _linear("attn_pool.q", width, width) | _linear("attn_pool.kv", width, 2 * width)
    found |= _linear("attn_pool.proj", width, width) | _norm("attn_pool.norm", width)
    return found | _linear("attn_pool.mlp.fc1", width, hidden(spec)) | _linear("attn_pool.mlp.fc2", hidden(spec), width)


def _beside(spec: EncoderSpec, source: str, width: int) -> dict[str, tuple[int, ...]]:
    """What the file holds beside the encoder that features need, and registers."""
    if source == "in1k":
        return _linear("head", width, 10)
    if source == "dinov2":
        return {"mask_token": (1, width)} | ({"register_tokens": (1, 4, width)} if spec.name.endswith("_reg") else {})
    if source == "vc1":
        return {"mask_token": (1, 1, 8)} | _linear("decoder_embed", width, 8) | _norm("decoder_norm", 8)
    if source == "spa":
        found = {"mask_token": (1, 1, 8)} | _linear("decoder_embed", width, 8)
        return found | _linear("readout_project.0", 16, 8) | _linear("upsample.0.proj", 8, 8)
    return {}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def model(spec: EncoderSpec) -> tuple[nn.Module, nn.ModuleList, nn.Module, list[tuple[str, str]]]:
    """transformers' network of the small size, its blocks, its final norm and the names of its parts."""
    ensure_torchvision()
    import transformers as hf

    common = {
        "hidden_size": spec.widths[0],
        "num_hidden_layers": spec.depth,
        "num_attention_heads": heads(spec),
        "image_size": spec.input_size,
        "patch_size": spec.strides[0],
        "layer_norm_eps": 1e-6,
    }
    source = publisher(spec)
    if source == "dinov2":
        swiglu = {"use_swiglu_ffn": "vitg" in spec.name}
        kind = "Dinov2WithRegisters" if spec.name.endswith("_reg") else "Dinov2"
        net = getattr(hf, f"{kind}Model")(getattr(hf, f"{kind}Config")(**common, **swiglu)).eval()
        return net, net.encoder.layer, net.layernorm, _DINOV2
    common["intermediate_size"] = hidden(spec)
    if source in ("siglip", "siglip2"):
        net = hf.SiglipVisionModel(hf.SiglipVisionConfig(**common)).eval()
        return net, net.encoder.layers, net.post_layernorm, _SIGLIP
    kind = "IJepa" if source == "ijepa" else "ViT"
    net = getattr(hf, f"{kind}Model")(getattr(hf, f"{kind}Config")(**common), add_pooling_layer=False).eval()
    return net, net.layers, net.layernorm, _VIT


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    net, blocks, norm, names = model(spec)
    net.load_state_dict(renamed(spec, state, names, set(net.state_dict())), strict=True)
    x = net.embeddings(images)  # type: ignore[operator]
    patches = (spec.input_size // spec.strides[0]) ** 2
    features = []
    for number, block in enumerate(blocks[: spec.truncate], start=1):
        x = block(x, attention_mask=None)
        if number not in spec.layers:
            continue
        y = norm(x) if spec.norm == "keep" else x
        kinds: dict[str, Callable[[], Tensor]] = {
            "cls": lambda y=y: y[:, 0],
            "patches": lambda y=y: y[:, -patches:],
            "mean": lambda y=y: y[:, -patches:].mean(1),
            "output": lambda y=y: net.head(y),  # type: ignore[operator]
        }
        features.append(kinds[spec.feature]())
    return torch.cat(features, -1)


def renamed(
    spec: EncoderSpec, state: Mapping[str, Tensor], names: list[tuple[str, str]], wanted: set[str]
) -> dict[str, Tensor]:
    """The file's tensors under transformers' names; what the network has no place for is dropped."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        key = key.removeprefix("module.").removeprefix("model.img_backbone.")
        if key.endswith(("attn.qkv.weight", "attn.qkv.bias")):
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                found[key.replace("qkv", letter)] = part
        elif ".mlp.w12." in key:  # the first half goes through the SiLU
            found[key.replace("w12", "w1")], found[key.replace("w12", "w2")] = value.chunk(2)
        else:
            found[key] = value
    for end in ("weight", "bias"):
        if f"attn_pool.q.{end}" in found:
            parts = [found.pop(f"attn_pool.{name}.{end}") for name in ("q", "kv")]
            found[f"attn_pool.in_proj.{end}"] = torch.cat(parts)
    tokens = found["pos_embed"].shape[1] - SIDE**2
    found["pos_embed"] = fitted(found["pos_embed"], tokens, spec)
    if publisher(spec) in ("siglip", "siglip2"):
        found["pos_embed"] = found["pos_embed"][0]
    for pattern, name in names:
        found = {re.sub(pattern, name, key): value for key, value in found.items()}
    return {key: value for key, value in found.items() if key in wanted}


def fitted(table: Tensor, tokens: int, spec: EncoderSpec) -> Tensor:
    """Position embeddings (1, tokens + SIDE², C) for the network's grid, as the publisher's code makes them."""
    grid = spec.input_size // spec.strides[0]
    rows = torch.from_numpy(sampling(spec, grid)).float()  # (grid, SIDE)
    cells = table[0, tokens:].unflatten(0, (SIDE, SIDE))
    cells = torch.einsum("ia,jb,abc->ijc", rows, rows, cells).flatten(0, 1)
    return torch.cat([table[:, :tokens], cells[None]], 1)


def sampling(spec: EncoderSpec, grid: int) -> np.ndarray:
    """How much each of SIDE trained places counts at each of `grid` places."""
    source = publisher(spec)
    registers = spec.name.endswith("_reg")
    if source in ("dino", "dinov2") and not registers:  # a scale factor with an offset against rounding, four taps
        return cubic_rows(grid, SIDE / (grid + 0.1), sharpness=-0.75, widen=False)
    if registers or source in ("in1k", "siglip", "siglip2"):  # antialiased as Pillow does it
        return cubic_rows(grid, SIDE / grid, sharpness=-0.5, widen=True)
    return cubic_rows(grid, SIDE / grid, sharpness=-0.75, widen=False)


def cubic_rows(grid: int, step: float, sharpness: float, widen: bool) -> np.ndarray:
    """Keys' cubic at (i + ½) · step − ½: as wide as the step, cut at the border; or four taps, the border repeated."""
    rows = np.zeros((grid, SIDE))
    for i in range(grid):
        place = (i + 0.5) * step - 0.5
        if widen:
            rows[i] = keys_cubic((np.arange(SIDE) - place) / max(step, 1), sharpness)
            rows[i] /= rows[i].sum()
        else:
            taps = np.floor(place).astype(int) + np.arange(-1, 3)
            np.add.at(rows[i], taps.clip(0, SIDE - 1), keys_cubic(taps - place, sharpness))
    return rows


def keys_cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys 1981, equation 15 for any a."""
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
