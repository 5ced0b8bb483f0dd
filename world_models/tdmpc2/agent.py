"""TD-MPC2 as an agent: acting by planning, one update, predictions for study, and a flat state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from world_models import flat
from world_models.agent import check_report
from world_models.compiling import compiled
from world_models.optim import Adam
from world_models.precision import products
from world_models.returns import discount_for
from world_models.seeding import generator
from world_models.tdmpc2 import losses, planner
from world_models.tdmpc2.config import TDMPC2Config
from world_models.tdmpc2.model import WorldModel
from world_models.tdmpc2.noise import PlanNoise, UpdateNoise
from world_models.types import ActionSpec, Batch, Obs, ObsShapes, SequenceSpec, Tail

TAIL = "encoder.tail."  # parameters of a pretrained encoder's trainable part
REPORT_ROWS = 256  # observations encoded at once in `report`


@dataclass(frozen=True)
class Carry:
    """What a plan leaves for the next one in N environments, and what its noise is made of."""

    mean: Tensor  # (H, N, A): the last plan, step 0 already taken
    seed: int
    step: int  # acts so far


class TDMPC2:
    """Keeps the contract of `world_models.agent.Agent`.

    With `compile`, losses and planner run through torch.compile for fixed shapes; without, eagerly. They agree to
    rounding, so a run resumes bitwise within one mode only. `precision` is that of products in updates and plans:
    `world_models.precision`. Reports are always float32. Raises ValueError for discrete actions.
    """

    classes = 0

    def __init__(
        self,
        shapes: ObsShapes,
        action: ActionSpec,
        config: TDMPC2Config,
        *,
        episode_length: int,
        seed: int,
        tail: Tail | None = None,
        compile: bool = False,
        precision: str = "float32",
        device: torch.device | str = "cpu",
    ):
        if action.discrete:
            raise ValueError(f"TD-MPC2 plans over continuous actions; got discrete=True with {action.dim} choices")
        if episode_length < 1:
            raise ValueError(f"episode_length={episode_length} must be at least 1")
        self.config, self.actions, self.seed = config, action.dim, seed
        self.shapes, self.precision = shapes, precision
        self.sequence = SequenceSpec(config.batch_size, config.horizon + 1, config.stack, within_episode=True)
        self.discount = discount_for(episode_length, config.discount_denom, config.discount_min, config.discount_max)
        self.iterations = config.iterations + 2 * (action.dim >= 20)  # the official heuristic for large action spaces
        self.shifts = shapes.pixels is not None and config.augment == "shift"

        cpu = torch.device("cpu")
        self.model = WorldModel(shapes, action.dim, config, generator(cpu, seed, "weights"), tail).to(device)
        self.device = next(self.model.parameters()).device
        self.scale = torch.ones((), device=self.device)
        self.updates = 0
        self._build_optimisers()
        functions = self._compiled() if compile else self._eager()
        self._functions = {name: self._products()(f) for name, f in functions.items()}

    def _build_optimisers(self) -> None:
        named = {k: p for k, p in self.model.named_parameters() if p.requires_grad}
        if not self.config.policy:
            named = {k: p for k, p in named.items() if not k.startswith(("policy.", "q."))}
        policy = {k: p for k, p in named.items() if k.startswith("policy.")}
        tail = {k: p for k, p in named.items() if k.startswith(TAIL)}
        encoder = {k: p for k, p in named.items() if k.startswith("encoder.") and k not in tail}
        rest = {k: p for k, p in named.items() if k not in policy and not k.startswith("encoder.")}
        c = self.config
        groups = [(encoder, c.lr * c.enc_lr_scale), (rest, c.lr)] + [(tail, c.lr * c.tail_lr_scale)] * bool(tail)
        self.optimizer = Adam(groups, c.grad_clip_norm)
        self.policy_optimizer = Adam([(policy, c.lr)], c.grad_clip_norm, eps=1e-5)

    @staticmethod
    def _eager() -> dict[str, Callable[..., Any]]:
        return {
            "targets": losses.targets,
            "model_losses": losses.model_losses,
            "policy_loss": losses.policy_loss,
            "encode": WorldModel.encode,
            "prior": planner.prior_trajectories,
            "improve": planner.improve,
        }

    @classmethod
    def _compiled(cls) -> dict[str, Callable[..., Any]]:
        return {name: compiled(f) for name, f in cls._eager().items()}

    def _products(self) -> torch.autocast:
        return products(self.device, self.precision)

    # Acting

    def initial(self, n: int, seed: int) -> Carry:
        """The carry of `n` environments before their first observation."""
        return Carry(torch.zeros(self.config.horizon, n, self.actions, device=self.device), seed, 0)

    def act(self, carry: Carry, obs: Obs, explore: bool) -> tuple[Tensor, Carry]:
        """Plan; actions (N, A). Without `explore` the chosen elite's action gets no noise."""
        n = obs.is_first.shape[0]
        if carry.mean.shape[1] != n:
            raise ValueError(f"a carry of {carry.mean.shape[1]} environments met observations of {n}")
        noise = PlanNoise.draw(self.config, self.iterations, n, self.actions, carry.seed, carry.step, self.device)
        action, mean = self.plan(carry.mean, obs.to(self.device), noise, explore)
        return action, Carry(mean, carry.seed, carry.step + 1)

    def kept(self, carry: Carry) -> None:
        """Nothing: TD-MPC2 has no recurrent state."""
        return None

    @torch.no_grad()
    def plan(self, previous: Tensor, obs: Obs, noise: PlanNoise, explore: bool) -> tuple[Tensor, Tensor]:
        """Actions (N, A) and the plan (H, N, A), from the previous plan and given noise."""
        model, run = self.model, self._functions
        with self._products():
            parts = model.encoder.inputs(obs, noise.shift if self.shifts else None)
        z = run["encode"](model, parts)
        prior = run["prior"](model, z, noise.prior_noise)
        mean = torch.zeros_like(previous)
        mean[:-1] = previous[1:]
        mean = mean * ~obs.is_first[:, None]
        std = torch.full_like(mean, self.config.max_std)
        for i, which in enumerate(noise.heads):
            heads = model.heads(which)
            samples = noise.sample_noise[i], noise.value_noise[i]
            mean, std, elite, score = run["improve"](model, heads, z, prior, mean, std, *samples, self.discount)
        return planner.select(elite, score, std, noise, explore), mean

    # Learning

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on model, policy and target Q functions."""
        noise = UpdateNoise.draw(self.config, batch.reward.shape[0], self.actions, self.seed, self.updates, self.device)
        metrics = self.learn(batch.to(self.device), noise)
        self.updates += 1
        return metrics

    def learn(self, batch: Batch, noise: UpdateNoise) -> dict[str, Tensor]:
        """The update with given noise."""
        model, run = self.model, self._functions
        horizon = self.config.horizon
        if batch.reward.shape[1] != horizon + 1:
            raise ValueError(f"sequences of {batch.reward.shape[1]} steps; horizon={horizon} needs {horizon + 1}")
        obs = batch.obs.map(lambda x: x.transpose(0, 1))
        with self._products():  # apart from what follows, since nothing here has gradients
            model.encoder.observe(obs)
        shift = noise.shift if self.shifts else None
        with self._products():
            first = self._inputs(obs[0], None if shift is None else shift[0])
            with torch.no_grad():
                later = self._inputs(obs[1:], None if shift is None else shift[1:])
        action = batch.action[:, 1:].transpose(0, 1).contiguous()
        reward = batch.reward[:, 1:].t().contiguous()
        terminal = batch.is_terminal[:, 1:].t().float().contiguous()

        if self.config.policy:
            heads = model.heads(noise.target_heads, target=True)
            next_z, td = run["targets"](model, heads, later, reward, terminal, noise.target_noise, self.discount)
        else:
            with torch.no_grad():
                next_z, td = run["encode"](model, later), None
        loss, metrics, zs = run["model_losses"](model, first, action, reward, terminal, next_z, td, noise.value_keep)
        metrics["simplex_peak"] = (
            zs[0].unflatten(-1, (-1, self.config.simnorm_dim)).amax(-1).mean()
        )  # 1 or 1 / simnorm_dim: it is blind
        metrics["grad_norm"] = self.optimizer.step(torch.autograd.grad(loss, list(self.optimizer.parameters.values())))
        if td is None:
            return metrics
        return metrics | self._improve(zs, noise) | {"td_target": td.mean()}

    def _improve(self, zs: Tensor, noise: UpdateNoise) -> dict[str, Tensor]:
        """One step on the policy prior from latents (T, B, L), and the target Q functions moved."""
        model, run = self.model, self._functions
        heads = model.heads(noise.policy_heads)
        loss, metrics, self.scale = run["policy_loss"](
            model, heads, zs, noise.policy_noise, noise.policy_keep, self.scale
        )
        metrics["policy_grad_norm"] = self.policy_optimizer.step(
            torch.autograd.grad(loss, list(self.policy_optimizer.parameters.values()))
        )
        self._move_targets()
        return metrics

    def _inputs(self, obs: Obs, shift: Tensor | None) -> dict[str, Tensor]:
        return {k: v.contiguous() for k, v in self.model.encoder.inputs(obs, shift).items()}

    @torch.no_grad()
    def _move_targets(self) -> None:
        torch._foreach_lerp_(list(self.model.target_q.parameters()), list(self.model.q.parameters()), self.config.tau)

    # Study

    @torch.no_grad()
    def report(self, batch: Batch, context: int, starts: Sequence[int] = (), horizon: int = 0) -> dict[str, Tensor]:
        """Predictions on recorded sequences, not augmented; `value`: mean of all Q functions, NaN without a policy."""
        model, steps = self.model, batch.reward.shape[1]
        check_report(steps, context, starts, horizon)
        batch = batch.to(self.device)
        obs = batch.obs.map(lambda x: x.flatten(0, 1))
        rows = [slice(i, i + REPORT_ROWS) for i in range(0, len(obs.is_first), REPORT_ROWS)]
        chunks = [model.encode(model.encoder.inputs(obs[part])) for part in rows]
        posterior = torch.cat(chunks).unflatten(0, batch.reward.shape)
        open_loop = posterior.clone()
        for t in range(context, steps):
            open_loop[:, t] = model.next(open_loop[:, t - 1], batch.action[:, t])
        action = model.pi_mean(posterior)
        value = model.Q(model.heads(list(range(len(model.q)))), posterior, action).mean(0)
        return self._from_starts(posterior, batch.action, starts, horizon) | {
            "posterior": posterior,
            "open_loop": open_loop,
            "reward_pred": self._rewards(posterior, batch.action),
            "reward_open_loop": self._rewards(open_loop, batch.action),
            "value": value if self.config.policy else torch.full_like(value, torch.nan),
        }

    def _from_starts(self, posterior: Tensor, action: Tensor, starts: Sequence[int], horizon: int) -> dict[str, Tensor]:
        """open_loop_from (B, P, K, L) and reward_open_loop_from (B, P, K), as `Agent.report` says."""
        if not starts:
            return {}
        index = torch.tensor(starts, device=self.device)
        z, latents, rewards = posterior[:, index - 1], [], []  # (B, P, L)
        for k in range(horizon):
            a = action[:, (index + k).clamp(max=action.shape[1] - 1)]
            rewards.append(self.model.scalar(self.model.reward(z, a)))
            z = self.model.next(z, a)
            latents.append(z)
        return {"open_loop_from": torch.stack(latents, 2), "reward_open_loop_from": torch.stack(rewards, 2)}

    def pictures(self, report: dict[str, Tensor]) -> None:
        """Nothing: TD-MPC2 has no decoder."""
        return None

    def _rewards(self, z: Tensor, action: Tensor) -> Tensor:
        """Predicted rewards (B, T) of taking action[t] at z[t - 1]; NaN at t = 0."""
        reward = self.model.scalar(self.model.reward(z[:, :-1], action[:, 1:]))
        return torch.cat([torch.full_like(reward[:, :1], torch.nan), reward], 1)

    # State

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state under its name, not copied."""
        learnt = {k for k, p in self.model.named_parameters() if p.requires_grad}
        model = {k: v for k, v in self.model.state_dict().items() if k in learnt or not k.startswith(TAIL)}
        optimizers = {"optimizer": self.optimizer, "policy_optimizer": self.policy_optimizer}
        groups = {"model": model, **{k: o.state_dict() for k, o in optimizers.items()}}
        found = {f"{group}.{name}": value.detach() for group, named in groups.items() for name, value in named.items()}
        return found | {"scale": self.scale, "updates": torch.tensor(self.updates)}

    def state_dict(self) -> dict[str, Tensor]:
        """Copies on the CPU of model.*, optimizer.*, policy_optimizer.*, scale and updates."""
        return flat.copies(self._tensors())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`; ValueError names what is missing, unknown or misshapen, before anything changes."""
        mine = self._tensors()
        flat.restore(mine, state)
        self.scale = mine["scale"]
        self.updates = int(state["updates"])
