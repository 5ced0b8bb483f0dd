"""CLIP's image towers: OpenAI's, OpenCLIP's, and ImageBind's vision trunk (OpenCLIP's ViT-H/14, another head).

The files hold the text tower too, and ImageBind's four other senses; both are dropped by name. OpenAI's checksums are
in its urls: clip/clip.py @ d05afc4 compares the file with that part of them.
"""

from dataclasses import replace

from pvr_zoo.registry import register
from pvr_zoo.rows.transforms import HALF
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource

CLIP = Transform(
    resize=224,
    crop=224,
    kernel="bicubic",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
TEXT = (
    *("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "logit_scale"),
    *("text.", "logit_bias", "input_resolution", "context_length", "vocab_size"),
)
_RADFORD = (
    "Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020"
)
_CHERTI = "Cherti et al. 2023, Reproducible scaling laws for contrastive language-image learning, arXiv:2212.07143"
_GIRDHAR = "Girdhar et al. 2023, ImageBind: One Embedding Space To Bind Them All, arXiv:2305.05665"
_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_WIT = Groups(objective="image-text contrast", data="WIT-400M", backbone="vit", language=True, diverse=True)
_LAION = replace(_WIT, data="LAION-2B")


def clip_vit(name: str, size: str, patch: int, shape: tuple[int, int, int], **fields: object) -> EncoderSpec:
    """A row for a CLIP ViT: timm's word for its size, patch, (width, depth, output); `fields` say what differs."""
    width, depth, output = shape
    base = EncoderSpec(
        name=name,
        family="clip",
        architecture=f"vit_{size}_patch{patch}_clip_quickgelu_224",
        builder="pvr_zoo.families.clip_vit",
        transform=CLIP,
        widths=(width,) * depth,
        strides=(patch,) * depth,
        features=("output", "cls", "mean", "patches", "keypoints"),
        output=(output,),
        output_is="the class token after the final norm, projected to the space shared with text (not normalised)",
        groups=_WIT,
        licence="MIT",
        citation=_RADFORD,
        input_multiple=patch,
        final_norm=True,
        when_truncated="ln_post (norm=none leaves it out), then the class token or feature asked for; no projection",
        positions="antialias",
        layout=Layout(drop=TEXT),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def clip_resnet(name: str, width: int, blocks: tuple[int, ...], size: int, **fields: object) -> EncoderSpec:
    """A row for a CLIP ResNet of stem width, blocks a stage and input size; `fields` say what differs."""
    base = EncoderSpec(
        name=name,
        family="clip",
        architecture="modified_resnet",
        builder="pvr_zoo.families.clip_resnet",
        transform=CLIP.at(size),
        widths=tuple(4 * width * 2**stage for stage in range(4)),
        strides=(4, 8, 16, 32),
        features=("output", "mean", "patches", "keypoints"),
        output=(1024,),
        output_is="the attention pool over the last map, in the space shared with text (not normalised)",
        groups=replace(_WIT, backbone="resnet"),
        licence="MIT",
        citation=_RADFORD,
        when_truncated="the mean of the last kept stage's map, in the place of the attention pool",
        unit="stage",
        channels_last=True,
        options={"layers": blocks, "width": width, "heads": width // 2},
        layout=Layout(drop=TEXT),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def _openai(sha256: str, file: str) -> WeightsSource:
    return WeightsSource(url=f"{_OPENAI}/{sha256}/{file}.pt", sha256=sha256)


_L14, _B = (1024, 24, 768), (768, 12, 512)
_L = _openai("b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "ViT-L-14")
_B16 = _openai("5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", "ViT-B-16")
_B32 = _openai("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "ViT-B-32")
_RN50 = _openai("afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762", "RN50")
_RN50X64 = _openai("be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c", "RN50x64")
register(clip_vit("clip_vitl14", "large", 14, _L14, weights=_L))
register(clip_vit("clip_vitb16", "base", 16, _B, weights=_B16))
register(clip_vit("clip_vitb32", "base", 32, _B, weights=_B32))
register(clip_resnet("clip_rn50", 64, (3, 4, 6, 3), 224, weights=_RN50))
register(clip_resnet("clip_rn50x64", 128, (3, 15, 36, 10), 448, weights=_RN50X64))

# LAION's sums are recorded by many unrelated projects that pin the files; of the B/16 none was found.
_H14 = clip_vit(
    "openclip_vith14",
    "huge",
    14,
    (1280, 32, 1024),
    architecture="vit_huge_patch14_clip_224",  # plain GELU, like all of LAION's
    groups=_LAION,
    citation=_CHERTI,
    weights=WeightsSource(
        hub="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        file="open_clip_pytorch_model.bin",
        sha256="9a78ef8e8c73fd0df621682e7a8e8eb36c6916cb3c16b291a082ecd52ab79cc4",
    ),
)
register(_H14)
_L14_LAION = WeightsSource(
    hub="laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    file="open_clip_pytorch_model.bin",
    sha256="5ddb47339f44e4fd9cace3d3960d38af1b51a25857440cfae90afc44706d7e2b",
)
_B16_LAION = WeightsSource(hub="laion/CLIP-ViT-B-16-laion2B-s34B-b88K", file="open_clip_pytorch_model.bin")
_B32_LAION = WeightsSource(
    hub="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    file="open_clip_model.safetensors",
    sha256="ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6",
)
for _row in (
    # trained and evaluated with mean and std 0.5, unlike its siblings: open_clip/pretrained.py 3.3.0
    clip_vit("openclip_vitl14", "large", 14, _L14, weights=_L14_LAION, transform=replace(CLIP, mean=HALF, std=HALF)),
    clip_vit("openclip_vitb16", "base", 16, _B, weights=_B16_LAION),
    clip_vit("openclip_vitb32", "base", 32, _B, weights=_B32_LAION),
):
    _plain = _row.architecture.replace("_quickgelu", "")
    register(replace(_row, architecture=_plain, groups=_LAION, citation=_CHERTI))

_OTHER_SENSES = ("text", "audio", "depth", "thermal", "imu")
register(
    replace(
        _H14,
        name="imagebind_vith14",
        family="imagebind",
        builder="pvr_zoo.families.imagebind",
        output_is="the class token after the final norm, projected, of length 1",
        groups=replace(_LAION, data="LAION-2B (the trunk is OpenCLIP's ViT-H/14, frozen), AudioSet and others"),
        licence="CC-BY-NC-SA-4.0",
        citation=_GIRDHAR,
        weights=WeightsSource(  # 4,803,584,173 bytes; the sum is recorded by a public project that pins the file
            url="https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
            sha256="d6f6c22bedcc90708448d5d2fbb7b2db9c73f505dc89bd0b2e09b23af1b62157",
        ),
        layout=Layout(
            drop=tuple(
                f"modality_{part}.{sense}."
                for part in ("preprocessors", "trunks", "heads", "postprocessors")
                for sense in _OTHER_SENSES
            )
        ),
    )
)
