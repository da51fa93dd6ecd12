"""The start of a training: the weights of a run that has finished, instead of random ones.

``learning.start`` names the run. Its first finished seed gives its network to every seed of the
new run. A training that goes on from its checkpoint does not need the start any more.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mmcl.config import STARTER_NAME, Config, TextSettings, resolve_config
from mmcl.corpus.schema import Card
from mmcl.corpus.store import Corpus
from mmcl.errors import ConfigError, RunError
from mmcl.files import read_json, reading
from mmcl.learning.fitted import DONE, MODEL
from mmcl.media import weights
from mmcl.media.text_vectors import PACKAGED, has_words, recorded_text_model
from mmcl.models.network import Network
from mmcl.models.registry import load_network
from mmcl.models.transfer import Taken, take_weights
from mmcl.models.words import WordEncoder
from mmcl.types import MODALITIES, Modality

__all__ = [
    "START",
    "Start",
    "first_encoder",
    "open_start",
    "start_note",
    "start_settings",
    "with_start",
]

START = "start.json"
"""File beside a seed's checkpoint: what the training took from its start."""
_WEIGHTS = "model.safetensors"
_ENCODER_KEYS = ("encoder", "max_tokens", "pool")
"""Settings of a start's encoder that its network relies on."""


class Start:
    """A finished run that other trainings start from.

    Attributes:
        place: Its folder, or ``starter``, as ``learning.start`` has it.
        folder: Its folder.
        seed: The seed whose network is taken.
    """

    def __init__(self, place: str, folder: Path, seed: int, description: dict[str, Any]) -> None:
        self.place, self.folder, self.seed = place, folder, seed
        with reading(folder / "run.json"):
            self.config: dict[str, Any] = dict(description["config"])
            self.model_name = str(self.config["model"]["name"])
            self.card = Card.model_validate(description["corpus"])

    @cached_property
    def network(self) -> Network:
        """The trained network."""
        # Random numbers of the training must not depend on how a network is loaded.
        with torch.random.fork_rng(devices=[]):
            return load_network(self._network_folder)

    @property
    def _network_folder(self) -> Path:
        return self.folder / f"seed-{self.seed}" / MODEL

    @property
    def encoder(self) -> str | None:
        """The encoder that learnt with the run, by its name; None if it had frozen vectors."""
        name: str | None = self.config.get("text", {}).get("encoder")
        return name

    @property
    def vectors_by(self) -> str | None:
        """The model that made the run's frozen text vectors, if it is known."""
        label = _vectors_by(self.card)
        if label is None and self.place == STARTER_NAME:
            return STARTER_NAME
        return label

    @property
    def _text_model(self) -> str | None:
        """The same model by the name that ``text.encoder`` takes."""
        name = recorded_text_model(self.card).name
        return STARTER_NAME if name is None and self.place == STARTER_NAME else name

    def record(self) -> dict[str, Any]:
        """Return what a run that starts here says of it in run.json."""
        path = self._network_folder / _WEIGHTS
        with reading(path):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return {"run": self.place, "seed": self.seed, "sha256": digest}

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        """Return the settings that a training on a corpus takes over: those of the network.

        If the corpus keeps words and has no vectors of them, the encoder that made the vectors
        of the start reads them.
        """
        model = {key: value for key, value in self.config["model"].items() if key != "modalities"}
        tree: dict[str, Any] = {"model": model, "learning": {"start": self.place}}
        tree["policy"] = dict(self.config.get("policy", {}))
        if self.encoder is not None:
            text = self.config["text"]
            tree["text"] = {key: text[key] for key in _ENCODER_KEYS if key in text}
        elif (encoder := self.encoder_for(corpus)) is not None:
            tree["text"] = {"encoder": encoder}
        return tree

    def encoder_for(self, corpus: Corpus) -> str | None:
        """Return the encoder that reads the words of a corpus as the start does, if one must."""
        if "text" in corpus.card.dims or not self._reads_text or not has_words(corpus):
            return None
        return self.encoder or self._text_model

    @property
    def _reads_text(self) -> bool:
        uses = "text" in self.config["model"].get("modalities", MODALITIES)
        return uses and ("text" in self.card.dims or self.encoder is not None)

    def check(self, card: Card, config: Config) -> None:
        """Refuse a training of another model, or on text vectors of another encoder.

        Args:
            card: Card of the corpus.
            config: Settings of the new training.

        Raises:
            ConfigError: If it is of another model.
            RunError: If the vectors of its text cannot be those that the start has learnt.
        """
        if config.model.name != self.model_name:
            raise ConfigError(
                f"learning.start is {self.place}, a run of {self.model_name}; this training is of "
                f"{config.model.name}\n"
                f"  Train the same model: --model {self.model_name}\n"
                "  Or begin with random weights: leave --from out"
            )
        frozen = "text" in card.dims and config.text.encoder is None
        if not (frozen and "text" in config.model.modalities and self._reads_text):
            return
        made, expected = _vectors_by(card) or "a model that is not named", self.vectors_by
        if self.encoder is not None:
            raise RunError(
                f"{self.place}: its network reads words by an encoder that learnt with it "
                f"({self.encoder}); the text of {card.name} is to be read as frozen vectors.\n"
                f"  Let the encoder read the words: --set text.encoder={self.encoder}"
            )
        if expected is not None and not _same_model(made, expected):
            encoder = self._text_model
            fix = ""
            if encoder is not None:
                fix = (
                    f"\n  Make the same vectors: mmcl corpus convert SRC DST --text-model {encoder}"
                    f"\n  Or let the encoder read the words: --set text.encoder={encoder}"
                )
            raise RunError(
                f"{self.place}: learnt from text vectors of {expected}; those of {card.name} are "
                f"of {made}.{fix}"
            )

    def give(self, model: Network, card: Card, config: Config) -> dict[str, Any]:
        """Give a new network the weights that fit, and return what it took, for JSON.

        Raises:
            ConfigError: If it is another model, or if nothing fits.
            RunError: If the vectors of its text cannot be those that the start has learnt.
        """
        self.check(card, config)
        allowed = [m for m in MODALITIES if m != "text" or self._same_text(config, model)]
        with torch.no_grad():
            taken = take_weights(model, self.network, allowed=allowed)
        if not taken.modalities:
            raise ConfigError(
                f"learning.start is {self.place}, and nothing of it fits this training.\n"
                f"  It reads {_features(self.network)}; this network reads {_features(model)}.\n"
                f"  Take the settings of its network: mmcl train CORPUS --from {self.place}, "
                "without --set model.*"
            )
        return {
            "run": self.place,
            "seed": self.seed,
            "taken": list(taken.modalities),
            "afresh": [*taken.afresh, *taken.layers],
            "note": self._note(taken),
        }

    def _same_text(self, config: Config, model: Network) -> bool:
        """Tell whether steps of text mean the same in both; frozen vectors were checked before."""
        if model.words is None:
            return True
        if self.encoder is not None:
            return config.text.encoder == self.encoder
        label = weights.text_model(_model_name(config.text.encoder))[1]
        return self.vectors_by is not None and _same_model(label, self.vectors_by)

    def _note(self, taken: Taken) -> str:
        where = self.place if self.place == STARTER_NAME else f"{self.place} (seed {self.seed})"
        note = f"started from {where}: took {_listed(taken.modalities)}"
        afresh = [*taken.afresh, *taken.layers]
        if afresh:
            note += f"; began afresh: {', '.join(afresh)}"
        unused = [m for m in self.network.modalities if m not in (*taken.modalities, *taken.afresh)]
        if unused:
            note += f"; not used: {', '.join(unused)}"
        return note


