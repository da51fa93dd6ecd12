"""Corpora made to fit a run: its task, its widths, and text in the form that its networks read."""

from __future__ import annotations

from mmcl.corpus.schema import Card, Task
from mmcl.corpus.store import Corpus
from mmcl.errors import RunError
from mmcl.media.text_vectors import has_words, identity, recorded_text_model, with_vectors_of_words
from mmcl.media.transcripts.languages import foreign_language
from mmcl.media.weights import STARTER_NAME
from mmcl.models.network import Network

__all__ = ["check_language", "fitting_corpus", "text_model_notes"]

ENGLISH = "en"
TEXTS = 500  # clips whose text tells the language of a corpus


def fitting_corpus(where: str, card: Card, model: Network, corpus: Corpus) -> Corpus:
    """Return a corpus as the networks of a run read it; see :meth:`Run.prepared`.

    Args:
        where: The run's folder or name, for messages.
        card: The card of the run's own corpus.
        model: A network of the run.
        corpus: Any corpus.

    Raises:
        RunError: If it does not fit.
        MediaError: If vectors are needed and the text model cannot be loaded.
    """
    if "text" in model.modalities:
        if model.words is not None:
            corpus = model.words.corpus(corpus)
        else:
            corpus = _with_text_vectors(where, card, corpus)
            _check_text_model(where, card, corpus)
    _check_fits(where, card, model, corpus)
    return corpus


def _with_text_vectors(where: str, card: Card, corpus: Corpus) -> Corpus:
    """Return a corpus with vectors of its words, if it has none and their model is known."""
    text_model = recorded_text_model(card).name
    if text_model is None:
        return corpus
    if corpus.card.language != card.language:
        check_language(where, text_model, corpus.card.language, corpus.card.name)
    if "text" in corpus.card.dims or not has_words(corpus):
        return corpus
    texts = corpus.every_clip().table.column("text").slice(0, TEXTS).to_pylist()
    language = foreign_language(" ".join(filter(None, texts)))
    check_language(where, text_model, language, corpus.card.name)
    return with_vectors_of_words(corpus, text_model)


def check_language(where: str, text_model: str | None, language: str | None, source: str) -> None:
    """Refuse words in another language than English, if the text model is the starter's.

    Args:
        where: The run's folder or name, for the message.
        text_model: Name of the text model of the run.
        language: Language of the words; None if it is not known.
        source: What holds the words, for the message.

    Raises:
        RunError: If the words are not English.
    """
    if text_model != STARTER_NAME or language in (None, ENGLISH):
        return
    raise RunError(
        f'{where}: the starter knows English only, and the words of "{source}" are in another '
        f"language ({language}): its scores of them would mean nothing.\n"
        "  Train a run on rated clips in that language: docs/your-own-video.md"
    )


def _check_text_model(where: str, card: Card, corpus: Corpus) -> None:
    """Refuse text vectors that are known to be by another model than those of the run."""
    own, given = recorded_text_model(card), recorded_text_model(corpus.card)
    if "text" not in corpus.card.dims or own.label is None or given.label is None:
        return
    if identity(own.label) == identity(given.label):
        return
    option = f"--text-model {own.name or 'FOLDER'}"
    again = f"Make them from a file without them: mmcl corpus convert SRC DST {option}"
    if "extraction" in corpus.card.recipe:
        again = f"Extract the recordings again: mmcl extract SRC {option}"
    raise RunError(
        f"{where}: the text of {corpus.card.name!r} does not fit.\n"
        f"  {given.label} made its vectors, {own.label} made those that the run was trained on: "
        f"their numbers mean different things.\n  {again}"
    )


def text_model_notes(own_card: Card, card: Card) -> list[str]:
    """Return a note if the vectors of a corpus may be by another text model than the run's."""
    own, given = recorded_text_model(own_card).label, recorded_text_model(card).label
    if "text" not in card.dims or own is None or given == own:
        return []
    if given is None:
        return [
            f"text: {own} made the vectors that the run was trained on; the corpus does not say "
            "what made its own"
        ]
    return [f"text: the vectors of the corpus are by {given}, those of the run by {own}"]


def _check_fits(where: str, card: Card, model: Network, corpus: Corpus) -> None:
    """Raise a RunError unless a corpus has the run's task and feature widths."""
    # All faults are reported together.
    given, used = corpus.card, model.modalities
    # Word pieces have no width that could differ.
    compared = [m for m in used if m != "text" or model.words is None]
    faults = [
        f"{m}: {given.dims[m]} features per step, the run was trained on {card.dims[m]}"
        for m in compared
        if m in given.dims and given.dims[m] != card.dims[m]
    ]
    if not any(m in given.dims for m in used):
        held = " and ".join(given.dims) or "no features"
        faults.append(f"it has {held}, the run was trained on {' and '.join(used)}")
    if model.needs_equal_lengths and not given.aligned:
        faults.append("it is not aligned, and released was trained on a corpus that is")
    tasks = _task_name(given.task), _task_name(card.task)
    if tasks[0] != tasks[1]:
        faults.append("its task is {}, the run's is {}".format(*tasks))
    if faults:
        raise RunError(
            "\n  ".join([f"{where}: the corpus {given.name!r} does not fit.", *faults])
            + "\n  See what the corpus holds: mmcl corpus describe CORPUS"
        )


def _task_name(task: Task) -> str:
    return f"{task.kind} of {', '.join(task.names)}" if task.names else task.kind
