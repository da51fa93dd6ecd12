"""Base class of every model: MMCL and all baselines.

It holds what they share: the choice of modalities, the treatment of absent ones, the collation of
clips into batches, the shape of scores, and saving.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from safetensors import safe_open
from safetensors.torch import load_model
from torch import Tensor, nn

from mmcl.config import ModelSettings, PolicySettings
from mmcl.corpus.batches import Batch, collate, move_batch
from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import score_scale
from mmcl.corpus.store import Split
from mmcl.errors import DatasetError, RunError, ShapeError
from mmcl.models.layers import traced
from mmcl.models.projection import Standardiser
from mmcl.models.words import FOLDER, WordEncoder
from mmcl.types import MODALITIES, Modality

__all__ = ["Network", "Scoring"]

# How settings are written to config.json and read from it.
_CODERS: dict[type, Any] = {
    Task: (lambda t: t.model_dump(), lambda d: Task(**d)),
    ModelSettings: (lambda s: s.model_dump(), lambda d: ModelSettings(**d)),
    PolicySettings: (lambda s: s.model_dump(), lambda d: PolicySettings(**d)),
}


MIB = 2**20
_RANGE = "score_range"
"""Buffer with the range of the scores; absent where the range is one of the field's."""


class Scoring(Protocol):
    """Output of any network."""

    @property
    def scores(self) -> Tensor:
        """``[b]`` for regression, logits ``[b, c]`` for classes, ``[b, e, 2]`` for emotions."""

    @property
    def hidden(self) -> Tensor:
        """Fused representation, the input of the last layers, ``[b, h]``."""


_CARD = """---
{{ card_data }}
---

The network of one seed of an mmcl run. The folder of the run has `run.json`, what it learnt
from, and `metrics.json`, how well; `mmcl push RUN ./folder` writes a model card of both.
"""
"""Page beside the weights; without one the library writes that they were pushed to the Hub."""


