"""What a TD-MPC2 update gains where frames that stacks share go through a learning tail once: python benchmarks/tail.py

The last block of a ViT-S/16 on frames of 64 pixels learns, with the demo's agent: stacks of 3 in sequences of 4. The
update with sharing and the one without take turns; the share is taken within each turn.
"""

from functools import partial

import torch
from torch import Tensor

from mbrl_pvr.build import EnvFacts, build_agent, build_features, setup_process
from mbrl_pvr.config import load_config
from pvr_zoo.profile import against
from world_models.tdmpc2.agent import TDMPC2
from world_models.types import Batch, Obs

FACTS = EnvFacts(action_dim=2, discrete=False, proprio_dim=0, episode_length=500)


def make(trainable: int) -> tuple[TDMPC2, Batch]:
    """An agent with a tail of so many blocks, and a batch of noise whose stacks overlap as replay's do."""
    encoder = ["encoder=random_vits16", "encoder.input_size=64", f"encoder.trainable={trainable}"]
    config = load_config(["agent=tdmpc2_tiny", "agent.batch_size=64", *encoder])
    features = build_features(config, FACTS, torch.device("cpu"))
    agent = build_agent(config, features, FACTS, torch.device("cpu"), compiled=False, precision="float32")
    assert isinstance(agent, TDMPC2) and features.shapes.feature is not None
    spec, generator = agent.sequence, torch.Generator().manual_seed(0)
    lead = (spec.batch, spec.length)
    frames = torch.randn(spec.batch, spec.length + spec.stack - 1, *features.shapes.feature, generator=generator)
    feature = frames.half().unfold(1, spec.stack, 1).movedim(-1, 2)  # (B, T, S, P, F)
    no = torch.zeros(lead, dtype=torch.bool)
    reward = torch.rand(lead, generator=generator)
    return agent, Batch(Obs(no, feature), torch.rand(*lead, 2, generator=generator), reward, no, no)


def main() -> None:
    """Print a row for each depth of the tail."""
    setup_process(1)
    print("| blocks that learn | an update | of the time without sharing |\n|---|---|---|")
    for trainable in (1, 4):
        agent, batch = make(trainable)
        encoder = agent.model.encoder
        through = encoder._through_tail

        def update(share: bool, agent: TDMPC2 = agent, batch: Batch = batch, through=through) -> Tensor:  # type: ignore[no-untyped-def]
            agent.model.encoder._through_tail = lambda parts, shared: through(parts, shared=shared and share)
            return agent.update(batch)["grad_norm"]

        seconds, faster = against(partial(update, True), partial(update, False))
        print(f"| {trainable} of 12 | {seconds:.2f} s | {1 / faster:.0%} |", flush=True)


if __name__ == "__main__":
    main()
