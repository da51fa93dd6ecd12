"""Learners: the training step of MMCL (soft gate or RLOO) and of a network without policies.

The step with a critic is in :mod:`mmcl.learning.ddpg`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.config import Config
from mmcl.corpus.batches import Batch
from mmcl.learning.objectives import (
    alignment_loss,
    as_released_reward,
    item_losses,
    leave_one_out_advantage,
    prediction_reward,
)
from mmcl.models.mmcl import MMCL, Encoded, Output
from mmcl.models.network import Network
from mmcl.models.policy import Decision

if TYPE_CHECKING:  # the import takes a second, and prediction does not need it
    from lightning_fabric import Fabric

__all__ = [
    "BaselineLearner",
    "Learner",
    "PolicyLearner",
    "StepReport",
    "Trainee",
    "make_optimizer",
    "mean_action",
]

_Result = TypeVar("_Result")


class StepReport(NamedTuple):
    """Numbers of one training step, means over its clips, for progress bar and history."""

    loss: float
    task_loss: float
    alignment_loss: float
    critic_loss: float
    reward: float
    mean_action: float


class Losses(NamedTuple):
    """Losses and rewards of one forward pass of training.

    Attributes:
        loss: Weighted sum of all losses, scalar.
        task_loss: Mean task loss, scalar.
        alignment: Alignment loss between the modalities, scalar.
        reward: Joint reward of every clip, ``[b]``, less the price of the steps it kept.
        output: Output of the network with the first sample of the actions.
    """

    loss: Tensor
    task_loss: Tensor
    alignment: Tensor
    reward: Tensor
    output: Output

    def report(self, critic_loss: float = 0.0) -> StepReport:
        """Return the numbers of the step."""
        # Stacked, so that a GPU is waited for only once.
        means = self.reward.mean(), mean_action(self.output).mean()
        numbers = torch.stack([self.loss, self.task_loss, self.alignment, *means])
        loss, task_loss, alignment, reward, action = numbers.detach().tolist()
        return StepReport(loss, task_loss, alignment, critic_loss, reward, action)


class Trainee(nn.Module):
    """Wrapper of a network that computes its losses inside ``forward``.

    With several processes, DistributedDataParallel averages gradients only of what is computed
    in the ``forward`` of the module that it wraps.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, function: Callable[[Any], _Result]) -> _Result:
        """Call a function with the network."""
        return function(self.network)


class Learner:
    """Common part of all learners: a network, its optimizer, and one gradient step.

    Args:
        model: The network.
        config: All settings.
        fabric: Places the network on its device and wraps it for several processes.
    """

    model: Any

    def __init__(self, model: Network, config: Config, fabric: Fabric) -> None:
        self.config, self.fabric = config, fabric
        trainee = Trainee(model)
        rate, decay = config.learning.learning_rate, config.learning.weight_decay
        optimizer = make_optimizer(trainee, rate, decay, words_rate=config.text.learning_rate)
        self.trainee, self.optimizer = fabric.setup(trainee, optimizer)
        # The same parameters without wrappers: for reading, saving and validation.
        self.model = model

    def start_epoch(self, epoch: int) -> None:
        """Prepare an epoch, counted from 0, before its first batch."""
        self.model.start_epoch(epoch, self.config.learning.epochs)

    def step(self, batch: Batch) -> StepReport:
        """Learn from one batch."""
        raise NotImplementedError

    def step_in_parts(
        self, batch: Batch, losses_of: Callable[[Batch], tuple[Tensor, StepReport]]
    ) -> StepReport:
        """Take one step down the gradient of a batch that is computed part by part.

        Args:
            batch: The clips; ``learning.accumulate`` says into how many parts they are cut.
            losses_of: Called with every part; returns its mean loss and its numbers.

        Returns:
            Numbers of the batch: means over its parts by their clips.
        """
        self.optimizer.zero_grad(set_to_none=True)
        parts = batch_parts(batch, self.config.learning.accumulate)
        shares = [len(part.rows) / len(batch.rows) for part in parts]
        reports = []
        for part, share in zip(parts, shares, strict=True):
            # Several processes exchange their gradients once, after the last part.
            is_last = part is parts[-1]
            with self.fabric.no_backward_sync(self.trainee, enabled=not is_last):
                loss, report = losses_of(part)
                self.fabric.backward(loss * share if len(parts) > 1 else loss)
            reports.append(report)
        self.clipped_step(self.trainee, self.optimizer)
        if len(reports) == 1:
            return reports[0]
        return StepReport(*np.average(np.array(reports), axis=0, weights=shares).tolist())

    def descend(self, loss: Tensor, module: Any, optimizer: Any) -> None:
        """Take one step down the gradient of a loss that ``module`` has computed."""
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.clipped_step(module, optimizer)

    def clipped_step(self, module: Any, optimizer: Any) -> None:
        """Clip the gradients of a module and let the optimizer take its step."""
        # A norm that is not finite is no error here: the loop names the loss and what to do.
        if self.config.learning.clip_norm:
            self.fabric.clip_gradients(
                module, optimizer, max_norm=self.config.learning.clip_norm, error_if_nonfinite=False
            )
        optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, besides the random state."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "network": self.model.training_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a result of :meth:`state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.model.load_training_state(state["network"])


