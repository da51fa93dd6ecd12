"""Replay memory: a ring of past transitions in preallocated tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Replay", "Transitions", "fit_steps"]


class Transitions(NamedTuple):
    """A batch of transitions, with the clips as the first axis.

    Attributes:
        state: ``[b, m, n, d]``.
        actions: ``[b, m, n]``.
        reward: ``[b]``.
        next_state: ``[b, m, n, d]``; zero where there is none.
        step_mask: bool ``[b, m, n]``, of the state.
        next_mask: bool ``[b, m, n]``, of the next state.
        discount: Factor of the next state's value, 0 at the end of an episode, ``[b]``.
    """

    state: Tensor
    actions: Tensor
    reward: Tensor
    next_state: Tensor
    step_mask: Tensor
    next_mask: Tensor
    discount: Tensor


class Replay:
    """Memory of the newest ``capacity`` transitions; the oldest are overwritten."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.filled = 0
        self.next = 0
        self.store: Transitions | None = None

    def __len__(self) -> int:
        return self.filled

    def add(self, new: Transitions) -> None:
        """Store transitions; sequences longer than any before make the ring wider."""
        steps = new.state.shape[2]
        # Shapes are known from the first transitions on.
        if self.store is None:
            self.store = Transitions(*(x.new_zeros(self.capacity, *x.shape[1:]) for x in new))
        elif steps > self.store.state.shape[2]:
            self.store = fit_steps(self.store, steps)
        new = fit_steps(new, self.store.state.shape[2])
        # Write where the last transitions ended, over the end of the ring to its start.
        kept = min(len(new.reward), self.capacity)
        index = (self.next + torch.arange(kept)) % self.capacity
        for ring, values in zip(self.store, new, strict=True):
            ring[index] = values[-kept:]
        self.next = (self.next + kept) % self.capacity
        self.filled = min(self.filled + kept, self.capacity)

    def sample(self, count: int) -> Transitions:
        """Draw transitions at random, with repetition."""
        assert self.store is not None
        index = torch.randint(self.filled, (count,)).to(self.store.reward.device)
        return Transitions(*(ring.index_select(0, index) for ring in self.store))

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on."""
        store = None if self.store is None else list(self.store)
        return {"filled": self.filled, "next": self.next, "store": store}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from a result of :meth:`state_dict`, on the device of the training."""
        self.filled, self.next, store = state["filled"], state["next"], state["store"]
        self.store = store and Transitions(*(ring.to(device) for ring in store))


def fit_steps(transitions: Transitions, steps: int) -> Transitions:
    """Pad transitions with masked steps to the length ``steps``."""

    def widen(x: Tensor) -> Tensor:
        # Rewards and discounts have no axis of steps.
        if x.ndim < 3 or x.shape[2] == steps:
            return x
        shape = list(x.shape)
        shape[2] = steps
        wide = x.new_zeros(shape)
        wide[:, :, : x.shape[2]] = x
        return wide

    return Transitions(*(widen(x) for x in transitions))
