"""Frames to what the agent sees and replay keeps: the only caller of the encoder zoo while a run lasts.

A frozen encoder sees each frame exactly once, when it is collected; a test counts.
"""

from dataclasses import dataclass

import numpy as np
import torch

from mbrl_pvr.envs import EnvStep
from mbrl_pvr.errors import IntegrityError
from pvr_zoo.encoder import Encoder
from pvr_zoo.fast import Precision
from pvr_zoo.trainable import Tail, Trunk
from world_models.frames import averaged
from world_models.types import ObsShapes


@dataclass(frozen=True)
class View:
    """One tick of N environments as replay keeps it; None where the agent does not get that part."""

    feature: np.ndarray | None  # (N, *feature_shape) float16; tokens or maps where the encoder's end learns
    pixels: np.ndarray | None  # (N, height, width, 3) uint8
    proprio: np.ndarray | None  # (N, D) float32


class Features:
    """Turns environment steps into views of `shapes`.

    Without an encoder pixels pass through (scratch) or are absent (state). Pixels that the agent does not see but
    reconstructs are the environment's frames, averaged to their size here and nowhere else.
    """

    def __init__(
        self,
        shapes: ObsShapes,
        encoder: Encoder | Trunk | None,
        tail: Tail | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.shapes, self.encoder, self.tail, self.precision = shapes, encoder, tail, precision

    def view(self, step: EnvStep) -> View:
        """What the agent may see of one tick; each frame in it is encoded here and nowhere else."""
        seen = step.frame if self.encoder is None else self._encode(self.encoder, step)
        pixels = self._drawn(step) if self.shapes.drawn_only else seen
        return View(
            feature=seen if self.shapes.feature is not None else None,
            pixels=pixels if self.shapes.pixels is not None else None,
            proprio=step.proprio if self.shapes.proprio is not None else None,
        )

    def _drawn(self, step: EnvStep) -> np.ndarray:
        assert step.frame is not None and self.shapes.pixels is not None
        return averaged(torch.from_numpy(step.frame), *self.shapes.pixels[:2]).numpy()

    @torch.inference_mode()
    def _encode(self, encoder: Encoder | Trunk, step: EnvStep) -> np.ndarray:
        assert step.frame is not None, "an encoder needs pixels=True in the environment"
        frames = torch.from_numpy(step.frame).to(encoder.device)
        feature = encoder(frames)  # (N, *feature_shape) float32, or uint8 frames at the input size
        if feature.dtype == torch.uint8:
            return feature.cpu().numpy()
        half = feature.to(torch.float16).cpu().numpy()
        if not np.isfinite(half).all():
            peak = feature.abs().max().item()
            raise IntegrityError(
                f"encoder {encoder.identity['name']!r} gave a feature that float16 cannot hold"
                f" (largest magnitude {peak:g})",
                hint="Check the weights, or take the feature from another layer: encoder.truncate",
            )
        return half
