"""The losses of one update (arXiv 2310.16828, section 3), time-major: T = H + 1 observations, H steps between them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.distributions import two_hot_loss
from world_models.nets import HeadWeights, apply_head
from world_models.returns import next_scale, step_weights, td_target
from world_models.tdmpc2.model import WorldModel

Heads = tuple[HeadWeights, ...]


def targets(
    model: WorldModel,
    heads: Heads,
    parts: dict[str, Tensor],
    reward: Tensor,
    terminal: Tensor,
    noise: Tensor,
    discount: float,
) -> tuple[Tensor, Tensor]:
    """Latents (H, B, L) that the dynamics should reach, and TD targets (H, B) by the lesser of two target Q functions.

    parts hold observations 1..H; reward and terminal (H, B) arrive with them.
    """
    with torch.no_grad():
        next_z = model.encode(parts)
        action, _, _ = model.pi(next_z, noise)
        value = model.Q(heads, next_z, action).amin(0)
        return next_z, td_target(reward, terminal, value, discount)


def model_losses(
    model: WorldModel,
    parts: dict[str, Tensor],
    action: Tensor,
    reward: Tensor,
    terminal: Tensor,
    next_z: Tensor,
    td: Tensor | None,
    keep: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The weighted sum, its terms, and the rolled-out latents (T, B, L); parts hold observation 0. Eqs. 3 and 4.

    action, reward, terminal and td are (H, B, ...); keep (Q, H, B, M) are dropout masks. Without td no value is learnt.
    """
    config = model.config
    z = model.encode(parts)
    rollout = [z]
    for a in action.unbind(0):
        rollout.append(model.next(rollout[-1], a))
    zs = torch.stack(rollout)
    rho = step_weights(config.rho, config.horizon, reward)
    code = (config.vmin, config.vmax)

    losses = {
        "consistency": rho * (zs[1:] - next_z).square().mean(-1),
        "reward": rho * two_hot_loss(model.reward(zs[:-1], action), reward, *code),
    }
    scales = {"consistency": config.consistency_coef, "reward": config.reward_coef}
    if td is not None:
        losses["value"] = rho * _value_losses(model, zs[:-1], action, td, keep)
        scales["value"] = config.value_coef
    metrics: dict[str, Tensor] = {}
    if config.episodic:
        logit = model.termination(zs[1:])
        losses["termination"] = F.binary_cross_entropy_with_logits(logit, terminal, reduction="none")
        scales["termination"] = config.termination_coef
        metrics = termination_scores(torch.sigmoid(logit[-1]).detach(), terminal[-1])
    assert losses.keys() == scales.keys(), (sorted(losses), sorted(scales))
    total = torch.stack([scales[name] * loss.mean() for name, loss in losses.items()]).sum()
    metrics |= {f"{name}_loss": loss.detach().mean() for name, loss in losses.items()}
    return total, metrics | {"total_loss": total.detach()}, zs.detach()


def _value_losses(model: WorldModel, z: Tensor, action: Tensor, td: Tensor, keep: Tensor | None) -> Tensor:
    """(H, B), mean over the Q functions."""
    value = torch.zeros_like(td)
    for i, head in enumerate(model.q.weights()):
        logits = apply_head(head, z, action, None if keep is None else keep[i])
        value = value + two_hot_loss(logits, td, model.config.vmin, model.config.vmax)
    return value / len(model.q)


def termination_scores(probability: Tensor, terminal: Tensor) -> dict[str, Tensor]:
    """Share of terminal steps in (B,) and the F1 score of predicting them at a threshold of one half."""
    predicted, actual = probability > 0.5, terminal > 0.5
    hits = (predicted & actual).sum()
    f1 = 2 * hits / (predicted.sum() + actual.sum()).clamp(min=1)
    return {"termination_rate": terminal.mean(), "termination_f1": f1}


def policy_loss(
    model: WorldModel, heads: Heads, zs: Tensor, noise: Tensor, keep: Tensor | None, scale: Tensor
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """-(α entropy + Q / S), weighted ρ^t, over latents (T, B, L); also the next running scale S. Eq. 6.

    The entropy term is that of the official code: it grows with the number of action dimensions.
    """
    config = model.config
    action, log_prob, raw_log_prob = model.pi(zs, noise)
    q = model.Q(heads, zs, action, keep).mean(0)
    scale = next_scale(scale, q[0].detach(), config.tau)
    scaled_entropy = -log_prob * (raw_log_prob * action.shape[-1] / (log_prob + 1e-8))
    rho = step_weights(config.rho, zs.shape[0], q)
    loss = -(rho * (config.entropy_coef * scaled_entropy + q / scale)).mean()
    metrics = {
        "policy_loss": loss.detach(),
        "policy_entropy": -log_prob.detach().mean(),
        "policy_scaled_entropy": scaled_entropy.detach().mean(),
        "policy_scale": scale,
    }
    return loss, metrics, scale
