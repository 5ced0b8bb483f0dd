"""The encoders' speed beside the bare network's, and preprocessing beside torchvision's: python benchmarks/encoders.py

Frames are noise: of the size that a run renders, and photographs' 480×640, which are resized first. The bare network
gets its input ready-made. Ours, bare and torchvision take turns in one process; a share is taken within each turn,
a cell is the median of the turns. Weights do not matter for speed: networks are drawn. With --fast, what was
tried to make the networks faster, a table of its own.
"""

import argparse
import copy
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch._inductor.config as settings
from torch import Tensor, nn

from mbrl_pvr.process import keep_freed_memory, set_threads
from pvr_zoo import Encoder, create, fast
from pvr_zoo.profile import against
from pvr_zoo.specs import Transform
from pvr_zoo.torchvision_guard import ensure_torchvision

ENCODERS = ("embedded", "random:resnet18_in1k", "random:resnet50_in1k", "random:vits16_in1k", "random:vitb16_in1k")
BATCHES = (1, 32)


def torchvision(transform: Transform) -> Callable[[Tensor], Tensor]:
    """The published transform of frames (N, H, W, 3), by torchvision."""
    ensure_torchvision()
    from torchvision.transforms import v2

    kernel = v2.InterpolationMode(transform.kernel)
    steps = v2.Compose(
        [
            *(v2.Resize(transform.resize, kernel, antialias=transform.antialias), v2.CenterCrop(transform.crop)),
            *(v2.ToDtype(torch.float32, scale=True), v2.Normalize(transform.mean, transform.std)),
        ]
    )
    return lambda frames: steps(frames.permute(0, 3, 1, 2))


def frames_of(batch: int, height: int, width: int) -> Tensor:
    """Noise, uint8 (N, H, W, 3)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)


@torch.inference_mode()
def shares(encoder: Encoder, batch: int) -> list[str]:
    """Cells of one row: milliseconds a frame, share of the bare network, and preprocessing, of both kinds of frames."""
    side, ours, theirs = encoder.spec.render_size, encoder.preprocess, torchvision(encoder.spec.transform)
    frames = frames_of(batch, side, side)
    images = encoder.images(frames)
    whole, share = against(partial(encoder, frames), partial(encoder.network, images))
    cells = [f"{1e3 * whole / batch:.2f} ms", f"{share:.1%}"]
    for given in (frames, frames_of(batch, 480, 640)):
        alone, faster = against(partial(ours, given), partial(theirs, given))
        cells += [f"{1e3 * alone / batch:.3f} ms", f"{1 / faster:.0%}"]
    return cells


def folded(network: nn.Module) -> nn.Module:
    """The network with its batch norms folded into the convolutions before them."""
    from torch.fx import symbolic_trace
    from torch.fx.experimental.optimization import fuse

    fused: nn.Module = fuse(symbolic_trace(network))
    return fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.inference_mode()
def attempts(encoder: Encoder, batch: int) -> list[str]:
    """Cells of one row: speed of each variant of the network over the plain one's, and how far its features are."""
    images = encoder.images(frames_of(batch, *2 * (encoder.spec.render_size,)))
    plain, cells = encoder.network(images), []

    def measure(network: nn.Module, given: Tensor = images) -> None:
        share = against(partial(network, given), partial(encoder.network, images))[1]
        distance = (network(given).float() - plain).square().mean().sqrt() / plain.std()
        cells.append(f"{share:.2f} ({distance:.0e})")

    measure(encoder.cast(torch.bfloat16).network, images.bfloat16())
    measure(fast.compiled(copy.deepcopy(encoder)).network)
    torch.compiler.reset()  # or the code compiled above would be taken
    with settings.patch(freezing=True):  # private, of the whole process, and for weights that never change
        measure(fast.compiled(copy.deepcopy(encoder)).network)
    if encoder.spec.unit == "stage":
        measure(folded(encoder.network))
    return cells


def main() -> None:
    """Print the rows of the table as they are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=ENCODERS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fast", action="store_true", help="variants of the network instead")
    options = parser.parse_args()
    set_threads(options.threads)
    keep_freed_memory()  # as in a run
    warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated")  # in inductor
    if options.fast:
        print("| encoder | batch | bfloat16 | compiled | weights as constants | batch norms folded |")
        print("|---|---|---|---|---|---|")
    else:
        print("| encoder | batch | a frame | of bare | prepared | of torchvision | 480×640 prepared | of torchvision |")
        print("|---|---|---|---|---|---|---|---|")
    for name in options.names:
        encoder = create(name)
        for batch in BATCHES[: 1 if options.fast else None]:
            cells = attempts(encoder, batch) if options.fast else shares(encoder, batch)
            print(f"| {' | '.join([name, str(batch), *cells])} |", flush=True)


if __name__ == "__main__":
    main()
