"""Model predictive path integral control in latent space, warm-started and helped by the policy prior."""

import torch
from torch import Tensor

from world_models.nets import HeadWeights
from world_models.tdmpc2.model import WorldModel
from world_models.tdmpc2.noise import PlanNoise

Heads = tuple[HeadWeights, ...]


def prior_trajectories(model: WorldModel, z: Tensor, noise: Tensor) -> Tensor:
    """Actions (H, N, P, A) of the policy prior rolled out from z (N, L); noise is (H, N, P, A)."""
    actions: list[Tensor] = []
    z = z.unsqueeze(1)
    for eps in noise.unbind(0):
        if actions:
            z = model.next(z, actions[-1])
        actions.append(model.pi(z, eps)[0])
    return torch.stack(actions)


def estimate_value(
    model: WorldModel, heads: Heads, z: Tensor, actions: Tensor, noise: Tensor, discount: float
) -> Tensor:
    """Return (N, S) of following actions (H, N, S, A) from z (N, L), then the policy: Σ γᵗ rₜ + γᴴ Q.

    Where the task can end, nothing counts after the predicted end. The first step shares its latent between samples.
    """
    z = z.unsqueeze(1)
    total = torch.zeros(actions.shape[1:3], device=z.device, dtype=z.dtype)
    alive, factor = torch.ones_like(total), 1.0
    for action in actions.unbind(0):
        total = total + factor * alive * model.scalar(model.reward(z, action))
        z = model.next(z, action)
        factor = factor * discount
        if model.config.episodic:
            alive = alive * (torch.sigmoid(model.termination(z)) <= 0.5)
    action, _, _ = model.pi(z, noise)
    return total + factor * alive * model.Q(heads, z, action).mean(0)


def improve(
    model: WorldModel,
    heads: Heads,
    z: Tensor,
    prior: Tensor,
    mean: Tensor,
    std: Tensor,
    sample_noise: Tensor,
    value_noise: Tensor,
    discount: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One MPPI iteration: mean and std (H, N, A), elite actions (H, N, E, A) and their score (N, E)."""
    config = model.config
    sampled = (mean.unsqueeze(2) + std.unsqueeze(2) * sample_noise).clamp(-1, 1)
    actions = torch.cat([prior, sampled], 2)
    value = estimate_value(model, heads, z, actions, value_noise, discount).nan_to_num(0)
    best, index = value.topk(config.num_elites, 1)
    index = index[None, :, :, None].expand(actions.shape[0], -1, -1, actions.shape[-1])
    elite = actions.gather(2, index)
    score = torch.exp(config.temperature * (best - best[:, :1]))
    score = score / score.sum(1, keepdim=True)
    weight = score[None, :, :, None] / (score.sum(1)[None, :, None, None] + 1e-9)
    mean = (weight * elite).sum(2)
    std = (weight * (elite - mean.unsqueeze(2)).square()).sum(2).sqrt().clamp(config.min_std, config.max_std)
    return mean, std, elite, score


def select(elite: Tensor, score: Tensor, std: Tensor, noise: PlanNoise, explore: bool) -> Tensor:
    """The first action (N, A) of an elite drawn by its score (Gumbel's trick), with noise where it explores."""
    chosen = (score.log() + noise.gumbel).argmax(1)
    action = elite[0, torch.arange(len(chosen), device=chosen.device), chosen]
    if explore:
        action = action + std[0] * noise.explore_noise
    return action.clamp(-1, 1)
