"""The fourteen encoders of the study (Schneider et al. 2024, arXiv:2411.10175), by the names that it gives them.

Twelve are rows of the zoo. What the paper leaves open: its OpenCLIP is loaded through ImageBind, whose vector has
length 1, hence not `openclip_vith14`; which of R2D2's files it used it does not say; of VC-1 and DINOv2 it has the
largest, of DINOv2 without registers.
"""

ENCODERS = {
    "CLIP RN50x64": "clip_rn50x64",
    "CLIP ViT-L": "clip_vitl14",
    "OpenCLIP": "imagebind_vith14",
    "DinoV2": "dinov2_vitg14",
    "VC-1": "vc1_vitl",
    "R3M": "r3m_resnet50",
    "VIP": "vip_resnet50",
    "Autoencoding (TKY)": "taskonomy_autoencoding",
    "3D Keypoints (TKY)": "taskonomy_keypoints3d",
    "2.5D Segmentation (TKY)": "taskonomy_segment_unsup25d",
    "Z-Depth (TKY)": "taskonomy_depth_zbuffer",
    "R2D2": "r2d2",
}
# No rows: one learns from the task's own frames, the other with the agent.
OTHERS = {
    "Autoencoder": "encoder=PATH, a file that `mbrl-pvr pretrain autoencoder env=TASK` writes",
    "From Scratch": "encoder=scratch",
}


def name_in_study(encoder: str) -> str:
    """What the study calls a row of the zoo; "" where it has none."""
    return next((theirs for theirs, ours in ENCODERS.items() if ours == encoder), "")
