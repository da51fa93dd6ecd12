"""``mmcl predict RUN RECORDING`` as a user types it, with an extractor that opens no media."""

import csv
import json
from types import SimpleNamespace
from typing import ClassVar

import pytest

from fakes.words import FakeModels
from mmcl.cli.main import main
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.schema import Word
from mmcl.corpus.store import write_corpus
from mmcl.media.recipe import Recipe

SETTINGS = PlantSettings(train=24, valid=8, test=8)
TEXTS = ("what a [bold]wonderful[/] film", "it was <b>long</b>")


class FakeExtractor:
    """Finds two utterances in every file; the second has no face."""

    models = FakeModels()

    asked: ClassVar = []

    def __init__(self, recipe):
        self.recipe = recipe

    def extract(self, path, *, transcript=None):
        self.asked.append((self.recipe.frame_rate, str(path), transcript, self.recipe.language))
        clips = []
        for at, (clip, text) in enumerate(zip(plant_clips(SETTINGS), TEXTS, strict=False)):
            words = tuple(
                Word(text=w, start=i / 4, end=(i + 1) / 4) for i, w in enumerate(text.split())
            )
            features = {
                m: x[: len(words)] for m, x in clip.features.items() if m != "vision" or at == 0
            }
            clips.append(
                clip.model_copy(
                    update={"split": "test", "text": text, "words": words, "features": features}
                )
            )
        spans = [(0.0, 1.0), (62.0, 63.0)]
        notes = ("no face in 1 of 2 utterances: vision is left out",)
        return SimpleNamespace(clips=clips, spans=spans, notes=notes)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_overrides):
    """A run on a corpus with a recipe, one on a corpus without, and a film."""
    folder = tmp_path_factory.mktemp("media")
    small = [word for pair in tiny_overrides for word in ("--set", pair)]
    recipe = {"extraction": Recipe(frame_rate=7.0).model_dump()}
    for name, changes in (("planted", {}), ("extracted", {"recipe": recipe})):
        card = plant_card(SETTINGS).model_copy(update={"name": name, **changes})
        path = folder / f"{name}.arrow"
        write_corpus(path, card, plant_clips(SETTINGS))
        command = ["train", str(path), "--out", str(folder / name), "--seeds", "1,2", *small]
        assert main(command) == 0
    (folder / "film.MP4").write_bytes(b"film")
    (folder / "film.srt").write_text("")
    return folder


@pytest.fixture
def folder(shared, tmp_path, monkeypatch):
    for path in shared.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("mmcl.media.extract.Extractor", FakeExtractor)
    monkeypatch.setattr(FakeExtractor, "asked", [])
    return tmp_path


def test_recording_is_shown_as_a_table(folder, run):
    code, out, err = run("predict", "extracted", "film.MP4")
    assert (code, err) == (0, "")
    assert FakeExtractor.asked == [(7.0, "film.MP4", None, None)]
    flat = " ".join(out.split())
    assert "film.MP4: 2 utterances: on average" in flat
    assert "[bold]wonderful[/]" in out  # as it was said, not as markup
    assert "│ 1:02 │ it was <b>long</b> " in out
    assert "no face" in out
    assert "mean error on validation: ±" in flat
    assert out.splitlines()[-1] == "note: no face in 1 of 2 utterances: vision is left out"
    assert sorted(path.name for path in folder.iterdir()) == [
        "extracted",
        "extracted.arrow",
        "film.MP4",
        "film.srt",
        "planted",
        "planted.arrow",
    ]


def test_transcript_goes_to_the_extractor(folder, run):
    assert run("predict", "extracted", "film.MP4", "--transcript", "film.srt")[0] == 0
    assert str(FakeExtractor.asked[0][2]) == "film.srt"


