"""Tables with a clip per row: csv and tsv as spreadsheets write them, Parquet and Arrow."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mmcl.corpus.check import corpus_clips
from mmcl.corpus.readers import check_file, convert_corpus, read_corpus
from mmcl.errors import DatasetError

LAYOUTS = "\n  The layouts that can be read: mmcl corpus convert --help"
SPLITS = ["train"] * 6 + ["dev"] * 2 + ["test"] * 2
NO_FEATURES = (
    "  Expected text, or features_text, features_audio or features_vision with lists of numbers "
    "(Parquet), or columns audio_0, audio_1, ...\n"
    "  From recordings, mmcl extract FOLDER makes them: docs/your-own-video.md"
)


@pytest.fixture
def frame():
    """One number per clip and column, as openSMILE's functionals are kept."""
    rng = np.random.default_rng(6)
    count = len(SPLITS)
    scalars = {f"audio_{k}": rng.normal(size=count).round(3) for k in range(3)}
    scalars |= {f"vision_{k}": rng.normal(size=count).round(3) for k in (1, 2)}
    names = {"id": [f"{row:03d}" for row in range(count)], "split": SPLITS}
    said = {"text": [f'Nr. {row}, "gut"; ja' for row in range(count)]}
    return pd.DataFrame(names | said | {"label": rng.uniform(-3, 3, count).round(2)} | scalars)


@pytest.fixture
def sequences(frame):
    """Sequences of text, one vector of audio per clip, no audio in the fourth clip."""
    rng = np.random.default_rng(7)
    kept = frame[["id", "split", "text", "label"]].copy()
    kept["features_text"] = [rng.normal(size=(1 + row % 4, 5)).tolist() for row in kept.index]
    kept["features_audio"] = [rng.normal(size=7).tolist() for _ in kept.index]
    kept.loc[3, "features_audio"] = None
    kept["speaker"] = "Ann"
    kept["video_id"] = [f"v{row // 2}" for row in kept.index]
    return kept


def check_scalars(path, frame):
    corpus = read_corpus(path)
    clips = list(corpus_clips(corpus))
    assert corpus.card.counts == {"train": 6, "valid": 2, "test": 2}
    assert corpus.card.dims == {"audio": 3, "vision": 2}
    for row, clip in enumerate(clips):
        assert (clip.id, clip.text) == (frame.id[row], frame.text[row])
        assert clip.label == frame.label[row]
        for modality, numbers in (("audio", (0, 1, 2)), ("vision", (1, 2))):
            expected = frame.loc[row, [f"{modality}_{k}" for k in numbers]].to_numpy("float32")
            np.testing.assert_array_equal(clip.features[modality], expected[np.newaxis])
    return corpus


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        ({}, []),
        ({"encoding": "utf-8-sig"}, []),
        ({"encoding": "utf-16"}, []),
        ({"lineterminator": "\r\n"}, []),
        ({"sep": "\t"}, ["x.csv: cells are separated by tabs"]),
        ({"sep": ";"}, ["x.csv: cells are separated by semicolons"]),
        ({"sep": "|"}, ["x.csv: cells are separated by vertical bars"]),
        (
            {"sep": ";", "decimal": ","},
            [
                "x.csv: cells are separated by semicolons",
                "x.csv: decimal commas; -1,54 is read as -1.54",
            ],
        ),
        ({"decimal": ","}, ["x.csv: decimal commas; -1,54 is read as -1.54"]),
    ],
)
def test_csv_comes_through(frame, tmp_path, options, notes):
    frame.loc[0, "label"] = -1.54
    frame.to_csv(tmp_path / "x.csv", index=False, **options)
    corpus = check_scalars(tmp_path / "x.csv", frame)
    assert [note for note in corpus.card.notes if note.startswith("x.csv")] == notes


