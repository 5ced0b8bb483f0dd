"""CLIP's traps: the archives' form, activation, normalisation, names that both towers use, pools, ImageBind's end."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from references import reference
from torch import Tensor, nn

import pvr_zoo
from pvr_zoo import checkpoint, verify
from pvr_zoo.families.openclip_names import spec_of
from pvr_zoo.network import bare, build
from pvr_zoo.rows.transforms import HALF
from pvr_zoo.specs import EncoderSpec


def load(spec: EncoderSpec, path: Path) -> pvr_zoo.Encoder:
    state = checkpoint.unwrap(checkpoint.read(path)[0], spec.layout, path)
    return pvr_zoo.Encoder(spec, build(spec, state), {})


def saved(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def as_openai_saves(state: dict[str, Tensor], path: Path) -> Path:
    """A TorchScript archive of nested modules with its products in float16, and the three numbers beside them."""
    tree = nn.Module()
    for name, size in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)):
        tree.register_buffer(name, torch.tensor(size))
    for key, value in state.items():
        *parents, name = key.split(".")
        place = tree
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, nn.Module())
            place = getattr(place, parent)
        place.register_buffer(name, value.half() if value.ndim > 1 else value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that TorchScript is deprecated
        torch.jit.save(torch.jit.script(tree), path)
    return path


@pytest.mark.parametrize("name", ["clip_vitb32", "clip_rn50"])
def test_openais_archives_load_through_the_real_path(name: str, tmp_path: Path) -> None:
    small = verify.small(pvr_zoo.spec(name))
    other = reference(small.builder)
    state = verify.synthetic(other.shapes(small))
    encoder = load(small, as_openai_saves(state, tmp_path / "archive.pt"))
    halved = {key: value.half().float() if value.ndim > 1 else value for key, value in state.items()}
    wanted = other.feature(small, halved, encoder.preprocess(verify.frames()))
    assert verify.relative_error(encoder(verify.frames()), wanted) < 1e-5
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    scripted = (tmp_path / "archive.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(scripted[: len(scripted) // 2])
    with pytest.raises(pvr_zoo.WeightsError):
        load(small, tmp_path / "cut.pt")


def test_quick_gelu_belongs_to_openai_alone(tmp_path: Path) -> None:
    """The same file under the other activation gives other features, so that neither can stand in for the other."""
    for ours, theirs in (("clip_vitl14", "openclip_vitl14"), ("clip_vitb16", "openclip_vitb16")):
        spec = verify.small(pvr_zoo.spec(ours))
        other = verify.small(pvr_zoo.spec(theirs))
        path = saved(verify.synthetic(reference("clip_vit").shapes(spec)), tmp_path / f"{ours}.pth")
        same = replace(other, transform=spec.transform)
        assert "quickgelu" in spec.architecture and "quickgelu" not in other.architecture
        assert verify.relative_error(load(same, path)(verify.frames()), load(spec, path)(verify.frames())) > 1e-3


def test_laions_vitl14_was_trained_on_minus_one_to_one() -> None:
    half = pvr_zoo.spec("openclip_vitl14").transform
    assert half.mean == half.std == HALF
    clip = pvr_zoo.spec("clip_vitl14").transform
    assert clip.mean == (0.48145466, 0.4578275, 0.40821073) and clip.kernel == "bicubic"
    for name in ("openclip_vith14", "openclip_vitb16", "openclip_vitb32", "imagebind_vith14"):
        assert pvr_zoo.spec(name).transform == clip


def test_only_the_text_tower_is_dropped() -> None:
    """Both towers have a `transformer` and `positional_embedding`: a prefix stripped first would lose the picture's."""
    layout = pvr_zoo.spec("clip_vitl14").layout
    keys = ("visual.transformer.resblocks.0.ln_1.weight", "transformer.resblocks.0.ln_1.weight")
    kept = checkpoint.unwrap(dict.fromkeys(keys, torch.zeros(1)), layout, Path("x"))
    assert list(kept) == [keys[0]]


@pytest.mark.parametrize(
    ("name", "eps"), [("clip_vitl14", 1e-5), ("openclip_vith14", 1e-5), ("imagebind_vith14", 1e-6)]
)
def test_epsilon_and_heads(name: str, eps: float) -> None:
    net = bare(pvr_zoo.spec(name))
    assert {module.eps for module in net.modules() if isinstance(module, nn.LayerNorm)} == {eps}
    assert {block.attn.num_heads for block in net.blocks} == {16}  # 80 numbers a head in the huge ones


