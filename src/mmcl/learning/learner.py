"""Learners: what one training step does, with a soft gate, with RLOO, with DDPG, with none."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

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
from mmcl.processes import (
    Share,
    add_in_order,
    add_up,
    clips_of_all,
    current_share,
    cut_batch,
    fewest_of_all,
    is_seated,
    num_parts,
    own_clips,
    part_of_mean,
    shape_of_all,
    sum_gradients,
)
from mmcl.threads import Crew

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

_Found = TypeVar("_Found")


class StepReport(NamedTuple):
    """Means over the clips of one step, for the progress bar and the history."""

    loss: float
    task_loss: float
    alignment_loss: float
    critic_loss: float
    reward: float
    mean_action: float


class JointLoss(nn.Module):
    """The network with its losses, in one forward call.

    Where the batch is cut into parts, every loss is this part's share of it.
    """

    def __init__(self, model: MMCL, config: Config) -> None:
        super().__init__()
        self.model = model
        self.learning, self.policy = config.learning, config.policy

    def forward(self, batch: Batch, carried: Tensor | None = None) -> tuple[Tensor, Any]:
        """Loss of a batch, and ``(output, task loss, alignment loss, reward [b])``."""
        outputs, aligned = self._run(batch, carried)
        output = outputs[0]
        assert batch.targets is not None
        items = item_losses(output.scores, batch.targets, self.model.task)
        task_loss = part_of_mean(items)
        loss = self.learning.task_weight * task_loss
        if self.learning.alignment_weight:
            loss = loss + self.learning.alignment_weight * aligned
        rewards = [self._priced(each.scores, batch.targets, each) for each in outputs]
        if self.policy.kind == "rloo":
            loss = loss + self.policy.weight * self._policy_loss(outputs, rewards, batch.targets)
        elif self.policy.sparsity and self.policy.kind in ("task", "ddpg"):
            loss = loss + self.policy.sparsity * part_of_mean(_mean_action(output))
        return loss, (output, task_loss, aligned, rewards[0])

    def _run(self, batch: Batch, carried: Tensor | None) -> tuple[list[Output], Tensor]:
        """Outputs for each sample of the actions, and the alignment loss."""
        if self.policy.kind != "rloo":
            output: Output = self.model(batch.features, batch.masks, carried=carried)
            return [output], self._alignment(output.encoded)
        encoded = self.model.encode(batch.features, batch.masks)
        # Parts of a batch wait for each other in it: here they have least to wait for.
        aligned = self._alignment(encoded)
        # The policy is paid, not taught: no gradient of its own reaches the features.
        apart = _without_gradient(encoded)
        decisions = self.model.decide_often(apart, self.policy.samples, sample=True)
        # Two at a time: together they are quicker, and more would take more memory.
        outputs = self.model.conclude_each(encoded, decisions[:2])
        with torch.no_grad():
            outputs += [self.model.conclude(apart, each) for each in decisions[2:]]
        return outputs, aligned

    def _alignment(self, encoded: Encoded) -> Tensor:
        if not self.learning.alignment_weight:
            return encoded.enhanced.new_zeros(())
        return alignment_loss(encoded.unit, encoded.step_mask, self.learning.alignment_group)

    def _policy_loss(self, outputs: list[Output], joint: list[Tensor], targets: Tensor) -> Tensor:
        """Policy gradient of all samples; the predictor learns of the first."""
        each = zip(outputs, joint, strict=True)
        rewards = torch.stack([self._policy_rewards(*one, targets) for one in each])  # [s, m, b]
        chances = torch.stack([o.decision.log_probability for o in outputs])  # [s, m, b]
        gained = leave_one_out_advantage(rewards) * chances
        own, all_of_them = gained.shape[2], shape_of_all(gained.shape, 2)[2]
        if own == all_of_them:
            return -gained.mean(dim=(0, 2)).sum()
        return -gained.sum() / (len(gained) * all_of_them)

    def _policy_rewards(self, output: Output, joint: Tensor, targets: Tensor) -> Tensor:
        """What each policy is paid, ``[m, b]``; ``joint`` is the joint reward, ``[b]``."""
        if self.policy.reward != "separate":
            return joint.expand(len(self.model.modalities), -1)
        alone = self.model.unimodal_scores(output)
        return torch.stack([self._priced(scores, targets, output) for scores in alone])

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


class _Seen(NamedTuple):
    """What a part of a batch came to, without gradient.

    Attributes:
        moves: States and actions of its decisions, as :class:`~mmcl.models.policy.Decision` has
            them, clips first: ``[b, m, n, d]`` and ``[b, m, n]``.
        actions: What they came to, ``[m, b, n]``.
        step_mask: bool ``[b, m, n]``.
        reward: ``[b]``.
        numbers: Its shares of what is reported, without the critic's.
    """

    moves: list[tuple[Tensor, Tensor]]
    actions: Tensor
    step_mask: Tensor
    reward: Tensor
    numbers: Tensor


class Learner:
    """Trains the network on its joint loss: soft gate, RLOO, or actions that are given.

    A batch of many clips is computed in parts, one part per thread: see :mod:`mmcl.processes`.

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
        in_parts = model.shares_batches and fabric.device.type == "cpu"
        self.crew = Crew(fewest_of_all(torch.get_num_threads()) if in_parts else 1)

    def _losses(self, model: Any, config: Config) -> nn.Module:
        return JointLoss(model, config)

    def start_epoch(self, epoch: int) -> None:
        """Called before the first batch of an epoch, counted from 0."""
        self.model.start_epoch(epoch, self.config.learning.epochs)

    def shares(self, clips: int) -> list[Share]:
        """What of a batch each part of this process has.

        Groups of clips that are compared with each other stay whole where they can.

        Args:
            clips: In the whole batch, all processes' together.
        """
        learning, processes = self.config.learning, self.fabric.world_size
        group = learning.alignment_group if learning.alignment_weight else 1
        here = num_parts(clips, processes, self.crew.threads)
        first = self.fabric.global_rank * here
        return cut_batch(clips, processes * here, group)[first : first + here]

    def step(self, batch: Batch) -> StepReport:
        """Learn from one batch."""
        return self._report([seen.numbers for seen in self._learn(batch)])

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

    def _learn(self, batch: Batch, carried: Tensor | None = None) -> list[_Seen]:
        """Descend the joint loss; what each part of the batch came to.

        Args:
            batch: Of this process's clips.
            carried: Their actions of the batch before, ``[m, b, n]``.
        """
        shares = self._shares_of(batch.rows)
        batches = _cut_clips(batch, shares)
        actions = [None] * len(shares) if carried is None else _cut(carried, shares, 1)

        def work(part: int) -> tuple[Tensor, _Seen]:
            loss, found = self._call(self.joint, batches[part], actions[part])
            return loss, _seen(loss, *found)

        return self._descend(work, shares, self.joint, self.optimizer)

    def _shares_of(self, clips: Sequence[Any] | Tensor) -> list[Share]:
        return self.shares(shape_of_all([len(clips)], 0)[0])

    def _call(self, module: Any, *given: Any) -> Any:
        """Call what Fabric has set up.

        For a part of a batch without Fabric's own call: the hooks that it leaves behind refuse
        gradients that are not put into the parameters, where those of all parts would meet.
        """
        if not is_seated():
            return module(*given)
        precision = self.fabric.strategy.precision
        with precision.forward_context():
            found = module.module(*precision.convert_input(given))
        return precision.convert_output(found)

    def _descend(
        self,
        work: Callable[[int], tuple[Tensor, _Found]],
        shares: list[Share],
        module: Any,
        optimizer: Any,
    ) -> list[_Found]:
        """One step down the gradient of a loss that every part of the batch has its share of.

        Args:
            work: Gives a part's share of the loss, and what else came of it.
            shares: The parts of this process.
            module: What is trained, as Fabric has set it up.
            optimizer: Of its parameters.

        Returns:
            What else came of the parts.
        """
        optimizer.zero_grad(set_to_none=True)
        if len(shares) == 1:
            loss, found = work(0)
            self.fabric.backward(loss)
            self._take_step(module, optimizer)
            return [found]
        parameters = [each for each in _parameters(optimizer) if each.requires_grad]

        def differentiate(part: int) -> tuple[tuple[Tensor | None, ...], _Found]:
            loss, found = work(part)
            return torch.autograd.grad(loss, parameters, allow_unused=True), found

        def conclude() -> None:
            for parameter, *each in zip(parameters, *gradients, strict=True):
                there = [gradient for gradient in each if gradient is not None]
                if there:  # laid out as its parameter is, which the optimizer counts on
                    parameter.grad = add_in_order(there).contiguous()
            self._take_step(module, optimizer)

        gradients, all_found = zip(*self.crew.run(differentiate, shares), strict=True)
        self.crew.alone(conclude, current_share())
        return list(all_found)

    def _take_step(self, module: Any, optimizer: Any) -> None:
        """Step by the gradients that are there, this process's; clipped once all are added up."""
        sum_gradients(_parameters(optimizer))
        if self.config.learning.clip_norm:
            self.fabric.clip_gradients(
                module, optimizer, max_norm=self.config.learning.clip_norm, error_if_nonfinite=False
            )
        optimizer.step()

    def _report(self, numbers: Sequence[Tensor], critic_loss: float = 0.0) -> StepReport:
        total, task, alignment, reward, action = add_up(add_in_order(numbers))[0].tolist()
        return StepReport(total, task, alignment, critic_loss, reward, action)