def test_line_that_names_the_separator(frame, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("sep=;\n" + frame.to_csv(index=False, sep=";"), encoding="utf-8")
    check_scalars(path, frame)


def test_names_that_look_like_numbers_stay_as_they_are(frame, tmp_path):
    frame["video_id"] = [f"0{row}" for row in frame.index]
    frame["text"] = [str(row) for row in frame.index]
    frame.to_csv(tmp_path / "x.csv", index=False)
    clips = list(corpus_clips(read_corpus(tmp_path / "x.csv")))
    assert [(c.id, c.video_id, c.text) for c in clips[:2]] == [
        ("000", "00", "0"),
        ("001", "01", "1"),
    ]


def test_empty_cell_of_features_is_counted(frame, tmp_path):
    frame.loc[2, "audio_1"] = np.nan
    frame.to_csv(tmp_path / "x.csv", index=False)
    corpus = read_corpus(tmp_path / "x.csv")
    assert corpus.card.repairs["audio"].nan == 1


@pytest.mark.parametrize("write", ["to_parquet", "to_feather"])
def test_sequences_come_through(sequences, tmp_path, write):
    path = tmp_path / "x"
    getattr(sequences, write)(path)
    corpus = read_corpus(path)
    assert corpus.card.dims == {"text": 5, "audio": 7}
    for row, clip in enumerate(corpus_clips(corpus)):
        text = np.array(sequences.features_text[row], dtype=np.float32)
        np.testing.assert_array_equal(clip.features["text"], text, strict=True)
        assert ("audio" in clip.features) == (row != 3)
        if row != 3:
            audio = np.array([sequences.features_audio[row]], dtype=np.float32)
            np.testing.assert_array_equal(clip.features["audio"], audio, strict=True)
        assert (clip.text, clip.label) == (sequences.text[row], sequences.label[row])
        assert (clip.speaker, clip.video_id) == ("Ann", f"v{row // 2}")


def test_arrow_stream_and_fixed_size_lists(sequences, tmp_path):
    path = tmp_path / "x.arrow"
    kept = sequences[["split", "label"]]
    table = pa.Table.from_pandas(kept, preserve_index=False)
    values = np.arange(len(kept) * 4, dtype=np.float32)
    table = table.append_column("audio", pa.FixedSizeListArray.from_arrays(pa.array(values), 4))
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)
    clip = next(iter(corpus_clips(read_corpus(path))))
    np.testing.assert_array_equal(clip.features["audio"], [[0, 1, 2, 3]])


def test_own_corpus_comes_back_through_parquet(sequences, tmp_path, same_clip):
    sequences.to_parquet(tmp_path / "x.parquet")
    convert_corpus(tmp_path / "x.parquet", tmp_path / "ours.arrow")
    table = pa.ipc.open_file(tmp_path / "ours.arrow").read_all().replace_schema_metadata()
    pa.parquet.write_table(table, tmp_path / "back.parquet")
    ours, back = (read_corpus(tmp_path / name) for name in ("ours.arrow", "back.parquet"))
    for pair in zip(corpus_clips(ours), corpus_clips(back), strict=True):
        same_clip(*pair)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["sad", "glad"] * 5, "classes"),
        ([[0, 1, 1], [1, 0, 1]] * 5, "emotions"),
        ([None] * 10, "regression"),  # a corpus without labels
    ],
)
def test_kinds_of_labels(sequences, tmp_path, labels, kind):
    sequences["label"] = labels
    sequences.to_parquet(tmp_path / "x.parquet")
    corpus = read_corpus(tmp_path / "x.parquet")
    assert corpus.card.task.kind == kind
    clips = list(corpus_clips(corpus))
    if kind == "classes":
        assert [corpus.card.task.names[c.label] for c in clips] == labels
    elif kind == "emotions":
        assert [list(c.label) for c in clips] == labels
    else:
        assert [c.label for c in clips] == labels


def test_scores_of_single_modalities(sequences, tmp_path):
    scores = np.linspace(-1, 1, len(sequences)).round(2)
    sequences["label_T"], sequences["label_audio"] = scores, -scores
    sequences["label_vision"] = None
    sequences.to_parquet(tmp_path / "x.parquet")
    clip = next(iter(corpus_clips(read_corpus(tmp_path / "x.parquet"))))
    assert clip.modality_labels == {"text": -1.0, "audio": 1.0}


def test_columns_are_renamed_and_left_out(frame, tmp_path):
    path, out = tmp_path / "x.csv", tmp_path / "x.arrow"
    columns = {"split": "part", "label": "sentiment", "text": "said", "id": "file"}
    columns |= {f"audio_{k}": f"acoustic_{k}" for k in range(3)}
    columns |= {f"vision_{k}": f"openface_{k}" for k in (1, 2)}
    frame.rename(columns=columns).to_csv(path, index=False)
    names = {"part": "split", "sentiment": "label", "said": "text", "file": "id"}
    names |= {"acoustic": "audio", "openface": "", "dev": "test"}
    card = convert_corpus(path, out, rename=names)
    assert (card.counts, card.dims) == ({"train": 6, "test": 4}, {"audio": 3})
    assert 'column "openface", as asked' in card.account.left_out
    clip = next(iter(corpus_clips(read_corpus(out))))
    assert (clip.id, clip.text) == ("000", frame.text[0])


def test_label_without_a_number(sequences, tmp_path):
    table = pa.Table.from_pandas(sequences.drop(columns="label"), preserve_index=False)
    empty = pa.array([[]] * len(table), pa.list_(pa.float64()))
    pa.parquet.write_table(table.append_column("label", empty), tmp_path / "x.parquet")
    assert refusal(tmp_path / "x.parquet") == (
        f'{tmp_path / "x.parquet"}, field "label" has shape [10, 0]: no label for any clip.\n'
        "  Expected one number or name per clip, one-hot rows, or 0 and 1 for every emotion.\n"
        f'  To leave the field out: --rename "label="{LAYOUTS}'
    )


