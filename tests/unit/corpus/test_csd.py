"""CMU-MultimodalSDK's files: segments, words, folds, the SDK's averages, and refusals."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from fakes.csd import EDGES, MOSI, SEGMENTS, SOURCES, WORDS, make_data, write_all, write_csd
from mmcl.corpus.check import corpus_clips
from mmcl.corpus.readers import check_file, convert_corpus, read_corpus
from mmcl.errors import DatasetError

LAYOUTS = "\n  The layouts that can be read: mmcl corpus convert --help"
WHOLE = "Expected NAME/data/VIDEO/features and intervals, as CMU-MultimodalSDK writes them."
COMMAND = "  mmcl corpus convert text.csd audio.csd vision.csd labels.csd --out DST"


@pytest.fixture
def data():
    return make_data(MOSI)


@pytest.fixture
def convert(tmp_path):
    """Convert sources, return the corpus."""

    def run(sources, **options):
        target = tmp_path / "out.arrow"
        convert_corpus(sources, target, **options)
        return read_corpus(target)

    return run


def refusal(sources, tmp_path, **options):
    with pytest.raises(DatasetError) as caught:
        convert_corpus(sources, tmp_path / "out.arrow", **options)
    return str(caught.value)


def sdk_mean(span, steps, features):
    """Average as the SDK's align does: steps that share time with the word, same weights."""
    low = np.maximum(steps[:, 0], span[0])
    shared = np.minimum(steps[:, 1], span[1]) - low > 1e-5
    return features[shared].astype(np.float64).mean(axis=0)


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("align", ["word", None])
def test_words_are_the_steps(data, tmp_path, convert, align):
    corpus = convert(write_all(tmp_path / "c", data), align=align)
    card = corpus.card
    assert (card.name, card.counts) == ("mosi", {"train": 4, "valid": 2, "test": 2})
    assert card.dims == {"text": 3, "audio": 4, "vision": 2}
    assert card.aligned
    assert (card.task.kind, card.task.low, card.task.high) == ("regression", -3.0, 3.0)
    for clip in corpus_clips(corpus):
        rows = [1, 2] if clip.clip_id == "0" else [4, 5, 6]
        assert clip.id == f"{clip.video_id}[{clip.clip_id}]"
        assert clip.text == " ".join(WORDS[row] for row in rows)
        start, end = SEGMENTS[int(clip.clip_id)]
        assert [w.text for w in clip.words] == [WORDS[row] for row in rows]
        times = [(EDGES[row] - start, EDGES[row + 1] - start) for row in rows]
        # Times are differences of float64 seconds.
        found = [(w.start, w.end) for w in clip.words]
        np.testing.assert_allclose(found, times, rtol=0, atol=1e-9)
        assert clip.words[-1].end <= end - start
        assert clip.label == data["labels.csd"][clip.video_id][1][int(clip.clip_id), 0]
        glove = data["glove.csd"][clip.video_id][1][rows]
        np.testing.assert_array_equal(clip.features["text"], glove, strict=True)
        for modality, name in (("audio", "covarep.csd"), ("vision", "facet.csd")):
            steps, features = data[name][clip.video_id]
            spans = [(EDGES[row], EDGES[row + 1]) for row in rows]
            expected = [sdk_mean(span, steps, features) for span in spans]
            # One rounding to float32.
            np.testing.assert_allclose(clip.features[modality], expected, rtol=1e-6, atol=0)


def test_account_and_notes_say_what_was_done(data, tmp_path, convert):
    del data["covarep.csd"][MOSI[0]]
    data["facet.csd"]["another"] = data["facet.csd"][MOSI[0]]
    features = data["covarep.csd"][MOSI[1]][1]
    features[5:7, 1] = -np.inf  # 0.5 to 0.7 seconds: in the word "it"
    data["facet.csd"][MOSI[1]] = tuple(part[:6] for part in data["facet.csd"][MOSI[1]])
    card = convert(write_all(tmp_path / "c", data)).card
    notes = [
        "splits: the standard folds of mosi, 4/2/2 clips",
        "align: audio and vision are averaged over each word; the other way: --align none",
        "audio: 5 of 20 words have no step of it and are zero there",
        "audio: 2 values were not finite and were left out of the averages of their words",
        "vision: 3 of 20 words have no step of it and are zero there",
    ]
    assert set(notes) <= set(card.notes)
    left_out = {
        "1 video of facet.csd without labels",
        '8 silences ("sp") among the words',
    }
    assert left_out <= set(card.account.left_out)
    assert "audio: missing in 2 of 4 train clips" in card.notes