def _seen(
    loss: Tensor, output: Output, task_loss: Tensor, aligned: Tensor, reward: Tensor
) -> _Seen:
    with torch.no_grad():
        means = part_of_mean(reward), part_of_mean(_mean_action(output))
        numbers = torch.stack([loss, task_loss, aligned, *means])
        moves = [(s.transpose(0, 1), a.transpose(0, 1)) for s, a in output.decision.moves]
        moves = [(state.detach(), actions.detach()) for state, actions in moves]
    step_mask = output.encoded.step_mask.transpose(0, 1)
    return _Seen(moves, output.decision.actions.detach(), step_mask, reward, numbers)


class BaselineLoss(nn.Module):
    """A network without policies, with its task loss and what it adds to it."""

    def __init__(self, model: Network, config: Config) -> None:
        super().__init__()
        self.model, self.learning = model, config.learning

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of a batch, and the task loss in it."""
        output = self.model(batch.features, batch.masks)
        assert batch.targets is not None
        task_loss = part_of_mean(item_losses(output.scores, batch.targets, self.model.task))
        added = self.model.auxiliary_loss(output, batch.targets, batch.rows)
        return self.learning.task_weight * task_loss + added, task_loss


class BaselineLearner(Learner):
    """Trains a network that has no policies: nothing is paid, kept or aligned."""

    def _losses(self, model: Any, config: Config) -> nn.Module:
        return BaselineLoss(model, config)

    def step(self, batch: Batch) -> StepReport:
        """Learn from one batch."""
        shares = self._shares_of(batch.rows)
        batches = _cut_clips(batch, shares)

        def work(part: int) -> tuple[Tensor, Tensor]:
            loss, task_loss = self._call(self.joint, batches[part])
            return loss, torch.stack([loss.detach(), task_loss.detach()])

        numbers = self._descend(work, shares, self.joint, self.optimizer)
        total, task = add_up(add_in_order(numbers))[0].tolist()
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
        own = None if carried is None else own_clips(carried, 1)
        seen = self._learn(batch, own)
        self._remember(seen, before, carries)
        critic_loss = 0.0
        if len(self.replay):
            past = Transitions(*map(own_clips, self.replay.sample(shape[1])))
            critic_loss = self._learn_values(past)
            self._improve_policy(past)
            rate = self.config.policy.target_rate
            soft_update(self.target_critic, self.critic.module, rate)
            soft_update(self.target_policy, self.model.policy, rate)
        return self._report([part.numbers for part in seen], critic_loss)

    def _remember(
        self, seen: list[_Seen], before: tuple[Transitions, Tensor] | None, carries: bool
    ) -> None:
        # Every process remembers all clips of the batch, and draws the same ones later.
        mask = clips_of_all(torch.cat([part.step_mask for part in seen]))
        moves = [
            tuple(clips_of_all(torch.cat(parts)) for parts in zip(*move, strict=True))
            for move in zip(*(part.moves for part in seen), strict=True)
        ]
        reward = clips_of_all(torch.cat([part.reward for part in seen]))
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
                acted = torch.cat([part.actions for part in seen], dim=1)
                self._carried = (here, clips_of_all(acted, 1))
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
        shares = self._shares_of(past.reward)
        parts = _cut_past(past, shares)

        def work(part: int) -> tuple[Tensor, Tensor]:
            here = parts[part]
            judged = self._call(self.critic, *_seen_by_critic(here))
            errors = (judged - self._target_of(here)).abs()
            loss = self.config.policy.weight * part_of_mean(errors)
            return loss, loss.detach()

        self._set_trainable(critic=True)
        losses = self._descend(work, shares, self.critic, self.critic_optimizer)
        return float(add_up(add_in_order(losses))[0])

    @torch.no_grad()
    def _target_of(self, past: Transitions) -> Tensor:
        """What the critic should say of transitions, ``[b]``."""
        following = past.next_state.transpose(0, 1)
        next_mask = past.next_mask.transpose(0, 1)
        actions = self.target_policy.keep_logits(following).sigmoid() * next_mask
        value: Tensor = self.target_critic(following, actions, next_mask)
        return past.reward + past.discount * value

    def _improve_policy(self, past: Transitions) -> None:
        shares = self._shares_of(past.reward)
        parts = _cut_past(past, shares)

        def work(part: int) -> tuple[Tensor, None]:
            state, _, mask = _seen_by_critic(parts[part])
            actions = self.model.policy.keep_logits(state).sigmoid() * mask
            values = self._call(self.critic, state, actions, mask)
            return -self.config.policy.weight * part_of_mean(values), None

        self._set_trainable(critic=False)
        self._descend(work, shares, self.joint, self.optimizer)
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


def _cut(values: Tensor, shares: Sequence[Share], clip_axis: int = 0) -> list[Tensor]:
    """A tensor of this process's clips, cut into that of each of its parts."""
    if len(shares) == 1:
        return [values]
    sizes = [share.stop - share.start for share in shares]
    return list(torch.split(values, sizes, dim=clip_axis))


