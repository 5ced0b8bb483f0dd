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
from world_models.types import ObsShapes


@dataclass(frozen=True)
class View:
    """One tick of N environments as replay keeps it; None where the agent does not get that part."""

    feature: np.ndarray | None  # (N, *feature_shape) float16
    pixels: np.ndarray | None  # (N, height, width, 3) uint8
    proprio: np.ndarray | None  # (N, D) float32


class Features:
    """Turns environment steps into views. Without an encoder pixels pass through (scratch) or are absent (state)."""

    def __init__(self, config: EncoderConfig, encoder: Encoder | None, size: int, proprio: int | None) -> None:
        pixels = (size, size, 3) if config.name == "scratch" else None
        feature = None if encoder is None else tuple(encoder.spec.feature_shape)
        self.shapes = ObsShapes(feature=feature, pixels=pixels, proprio=proprio)
        self.encoder = encoder

    def view(self, step: EnvStep) -> View:
        """What the agent may see of one tick; each frame in it is encoded here and nowhere else."""
        return View(
            feature=None if self.encoder is None else self._encode(self.encoder, step),
            pixels=step.frame if self.shapes.pixels is not None else None,
            proprio=step.proprio if self.shapes.proprio is not None else None,
        )

    @torch.inference_mode()
    def _encode(self, encoder: Encoder, step: EnvStep) -> np.ndarray:
        assert step.frame is not None, "an encoder needs pixels=True in the environment"
        frames = torch.from_numpy(step.frame).to(next(encoder.parameters()).device)
        feature = encoder(frames)  # (N, *feature_shape) float32
        half = feature.to(torch.float16).cpu().numpy()
        if not np.isfinite(half).all():
            peak = feature.abs().max().item()
            raise IntegrityError(
                f"encoder {encoder.spec.name!r} gave a feature that float16 cannot hold (largest magnitude {peak:g})",
                hint="Check the weights, or take the feature from another layer: encoder.truncate",
            )
        return half
