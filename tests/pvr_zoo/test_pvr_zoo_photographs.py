"""Real weights name real photographs through our own transform; the pictures come with scikit-image (public domain)."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import pvr_zoo

PHOTOGRAPHS = {  # classes of ImageNet-1k that are right
    "chelsea.png": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee.png": {967},  # espresso
    "motorcycle_left.png": {665, 670},  # moped, motor scooter
}


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("picture", PHOTOGRAPHS)
def test_photographs_are_named(real_weights: Path, depth: int, picture: str) -> None:
    path = real_weights / f"resnet{depth}_in1k_pqf.safetensors"
    encoder = pvr_zoo.create(f"resnet{depth}_in1k", weights=path)
    head = load_file(path)
    with (files("skimage") / "data" / picture).open("rb") as file:
        frame = np.array(Image.open(file).convert("RGB"))
    scores = encoder(torch.from_numpy(frame)[None]) @ head["fc.weight"].float().T + head["fc.bias"].float()
    assert int(scores.argmax()) in PHOTOGRAPHS[picture]
    assert scores.softmax(1).max() > 0.4
