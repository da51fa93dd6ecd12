"""Replay: a ring of past transitions in preallocated tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Replay", "Transitions", "fit_steps"]


class Transitions(NamedTuple):
    """Transitions side by side, clips first.

    Attributes:
        state: ``[b, m, n, d]``.
        actions: ``[b, m, n]``.
        reward: ``[b]``.
        next_state: ``[b, m, n, d]``; zero where there is none.
        step_mask: bool ``[b, m, n]``, of the state.
        next_mask: bool ``[b, m, n]``, of the next state.
        discount: ``[b]``: what the next state's value is multiplied by, 0 at the end.
    """

    state: Tensor
    actions: Tensor
    reward: Tensor
    next_state: Tensor
    step_mask: Tensor
    next_mask: Tensor
    discount: Tensor


class Replay:
    """The newest ``capacity`` transitions; the oldest are overwritten.

    Args:
        capacity: Transitions kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.filled = 0
        self.next = 0
        self.store: Transitions | None = None

    def __len__(self) -> int:
        return self.filled

    def add(self, new: Transitions) -> None:
        """Put transitions in; longer sequences than any before make the ring grow."""
        steps = new.state.shape[2]
        if self.store is None:
            self.store = Transitions(*(x.new_zeros(self.capacity, *x.shape[1:]) for x in new))
        elif steps > self.store.state.shape[2]:
            self.store = fit_steps(self.store, steps)
        new = fit_steps(new, self.store.state.shape[2])
        kept = min(len(new.reward), self.capacity)
        at = (self.next + torch.arange(kept)) % self.capacity
        for ring, values in zip(self.store, new, strict=True):
            ring[at] = values[-kept:]
        self.next = (self.next + kept) % self.capacity
        self.filled = min(self.filled + kept, self.capacity)

    def sample(self, count: int) -> Transitions:
        """Draw transitions at random, with repetition."""
        assert self.store is not None
        at = torch.randint(self.filled, (count,)).to(self.store.reward.device)
        return Transitions(*(ring.index_select(0, at) for ring in self.store))

    def state_dict(self) -> dict[str, object]:
        """Everything needed to go on."""
        store = None if self.store is None else list(self.store)
        return {"filled": self.filled, "next": self.next, "store": store}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.filled, self.next = int(str(state["filled"])), int(str(state["next"]))
        store = state["store"]
        self.store = Transitions(*store) if isinstance(store, list) else None


def fit_steps(held: Transitions, steps: int) -> Transitions:
    """Pad with steps that are not real, up to ``steps``."""

    def widen(x: Tensor) -> Tensor:
        if x.ndim < 3 or x.shape[2] == steps:
            return x
        shape = list(x.shape)
        shape[2] = steps
        wide = x.new_zeros(shape)
        wide[:, :, : x.shape[2]] = x
        return wide

    return Transitions(*(widen(x) for x in held))
