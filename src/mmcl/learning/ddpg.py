"""Learner of a soft policy that is taught by a joint critic, as in DDPG."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmcl.config import Config
from mmcl.corpus.batches import Batch
from mmcl.learning.learner import Losses, PolicyLearner, StepReport, Trainee, make_optimizer
from mmcl.learning.replay import Replay, Transitions, fit_steps
from mmcl.models.critic import Critic
from mmcl.models.mmcl import MMCL

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["DdpgLearner", "soft_update"]


class DdpgLearner(PolicyLearner):
    """Learner of MMCL with a joint critic that teaches the policies.

    Order of a step, as released: task loss; critic towards ``r + discount * Q'(s', pi'(s'))``;
    policy towards higher ``Q(s, pi(s))``; target networks towards the online ones. With several
    processes, each remembers the clips of its own share.

    Source:
        docs/method.md, critic and learning. Target networks start as copies, stay in
        evaluation mode and copy the buffers (mends fault F6). ``critic = "carried"`` keeps the
        released transition from each batch to the next (faults F5 and F11). It is stored when
        the next batch is seen.
    """

    def __init__(self, model: MMCL, config: Config, fabric: Fabric) -> None:
        super().__init__(model, config, fabric)
        policy = config.policy
        self.critic = Critic(
            len(model.modalities), config.model.width, config.model.heads, model.inner_width
        )
        trainee = Trainee(self.critic)
        optimizer = make_optimizer(
            trainee, policy.critic_learning_rate, config.learning.weight_decay
        )
        self.critic_trainee, self.critic_optimizer = fabric.setup(trainee, optimizer)
        self.target_critic = _frozen_copy(self.critic)
        self.target_policy = _frozen_copy(model.policy)
        self.replay = Replay(policy.replay_capacity)
        # Transitions that wait for the next batch as their next state, and their final actions.
        self._carried: tuple[Transitions, Tensor] | None = None

    def start_epoch(self, epoch: int) -> None:
        """Forget the batch before: every epoch starts on the raw state."""
        super().start_epoch(epoch)
        self._carried = None

    def step(self, batch: Batch) -> StepReport:
        """Learn from one batch."""
        # Task loss, under the actions of the batch before if these are carried over.
        actions = None
        if self._carried is not None:
            actions = _fit_actions(self._carried[1], batch, self.model)
        losses = self.losses(batch, actions)
        self.descend(losses.loss, self.trainee, self.optimizer)
        # Memory: store what happened, and draw as many past transitions as there are clips.
        self._remember(losses)
        if not len(self.replay):
            return losses.report()
        past = self.replay.sample(len(batch.rows))
        critic_loss = self._improve_critic(past)
        self._improve_policy(past)
        # Target networks follow slowly.
        rate = self.config.policy.target_rate
        soft_update(self.target_critic, self.critic, rate)
        soft_update(self.target_policy, self.model.policy, rate)
        return losses.report(critic_loss)

    def _remember(self, losses: Losses) -> None:
        """Put the transitions of a batch into the replay memory, clips first."""
        carries = self.config.policy.critic == "carried"
        decision = losses.output.decision
        mask = losses.output.encoded.step_mask.transpose(0, 1)  # [b, m, n]
        moves = [
            (state.detach().transpose(0, 1), choice.detach().transpose(0, 1))
            for state, choice in decision.moves
        ]
        reward = losses.reward
        if self._carried is not None:
            self._store_carried(self._carried[0], moves[0][0], mask)
        for k, (state, choice) in enumerate(moves):
            is_last = k == len(moves) - 1
            # A clip is one episode: its last decision is terminal and alone is rewarded.
            discount = 0.0 if is_last and not carries else self.config.policy.discount
            transition = Transitions(
                state,
                choice,
                reward if is_last else torch.zeros_like(reward),
                torch.zeros_like(state) if is_last else moves[k + 1][0],
                mask,
                mask,
                torch.full_like(reward, discount),
            )
            if is_last and carries:  # as released, the next batch becomes the next state
                self._carried = (transition, decision.actions.detach())
            else:
                self.replay.add(transition)

    def _store_carried(self, last: Transitions, state: Tensor, mask: Tensor) -> None:
        """Link clip i of the batch before to the unrelated clip i of this one: fault F5."""
        if len(last.reward) != len(state):  # a smaller last batch: the clips do not pair up
            return
        steps = max(state.shape[2], last.state.shape[2])
        self.replay.add(fit_steps(last._replace(next_state=state, next_mask=mask), steps))

    def _improve_critic(self, past: Transitions) -> float:
        """Move the critic towards ``r + discount * Q'(s', pi'(s'))``; return its loss."""
        target = self._target_values(past)

        def forward(critic: Critic) -> Tensor:
            # w2 * mean |Q(s, a) - target|
            errors: Tensor = (critic(*_state_actions_mask(past)) - target).abs()
            return self.config.policy.weight * errors.mean()

        loss: Tensor = self.critic_trainee(forward)
        self.descend(loss, self.critic_trainee, self.critic_optimizer)
        return loss.item()

    @torch.no_grad()
    def _target_values(self, past: Transitions) -> Tensor:
        """Return ``r + discount * Q'(s', pi'(s'))``, ``[b]``."""
        next_state, next_mask = past.next_state.transpose(0, 1), past.next_mask.transpose(0, 1)
        actions = self.target_policy.keep_logits(next_state).sigmoid() * next_mask
        value: Tensor = self.target_critic(next_state, actions, next_mask)
        return past.reward + past.discount * value

    def _improve_policy(self, past: Transitions) -> None:
        """Move the policy towards actions that the critic values more: lower ``-Q(s, pi(s))``."""

        def forward(model: MMCL) -> Tensor:
            state, _, mask = _state_actions_mask(past)
            actions = model.policy.keep_logits(state).sigmoid() * mask
            values: Tensor = self.critic(state, actions, mask)
            return -self.config.policy.weight * values.mean()

        # Gradients pass through the critic to the policy; the critic itself must not learn here.
        self.critic.requires_grad_(False)
        self.descend(self.trainee(forward), self.trainee, self.optimizer)
        self.critic.requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, besides the random state."""
        return super().state_dict() | {
            "critic": self.critic.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "target_critic": self.target_critic.state_dict(),
            "target_policy": self.target_policy.state_dict(),
            "replay": self.replay.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a result of :meth:`state_dict`."""
        super().load_state_dict(state)
        self.critic.load_state_dict(state["critic"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.target_critic.load_state_dict(state["target_critic"])
        self.target_policy.load_state_dict(state["target_policy"])
        self.replay.load_state_dict(state["replay"], self.fabric.device)


def soft_update(target: nn.Module, online: nn.Module, rate: float) -> None:
    """Move a target network towards the online one: parameters by ``rate``, buffers entirely."""
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
            slow.lerp_(fast, rate)
        for old, new in zip(target.buffers(), online.buffers(), strict=True):
            old.copy_(new)


def _frozen_copy(module: Any) -> Any:
    """Return a copy in evaluation mode that is never trained."""
    return copy.deepcopy(module).eval().requires_grad_(False)


def _state_actions_mask(past: Transitions) -> tuple[Tensor, Tensor, Tensor]:
    """Return the inputs of the critic, modalities first."""
    return (
        past.state.transpose(0, 1).contiguous(),
        past.actions.transpose(0, 1),
        past.step_mask.transpose(0, 1),
    )


def _fit_actions(actions: Tensor, batch: Batch, model: MMCL) -> Tensor | None:
    """Cut or pad carried actions to the length of a batch; None if the clips do not pair up."""
    clips = len(batch.rows)
    if actions.shape[1] != clips:
        return None
    steps = max(x.shape[1] for x in batch.features.values())
    if model.released and not model.aligned:  # the network changes the length
        steps = model.settings.steps
    # Steps beyond those of the batch before are kept.
    fitted = actions.new_ones(len(model.modalities), clips, steps)
    shared = min(steps, actions.shape[2])
    fitted[:, :, :shared] = actions[:, :, :shared]
    return fitted
