"""Patch features and the trainable end of an encoder, as front ends of TD-MPC2."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mbrl_pvr.replay import Replay
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.model import Embedder
from world_models.patches import AttentionPool, Each, Flatten, front
from world_models.tdmpc2 import TDMPC2Config
from world_models.tdmpc2.agent import TDMPC2
from world_models.tdmpc2.encoder import shift_pixels
from world_models.types import ActionSpec, Batch, Obs, ObsShapes, SequenceSpec

SMALL = {"size": 1, "latent_dim": 16, "mlp_dim": 24, "num_channels": 4, "batch_size": 4, "horizon": 3, "iterations": 1}
PLAN = {"num_samples": 16, "num_elites": 4, "num_pi_trajs": 4}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_each_patch_goes_through_the_same_layer() -> None:
    feature = torch.randn(2, 3, 5, 8)
    each = front("each", (5, 8), 4, generator())
    assert isinstance(each, Each) and each.outputs == 20
    wanted = torch.stack([each.linear(feature[:, :, p]) for p in range(5)], 2).flatten(2)
    torch.testing.assert_close(each(feature), wanted * 8 / 20)


def test_flatten_is_all_numbers_and_takes_pooled_features_too() -> None:
    feature = torch.randn(2, 5, 8)
    flat = front("flatten", (5, 8), 4, generator())
    assert isinstance(flat, Flatten) and flat.outputs == 40
    torch.testing.assert_close(flat(feature), feature.reshape(2, 40) / 5)
    assert torch.equal(front("flatten", (8,), 4, generator())(feature), feature)
    pooled = torch.randn(2, 8)  # Adam moves what is behind by the sum of magnitudes, which is the pooled feature's
    same = flat(pooled.unsqueeze(1).expand(2, 5, 8))
    torch.testing.assert_close(same.abs().sum(-1), pooled.abs().sum(-1))


def test_attention_pools_patches_in_any_order() -> None:
    pool = front("attention", (5, 8), 4, generator())
    assert isinstance(pool, AttentionPool) and pool.outputs == 8
    with torch.no_grad():
        pool.query.mul_(100)
    feature = torch.randn(2, 3, 5, 8)
    out = pool(feature)
    assert out.shape == (2, 3, 8)
    torch.testing.assert_close(pool(feature[:, :, [3, 1, 4, 0, 2]]), out)
    heads = []  # softmax(q k / sqrt d) v, head by head
    for h in range(4):
        part = slice(2 * h, 2 * h + 2)
        k, v = (layer(feature)[..., part] for layer in (pool.key, pool.value))
        weights = (k @ pool.query[h, 0] / 2**0.5).softmax(-1)
        heads.append((weights[..., None] * v).sum(-2))
    torch.testing.assert_close(out, torch.cat(heads, -1))


def test_pooled_features_have_no_patches() -> None:
    with pytest.raises(ValueError, match=r"patches=each wants .*\(8,\)"):
        front("each", (8,), 4, generator())
    with pytest.raises(ValueError, match="4 heads; 6"):
        front("attention", (5, 6), 4, generator())


class Doubling(nn.Module):
    """A tail of two layers, one of them frozen."""

    feature_shape = (6,)

    def __init__(self, held: int):
        super().__init__()
        self.frozen = nn.Linear(held, 6).requires_grad_(False)
        self.learns = nn.Linear(6, 6)

    def forward(self, held: torch.Tensor) -> torch.Tensor:
        return self.learns(self.frozen(held.float().flatten(1) / 255).tanh())


def agent(shapes: ObsShapes, tail: nn.Module | None = None, compile: bool = False, **settings) -> TDMPC2:
    config = TDMPC2Config(**SMALL, **PLAN, **settings)
    return TDMPC2(shapes, ActionSpec(2), config, episode_length=50, seed=0, tail=tail, compile=compile)


def batch(shapes: ObsShapes) -> Batch:
    g = generator()
    obs = Obs(
        torch.zeros(4, 4, dtype=torch.bool),
        None if shapes.feature is None else torch.randn(4, 4, 3, *shapes.feature, generator=g).half(),
        None
        if shapes.pixels is None
        else torch.randint(0, 256, (4, 4, 3, *shapes.pixels), generator=g).to(torch.uint8),
    )
    ended = torch.zeros(4, 4, dtype=torch.bool)
    return Batch(obs, torch.rand(4, 4, 2, generator=g), torch.randn(4, 4, generator=g), ended, ended)


@pytest.mark.parametrize("kind", ["flatten", "each", "attention"])
@pytest.mark.parametrize("norm", ["running", "layernorm"])
def test_patch_features_train_every_layer(kind: str, norm: str) -> None:
    shapes = ObsShapes(feature=(5, 8))
    learner = agent(shapes, patches=kind, feature_norm=norm, patch_dim=4)
    before = {k: v.clone() for k, v in learner.model.encoder.named_parameters()}
    learner.update(batch(shapes))
    moved = [k for k, v in learner.model.encoder.named_parameters() if not torch.equal(v, before[k])]
    still = {k for k in before if k not in moved}
    assert moved and not still - {"patches.key.bias"}  # which no softmax notices


def test_each_is_no_larger_than_a_pooled_feature() -> None:
    each = front("each", (49, 64), 32, generator())
    assert each.scale == 64 / (49 * 32) and front("each", (2, 64), 32, generator()).scale == 1


@pytest.mark.parametrize("kind", ["flatten", "each"])
def test_dreamerv3_begins_with_patches_as_with_a_pooled_feature(kind: str) -> None:
    """No norm stands behind its linear layer, so the scale of patches must not make observations vanish."""
    config = DreamerV3Config(size="1M", patches=kind)

    def size(shape: tuple[int, ...]) -> float:
        settings = config if len(shape) == 2 else replace(config, patches="flatten")
        embedder = Embedder(ObsShapes(feature=shape), settings, generator(), None)
        feature = torch.randn(64, *shape, generator=torch.Generator().manual_seed(1))
        return embedder({"feature": feature}).detach().square().mean().sqrt().item()

    ratio = size((49, 96)) / size((96,))
    assert (0.8 if kind == "flatten" else 0.1) < ratio < 1.2  # "each" begins with weights of deviation 0.02


@pytest.mark.parametrize("kind", ["running", "layernorm"])
def test_pixels_are_normalised_before_they_are_shifted(kind: str) -> None:
    shapes = ObsShapes(pixels=(64, 64, 3))
    learner, data = agent(shapes, feature_norm=kind, augment="shift"), batch(shapes)
    background = torch.randint(0, 256, (64, 64, 3), generator=generator())
    data.obs.pixels.copy_((0.9 * background + 0.1 * data.obs.pixels).to(torch.uint8))  # type: ignore[union-attr]
    learner.update(data)
    frames = learner.model.encoder.inputs(data.obs)["pixels"]
    assert frames.dtype == torch.float32
    if kind == "running":  # the background is gone
        assert frames.mean((0, 1, 2)).abs().mean() < 0.3 and 0.8 < frames.std() < 1.2
    else:
        torch.testing.assert_close(frames.flatten(-3).mean(-1), torch.zeros(4, 4, 3), atol=1e-5, rtol=0)
    shift = torch.randint(0, 7, (4, 4, 2), generator=generator())
    moved = learner.model.encoder.inputs(data.obs, shift)["pixels"]
    torch.testing.assert_close(moved, shift_pixels(frames, shift))
    assert "model.encoder.pixel_norm.mean" in learner.state_dict() or kind == "layernorm"


def test_simplex_peak_is_the_mean_of_the_largest_entries() -> None:
    shapes = ObsShapes(feature=(5,))
    learner, data = agent(shapes), batch(shapes)
    encoder = learner.model.encoder
    with torch.no_grad():
        latent = encoder(encoder.inputs(data.obs[:, 0]))
    wanted = latent.unflatten(-1, (-1, learner.config.simnorm_dim)).amax(-1).mean()
    torch.testing.assert_close(learner.update(data)["simplex_peak"], wanted)


@pytest.mark.parametrize("shapes", [ObsShapes(pixels=(64, 64, 3)), ObsShapes(feature=(5,), proprio=3)], ids=str)
def test_a_layer_of_ours_leaves_simnorm_soft(shapes: ObsShapes) -> None:
    """Uniform and one-hot groups are the same for all frames: without its norm a small pixel encoder began uniform."""
    learner = agent(shapes)
    obs = batch(shapes).obs
    obs = obs if shapes.proprio is None else replace(obs, proprio=100 * torch.randn(4, 4, 3, generator=generator()))
    latent = learner.model.encoder(learner.model.encoder.inputs(obs))
    peak = latent.unflatten(-1, (-1, learner.config.simnorm_dim)).amax(-1).mean()
    assert 0.25 < peak < 0.6


@pytest.mark.parametrize("shapes", [ObsShapes(feature=(4, 5)), ObsShapes(pixels=(4, 4, 3))], ids=["tokens", "frames"])
@pytest.mark.parametrize("norm", ["none", "running"])
def test_a_tail_learns_at_its_own_rate_and_changes_the_feature(shapes: ObsShapes, norm: str) -> None:
    torch.manual_seed(0)
    tail = Doubling(20 if shapes.feature else 48)
    learner = agent(shapes, tail, feature_norm=norm, tail_lr_scale=0.5)
    rates = [group["lr"] for group in learner.optimizer.inner.param_groups]  # of encoder, rest, tail
    assert rates == pytest.approx([3e-4 * 0.3, 3e-4, 3e-4 * 0.5])
    data = batch(shapes)
    held = torch.randn(1, 4, 5) if shapes.feature else torch.full((1, 4, 4, 3), 99)
    frozen, feature = tail.frozen.weight.clone(), tail(held).detach()
    learner.update(data)
    assert tail.learns.weight.grad is None  # gradients are used and gone
    assert torch.equal(tail.frozen.weight, frozen)
    change = (tail(held) - feature).abs().max()
    assert 1e-5 < change < 1e-2
    assert learner.act(learner.initial(4, 0), data.obs[:, 0], explore=False)[0].shape == (4, 2)
    assert learner.report(data, context=2)["posterior"].shape == (4, 4, 16)


def test_the_state_holds_what_learns_and_nothing_frozen() -> None:
    shapes = ObsShapes(feature=(4, 5))
    torch.manual_seed(0)
    tail = Doubling(20)
    other = Doubling(20)
    other.frozen.load_state_dict(tail.frozen.state_dict())  # as it comes from the encoder's file
    first, second = agent(shapes, tail), agent(shapes, other)
    first.update(batch(shapes))
    state = first.state_dict()
    names = {k for k in state if "encoder.tail" in k and k.startswith("model.")}
    assert names == {"model.encoder.tail.learns.weight", "model.encoder.tail.learns.bias"}
    second.load_state_dict(state)
    data = batch(shapes)
    metrics = [one.update(data) for one in (first, second)]
    assert all(torch.equal(metrics[0][k], metrics[1][k]) for k in metrics[0])
    assert torch.equal(tail.learns.weight, other.learns.weight)


def test_frames_that_stacks_share_go_through_a_tail_once() -> None:
    """On sequences as replay gives them, those at the start of an episode included."""
    shapes, spec = ObsShapes(feature=(4, 5)), SequenceSpec(batch=16, length=4, stack=3)
    random = np.random.default_rng(0)
    replay = Replay(shapes, 2, 100, 1)
    for tick in range(60):
        frame = random.standard_normal((1, 4, 5)).astype(np.float16)
        action, no = np.zeros((1, 2), np.float32), np.array([False])
        flags = {"is_first": np.array([tick % 6 == 0]), "is_last": np.array([tick % 6 == 5]), "is_terminal": no}
        replay.add(feature=frame, action=action, reward=np.zeros(1, np.float32), **flags)
    obs = replay.sample(spec, random).obs.map(lambda x: x.transpose(0, 1))
    assert obs.is_first[0].any() and not obs.is_first[0].all()
    torch.manual_seed(0)
    tail, seen = Doubling(20), []
    tail.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    encoder = agent(shapes, tail, feature_norm="none").model.encoder
    together = encoder.inputs(obs)["feature"]
    one_by_one = torch.stack([encoder.inputs(obs[t])["feature"] for t in range(4)])
    assert seen == [6 * 16, *[3 * 16] * 4]
    torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=1e-6)
    gradients = [torch.autograd.grad(x.square().sum(), tail.learns.weight)[0] for x in (together, one_by_one)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


def test_stacks_that_are_shifted_apart_share_nothing() -> None:
    shapes = ObsShapes(pixels=(12, 12, 3))
    torch.manual_seed(0)
    encoder = agent(shapes, Doubling(432), feature_norm="none").model.encoder
    frames = torch.randint(0, 256, (6, 4, 12, 12, 3), generator=generator()).to(torch.uint8)
    stacks = frames.unfold(0, 3, 1).movedim(-1, 2)  # (T, B, S, height, width, C)
    obs = Obs(torch.zeros(4, 4, dtype=torch.bool), pixels=stacks)
    shift = torch.randint(0, 7, (4, 4, 2), generator=generator())
    together = encoder.inputs(obs, shift)["feature"]
    one_by_one = torch.stack([encoder.inputs(obs[t], shift[t])["feature"] for t in range(4)])
    torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # in inductor
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo looks at its own inputs
def test_a_tail_compiles() -> None:
    shapes = ObsShapes(feature=(4, 5))
    results = []
    for compile in (False, True):
        torch.manual_seed(0)
        results.append(agent(shapes, Doubling(20), compile).update(batch(shapes)))
    assert all(torch.allclose(results[0][k], results[1][k], atol=1e-4, rtol=1e-3) for k in results[0])
