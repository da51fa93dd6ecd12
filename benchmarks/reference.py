"""The authors' training loop as plain torch code writes it: what speed is measured against.

Written by us from the equations of docs/method.md, with the sizes of the authors' code: width
128, four heads, inner width 2048, one module per modality in a loop, three Adams, replay as a
deque of single transitions. Nothing in it is made fast, and nothing slow: torch's own layers do
the work, on torch's own threads, in a process of its own that nothing of ours prepares. One thing
favours it: it is given its batches as tensors that lie ready. It is mended only so that it runs:
faults F1, F2, F6 and F9 of docs/method.md.

    python benchmarks/reference.py      (sizes, and a few steps of each kind)
"""

from __future__ import annotations

import copy
import multiprocessing
import random
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, INNER, BATCH = 128, 4, 2048, 128
EMOTIONS, CLASSES = 4, 2
TASK_WEIGHT, POLICY_WEIGHT = 7.0, 13.0
DISCOUNT, TARGET_RATE, LEARNING_RATE = 0.5, 0.01, 3e-4
CAPACITY = 1000
DIMS = (300, 74, 35)
PARAMETERS = (251_648, 1_912_718, 1_975_725)
"""Parameters in projection and attention, in actor and predictor, and in the critic."""


def transformer_block(width: int) -> nn.Module:
    """The block of predictor and critic."""
    return nn.TransformerEncoderLayer(width, HEADS, INNER, dropout=0.0, batch_first=True)


class Attention(nn.Module):
    """Intra-modal attention of one modality: ``LayerNorm(ctx + Linear(ctx))``."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, n, d]`` in and out."""
        b, n, _ = x.shape
        q, k, v = (
            layer(x).view(b, n, HEADS, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2) / (WIDTH / HEADS) ** 0.5  # [b, H, n, n]
        context = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, WIDTH)
        enhanced: Tensor = self.norm(context + self.out(context))
        return enhanced


class Encoder(nn.Module):
    """Projection, decoupling by double softmax, attention on the common parts."""

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(dim, WIDTH) for dim in dims)
        self.attentions = nn.ModuleList(Attention() for _ in dims)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Enhanced common and specific parts, each ``[b, n, d]`` per modality."""
        z = [layer(x) for layer, x in zip(self.projections, features, strict=True)]
        unit = [F.normalize(x, dim=-1) for x in z]
        enhanced, specific = [], []
        for m, attention in enumerate(self.attentions):
            others = [unit[m] @ unit[k].transpose(1, 2) for k in range(len(z)) if k != m]
            weights = torch.min(*others).softmax(dim=-1)  # [b, n, n]
            enhanced.append(attention(weights @ z[m]))
            specific.append((1 - weights).softmax(dim=-1) @ z[m])
        return enhanced, specific


class Actor(nn.Module):
    """One scalar per step, one policy per modality."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.policies = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in range(count))

    def forward(self, state: list[Tensor]) -> list[Tensor]:
        """``[b, n, d]`` per modality in, ``[b, n, 1]`` out."""
        return [layer(x).sigmoid() for layer, x in zip(self.policies, state, strict=True)]


