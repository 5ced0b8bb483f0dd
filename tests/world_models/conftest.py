"""Small agents and batches for the tests of world models."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from world_models.dreamerv3.agent import DreamerV3
from world_models.dreamerv3.config import DreamerV3Config
from world_models.tdmpc2 import TDMPC2Config
from world_models.tdmpc2.agent import TDMPC2
from world_models.types import ActionSpec, Batch, Obs, ObsShapes, Tail

SMALL = {
    "size": 1,
    "latent_dim": 16,
    "mlp_dim": 24,
    "enc_dim": 16,
    "num_channels": 4,
    "num_q": 3,
    "batch_size": 4,
    "num_samples": 16,
    "num_elites": 4,
    "num_pi_trajs": 4,
    "iterations": 2,
}


@dataclass(frozen=True)
class Maker:
    """Makes small agents, batches and observations of given shapes."""

    shapes: ObsShapes = field(default_factory=lambda: ObsShapes(feature=(6,)))
    actions: int = 2

    def agent(self, seed: int = 0, compile: bool = False, precision: str = "float32", **settings) -> TDMPC2:
        config = TDMPC2Config(**{**SMALL, **settings})
        how = {"compile": compile, "precision": precision}
        agent = TDMPC2(self.shapes, ActionSpec(self.actions), config, episode_length=100, seed=seed, **how)
        g = torch.Generator().manual_seed(seed)  # reward and Q start at zero: fill them, so that plans mean something
        with torch.no_grad():
            for head in (agent.model.reward_head, *agent.model.q, *agent.model.target_q):
                head.last.weight.normal_(0, 0.3, generator=g)
        return agent

    def obs(self, *lead: int, seed: int = 0, first: bool = False, stack: int = 3) -> Obs:
        g = torch.Generator().manual_seed(seed)
        s = self.shapes
        return Obs(
            torch.full(lead, first),
            None if s.feature is None else torch.randn(*lead, stack, *s.feature, generator=g).half(),
            None
            if s.pixels is None
            else torch.randint(0, 256, (*lead, stack, *s.pixels), dtype=torch.uint8, generator=g),
            None if s.proprio is None else torch.randn(*lead, s.proprio, generator=g),
        )

    def batch(self, b: int = 4, t: int = 4, seed: int = 0) -> Batch:
        g = torch.Generator().manual_seed(seed)
        action = torch.rand(b, t, self.actions, generator=g) * 2 - 1
        reward, ended = torch.randn(b, t, generator=g), torch.rand(b, t, generator=g) < 0.2
        return Batch(self.obs(b, t, seed=seed), action, reward, ended, ended)


SHAPES = {
    "feature": ObsShapes(feature=(6,)),
    "patches": ObsShapes(feature=(4, 3)),
    "pixels": ObsShapes(pixels=(64, 64, 3)),
    "proprio": ObsShapes(proprio=5),
    "feature+proprio": ObsShapes(feature=(6,), proprio=5),
    "pixels+proprio": ObsShapes(pixels=(64, 64, 3), proprio=5),
    "all": ObsShapes(feature=(6,), pixels=(64, 64, 3), proprio=5),
}


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture(params=SHAPES)
def make_any(request) -> Maker:
    """One maker for each kind of observation."""
    return Maker(SHAPES[request.param])


DREAM_BATCH, DREAM_LENGTH = 4, 5
DREAM_SMALL = {"deter": 32, "hidden": 16, "classes": 4, "depth": 2, "units": 16, "latents": 4, "bins": 41}
DREAM_SMALL |= {"batch_size": DREAM_BATCH, "batch_length": DREAM_LENGTH, "imagination": 3, "lr": 1e-3, "warmup": 0}
DREAM_SMALL |= {"target_size": 32}
DREAM_SHAPES = {
    "feature": ObsShapes(feature=(6,)),
    "patches": ObsShapes(feature=(4, 3)),
    "pixels": ObsShapes(pixels=(32, 32, 3)),
    "proprio": ObsShapes(proprio=5),
    "all": ObsShapes(feature=(6,), pixels=(32, 32, 3), proprio=5),
    "drawn": ObsShapes(feature=(6,), pixels=(32, 32, 3), drawn_only=True),
}


STUDY = {"sequence": "dense", "initial": "learned", "norm": "layer", "convolutions": "strided", "two_hot": "symlog"}
STUDY |= {"context": "zero", "actor_gradient": "dynamics", "ends": "likeliest", "optimizer": "adam"}
STUDY |= {"replay_value": 0.0, "exploration": 1.0, "disagreement_heads": 3, "behaviour_lr": 1e-3, "prior_layers": 1}


@dataclass(frozen=True)
class Dreams:
    """Makes small DreamerV3 agents, and batches and observations for them."""

    shapes: ObsShapes = field(default_factory=lambda: DREAM_SHAPES["feature"])
    actions: ActionSpec = field(default_factory=lambda: ActionSpec(2))
    settings: dict = field(default_factory=dict)

    def agent(
        self,
        seed: int = 0,
        tail: Tail | None = None,
        compile: bool = False,
        precision: str = "float32",
        **settings,
    ) -> DreamerV3:
        config = DreamerV3Config(**{**DREAM_SMALL, **self.settings, **settings})
        how = {"tail": tail, "compile": compile, "precision": precision}
        agent = DreamerV3(self.shapes, self.actions, config, seed=seed, **how)
        g = torch.Generator().manual_seed(seed)  # reward and value start at zero: fill them, so that they say something
        with torch.no_grad():
            critic, *others = ((c.head, c.slow) for c in agent.critics)
            for head in (agent.model.reward, *critic, agent.actor.net, *(head for c in others for head in c)):
                head.out.weight.normal_(0, 0.3, generator=g)
                if len(head.out.bias) == agent.config.bins:  # small numbers are the likely ones
                    head.out.bias.copy_(-torch.linspace(-20, 20, agent.config.bins).abs())
        return agent

    def obs(self, *lead: int, seed: int = 0, first: bool = False) -> Obs:
        return Maker(self.shapes).obs(*lead, seed=seed, first=first, stack=1)

    def batch(self, b: int = DREAM_BATCH, t: int = DREAM_LENGTH, seed: int = 0) -> Batch:
        """Sequences in which some episodes end and others begin."""
        g = torch.Generator().manual_seed(seed)
        action = torch.rand(b, t, self.actions.dim, generator=g) * 2 - 1
        if self.actions.discrete:
            action = torch.nn.functional.one_hot(action.argmax(-1), self.actions.dim).float()
        last = torch.rand(b, t, generator=g) < 0.2
        first = torch.cat([torch.zeros(b, 1, dtype=torch.bool), last[:, :-1]], 1)
        terminal = last & (torch.rand(b, t, generator=g) < 0.5)
        obs = replace(self.obs(b, t, seed=seed), is_first=first)
        return Batch(obs, action, torch.randn(b, t, generator=g) * ~first, last, terminal, self.states(b, t))

    def states(self, b: int, t: int) -> Tensor | None:
        """Kept states of zero."""
        width = DreamerV3Config(**{**DREAM_SMALL, **self.settings}).carried
        return torch.zeros(b, t + 1, width, dtype=torch.float16) if width else None


@pytest.fixture
def dream() -> Dreams:
    return Dreams()


@pytest.fixture
def study() -> Dreams:
    """The code of 2023 with Plan2Explore, as in the study."""
    return Dreams(settings=STUDY)


@pytest.fixture(params=[*DREAM_SHAPES, "choices", "study", "study pixels", "study choices", "study summed"])
def dream_any(request) -> Dreams:
    """One maker for each kind of observation, one for discrete actions, and the same of the study."""
    kind = request.param.removeprefix("study").strip()
    settings = STUDY if request.param.startswith("study") else {}
    if kind == "summed":
        settings = settings | {"exploration_critics": "summed"}
    action = ActionSpec(3, discrete=True) if kind == "choices" else ActionSpec(2)
    return Dreams(DREAM_SHAPES.get(kind, DREAM_SHAPES["feature"]), action, settings)