def test_word_with_a_value_that_is_not_finite_keeps_the_mean_of_the_others(data, tmp_path, convert):
    features = data["covarep.csd"][MOSI[0]][1]
    features[4:6, 2] = (-np.inf, np.nan)  # of the word "it", 0.4 to 1.0 seconds
    corpus = convert(write_all(tmp_path / "c", data))
    first = next(iter(corpus_clips(corpus)))
    np.testing.assert_allclose(first.features["audio"][0, 2], features[6:10, 2].mean(), rtol=1e-6)


def test_each_modality_at_its_own_rate(data, tmp_path, convert):
    data["covarep.csd"][MOSI[0]][1][6, 0] = -np.inf
    corpus = convert(write_all(tmp_path / "c", data), align="none")
    assert not corpus.card.aligned
    assert corpus.card.repairs["audio"].minus_inf == 1
    clip = next(iter(corpus_clips(corpus)))
    assert {m: len(steps) for m, steps in clip.features.items()} == {
        "text": 2,
        "audio": 16,  # 0.4 to 2.0 seconds at 10 a second
        "vision": 7,  # the one from 0.25 to 0.5 is partly inside
    }
    expected = data["covarep.csd"][clip.video_id][1][4:20].copy()
    expected[2, 0] = 0
    np.testing.assert_array_equal(clip.features["audio"], expected)
    assert clip.text == "it is"


def test_order_of_files_and_roles_said_by_the_user(data, tmp_path, convert):
    sources = write_all(tmp_path / "c", data)
    expected = convert(sources)
    for row, name in enumerate(SOURCES):
        # Names that say nothing, in the file and inside.
        write_csd(tmp_path / f"{row}.csd", f"part{row}", data[name])
    roles = ["", "text=", "audio=", "vision=", "labels="]  # strings are words without a name
    named = [f"{role}{tmp_path / f'{row}.csd'}" for row, role in enumerate(roles)]
    for other in (convert(sources[::-1]), convert(named[::-1])):
        for one, two in zip(corpus_clips(expected), corpus_clips(other), strict=True):
            assert (one.id, one.text, one.label) == (two.id, two.text, two.label)
            for modality, steps in one.features.items():
                np.testing.assert_array_equal(steps, two.features[modality])


def test_folder_of_files_is_a_corpus(data, tmp_path):
    write_all(tmp_path / "c", data)
    assert read_corpus(tmp_path / "c").card.counts == {"train": 4, "valid": 2, "test": 2}
    card, faults = check_file(tmp_path / "c")
    assert (card.name, faults) == ("mosi", [])


def test_without_word_vectors_the_words_are_the_steps(data, tmp_path, convert):
    del data["glove.csd"]
    corpus = convert(write_all(tmp_path / "c", data))
    assert list(corpus.card.dims) == ["audio", "vision"]
    first = next(iter(corpus_clips(corpus)))
    assert (first.text, len(first.features["audio"])) == ("it is", 2)


def test_words_as_text_of_any_length(data, tmp_path, convert):
    spans, words = data["words.csd"][MOSI[0]]
    strings = [[word.decode()] for word in words[:, 0]]
    data["words.csd"] = {
        video: (spans, np.array(strings, dtype=h5py.string_dtype())) for video in MOSI
    }
    assert next(iter(corpus_clips(convert(write_all(tmp_path / "c", data))))).text == "it is"


def test_files_that_the_sdk_has_aligned(data, tmp_path, convert):
    """After an alignment every entry is a numbered part of a video, with the same times."""
    whole = convert(write_all(tmp_path / "c", data))
    parts = {}
    for name, videos in data.items():
        parts[name] = {
            f"{video}[{row}]": (spans[row : row + 1], features[row : row + 1])
            for video, (spans, features) in videos.items()
            for row in range(len(spans))
        }
    aligned = convert(write_all(tmp_path / "d", parts))
    for one, two in zip(corpus_clips(whole), corpus_clips(aligned), strict=True):
        assert (one.id, one.text, one.label) == (two.id, two.text, two.label)
        np.testing.assert_array_equal(one.features["audio"], two.features["audio"])


