"""LaProp and adaptive gradient clipping against plain loops over numbers."""

import math

import pytest
import torch

from world_models.optim import LaProp

ONE, TWO, EPS = 0.9, 0.999, 1e-20


def named(*values: list) -> dict[str, torch.nn.Parameter]:
    return {f"p{i}": torch.nn.Parameter(torch.tensor(v)) for i, v in enumerate(values)}


def plain(start: list[float], gradients: list[list[float]], lr: float, clip: float, warmup: int) -> list[float]:
    """One tensor's weights after all gradients."""
    weights = list(start)
    mean, square = [0.0] * len(start), [0.0] * len(start)
    for count, gradient in enumerate(gradients, 1):
        limit = clip * max(math.hypot(*weights), 1e-3)
        norm = math.hypot(*gradient)
        gradient = [g * min(1.0, limit / norm) if norm else g for g in gradient]
        for i, g in enumerate(gradient):
            square[i] = TWO * square[i] + (1 - TWO) * g * g
            mean[i] = ONE * mean[i] + (1 - ONE) * g / (math.sqrt(square[i] / (1 - TWO**count)) + EPS)
            weights[i] -= lr * min(1.0, count / warmup) * mean[i] / (1 - ONE**count)
    return weights


def test_laprop_equals_a_plain_loop():
    """Clipped and unclipped gradients, a tensor of zeros, a gradient of zeros, and the end of the warm-up."""
    g = torch.Generator().manual_seed(0)
    starts = [[3.0, -4.0, 0.5], [0.0, 0.0], [1.0, 2.0]]
    parameters = named(*starts)
    optimizer = LaProp(parameters, 0.01, clip=0.3, warmup=4)
    seen: list[list[list[float]]] = [[], [], []]
    for step in range(8):
        gradients = [
            torch.randn(len(s), generator=g) * scale for s, scale in zip(starts, (3.0, 1e-4, 1.0), strict=True)
        ]
        gradients[2] *= step != 3
        optimizer.step(gradients)
        for tensor, gradient in zip(seen, gradients, strict=True):
            tensor.append(gradient.tolist())
    for start, gradients, p in zip(starts, seen, parameters.values(), strict=True):
        wanted = plain(start, gradients, 0.01, 0.3, 4)
        torch.testing.assert_close(p.detach(), torch.tensor(wanted), atol=1e-6, rtol=1e-5)


def test_gradients_are_clipped_by_the_norm_of_their_tensor():
    parameters = named([3.0, 4.0], [0.0, 0.0], [30.0, 40.0])
    optimizer = LaProp(parameters, 1.0, clip=0.3)
    gradients = [torch.tensor([0.0, 3.0]), torch.tensor([6.0, 0.0]), torch.tensor([3.0, 4.0])]
    norm = optimizer.step(gradients)
    clipped = [(x / (1 - TWO)).sqrt() for x in optimizer.exp_avg_sq]
    wanted = [[0.0, 1.5], [3e-4, 0.0], [3.0, 4.0]]  # 0.3 · 5; 0.3 · the least norm 0.001; below 0.3 · 50
    for found, value in zip(clipped, wanted, strict=True):
        torch.testing.assert_close(found, torch.tensor(value), atol=1e-7, rtol=1e-4)
    assert float(norm) == pytest.approx(math.sqrt(9 + 36 + 25))


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-12])
def test_steps_do_not_depend_on_the_size_of_gradients(size):
    parameters = named([1.0, -2.0])
    optimizer = LaProp(parameters, 0.1, clip=0.3)
    optimizer.step([torch.tensor([0.01, -0.02]) * size])
    torch.testing.assert_close(parameters["p0"].detach(), torch.tensor([0.9, -1.9]))


def test_gradients_handed_in_are_left_alone():
    gradient = torch.tensor([5.0, 5.0])
    LaProp(named([1.0, 1.0]), 0.1, clip=0.3).step([gradient])
    assert gradient.tolist() == [5.0, 5.0]
