"""Learners: what one training step does, with a soft gate, with RLOO, with DDPG, with none."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mmcl.config import Config, PolicySettings
from mmcl.corpus.batches import Batch
from mmcl.errors import ConfigError
from mmcl.learning.objectives import (
    alignment_loss,
    as_released_reward,
    item_losses,
    leave_one_out_advantage,
    prediction_reward,
)
from mmcl.learning.replay import Replay, Transitions, fit_steps
from mmcl.models.critic import Critic
from mmcl.models.mmcl import MMCL, Encoded, Output
from mmcl.models.network import Network

if TYPE_CHECKING:  # who only predicts needs none, and it takes a second to import
    from lightning_fabric import Fabric

__all__ = [
    "BaselineLearner",
    "DdpgLearner",
    "Learner",
    "StepReport",
    "make_learner",
    "soft_update",
]


class StepReport(NamedTuple):
    """Means over the clips of one step, for the progress bar and the history."""

    loss: float
    task_loss: float
    alignment_loss: float
    critic_loss: float
    reward: float
    mean_action: float


class JointLoss(nn.Module):
    """The network with its losses, in one forward call, so that it can be distributed."""

    def __init__(self, model: MMCL, config: Config) -> None:
        super().__init__()
        self.model = model
        self.learning, self.policy = config.learning, config.policy

    def forward(self, batch: Batch, carried: Tensor | None = None) -> tuple[Tensor, Any]:
        """Loss of a batch, and ``(output, task loss, alignment loss, reward [b])``."""
        output: Output = self._run(batch, carried)
        assert batch.targets is not None
        items = item_losses(output.scores, batch.targets, self.model.task)
        task_loss = items.mean()
        loss = self.learning.task_weight * task_loss
        aligned = loss.new_zeros(())
        if self.learning.alignment_weight:
            encoded, group = output.encoded, self.learning.alignment_group
            aligned = alignment_loss(encoded.unit, encoded.step_mask, group)
            loss = loss + self.learning.alignment_weight * aligned
        reward = self._reward(output, batch.targets)
        if self.policy.kind == "rloo":
            loss = loss + self.policy.weight * self._policy_loss(output, batch.targets)
        elif self.policy.sparsity and self.policy.kind in ("task", "ddpg"):
            loss = loss + self.policy.sparsity * _mean_action(output).mean()
        return loss, (output, task_loss, aligned, reward)

    def _run(self, batch: Batch, carried: Tensor | None) -> Output:
        if self.policy.kind != "rloo":
            output: Output = self.model(batch.features, batch.masks, carried=carried)
            return output
        # The policy is paid, not taught: no gradient of its own reaches the features.
        encoded = self.model.encode(batch.features, batch.masks)
        decision = self.model.decide(_without_gradient(encoded), sample=True)
        return self.model.conclude(encoded, decision)

    def _policy_loss(self, output: Output, targets: Tensor) -> Tensor:
        """Policy gradient of the first sample, already concluded, and of the others."""
        encoded = _without_gradient(output.encoded)
        outputs = [output]
        for _ in range(self.policy.samples - 1):
            decision = self.model.decide(encoded, sample=True)
            with torch.no_grad():
                outputs.append(self.model.conclude(encoded, decision))
        rewards = torch.stack([self._policy_rewards(o, targets) for o in outputs])  # [s, m, b]
        chances = torch.stack([o.decision.log_probability for o in outputs])  # [s, m, b]
        return -(leave_one_out_advantage(rewards) * chances).mean(dim=(0, 2)).sum()

    def _policy_rewards(self, output: Output, targets: Tensor) -> Tensor:
        """What each modality's policy is paid, ``[m, b]``."""
        paid = self._reward(output, targets)
        joint = paid.expand(len(self.model.modalities), -1)
        if self.policy.reward != "separate":
            return joint
        alone = self.model.unimodal_scores(output)
        return torch.stack([self._priced(scores, targets, output) for scores in alone])

    def _reward(self, output: Output, targets: Tensor) -> Tensor:
        return self._priced(output.scores, targets, output)

    def _priced(self, scores: Tensor, targets: Tensor, output: Output) -> Tensor:
        task, policy = self.model.task, self.policy
        if policy.reward == "as-released":
            paid = as_released_reward(scores, targets, task)
        else:
            paid = prediction_reward(scores, targets, task, scale=policy.reward_scale)
        return paid - policy.sparsity * _mean_action(output).detach()


