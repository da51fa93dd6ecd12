"""Laws over whatever somebody else may send: text, tables, pickles, files of a run, requests."""

import csv
import json
import math
import pickle
import shutil
import unicodedata
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fakes.loops import run_apart
from mmcl.corpus.schema import Card, Clip, Task, Word
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.corpus.unpickle import load_pickle
from mmcl.errors import DatasetError, MMCLError
from mmcl.evaluation.tables import write_table
from mmcl.files import csv_cell
from mmcl.media.folders.gather import gather
from mmcl.media.transcripts.reading import TRANSCRIPT_ENDINGS, read_transcript
from mmcl.plain import MOST_SHOWN, plain
from mmcl.runs.run import Run

EARLIER_RUN = Path(__file__).parents[1] / "golden" / "earlier-run" / "run"
RUN_FILES = ("run.json", "metrics.json", "seed-1/done.json", "seed-1/model/config.json")
MODALITIES = ("text", "audio", "vision")


def law(most):
    """Examples that are the same every time, so many of them, and none kept on the disk."""
    return settings(
        max_examples=most,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def mixed(*pieces, most=12):
    """Text made of the pieces that a format consists of, and of anything."""
    return st.lists(st.sampled_from(pieces) | st.text(max_size=8), max_size=most).map("".join)


# ---------------------------------------------------------------- what is shown

LONG = st.text(min_size=1, max_size=40).flatmap(lambda t: st.integers(1, 100).map(t.__mul__))


@law(200)
@given(value=LONG, quote=st.sampled_from("\"'"))
def test_what_is_shown_of_a_value_is_harmless_and_short(value, quote):
    value = value.replace(quote, "") if quote == '"' else value.replace(quote, "").replace("\n", "")
    shown = plain(f"the id {quote}{value}{quote} is wrong.\n  Expected another.")
    odd = {c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"}
    assert not odd
    first, *others = shown.split("\n")
    assert others == ["  Expected another."]
    assert len(first) <= len("the id '' is wrong.") + MOST_SHOWN
    assert plain(shown) == shown


@law(200)
@given(text=mixed("=", "+", "-", "@", "\t", "\r", "\n", "1", ".5", "e3", " ", "'", '"', ",", "a"))
def test_no_text_of_a_csv_file_is_a_formula_and_none_is_lost(text):
    cell = csv_cell(text)
    assert cell in (text, f"'{text}")
    if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        numbers = [float(word) for word in cell.split()]  # anything else is a ValueError
        assert numbers


@law(100)
@given(texts=st.lists(mixed("=1", "+", "-", "@", "\t", "\r\n", '"', ",", "a"), max_size=5))
def test_a_csv_file_reads_back_as_the_cells_that_were_written(tmp_path, texts):
    write_table(pa.table({"text": pa.array(texts, pa.string())}), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["text"], *([csv_cell(text)] for text in texts)]


# ---------------------------------------------------------------- files from outside

CUES = (
    *("WEBVTT\n\n", "1\n", "00:00:01,000 --> 00:00:02,000\n", "00:01.5 --> 00:00.5\n", "\n\n"),
    *("<v Ann>", "<b>", "</b>", "{", "}", "[", "]", '"text":', '"start": 1e999,', "null", ","),
    *("start;end;text\n", "0.5;2;so\n", "1e400", "NaN", "\t", ";", "- ", "[music]", "ANN: ", "so "),
    *("0:00:00.500,0:00:02.000\n", "99:99:99,999", "\r", "\0", "\ufeff", '"', "It is good.\n"),
)


@law(200)
@given(
    text=mixed(*CUES),
    suffix=st.sampled_from(TRANSCRIPT_ENDINGS),
    encoding=st.sampled_from(("utf-8", "utf-16", "latin-1")),
    language=st.sampled_from((None, "en")),
)
def test_a_transcript_is_read_with_valid_times_or_refused(
    tmp_path, text, suffix, encoding, language
):
    path = tmp_path / f"talk{suffix}"
    path.write_bytes(text.encode(encoding, errors="replace"))
    try:
        utterances = read_transcript(path, language).utterances
    except MMCLError:
        return
    assert utterances
    for utterance in utterances:
        times = [time for time in (utterance.start, utterance.end) if time is not None]
        assert all(math.isfinite(time) and time >= 0 for time in times)


LABEL_COLUMNS = ("video_id", "clip_id", "text", "label", "label_T", "mode", "speaker", "more")
CELLS = st.text(max_size=8) | st.sampled_from(
    ("talk", "1", "0001", "1.5", "1,5", "-3", "4", "nan", "1e999", "train", "Test", "", '"', "../x")
)


@law(150)
@given(
    columns=st.permutations(LABEL_COLUMNS).map(lambda names: names[:7]),
    rows=st.lists(st.lists(CELLS, min_size=6, max_size=8), max_size=4),
    separator=st.sampled_from(",;\t"),
)
def test_a_table_of_labels_is_read_with_valid_labels_or_refused(tmp_path, columns, rows, separator):
    (tmp_path / "Raw" / "talk").mkdir(parents=True, exist_ok=True)
    (tmp_path / "Raw" / "talk" / "1.mp4").touch()
    path = tmp_path / "label.csv"
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file, delimiter=separator, escapechar="\\").writerows([columns, *rows])
    try:
        gathered = gather([tmp_path])
    except MMCLError:
        return
    for item in gathered.items:
        assert item.path.is_relative_to(tmp_path)
        assert item.split in ("train", "valid", "test")
        scores = [item.label, *(item.modality_labels or {}).values()]
        assert all(score is None or -3 <= score <= 3 for score in scores)


SHAPES = npst.array_shapes(max_dims=3, max_side=3, min_side=0)
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=10),
    st.binary(max_size=10),
    *(npst.arrays(kind, SHAPES) for kind in ("f4", ">f8", "i8", "u1", "?", "U3", "S2")),
)
NESTED = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.binary(max_size=3), inner)
    ),
    max_leaves=12,
)


