"""DreamerV3 as an agent: acting on a recurrent state, one update, predictions for study, and a flat state."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from world_models import flat
from world_models.agent import check_report
from world_models.compiling import compiled
from world_models.dreamerv3 import behaviour
from world_models.dreamerv3.actor import Actor
from world_models.dreamerv3.behaviour import Behaviour, Sought
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.critic import Critic
from world_models.dreamerv3.explore import Explorer
from world_models.dreamerv3.gradients import actor_gradient
from world_models.dreamerv3.model import WorldModel
from world_models.dreamerv3.noise import ActNoise, UpdateNoise
from world_models.dreamerv3.optimizer import optimizer
from world_models.dreamerv3.rssm import RSSM, Follow, Open, State
from world_models.precision import products
from world_models.seeding import generator
from world_models.types import ActionSpec, Batch, Obs, ObsShapes, SequenceSpec, Tail

TAIL = "model.embedding.tail."  # parameters of a pretrained encoder's trainable part
REPORT_STEPS = 64  # steps that are embedded at once in `report`


@dataclass(frozen=True)
class Carry:
    """What N environments take from one act to the next, and what the noise of acting is made of."""

    deter: Tensor  # (N, D)
    stoch: Tensor  # (N, SK)
    action: Tensor  # (N, A), the last one
    seed: int
    step: int  # acts so far


class DreamerV3:
    """Keeps the contract of `world_models.agent.Agent`.

    With `compile`, the recurrent steps of updates run through torch.compile, a graph for each of the two loops, since a
    graph of a whole loop takes minutes to compile; all else is eager. They agree to rounding, so a run resumes bitwise
    within one mode only. `precision` is that of products in updates and acts: `world_models.precision`. Reports are
    always float32.
    """

    def __init__(
        self,
        shapes: ObsShapes,
        action: ActionSpec,
        config: DreamerV3Config,
        *,
        seed: int,
        tail: Tail | None = None,
        compile: bool = False,
        precision: str = "float32",
        device: torch.device | str = "cpu",
    ):
        self.config, self.actions, self.seed, self.shapes = config, action, seed, shapes
        self.precision = precision
        self._follow: Follow = compiled(RSSM.follow) if compile else RSSM.follow
        self._step: Open = compiled(RSSM.step) if compile else RSSM.step
        self.sequence = SequenceSpec(
            config.batch_size, config.batch_length, stack=1, within_episode=False, carried=config.carried
        )
        g = generator(torch.device("cpu"), seed, "weights")
        self.classes = config.widths.classes
        model = WorldModel(shapes, action, config, g, tail)
        actor = Actor(model.rssm.features, action, config, g)
        critic = Critic(model.rssm.features, config, g)
        nets: dict[str, nn.Module] = {"model": model, "actor": actor, "critic": critic}
        self.explorer = Explorer(model, action, config, g) if config.policy and config.exploration > 0 else None
        if self.explorer is not None:
            nets["explorer"] = self.explorer
        self.nets = nn.ModuleDict(nets).to(device)
        self.model, self.actor, self.critic = model, actor, critic
        self.collector = actor if self.explorer is None else self.explorer.actor
        self.critics = [critic] if self.explorer is None else [critic, *self.explorer.critic_of.values()]
        self.device = next(model.parameters()).device
        rewards = {"": Sought(lambda imagined: model.predicted_reward(imagined.latent), critic)}
        self.behaviour = Behaviour(actor, rewards, actor_gradient(config, action))
        self.percentiles = torch.zeros(2, device=self.device)
        self.updates = 0
        learnt = {name: p for name, p in self.nets.named_parameters() if p.requires_grad}
        if not config.policy:
            learnt = {name: p for name, p in learnt.items() if name.startswith("model.")}
        self.optimizer = optimizer(learnt, config)
        self.loss_weights = model.weights()
        if config.policy:
            self.loss_weights |= {"policy": 1.0, "value": 1.0}
        if self.explorer is not None:
            self.loss_weights |= self.explorer.weights()
        if config.policy and config.replay_value > 0:
            self.loss_weights["replay_value"] = config.replay_value

    # Acting

    def initial(self, n: int, seed: int) -> Carry:
        """The carry of `n` environments before their first observation."""
        with torch.no_grad(), products(self.device, self.precision):
            state = self.model.rssm.initial(n, self.percentiles)
        return Carry(*state, torch.zeros(n, self.actions.dim, device=self.device), seed, 0)

    @torch.no_grad()
    def act(self, carry: Carry, obs: Obs, explore: bool) -> tuple[Tensor, Carry]:
        """Actions (N, A): drawn from the collecting policy, or without `explore` the task's, as `evaluate` says."""
        n = obs.is_first.shape[0]
        if len(carry.deter) != n:
            raise ValueError(f"a carry of {len(carry.deter)} environments met observations of {n}")
        noise = ActNoise.draw(self.config, n, self.actions, carry.seed, carry.step, self.device)
        obs = obs.to(self.device)
        before = State(carry.deter, carry.stoch)
        actor = self.collector if explore else self.actor
        with products(self.device, self.precision):
            embed = self.model.embedding(self.model.embedding.parts(obs))
            one = (x.unsqueeze(0) for x in (embed, carry.action, obs.is_first, noise.posterior))
            states, _ = self.model.rssm.observe(before, *one)
            state = states.flat()
            params = actor(state.features())
        drawn = explore or self.config.evaluate == "sample"
        action = actor.sample(params, noise.action) if drawn else actor.mode(params)
        action = action.clamp(-1, 1)
        return action, Carry(*state, action, carry.seed, carry.step + 1)

    def kept(self, carry: Carry) -> Tensor | None:
        """What replay keeps of a carry: (N, D + S) float16, None with context=zero."""
        if self.config.context == "zero":
            return None
        return self.model.rssm.pack(State(carry.deter, carry.stoch))

    # Learning

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on every network."""
        noise = UpdateNoise.draw(self.config, batch.reward.shape[0], self.actions, self.seed, self.updates, self.device)
        metrics = self.learn(batch.to(self.device), noise)
        self.updates += 1
        return metrics

    def learn(self, batch: Batch, noise: UpdateNoise) -> dict[str, Tensor]:
        """The update with given noise."""
        with products(self.device, self.precision):
            found, metrics = self.losses(batch, noise)
        assert found.keys() == self.loss_weights.keys(), (sorted(found), sorted(self.loss_weights))
        means = {name: loss.mean() for name, loss in found.items()}
        total = torch.stack([self.loss_weights[name] * mean for name, mean in means.items()]).sum()
        metrics["grad_norm"] = self.optimizer.step(torch.autograd.grad(total, list(self.optimizer.parameters.values())))
        for critic in self.critics:
            critic.move_slow(self.config.slow_rate)
        metrics |= {f"{name}_loss": mean.detach() for name, mean in means.items()}
        if "feature" in means and self.shapes.feature is not None:  # sums grow with the encoder's width
            metrics["feature_loss_per_dim"] = metrics["feature_loss"] / math.prod(self.shapes.feature)
        return metrics

    def losses(self, batch: Batch, noise: UpdateNoise) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Every loss, unreduced, and metrics; moves the running percentiles of returns and norm of features."""
        model, config = self.model, self.config
        if batch.reward.shape[1] != config.batch_length:
            raise ValueError(f"sequences of {batch.reward.shape[1]} steps; batch_length={config.batch_length}")
        if config.context == "replayed" and batch.carried is None:
            raise ValueError("context=replayed wants the states kept beside the sequences, batch.carried; it is None")
        obs = batch.obs.map(lambda x: x.transpose(0, 1))
        action, reward = batch.action.transpose(0, 1), batch.reward.t().contiguous()
        last, terminal = batch.is_last.t().float(), batch.is_terminal.t().float()
        if config.context == "zero":  # as if an episode began there: the action that led to it is forgotten as well
            obs = replace(obs, is_first=torch.cat([torch.ones_like(obs.is_first[:1]), obs.is_first[1:]]))
        parts = model.embedding.parts(obs, learn=True)
        embed = model.embedding(parts)  # (T, B, E)
        start = model.rssm.initial(reward.shape[1], embed)
        carried = batch.carried if config.context == "replayed" else None
        if carried is not None:
            start = model.rssm.unpack(carried[:, 0])
        state, posterior = model.rssm.observe(start, embed, action, obs.is_first, noise.posterior, follow=self._follow)
        if carried is not None:
            carried[:, 1:] = model.rssm.pack(state.detach()).transpose(0, 1)
        found = model.losses(parts, embed, state, posterior, reward, terminal)
        if not config.policy:
            return found, {}

        start, ended = state.flat().detach(), terminal.flatten()
        imagined = behaviour.imagine(model, self.behaviour, start, ended, noise, step=self._step)
        learnt, returns, moved, metrics = behaviour.losses(
            model, self.behaviour, imagined, self.percentiles.unsqueeze(0), config
        )
        self.percentiles = moved[0]
        found |= learnt
        if config.replay_value > 0:
            boot = returns[""][0].view_as(reward)
            replayed = (state.features(), boot, reward, last, terminal, config)
            found["replay_value"] = behaviour.replay_value_loss(self.critic, *replayed)
        if self.explorer is not None:
            assert noise.explore is not None
            replayed_steps = (state, action, obs.is_first, ended)
            more, their_metrics = self.explorer.losses(model, *replayed_steps, noise.explore, step=self._step)
            found, metrics = found | more, metrics | their_metrics
        return found, metrics

    # Study

    @torch.no_grad()
    def report(self, batch: Batch, context: int, starts: Sequence[int] = (), horizon: int = 0) -> dict[str, Tensor]:
        """Predictions on recorded sequences (B, T): see `Agent.report`.

        posterior, prior and open_loop are logits (B, T, SK), of q and p in the closed loop and of p in the open one;
        latent and latent_open_loop (B, T, D + SK) are what the heads read. Rewards, continue flags and values (NaN
        without a policy) come in both forms; so do features (B, T, F) where they are reconstructed, in the units of
        `feature_target`, which is what the decoder learns (normalised, symlog), of patches their mean. Latents are
        drawn with the same noise on every call.
        """
        model, steps = self.model, batch.reward.shape[1]
        check_report(steps, context, starts, horizon)
        batch = batch.to(self.device)
        obs = batch.obs.map(lambda x: x.transpose(0, 1))
        action = batch.action.transpose(0, 1)  # (T, B, A)
        g = generator(self.device, self.seed, "report")
        uniform = torch.rand(2, *action.shape[:2], self.config.latents, generator=g, device=self.device)
        embed = by_rows(lambda part: model.embedding(model.embedding.parts(part)), obs)
        start = model.rssm.initial(action.shape[1], embed)
        closed, posterior = model.rssm.observe(start, embed, action, obs.is_first, uniform[0])
        prior = model.rssm.prior(closed.deter)
        opened, predicted = closed.at(slice(context)), [posterior[:context]]
        state, step = closed.at(context - 1), model.rssm.sequence.laid_out()
        later = []
        for t in range(context, steps):
            state = model.rssm.step(step, state, action[t], uniform[1, t])
            later.append(state)
        if later:
            followed = State(*(torch.stack(parts) for parts in zip(*later, strict=True)))
            predicted.append(model.rssm.prior(followed.deter))
            opened = State(*(torch.cat(parts) for parts in zip(opened, followed, strict=True)))
        found = {"posterior": posterior, "prior": prior, "open_loop": torch.cat(predicted)}
        for name, latent in (("", closed.features()), ("_open_loop", opened.features())):
            found[f"latent{name}"] = latent
            found["reward_open_loop" if name else "reward_pred"] = self._no_first(model.predicted_reward(latent))
            found[f"continue{name or '_pred'}"] = model.predicted_continue(latent)
            value = self.critic.value(self.critic.head(latent))
            found[f"value{name}"] = value if self.config.policy else torch.full_like(value, torch.nan)
            if "feature" in model.decoders:
                found["feature_open_loop" if name else "feature_pred"] = by_rows(model.predicted_feature, latent)
        if "feature" in model.decoders:
            found["feature_target"] = by_rows(lambda part: model.target_feature(model.embedding.parts(part)), obs)
        found = {name: value.transpose(0, 1) for name, value in found.items()}
        return found | self._from_starts(closed, action, uniform[1], starts, horizon)

    def _from_starts(
        self, closed: State, action: Tensor, uniform: Tensor, starts: Sequence[int], horizon: int
    ) -> dict[str, Tensor]:
        """open_loop_from (B, P, K, SK) and reward_open_loop_from (B, P, K) of `Agent.report`, from parts (T, B, …)."""
        if not starts:
            return {}
        rssm, index = self.model.rssm, torch.tensor(starts, device=self.device)
        state, step = State(*(x[index - 1].flatten(0, 1) for x in closed)), rssm.sequence.laid_out()  # (P B, …)
        logits, rewards = [], []
        for k in range(horizon):
            t = (index + k).clamp(max=len(action) - 1)
            state = rssm.step(step, state, action[t].flatten(0, 1), uniform[t].flatten(0, 1))
            logits.append(rssm.prior(state.deter))
            rewards.append(self.model.predicted_reward(state.features()))
        found = {"open_loop_from": torch.stack(logits), "reward_open_loop_from": torch.stack(rewards)}  # (K, P B, …)
        return {k: v.unflatten(1, (len(starts), -1)).movedim((2, 1, 0), (0, 1, 2)) for k, v in found.items()}

    @torch.no_grad()
    def pictures(self, report: dict[str, Tensor]) -> Tensor | None:
        """What the open loop looks like, (B, T, height, width, 3) uint8; None without a decoder of pixels."""
        latent = report["latent_open_loop"]
        if "pixels" not in self.model.decoders:
            return None
        rows = latent.flatten(0, 1).split(REPORT_STEPS)  # an episode may be long
        return torch.cat([self.model.pictures(part) for part in rows]).unflatten(0, latent.shape[:2])

    @staticmethod
    def _no_first(reward: Tensor) -> Tensor:
        """(T, B), NaN at the first step, with which no reward arrives."""
        return torch.cat([torch.full_like(reward[:1], torch.nan), reward[1:]])

    # State

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state under its name, not copied."""
        learnt = {k for k, p in self.nets.named_parameters() if p.requires_grad}
        nets = {k: v for k, v in self.nets.state_dict().items() if k in learnt or not k.startswith(TAIL)}
        optimizer = {f"optimizer.{k}": v for k, v in self.optimizer.state_dict().items()}
        return nets | optimizer | {"percentiles": self.percentiles, "updates": torch.tensor(self.updates)}

    def state_dict(self) -> dict[str, Tensor]:
        """Copies on the CPU of model.*, actor.*, critic.*, explorer.*, optimizer.*, percentiles and updates."""
        return flat.copies(self._tensors())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`; ValueError names what is missing, unknown or misshapen, before anything changes."""
        mine = self._tensors()
        flat.restore(mine, state)
        self.percentiles = mine["percentiles"]
        self.updates = int(state["updates"])


def by_rows(function: Callable[[Any], Tensor], sequence: Obs | Tensor) -> Tensor:
    """function(sequence) (T, ...), some steps at a time, since a recorded episode may be long."""
    steps = len(sequence.is_first if isinstance(sequence, Obs) else sequence)
    return torch.cat([function(sequence[i : i + REPORT_STEPS]) for i in range(0, steps, REPORT_STEPS)])