class Network(nn.Module, PyTorchModelHubMixin, model_card_template=_CARD):
    """A model of clips: dictionaries of modalities in, scores out.

    Args:
        dims: Feature width per modality of the corpus; unused modalities are ignored.
        task: What is predicted.
        aligned: True if step i of every modality is the same stretch of time.
        model: Settings of the network.
        policy: Settings of its policies, if it has any.

    Raises:
        ShapeError: If the corpus has none of the modalities that the network uses.
    """

    takes: ClassVar[tuple[Modality, ...]] = MODALITIES
    """Modalities that this kind of network can use."""

    released: bool = False
    """True for the method as released, which requires one length for all modalities of a clip."""

    without_gradient: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the names of parameters that get no gradient from the task loss, on purpose."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(library_name="mmcl", coders=_CODERS, **given)

    def __init__(
        self,
        dims: dict[str, int],
        task: Task,
        *,
        aligned: bool = False,
        model: ModelSettings | None = None,
        policy: PolicySettings | None = None,
    ) -> None:
        super().__init__()
        # from_pretrained passes plain dictionaries, read from config.json.
        self.settings = ModelSettings.model_validate(model or {})
        self.policy_settings = PolicySettings.model_validate(policy or {})
        self.task, self.aligned = Task.model_validate(task), aligned
        wanted = [m for m in self.settings.modalities if m in self.takes]
        used = [m for m in MODALITIES if m in dims and m in wanted]
        self.modalities: tuple[Modality, ...] = tuple(used)
        if not used:
            raise ShapeError(f"none of the modalities {wanted} is in {list(dims)}")
        self.dims = {m: dims[m] for m in used}
        # Modalities that training had; saved with the weights.
        self.register_buffer("seen", torch.ones(len(used), dtype=torch.bool))
        self.seen: Tensor
        # Scores of stars or points are learned on the field's scale; see shape_scores.
        self.words: WordEncoder | None = None  # see attach_words
        self.score_scale = score_scale(self.task)
        if not self.score_scale.is_field:
            # Saved with the weights, which mean nothing on another scale.
            self.register_buffer(_RANGE, torch.tensor(self.task.score_range))

    def attach_words(self, words: WordEncoder) -> None:
        """Let a language model read the text: its width must be that of ``dims["text"]``.

        Raises:
            ShapeError: If it is not, or if the network does not use text.
        """
        if self.dims.get("text") != words.dim:
            raise ShapeError(
                f"the encoder has {words.dim} values per word, the network takes {self.dims}"
            )
        self.words = words

    def embed(self, batch: Batch) -> Batch:
        """Return a batch with vectors in place of word pieces; others are returned as they are."""
        if self.words is None or "text" not in batch.features:
            return batch
        vectors = self._word_vectors(batch.features["text"], batch.masks["text"])
        return batch._replace(features={**batch.features, "text": vectors})

    def _word_vectors(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode word pieces ``[b, n, k]``; vectors ``[b, n, d]`` come back as they are."""
        assert self.words is not None
        if x.shape[-1] == self.words.dim:
            return x
        vectors: Tensor = self.words(x, mask)
        return vectors

    @property
    def standardisers(self) -> Mapping[Modality, Standardiser]:
        """Standardisers of the features by modality; empty where there are none."""
        return {}

    def fit_standardisation(self, steps: Mapping[Modality, Tensor]) -> None:
        """Learn centre and scale of the features, and which modalities training has.

        Args:
            steps: Real steps of the training split, per modality ``[k, d_m]``. A modality
                without any is ignored from then on.
        """
        for m, modality in enumerate(self.modalities):
            self.seen[m] = len(steps[modality]) > 0
            # Vectors of words change while the encoder learns, so they have no fixed scale.
            is_learned = modality == "text" and self.words is not None
            if modality in self.standardisers and not is_learned:
                self.standardisers[modality].fit(steps[modality])

    @property
    def never_seen(self) -> tuple[Modality, ...]:
        """Modalities the training split had no step of; prediction ignores them."""
        return tuple(m for m, seen in zip(self.modalities, self.seen, strict=True) if not seen)

    def prepare_training(self, targets: Tensor) -> None:
        """Prepare once before training, given the targets of the whole training split."""

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Prepare an epoch, counted from 0, before its first batch."""

    def auxiliary_loss(self, output: Any, targets: Tensor, rows: Tensor) -> Tensor:
        """Return a loss that training adds to the task loss; 0 by default.

        Args:
            output: Output of :meth:`forward`.
            targets: Targets of the batch.
            rows: Row of every clip in the training split, ``[b]``.
        """
        return targets.new_zeros((), dtype=torch.float32)

    def training_state(self) -> dict[str, Any]:
        """State of training besides the parameters; see :meth:`load_training_state`."""
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`training_state` returned."""

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", strict: bool = True, **given: Any
    ) -> Self:
        """Load from a folder or a hub id: safetensors only, and every weight.

        The library's own way would leave missing weights random, fall back to a pickle, and
        print to stdout, where a command's result goes.
        """
        hub = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        options = {name: given.pop(name, None) for name in hub}
        file = Path(model_id) / SAFETENSORS_SINGLE_FILE
        if not Path(model_id).is_dir():
            file = Path(hf_hub_download(model_id, SAFETENSORS_SINGLE_FILE, **options))
        _check_size(cls, given, file)
        model = cls(**given)
        if hasattr(model, _RANGE):
            _check_saved_range(file, model.task)
        if (Path(model_id) / FOLDER).is_dir():
            model.attach_words(WordEncoder.from_folder(Path(model_id) / FOLDER))
        # Saving keeps a tensor that has two names once; load_state_dict would miss the other.
        load_model(model, file, strict=strict, device=map_location)
        _check_weights(model, file)
        return model.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the weights, and beside them the configuration and tokenizer of the encoder."""
        super()._save_pretrained(save_directory)
        if self.words is not None:
            self.words.save(save_directory / FOLDER)

    def complete(
        self, features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor] | None
    ) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
        """Check the features, and give a modality that is left out one masked step.

        A modality that training never saw is masked, too.

        Returns:
            Features ``[b, n_m, d_m]``, 0 at masked steps, and masks ``[b, n_m]``, of every
            modality in use.

        Raises:
            ShapeError: If shapes do not fit each other.
            DatasetError: If a real step holds NaN or infinity.
        """
        given = next((features[m] for m in self.modalities if m in features), None)
        if given is None:
            raise ShapeError(f"features must hold one of {list(self.modalities)}, got none of them")
        complete: dict[Modality, Tensor] = {}
        complete_masks: dict[Modality, Tensor] = {}
        for m, modality in enumerate(self.modalities):
            x = features.get(modality)
            # Mask: none where the modality is absent, all where none is given.
            if x is None:
                x = given.new_zeros(given.shape[0], 1, self.dims[modality])
                mask = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
            elif masks is None:
                mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            elif modality in masks:
                mask = masks[modality]
            else:
                raise ShapeError(f"masks must hold {modality}, as features do; got {list(masks)}")
            if modality == "text" and self.words is not None and modality in features:
                mask = mask & self.seen[m]
                x = self._word_vectors(x, mask)
            # Shapes must fit the first modality that is given.
            if x.ndim != 3 or mask.shape != x.shape[:2] or len(x) != len(given):
                raise ShapeError(
                    f"{modality} must be [clips, steps, features] with a mask [clips, steps] and "
                    f"{len(given)} clips, got {list(x.shape)} and {list(mask.shape)}"
                )
            if x.shape[-1] != self.dims[modality]:
                raise ShapeError(
                    f"{modality} must have {self.dims[modality]} features per step, "
                    f"got {x.shape[-1]}"
                )
            mask = mask & self.seen[m]
            complete_masks[modality] = mask
            if traced() or not mask.all():  # padding may hold anything, even NaN
                x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
            _check_finite(modality, x)
            complete[modality] = x
        return complete, complete_masks

    def shape_scores(self, raw: Tensor) -> Tensor:
        """Reshape raw outputs ``[..., output_dim]`` to the scores of the task.

        Raw scores lie on the field's scale, around 0. In a range other than the field's (see
        :mod:`mmcl.corpus.score_range`), 0 becomes the middle of the range and ±3 its ends, so
        that an untrained network begins in the middle. Predictions stay inside such a range;
        in training they may leave it, since a bounded score would have no gradient.
        """
        if self.task.kind == "regression":
            return self._to_range(raw.squeeze(-1))
        if self.task.kind == "classes":
            return raw
        return raw.view(*raw.shape[:-1], len(self.task.names), 2)

    def _to_range(self, raw: Tensor) -> Tensor:
        if self.task.score_range is None or self.score_scale.is_field:
            return raw
        # Half precision has too few digits for 0..100.
        scores = self.score_scale.from_field(raw.to(torch.promote_types(raw.dtype, torch.float32)))
        return scores if self.training else scores.clamp(*self.task.score_range)

    @property
    def keeps_missing_steps(self) -> bool:
        """True if a missing step stays a real step of zeros, instead of being masked."""
        return self.released  # it requires one length per clip

    @property
    def needs_equal_lengths(self) -> bool:
        """True if all modalities of a clip must have the same number of steps."""
        return self.released and self.aligned

    def collate(
        self, split: Split, rows: Sequence[int] | np.ndarray, targets: Tensor | None = None
    ) -> Batch:
        """Build a padded batch as this network takes it, on its device.

        Args:
            split: Clips of a corpus, which may lack some of the network's modalities.
            rows: Rows of the clips, ``[b]``.
            targets: Targets of the whole split, ``[clips, ...]``, or None.
        """
        available = [m for m in self.modalities if m in split.card.dims]
        batch = collate(split, rows, available, targets, keep_missing=self.keeps_missing_steps)
        return move_batch(batch, next(self.parameters()).device)

    def take_away(self, batch: Batch, missing: Mapping[Modality, Tensor]) -> Batch:
        """Return a batch without some of its steps; the given batch is not changed.

        Args:
            batch: Result of :meth:`collate`.
            missing: Steps to take away, by modality bool ``[b, n_m]``. Modalities that are not
                named stay complete.
        """
        features, masks = dict(batch.features), dict(batch.masks)
        for modality, removed in missing.items():
            removed = removed.to(masks[modality].device)
            features[modality] = features[modality].masked_fill(removed.unsqueeze(-1), 0.0)
            if not self.keeps_missing_steps:
                masks[modality] = masks[modality] & ~removed
        return batch._replace(features=features, masks=masks)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Context in evaluation mode and without gradient; the mode is restored afterwards."""
        was_training = self.training
        self.eval()
        try:
            # The random policy draws the same actions every time, and affects no later draw.
            with torch.inference_mode(), torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                yield
        finally:
            self.train(was_training)


def _check_size(network: type[Network], settings: dict[str, Any], file: Path) -> None:
    """Refuse settings of a network much larger than its file, before memory is taken for it."""
    try:
        with torch.device("meta"):  # shapes alone
            skeleton = network(**settings)
    except NotImplementedError:  # a model that looks at its values as it is built
        return
    needed = sum(tensor.nbytes for tensor in skeleton.state_dict().values())
    held = file.stat().st_size
    if needed > 2 * held + MIB:
        raise RunError(
            f"{file}: holds {held:,} bytes, and the settings in config.json beside it ask for "
            f"{needed:,}.\n"
            "  One of the two is damaged. Copy the folder again, or train it again: "
            "mmcl train CORPUS --out NEW"
        )


def _check_weights(model: Network, file: Path) -> None:
    """Refuse weights that are not finite: every prediction would be NaN."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise RunError(
                f"{file}: its weights {name} hold NaN or infinity.\n"
                "  The file is damaged. Copy it again, or train it again: "
                "mmcl train CORPUS --out NEW"
            )


def _check_saved_range(file: Path | str, task: Task) -> None:
    """Refuse weights that an earlier version trained without the scale of the task's range."""
    with safe_open(file, framework="pt") as saved:
        if _RANGE in saved.keys():  # noqa: SIM118 (it is no dictionary)
            return
    raise RunError(
        f"{file}: was trained by an earlier version of mmcl, which did not know the middle of "
        f"scores from {task.low:g} to {task.high:g}.\n"
        "  Its predictions would be wrong here. Train it again: mmcl train CORPUS --out NEW"
    )


def _check_finite(modality: Modality, x: Tensor) -> None:
    """Refuse features that are NaN or infinite; while a network is traced there are no values."""
    # One sum is much cheaper than a test of every value.
    if traced() or math.isfinite(x.detach().sum().item()):
        return
    bad = ~torch.isfinite(x).flatten(1).all(dim=1)
    if not bad.any():  # the sum of large finite numbers may overflow
        return
    raise DatasetError(
        f"{modality} holds NaN or infinity in clip {int(bad.nonzero()[0])} of the batch.\n"
        "  A corpus that was converted has none: mmcl corpus convert SRC DST"
    )
