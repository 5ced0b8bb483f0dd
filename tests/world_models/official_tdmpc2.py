"""Run one update and two plans of the official TD-MPC2 and store everything that went in and came out.

    $PEERS/.venv/bin/python tests/world_models/official_tdmpc2.py CASE OUT.pt

CASE is state, state-episodic or pixels. Its python needs torch 2.13.0, tensordict 0.12.0, numpy, omegaconf, hydra-core.
$PEERS holds a clone of nicklashansen/tdmpc2, which stays untouched: its fixed GPU is replaced while its modules load,
and its random draws are recorded as they happen. Output layers that start at zero are filled, convolutions enlarged, so
that all gradients are alive.
"""

import importlib.machinery
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(os.environ["PEERS"]) / "tdmpc2" / "tdmpc2"
SWAPS = {b"cuda:0": b"cpu", b"capturable=True": b"capturable=False"}
BATCH, ACTIONS = 8, 3
SMALL = {
    "state": {"latent_dim": 64, "mlp_dim": 48, "enc_dim": 40, "batch_size": BATCH},
    "rgb": {"latent_dim": 512, "mlp_dim": 48, "enc_dim": 40, "batch_size": BATCH},
}


class OnCpu(importlib.machinery.SourceFileLoader):
    """Load a module with its hard-coded device replaced."""

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        source = self.get_data(path)
        for old, new in SWAPS.items():
            source = source.replace(old, new)
        return self.source_to_code(source, path)


class Finder:
    """Find the official modules, and only those, in the clone."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ("tdmpc2", "common"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path or [str(ROOT)])
        if spec and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = OnCpu(name, spec.origin)
        return spec


class Recorder:
    """Keeps a copy of every random tensor that is drawn while it is on, by kind, in order."""

    def __init__(self):
        self.draws: dict[str, list[torch.Tensor]] = {}
        self._originals = []
        for owner, name in ((torch, "randn"), (torch, "randn_like"), (torch, "randint"), (torch, "randperm")):
            self._wrap(owner, name)
        self._wrap(torch.Tensor, "exponential_")
        self._originals.append((F, "dropout", F.dropout))
        F.dropout = self._dropout

    def _wrap(self, owner, name):
        original = getattr(owner, name)
        self._originals.append((owner, name, original))

        def recorded(*args, **kwargs):
            out = original(*args, **kwargs)
            self._keep(name, out)
            return out

        setattr(owner, name, recorded)

    def _keep(self, name, value):
        self.draws.setdefault(name, []).append(value.detach().clone())

    def _dropout(self, x, p=0.5, training=True, inplace=False):
        if not training:
            return x
        original = next(f for _, name, f in self._originals if name == "dropout")
        mask = original(torch.ones_like(x), p, True)
        self._keep("dropout", torch._C._functorch.get_unwrapped(mask))  # one mask per Q function, which vmap hides
        return x * mask

    def stop(self) -> dict[str, list[torch.Tensor]]:
        for owner, name, original in self._originals:
            setattr(owner, name, original)
        return self.draws


def make(kind: str, shape: tuple[int, ...], actions: int, **settings):
    """The official 5 M agent for observations of a kind, "rgb" or "state", with some settings replaced."""
    sys.meta_path.insert(0, Finder())
    from omegaconf import OmegaConf

    from common.parser import cfg_to_dataclass  # isort: skip
    from tdmpc2 import TDMPC2  # isort: skip

    cfg = OmegaConf.load(ROOT / "config.yaml")
    cfg.pop("defaults")
    cfg.update(
        settings,
        obs=kind,
        obs_shape={kind: list(shape)},
        action_dim=actions,
        multitask=False,
        task_dim=0,
        tasks=["one"],
        compile=False,
        bin_size=(cfg.vmax - cfg.vmin) / (cfg.num_bins - 1),
    )
    return TDMPC2(cfg_to_dataclass(cfg))


def weights(agent) -> dict[str, torch.Tensor]:
    """Every parameter and target, by the official names."""
    return {k: v.clone() for k, v in agent.model.state_dict().items() if isinstance(v, torch.Tensor)}


def main(case: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind, shape = ("rgb", (9, 64, 64)) if case == "pixels" else ("state", (10,))
    episodic = case.endswith("episodic")
    agent = make(kind, shape, ACTIONS, episode_length=200, episodic=episodic, dropout=0.2, **SMALL[kind])
    horizon = agent.cfg.horizon
    with torch.no_grad():
        for p in (agent.model._reward[-1].weight, agent.model._Qs.params["2", "weight"]):
            p.normal_(0, 0.2)
        for p in agent.model._encoder.parameters():
            if p.dim() == 4:
                p.mul_(3)
        agent.model._target_Qs_params["2", "weight"].normal_(0, 0.2)
    size = (horizon + 1, BATCH, *shape)
    obs = torch.randint(0, 256, size, dtype=torch.uint8) if kind == "rgb" else torch.randn(size)
    action, reward = torch.rand(horizon, BATCH, ACTIONS) * 2 - 1, torch.randn(horizon, BATCH, 1)
    terminal = (torch.rand(horizon, BATCH, 1) < 0.3).float() * agent.cfg.episodic
    stored = {"obs": obs, "action": action, "reward": reward, "terminal": terminal, "weights": weights(agent)}

    plans, before = [], stored["weights"]
    for t0, eval_mode in ((True, True), (False, False)):
        recorder = Recorder()
        chosen = agent.act(obs[0, 0], t0=t0, eval_mode=eval_mode)
        plans.append(
            {
                "draws": recorder.stop(),
                "action": chosen,
                "mean": agent._prev_mean.clone(),
                "eval_mode": eval_mode,
                "t0": t0,
            }
        )
    assert all(torch.equal(v, before[k]) for k, v in weights(agent).items()), "planning changed a weight"

    seen: dict[str, object] = {}
    td_target = agent._td_target

    def keep_target(*args):
        seen["td_target"] = td_target(*args)
        return seen["td_target"]

    clip = torch.nn.utils.clip_grad_norm_
    gradients: list[dict[str, torch.Tensor]] = []

    def keep_gradients(parameters, *args):
        named = {k: p.grad.clone() for k, p in agent.model.named_parameters() if p.grad is not None}
        gradients.append(named)
        return clip(parameters, *args)

    agent._td_target = keep_target
    torch.nn.utils.clip_grad_norm_ = keep_gradients
    recorder = Recorder()
    metrics = agent._update(obs, action, reward, terminal)
    stored["draws"] = recorder.stop()
    stored.update(
        plans=plans,
        metrics=metrics,
        td_target=seen["td_target"],
        gradients={k: v for found in gradients for k, v in found.items()},
        after=weights(agent),
        scale=agent.scale.value.clone(),
        config={k: getattr(agent.cfg, k) for k in ("latent_dim", "mlp_dim", "enc_dim", "dropout", "episodic", "num_q")},
    )
    torch.save(stored, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
