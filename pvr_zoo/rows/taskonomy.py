"""Encoders of the 25 Taskonomy tasks, published for mid-level vision by Sax et al."""

from pvr_zoo.registry import register
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource

STUDY = ("autoencoding", "keypoints3d", "segment_unsup25d", "depth_zbuffer")  # those of arXiv:2411.10175

# task: (what it learns, SHA-256). The publisher named each file by its checksum (branch `networks` of the repository:
# untitled.txt is the loop of `shasum -a 256` that did it), and the official loader downloads by these names.
TASKS = {
    "autoencoding": ("reconstruction", "e35146c09253720e97c0a7f8ee4e896ac931f5faa1449df003d81e6089ac6307"),
    "class_object": ("object classes", "4a4e42dad58066039a0d2f9d128bb32e93a7e4aa52edb2d2a07bcdd1a6536c18"),
    "class_scene": ("scene classes", "ad85764467cddafd98211313ceddebb98adf2a6bee2cedfe0b922a37ae65eaf8"),
    "colorization": ("colours of a grey picture", "5ed817acdd28d13e443d98ad15ebe1c3059a3252396a2dff6a2090f6f86616a5"),
    "curvature": ("principal curvatures", "3767cf5d06d9c6bca859631eb5a3c368d66abeb15542171b94188ffbe47d7571"),
    "denoising": ("denoising", "b64cab95af4a2c565066a7e8effaf37d6586c3b9389b47fff9376478d849db38"),
    "depth_euclidean": ("distance to the camera", "88f18d41313de7dbc88314a7f0feec3023047303d94d73eb8622dc40334ef149"),
    "depth_zbuffer": ("depth (z-buffer)", "cc343a8ed622fd7ee3ce54398be8682bbbbfb5d11fa80e8d03a56a5ae4e11b09"),
    "edge_occlusion": ("occlusion edges", "5ac3f3e918131f61e01fe95e49f462ae2fc56aa463f8d353ca84cd4e248b9c08"),
    "edge_texture": ("texture edges", "be2d686a6a4dfebe968d16146a17176eba37e29f736d5cd9a714317c93718810"),
    "egomotion": ("camera motion", "9aa647c34bf98f9e491e0b37890d77566f6ae35ccf41d9375c674511318d571c"),
    "fixated_pose": (
        "camera pose, one point fixed",
        "78cf321518abc16f9f4782b9e5d4e8f5d6966c373d951928a26f872e55297567",
    ),
    "inpainting": ("inpainting", "bf96fbaaea9268a820a19a1d13dbf6af31798f8983c6d9203c00fab2d236a142"),
    "jigsaw": ("order of tiles", "0c2b342c9080f8713c178b04aa6c581ed3a0112fecaf78edc4c04e0a90516e39"),
    "keypoints2d": ("2D keypoints", "6b77695acff4c84091c484a7b128a1e28a7e9c36243eda278598f582cf667fe0"),
    "keypoints3d": ("3D keypoints", "7e3f1ec97b82ae30030b7ea4fec2dc606b71497d8c0335d05f0be3dc909d000d"),
    "nonfixated_pose": ("camera pose", "3433a600ca9ff384b9898e55d86a186d572c2ebbe4701489a373933e3cfd5b8b"),
    "normal": ("surface normals", "f5e2c7737e4948e3b2a822f584892c342eaabbe66661576ba50db7cdd40561c5"),
    "point_matching": ("matching of points", "4bd2a6b2909d9998fabaf0278ab568f42f2b692a648e28555ede6c6cda5361f4"),
    "reshading": ("shading under a new light", "de456246e171dc8407fb2951539aa60d75925ae0f1dbb43f110b7768398b36a6"),
    "room_layout": ("room layout", "1e1662f43b834261464b1825227a04efba59b50cc8883bee9adc3ddafd4796c1"),
    "segment_semantic": ("semantic segments", "bb3007244520fc89cd111e099744a22b1e5c98cd83ed3f116fbff6376d220127"),
    "segment_unsup25d": (
        "unsupervised 2.5D segments",
        "7d12d2500c18c003ffc23943214f5dfd74932f0e3d03dde2c3a81ebc406e31a0",
    ),
    "segment_unsup2d": ("unsupervised 2D segments", "b679053a920e8bcabf0cd454606098ae85341e054080f2be29473971d4265964"),
    "vanishing_point": ("vanishing points", "afd2ae9b71d46a54efc5231b3e38ebc3e35bfab78cb0a78d9b75863a240b19a8"),
}
_FOLDER = "https://github.com/alexsax/visual-prior/raw/networks/assets/pytorch"
_SAX = "Sax et al. 2018, Mid-Level Visual Representations, arXiv:1812.11971; Zamir et al. 2018, arXiv:1804.08328"


def encoder(name: str, **fields: object) -> EncoderSpec:
    """A row for the encoder that all tasks share; `fields` fill in what is not said here."""
    return EncoderSpec(
        name=name,
        family="taskonomy",
        architecture="taskonomy_resnet50",
        builder="pvr_zoo.families.taskonomy",
        transform=Transform(256, 256, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), value_range=(-1.0, 1.0)),
        widths=(256, 512, 1024, 2048, 8),
        strides=(8, 16, 16, 16, 16),
        features=("output", "mean", "patches", "keypoints"),
        output=(2048,),
        output_is="the compressed map, 8×16×16, each channel normalised, flattened",
        when_truncated="the mean of the last kept stage's map; the compressed map before its norm is the fifth",
        unit="stage",
        channels_last=True,
        **fields,  # type: ignore[arg-type]
    )


for _task, (_learns, _sha256) in TASKS.items():
    register(
        encoder(
            f"taskonomy_{_task}",
            groups=Groups(objective=_learns, data="Taskonomy", backbone="resnet"),
            licence="MIT",  # of the repository that holds code and weights; the pictures are for research only
            citation=_SAX,
            weights=WeightsSource(url=f"{_FOLDER}/{_task}_encoder-{_sha256}.pth", sha256=_sha256),
            layout=Layout(top=("state_dict",)),
        )
    )
