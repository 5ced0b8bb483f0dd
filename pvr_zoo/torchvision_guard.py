"""Make torchvision importable where its compiled operators do not load.

A torchvision wheel built for CUDA cannot load its library beside a CPU build of torch, and then `import torchvision`
(and with it timm and open_clip) stops because the operators it describes do not exist. Declaring those operators
without an implementation is enough for everything but the operators themselves, which raise when called.
"""

import importlib.util
import sys
from pathlib import Path

import torch

_MISSING = ("nms", "qnms")
_declared: list[torch.library.Library] = []  # torch forgets the declarations when the library object is collected


def ensure_torchvision() -> bool:
    """Prepare the import of torchvision, timm or open_clip; call it first, once per process is enough.

    Returns whether declarations were needed. A torchvision that works, or that is imported already, is left alone.
    """
    if _declared:
        return True
    if "torchvision" in sys.modules:
        return False
    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return False
    library = Path(next(iter(found.submodule_search_locations))) / "_C.so"
    if not library.exists() or _loads(library):
        return False
    stub = torch.library.Library("torchvision", "FRAGMENT")
    for name in _MISSING:
        stub.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(stub)
    return True


def _loads(library: Path) -> bool:
    try:
        torch.ops.load_library(str(library))
    except OSError:
        return False
    return True