def same(one, other):
    """Return whether two nested contents are equal in every type and value."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@law(100)
@given(content=NESTED, protocol=st.integers(0, 5))
@example(content=np.arange(3, dtype=">f8"), protocol=2)
@example(content={"a": [np.zeros((2, 0), ">f8"), np.array(["ä"])]}, protocol=4)
def test_a_pickle_of_plain_data_reads_back_equal(tmp_path, content, protocol):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    assert same(load_pickle(path), content)


@law(200)
@given(content=NESTED, protocol=st.integers(0, 5), place=st.integers(0), junk=st.binary(max_size=6))
def test_a_damaged_pickle_is_read_or_refused(tmp_path, content, protocol, place, junk):
    raw = pickle.dumps(content, protocol)
    place %= len(raw)
    path = tmp_path / "x.pkl"
    path.write_bytes(raw[:place] + junk + raw[place + len(junk) // 2 :])
    with suppress(DatasetError):
        load_pickle(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def places(content, path=()):
    """Yield the paths to all parts of a nested content."""
    yield path
    parts = content.items() if isinstance(content, dict) else []
    parts = enumerate(content) if isinstance(content, list) else parts
    for key, part in parts:
        yield from places(part, (*path, key))


def with_part(content, path, part):
    """Return a nested content with another part at a place."""
    if not path:
        return part
    copy = content.copy()
    copy[path[0]] = with_part(content[path[0]], path[1:], part)
    return copy


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return Path(shutil.copytree(EARLIER_RUN, tmp_path_factory.mktemp("run") / "run"))


@law(40)
@given(name=st.sampled_from(RUN_FILES), choice=st.integers(0), part=JSON)
def test_a_run_with_any_content_is_read_or_refused(run_folder, name, choice, part):
    path = run_folder / name
    before = path.read_text()
    content = json.loads(before)
    all_places = list(places(content))
    path.write_text(json.dumps(with_part(content, all_places[choice % len(all_places)], part)))
    try:
        run = Run.load(run_folder)
        _ = run.metrics, run.validation_error
        run.fitted(1)
    except MMCLError:
        pass
    finally:
        path.write_text(before)


# ---------------------------------------------------------------- our own files

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SECONDS = st.none() | st.floats(0, 1e6)


@st.composite
def corpora(draw):
    """A card, and clips of any lengths that lack some modalities."""
    dims = draw(st.dictionaries(st.sampled_from(MODALITIES), st.integers(1, 3), min_size=1))
    kind = draw(st.sampled_from(("regression", "classes", "emotions")))
    label = {
        "regression": st.floats(-3, 3),
        "classes": st.integers(0, 2),
        "emotions": st.tuples(*[st.integers(0, 1)] * 3),
    }[kind]
    clips = []
    for split in ("train", "valid", "test"):
        for _ in range(draw(st.integers(0, 3))):
            features = {
                m: draw(
                    npst.arrays(
                        np.float32,
                        (draw(st.integers(0, 4)), dims[m]),
                        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
                    )
                )
                for m in dims
                if draw(st.booleans())
            }
            words = st.builds(Word, text=WORDS, start=SECONDS, end=SECONDS)
            clips.append(
                Clip(
                    id=f"{len(clips)} {draw(WORDS)}",
                    split=split,
                    features=features,
                    label=draw(st.none() | label),
                    text=draw(st.none() | WORDS),
                    speaker=draw(st.none() | WORDS),
                    words=draw(st.none() | st.lists(words, max_size=3).map(tuple)),
                )
            )
    is_score = kind == "regression"
    task = Task(
        kind=kind,
        low=-3 if is_score else None,
        high=3 if is_score else None,
        names=() if is_score else ("a", "b", "c"),
    )
    splits = [clip.split for clip in clips]
    counts = {split: splits.count(split) for split in ("train", "valid", "test")}
    return Card(name=draw(WORDS), task=task, dims=dims, counts=counts, aligned=False), clips


@law(60)
@given(made=corpora())
def test_a_corpus_reads_back_as_it_was_written(tmp_path, made):
    card, clips = made
    corpus = open_corpus(write_corpus(tmp_path / "c.arrow", card, clips))
    splits = (corpus.split("train"), corpus.split("valid"), corpus.open_test_split())
    read = [clip for split in splits for clip in split.clips()]
    assert corpus.card == card
    for one, other in zip(read, clips, strict=True):
        assert one.model_dump(exclude={"features"}) == other.model_dump(exclude={"features"})
        assert same(dict(sorted(one.features.items())), dict(sorted(other.features.items())))


# ---------------------------------------------------------------- the service


@law(200)
@given(
    words=st.lists(WORDS | st.sampled_from(("st", ".", "/", "/srv/ab", "srv/a")), max_size=6),
    path=st.sampled_from(("/srv/a", "/srv/a/b")),
    name=WORDS,
)
def test_whole_paths_are_replaced_and_nothing_else(words, path, name):
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    from mmcl.serve.problems import replace_names

    words = [word for word in words if path not in word]
    text = f" {path} ".join(words)
    names = {path: name, ".": "DOT", "st": "ST", "/": "ROOT", "srv/a": "RELATIVE"}
    assert replace_names(text, names) == f" {name} ".join(words)


@pytest.fixture(scope="module")
def counters():
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    from mmcl.serve.counters import Counters

    return Counters()


TOKEN = "a-token-of-some-length"
RIGHT = f"Bearer {TOKEN}".encode()
HEADERS = st.binary(max_size=20) | st.sampled_from(
    (b"http://[::1", b"http://localhost", b"[", b"//", b"localhost:x", b"Bearer \xff", b"a@b=c;d")
)


@law(200)
@given(
    headers=st.fixed_dictionaries(
        {b"host": st.just(b"localhost") | HEADERS},
        optional={
            b"origin": HEADERS,
            b"cookie": HEADERS,
            b"authorization": st.just(RIGHT) | HEADERS,
        },
    ),
    query=st.binary(max_size=20),
    token=st.sampled_from((None, TOKEN)),
    method=st.sampled_from(("GET", "POST")),
)
def test_whatever_headers_come_access_is_granted_or_refused(
    counters, headers, query, token, method
):
    from mmcl.serve.access import AccessControl

    statuses = []

    async def inside(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": method,
        "path": "/",
        "query_string": query,
        "scheme": "http",
        "headers": list(headers.items()),
    }
    guard = AccessControl(inside, counters=counters, token=token, hosts=("localhost",))
    run_apart(guard(scope, None, send))
    assert statuses in ([200], [303], [401], [403])
    if token is not None and statuses == [200]:
        assert headers[b"authorization"] == RIGHT
