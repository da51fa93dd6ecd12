"""A language model as the first part of a network: it reads words and learns with the rest.

It stands between batch and network (:meth:`~mmcl.models.network.Network.complete`), so that every
model gets vectors of words and none knows of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmcl.config import TextSettings
from mmcl.corpus.store import Corpus
from mmcl.errors import ConfigError, RunError, ShapeError
from mmcl.extras import load
from mmcl.models.layers import Dropout, traced
from mmcl.models.tokens import tokenised

__all__ = ["FOLDER", "WordEncoder"]

FOLDER = "encoder"
"""Folder of the encoder, beside the weights of a network that was saved."""
SETTINGS = "settings.json"
CLIPS_AT_ONCE = 32  # clips of like length that are encoded together, to save padding


class WordEncoder(nn.Module):
    """Vectors of words in their sentence, by a BERT-like encoder.

    A vector is the mean of a word's pieces in the last layer. The other clips of a batch and
    their padding change nothing.

    Args:
        encoder: Encoder of transformers.
        tokenizer: Its fast tokenizer.
        settings: Settings of the encoder; those that choose weights were applied already.

    Attributes:
        dim: Width of a vector.
    """

    def __init__(self, encoder: Any, tokenizer: Any, settings: TextSettings) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.settings = encoder, tokenizer, settings
        self.dim = int(encoder.config.hidden_size)
        # It would get no gradient.
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        _use_fast_dropout(encoder)
        _freeze(encoder, settings.frozen_layers)
        if settings.checkpointing:
            encoder.config.use_cache = False  # transformers warns of it otherwise
            # Versions of transformers have it under either name.
            old = encoder.gradient_checkpointing_enable
            getattr(encoder, "activation_checkpointing_enable", old)()
        if settings.adapter == "lora":
            self.encoder = _with_adapter(encoder, settings.rank)

    @classmethod
    def published(cls, settings: TextSettings) -> Self:
        """Load the encoder that the settings name, with its published weights.

        Raises:
            MissingExtraError: If transformers or the packaged encoder is not installed.
            MediaError: If the encoder cannot be loaded.
            ConfigError: If it has fewer positions than ``max_tokens``.
        """
        from mmcl.media.text import load_encoder
        from mmcl.media.weights import text_model

        name = None if settings.encoder == "packaged" else settings.encoder
        tokenizer, encoder = load_encoder(text_model(name)[0])
        _check_positions(tokenizer, encoder, settings)
        return cls(encoder, tokenizer, settings)

    def renewed(self, settings: TextSettings) -> WordEncoder:
        """Return an encoder with the same weights that learns by other settings.

        What LoRA has learnt is added to the weights; further matrices begin afresh.

        Raises:
            ConfigError: If the encoder has fewer positions than ``max_tokens``.
        """
        transformers = load("transformers", "encoding text")
        _check_positions(self.tokenizer, self.encoder, settings)
        learnt = self.encoder
        if self.settings.adapter == "lora":
            learnt = learnt.merge_and_unload()
        encoder = transformers.AutoModel.from_config(learnt.config)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        encoder.load_state_dict(learnt.state_dict())
        return WordEncoder(encoder, self.tokenizer, settings)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Build the encoder of a saved network; its weights are loaded with the network's.

        Raises:
            RunError: If a file is missing or damaged.
        """
        transformers = load("transformers", "encoding text")
        try:
            settings = TextSettings.model_validate_json((folder / SETTINGS).read_text())
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            encoder = transformers.AutoModel.from_config(config)
        except (OSError, ValueError) as fault:
            raise RunError(
                f"{folder}: the encoder of the words cannot be loaded "
                f"({str(fault).splitlines()[0]}).\n"
                "  Copy the run folder again, or train it again: mmcl train CORPUS --out NEW"
            ) from None
        return cls(encoder, tokenizer, settings)

    def save(self, folder: Path) -> None:
        """Write everything but the weights: configuration, tokenizer and settings."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / SETTINGS).write_text(self.settings.model_dump_json(indent=2))

    def corpus(self, corpus: Corpus) -> Corpus:
        """Return a corpus with word pieces in place of vectors of words."""
        return tokenised(corpus, self.tokenizer, self.settings)

    def forward(self, pieces: Tensor, mask: Tensor) -> Tensor:
        """Encode the pieces of every step.

        Args:
            pieces: Numbers of pieces plus one, 0 for none, float ``[b, n, k]``.
            mask: Real steps, bool ``[b, n]``; pieces of other steps are not read.

        Returns:
            Vectors ``[b, n, dim]``, zeros where a step has no pieces.
        """
        if traced():
            raise ShapeError("a network with text.encoder cannot be exported")
        numbers = pieces.long() * mask.unsqueeze(-1)  # [b, n, k]
        row, step, _ = numbers.nonzero(as_tuple=True)  # of every piece, in reading order
        token = numbers[numbers > 0] - 1
        counts = torch.bincount(row, minlength=len(numbers))  # pieces of every clip
        vectors = self._piece_vectors(token, row, counts)
        # Mean of the pieces of every step.
        index = row * numbers.shape[1] + step
        shape = (numbers.shape[0] * numbers.shape[1], self.dim)
        total = vectors.new_zeros(shape).index_add(0, index, vectors)
        share = torch.bincount(index, minlength=shape[0]).clamp(min=1).unsqueeze(1)
        return (total / share).view(*numbers.shape[:2], self.dim)

    def _piece_vectors(self, token: Tensor, row: Tensor, counts: Tensor) -> Tensor:
        """Return a vector per piece, ``[pieces, dim]``."""
        place = torch.arange(len(token), device=token.device) - (counts.cumsum(0) - counts)[row]
        parts, order = [], []
        for clips in _groups(counts):
            mine = torch.isin(row, clips)
            length = int(counts[clips].max())
            slot = torch.full((len(counts),), -1, device=token.device)
            slot[clips] = torch.arange(len(clips), device=token.device)
            hidden, shift = self._encode(
                token[mine], slot[row[mine]], place[mine], len(clips), length
            )
            parts.append(hidden[slot[row[mine]], place[mine] + shift])
            order.append(mine.nonzero().squeeze(1))
        if not parts:
            return torch.zeros(0, self.dim, device=token.device)
        joined = torch.cat(parts)
        return joined.new_zeros(joined.shape).index_copy(0, torch.cat(order), joined)

    def _encode(
        self, token: Tensor, slot: Tensor, place: Tensor, clips: int, length: int
    ) -> tuple[Tensor, int]:
        """Run the encoder on clips of similar length; return hidden states and the first place."""
        begin, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        # Pieces that mark beginning and end are among the steps already if these are pieces.
        has_marks = self.settings.pool == "words" and begin is not None and end is not None
        shift = int(has_marks)
        ids = token.new_full((clips, length + 2 * shift), self.tokenizer.pad_token_id or 0)
        attended = torch.zeros_like(ids)
        ids[slot, place + shift] = token
        attended[slot, place + shift] = 1
        if has_marks:
            counts = torch.bincount(slot, minlength=clips)
            rows = torch.arange(clips, device=token.device)
            ids[:, 0] = begin
            ids[rows, counts + 1] = end
            attended[:, 0] = 1
            attended[rows, counts + 1] = 1
        hidden: Tensor = self.encoder(input_ids=ids, attention_mask=attended).last_hidden_state
        return hidden, shift


def _groups(counts: Tensor) -> Iterator[Tensor]:
    """Yield clips with pieces, those of like length together; on a GPU all at once."""
    order = counts.argsort(stable=True)
    order = order[counts[order] > 0]
    size = CLIPS_AT_ONCE if counts.device.type == "cpu" else max(len(order), 1)
    yield from torch.split(order, size) if len(order) else ()


def _check_positions(tokenizer: Any, encoder: Any, settings: TextSettings) -> None:
    """Refuse texts of more pieces than the encoder has positions for."""
    limit = _positions(tokenizer, encoder)
    if settings.max_tokens > limit:
        raise ConfigError(
            f"text.max_tokens is {settings.max_tokens}, and {settings.encoder} reads at most "
            f"{limit}\n  Use: --set text.max_tokens={limit}"
        )


def _positions(tokenizer: Any, encoder: Any) -> int:
    positions = (
        getattr(encoder.config, "max_position_embeddings", None) or tokenizer.model_max_length
    )
    return int(min(tokenizer.model_max_length, positions))


def _use_fast_dropout(encoder: nn.Module) -> None:
    """Replace torch's dropout by that of the models, which saves 6% of a step on a CPU."""
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Dropout(child.p))


def _freeze(encoder: Any, layers: int) -> None:
    """Freeze the embeddings and the first layers."""
    if not layers:
        return
    stack = getattr(getattr(encoder, "encoder", None), "layer", None)
    if stack is None or layers > len(stack):
        found = "none that are known" if stack is None else len(stack)
        raise ConfigError(
            f"text.frozen_layers is {layers}; the encoder has {found}\n"
            "  Use fewer, or 0: --set text.frozen_layers=0"
        )
    for module in (encoder.embeddings, *stack[:layers]):
        module.requires_grad_(False)


def _with_adapter(encoder: Any, rank: int) -> Any:
    """Return the encoder with LoRA: matrices of low rank learn in place of its weights."""
    peft = load("peft", "text.adapter lora", extra="text")
    settings = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5 for an old name
        warnings.simplefilter("ignore", FutureWarning)
        return peft.get_peft_model(encoder, settings)
