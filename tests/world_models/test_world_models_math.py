"""Pure functions on numbers worked by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.distributions import squashed_gaussian, symexp, symlog, two_hot, two_hot_loss, two_hot_mean
from world_models.nets import mish, norm_mish, simnorm
from world_models.returns import discount_for, next_scale, percentile_range, step_weights, td_target
from world_models.tdmpc2.encoder import PAD, shift_pixels, to_channels
from world_models.tdmpc2.losses import termination_scores
from world_models.tdmpc2.noise import keep_mask

E = math.e


def close(found: Tensor, wanted: list | float, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=found.dtype), atol=atol, rtol=1e-5)


def test_symlog_and_back():
    close(symlog(torch.tensor([E - 1, 0.0, -(E**2 - 1)])), [1.0, 0.0, -2.0])
    close(symexp(torch.tensor([1.0, 0.0, -2.0])), [E - 1, 0.0, -(E**2 - 1)])


def test_two_hot_splits_between_neighbours_and_clips():
    x = symexp(torch.tensor([0.25, -2.0, 7.0, 2.0]))  # bins at -2, -1, 0, 1, 2
    wanted = [[0, 0, 0.75, 0.25, 0], [1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0], [0, 0, 0, 0, 1.0]]
    close(two_hot(x, -2, 2, 5), wanted)


def test_two_hot_mean_inverts_two_hot():
    x = torch.tensor([-3.0, -0.2, 0.0, 0.7, 5.0])
    code = two_hot(x, -2, 2, 5)
    torch.testing.assert_close(two_hot_mean(code.clamp(min=1e-30).log(), -2, 2), x, atol=1e-5, rtol=1e-5)


def test_two_hot_loss_of_even_odds_and_of_certainty():
    logits = torch.tensor([[0.0] * 5, [0, 0, 0, 100.0, 0]])
    target = symexp(torch.tensor([0.4, 1.0]))
    close(two_hot_loss(logits, target, -2, 2), [math.log(5), 0.0])


def test_squashed_gaussian_by_hand():
    mean = torch.tensor([math.atanh(0.5), 0.0])
    action, log_prob, raw = squashed_gaussian(mean, torch.tensor([0.0, math.log(2)]), torch.tensor([0.0, 1.0]))
    close(action, [0.5, math.tanh(2)])
    by_hand = -math.log(2 * math.pi) - math.log(2) - 0.5
    close(raw, by_hand)
    close(log_prob, by_hand - math.log(0.75 + 1e-6) - math.log(1 - math.tanh(2) ** 2 + 1e-6), atol=1e-5)


@pytest.mark.parametrize(("length", "wanted"), [(500, 0.99), (10, 0.95), (50, 0.95), (125, 0.96), (10_000, 0.995)])
def test_discount_heuristic(length, wanted):
    assert discount_for(length, 5, 0.95, 0.995) == pytest.approx(wanted)


def test_td_target_ends_at_a_terminal_in_the_middle():
    reward = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    terminal = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # each step has its own flag
    value = torch.tensor([[10.0, 10.0], [20.0, 20.0], [30.0, 30.0]])
    close(td_target(reward, terminal, value, 0.9), [[10.0, 10.0], [2.0, 20.0], [30.0, 3.0]])


def test_step_weights():
    close(step_weights(0.5, 4, torch.zeros(())), [[1.0], [0.5], [0.25], [0.125]])


def test_percentile_range_interpolates():
    close(percentile_range(torch.arange(101.0).flip(0)), 90.0)
    close(percentile_range(torch.tensor([20.0, 0.0, 10.0])), 18.0)  # positions 0.1 and 1.9
    close(percentile_range(torch.tensor([4.0])), 0.0)


def test_running_scale_never_aims_below_one():
    close(next_scale(torch.tensor(3.0), torch.full((8,), 5.0), 0.5), 2.0)
    close(next_scale(torch.tensor(1.0), torch.tensor([0.0, 10.0, 20.0]), 0.1), 0.9 + 1.8)


def test_simnorm_is_a_softmax_per_group():
    x = torch.tensor([[0.0, math.log(3), 5.0, 5.0]])
    close(simnorm(x, 2), [[0.25, 0.75, 0.5, 0.5]])
    close(simnorm(x * 1000, 2), [[0.0, 1.0, 0.5, 0.5]])


def test_simnorm_gradient():
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: simnorm(v, 4), [x])


def test_mish_matches_the_published_formula_and_does_not_overflow():
    x = torch.tensor([-1e4, -100.0, -20.0, -1.0, 0.0, 1.0, 19.9, 20.1, 100.0, 1e4])
    torch.testing.assert_close(mish(x), F.mish(x), atol=1e-6, rtol=1e-6)


def test_norm_mish_and_its_gradient():
    g = torch.Generator().manual_seed(0)
    x, scale, shift, grad = (torch.randn(s, generator=g) * 3 for s in ((7, 16), (16,), (16,), (7, 16)))
    inputs = [x.requires_grad_(), scale.requires_grad_(), shift.requires_grad_()]
    plain = F.mish(F.layer_norm(x, (16,), scale, shift))
    fused = norm_mish(*inputs)
    torch.testing.assert_close(fused, plain)
    wanted = torch.autograd.grad(plain, inputs, grad)
    torch.testing.assert_close(torch.autograd.grad(fused, inputs, grad), wanted, atol=1e-5, rtol=1e-5)
    assert torch.autograd.gradcheck(norm_mish, [i.detach().double().requires_grad_() for i in inputs])


def test_shift_moves_whole_pixels_and_repeats_borders():
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4, 1)
    assert torch.equal(shift_pixels(image, torch.tensor([[PAD, PAD]])), image)
    moved = shift_pixels(image, torch.tensor([[PAD + 1, PAD - 2]]))[0, 0, :, :, 0]  # one row on, two columns back
    assert moved.tolist() == [[4, 4, 4, 5], [8, 8, 8, 9], [12, 12, 12, 13], [12, 12, 12, 13]]


def test_shift_is_drawn_per_image_and_shared_by_its_stack():
    images = torch.randint(0, 256, (3, 2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([[0, 6], [3, 3], [5, 1]])
    moved = shift_pixels(images, shift)
    padded = F.pad(images.movedim(-1, 2).flatten(1, 2).float(), (PAD,) * 4, "replicate")
    for i, (row, column) in enumerate(shift.tolist()):
        wanted = padded[i, :, row : row + 8, column : column + 8].unflatten(0, (2, 3)).movedim(1, -1)
        assert torch.equal(moved[i].float(), wanted)


def test_pixels_become_channels_oldest_frame_first():
    images = torch.randint(0, 256, (2, 3, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    channels = images.movedim(-1, 2).flatten(1, 2).float() / 255 - 0.5  # (N, S C, height, width)
    found = to_channels(images)
    torch.testing.assert_close(found, channels)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_termination_scores():
    found = termination_scores(torch.tensor([0.9, 0.8, 0.2, 0.1]), torch.tensor([1.0, 0.0, 1.0, 0.0]))
    close(found["termination_rate"], 0.5)
    close(found["termination_f1"], 0.5)  # precision 1/2, recall 1/2
    none = termination_scores(torch.zeros(4), torch.zeros(4))
    close(none["termination_f1"], 0.0)


def test_keep_mask_has_its_rate_and_keeps_the_mean():
    mask = keep_mask((400, 1000), 0.1, torch.Generator().manual_seed(0))
    assert mask is not None
    assert float(torch.eq(mask, 0).float().mean()) == pytest.approx(0.1, abs=0.002)
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.003)
    assert keep_mask((3,), 0.0, torch.Generator()) is None