# ---------------------------------------------------------------- labels and splits


def test_labels_of_mosei(tmp_path, convert):
    sources = write_all(tmp_path / "c", make_data(["hh04W3xXa5s", "7l3BNtSE0xc"], 7))
    corpus = convert(sources)
    assert (corpus.card.name, corpus.card.task.kind) == ("mosei", "regression")
    assert any("--task emotions" in note for note in corpus.card.notes)
    emotions = convert(sources, task="emotions")
    names = ("happy", "sad", "anger", "surprise", "disgust", "fear")
    assert emotions.card.task.names == names
    assert [clip.label for clip in corpus_clips(emotions)][:2] == [(0, 1, 0, 1, 0, 1), (0,) * 6]


def test_labels_of_another_width(data, tmp_path):
    for video in data["labels.csd"]:
        data["labels.csd"][video] = (SEGMENTS, np.zeros((2, 18)))
    message = refusal(write_all(tmp_path / "c", data), tmp_path)
    assert message == (
        f"{tmp_path / 'c/labels.csd'}: the labels are 18 wide.\n"
        "  Expected one column, or seven as in CMU-MOSEI (sentiment and six emotions). "
        f"Write the column that you want into a file of its own.{LAYOUTS}"
    )


def test_own_videos_are_split_whole(tmp_path, convert):
    videos = [f"v{number}" for number in range(30)]
    corpus = convert(write_all(tmp_path / "c", make_data(videos), "mine"))
    assert corpus.card.name == "mine"
    homes = {}
    for clip in corpus_clips(corpus):
        homes.setdefault(clip.video_id, set()).add(clip.split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert {split for splits in homes.values() for split in splits} == {"train", "valid", "test"}
    assert any(
        note.startswith("splits: the videos are not those of MOSI") for note in corpus.card.notes
    )


def test_videos_of_no_fold_are_said_and_limited(tmp_path, convert):
    sources = write_all(tmp_path / "c", make_data([*MOSI, "unknown"]))
    message = refusal(sources, tmp_path)
    assert message.startswith(f"{tmp_path / 'c'}: 2 of 10 clips would be left out, more than 10%")
    assert "2 clips: videos in no standard fold of mosi" in message
    card = convert(sources, max_lost=0.25).card
    assert "2 clips: videos in no standard fold of mosi" in card.account.left_out


def test_segments_without_words_are_said(data, tmp_path, convert):
    spans, features = data["glove.csd"][MOSI[0]]
    data["glove.csd"][MOSI[0]] = (spans[:3], features[:3])
    card = convert(write_all(tmp_path / "c", data), max_lost=0.2).card
    assert "1 clip: segments without a word" in card.account.left_out
    assert card.counts["train"] == 3


# ---------------------------------------------------------------- what is refused


def test_single_file_is_one_part_of_a_corpus(data, tmp_path):
    path = write_all(tmp_path / "c", data)[0]
    assert refusal(path, tmp_path) == (
        f"{path}: a .csd file of CMU-MultimodalSDK (HDF5), 'words'; such a file is one part of a "
        "corpus, and the file of labels is missing.\n"
        "  Expected all files of the corpus at once; the labels say where the clips lie:\n"
        f"{COMMAND}{LAYOUTS}"
    )


def test_labels_alone(data, tmp_path):
    paths = write_all(tmp_path / "c", {k: data[k] for k in ("words.csd", "labels.csd")})
    assert refusal(paths, tmp_path) == (
        f"{paths[0]}: no features beside the labels.\n"
        "  Expected a .csd file of text, audio or vision:\n"
        f"{COMMAND}{LAYOUTS}"
    )


def test_file_that_could_be_anything(data, tmp_path):
    paths = write_all(tmp_path / "c", data)
    odd = tmp_path / "part.csd"
    write_csd(odd, "numbers", data["covarep.csd"])
    assert refusal([*paths[:2], odd, *paths[3:]], tmp_path) == (
        f"{odd}: it is not certain what this file holds; its name inside is 'numbers'.\n"
        f"  Say it: text={odd} (or audio=, vision=, labels=){LAYOUTS}"
    )


def test_two_files_of_one_modality(data, tmp_path):
    paths = write_all(tmp_path / "c", data)
    second = tmp_path / "opensmile.csd"
    write_csd(second, "OpenSMILE", data["covarep.csd"])
    assert refusal([*paths, second], tmp_path) == (
        f"{second}: a second file of audio, beside {paths[2]}.\n"
        "  Expected one per modality. Leave one out, or say what they are: "
        f"text=FILE audio=FILE vision=FILE labels=FILE{LAYOUTS}"
    )


def test_phonemes_are_left_out(data, tmp_path, convert):
    paths = write_all(tmp_path / "c", data)
    write_csd(tmp_path / "p.csd", "phonemes", data["words.csd"])
    card = convert([*paths, tmp_path / "p.csd"]).card
    assert "p.csd, since phonemes are not read" in card.account.left_out


def test_strings_are_no_features(data, tmp_path):
    paths = write_all(tmp_path / "c", data)
    roles = [f"audio={paths[0]}", paths[1], *paths[3:]]
    assert refusal(roles, tmp_path).startswith(
        f'{paths[0]}, "{MOSI[0]}": the features are strings.\n  Expected numbers'
    )


def test_alignment_needs_words(data, tmp_path):
    kept = {name: data[name] for name in ("covarep.csd", "labels.csd")}
    paths = write_all(tmp_path / "c", kept)
    assert "--align word needs the times of words" in refusal(paths, tmp_path, align="word")


def test_other_files_among_them(data, tmp_path):
    paths = write_all(tmp_path / "c", data)
    other = tmp_path / "x.csv"
    other.write_text("a,b\n1,2\n")
    assert refusal([*paths, other], tmp_path) == (
        f"{other}: no .csd file (HDF5). Read together are only those, or a csv table per split.\n"
        "  Expected one file, or the .csd files of CMU-MultimodalSDK of one corpus:\n"
        f"{COMMAND}"
    )


def test_hdf5_of_another_make(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["train/text"] = np.zeros((2, 3))
    assert refusal(path, tmp_path) == (
        f"{path}: an HDF5 file with train, but no .csd file of CMU-MultimodalSDK.\n"
        f"  {WHOLE}\n"
        f"  Save its arrays as npz with the names of their splits and fields.{LAYOUTS}"
    )


def test_damaged_file_is_named_as_hdf5(data, tmp_path):
    path = write_all(tmp_path / "c", data)[0]
    path.write_bytes(path.read_bytes()[:900])
    message = refusal(path, tmp_path)
    assert message.startswith(
        f"{path}: an HDF5 file (CMU-MultimodalSDK's .csd files are HDF5) that is cut short or "
        "damaged ("
    )
    assert message.endswith(COMMAND + LAYOUTS)


def change_first(path, change):
    with h5py.File(path, "a") as file:
        root = file[next(iter(file))]
        change(root[f"data/{MOSI[0]}"])


def replaced(key, **options):
    def change(group):
        del group[key]
        group.create_dataset(key, **options)

    return change


def external_link(group):
    del group["features"]
    group["features"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(group):
    del group["features"]
    group["features"] = h5py.SoftLink("/elsewhere")


def virtual(group):
    del group["features"]
    layout = h5py.VirtualLayout(shape=(7, 3), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(7, 3))
    group.create_virtual_dataset("features", layout)


def missing(group):
    del group["intervals"]


NAN_SPAN = np.array([[0.0, np.nan]] * 7)
BACKWARDS = np.array([[1.0, 0.5]] * 7)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (external_link, '"features" is no plain array or group of this file'),
        (soft_link, '"features" is no plain array or group of this file'),
        (virtual, "features lies in another file"),
        (missing, '"intervals" is missing'),
        (
            replaced("features", shape=(7, 3), dtype="f4", external=[("/etc/passwd", 0, 84)]),
            "features lies in another file",
        ),
        (
            replaced("features", shape=(7, 1 << 30), dtype="f4", chunks=(7, 64)),
            "features declares 30,064,771,072 bytes and stores 0",
        ),
        (
            replaced("features", data=np.zeros((7, 3)).astype("c16")),
            "features is of type complex128",
        ),
        (
            replaced("features", shape=(7, 3), dtype=h5py.vlen_dtype(np.int32)),
            "features is of type object",
        ),
        (replaced("features", data=np.zeros((5, 3))), "features have shape [5, 3] for 7 intervals"),
        (replaced("features", data=np.zeros((7, 3, 2))), "features have shape [7, 3, 2] for 7"),
        (replaced("features", data=np.zeros((7, 0))), "features have shape [7, 0] for 7 intervals"),
        (replaced("intervals", data=np.zeros((7, 3))), "intervals are float64 [7, 3]"),
        (replaced("intervals", data=1.5), "intervals are float64 []"),
        (replaced("intervals", data=NAN_SPAN), "interval 0 is 0 to nan seconds"),
        (replaced("intervals", data=BACKWARDS), "interval 0 is 1 to 0.5 seconds"),
    ],
)
def test_arrays_that_are_not_plain_are_refused(data, tmp_path, change, found):
    paths = write_all(tmp_path / "c", data)
    change_first(paths[1], change)
    message = refusal(paths, tmp_path)
    assert message.startswith(f'{paths[1]}, "{MOSI[0]}": {found}')
    assert message.endswith(f"{WHOLE}{LAYOUTS}")


def test_number_of_a_segment_that_is_too_large(data, tmp_path):
    paths = write_all(tmp_path / "c", data)
    key = f"{MOSI[0]}[{10**30}]"
    with h5py.File(paths[1], "a") as file:
        videos = file[next(iter(file))]["data"]
        videos.move(MOSI[0], key)
    assert refusal(paths, tmp_path) == (
        f'{paths[1]}, "{key}": a segment number of 31 digits.\n'
        f"  Expected at most 18. {WHOLE}{LAYOUTS}"
    )


def test_name_that_is_no_text(data, tmp_path):
    paths = write_all(tmp_path / "c", data)
    with h5py.File(paths[1], "a") as file:
        file[next(iter(file))]["data"].move(MOSI[0], b"\xff\xfe")
    assert refusal(paths, tmp_path) == (
        f"{paths[1]}: the name of a video is no UTF-8, b'\\xff\\xfe'.\n"
        f"  {WHOLE} Fetch or copy it again.{LAYOUTS}"
    )
    with h5py.File(paths[2], "a") as file:
        file.move(next(iter(file)), b"\xff\xfe")
    assert refusal([paths[2]], tmp_path).startswith(f"{paths[2]}: an HDF5 file with b'\\xff")


def test_reading_changes_nothing(data, tmp_path, convert):
    paths = write_all(tmp_path / "c", data)
    before = [Path(path).read_bytes() for path in paths]
    convert(paths)
    assert [Path(path).read_bytes() for path in paths] == before


def test_segments_with_a_label_of_nan_are_left_out_and_limited(data, tmp_path, convert):
    spans, labels = data["labels.csd"][MOSI[0]]
    data["labels.csd"][MOSI[0]] = (spans, np.array([[np.nan], labels[1]]))
    sources = write_all(tmp_path / "x", data)
    assert "  1 clip: segments with a label of NaN\n" in refusal(sources, tmp_path)
    corpus = convert(sources, max_lost=0.2)
    assert f"{MOSI[0]}[0]" not in [clip.id for clip in corpus_clips(corpus)]
    assert "1 clip: segments with a label of NaN" in corpus.card.account.left_out


def test_renaming_is_refused(data, tmp_path):
    assert refusal(write_all(tmp_path / "x", data), tmp_path, rename={"a": "b"}) == (
        "--rename has no use for .csd files.\n"
        "  Expected it for a pickle, npz file or table. To say what a .csd file holds: audio=FILE"
    )


def test_times_of_another_unit_are_asked_about(data, tmp_path, convert):
    for video, (spans, steps) in data["covarep.csd"].items():
        data["covarep.csd"][video] = (np.asarray(spans) * 1000, steps)
    notes = convert(write_all(tmp_path / "x", data)).card.notes
    assert (
        "covarep.csd: its times end at 3500 and those of the labels at 3.5; expected seconds in "
        "both. Are these milliseconds, or steps?"
    ) in notes
    assert len([note for note in notes if "expected seconds" in note]) == 1