def test_rn50x64_works_at_448() -> None:
    spec = pvr_zoo.spec("clip_rn50x64")
    assert spec.input_size == 448 and spec.feature_shape == (1024,)
    assert bare(spec).state_dict()["visual.attnpool.positional_embedding"].shape == (1 + 14 * 14, 4096)
    with pytest.raises(pvr_zoo.SpecError, match="input_size=448 only"):
        spec.request(input_size=224)
    assert spec.request(feature="mean").feature_shape == (4096,)
    assert spec.request(truncate=3).feature == "mean" and spec.request(truncate=3).feature_shape == (2048,)


def test_what_is_not_used_is_not_kept(tmp_path: Path) -> None:
    spec = verify.small(pvr_zoo.spec("clip_rn50"))
    path = saved(verify.synthetic(reference("clip_resnet").shapes(spec)), tmp_path / "rn.pth")
    assert any("q_proj" in key for key, _ in load(spec, path).named_parameters())
    for request in (spec.request(feature="mean"), spec.request(truncate=3)):
        assert not any("q_proj" in key for key, _ in load(request, path).named_parameters())
    vit = verify.small(pvr_zoo.spec("clip_vitb32"))
    path = saved(verify.synthetic(reference("clip_vit").shapes(vit)), tmp_path / "vit.pth")
    cut = load(vit.request(truncate=1, norm="none"), path)
    assert not any("head" in key or "levels.1" in key or "read" in key for key, _ in cut.named_parameters())


def test_imagebinds_output_has_length_one_and_its_class_token_has_not(tmp_path: Path) -> None:
    spec = verify.small(pvr_zoo.spec("imagebind_vith14"))
    path = saved(verify.synthetic(reference("imagebind").shapes(spec)), tmp_path / "imagebind.pth")
    lengths = load(spec, path)(verify.frames()).norm(dim=-1)
    assert torch.allclose(lengths, torch.ones(4))
    assert (load(spec.request(feature="cls"), path)(verify.frames()).norm(dim=-1) > 2).all()


def test_positions_for_another_grid_are_open_clips(tmp_path: Path) -> None:
    from open_clip.model import resize_pos_embed

    spec = verify.small(pvr_zoo.spec("clip_vitb16"))
    state = verify.synthetic(reference("clip_vit").shapes(spec))
    path = saved(state, tmp_path / "clip.pth")
    larger = spec.request(input_size=96, feature="patches")
    target = nn.Module()
    target.visual = nn.Module()
    target.visual.grid_size = (6, 6)
    resized = {"visual.positional_embedding": state["visual.positional_embedding"].clone()}
    resize_pos_embed(resized, target)
    images = (encoder := load(larger, path)).preprocess(verify.frames())
    wanted = reference("clip_vit").feature(larger, state | resized, images)
    assert verify.relative_error(encoder(verify.frames()), wanted) < 1e-5


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("ViT-L-14/openai", "clip_vitl14"),  # its plain architecture name says GELU, the weights' entry QuickGELU
        ("RN50x64/openai", "clip_rn50x64"),
        ("ViT-H-14/laion2b_s32b_b79k", "openclip_vith14"),
        ("ViT-L-14/laion2b_s32b_b82k", "openclip_vitl14"),
    ],
)
def test_open_clips_names_pass_through(name: str, row: str, tmp_path: Path) -> None:
    passed, own = spec_of(f"openclip:{name}"), pvr_zoo.spec(row)
    for spec in (passed, own):
        assert {key: value.shape for key, value in bare(spec).state_dict().items()} == {
            key: value.shape for key, value in bare(own).state_dict().items()
        }
    assert (passed.transform, passed.output, passed.widths) == (own.transform, own.output, own.widths)
    path = saved(verify.synthetic(reference(own.builder).shapes(verify.small(own))), tmp_path / "x.pth")
    ours, theirs = (load(verify.small(spec), path)(verify.frames()) for spec in (own, passed))
    assert torch.equal(ours, theirs)


def test_names_that_open_clip_does_not_have() -> None:
    with pytest.raises(pvr_zoo.UnknownEncoder, match="Did you mean 'ViT-L-14'"):
        spec_of("openclip:ViT-L14/openai")
    with pytest.raises(pvr_zoo.UnknownEncoder, match="Did you mean 'openai'"):
        spec_of("openclip:ViT-L-14/opena")
    with pytest.raises(pvr_zoo.SpecError, match="Use timm:vit_base_patch16_siglip_224"):
        spec_of("openclip:ViT-B-16-SigLIP/webli")
    with pytest.raises(pvr_zoo.SpecError, match="does not build: attentional_pool"):
        spec_of("openclip:coca_ViT-L-14/laion2b_s13b_b90k")
