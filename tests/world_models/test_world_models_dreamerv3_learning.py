"""DreamerV3 solves two tasks from random experience: a corridor of ten states, and one that asks for memory."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.dreamerv3.agent import DreamerV3
from world_models.dreamerv3.config import DreamerV3Config
from world_models.types import ActionSpec, Batch, Obs, ObsShapes

TINY = {"deter": 128, "hidden": 32, "units": 32, "latents": 4, "classes": 4, "blocks": 2, "batch_size": 16}
TINY |= {"discount_horizon": 10.0, "warmup": 20, "lr": 3e-3, "slow_rate": 0.05, "return_rate": 0.05, "entropy": 3e-3}

STATES, STEPS = 10, 20


def walk(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """The next state and its reward: one state to the side the action points to, reward 1 in the last state."""
    moved = (state + torch.where(action[..., 0] > 0, 1, -1)).clamp(0, STATES - 1)
    return moved, (moved == STATES - 1).float()


def unknown(batch: int, length: int) -> Tensor:
    """Kept states of zero; the study's revision keeps none and does not look."""
    return torch.zeros(batch, length + 1, DreamerV3Config(**TINY).carried, dtype=torch.float16)


def corridor_batch(batch: int, length: int, g: torch.Generator) -> Batch:
    """Random actions from random states; no episode ends."""
    action = torch.rand(batch, length, 1, generator=g) * 2 - 1
    states, rewards = [torch.randint(0, STATES, (batch,), generator=g)], [torch.zeros(batch)]
    for t in range(1, length):
        state, reward = walk(states[-1], action[:, t])
        states.append(state)
        rewards.append(reward)
    nothing = torch.zeros(batch, length, dtype=torch.bool)
    obs = Obs(nothing, proprio=F.one_hot(torch.stack(states, 1), STATES).float())
    return Batch(obs, action, torch.stack(rewards, 1), nothing, nothing, unknown(batch, length))


def corridor_score(agent: DreamerV3) -> float:
    """What the agent collects from state 0; the best walk needs 9 steps and then earns 1 a step."""
    state, carry, total = torch.zeros(1, dtype=torch.long), agent.initial(1, 0), 0.0
    for step in range(STEPS):
        look = F.one_hot(state, STATES).float()
        action, carry = agent.act(carry, Obs(torch.tensor([step == 0]), proprio=look), explore=False)
        state, reward = walk(state, action)
        total += float(reward)
    return total


@pytest.mark.parametrize("revision", ["published", "study"])
def test_solves_a_corridor_of_ten_states(revision, study):
    """The study's without exploration, which changes nothing for the actor that is looked at."""
    settings = TINY | {"batch_length": 8, "imagination": 10}
    if revision == "study":
        settings |= study.settings | {"layers": 2, "behaviour_lr": 3e-3, "exploration": 0.0}
    seed = {"published": 1, "study": 0}[revision]  # others walk right from birth
    agent = DreamerV3(ObsShapes(proprio=STATES), ActionSpec(1), DreamerV3Config(**settings), seed=seed)
    assert corridor_score(agent) < 3, "the task is solved without learning"
    g = torch.Generator().manual_seed(0)
    for _ in range(120):
        agent.update(corridor_batch(16, 8, g))
    assert corridor_score(agent) >= STEPS - (STATES - 1), "the agent does not walk straight to the reward"


CHOICES, LOUD = 3, 3.0


def looks(answer: Tensor, questions: int) -> Tensor:
    """Observations (N, questions + 1, CHOICES): the answer, then nothing."""
    return F.pad(LOUD * F.one_hot(answer, CHOICES).unsqueeze(1), (0, 0, 0, questions)).float()


def memory_batch(batch: int, episodes: int, questions: int, g: torch.Generator) -> Batch:
    """Whole episodes, one after the other: the answer is shown once, and each choice that equals it earns 1."""
    answer = torch.randint(0, CHOICES, (batch * episodes,), generator=g)
    choice = torch.randint(0, CHOICES, (batch * episodes, questions + 1), generator=g)
    later = torch.arange(questions + 1) > 0
    parts = {
        "proprio": looks(answer, questions),
        "action": F.one_hot(choice, CHOICES) * later.unsqueeze(-1).float(),
        "reward": (choice == answer.unsqueeze(1)).float() * later,
        "first": ~later.expand_as(choice),
        "ends": (torch.arange(questions + 1) == questions).expand_as(choice),
    }
    x = {k: v.unflatten(0, (batch, episodes)).flatten(1, 2) for k, v in parts.items()}
    states = unknown(*x["reward"].shape)
    return Batch(Obs(x["first"], proprio=x["proprio"]), x["action"], x["reward"], x["ends"], x["ends"], states)


def memory_score(agent: DreamerV3, questions: int) -> float:
    """The share of right choices at the last question, over 20 episodes of each answer."""
    answer = torch.arange(CHOICES).repeat(20)
    carry, shown = agent.initial(len(answer), 0), looks(answer, questions)
    for t in range(questions):
        is_first = torch.full((len(answer),), t == 0)
        action, carry = agent.act(carry, Obs(is_first, proprio=shown[:, t]), explore=False)
    return float((action.argmax(-1) == answer).float().mean())


@pytest.mark.parametrize(("questions", "updates"), [(3, 450), pytest.param(6, 900, marks=pytest.mark.slow)])
def test_remembers_an_answer_that_was_shown_once(questions, updates):
    """Without the value loss on replayed steps, whose gradients are as large as the reward's in so small a state."""
    config = DreamerV3Config(**TINY, batch_length=2 * (questions + 1), imagination=3, replay_value=0.0)
    agent = DreamerV3(ObsShapes(proprio=CHOICES), ActionSpec(CHOICES, discrete=True), config, seed=0)
    assert memory_score(agent, questions) < 0.7, "the task is solved without learning"
    g = torch.Generator().manual_seed(0)
    for _ in range(updates):
        agent.update(memory_batch(16, 2, questions, g))
    assert memory_score(agent, questions) > 0.9, "the agent does not know the answer when it is asked"
