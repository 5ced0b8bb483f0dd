"""The recurrent state-space model (Hafner et al. 2025, arXiv 2301.04104v2, equation 3), block-diagonal or dense.

Inside, sequences are (T, N, ...). A state is the recurrent h, (N, D), and the latent z, one-hot, (N, SK):

    h[t] = f(h[t-1], z[t-1], action[t])      z[t] ~ q(z | h[t], observation[t])      prior z[t] ~ p(z | h[t])
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.nets import MLP, NORMS, BlockLinear, LayerNormedLinear, NormedLinear, norm_silu
from world_models.precision import cast


class State(NamedTuple):
    """Recurrent state and sampled latent; leading shape (N,) or (T, N)."""

    deter: Tensor  # (*, D)
    stoch: Tensor  # (*, SK), one-hot in each group of K

    def features(self) -> Tensor:
        """What every head reads, (*, D + SK)."""
        return torch.cat([self.deter, self.stoch], -1)

    def flat(self) -> "State":
        """(T, N) as one leading dimension."""
        return State(self.deter.flatten(0, 1), self.stoch.flatten(0, 1))

    def at(self, place: int | slice) -> "State":
        """The states at some places of the leading dimension."""
        return State(self.deter[place], self.stoch[place])

    def detach(self) -> "State":
        """The same state outside the graph."""
        return State(self.deter.detach(), self.stoch.detach())

    def where(self, keep: Tensor) -> "State":
        """The state where `keep` (*, 1) is 1, zeros where it is 0."""
        return State(self.deter * keep, self.stoch * keep)

    def plus(self, other: "State") -> "State":
        """The sum of both."""
        return State(self.deter + other.deter, self.stoch + other.stoch)


def mix_uniform(logits: Tensor, unimix: float) -> Tensor:
    """Log probabilities of softmax(logits) (*, K), mixed with a share of the uniform distribution."""
    if unimix == 0:
        return F.log_softmax(logits, -1)
    return torch.log((1 - unimix) * F.softmax(logits, -1) + unimix / logits.shape[-1])


def sample_onehot(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """One-hot samples (*, K) by inversion of one uniform draw (*,) each, with straight-through gradients."""
    probs = log_probs.exp()
    with torch.no_grad():
        below = probs[..., :-1].cumsum(-1) <= uniform.unsqueeze(-1)
        onehot = F.one_hot(below.sum(-1), probs.shape[-1]).to(probs.dtype)
    return onehot + (probs - probs.detach()) if probs.requires_grad else onehot


def clip_action(action: Tensor) -> Tensor:
    """a / max(1, |a|) per dimension, as the published model takes actions."""
    return action / action.detach().abs().clamp(min=1.0)


class BlockGRU(nn.Module):
    """The sequence model: three normed inputs, one block-diagonal layer, then gates, block by block.

    Each block reads its own part of h and all of the inputs, so its layer is the sum of a block-diagonal and a dense
    product; they are one weight, as in the published code.
    """

    def __init__(self, deter: int, stoch: int, actions: int, hidden: int, blocks: int, generator: Generator):
        super().__init__()
        self.from_deter = NormedLinear(deter, hidden, generator)
        self.from_stoch = NormedLinear(stoch, hidden, generator)
        self.from_action = NormedLinear(actions, hidden, generator)
        self.hidden = BlockLinear(deter + 3 * hidden * blocks, deter, blocks, generator)
        self.scale = nn.Parameter(torch.ones(deter))
        self.gates = BlockLinear(deter, 3 * deter, blocks, generator)

    def laid_out(self) -> "Step":
        """The step function with its weights sliced once for a whole sequence."""
        return Step(self)


class Step:
    """One step of a `BlockGRU`; `actions` are prepared for all steps at once."""

    def __init__(self, net: BlockGRU):
        self.net = net
        blocks, _, width = net.hidden.weight.shape
        self.blocks, self.hidden = blocks, net.from_deter.weight.shape[0]
        own, shared = net.hidden.weight.split([width, 3 * self.hidden], 1)  # (G, D / G, D / G), (G, 3U, D / G)
        dense = cast(shared.transpose(0, 1).flatten(1))  # (3U, D)
        self.own, self.state_weight, self.action_weight = cast(own), dense[: 2 * self.hidden], dense[2 * self.hidden :]

    def actions(self, action: Tensor) -> Tensor:
        """What actions (*, A) add to the hidden layer, (*, D)."""
        return F.linear(self.net.from_action(clip_action(action)), self.action_weight.t(), self.net.hidden.bias)

    def __call__(self, state: State, from_action: Tensor) -> Tensor:
        """The next recurrent state (N, D)."""
        net, deter = self.net, state.deter
        inputs = torch.cat([net.from_deter(deter), net.from_stoch(state.stoch)], -1)  # (N, 2U)
        grouped = deter.unflatten(-1, (self.blocks, -1)).transpose(0, 1)  # (G, N, D / G)
        own = torch.bmm(grouped, self.own).transpose(0, 1).flatten(1)  # (N, D)
        hidden = norm_silu(torch.addmm(from_action, inputs, self.state_weight).add_(own), net.scale)
        gates = net.gates(hidden).unflatten(-1, (self.blocks, 3, -1))  # (N, G, 3, D / G)
        reset, candidate, update = gates.unbind(-2)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        old = deter.view_as(candidate)
        return torch.lerp(old, candidate, torch.sigmoid(update - 1)).flatten(1)


class DenseGRU(nn.Module):
    """The sequence model of 2023: latent and action through one normed layer, then normed gates that read all of h."""

    def __init__(self, deter: int, stoch: int, actions: int, hidden: int, generator: Generator):
        super().__init__()
        self.action_dim = actions
        self.enter = LayerNormedLinear(stoch + actions, hidden, generator)
        self.gates = LayerNormedLinear(deter + hidden, 3 * deter, generator, silu=False)

    def laid_out(self) -> "DenseStep":
        """The step function with its weights sliced once for a whole sequence."""
        return DenseStep(self)


class DenseStep:
    """One step of a `DenseGRU`; `actions` are prepared for all steps at once."""

    def __init__(self, net: DenseGRU):
        self.net = net
        deter = net.gates.weight.shape[0] // 3
        stoch = net.enter.weight.shape[1] - net.action_dim
        self.by_stoch, self.by_action = cast(net.enter.weight).split([stoch, net.action_dim], 1)
        self.by_deter, self.by_hidden = cast(net.gates.weight).split([deter, net.enter.weight.shape[0]], 1)

    def actions(self, action: Tensor) -> Tensor:
        """What actions (*, A) add in front of the first norm, (*, U)."""
        return F.linear(clip_action(action), self.by_action)

    def __call__(self, state: State, from_action: Tensor) -> Tensor:
        """The next recurrent state (N, D)."""
        net = self.net
        hidden = net.enter.activate(torch.addmm(from_action, state.stoch, self.by_stoch.t()))
        gates = net.gates.activate(torch.addmm(hidden @ self.by_hidden.t(), state.deter, self.by_deter.t()))
        reset, candidate, update = gates.chunk(3, -1)  # (N, D) each
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(state.deter, candidate, torch.sigmoid(update - 1))


def sequence_model(actions: int, config: DreamerV3Config, generator: Generator) -> BlockGRU | DenseGRU:
    """The recurrent unit that `config.sequence` names."""
    w = config.widths
    sizes = (w.deter, config.latents * w.classes, actions, w.hidden)
    if config.sequence == "dense":
        return DenseGRU(*sizes, generator)
    return BlockGRU(*sizes, config.blocks, generator)


Follow = Callable[..., tuple[State, Tensor]]  # `RSSM.follow`, or that compiled
Open = Callable[..., State]  # `RSSM.step`, or that compiled


class RSSM(nn.Module):
    """Sequence model, posterior and prior."""

    def __init__(self, embed: int, actions: int, config: DreamerV3Config, generator: Generator):
        super().__init__()
        w = config.widths
        self.sizes = (w.deter, config.latents, w.classes)
        self.unimix = config.unimix
        stoch = config.latents * w.classes
        normed, last = NORMS[config.norm]
        self.sequence = sequence_model(actions, config, generator)
        self.posterior_in = normed(w.deter + embed, w.hidden, generator)
        self.posterior_out = last(w.hidden, stoch, generator)
        self.prior = MLP(w.deter, w.hidden, w.prior_layers, generator, out=stoch, norm=config.norm)
        self.start = nn.Parameter(torch.zeros(w.deter)) if config.initial == "learned" else None

    @property
    def features(self) -> int:
        """Width of what the heads read."""
        deter, latents, classes = self.sizes
        return deter + latents * classes

    def initial(self, n: int, like: Tensor) -> State:
        """The state before an episode: zeros, or a learned h and the latent that is likeliest with it."""
        deter, latents, classes = self.sizes
        if self.start is None:
            return State(like.new_zeros(n, deter), like.new_zeros(n, latents * classes))
        h = torch.tanh(self.start)
        likeliest = self.prior(h).unflatten(-1, (latents, classes)).argmax(-1)  # (S,)
        stoch = F.one_hot(likeliest, classes).to(h.dtype).flatten()
        return State(h.expand(n, -1), stoch.expand(n, -1))

    def pack(self, state: State) -> Tensor:
        """States (*, ...) as (*, D + S) float16: h, then each latent's class counted from 1; 0 is none."""
        onehot = state.stoch.unflatten(-1, self.sizes[1:])
        classes = (onehot.argmax(-1) + 1) * onehot.any(-1)
        return torch.cat([state.deter, classes.to(state.deter.dtype)], -1).half()

    def unpack(self, packed: Tensor) -> State:
        """The states of `pack`."""
        deter, latents, classes = self.sizes
        h, index = packed.split([deter, latents], -1)
        return State(h.float(), F.one_hot(index.long(), classes + 1)[..., 1:].flatten(-2).float())

    def log_probs(self, logits: Tensor) -> Tensor:
        """(*, SK) logits to log probabilities (*, S, K)."""
        _, latents, classes = self.sizes
        return mix_uniform(logits.unflatten(-1, (latents, classes)), self.unimix)

    def sample(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """One-hot latents (*, SK) from logits (*, SK) and uniform draws (*, S)."""
        return sample_onehot(self.log_probs(logits), uniform).flatten(-2)

    def follow(
        self, step: Step | DenseStep, by_deter: Tensor, state: State, by_action: Tensor, seen: Tensor, draw: Tensor
    ) -> tuple[State, Tensor]:
        """One step of the closed loop: the next state and its posterior logits (N, SK).

        by_action and seen (N, U) are what action and embedding add, by_deter (U, D) are the posterior's weights of h.
        """
        deter = step(state, by_action)
        logits = self.posterior_out(self.posterior_in.activate(torch.addmm(seen, deter, by_deter.t())))
        return State(deter, self.sample(logits, draw)), logits

    def observe(
        self,
        start: State,
        embed: Tensor,
        action: Tensor,
        is_first: Tensor,
        uniform: Tensor,
        *,
        follow: Follow = follow,
    ) -> tuple[State, Tensor]:
        """The closed loop over embeddings (T, N, E): states (T, N, ...) and posterior logits (T, N, SK).

        action[t] led to embed[t]; where is_first (T, N) the state before is `initial` and the action nothing.
        """
        keep = (~is_first).to(embed.dtype).unsqueeze(-1)  # (T, N, 1)
        step = self.sequence.laid_out()
        from_action = step.actions(action * keep)
        deter_width = self.sizes[0]
        by_deter, by_embed = cast(self.posterior_in.weight).split([deter_width, embed.shape[-1]], 1)
        from_embed = F.linear(embed, by_embed, self.posterior_in.bias)  # (T, N, U)
        begin = None if self.start is None else self.initial(embed.shape[1], embed)
        state, states, logits = start, [], []
        # unbind, since the gradient of every x[t] would be a cleared tensor of all steps
        steps = (x.unbind() for x in (keep, from_action, from_embed, uniform))
        for live, by_action, seen, draw in zip(*steps, strict=True):
            state = state.where(live)
            if begin is not None:
                state = state.plus(begin.where(1 - live))
            state, posterior = follow(self, step, by_deter, state, by_action, seen, draw)
            states.append(state)
            logits.append(posterior)
        return State(*(torch.stack(parts) for parts in zip(*states, strict=True))), torch.stack(logits)

    def step(self, step: Step | DenseStep, state: State, action: Tensor, uniform: Tensor) -> State:
        """One step of the open loop: the next state of N states under actions (N, A)."""
        deter = step(state, step.actions(action))
        return State(deter, self.sample(self.prior(deter), uniform))
