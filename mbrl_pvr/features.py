"""Frames to what the agent sees and replay keeps: the only caller of the encoder zoo while a run lasts.

A frozen encoder sees each frame exactly once, when it is collected; a test counts.
"""

from dataclasses import dataclass

import numpy as np
import torch

from mbrl_pvr.config import EncoderConfig
from mbrl_pvr.envs import EnvStep
from mbrl_pvr.errors import IntegrityError
from pvr_zoo.encoder import Encoder
from pvr_zoo.fast import Precision
from pvr_zoo.specs import TRAINABLE
from pvr_zoo.trainable import Tail, Trunk
from world_models.types import ObsShapes


@dataclass(frozen=True)
class View:
    """One tick of N environments as replay keeps it; None where the agent does not get that part."""

    feature: np.ndarray | None  # (N, *feature_shape) float16; tokens or maps where the encoder's end learns
    pixels: np.ndarray | None  # (N, height, width, 3) uint8
    proprio: np.ndarray | None  # (N, D) float32


class Features:
    """Turns environment steps into views. Without an encoder pixels pass through (scratch) or are absent (state)."""

    def __init__(
        self,
        config: EncoderConfig,
        encoder: Encoder | Trunk | None,
        size: int,
        proprio: int | None,
        tail: Tail | None = None,
        precision: Precision | None = None,
    ) -> None:
        held = None if encoder is None else encoder.feature_shape
        frames = config.name == "scratch" or config.trainable in TRAINABLE  # the agent makes its features of pixels
        side = size if held is None else held[0]
        pixels = (side, side, 3) if frames else None
        self.shapes = ObsShapes(feature=None if frames else held, pixels=pixels, proprio=proprio)
        self.encoder, self.tail, self.precision = encoder, tail, precision

    def view(self, step: EnvStep) -> View:
        """What the agent may see of one tick; each frame in it is encoded here and nowhere else."""
        seen = step.frame if self.encoder is None else self._encode(self.encoder, step)
        return View(
            feature=seen if self.shapes.feature is not None else None,
            pixels=seen if self.shapes.pixels is not None else None,
            proprio=step.proprio if self.shapes.proprio is not None else None,
        )

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
