"""DreamerV3's pure functions on numbers worked by hand, and its layers against plain formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.distributions import symexp, symexp_bins, symexp_loss, symexp_mean
from world_models.dreamerv3.actor import Actor
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.model import barlow_twins
from world_models.dreamerv3.nets import BlockLinear, ConvEncoder, UpConv, norm_silu
from world_models.dreamerv3.returns import lambda_return, move_percentiles, return_scale
from world_models.dreamerv3.rssm import BlockGRU, State, clip_action, mix_uniform, sample_onehot
from world_models.types import ActionSpec


def close(found: Tensor, wanted: list | float, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=found.dtype), atol=atol, rtol=1e-5)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_gradients(found: Tensor, wanted: Tensor, inputs: list[Tensor]) -> None:
    """Both outputs, and the gradients of a random projection of each."""
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    weight = torch.randn(found.shape, generator=draws(9))
    one, other = (torch.autograd.grad((x * weight).sum(), inputs) for x in (found, wanted))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


# Returns


def test_lambda_return_with_a_terminal_and_a_break():
    reward = torch.tensor([9.0, 1.0, 2.0, 3.0, 4.0])
    boot = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    live = 0.5 * torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])  # the episode ends in state 2
    keep = 0.5 * torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0])  # and another breaks off in state 3
    # R3 = 4 + 0.5 · 50; R2 = 3 + 0.5 · 40; R1 = 2; R0 = 1 + 0.5 (0.5 · 20 + 0.5 · 2)
    found = lambda_return(*(x.unsqueeze(-1) for x in (reward, live, keep, boot)))
    close(found.squeeze(-1), [6.5, 2.0, 23.0, 29.0])


def test_lambda_return_at_both_ends_of_lambda():
    g = draws()
    reward, boot = (torch.randn(4, 2, generator=g) for _ in range(2))
    live = torch.full((4, 2), 0.9)
    one_step = lambda_return(reward, live, torch.zeros(4, 2), boot)
    torch.testing.assert_close(one_step, reward[1:] + 0.9 * boot[1:])
    whole = lambda_return(reward, live, torch.ones(4, 2), boot)
    torch.testing.assert_close(whole[0], reward[1] + 0.9 * reward[2] + 0.81 * reward[3] + 0.729 * boot[3])


def test_return_scale_is_a_range_of_at_least_one():
    close(return_scale(torch.tensor([-2.0, 5.0])), 7.0)
    close(return_scale(torch.tensor([0.3, 0.4])), 1.0)
    returns = torch.arange(101.0).view(1, 101)  # 5th percentile 5, 95th 95
    close(move_percentiles(torch.tensor([1.0, 15.0]), returns, 0.25), [2.0, 35.0])


# Two-hot


def test_bins_are_even_in_symlog_space_and_symmetric():
    bins = symexp_bins(255)
    assert bins.shape == (255,) and float(bins[127]) == 0 and torch.equal(bins, -bins.flip(0))
    assert float(bins[-1]) == pytest.approx(math.exp(20) - 1)
    torch.testing.assert_close(bins, symexp(torch.linspace(-20, 20, 255)), atol=1e-5, rtol=1e-5)
    assert (bins.diff() > 0).all()


def test_two_hot_loss_equals_the_dense_cross_entropy():
    bins = symexp_bins(11, limit=4.0)
    logits = torch.randn(9, 11, generator=draws(), requires_grad=True)
    target = torch.tensor([-1e6, float(bins[0]), -3.3, -0.01, 0.0, 0.7, float(bins[8]), float(bins[10]), 1e6])
    dense = torch.zeros(9, 11)
    for row, x in enumerate(target.clamp(bins[0], bins[-1])):
        below = int((bins <= x).sum()) - 1
        above = min(below + 1, 10)
        share = float((x - bins[below]) / (bins[above] - bins[below])) if above > below else 0.0
        dense[row, below] += 1 - share
        dense[row, above] += share
    close(dense.sum(-1), [1.0] * 9)
    wanted = -(dense * logits.log_softmax(-1)).sum(-1)
    same_gradients(symexp_loss(logits, target, bins), wanted, [logits])


def test_two_hot_loss_is_exact_at_bins_and_clips():
    bins = symexp_bins(255)
    logits = torch.randn(255, 255, generator=draws())
    torch.testing.assert_close(symexp_loss(logits, bins, bins), -logits.log_softmax(-1).diagonal())
    far = symexp_loss(logits[:2], torch.tensor([1e20, -1e20]), bins)
    torch.testing.assert_close(far, symexp_loss(logits[:2], bins[[254, 0]], bins))


def test_two_hot_mean():
    bins = symexp_bins(255)
    assert torch.equal(symexp_mean(torch.zeros(3, 255), bins), torch.zeros(3)), "a new head must say exactly 0"
    sure = torch.full((255, 255), -1e4).fill_diagonal_(0)
    torch.testing.assert_close(symexp_mean(sure, bins), bins)
    close(symexp_mean(torch.tensor([[0.2, 0.3, 0.5]]).log(), torch.tensor([-2.0, 0.0, 2.0])), [0.6])


# Latents and actions


def test_unimix_is_a_share_of_the_uniform_distribution():
    found = mix_uniform(torch.tensor([[0.0, math.log(3), -1e4, -1e4]]), 0.04).exp()
    close(found, [[0.96 * 0.25 + 0.01, 0.96 * 0.75 + 0.01, 0.01, 0.01]])
    close(mix_uniform(torch.tensor([[0.0, math.log(3)]]), 0.0).exp(), [[0.25, 0.75]])


def test_samples_are_onehot_at_the_place_of_the_draw():
    probs = torch.tensor([0.2, 0.5, 0.3])
    uniform = torch.tensor([0.0, 0.199, 0.201, 0.699, 0.701, 0.9999999])
    found = sample_onehot(probs.log().expand(6, 3), uniform)
    assert found.argmax(-1).tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(found.sum(-1), torch.ones(6)) and set(found.unique().tolist()) == {0.0, 1.0}


def test_sample_frequencies():
    probs = torch.tensor([0.01, 0.2, 0.49, 0.3])
    found = sample_onehot(probs.log().expand(200_000, 4), torch.rand(200_000, generator=draws()))
    torch.testing.assert_close(found.mean(0), probs, atol=0.004, rtol=0)  # four deviations of the widest


def test_sample_gradients_go_straight_to_the_probabilities():
    logits = torch.randn(5, 4, generator=draws(), requires_grad=True)
    weight = torch.randn(5, 4, generator=draws(1))
    sample = sample_onehot(mix_uniform(logits, 0.01), torch.rand(5, generator=draws(2)))
    found = torch.autograd.grad((sample * weight).sum(), logits)
    wanted = torch.autograd.grad(((0.99 * logits.softmax(-1) + 0.01 / 4) * weight).sum(), logits)
    torch.testing.assert_close(found, wanted)


def test_actions_are_clipped_to_the_box_without_gradients_through_the_clip():
    action = torch.tensor([0.5, -0.5, 2.0, -4.0], requires_grad=True)
    found = clip_action(action)
    close(found.detach(), [0.5, -0.5, 1.0, -1.0])
    close(torch.autograd.grad(found.sum(), action)[0], [1.0, 1.0, 0.5, 0.25])


def actor(discrete: bool) -> tuple[Actor, Tensor]:
    net = Actor(6, ActionSpec(3, discrete), DreamerV3Config(size="1M", layers=2), draws())
    with torch.no_grad():
        net.net.out.weight.normal_(0, 0.3, generator=draws(1))
    return net, net(torch.randn(50, 6, generator=draws(2)))


def test_continuous_policy_is_a_normal_distribution():
    net, params = actor(discrete=False)
    params = params.detach()
    mean, std = params.chunk(2, -1)
    assert (mean.abs() < 1).all() and (std > 0.1).all() and (std < 1).all() and float(std.std()) > 0.01
    plain = torch.distributions.Independent(torch.distributions.Normal(mean, std), 1)
    noise = torch.randn(50, 3, generator=draws(3))
    action = net.sample(params, noise)
    torch.testing.assert_close(action, mean + std * noise)
    torch.testing.assert_close(net.log_prob(params, action), plain.log_prob(action))
    torch.testing.assert_close(net.entropy(params), plain.entropy())
    assert torch.equal(net.mode(params), mean)


def test_discrete_policy_is_a_categorical_one():
    net, params = actor(discrete=True)
    params = params.detach()
    plain = torch.distributions.OneHotCategorical(logits=params)
    assert float(plain.probs.min()) > 0.01 / 3 - 1e-6, "each choice keeps its share of the uniform distribution"
    action = net.sample(params, torch.rand(50, 1, generator=draws(3))).detach()
    assert action.argmax(-1).unique().tolist() == [0, 1, 2]
    torch.testing.assert_close(net.log_prob(params, action), plain.log_prob(action))
    torch.testing.assert_close(net.entropy(params), plain.entropy())
    assert torch.equal(net.mode(params).argmax(-1), plain.probs.argmax(-1))


def test_barlow_twins_by_hand():
    view = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])  # every correlation is 1/2 with the deviation of a sample of two
    close(barlow_twins(view, view), 2 * 0.25 + 5e-4 * 2 * 0.25)
    apart = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])  # correlations 3/4 and 0
    close(barlow_twins(apart, apart), 2 * 0.0625)


# Layers


def test_norm_silu_and_its_gradients():
    g = draws()
    x, scale = (torch.randn(s, generator=g, requires_grad=True) for s in ((7, 3, 16), (16,)))
    same_gradients(norm_silu(x, scale), F.silu(F.rms_norm(x, (16,), scale, 1e-4)), [x, scale])
    assert torch.autograd.gradcheck(norm_silu, [v.detach().double().requires_grad_() for v in (x, scale)])
    nothing = torch.zeros(2, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(norm_silu(nothing, scale).sum(), nothing)
    assert gradient.isfinite().all()


def test_norm_silu_does_not_write_into_its_input():
    x, scale = torch.randn(4, 8, generator=draws()), torch.ones(8)
    before = x.clone()
    with torch.no_grad():
        norm_silu(x, scale)
    norm_silu(x, scale.requires_grad_()).sum().backward()
    assert torch.equal(x, before)


def test_block_linear_is_a_block_diagonal_matrix():
    net = BlockLinear(12, 8, 4, draws())
    with torch.no_grad():
        net.bias.normal_(generator=draws(1))
    x = torch.randn(5, 12, generator=draws(2), requires_grad=True)
    same_gradients(net(x), x @ torch.block_diag(*net.weight) + net.bias, [x, net.weight, net.bias])


def test_block_gru_equals_the_concatenated_form():
    """Equation 3's sequence model as published: every block reads its part of h beside all three inputs."""
    blocks, deter = 4, 24
    net = BlockGRU(deter, 10, 3, 6, blocks, draws())
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=draws(1)) * 0.1)
    g = draws(2)
    h, z, action = (torch.randn(5, n, generator=g, requires_grad=True) for n in (deter, 10, 3))

    inputs = torch.cat([net.from_deter(h), net.from_stoch(z), net.from_action(clip_action(action))], -1)
    grouped = torch.cat([h.view(5, blocks, -1), inputs.unsqueeze(1).expand(-1, blocks, -1)], -1)
    hidden = torch.einsum("ngi,gio->ngo", grouped, net.hidden.weight).flatten(1) + net.hidden.bias
    hidden = F.silu(F.rms_norm(hidden, (deter,), net.scale, 1e-4))
    gates = net.gates(hidden).view(5, blocks, 3, -1)
    reset, candidate, update = (gates[:, :, i].flatten(1) for i in range(3))
    update = torch.sigmoid(update - 1)
    wanted = update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * h

    step = net.laid_out()
    found = step(State(h, z), step.actions(action))
    same_gradients(found, wanted, [h, z, action, *net.parameters()])


def test_up_convolution_equals_doubling_and_convolution():
    net = UpConv(6, 5, draws())
    with torch.no_grad():
        net.bias.normal_(generator=draws(1))
    x = torch.randn(3, 6, 4, 7, generator=draws(2), requires_grad=True)
    wanted = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), net.weight, net.bias, padding=2)
    same_gradients(net(x), wanted.permute(0, 2, 3, 1), [x, net.weight, net.bias])


def test_convolutional_encoder_equals_the_plain_formula():
    net = ConvEncoder((32, 48, 3), (4, 6, 8, 8), draws())
    with torch.no_grad():
        for scale in net.scales:
            scale.normal_(generator=draws(1))
    pixels = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8, generator=draws(2))
    x = pixels.permute(0, 3, 1, 2) / 255 - 0.5
    for conv, scale in zip(net.convs, net.scales, strict=True):
        x = F.max_pool2d(F.conv2d(x, conv.weight, conv.bias, padding=2), 2).permute(0, 2, 3, 1)
        x = F.silu(F.rms_norm(x, x.shape[-1:], scale, 1e-4)).permute(0, 3, 1, 2)
    assert net.outputs == 8 * 2 * 3
    same_gradients(net(pixels), x.flatten(1), list(net.parameters()))
