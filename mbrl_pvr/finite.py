"""No update learns from NaN or infinity: such a batch is refused, its tensors are named, and it is kept for study."""

import torch
from torch import Tensor

from mbrl_pvr.errors import IntegrityError, StorageError
from mbrl_pvr.runfolder import RunFolder
from mbrl_pvr.storage import write_atomic
from mbrl_pvr.tensorfile import nbytes, pieces
from world_models.types import Batch


def refuse_bad_batch(batch: Batch, run: RunFolder, update: int, step: int) -> None:
    """IntegrityError where a number of the batch is not finite; the batch then lies in the run folder.

    `update` is the one that would have learnt from it, `step` the agent step that it comes after.
    """
    held = tensors(batch)
    bad = not_finite(held)
    if not bad:
        return
    name = f"refused_batch_update_{update:09d}.safetensors"
    facts = {"update": str(update), "step": str(step), "not_finite": ", ".join(bad)}
    try:
        write_atomic(run.path / name, pieces(held, facts), nbytes(held))
        kept = f"The batch is in {name}"
    except StorageError as error:  # what was found is what to report
        kept = f"The batch could not be saved: {error.what}"
    listed = ", ".join(f"{count:,} of {held[key].numel():,} numbers in {key}" for key, count in bad.items())
    raise IntegrityError(
        f"NaN or infinity in the batch of update {update} (agent step {step}): {listed}",
        str(run.path),
        f"{kept}. Nothing was learnt from it; continue from the newest checkpoint with: mbrl-pvr resume RUN",
    )


def tensors(batch: Batch) -> dict[str, Tensor]:
    """What a batch holds, by name; that of an observation is `obs.feature` and so on."""
    parts = {k: v for k, v in vars(batch).items() if isinstance(v, Tensor)}
    return {f"obs.{k}": v for k, v in vars(batch.obs).items() if v is not None} | parts


def not_finite(held: dict[str, Tensor]) -> dict[str, int]:
    """How many numbers are NaN or infinite, by the name of their tensor; without those that have none.

    Smallest and largest number of a tensor tell, ten times faster than asking each; the device is waited for once.
    """
    numbers = {k: v for k, v in held.items() if v.is_floating_point()}
    ends = torch.stack([torch.stack(torch.aminmax(v)).float() for v in numbers.values()])
    if ends.isfinite().all():
        return {}
    counts = {k: int(v.isfinite().logical_not().sum()) for k, v in numbers.items()}
    return {k: count for k, count in counts.items() if count}
