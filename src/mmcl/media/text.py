"""Words to vectors: one per word, from any BERT-like encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.errors import MediaError
from mmcl.extras import load

__all__ = ["TextEncoder", "text_columns"]

_Floats = NDArray[np.float32]

WINDOW = 512
"""Most pieces looked at together, where the encoder sets no lower limit."""
BATCH = 32
"""Windows encoded at a time."""
OVERLAP = 4
"""A window repeats this part (a fourth) of the one before, so that no piece lacks context."""


class TextEncoder:
    """Vectors of words in their sentence: the mean of a word's pieces in the last layer.

    Sentences do not influence each other, and none is cut short: one longer than the encoder
    takes is read in overlapping windows, and a piece read twice counts twice.

    Args:
        model: Hub id or folder of an encoder (``AutoModel``) with a fast tokenizer. Only a
            hub id may open the network.
        threads: Threads to use while encoding.

    Attributes:
        dim: Width of a vector.

    Raises:
        MediaError: If the model cannot be loaded, or its tokenizer is not a fast one.
        MissingExtraError: If transformers is not installed.
    """

    def __init__(self, model: str, *, threads: int = 1) -> None:
        self._threads = threads
        self._tokenizer, self._encoder = _load(model)
        self._window = _longest_window(self._tokenizer, self._encoder.config)
        self.dim = int(self._encoder.config.hidden_size)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns: ``text_0``, ``text_1`` and so on."""
        return text_columns(self.dim)

    def encode(self, sentences: Sequence[Sequence[str]]) -> list[_Floats]:
        """Encode every word of every sentence.

        Args:
            sentences: The words of each sentence.

        Returns:
            One float32 ``[n_words, dim]`` array per sentence. A word of which the tokenizer
            makes nothing gets the mean of the sentence's pieces; zeros if there are none.
        """
        sums = [np.zeros((len(words), self.dim), np.float32) for words in sentences]
        counts = [np.zeros((len(words), 1), np.float32) for words in sentences]
        for owner, word_of_piece, vectors in self._pieces(sentences):
            np.add.at(sums[owner], word_of_piece, vectors)
            np.add.at(counts[owner], word_of_piece, 1.0)
        return [_means(total, count) for total, count in zip(sums, counts, strict=True)]

    def _pieces(
        self, sentences: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, NDArray[np.int64], _Floats]]:
        """For each window: its sentence, the word of each piece, and the pieces' vectors."""
        filled = [at for at, words in enumerate(sentences) if len(words)]
        if not filled:
            return
        read = self._tokenizer(
            [list(sentences[at]) for at in filled],
            is_split_into_words=True,
            padding=False,
            truncation=True,  # into windows: what overflows comes as further ones
            max_length=self._window,
            stride=self._window // OVERLAP,
            return_overflowing_tokens=True,
        )
        owners = [filled[at] for at in read["overflow_to_sample_mapping"]]
        order = sorted(range(len(owners)), key=lambda at: len(read["input_ids"][at]))
        for begin in range(0, len(order), BATCH):
            batch = order[begin : begin + BATCH]
            hidden = self._forward([read["input_ids"][at] for at in batch])
            for row, at in enumerate(batch):
                words = [-1 if word is None else word for word in read.word_ids(at)]
                word_of_piece = np.array(words, dtype=np.int64)
                real = np.flatnonzero(word_of_piece >= 0)
                yield owners[at], word_of_piece[real], hidden[row][real]

    def _forward(self, windows: list[list[int]]) -> _Floats:
        import torch

        padded = self._tokenizer.pad({"input_ids": windows}, return_tensors="pt")
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                hidden = self._encoder(
                    input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]
                ).last_hidden_state
        finally:
            torch.set_num_threads(before)
        vectors: _Floats = hidden.float().numpy()
        return vectors


def text_columns(dim: int) -> tuple[str, ...]:
    """Names of so many columns: ``text_0``, ``text_1`` and so on."""
    return tuple(f"text_{at}" for at in range(dim))


def _means(sums: _Floats, counts: _Floats) -> _Floats:
    known = counts[:, 0] > 0
    means = (sums / np.maximum(counts, 1.0)).astype(np.float32)
    if known.any():
        means[~known] = sums.sum(axis=0) / counts.sum()
    return means


def _load(model: str) -> tuple[Any, Any]:
    import torch

    transformers = load("transformers", "encoding text")
    local = _is_folder(model)
    try:
        with _quiet(transformers.utils.logging):
            # The prefix space lets byte-level tokenizers read lists of words; others ignore it.
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                model, local_files_only=local, add_prefix_space=True
            )
            encoder = transformers.AutoModel.from_pretrained(
                model, local_files_only=local, dtype=torch.float32
            ).eval()
    except Exception as error:  # the loaders raise whatever the files make them
        raise MediaError(_not_loaded(model, local, error)) from error
    if not tokenizer.is_fast:
        raise MediaError(
            f'text model "{_name(model, local)}" has no fast tokenizer, which is needed to know '
            "which pieces belong to which word; take a model with a tokenizer.json"
        )
    return tokenizer, encoder


def _is_folder(model: str) -> bool:
    path = Path(model)
    if path.is_dir():
        return True
    if path.exists() or path.is_absolute() or model.startswith(".") or model.count("/") > 1:
        raise MediaError(
            f'text model "{path.name}" is no folder; give a folder with config.json and '
            "tokenizer.json, or a hub id such as sentence-transformers/all-MiniLM-L6-v2"
        )
    return False


def _not_loaded(model: str, local: bool, error: Exception) -> str:
    said = str(error).strip().split("\n")[0]
    fix = (
        "Expected config.json, tokenizer.json and model.safetensors in the folder."
        if local
        else "Is it spelt as on the hub? Without a network, give a folder instead."
    )
    return f'text model "{_name(model, local)}" cannot be loaded: {said}\n  {fix}'


def _name(model: str, local: bool) -> str:
    return Path(model).resolve().name if local else model


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """No progress bars and no notes about heads that are not used, while a model loads."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _longest_window(tokenizer: Any, config: Any) -> int:
    # Models after RoBERTa number positions from 2, so two of those they list are not theirs.
    places = getattr(config, "max_position_embeddings", None) or WINDOW + 2
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        places = WINDOW + 2
    return int(min(tokenizer.model_max_length, places - 2, WINDOW))
