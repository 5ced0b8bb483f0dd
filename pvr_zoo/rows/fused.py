"""Encoders put together from others on the same image: pvr_habitat's, which it calls uber models."""

from pvr_zoo.registry import register
from pvr_zoo.rows.resnets import MOCO
from pvr_zoo.specs import EncoderSpec

_STAGES = {"3": "_l3", "4": "_l4", "5": ""}  # how the names of the parts end


def fuse(name: str, parts: tuple[EncoderSpec, ...]) -> EncoderSpec:
    """A row for the features of `parts` side by side, in this order; what it does not say is as in the first part.

    Their names differ, they see the same images, and each gives one vector a frame.
    """
    names = [part.name for part in parts]
    assert len(set(names)) == len(names), names
    assert all(len(part.feature_shape) == 1 for part in parts), [part.feature_shape for part in parts]
    width = sum(part.feature_shape[0] for part in parts)
    return EncoderSpec(
        name=name,
        family="fused",
        architecture=" + ".join(part.architecture for part in parts),
        builder="pvr_zoo.families.fused",
        transform=parts[0].transform,
        widths=(width,),
        strides=(parts[0].input_size,),
        features=("output",),
        output=(width,),
        output_is="the features of " + ", ".join(part.name for part in parts) + ", one after the other",
        groups=parts[0].groups,
        licence=parts[0].licence,
        citation=parts[0].citation,
        unit=parts[0].unit,
        channels_last=parts[0].channels_last,
        parts=parts,
    )


# What upstream lists (src/embeddings.py): in front of "uber" the parts' name, behind it their convolutional stages. The
# row moco_aug_uber is another thing, one network.
for _trained in ("moco_aug", "moco_aug_places", "moco_croponly", "moco_croponly_places"):
    for _stages in ("345", "35", "34", "45"):
        _parts = tuple(MOCO[_trained + _STAGES[stage]] for stage in _stages)
        register(fuse(f"{_trained}_uber_{_stages}", _parts))
