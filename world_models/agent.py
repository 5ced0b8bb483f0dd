"""The contract that every world-model agent keeps; collection, training, recording and studies know only this."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from world_models.types import Batch, Obs, SequenceSpec

Carry = TypeVar("Carry")


class Agent(Protocol, Generic[Carry]):
    """State goes in and comes out; an agent has no hidden recurrent fields.

    All noise of `act` is a function of the carry, all noise of `update` of the agent's seed and the number of updates
    so far: evaluation cannot disturb training, and a resumed agent needs no generator state.
    """

    sequence: SequenceSpec  # what `update` wants from replay
    classes: int  # of each latent, whose logits `report` gives; 0 where latents are plain numbers

    def initial(self, n: int, seed: int) -> Carry:
        """The carry of `n` environments before their first observation; `seed` fixes all noise of acting."""
        ...

    def act(self, carry: Carry, obs: Obs, explore: bool) -> tuple[Tensor, Carry]:
        """Actions (N, A) in [-1, 1] and the next carry. Rows with `obs.is_first` start anew."""
        ...

    def kept(self, carry: Carry) -> Tensor | None:
        """What replay keeps of a carry beside the observation that led to it: (N, `sequence.carried`) float16."""
        ...

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step on every loss; returns scalars to log (tensors, so that nothing waits for the device).

        States that the batch carried are overwritten, after the first, with those that this update went through.
        """
        ...

    def report(self, batch: Batch, context: int, starts: Sequence[int] = (), horizon: int = 0) -> dict[str, Tensor]:
        """Predictions on recorded sequences (B, T), the first `context` observations given, the rest open loop.

        posterior, open_loop: (B, T, L), equal before `context`, logits where latents are categorical; reward_pred,
        reward_open_loop: (B, T), predictions for the reward that arrives with obs[t], NaN at t = 0; value: (B, T).
        With `starts`, P numbers in 1..T - 1, also `horizon` = K steps open loop from each, the first s observations
        given: open_loop_from (B, P, K, L) and reward_open_loop_from (B, P, K), whose entry k belongs to step s + k, or
        to nothing where that is beyond the end.
        """
        ...

    def pictures(self, report: dict[str, Tensor]) -> Tensor | None:
        """What the open loop of a `report` looks like, (B, T, height, width, 3) uint8; None for agents that draw none.

        Before `context` these are reconstructions.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Weights, targets, optimiser moments and counters as one flat dictionary of plain tensors."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave; strict. Continuing is bitwise equal to never having stopped (CPU)."""
        ...


def check_report(steps: int, context: int, starts: Sequence[int], horizon: int) -> None:
    """ValueError where `report` cannot predict from there on sequences of so many steps."""
    if not 1 <= context <= steps:
        raise ValueError(f"context={context} must lie in 1..{steps}, the sequence length")
    if starts and not (min(starts) >= 1 and max(starts) < steps and horizon >= 1):
        raise ValueError(f"starts={list(starts)} must lie in 1..{steps - 1} and horizon={horizon} be at least 1")