class PolicyLearner(Learner):
    """Learner of MMCL with a soft gate, with RLOO, or with actions that are not learned."""

    def step(self, batch: Batch) -> StepReport:
        """Learn from one batch."""

        def losses_of(part: Batch) -> tuple[Tensor, StepReport]:
            losses = self.losses(part)
            return losses.loss, losses.report()

        return self.step_in_parts(batch, losses_of)

    def losses(self, batch: Batch, carried: Tensor | None = None) -> Losses:
        """Return the losses of a batch, in the order of the method (docs/method.md).

        Args:
            batch: Clips with their targets.
            carried: Actions of the batch before, ``[m, b, n]``, with ``critic = "carried"``.
        """
        learning, targets = self.config.learning, batch.targets
        assert targets is not None

        def forward(model: MMCL) -> Losses:
            # Encode: project, calibrate, decouple, and attend on the common parts.
            encoded = model.encode(batch.features, batch.masks, carried=carried)
            # Align: a loss that makes the cosines between modalities mean something.
            alignment = self._alignment(encoded)
            # Decide: the policies act on the specific parts; RLOO draws several samples.
            decisions = self._decisions(model, encoded)
            # Conclude: apply the actions, fuse, predict. The first sample teaches the network.
            outputs = [model.conclude(encoded, decisions[0])]
            with torch.no_grad():
                outputs += [model.conclude(encoded, decision) for decision in decisions[1:]]
            # Reward: one scalar per clip for all policies, less the price of the kept steps.
            rewards = [self._reward(output.scores, targets, output) for output in outputs]
            # Losses: of the task, of the alignment, of the policies.
            task_loss = item_losses(outputs[0].scores, targets, model.task).mean()
            weight = learning.task_weight / model.score_scale.unit
            loss = weight * task_loss + learning.alignment_weight * alignment
            loss = loss + self._policy_loss(model, outputs, rewards, targets)
            return Losses(loss, task_loss, alignment, rewards[0], outputs[0])

        losses: Losses = self.trainee(forward)
        return losses

    def _alignment(self, encoded: Encoded) -> Tensor:
        """Return the alignment loss, or 0 if it has no weight."""
        if not self.config.learning.alignment_weight:
            return encoded.enhanced.new_zeros(())
        group = self.config.learning.alignment_group
        return alignment_loss(encoded.unit, encoded.step_mask, group)

    def _decisions(self, model: MMCL, encoded: Encoded) -> list[Decision]:
        """Return the decisions of the policies: one, or with RLOO ``policy.samples`` draws."""
        policy = self.config.policy
        if policy.kind != "rloo":
            return [model.decide(encoded)]
        # What the policies learn from the reward must not change the features.
        parts = encoded.parts._replace(specific=encoded.parts.specific.detach())
        detached = encoded._replace(parts=parts)
        return [model.decide(detached, sample=True) for _ in range(policy.samples)]

    def _reward(self, scores: Tensor, targets: Tensor, output: Output) -> Tensor:
        """Return the reward of every clip, less the price of the kept steps, ``[b]``."""
        task, policy = self.model.task, self.config.policy
        if policy.reward == "as-released":
            reward = as_released_reward(scores, targets, task)
        else:
            reward = prediction_reward(scores, targets, task, scale=policy.reward_scale)
        return reward - policy.sparsity * mean_action(output).detach()

    def _policy_loss(
        self, model: MMCL, outputs: list[Output], rewards: list[Tensor], targets: Tensor
    ) -> Tensor | float:
        """Return the weighted policy loss of RLOO, or the price that a soft gate pays."""
        policy = self.config.policy
        # A gate learns from the task loss through its actions: only the price is added here, of
        # the probabilities, since dropped steps have no gradient. With DDPG the critic teaches
        # it, too (learning/ddpg.py).
        if policy.kind in ("gate", "task", "ddpg"):
            keep = outputs[0].decision.keep_probability
            return policy.sparsity * _mean_over_steps(keep, outputs[0]).mean()
        if policy.kind != "rloo":
            return 0.0
        policy_rewards = torch.stack(
            [
                self._policy_rewards(model, output, reward, targets)
                for output, reward in zip(outputs, rewards, strict=True)
            ]
        )  # [s, m, b]
        log_probability = torch.stack([output.decision.log_probability for output in outputs])
        # RLOO: -advantage * log pi(action), mean over samples and clips, summed over policies.
        gains = leave_one_out_advantage(policy_rewards) * log_probability
        return -policy.weight * gains.mean(dim=(0, 2)).sum()

    def _policy_rewards(
        self, model: MMCL, output: Output, reward: Tensor, targets: Tensor
    ) -> Tensor:
        """Return the reward of each policy, ``[m, b]``: the joint reward, or its own."""
        if self.config.policy.reward != "separate":
            return reward.expand(len(model.modalities), -1)
        alone = model.unimodal_scores(output)
        return torch.stack([self._reward(scores, targets, output) for scores in alone])