def refusal(path, **options):
    with pytest.raises(DatasetError) as caught:
        convert_corpus(path, path.with_name("out.arrow"), **options)
    return str(caught.value)


def test_row_of_more_cells_is_an_error(frame, tmp_path):
    path = tmp_path / "x.csv"
    lines = frame.to_csv(index=False).splitlines()
    lines[4] = lines[4].replace("3,", "3,,", 1)
    path.write_text("\n".join(lines), encoding="utf-8")
    assert refusal(path) == (
        f"{path}, row 5: 10 cells, but the header has 9; it begins '003'.\n"
        '  Expected as many cells in every row. A cell that holds the separator needs "" around '
        f"it.{LAYOUTS}"
    )


@pytest.mark.parametrize("cell", ["1,234", "-12,345", "1,234,567"])
def test_comma_of_two_meanings_is_asked_about(frame, tmp_path, cell):
    path = tmp_path / "x.csv"
    frame[["audio_0", "audio_1", "audio_2", "vision_1", "vision_2"]] = 0
    frame["label"] = cell
    frame.to_csv(path, index=False, sep=";")
    if cell.count(",") == 1:
        both = f"{cell.replace(',', '.')} or {cell.replace(',', '')}"
        assert refusal(path) == (
            f'{path}, column "label": {cell} could be {both}.\n'
            f"  Expected points for decimals. Write it in one of these ways.{LAYOUTS}"
        )
    else:
        # Two commas are no decimal sign in any country, so this is no number.
        assert 'holds "1,234,567": neither numbers nor names' in refusal(path)


def test_two_decimal_signs_are_an_error(frame, tmp_path):
    path = tmp_path / "x.csv"
    frame["label"] = ["0,5", "0.25"] * 5
    frame.to_csv(path, index=False, sep=";")
    assert refusal(path) == (
        f'{path}, column "label": numbers with commas (0,5) and with points.\n'
        f"  Expected one decimal sign. Write points everywhere.{LAYOUTS}"
    )


def test_table_of_texts_and_labels_alone(frame, tmp_path):
    path = tmp_path / "x.csv"
    frame[["id", "split", "text", "label"]].to_csv(path, index=False)
    corpus = read_corpus(path)
    assert corpus.card.dims == {}
    assert not corpus.card.aligned
    assert [clip.text for clip in corpus_clips(corpus)] == list(frame["text"])
    assert corpus.card.notes[-1].startswith("it has text and no features: a language model")
    assert check_file(path)[1] == []


def test_texts_with_the_columns_of_label_csv(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text(
        "video_id,clip_id,text,label\nvideo1,0001,so bad,-2.5\nvideo2,0001,so good,1.5\n"
        "video5,1,fine,0.5\n"
    )
    corpus = read_corpus(path)
    ids = [(clip.id, clip.split) for clip in corpus_clips(corpus)]
    # As mmcl extract divides the same recordings.
    assert ids == [("video1/0001", "train"), ("video5/1", "valid"), ("video2/0001", "test")]
    assert any("by a hash of video_id" in note for note in corpus.card.notes)


def test_row_without_text_is_a_fault(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("split,text,label\ntrain,so bad,-2.5\nvalid,,-1.5\n")
    assert refusal(path) == (
        f'{path}, split "valid", clip "valid_0000": it has neither steps nor text.\n'
        "  A clip needs one of them at least.\n"
        f"  See them all: mmcl corpus check {path}"
    )


def test_any_parquet_is_named(tmp_path):
    path = tmp_path / "x.pkl"
    pd.DataFrame({"a": [1], "b": ["c"]}).to_parquet(path)
    assert refusal(path) == (
        f"{path}: a Parquet table without features or text; its columns are a, b.\n"
        f"{NO_FEATURES}\n"
        f'  If "b" is the text: mmcl corpus convert SRC DST --rename "b=text"{LAYOUTS}'
    )


def test_texts_without_labels_need_no_split(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text('text\nthe film was good\n"bad, bad film"\n')
    corpus = read_corpus(path)
    assert corpus.card.counts == {"test": 2}
    assert corpus.every_clip().table.column("text").to_pylist() == [
        "the film was good",
        "bad, bad film",
    ]
    assert corpus.card.notes[0] == (
        "there are no labels and no column names the split: all clips are in test"
    )


def test_no_split_column(frame, tmp_path):
    path = tmp_path / "x.csv"
    frame[["id", "split", "label", "audio_0"]].rename(columns={"split": "part"}).to_csv(
        path, index=False
    )
    assert refusal(path) == (
        f"{path}: a table in which no column names the split of a clip; its columns are id, part, "
        "label, audio.\n"
        '  Expected a column "split" with train, valid or test. If "part" is it: '
        '--rename "part=split"\n'
        f'  Or a column "video_id": whole recordings are then split by it.{LAYOUTS}'
    )


@pytest.mark.parametrize("name", ["audio", "features_audio", "text"])
def test_arrays_written_as_text(sequences, tmp_path, name):
    path = tmp_path / "x.csv"
    sequences = sequences.drop(columns="text").rename(columns={"features_audio": name})
    sequences[["id", "split", "label", name]].dropna().to_csv(path, index=False)
    field = name.removeprefix("features_")
    assert refusal(path).splitlines()[0].startswith(f'{path}, column "{field}" holds \'[')
    assert "A csv file cannot hold these: write Parquet" in refusal(path)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 2), 'audio_0 to audio_2 are numbered with gaps: "audio_1" is missing'),
        ((2, 3), 'audio_2 to audio_3 are numbered with gaps: "audio_0" is missing'),
        ((0, 99_999_999_999), "audio_0 to audio_99999999999 are numbered with gaps"),
        ((0, 10**30), "are numbered with gaps"),
    ],
)
def test_numbering_with_gaps(frame, tmp_path, numbers, message):
    path = tmp_path / "x.csv"
    kept = frame[["split", "label"]].copy()
    for number in numbers:
        kept[f"audio_{number}"] = 1.0
    kept.to_csv(path, index=False)
    assert message in refusal(path)


