"""Actor and critic, learnt in imagination (arXiv 2301.04104v2, equations 6 to 11) and from replayed steps."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from world_models.distributions import symexp_loss, symexp_mean
from world_models.dreamerv3.actor import Actor
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.model import LAYERS, WorldModel
from world_models.dreamerv3.nets import MLP
from world_models.dreamerv3.noise import UpdateNoise
from world_models.dreamerv3.returns import lambda_return, move_percentiles, return_scale
from world_models.dreamerv3.rssm import State


class Critic(nn.Module):
    """The value head, and a slow copy of it that the head is drawn towards."""

    bins: Tensor

    def __init__(self, latent: int, config: DreamerV3Config, bins: Tensor, generator: Generator):
        super().__init__()
        sizes = (latent, config.widths.units, LAYERS)
        self.head = MLP(*sizes, generator, out=config.bins, scale=0.0)
        self.slow = MLP(*sizes, generator, out=config.bins, scale=0.0).requires_grad_(False)
        self.slow.load_state_dict(self.head.state_dict())
        self.register_buffer("bins", bins, persistent=False)

    def value(self, logits: Tensor) -> Tensor:
        """The value (*,) that logits (*, K) mean."""
        return symexp_mean(logits, self.bins)

    @torch.no_grad()
    def slow_value(self, latent: Tensor) -> Tensor:
        """The slow copy's value (*,)."""
        return symexp_mean(self.slow(latent), self.bins)

    def loss(self, logits: Tensor, target: Tensor, slow: Tensor) -> Tensor:
        """Cross entropy (*,) with a return and, to stay near it, with the slow copy's value."""
        return symexp_loss(logits, target, self.bins) + symexp_loss(logits, slow, self.bins)

    @torch.no_grad()
    def move_slow(self, rate: float) -> None:
        """slow ← (1 - rate) slow + rate head."""
        torch._foreach_lerp_(list(self.slow.parameters()), list(self.head.parameters()), rate)


@dataclass(frozen=True)
class Imagined:
    """Open-loop sequences of H steps from N states."""

    latent: Tensor  # (H + 1, N, L)
    params: Tensor  # (H, N, ...) of the policy at all but the last, with gradients for the actor alone
    action: Tensor  # (H, N, A) taken there


def imagine(model: WorldModel, actor: Actor, start: State, noise: UpdateNoise) -> Imagined:
    """Follow the policy from states (N, ...) outside the graph, but keep what the actor learns from."""
    with torch.no_grad():
        step = model.rssm.sequence.laid_out()
    state, latents, params, actions = start, [start.features()], [], []
    for action_noise, uniform in zip(noise.action, noise.prior, strict=True):
        params.append(actor(latents[-1]))
        with torch.no_grad():
            actions.append(actor.sample(params[-1], action_noise))
            state = model.rssm.step(step, state, actions[-1], uniform)
        latents.append(state.features())
    return Imagined(torch.stack(latents), torch.stack(params), torch.stack(actions))


def losses(
    model: WorldModel, actor: Actor, critic: Critic, imagined: Imagined, percentiles: Tensor, config: DreamerV3Config
) -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Tensor]]:
    """Policy and value losses (H, N), λ-returns (H, N), the moved percentiles (2,), and metrics."""
    latent = imagined.latent
    with torch.no_grad():
        reward = model.predicted_reward(latent)
        live = config.discount * model.predicted_continue(latent)  # (H + 1, N)
        slow = critic.slow_value(latent[:-1])
        last = critic.value(critic.head(latent[-1:]))  # apart: only a bootstrap, so it needs no gradients
    logits = critic.head(latent[:-1])  # (H, N, K)
    value = torch.cat([critic.value(logits.detach()), last])
    keep = torch.full_like(live, config.return_lambda)
    returns = lambda_return(reward, live, keep, value)  # (H, N)
    percentiles = move_percentiles(percentiles, returns, config.return_rate)
    advantage = (returns - value[:-1]) / return_scale(percentiles)
    weight = live.cumprod(0)[:-1]  # how likely a step is reached at all
    log_prob, entropy = actor.log_prob(imagined.params, imagined.action), actor.entropy(imagined.params)
    found = {
        "policy": -weight * (log_prob * advantage + config.entropy * entropy),
        "value": weight * critic.loss(logits, returns, slow),
    }
    metrics = {
        "imagined_reward": reward.mean(),
        "imagined_continue": live.mean() / config.discount,
        "imagined_return": returns.mean(),
        "advantage": advantage.mean(),
        "entropy": entropy.detach().mean(),
        "return_5": percentiles[0],
        "return_95": percentiles[1],
    }
    return found, returns, percentiles, metrics


def replay_value_loss(
    critic: Critic,
    latent: Tensor,
    boot: Tensor,
    reward: Tensor,
    last: Tensor,
    terminal: Tensor,
    config: DreamerV3Config,
) -> Tensor:
    """The value loss (T - 1, B) on replayed latents (T, B, L), with gradients into the world model.

    Returns are bootstrapped with those imagined from each step, `boot` (T, B).
    """
    logits = critic.head(latent[:-1])
    live = config.discount * (1 - terminal)
    returns = lambda_return(reward, live, config.return_lambda * (1 - last), boot)
    return (1 - last[:-1]) * critic.loss(logits, returns, critic.slow_value(latent[:-1]))
