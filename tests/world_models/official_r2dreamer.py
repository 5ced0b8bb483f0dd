"""Run three updates of r2dreamer's Dreamer (`rep_loss=dreamer`) and store everything that went in and came out.

    $PEERS/.venv/bin/python tests/world_models/official_r2dreamer.py CASE OUT.pt

CASE is vector (continuous actions), choice (a vector, discrete actions), pixels, or both (pixels and a vector). Its
python needs torch 2.13.0, tensordict 0.12.0, numpy and omegaconf. $PEERS holds a clone of NM512/r2dreamer (commit
546e4fa), which stays untouched. Every weight is redrawn, so that all gradients are alive; where its behaviour differs
from the published code (danijar/dreamerv3, e3f0224), which ours follows, it is replaced while it runs:

- latents and choices: Gumbel-softmax with relaxed gradients there; the published code samples a class and passes
  gradients straight through to the probabilities. Here a class is found by inversion of one uniform draw;
- the KL divergence is of distributions without the uniform share there, of those with it in the published code;
- the slow critic moves before the update there, after it in the published code;
- the warm-up of the learning rate enters LaProp's momentum there, and multiplies its result in the published code:
  switched off here;
- it runs in float16 under autocast: switched off here.

What is left and moves no result beyond rounding: the model steps on once behind the last imagined state, and squared
errors of symlog below 1e-8 are taken for 0. Where both differ from the published code: the continue head's target is
1 and returns are discounted explicitly, where the published target is the discount itself.
"""

import contextlib
import os
import sys
import types
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(os.environ["PEERS"]) / "r2dreamer"
BATCH, LENGTH, HORIZON, UPDATES = 3, 6, 5, 3
SIZES = {"deter": 48, "hidden": 12, "discrete": 5, "depth": 4, "units": 20, "act": "SiLU", "norm": True}
SMALL = {"imag_horizon": HORIZON, "compile": False, "warmup": 0, "lr": 3e-4, "rssm.stoch": 7}
NUMBERS, CHOICES, ACTIONS, IMAGE = 9, 4, 3, (64, 64, 3)
CASES = {
    "vector": {"state": (NUMBERS,)},
    "choice": {"state": (NUMBERS,)},
    "pixels": {"image": IMAGE},
    "both": {"image": IMAGE, "state": (NUMBERS,)},
}


def make(shapes: dict[str, tuple[int, ...]], actions: int, sizes: dict, discrete: bool = False, **settings):
    """r2dreamer's Dreamer for observations "image" and "state"; `settings` replace values of its configuration."""
    sys.modules["torch.utils.tensorboard"] = types.ModuleType("tensorboard")  # its logger, which is not used
    sys.modules["torch.utils.tensorboard"].SummaryWriter = None
    sys.path.insert(0, str(ROOT))
    import dreamer
    from omegaconf import OmegaConf

    keys = {"mlp_keys": "state", "cnn_keys": "image"}
    root = OmegaConf.create({"device": "cpu", "env": {"encoder": keys, "decoder": keys}})
    root.model = OmegaConf.merge(OmegaConf.load(ROOT / "configs" / "model" / "_base_.yaml"), sizes)
    root.model.rep_loss = "dreamer"
    for key, value in settings.items():
        OmegaConf.update(root.model, key, value)
    obs_space = types.SimpleNamespace(spaces={k: types.SimpleNamespace(shape=shape) for k, shape in shapes.items()})
    act_space = types.SimpleNamespace(shape=(actions,))
    if discrete:
        act_space = types.SimpleNamespace(n=actions, discrete=True)
    with contextlib.redirect_stdout(sys.stderr):
        return dreamer.Dreamer(root.model, obs_space, act_space)


class Replay:
    """What `update` wants of a replay buffer: one batch, from states of zero."""

    def __init__(self, agent, data: dict[str, torch.Tensor]):
        self.agent, self.data = agent, data

    def sample(self):
        from tensordict import TensorDict

        lead = self.data["is_first"].shape
        data = TensorDict({k: v.clone() for k, v in self.data.items()}, batch_size=lead)
        return data, None, self.agent.rssm.initial(lead[0])

    def update(self, *_) -> None:
        """Latents are not kept."""