def test_steps_of_different_widths(sequences, tmp_path):
    path = tmp_path / "x.parquet"
    sequences.at[4, "features_text"] = [[1.0, 2.0], [1.0]]
    sequences.to_parquet(path)
    assert refusal(path).splitlines()[0] == (
        f'{path}, column "features_text", row 5: steps of different widths, 1 and 2.'
    )


@pytest.mark.parametrize("columns", ["split,label,label", 'split,"label'])
def test_header_at_fault(tmp_path, columns):
    path = tmp_path / "x.csv"
    path.write_text(f"{columns}\ntrain,1,2\n", encoding="utf-8")
    problem = refusal(path).splitlines()[0]
    assert "not a readable table" in problem or 'the column "label" is there twice' in problem


def test_column_twice_under_two_names(sequences, tmp_path):
    path = tmp_path / "x.parquet"
    sequences["audio"] = sequences["features_audio"]
    sequences.to_parquet(path)
    assert "two columns hold audio" in refusal(path)


def test_damaged_parquet_is_named(sequences, tmp_path):
    path = tmp_path / "x.parquet"
    sequences.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(path).startswith(f"{path}: a Parquet table that is cut short or damaged (")


def test_unknown_encoding_is_refused_with_readings(frame, tmp_path):
    path = tmp_path / "x.csv"
    frame["text"] = "schön"
    frame.to_csv(path, index=False, encoding="cp1252")
    assert "its encoding is not known" in refusal(path)


def test_capitals_of_column_names_do_not_matter(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("ID,Split,Label,Text,audio_0\n001,Train,-1,so,0.5\n002,TRAIN,0.5,bad,0.25\n")
    corpus = read_corpus(path)
    assert [(clip.id, clip.text, clip.label) for clip in corpus_clips(corpus)] == [
        ("001", "so", -1.0),
        ("002", "bad", 0.5),
    ]


def test_column_of_objects_is_left_out(frame, tmp_path):
    frame["meta"] = [{"text": 1}] * len(frame)
    frame.to_parquet(tmp_path / "x.parquet")
    left_out = read_corpus(tmp_path / "x.parquet").card.account.left_out
    assert "field meta, which is not read" in left_out


@pytest.mark.parametrize("name", ["text_features", "embedding_audio", "visual_feat"])
def test_near_name_of_a_column_of_features_is_asked_for(frame, tmp_path, name):
    columns = {"split": frame["split"], "label": 0.5, "text_0": 1.0}
    table = pd.DataFrame(columns).assign(**{name: [[1.0, 2.0]] * len(frame)})
    table = table.drop(columns="text_0") if name == "text_features" else table
    table.to_parquet(tmp_path / "x.parquet")
    meant = {"text_features": "text", "embedding_audio": "audio", "visual_feat": "vision"}[name]
    assert f'--rename "{name}={meant}"' in refusal(tmp_path / "x.parquet")
    corpus = read_corpus(tmp_path / "x.parquet", rename={name: meant})
    assert corpus.card.dims[meant] == 2


def test_blank_lines_before_the_header_are_no_header(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("\n\nsplit,text,label\ntrain,so bad,-2.5\nvalid,fine,1,5\n")
    assert refusal(path).startswith(
        f"{path}, row 5: 4 cells, but the header has 3; it begins 'valid'"
    )


def test_hint_of_excel_alone_is_no_table(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("sep=,\n")
    assert refusal(path).startswith(f"{path}: a header and no rows.\n")
