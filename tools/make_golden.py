"""Write pvr_zoo/data/golden.json with the independent implementations of tests/golden/zoo.

    python tools/make_golden.py

The frames go through the published transform as Pillow and plain arithmetic do it, not through ours.
"""

import json

import numpy as np
import torch
from PIL import Image
from references import published_keys, reference

import pvr_zoo
from pvr_zoo import verify
from pvr_zoo.specs import Transform


def images(transform: Transform) -> torch.Tensor:
    """The stored frames as the network's input (N, 3, S, S), by Pillow."""
    kernel = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[transform.kernel]
    assert transform.antialias, "Pillow always filters: write the other side of this transform by hand"
    pictures = []
    for frame in verify.frames().numpy():  # square frames: `squash` makes no difference
        picture = Image.fromarray(frame).resize((transform.resize, transform.resize), kernel)
        edge = round((transform.resize - transform.crop) / 2)
        picture = picture.crop((edge, edge, edge + transform.crop, edge + transform.crop))
        low, high = transform.value_range
        pictures.append((np.asarray(picture) / 255 * (high - low) + low - transform.mean) / transform.std)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()


def digits(vectors: torch.Tensor) -> list[list[float]]:
    """Seven of each number, (N, K)."""
    return [[float(f"{value:.7g}") for value in vector] for vector in vectors.tolist()]


def main() -> None:
    """Every row that has weights to load."""
    golden = {}
    for name in pvr_zoo.list_encoders():
        row = pvr_zoo.spec(name)
        if row.seed is not None:
            continue
        other, shrunk = reference(row.builder), verify.small(row)
        shapes = other.shapes(shrunk)
        state, noise = verify.synthetic(shapes), verify.noise(shrunk)
        feature = other.feature(shrunk, state, images(shrunk.transform))
        golden[name] = {
            "source": other.SOURCE,
            "keys": published_keys(row)[0],
            "shapes": {} if row.parts else {key: list(shape) for key, shape in shapes.items()},  # the parts have theirs
            "frames": [[round(v, 6) for v in vector] for vector in feature.flatten(1).tolist()],
            "network": digits(verify.sample(other.feature(shrunk, state, noise))),
            "faint": digits(verify.sample(other.feature(shrunk, verify.faint(state), noise))),
        }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(golden.items()))
    verify.GOLDEN.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