def test_language_goes_to_the_extractor(folder, run):
    assert run("predict", "extracted", "film.MP4", "--language", "es")[0] == 0
    assert FakeExtractor.asked[0][3] == "es"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_recording_as_rows(folder, run, ending):
    code, out, _ = run("predict", "extracted", "film.MP4", "--out", f"new/film.{ending}")
    assert (code, out.splitlines()[-1]) == (0, f"new/film.{ending}")
    path = folder / "new" / f"film.{ending}"
    if ending == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["missing_modalities"] for row in rows] == [[], ["vision"]]
    else:
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert [row["missing_modalities"] for row in rows] == ["", "vision"]
    assert [row["text"] for row in rows] == list(TEXTS)
    assert [float(row["start"]) for row in rows] == [0.0, 62.0]


def test_recording_as_subtitles_page_and_picture(folder, run):
    pytest.importorskip("matplotlib")
    words = ("predict", "extracted", "film.MP4")
    code, out, _ = run(*words, "--out", "film.html", "--plot", "film.png")
    assert (code, out.splitlines()[-2:]) == (0, ["film.html", "film.png"])
    page = (folder / "film.html").read_text()
    assert 'src="data:video/mp4;base64,ZmlsbQ=="' in page
    assert "<b>long" not in page
    assert (folder / "film.png").read_bytes()[:4] == b"\x89PNG"
    assert run(*words, "--out", "new.srt")[0] == 0
    captions = (folder / "new.srt").read_text()
    assert captions.startswith("1\n00:00:00,000 --> 00:00:01,000\n[")
    assert "\n\n2\n00:01:02,000 --> 00:01:03,000\n[" in captions


def test_means_of_minutes_and_speakers(folder, run, monkeypatch):
    extract = FakeExtractor.extract

    def by_two(self, path, *, transcript=None):
        extracted = extract(self, path, transcript=transcript)
        for at, name in enumerate(("[b]Anna[/]", "Ben")):
            extracted.clips[at] = extracted.clips[at].model_copy(update={"speaker": name})
        return extracted

    monkeypatch.setattr(FakeExtractor, "extract", by_two)
    files = ("--out", "new.csv", "--means", "new-means.csv")
    code, out, _ = run("predict", "extracted", "film.MP4", *files)
    assert (code, out.splitlines()[-2:]) == (0, ["new.csv", "new-means.csv"])
    rows = list(csv.DictReader((folder / "new.csv").read_text().splitlines()))
    scores = [float(row["prediction"]) for row in rows]
    assert [row["speaker"] for row in rows] == ["[b]Anna[/]", "Ben"]
    means = list(csv.DictReader((folder / "new-means.csv").read_text().splitlines()))
    assert [(row["of"], row["name"]) for row in means] == [
        ("recording", "film.MP4"),
        ("minute", "0:00"),
        ("minute", "1:00"),
        ("speaker", "[b]Anna[/]"),
        ("speaker", "Ben"),
    ]
    expected = [sum(scores) / 2, *scores, *scores]
    assert [float(row["mean"]) for row in means] == pytest.approx(expected)
    flat = " ".join(out.split())
    assert "│ [b]Anna[/] │ what a" in flat
    assert "[b]Anna[/]: 1 utterance: " in flat


