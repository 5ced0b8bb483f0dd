"""Exploration by Plan2Explore (Sekar et al. 2020, arXiv 2005.05960) as in the 2023 code: seek what heads disagree on.

An ensemble predicts the next latent from state and action of replayed steps. Where its heads differ, experience is
missing: the spread of their predictions is a reward beside the task's for an actor of its own, which collects. It is
known in imagination alone; replay, the reward head and every logged return are of the task's reward.
"""

import itertools
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from world_models.dreamerv3 import behaviour
from world_models.dreamerv3.actor import Actor
from world_models.dreamerv3.behaviour import Behaviour, Imagined, Sought
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.critic import Critic
from world_models.dreamerv3.gradients import actor_gradient, frozen
from world_models.dreamerv3.model import WorldModel
from world_models.dreamerv3.nets import LAYER_NORM_EPS, drawn, uniform
from world_models.dreamerv3.noise import ExploreNoise
from world_models.dreamerv3.rssm import RSSM, Open, State
from world_models.types import ActionSpec


class Heads(nn.Module):
    """One layer of G networks side by side: linear, layer norm, SiLU."""

    def __init__(self, heads: int, inputs: int, outputs: int, generator: Generator):
        super().__init__()
        self.weight = drawn((heads, inputs, outputs), (inputs + outputs) / 2, generator)
        self.scale = nn.Parameter(torch.ones(heads, 1, outputs))
        self.shift = nn.Parameter(torch.zeros(heads, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(G, N, I) to (G, N, O)."""
        x = F.layer_norm(torch.bmm(x, self.weight).float(), self.scale.shape[-1:], eps=LAYER_NORM_EPS)
        return F.silu(torch.addcmul(self.shift, x, self.scale))


class Ensemble(nn.Module):
    """G networks that predict the next latent z from h, z and the action that follows; none has seen the others."""

    def __init__(self, deter: int, stoch: int, actions: int, config: DreamerV3Config, generator: Generator):
        super().__init__()
        self.heads, w = config.disagreement_heads, config.widths
        sizes = [deter + stoch + actions, *[w.units] * w.layers]
        self.layers = nn.ModuleList([Heads(self.heads, a, b, generator) for a, b in itertools.pairwise(sizes)])
        self.weight = uniform((self.heads, sizes[-1], stoch), (sizes[-1] + stoch) / 2, generator)
        self.bias = nn.Parameter(torch.zeros(self.heads, 1, stoch))

    def forward(self, latent: Tensor, action: Tensor) -> Tensor:
        """Latents (N, D + SK) and actions (N, A) to predictions (G, N, SK)."""
        x = torch.cat([latent, action], -1).expand(self.heads, -1, -1)
        for layer in self.layers:
            x = layer(x)
        return torch.baddbmm(self.bias, x, self.weight).float()

    def disagreement(self, latent: Tensor, action: Tensor) -> Tensor:
        """(T, N) of latents (T, N, L) and actions (T, N, A): the deviation over heads, its mean over dimensions.

        The heads themselves are not moved by it.
        """
        with frozen(self):
            predicted = self(latent.flatten(0, 1), action.flatten(0, 1))
        return predicted.std(0, correction=0).mean(-1).view(latent.shape[:2])

    def loss(self, state: State, action: Tensor, is_first: Tensor) -> Tensor:
        """Squared errors (T - 1, B), summed over dimensions and heads, of replayed states (T, B); they are not moved.

        action[t] and is_first[t], (T, B), stand with the state that they led to; no prediction crosses a reset.
        """
        state, follows = state.detach(), (~is_first[1:]).float()  # (T - 1, B)
        lead = follows.shape
        predicted = self(state.features()[:-1].flatten(0, 1), action[1:].flatten(0, 1))  # (G, (T - 1) B, SK)
        error = (predicted - state.stoch[1:].flatten(0, 1)).square().sum(-1).sum(0)
        return follows * error.view(lead)


class Explorer(nn.Module):
    """The collecting actor, its critics and the ensemble; the task's actor stands beside them in the agent."""

    percentiles: Tensor

    def __init__(self, model: WorldModel, action: ActionSpec, config: DreamerV3Config, generator: Generator):
        super().__init__()
        deter, latents, classes = model.rssm.sizes
        latent, beta = model.rssm.features, config.exploration
        names = ("task", "disagreement") if config.exploration_critics == "separate" else ("sum",)
        self.actor = Actor(latent, action, config, generator)
        self.critic_of = {name: Critic(latent, config, generator) for name in names}
        self.critics = nn.ModuleDict(self.critic_of)
        self.ensemble = Ensemble(deter, latents * classes, action.dim, config, generator)
        self.register_buffer("percentiles", torch.zeros(len(names), 2))
        self.gradient, self.config = actor_gradient(config, action), config
        self.shares = {"task": 1 / (1 + beta), "disagreement": beta / (1 + beta), "sum": 1.0}

    def rewards(self, model: WorldModel, imagined: Imagined, name: str) -> Tensor:
        """(H + 1, N) of one name: what the task gives, disagreement, or their weighed sum.

        As in the 2023 code, what heads disagree on in a state, under the action that follows it, arrives with that
        state: `Reinforce` credits it to actions before, `Dynamics` to this one as well.
        """
        if name == "task":
            return model.predicted_reward(imagined.latent)
        bonus = self.ensemble.disagreement(imagined.latent, imagined.action)
        if name == "disagreement":
            return bonus
        return model.predicted_reward(imagined.latent) + self.config.exploration * bonus

    def seeks(self, model: WorldModel) -> Behaviour:
        """The collecting actor as `behaviour` trains it."""
        sought = {
            f"_{name}": Sought(partial(self.rewards, model, name=name), critic, self.shares[name])
            for name, critic in self.critic_of.items()
        }
        return Behaviour(self.actor, sought, self.gradient)

    def weights(self) -> dict[str, float]:
        """The weight of each of `losses`."""
        return dict.fromkeys(["ensemble", "explore_policy", *(f"explore_value_{name}" for name in self.critics)], 1.0)

    def losses(
        self,
        model: WorldModel,
        state: State,
        action: Tensor,
        is_first: Tensor,
        ended: Tensor,
        noise: ExploreNoise,
        *,
        step: Open = RSSM.step,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Every loss, unreduced, and metrics, of replayed states (T, B); moves the running percentiles of returns."""
        seeks = self.seeks(model)
        imagined = behaviour.imagine(model, seeks, state.flat().detach(), ended, noise, step=step)
        found, _, moved, metrics = behaviour.losses(model, seeks, imagined, self.percentiles, self.config)
        self.percentiles.copy_(moved)
        found, metrics = ({f"explore_{k}": v for k, v in x.items()} for x in (found, metrics))
        return found | {"ensemble": self.ensemble.loss(state, action, is_first)}, metrics