class Predictor(nn.Module):
    """Transformer blocks on what the actions keep, gated fusion, head."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(transformer_block(WIDTH) for _ in range(count))
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, 1)) for _ in range(count)
        )
        self.head = nn.Sequential(
            nn.Linear(2 * WIDTH, WIDTH),
            nn.Dropout(0.5),
            nn.ReLU(),
            nn.BatchNorm1d(WIDTH),
            nn.Linear(WIDTH, EMOTIONS * CLASSES),
        )

    def forward(self, enhanced: list[Tensor], kept: list[Tensor]) -> Tensor:
        """Logits, ``[b, e, 2]``."""
        gated = []
        for block, gate, c, s in zip(self.blocks, self.gates, enhanced, kept, strict=True):
            h = torch.cat([c.mean(dim=1), block(s).mean(dim=1)], dim=-1)
            gated.append(gate(h).sigmoid() * h)
        return self.head(sum(gated) / len(gated)).view(-1, EMOTIONS, CLASSES)


class Critic(nn.Module):
    """Joint value of the states and actions of all modalities."""

    def __init__(self, count: int) -> None:
        super().__init__()
        wide = WIDTH + HEADS
        self.blocks = nn.ModuleList(transformer_block(wide) for _ in range(count))
        self.head = nn.Sequential(
            nn.Linear(count * wide, 2 * WIDTH),
            nn.Linear(2 * WIDTH, WIDTH),
            nn.Dropout(0.5),
            nn.ReLU(),
            nn.BatchNorm1d(WIDTH),
            nn.Linear(WIDTH, 1),
        )

    def forward(self, state: list[Tensor], actions: list[Tensor]) -> Tensor:
        """``[b, 1]``."""
        pooled = []
        for block, s, a in zip(self.blocks, state, actions, strict=True):
            pooled.append(block(torch.cat([s, a.repeat(1, 1, HEADS)], dim=-1)).mean(dim=1))
        value: Tensor = self.head(torch.cat(pooled, dim=-1))
        return value


class Reference:
    """The loop over clips that lie in memory.

    Args:
        features: Of every modality, ``[clips, n, d_m]``.

    Raises:
        ValueError: If the networks are not of the size of the authors' (at their widths).
    """

    def __init__(self, features: Sequence[Tensor]) -> None:
        count = len(features)
        self.features = list(features)
        self.labels = torch.randint(CLASSES, (len(features[0]), EMOTIONS))
        self.encoder = Encoder([x.shape[-1] for x in features])
        self.actor, self.predictor, self.critic = Actor(count), Predictor(count), Critic(count)
        self.target_actor, self.target_critic = map(copy.deepcopy, (self.actor, self.critic))
        acting = [*self.actor.parameters(), *self.predictor.parameters()]
        self.encoder_optimizer = torch.optim.Adam(self.encoder.parameters(), lr=LEARNING_RATE)
        self.actor_optimizer = torch.optim.Adam(acting, lr=LEARNING_RATE)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=LEARNING_RATE)
        self.replay: deque[tuple[Tensor, Tensor, Tensor, Tensor]] = deque(maxlen=CAPACITY)
        self.before: tuple[list[Tensor], list[Tensor], Tensor] | None = None
        found = self.parameters()
        if tuple(x.shape[-1] for x in features) == DIMS and found != PARAMETERS:
            raise ValueError(f"the reference has {found} parameters, the authors' {PARAMETERS}")

    def parameters(self) -> tuple[int, ...]:
        """Parameters of what each of the three Adams teaches."""
        optimizers = (self.encoder_optimizer, self.actor_optimizer, self.critic_optimizer)
        return tuple(
            sum(p.numel() for group in each.param_groups for p in group["params"])
            for each in optimizers
        )

    def train_step(self) -> None:
        """One batch: the task, then the critic, then the actor, then the targets."""
        for module in (self.encoder, self.actor, self.predictor, self.critic):
            module.train()
        features, labels = self._batch(BATCH)
        enhanced, specific = self.encoder(features)
        state = specific
        if self.before is not None:  # the actions of the batch before, on these clips
            state = [a * s for a, s in zip(self.before[1], specific, strict=True)]
        actions = self.actor(state)
        logits = self.predictor(enhanced, [a * s for a, s in zip(actions, state, strict=True)])
        loss = TASK_WEIGHT * F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        self.encoder_optimizer.zero_grad()
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.encoder_optimizer.step()
        self.actor_optimizer.step()
        self._remember([s.detach() for s in state], [a.detach() for a in actions], logits, labels)
        if len(self.replay) >= BATCH:
            self._learn_from_replay()

    @torch.no_grad()
    def predict_step(self, clips: int = BATCH) -> Tensor:
        """One batch predicted."""
        for module in (self.encoder, self.actor, self.predictor):
            module.eval()
        features, _ = self._batch(clips)
        enhanced, specific = self.encoder(features)
        actions = self.actor(specific)
        kept = [a * s for a, s in zip(actions, specific, strict=True)]
        logits: Tensor = self.predictor(enhanced, kept)
        return logits.softmax(dim=-1)

    def _batch(self, clips: int) -> tuple[list[Tensor], Tensor]:
        rows = torch.randperm(len(self.labels))[:clips]
        return [x[rows] for x in self.features], self.labels[rows]

    def _remember(
        self, state: list[Tensor], actions: list[Tensor], logits: Tensor, labels: Tensor
    ) -> None:
        """Close the transitions of the batch before with this batch's states, clip by clip."""
        probability = logits.detach().softmax(dim=-1)
        reward = probability.gather(-1, labels.unsqueeze(-1)).squeeze(-1).sum(dim=-1)  # [b]
        if self.before is not None:
            columns = (*map(torch.stack, self.before[:2]), torch.stack(state))  # [m, b, n, ...]
            old, acted, new = (x.transpose(0, 1) for x in columns)
            self.replay.extend(zip(old, acted, self.before[2], new, strict=True))
        self.before = (state, actions, reward)

    def _learn_from_replay(self) -> None:
        columns = zip(*random.sample(self.replay, BATCH), strict=True)
        old, acted, reward, new = (torch.stack(column) for column in columns)
        state, actions, following = (list(x.unbind(dim=1)) for x in (old, acted, new))
        with torch.no_grad():
            value = self.target_critic(following, self.target_actor(following))
            target = reward.unsqueeze(-1) + DISCOUNT * value
        critic_loss = POLICY_WEIGHT * (self.critic(state, actions) - target).abs().mean()
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()
        actor_loss = -POLICY_WEIGHT * self.critic(state, self.actor(state)).mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        self.actor_optimizer.step()
        follow(self.target_actor, self.actor)
        follow(self.target_critic, self.critic)


