"""Names that another library knows: `timm:NAME`, `openclip:ARCH/TAG`, `hf:ORG/NAME`.

Each prefix has a module with `spec_of(name)`, which is given the whole name and says everything about the encoder from
that library's own tables; it may import the library, but builds nothing that takes memory.
"""

import importlib

from pvr_zoo.specs import EncoderSpec

_MODULES = {
    "timm": "pvr_zoo.families.timm_model",
    "openclip": "pvr_zoo.families.openclip_names",
    "hf": "pvr_zoo.families.hf_names",
}


def spec_of(name: str) -> EncoderSpec:
    """The spec of an encoder by its name in another library; raises UnknownEncoder and SpecError."""
    module = importlib.import_module(_MODULES[name.partition(":")[0]])
    found: EncoderSpec = module.spec_of(name)
    return found
