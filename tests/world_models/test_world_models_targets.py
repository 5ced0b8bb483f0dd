"""What DreamerV3 reconstructs beside what it sees: frames under a frozen feature, frames under a tail that learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from world_models.dreamerv3.agent import TAIL
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.noise import UpdateNoise
from world_models.frames import TOGETHER, averaged
from world_models.precision import products
from world_models.tdmpc2 import TDMPC2Config
from world_models.types import ObsShapes

DRAWN = ObsShapes(feature=(6,), pixels=(32, 32, 3), drawn_only=True)
TOKENS = ObsShapes(feature=(4, 5), pixels=(32, 32, 3), drawn_only=True)
FRAMES = ObsShapes(pixels=(48, 48, 3))


class OneOfTwo(nn.Module):
    """One layer that is frozen, one that learns."""

    feature_shape = (6,)

    def __init__(self, held: int):
        super().__init__()
        torch.manual_seed(0)
        self.frozen, self.learns = nn.Linear(held, 6).requires_grad_(False), nn.Linear(6, 6)

    def forward(self, held: torch.Tensor) -> torch.Tensor:
        return self.learns(self.frozen(held.float().flatten(1) / 255).tanh())


def tail_for(shapes: ObsShapes) -> OneOfTwo:
    return OneOfTwo(20 if shapes.feature else 48 * 48 * 3)


def test_frames_are_averaged_over_areas_by_hand() -> None:
    """Three pixels to two: the middle one is shared."""
    row = torch.tensor([0, 30, 90], dtype=torch.uint8)
    frames = row.view(1, 1, 3, 1).expand(2, 2, 3, 3).contiguous()
    frames[1] = 200
    small = averaged(frames, 1, 2)  # (0 + 30 / 2) / 1.5 and (30 / 2 + 90) / 1.5
    assert small.dtype == torch.uint8 and small[0].tolist() == [[[10] * 3, [70] * 3]] and (small[1] == 200).all()


@pytest.mark.parametrize(("full", "side"), [(160, 48), (280, 96), (320, 48)])
def test_white_stays_white_where_updates_are_bfloat16(full: int, side: int) -> None:
    frames = torch.full((2, full, full, 3), 255, dtype=torch.uint8)
    with products(frames.device, "bfloat16"):
        assert (averaged(frames, side, side) == 255).all()


@pytest.mark.parametrize(("full", "side"), [(64, 32), (56, 16), (48, 32), (64, 64)])
def test_averaging_keeps_the_mean_and_each_frame_apart(full: int, side: int) -> None:
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (TOGETHER + 3, full, full, 3), dtype=np.uint8))
    small = averaged(frames, side, side)
    assert small.shape == (TOGETHER + 3, side, side, 3)
    np.testing.assert_allclose(small.double().mean((1, 2)), frames.double().mean((1, 2)), atol=0.1)
    for k in (0, TOGETHER - 1, TOGETHER, TOGETHER + 2):
        assert torch.equal(small[k], averaged(frames[k : k + 1], side, side)[0])
    if full % side == 0:
        blocks = frames.double().unflatten(2, (side, -1)).unflatten(1, (side, -1)).mean((2, 4))
        assert (small - blocks).abs().max() <= 0.5
    with pytest.raises(ValueError, match=f"{full}x{full} cannot be averaged to {full}x{full + 16}"):
        averaged(frames, full, full + 16)


def test_frames_that_are_only_drawn_change_no_latent(dream) -> None:
    maker = replace(dream, shapes=DRAWN)
    agent, batch = maker.agent(target="pixels"), maker.batch()
    assert not [name for name, _ in agent.model.named_parameters() if name.startswith("embedding.pixels")]
    dark = replace(batch, obs=replace(batch.obs, pixels=torch.zeros_like(batch.obs.pixels)))
    assert list(agent.model.decoders) == ["pixels"]
    one, other = (agent.report(b, context=2) for b in (batch, dark))
    assert all(torch.equal(one[k].nan_to_num(), other[k].nan_to_num()) for k in one)
    alone = dream.agent(target="none")
    assert agent.model.embedding.outputs == alone.model.embedding.outputs
    noise = UpdateNoise.draw(agent.config, 4, agent.actions, 0, 0, agent.device)
    losses = [agent.losses(b, noise)[0]["pixels"] for b in (batch, dark)]
    assert not torch.allclose(*losses), "the decoder does not learn from them"
    pictures = agent.pictures(one)
    assert pictures is not None and pictures.shape == (4, 5, 32, 32, 3)


def test_the_pixel_loss_is_that_of_the_averaged_frame(dream) -> None:
    """Frames of 48 pixels go through the tail, frames of 32 are drawn; the loss by hand."""
    maker = replace(dream, shapes=FRAMES)
    agent, batch = maker.agent(tail=tail_for(FRAMES), target="pixels"), maker.batch()
    noise = UpdateNoise.draw(agent.config, 4, agent.actions, 0, 0, agent.device)
    drawn: list[torch.Tensor] = []
    agent.model.decoders["pixels"].register_forward_hook(lambda *call: drawn.append(call[-1]))
    loss = agent.losses(batch, noise)[0]["pixels"]  # (T, B)
    frames = averaged(batch.obs.pixels.transpose(0, 1).flatten(0, 2), 32, 32)
    wanted = (drawn[0] - frames / 255).square().sum((1, 2, 3)).view(5, 4)
    torch.testing.assert_close(loss, wanted)


@pytest.mark.parametrize("shapes", [TOKENS, FRAMES], ids=["tokens", "frames"])
@pytest.mark.parametrize("target", ["pixels", "none"])
def test_a_tail_learns_from_what_is_reconstructed(dream, shapes: ObsShapes, target: str) -> None:
    maker, tail = replace(dream, shapes=shapes), tail_for(shapes)
    agent, batch = maker.agent(tail=tail, target=target), maker.batch()
    losses, _ = agent.losses(batch, UpdateNoise.draw(agent.config, 4, agent.actions, 0, 0, agent.device))
    (gradient,) = torch.autograd.grad(losses["pixels" if target == "pixels" else "barlow"].mean(), tail.learns.weight)
    assert gradient.abs().sum() > 0 and ("pixels" in losses) == (target == "pixels")
    before, frozen = tail.learns.weight.detach().clone(), tail.frozen.weight.clone()
    for k in range(3):
        agent.update(maker.batch(seed=k))
    assert not torch.equal(tail.learns.weight, before) and torch.equal(tail.frozen.weight, frozen)
    kept = {k.removeprefix(TAIL) for k in agent.state_dict() if k.startswith(TAIL)}
    assert kept == {"learns.weight", "learns.bias"}
    drawn = agent.pictures(agent.report(batch, context=2))
    assert drawn is None if target == "none" else drawn is not None and drawn.shape == (4, 5, 32, 32, 3)


def test_what_makes_no_sense_is_refused(dream, make) -> None:
    for target in ("auto", "feature"):
        with pytest.raises(ValueError, match=f"target={target}: .*pixels or none"):
            replace(dream, shapes=TOKENS).agent(tail=tail_for(TOKENS), target=target)
    with pytest.raises(ValueError, match="TD-MPC2 reconstructs nothing"):
        replace(make, shapes=DRAWN).agent()
    for shapes in ({"feature": (6,)}, {"pixels": (32, 32, 3)}):
        with pytest.raises(ValueError, match="drawn_only wants pixels"):
            ObsShapes(**shapes, drawn_only=True)


def test_the_smallest_frames_that_convolutions_take() -> None:
    """What each agent says of itself, and the modules that it is about."""
    from torch import Generator

    from world_models.dreamerv3.model import image_encoder
    from world_models.tdmpc2.encoder import PixelEncoder

    smallest = TDMPC2Config.smallest_pixels
    assert [PixelEncoder(3, size, 1, Generator()).outputs for size in (smallest - 1, smallest)] == [0, 1]
    for convolutions, step in (("pooled", 1), ("strided", 4)):
        config = DreamerV3Config(size="1M", convolutions=convolutions)
        side = config.smallest_pixels
        assert image_encoder((side, side, 3), config, Generator()).outputs > 0
        with pytest.raises(ValueError, match=f"pixels of {side - step}x{side - step}"):
            image_encoder((side - step, side - step, 3), config, Generator())