class Apart:
    """The reference in a process of its own, which works only while it is asked to.

    Args:
        features: As for :class:`Reference`.
        threads: Threads of torch; its own choice by default.
    """

    def __init__(self, features: Sequence[Tensor], threads: int | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.ask, asked = context.Pipe()
        # Arrays: tensors would be shared through descriptors that the other end must fetch.
        arrays = [x.numpy() for x in features]
        self.process = context.Process(target=_answer, args=(arrays, threads, asked), daemon=True)
        self.process.start()

    def seconds(self, method: str, steps: int, *given: int) -> float:
        """Time some steps: of ``train_step``, or of ``predict_step`` of so many clips."""
        return self._times(method, steps, *given)[0]

    def cpu_seconds(self, method: str, steps: int, *given: int) -> float:
        """Measure the CPU time of some steps, as :meth:`seconds` does the time on the clock."""
        return self._times(method, steps, *given)[1]

    def _times(self, method: str, steps: int, *given: int) -> tuple[float, float]:
        self.ask.send((method, steps, given))
        times: tuple[float, float] = self.ask.recv()
        return times


def _answer(arrays: list[np.ndarray], threads: int | None, asked: Connection) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    reference = Reference([torch.from_numpy(x) for x in arrays])
    with suppress(EOFError):  # nobody asks any more
        while True:
            method, steps, given = asked.recv()
            step = getattr(reference, method)
            started = time.perf_counter(), time.process_time()
            for _ in range(steps):
                step(*given)
            asked.send((time.perf_counter() - started[0], time.process_time() - started[1]))


def follow(target: nn.Module, online: nn.Module) -> None:
    """Let a target network follow slowly, parameter by parameter."""
    for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
        slow.data.copy_(TARGET_RATE * fast.data + (1 - TARGET_RATE) * slow.data)


def main() -> None:
    """Sizes, and clips per second of a few steps on random features."""
    reference = Reference([torch.randn(512, 20, dim) for dim in DIMS])
    print("parameters:", *reference.parameters())
    for name, step in (("train", reference.train_step), ("predict", reference.predict_step)):
        for _ in range(3):
            step()
        started, done = time.perf_counter(), 0
        while (seconds := time.perf_counter() - started) < 3:
            step()
            done += 1
        print(f"{name}: {BATCH * done / seconds:.0f} clips/s")


if __name__ == "__main__":
    main()
