"""TD-MPC2 solves a task of ten states from random experience: a corridor with the reward at its right end."""

import torch

from world_models.tdmpc2 import TDMPC2Config
from world_models.tdmpc2.agent import TDMPC2
from world_models.types import ActionSpec, Batch, Obs, ObsShapes

STATES, HORIZON, BATCH = 10, 3, 64
STEPS = 20


def walk(state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The next state and its reward: one state to the side the action points to, reward 1 in the last state."""
    moved = (state + torch.where(action[..., 0] > 0, 1, -1)).clamp(0, STATES - 1)
    return moved, (moved == STATES - 1).float()


def look(state: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(state, STATES).float()


def random_batch(g: torch.Generator) -> Batch:
    """Sequences of random actions from random states."""
    action = torch.rand(BATCH, HORIZON + 1, 1, generator=g) * 2 - 1
    states = [torch.randint(0, STATES, (BATCH,), generator=g)]
    rewards = [torch.zeros(BATCH)]
    for t in range(1, HORIZON + 1):
        state, reward = walk(states[-1], action[:, t])
        states.append(state)
        rewards.append(reward)
    nothing = torch.zeros(BATCH, HORIZON + 1, dtype=torch.bool)
    obs = Obs(nothing, proprio=look(torch.stack(states, 1)))
    return Batch(obs, action, torch.stack(rewards, 1), nothing, nothing)


def total_reward(agent: TDMPC2) -> float:
    """What the agent collects from state 0; the best walk needs 9 steps and then earns 1 a step."""
    state, carry, total = torch.zeros(1, dtype=torch.long), agent.initial(1, 0), 0.0
    for step in range(STEPS):
        action, carry = agent.act(carry, Obs(torch.tensor([step == 0]), proprio=look(state)), explore=False)
        state, reward = walk(state, action)
        total += float(reward)
    return total


def test_solves_a_corridor_of_ten_states():
    config = TDMPC2Config(
        size=1,
        latent_dim=32,
        mlp_dim=48,
        enc_dim=32,
        batch_size=BATCH,
        num_samples=32,
        num_elites=8,
        num_pi_trajs=4,
        iterations=3,
        lr=1e-3,
        tau=0.05,
    )
    agent = TDMPC2(ObsShapes(proprio=STATES), ActionSpec(1), config, episode_length=STEPS, seed=0)
    assert total_reward(agent) < 3, "the task is solved without learning"
    g = torch.Generator().manual_seed(0)
    for _ in range(400):
        agent.update(random_batch(g))
    assert total_reward(agent) >= STEPS - (STATES - 1), "the agent does not walk straight to the reward"