def _mean_action(output: Output) -> Tensor:
    """Mean action over the real steps of every clip, ``[b]``."""
    real = output.encoded.step_mask.sum(dim=(0, 2)).clamp(min=1)
    return output.decision.actions.sum(dim=(0, 2)) / real


def _without_gradient(encoded: Encoded) -> Encoded:
    parts = encoded.parts._replace(
        common=encoded.parts.common.detach(), specific=encoded.parts.specific.detach()
    )
    return encoded._replace(parts=parts, enhanced=encoded.enhanced.detach())


class Learner:
    """Trains the network on its joint loss: soft gate, RLOO, or actions that are given.

    Args:
        model: The network.
        config: All settings.
        fabric: Places it.
    """

    model: Any

    def __init__(self, model: Network, config: Config, fabric: Fabric) -> None:
        self.config, self.fabric = config, fabric
        module = self._losses(model, config)
        optimizer = _adamw(module, config.learning.learning_rate, config.learning.weight_decay)
        self.joint, self.optimizer = fabric.setup(module, optimizer)
        self.model = model

    def _losses(self, model: Any, config: Config) -> nn.Module:
        return JointLoss(model, config)

    def start_epoch(self, epoch: int) -> None:
        """Called before the first batch of an epoch, counted from 0."""
        self.model.start_epoch(epoch, self.config.learning.epochs)

    def step(self, batch: Batch) -> StepReport:
        """Learn from one batch."""
        loss, (output, task_loss, aligned, reward) = self.joint(batch)
        self._descend(loss)
        return self._report(loss, output, task_loss, aligned, reward)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, beside the random state."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "network": self.model.training_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.model.load_training_state(state["network"])

    def _descend(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self._clip(self.joint, self.optimizer)
        self.optimizer.step()

    def _clip(self, module: Any, optimizer: Any) -> None:
        if self.config.learning.clip_norm:
            self.fabric.clip_gradients(
                module, optimizer, max_norm=self.config.learning.clip_norm, error_if_nonfinite=False
            )

    def _report(
        self,
        loss: Tensor,
        output: Output,
        task_loss: Tensor,
        aligned: Tensor,
        reward: Tensor,
        critic_loss: float = 0.0,
    ) -> StepReport:
        action = _mean_action(output).mean()
        with torch.no_grad():
            numbers = torch.stack([loss, task_loss, aligned, reward.mean(), action]).tolist()
        total, task, alignment, mean_reward, mean_action = numbers
        return StepReport(total, task, alignment, critic_loss, mean_reward, mean_action)


class BaselineLoss(nn.Module):
    """A network without policies, with its task loss and what it adds to it."""

    def __init__(self, model: Network, config: Config) -> None:
        super().__init__()
        self.model, self.learning = model, config.learning

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of a batch, and the task loss in it."""
        output = self.model(batch.features, batch.masks)
        assert batch.targets is not None
        task_loss = item_losses(output.scores, batch.targets, self.model.task).mean()
        added = self.model.auxiliary_loss(output, batch.targets, batch.rows)
        return self.learning.task_weight * task_loss + added, task_loss


class BaselineLearner(Learner):
    """Trains a network that has no policies: nothing is paid, kept or aligned."""

    def _losses(self, model: Any, config: Config) -> nn.Module:
        return BaselineLoss(model, config)

    def step(self, batch: Batch) -> StepReport:
        """Learn from one batch."""
        loss, task_loss = self.joint(batch)
        self._descend(loss)
        total, task = torch.stack([loss.detach(), task_loss.detach()]).tolist()
        return StepReport(total, task, *[math.nan] * 4)


class DdpgLearner(Learner):
    """Adds the joint critic and the policy's step towards what the critic values.

    Order of a step, as released: task loss; critic towards ``r + discount * Q'(s', pi'(s'))``;
    policy towards higher ``Q(s, pi(s))``; targets follow slowly.

    Source:
        METHOD 1 and 2.8. Targets start as copies, stay in evaluation mode and take the
        buffers along (mends fault F6). ``critic = "carried"`` keeps the released transition
        from a batch to the next (faults F5 and F11), closed when the next batch is seen.
    """

    def __init__(self, model: MMCL, config: Config, fabric: Fabric) -> None:
        super().__init__(model, config, fabric)
        policy = config.policy
        critic = Critic(
            len(model.modalities), config.model.width, config.model.heads, model.inner_width
        )
        optimizer = _adamw(critic, policy.critic_learning_rate, config.learning.weight_decay)
        self.critic, self.critic_optimizer = fabric.setup(critic, optimizer)
        self.target_critic = _frozen_copy(critic)
        self.target_policy = _frozen_copy(model.policy)
        self.replay = Replay(policy.replay_capacity)
        self._carried: tuple[Transitions, Tensor] | None = None

    def start_epoch(self, epoch: int) -> None:
        """Forget the batch before: an epoch starts on the raw state, as the first one did."""
        super().start_epoch(epoch)
        self._carried = None

    def step(self, batch: Batch) -> StepReport:
        """Learn from one batch."""
        carries = self.config.policy.critic == "carried"
        before = self._carried if carries else None
        shape = (len(self.model.modalities), *_clips_and_steps(batch, self.model))
        carried = None if before is None else _fit_actions(before[1], shape)
        loss, (output, task_loss, aligned, reward) = self.joint(batch, carried)
        self._descend(loss)
        self._remember(output, reward, before, carries)
        critic_loss = 0.0
        if len(self.replay):
            past = self.replay.sample(len(reward))
            critic_loss = self._learn_values(past)
            self._improve_policy(past)
            rate = self.config.policy.target_rate
            soft_update(self.target_critic, self.critic.module, rate)
            soft_update(self.target_policy, self.model.policy, rate)
        return self._report(loss, output, task_loss, aligned, reward, critic_loss)

    def _remember(
        self,
        output: Output,
        reward: Tensor,
        before: tuple[Transitions, Tensor] | None,
        carries: bool,
    ) -> None:
        mask = output.encoded.step_mask.transpose(0, 1)
        moves = [
            (state.detach().transpose(0, 1), actions.detach().transpose(0, 1))
            for state, actions in output.decision.moves
        ]
        last = len(moves) - 1
        for k, (state, actions) in enumerate(moves):
            ends = k == last
            discount = 0.0 if ends and not carries else self.config.policy.discount
            here = Transitions(
                state,
                actions,
                reward if ends else torch.zeros_like(reward),
                torch.zeros_like(state) if ends else moves[k + 1][0],
                mask,
                mask,
                torch.full_like(reward, discount),
            )
            if k == 0 and before is not None:
                self._close(before[0], state, mask)
            if ends and carries:
                self._carried = (here, output.decision.actions.detach())
            else:
                self.replay.add(here)

    def _close(self, before: Transitions, state: Tensor, mask: Tensor) -> None:
        """Link the batch before to this one, clip i to the unrelated clip i: fault F5."""
        if len(before.reward) != len(state):
            return
        steps = max(state.shape[2], before.state.shape[2])
        here = before._replace(next_state=state, next_mask=mask)
        self.replay.add(fit_steps(here, steps))

    def _learn_values(self, past: Transitions) -> float:
        with torch.no_grad():
            following = past.next_state.transpose(0, 1)
            next_mask = past.next_mask.transpose(0, 1)
            actions = self.target_policy.keep_logits(following).sigmoid() * next_mask
            value = self.target_critic(following, actions, next_mask)
            target = past.reward + past.discount * value
        self._set_trainable(critic=True)
        judged = self.critic(*_seen_by_critic(past))
        loss = self.config.policy.weight * (judged - target).abs().mean()
        self.critic_optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self._clip(self.critic, self.critic_optimizer)
        self.critic_optimizer.step()
        return float(loss.detach())

    def _improve_policy(self, past: Transitions) -> None:
        state, _, mask = _seen_by_critic(past)
        self._set_trainable(critic=False)
        actions = self.model.policy.keep_logits(state).sigmoid() * mask
        loss = -self.config.policy.weight * self.critic(state, actions, mask).mean()
        self._descend(loss)
        self._set_trainable(critic=True)

    def _set_trainable(self, *, critic: bool) -> None:
        """The policy's step needs gradients through the critic, not of it."""
        for parameter in self.critic.parameters():
            parameter.requires_grad_(critic)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, beside the random state."""
        return super().state_dict() | {
            "critic": self.critic.module.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "target_critic": self.target_critic.state_dict(),
            "target_policy": self.target_policy.state_dict(),
            "replay": self.replay.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.critic.module.load_state_dict(state["critic"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.target_critic.load_state_dict(state["target_critic"])
        self.target_policy.load_state_dict(state["target_policy"])
        self.replay.load_state_dict(state["replay"])


def make_learner(model: Network, config: Config, fabric: Fabric) -> Learner:
    """The learner the settings ask for.

    Raises:
        ConfigError: If the reward asked for does not exist for the policy or the task.
    """
    policy = config.policy
    if not isinstance(model, MMCL):
        return BaselineLearner(model, config, fabric)
    _check_reward(policy, model)
    return (DdpgLearner if policy.kind == "ddpg" else Learner)(model, config, fabric)


def _check_reward(policy: PolicySettings, model: MMCL) -> None:
    if policy.reward == "separate" and policy.kind != "rloo":
        raise ConfigError(
            f'policy.reward "separate" needs policy.kind "rloo", got "{policy.kind}": '
            "the DDPG critic is joint\n  Use: --set policy.kind=rloo"
        )
    if policy.reward == "as-released" and model.task.kind != "emotions":
        raise ConfigError(
            'policy.reward "as-released" exists for emotions only, '
            f"the corpus has {model.task.kind}\n"
            "  Use: --set policy.reward=joint"
        )


def soft_update(target: nn.Module, online: nn.Module, rate: float) -> None:
    """Let a target network follow: parameters by ``rate``, buffers wholly (fault F6)."""
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
            slow.lerp_(fast, rate)
        for kept, current in zip(target.buffers(), online.buffers(), strict=True):
            kept.copy_(current)


def _frozen_copy(module: Any) -> Any:
    copied = copy.deepcopy(module).eval()
    return copied.requires_grad_(False)


def _seen_by_critic(past: Transitions) -> tuple[Tensor, Tensor, Tensor]:
    return (
        past.state.transpose(0, 1).contiguous(),
        past.actions.transpose(0, 1),
        past.step_mask.transpose(0, 1),
    )


def _clips_and_steps(batch: Batch, model: MMCL) -> tuple[int, int]:
    steps = max(x.shape[1] for x in batch.features.values())
    if model.released and not model.aligned:
        steps = model.settings.steps
    return len(batch.rows), steps


def _fit_actions(actions: Tensor, shape: tuple[int, int, int]) -> Tensor | None:
    """Cut or pad carried actions to this batch; None where the clips do not pair up."""
    if actions.shape[1] != shape[1]:
        return None
    fitted = actions.new_ones(shape)
    steps = min(shape[2], actions.shape[2])
    fitted[:, :, :steps] = actions[:, :, :steps]
    return fitted


def _adamw(module: nn.Module, rate: float, decay: float) -> torch.optim.AdamW:
    """AdamW that decays weight matrices and leaves biases, norms and scalars alone."""
    weights: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        matrix = name.endswith("weight") and "norm" not in name
        (weights if matrix else others).append(parameter)
    groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, fused=True)
