"""The contract that every world-model agent keeps; collection, training, recording and studies know only this."""

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

    def report(self, batch: Batch, context: int) -> dict[str, Tensor]:
        """Predictions on recorded sequences (B, T), the first `context` observations given, the rest open loop.

        posterior, open_loop: (B, T, L), equal before `context`, logits where latents are categorical; reward_pred,
        reward_open_loop: (B, T), predictions for the reward that arrives with obs[t], NaN at t = 0; value: (B, T).
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
