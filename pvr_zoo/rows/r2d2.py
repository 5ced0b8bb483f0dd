"""R2D2, the keypoint network of naver/r2d2.

The sums are those of the files in that repository at the commit of the url. Which of them the study used it does not
say: `r2d2` is the one that its authors recommend for localisation. The Fast variants have another network.
"""

from pvr_zoo.registry import register
from pvr_zoo.rows.transforms import IMAGENET
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource

_URL = "https://github.com/naver/r2d2/raw/0ff8f6afcbea91f19613d0cb7d93143a977830f5/models"
_DESCRIPTOR = 128
_FULL_SIZE = Transform(resize=256, crop=256, mean=IMAGENET.mean, std=IMAGENET.std)  # of the study's renders


def r2d2(name: str, file: str, sha256: str, width: int, net: str) -> EncoderSpec:
    """A row for the network whose first convolution has that width; `net` is what its file calls it.

    The published loader evaluates that text as code.
    """
    return EncoderSpec(
        name=name,
        family="r2d2",
        architecture=f"Quad_L2Net_ConfCFS, first width {width}",
        builder="pvr_zoo.families.r2d2",
        transform=_FULL_SIZE,
        widths=(width, width, 2 * width, 2 * width, *[4 * width] * 4, _DESCRIPTOR),
        strides=(1,) * 9,
        features=("output", "mean", "patches", "keypoints"),
        output=(8 * _DESCRIPTOR,),
        output_is="the eight best keypoints' descriptors by reliability, repeatability and distance (the study's rule)",
        # two data sets: diverse by the letter of the study's rule
        groups=Groups(
            objective="repeatable and reliable keypoints",
            data="web images of Oxford and Paris, Aachen Day-Night",
            backbone="L2-Net",
            diverse=True,
        ),
        licence="CC-BY-NC-SA-3.0",
        citation="Revaud et al. 2019, R2D2: Repeatable and Reliable Detector and Descriptor, arXiv:1906.06195",
        when_truncated="the mean of the last kept convolution's map; descriptors are not normalised",
        unit="stage",
        input_multiple=1,
        channels_last=True,
        options={"threshold": 0.7, "distance": 32.0},  # published; of the descriptor's patch: see the family
        weights=WeightsSource(url=f"{_URL}/{file}.pt", sha256=sha256),
        layout=Layout(top=("state_dict",), prefix=("module.",), says=(("net", net),)),
    )


_NET, _BIG = "Quad_L2Net_ConfCFS()", "Quad_L2Net_ConfCFS(mchan=6)"
_SUMS = {
    "r2d2_WASF_N16": "9ae90e02a9a133d100ca7aeaa32f4d4d7736a6dd222a530a25c8f7da5e508528",
    "r2d2_WAF_N16": "27cebd6608317b35198a76f60f87492110dee3e88ca382586a729dadb1a16b90",
    "r2d2_WASF_N8_big": "597dc13998e211e827c550bdc8f76dbb4aca32747846f96962c9168586cec418",
}
register(r2d2("r2d2", "r2d2_WASF_N16", _SUMS["r2d2_WASF_N16"], 32, _NET))
register(r2d2("r2d2_waf_n16", "r2d2_WAF_N16", _SUMS["r2d2_WAF_N16"], 32, _NET))
register(r2d2("r2d2_wasf_n8_big", "r2d2_WASF_N8_big", _SUMS["r2d2_WASF_N8_big"], 48, _BIG))