class BaselineLearner(Learner):
    """Learner of a network without policies: its task loss and its auxiliary loss."""

    def step(self, batch: Batch) -> StepReport:
        """Learn from one batch."""
        return self.step_in_parts(batch, self._losses)

    def _losses(self, batch: Batch) -> tuple[Tensor, StepReport]:
        targets = batch.targets
        assert targets is not None

        def forward(model: Network) -> tuple[Tensor, Tensor]:
            output = model(batch.features, batch.masks)
            task_loss = item_losses(output.scores, targets, model.task).mean()
            auxiliary = model.auxiliary_loss(output, targets, batch.rows)
            # Other losses know no unit, so the task loss counts as it does in -3..3.
            weight = self.config.learning.task_weight / model.score_scale.unit
            return weight * task_loss + auxiliary, task_loss

        loss, task_loss = self.trainee(forward)
        # No alignment, critic, reward or actions to report.
        return loss, StepReport(loss.item(), task_loss.item(), *[math.nan] * 4)


def batch_parts(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into at most ``count`` parts of about as many clips."""
    if count == 1:
        return [batch]
    rows = [part for part in torch.arange(len(batch.rows)).chunk(count) if len(part)]
    return [
        Batch(
            {m: x[part] for m, x in batch.features.items()},
            {m: x[part] for m, x in batch.masks.items()},
            None if batch.targets is None else batch.targets[part],
            batch.rows[part],
        )
        for part in rows
    ]


def mean_action(output: Output) -> Tensor:
    """Return the mean action over the real steps of every clip, ``[b]``."""
    return _mean_over_steps(output.decision.actions, output)


def _mean_over_steps(values: Tensor, output: Output) -> Tensor:
    """Return the mean of values ``[m, b, n]`` over the real steps of every clip, ``[b]``."""
    real = output.encoded.step_mask.sum(dim=(0, 2)).clamp(min=1)
    return values.sum(dim=(0, 2)) / real


def make_optimizer(
    module: nn.Module, rate: float, decay: float, *, words_rate: float | None = None
) -> torch.optim.AdamW:
    """Return an AdamW whose weight decay applies to weight matrices only.

    Args:
        module: What learns. Parameters that get no gradient stay as they are.
        rate: Learning rate.
        decay: Weight decay of matrices.
        words_rate: Learning rate of the encoder of words, if the network has one.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {(False, True): [], (False, False): []}
    for name, parameter in module.named_parameters():
        is_matrix = name.endswith("weight") and "norm" not in name.lower()
        reads_words = ".words." in f".{name}"
        groups.setdefault((reads_words, is_matrix), []).append(parameter)
    options = [
        {
            "params": parameters,
            "weight_decay": decay if is_matrix else 0.0,
            **({"lr": words_rate, "warms_up": True} if reads_words else {}),
        }
        for (reads_words, is_matrix), parameters in groups.items()
    ]
    return torch.optim.AdamW(options, lr=rate, fused=True)