def open_start(place: str) -> Start:
    """Open the run that ``learning.start`` names.

    Raises:
        RunError: If it is no run folder, or no seed of it has finished.
    """
    folder = weights.STARTER / "run" if place == STARTER_NAME else Path(place)
    try:
        description = read_json(folder / "run.json")
    except OSError:
        if place == STARTER_NAME:
            raise RunError(
                f"{weights.STARTER}: the starter's files are missing.\n"
                "  Install mmcl again: pip install --force-reinstall mmcl"
            ) from None
        raise RunError(
            f"{folder}: no training can start from it: not a run folder (no run.json in it).\n"
            "  Give the folder of a finished run, or the model of the package: --from starter"
        ) from None
    with reading(folder / "run.json"):
        seeds = [int(seed) for seed in description["seeds"]]
    finished = [seed for seed in seeds if (folder / f"seed-{seed}" / DONE).exists()]
    if not finished:
        raise RunError(
            f"{folder}: no training can start from it: none of its seeds {seeds} has finished.\n"
            "  Continue it: the same mmcl train command with --resume"
        )
    return Start(place, folder, finished[0], description)


def start_settings(place: str | Path, corpus: Corpus) -> dict[str, Any]:
    """Return the settings that a training takes over from its start; see :meth:`Start.settings`.

    Args:
        place: Run folder, or ``starter``.
        corpus: The corpus to learn from.
    """
    return open_start(_absolute(place)).settings(corpus)


def with_start(config: Config | None, place: str | Path, corpus: Corpus) -> Config:
    """Return settings of a training that starts from a run.

    Without settings they are those of the start. Given ones stay, but an encoder is named where
    the corpus has words and no vectors of them.
    """
    start = open_start(_absolute(place))
    if config is None:
        return resolve_config(base=start.settings(corpus))
    learning = config.learning.model_copy(update={"start": start.place})
    text = config.text
    if text.encoder is None and (encoder := start.encoder_for(corpus)) is not None:
        text = text.model_copy(update={"encoder": encoder})
    return config.model_copy(update={"learning": learning, "text": text})


def first_encoder(settings: TextSettings, start: Start | None) -> WordEncoder | None:
    """Return the encoder of words that a training begins with, if the settings name one.

    It is that of the start if this has the same, else the published one.
    """
    if settings.encoder is None:
        return None
    if start is not None and start.encoder == settings.encoder:
        words = start.network.words
        if words is not None:
            return words.renewed(settings)
    return WordEncoder.published(settings)


def start_note(folder: Path) -> list[str]:
    """Return the note of what the training in a folder took from its start, if it had one."""
    try:
        content = read_json(folder / START)
    except FileNotFoundError:
        return []
    with reading(folder / START):
        return [str(content["note"])]


def _absolute(place: str | Path) -> str:
    return str(place) if str(place) == STARTER_NAME else str(Path(place).expanduser().absolute())


def _model_name(encoder: str | None) -> str | None:
    """Return the name of an encoder as ``mmcl.media`` has it: None for the packaged one."""
    return None if encoder == PACKAGED else encoder


def _vectors_by(card: Card) -> str | None:
    """Return the label of the model that made a corpus's text vectors, else its name if known."""
    made = recorded_text_model(card)
    return made.label or made.name


def _same_model(first: str, second: str) -> bool:
    """Compare two labels of models; one may lack the version."""
    return (
        first == second
        or f"{first} ".startswith(f"{second} ")
        or f"{second} ".startswith(f"{first} ")
    )


def _features(network: Network) -> str:
    """Return the modalities of a network and their widths, and the width of its spaces."""
    dims = _listed([f"{m} ({dim} wide)" for m, dim in network.dims.items()])
    return f"{dims} with model.width {network.settings.width}"


def _listed(parts: list[str] | tuple[Modality, ...]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else str(last)