class Published:
    """The published behaviour in place of r2dreamer's, and every random draw recorded in order, by kind."""

    def __init__(self):
        import distributions
        import dreamer

        self.uniform: list[torch.Tensor] = []
        self.normal: list[torch.Tensor] = []
        dreamer.autocast = lambda **_: contextlib.nullcontext()
        distributions.OneHotDist.rsample = lambda dist, *_: self._sample(dist.probs)
        distributions.kl = self._kl
        torch.distributions.normal._standard_normal = self._standard_normal

    def _sample(self, probs: torch.Tensor) -> torch.Tensor:
        draw = torch.rand(probs.shape[:-1])
        self.uniform.append(draw)
        index = torch.searchsorted(probs.detach().cumsum(-1), draw.unsqueeze(-1), right=True).squeeze(-1)
        onehot = F.one_hot(index.clamp(max=probs.shape[-1] - 1), probs.shape[-1]).float()
        return onehot + (probs - probs.detach())

    def _standard_normal(self, shape, dtype, device) -> torch.Tensor:
        self.normal.append(torch.normal(torch.zeros(shape, dtype=dtype, device=device), 1.0))
        return self.normal[-1]

    @staticmethod
    def _kl(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        p, q = (0.99 * x.softmax(-1) + 0.01 / x.shape[-1] for x in (left, right))
        return (p * (p.log() - q.log())).sum(-1)

    def take(self, discrete: bool) -> dict[str, torch.Tensor]:
        """The draws of one update: posterior (T, B, S), prior (H, B T, S), action (H + 1, B T, A) or (…, 1)."""
        posterior, imagined = self.uniform[:LENGTH], self.uniform[LENGTH + 1 :]  # between: priors of replayed states
        if discrete:
            action, prior = (torch.stack(imagined[i::2]) for i in range(2))
            action = action.unsqueeze(-1)
        else:
            action, prior = torch.stack(self.normal), torch.stack(imagined)
        self.uniform, self.normal = [], []
        return {"posterior": torch.stack(posterior), "prior": prior[:HORIZON], "action": action}


def weights(agent) -> dict[str, torch.Tensor]:
    """Every parameter by its name, and the slow critic."""
    named = dict(agent._named_params) | {f"slow.{k}": p for k, p in agent._slow_value.named_parameters()}
    return {name: p.detach().clone() for name, p in named.items()}


def fill(agent) -> None:
    """Draw every weight anew; heads over classes keep to small numbers, so that returns do not run to 1e8."""
    symlog_bins = torch.linspace(-20, 20, 255)
    with torch.no_grad():
        for name, p in (*agent._named_params.items(), *agent._slow_value.named_parameters(prefix="slow")):
            if p.dim() > 1:
                p.normal_(0, 1.2 / p[0].numel() ** 0.5)
            else:
                p.add_(torch.randn_like(p) * 0.2)
            if name in ("reward.last.bias", "value.last.bias", "slow.last.bias"):
                p.sub_(1.5 * symlog_bins.abs())


def batch(shapes: dict[str, tuple[int, ...]], discrete: bool) -> dict[str, torch.Tensor]:
    """Sequences (B, T) in which episodes end, by termination and without, and begin."""
    lead = (BATCH, LENGTH)
    ends, terminates, first = (torch.zeros(lead, dtype=torch.bool) for _ in range(3))
    ends[0, 2] = ends[1, 4] = terminates[0, 2] = ends[2, -1] = terminates[2, -1] = True
    first[0, 3] = first[1, 5] = first[2, 0] = True
    action = torch.rand(*lead, ACTIONS) * 3 - 1.5
    if discrete:
        action = F.one_hot(torch.randint(0, CHOICES, lead), CHOICES).float()
    data = {"action": action, "reward": torch.randn(*lead, 1) * 3, "is_first": first}
    data |= {"is_last": ends.unsqueeze(-1), "is_terminal": terminates.unsqueeze(-1)}
    for key, shape in shapes.items():
        image = key == "image"
        data[key] = torch.randint(0, 256, (*lead, *shape), dtype=torch.uint8) if image else torch.randn(*lead, *shape)
    return data


def main(case: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shapes, discrete = CASES[case], case == "choice"
    agent = make(shapes, CHOICES if discrete else ACTIONS, SIZES, discrete, **SMALL)
    fill(agent)
    agent.return_ema.ema_vals.copy_(torch.tensor([-1.0, 2.0]))
    published, data = Published(), batch(shapes, discrete)
    stored = {"data": data, "weights": weights(agent), "percentiles": agent.return_ema.ema_vals.clone(), "updates": []}

    move_slow, agent._update_slow_target = agent._update_slow_target, lambda: None
    lambda_return, clip = agent._lambda_return, agent._agc
    seen: dict = {}

    def keep_return(*args):
        seen.setdefault("returns", []).append(lambda_return(*args).squeeze(-1))
        return seen["returns"][-1].unsqueeze(-1)

    def keep_gradients(parameters):
        seen["gradients"] = {k: p.grad.clone() for k, p in agent._named_params.items()}
        clip(parameters)
        seen["clipped"] = {k: p.grad.detach().clone() for k, p in agent._named_params.items()}

    agent._lambda_return, agent._agc = keep_return, keep_gradients
    for _ in range(UPDATES):
        seen.clear()
        metrics = agent.update(Replay(agent, data))
        move_slow()
        losses = {k.removeprefix("loss/"): v.detach() for k, v in metrics.items() if k.startswith("loss/")}
        found = {"noise": published.take(discrete), "losses": losses, "after": weights(agent)}
        stored["updates"].append(seen | found | {"percentiles": agent.return_ema.ema_vals.clone()})
    torch.save(stored, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
