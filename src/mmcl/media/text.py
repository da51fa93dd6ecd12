"""Encode words as vectors, one per word, by any BERT-like encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.errors import MediaError
from mmcl.extras import load

__all__ = ["ADAPTER", "TextEncoder", "load_encoder", "text_columns"]

_Floats = NDArray[np.float32]

ADAPTER = "adapter.safetensors"
"""A folder with this file holds the changes, and not the weights, of the packaged encoder."""
WINDOW = 512  # most pieces that are encoded together, where the encoder has no lower limit
BATCH = 32  # windows encoded at a time
OVERLAP = 4  # a window repeats a fourth of the one before, so that no piece lacks context


class TextEncoder:
    """Vectors of words in their sentence: the mean of a word's pieces in the last layer.

    Sentences do not influence each other, and none is cut short. One that is longer than the
    encoder accepts is read in overlapping windows, and a piece read twice counts twice.

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
        self._tokenizer, self._encoder = load_encoder(model)
        self._window = _window_length(self._tokenizer, self._encoder.config)
        self.dim = int(self._encoder.config.hidden_size)

    def encode(self, sentences: Sequence[Sequence[str]]) -> list[_Floats]:
        """Encode every word of every sentence, as one float32 ``[n_words, dim]`` per sentence.

        A word of which the tokenizer makes no pieces gets the mean of the sentence's pieces;
        zeros if there are none.
        """
        sums = [np.zeros((len(words), self.dim), np.float32) for words in sentences]
        counts = [np.zeros((len(words), 1), np.float32) for words in sentences]
        for sentence, word_of_piece, vectors in self._pieces(sentences):
            np.add.at(sums[sentence], word_of_piece, vectors)
            np.add.at(counts[sentence], word_of_piece, 1.0)
        means = []
        for total, count in zip(sums, counts, strict=True):
            mean = (total / np.maximum(count, 1.0)).astype(np.float32)
            if count.any():
                mean[count[:, 0] == 0] = total.sum(axis=0) / count.sum()
            means.append(mean)
        return means

    def _pieces(
        self, sentences: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, NDArray[np.int64], _Floats]]:
        """Yield for each window its sentence, the word of each piece, and the pieces' vectors."""
        filled = [index for index, words in enumerate(sentences) if len(words)]
        if not filled:
            return
        tokens = self._tokenizer(
            [list(sentences[index]) for index in filled],
            is_split_into_words=True,
            padding=False,
            truncation=True,  # into windows: what does not fit becomes further ones
            max_length=self._window,
            stride=self._window // OVERLAP,
            return_overflowing_tokens=True,
        )
        owners = [filled[index] for index in tokens["overflow_to_sample_mapping"]]
        # Windows of about the same length go together, to save padding.
        order = sorted(range(len(owners)), key=lambda window: len(tokens["input_ids"][window]))
        for begin in range(0, len(order), BATCH):
            batch = order[begin : begin + BATCH]
            hidden = self._forward([tokens["input_ids"][window] for window in batch])
            for row, window in enumerate(batch):
                words = [-1 if word is None else word for word in tokens.word_ids(window)]
                word_of_piece = np.array(words, dtype=np.int64)
                real = np.flatnonzero(word_of_piece >= 0)  # no [CLS], [SEP] or padding
                yield owners[window], word_of_piece[real], hidden[row][real]

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
    """Return the names of ``dim`` columns: ``text_0``, ``text_1`` and so on."""
    return tuple(f"text_{index}" for index in range(dim))


def load_encoder(model: str) -> tuple[Any, Any]:
    """Load a fast tokenizer and an encoder, in float32 and evaluation mode.

    Raises:
        MediaError: If the model cannot be loaded, or its tokenizer is not a fast one.
        MissingExtraError: If transformers is not installed.
    """
    import torch

    transformers = load("transformers", "encoding text")
    path = Path(model)
    is_folder = path.is_dir()
    is_hub_id = not (path.exists() or path.is_absolute() or model.startswith("."))
    if not is_folder and not (is_hub_id and model.count("/") <= 1):
        raise MediaError(
            f'text model "{path.name}" is no folder; give a folder with config.json and '
            "tokenizer.json, or a hub id such as sentence-transformers/all-MiniLM-L6-v2"
        )
    name = path.resolve().name if is_folder else model
    if is_folder and (path / ADAPTER).is_file():
        return _adapted_encoder(path)
    try:
        with _quiet(transformers.utils.logging):
            # The prefix space lets byte-level tokenizers read lists of words; others ignore it.
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                model, local_files_only=is_folder, add_prefix_space=True
            )
            encoder = transformers.AutoModel.from_pretrained(
                model, local_files_only=is_folder, dtype=torch.float32
            ).eval()
    except Exception as error:  # whatever broken files make the loaders raise
        message = str(error).strip().split("\n")[0]
        fix = "Is it spelt as on the hub? Without a network, give a folder instead."
        if is_folder:
            fix = "Expected config.json, tokenizer.json and model.safetensors in the folder."
        raise MediaError(f'text model "{name}" cannot be loaded: {message}\n  {fix}') from error
    if not tokenizer.is_fast:
        raise MediaError(
            f'text model "{name}" has no fast tokenizer, which is needed to know '
            "which pieces belong to which word; take a model with a tokenizer.json"
        )
    return tokenizer, encoder


def _adapted_encoder(folder: Path) -> tuple[Any, Any]:
    """Load the packaged encoder with the changes of a folder."""
    from safetensors import SafetensorError

    from mmcl.media.adapter import add_adapter
    from mmcl.media.weights import text_model

    tokenizer, encoder = load_encoder(text_model(None)[0])
    # A damaged file; half of a pair; no matrix; matrices that do not fit each other.
    damage = (OSError, SafetensorError, ValueError, LookupError, TypeError, RuntimeError)
    try:
        add_adapter(encoder, folder / ADAPTER)
    except damage as error:
        raise MediaError(
            f'text model "{folder.name}": {ADAPTER} cannot be used: {error}\n'
            "  Install mmcl again: pip install --force-reinstall mmcl"
        ) from error
    return tokenizer, encoder


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Show no progress bars and no notes about unused weights while a model loads."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _window_length(tokenizer: Any, config: Any) -> int:
    # RoBERTa and its successors number positions from 2, so two of those they list are unused.
    positions = getattr(config, "max_position_embeddings", None) or WINDOW + 2
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        positions = WINDOW + 2
    return int(min(tokenizer.model_max_length, positions - 2, WINDOW))