def _cut_clips(batch: Batch, shares: Sequence[Share]) -> list[Batch]:
    features, masks = (
        {m: _cut(x, shares) for m, x in each.items()} for each in (batch.features, batch.masks)
    )
    targets = [None] * len(shares) if batch.targets is None else _cut(batch.targets, shares)
    rows = _cut(batch.rows, shares)
    return [
        Batch(
            {m: parts[at] for m, parts in features.items()},
            {m: parts[at] for m, parts in masks.items()},
            targets[at],
            rows[at],
        )
        for at in range(len(shares))
    ]


def _cut_past(past: Transitions, shares: Sequence[Share]) -> list[Transitions]:
    each = [_cut(x, shares) for x in past]
    return [Transitions(*parts) for parts in zip(*each, strict=True)]


def _seen_by_critic(past: Transitions) -> tuple[Tensor, Tensor, Tensor]:
    return (
        past.state.transpose(0, 1).contiguous(),
        past.actions.transpose(0, 1),
        past.step_mask.transpose(0, 1),
    )


def _parameters(optimizer: Any) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _clips_and_steps(batch: Batch, model: MMCL) -> tuple[int, int]:
    """Clips of the whole batch, whoever holds them, and the steps they are padded to."""
    steps = max(x.shape[1] for x in batch.features.values())
    if model.released and not model.aligned:
        steps = model.settings.steps
    return shape_of_all([len(batch.rows)], 0)[0], steps


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