def test_predictions_do_not_depend_on_the_output(folder, run):
    run("predict", "extracted", "film.MP4", "--out", "new.csv")
    run("predict", "extracted", "film.MP4", "--out", "new.jsonl")
    as_csv = list(csv.DictReader((folder / "new.csv").read_text().splitlines()))
    as_json = [json.loads(line) for line in (folder / "new.jsonl").read_text().splitlines()]
    for one, other in zip(as_csv, as_json, strict=True):
        assert float(one["prediction"]) == other["prediction"]
        assert float(one["share_audio"]) == other["share_audio"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        pytest.param(
            ["extracted", "film.MP4", "--out", "new.txt"],
            2,
            'UsageError: --out must end in .csv, .jsonl, .parquet, .srt, .html, got "new.txt"\n',
            id="out",
        ),
        pytest.param(
            ["extracted", "film.MP4", "--plot", "new.jpg"],
            2,
            'UsageError: --plot must end in .png, got "new.jpg"\n',
            id="plot",
        ),
        pytest.param(
            ["extracted", "film.MP4", "--means", "new.html"],
            2,
            'UsageError: --means must end in .csv, .jsonl, .parquet, got "new.html"\n',
            id="means",
        ),
        pytest.param(
            ["extracted", "planted.arrow", "--out", "new.csv", "--means", "new-means.csv"],
            2,
            'UsageError: --means is only for recordings, and "planted.arrow" is not one\n',
            id="corpus-means",
        ),
        pytest.param(
            ["extracted", "planted.arrow"],
            2,
            "UsageError: planted.arrow: its ending is not that of a recording, and "
            "predictions of a corpus or of a table of texts need a file.\n"
            "  Give one: --out with .csv, .jsonl, .parquet\n",
            id="corpus-without-out",
        ),
        pytest.param(
            ["clip"],
            2,
            "UsageError: clip: no such file.\n"
            "  Expected a recording, a corpus, or a table of texts.\n",
            id="nothing",
        ),
        pytest.param(
            ["film.MP4", "extracted"],
            2,
            'UsageError: "extracted" is a run, and the run comes first: '
            "mmcl predict extracted film.MP4\n",
            id="other-order",
        ),
        pytest.param(
            ["film.MP4", "planted.arrow"],
            1,
            "RunError: film.MP4: a recording, not a run folder.\n"
            "  To predict it: mmcl predict film.MP4\n",
            id="recording-as-run",
        ),
        pytest.param(
            ["https://example.org/talk.mp4"],
            2,
            "UsageError: https:/example.org/talk.mp4: addresses on the net are not read.\n"
            "  Download the file, and give its path: mmcl predict talk.mp4\n",
            id="address",
        ),
        pytest.param(
            ["extracted", "planted.arrow", "--out", "new.srt"],
            2,
            'UsageError: --out must end in .csv, .jsonl, .parquet, got "new.srt"\n',
            id="corpus-as-subtitles",
        ),
        pytest.param(
            ["extracted", "planted.arrow", "--out", "new.csv", "--plot", "new.png"],
            2,
            'UsageError: --plot is only for recordings, and "planted.arrow" is not one\n',
            id="corpus-plot",
        ),
        pytest.param(
            ["extracted", "planted.arrow", "--transcript", "film.srt"],
            2,
            'UsageError: --transcript is only for recordings, and "planted.arrow" is not one\n',
            id="corpus-transcript",
        ),
        pytest.param(
            ["extracted", "film.MP4", "--workers", "2"],
            2,
            'UsageError: --workers is only for a corpus, and "film.MP4" is a recording\n',
            id="workers-of-one-process",
        ),
        pytest.param(
            ["extracted", "film.MP4", "--engine", "ray"],
            2,
            'UsageError: --engine ray is only for a corpus, and "film.MP4" is a recording\n',
            id="recording-over-ray",
        ),
        pytest.param(
            ["planted", "film.MP4", "--out", "new.html"],
            1,
            "RunError: planted: was trained on features that mmcl did not extract, so it cannot "
            'read "film.MP4".\n'
            "  Train on a corpus made by mmcl extract, or give a corpus with features like its "
            "own\n",
            id="foreign-features",
        ),
    ],
)
def test_mistakes_are_named_and_nothing_is_left(folder, run, words, code, message):
    assert run("predict", *words) == (code, "", message)
    assert not list(folder.glob("new*"))
    assert FakeExtractor.asked == []


@pytest.mark.parametrize("option", ["--out", "--means"])
def test_transcript_is_kept(folder, run, option):
    (folder / "words.csv").write_text("text\nmine\n")
    words = ("predict", "extracted", "film.MP4", "--transcript", "words.csv")
    assert run(*words, option, "words.csv") == (
        2,
        "",
        "UsageError: words.csv: the command reads this, so it cannot write it as well; "
        "nothing was changed.\n  Give the output another name.\n",
    )
    assert (folder / "words.csv").read_text() == "text\nmine\n"


def test_outputs_of_one_recording_have_names_of_their_own(folder, run):
    words = ("predict", "extracted", "film.MP4", "--out", "a.csv", "--means", folder / "a.csv")
    assert run(*words) == (
        2,
        "",
        "UsageError: two outputs have one name; give each another: --out, --means, --plot\n",
    )
    assert not (folder / "a.csv").exists()
