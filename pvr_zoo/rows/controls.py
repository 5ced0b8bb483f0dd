"""A random control for each architecture."""

from dataclasses import replace

from pvr_zoo.registry import register
from pvr_zoo.rows.convnext import convnext
from pvr_zoo.rows.resnets import TORCHVISION_SHA256, resnet
from pvr_zoo.rows.taskonomy import encoder as taskonomy_encoder
from pvr_zoo.rows.vits import vit
from pvr_zoo.specs import Groups

_RANDOM = Groups(objective="none (random weights)", data="none", backbone="")
_CONTROL = {"seed": 0, "licence": "MIT", "citation": ""}
for _depth in TORCHVISION_SHA256:
    register(resnet(f"random_resnet{_depth}", _depth, groups=replace(_RANDOM, backbone="resnet"), **_CONTROL))
for _size, _patch in (("s", 16), ("b", 16), ("l", 16), ("s", 8), ("b", 8), ("s", 14), ("b", 14), ("l", 14)):
    register(vit(f"random_vit{_size}{_patch}", _size, _patch, groups=replace(_RANDOM, backbone="vit"), **_CONTROL))
for _size in ("tiny", "small", "base"):
    register(convnext(f"random_convnext_{_size}", _size, groups=replace(_RANDOM, backbone="convnext"), **_CONTROL))
register(taskonomy_encoder("random_taskonomy", groups=replace(_RANDOM, backbone="resnet"), **_CONTROL))
