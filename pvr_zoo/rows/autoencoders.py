"""Autoencoders of our own."""

from dataclasses import replace

from pvr_zoo.registry import register
from pvr_zoo.specs import EncoderSpec, Groups, Transform, WeightsSource


def autoencoder_row(name: str, width: int, size: int) -> EncoderSpec:
    """The spec of a convolutional autoencoder's encoder, without weights."""
    return EncoderSpec(
        name=name,
        family="autoencoder",
        architecture="conv64",
        builder="pvr_zoo.families.autoencoder",
        transform=Transform(resize=size, crop=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        widths=(width,),
        strides=(size,),
        features=("vector",),
        groups=Groups(objective="reconstruction", data="frames of the task", backbone="convolutional"),
        licence="MIT",
        citation="mbrl_pvr; the study's in-distribution autoencoder, arXiv:2411.10175",
        unit="stage",
        channels_last=True,
    )


register(
    replace(
        autoencoder_row("embedded", 256, 64),
        groups=Groups(objective="reconstruction", data="frames of six dm_control tasks", backbone="convolutional"),
        weights=WeightsSource(
            package="data/embedded.safetensors",
            sha256="241162fc372eaac25eee38040b274610a5592235710a8f787a59bff8ea661030",
            command="mbrl-pvr pretrain autoencoder env=dmc/cartpole-balance, then encoder=PATH of the file it writes",
        ),
    )
)
