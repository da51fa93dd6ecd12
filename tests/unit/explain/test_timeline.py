"""The timeline of a recording as a page, subtitles, a table and a picture."""

import struct
from html.parser import HTMLParser

import numpy as np
import pytest

from mmcl.corpus.schema import Task
from mmcl.errors import DatasetError, MissingExtraError
from mmcl.explain import timeline_page as page_module
from mmcl.explain.timeline import draw_timeline, subtitles, timeline_table
from mmcl.explain.timeline_page import timeline_page
from mmcl.media.containers.decode import MediaInfo

CLASSES = Task(kind="classes", names=("calm", "cross"))


class _Page(HTMLParser):
    """Elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.texts, self._open = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open not in ("script", "style"):
            self.texts.append(data)

    def of(self, kind):
        """Attributes of the elements of a class."""
        return [a for _, a in self.elements if kind in (a.get("class") or "").split()]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def media(tmp_path):
    path = tmp_path / "a film.mp4"
    path.write_bytes(b"film")
    return path


def _as_classes(timeline, moments_like):
    moments = tuple(
        moments_like(name, {"text": 0.3, "audio": -0.1}, [0.1]) for name in ("calm", "cross")
    )
    return timeline._replace(task=CLASSES, moments=moments, error=None)


# ---------------------------------------------------------------- the page


def test_page_shows_every_utterance(timeline):
    page = _Page(timeline_page(timeline))
    assert "2 utterances: on average neutral (−0.4 of −3…3), from −2.0 to +1.3." in page.text
    assert "0:00 +1.3 rather positive ± 0.6 on validation, ± 0.2 between seeds" in page.text
    assert "1:15 −2.0 negative ± 0.6 on validation, ± 0.5 between seeds" in page.text
    assert "Text raised it most (+0.9), above all by “wonderful”" in page.text
    assert "no <b>face</b> in any picture" in page.text
    assert [a["id"] for a in page.of("utterance")] == ["u1", "u2"]
    assert len(page.of("word")) == 4


def test_page_keeps_hostile_words_as_text(timeline, media):
    hostile = timeline._replace(name='"><script>alert(2)</script>')
    page = timeline_page(hostile, media=media)
    assert "<script>alert" not in page
    parsed = _Page(page)
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    assert "<script>alert(1)</script>" in parsed.text


def test_page_asks_the_network_for_nothing(timeline, media):
    page = timeline_page(timeline, media=media)
    for _, attributes in _Page(page).elements:
        for name in ("src", "href", "poster", "data"):
            assert (attributes.get(name) or "#")[:5] in ("#", "#u1", "#u2", "data:")
    assert "url(" not in page
    assert "@import" not in page
    assert "Plotly" not in page


@pytest.mark.parametrize(
    ("name", "kind", "mime"),
    [("film.mp4", "video", "video/mp4"), ("talk.WAV", "audio", "audio/x-wav")],
)
def test_small_recording_is_in_the_page(timeline, tmp_path, name, kind, mime):
    media = tmp_path / name
    media.write_bytes(b"film")
    page = _Page(timeline_page(timeline, media=media))
    (player,) = [(tag, a) for tag, a in page.elements if a.get("id") == "player"]
    assert player[0] == kind
    assert player[1]["src"] == f"data:{mime};base64,ZmlsbQ=="
    assert "too large" not in page.text


def test_large_recording_is_linked_to(timeline, media, tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_EMBEDDED", 3)
    page = _Page(timeline_page(timeline, media=media, beside=tmp_path / "out"))
    (source,) = [a["src"] for _, a in page.elements if a.get("id") == "player"]
    assert source == "../a%20film.mp4"
    assert "The recording is too large to be part of this page" in page.text


def test_words_and_utterances_play_where_there_is_a_recording(timeline, media):
    page = _Page(timeline_page(timeline, media=media))
    buttons = [a for tag, a in page.elements if tag == "button"]
    assert [a["data-at"] for a in buttons] == ["0.5", "0.5", "1.0", "1.5", "75.25", "75.25"]
    # One stop per utterance for its words; arrows lead on.
    assert [a.get("tabindex") for a in buttons] == [None, None, "-1", "-1", None, None]
    steps = [a for tag, a in page.elements if tag == "a"]
    assert [(a["href"], a["data-at"]) for a in steps] == [("#u1", "0.5"), ("#u2", "75.25")]


def test_page_without_a_recording_has_no_player(timeline):
    page = _Page(timeline_page(timeline))
    assert not [a for tag, a in page.elements if tag in ("video", "audio", "button")]


def test_cells_are_the_steps_of_each_word(timeline):
    page = _Page(timeline_page(timeline))
    common, action = ([a.get("style") for a in page.of(k)] for k in ("common", "action"))
    assert common[:3] == ["--v:50%", "--v:0%", None]  # the first word: text, voice, no face
    assert action[:3] == ["--v:100%", "--v:0%", None]
    assert common[3:6] == ["--v:25%", "--v:50%", "--v:20%"]
    # Two steps of the voice in the time of one word are their mean.
    assert common[9:] == ["--v:50%", "--v:50%", None]
    assert action[9:] == ["--v:100%", "--v:50%", None]


def test_step_belongs_to_the_word_its_middle_lies_in(timeline, clip_like, moments_like):
    steps = {"audio": np.array([0.0, 0.3, 0.9], dtype=np.float32)}
    found = {"audio": np.ones(3, dtype=bool)}
    moments = moments_like(1.0, {"audio": 1.0}, commonality=steps, action=steps, found=found)
    alone = timeline._replace(
        clips=(clip_like("so it"),), spans=((7.0, 8.0),), moments=(moments,), notes=()
    )
    page = _Page(timeline_page(alone))
    assert [a["style"] for a in page.of("common")] == ["--v:0%", "--v:60%"]


def test_weak_words_are_pale(timeline, clip_like, moments_like):
    moments = moments_like(1.0, {"text": 0.1}, [0.03, -0.15])
    pale = timeline._replace(
        clips=(clip_like("so it"),), spans=((7.0, 8.0),), moments=(moments,), notes=()
    )
    words = _Page(timeline_page(pale)).of("word")
    # Full colour from 0.3 on, which is three times the least change worth a word.
    assert [(w["class"], w["style"]) for w in words] == [
        ("word positive", "--v: 10%"),
        ("word negative strong", "--v: 50%"),
    ]


def test_timeline_lies_where_the_utterances_are(timeline):
    page = _Page(timeline_page(timeline))
    bands, steps = page.of("band"), page.of("step")
    assert [b["x"] for b in bands] == ["0.66%", "99.34%"]
    # 6% is +3 and 94% is -3: 1.26 lies at 50 - 1.26 / 6 * 88.
    assert [s["y1"] for s in steps] == ["31.52%", "79.33%"]
    assert [b["y"] for b in bands] == ["22.54%", "70.36%"]
    assert [b["height"] for b in bands] == ["17.95%", "17.95%"]


def test_axis_ends_with_the_recording(timeline, media, monkeypatch):
    def length(path):
        assert path == media
        return MediaInfo(151.5, True, True, 640, 360, 25.0)

    monkeypatch.setattr(page_module, "probe", length)
    page = _Page(timeline_page(timeline, media=media))
    assert [b["x"] for b in page.of("band")] == ["0.33%", "49.67%"]  # of 75.75 s: twice as far
    assert page.of("sides")[0]["data-total"] == "151.5"


def test_colours_are_explained_directly_above_the_words(timeline, media):
    page = timeline_page(timeline, media=media)
    before, _, after = page.partition('<ul class="legend"')
    assert before.rstrip().endswith('<div class="spoken">')
    assert after.partition("</ul>")[2].lstrip().startswith('<ol class="utterances"')


def test_page_names_speakers(timeline):
    clips = [
        clip.model_copy(update={"speaker": name})
        for clip, name in zip(timeline.clips, ("Anna", "<b>Ben</b>"), strict=True)
    ]
    page = _Page(timeline_page(timeline._replace(clips=tuple(clips))))
    assert "Anna 1 utterance: rather positive (+1.3 of −3…3)." in page.text
    assert "<b>Ben</b> 1 utterance: negative (−2.0 of −3…3)." in page.text
    assert "0:00 Anna +1.3 rather positive" in page.text
    assert len(page.of("speaker")) == 2
    assert not _Page(timeline_page(timeline)).of("speakers")


def test_page_lists_what_stands_out(timeline, clip_like, moments_like):
    scores = [0.0, 2.0, 0.1, 1.0, 2.5, 0.2, -0.3, 0.3]
    long = timeline._replace(
        clips=tuple(clip_like(f"number {at}") for at in range(8)),
        spans=tuple((10.0 * at, 10.0 * at + 5) for at in range(8)),
        moments=tuple(moments_like(score, {"text": 0.1}, [0.1, 0.1]) for score in scores),
    )
    page = _Page(timeline_page(long))
    links = [a for tag, a in page.elements if tag == "a"][8:]  # after those of the plot
    assert [(a["href"], a["data-at"], a["class"]) for a in links] == [
        ("#u5", "40.0", "positive"),
        ("#u2", "10.0", "positive"),
        ("#u4", "30.0", "positive"),
    ]
    assert "Most positive 0:40 +2.5 number 4 0:10 +2.0 number 1" in page.text
    assert "Most negative No utterance is negative." in page.text
    assert not _Page(timeline_page(timeline)).of("extremes")


@pytest.mark.parametrize(
    ("share", "text", "drawn"),
    [
        (0.06, "+0.1", ("positive", "width: 3.0%")),
        (0.04, "0.0", ("neutral", "width: 0.0%")),
        (-0.04, "0.0", ("neutral", "width: 0.0%")),
        (-0.06, "−0.1", ("negative", "width: 3.0%")),
    ],
)
def test_bar_of_what_shows_nothing_has_no_colour(timeline, moments_like, share, text, drawn):
    moments = moments_like(1.0, {"text": 0.9, "audio": share}, [])
    page = timeline_page(timeline._replace(moments=(moments, timeline.moments[1])))
    track = page.split("<dt>voice</dt>")[1].split("</dl>")[0]
    assert f'<span class="{drawn[0]}" style="{drawn[1]}"></span>' in track
    assert f'<dd class="number">{text}</dd>' in track


def test_page_of_classes(timeline, moments_like):
    page = _Page(timeline_page(_as_classes(timeline, moments_like)))
    assert "2 utterances: 1 × calm, 1 × cross." in page.text
    assert "calm 71% probability 71%" in page.text
    assert "Height: the probability of the prediction." in page.text
    assert page.of("band") == []


def test_utterance_without_words_shows_seconds(timeline):
    clip = timeline.clips[1].model_copy(update={"text": None, "words": None})
    span = (61.0, 63.5)
    silent = timeline._replace(clips=(timeline.clips[0], clip), spans=(timeline.spans[0], span))
    page = _Page(timeline_page(silent))
    assert len(page.of("word")) == 3 + 3
    assert "1:01" in page.text
    assert "1:03" in page.text


# ---------------------------------------------------------------- subtitles and table


def test_subtitles(timeline):
    clip = timeline.clips[0].model_copy(update={"text": "a wonderful\n\nmess --> so"})
    spans = ((0.5, 2.0004), (3675.25, 3675.9996))
    changed = timeline._replace(clips=(clip, timeline.clips[1]), spans=spans)
    assert subtitles(changed) == (
        "1\n00:00:00,500 --> 00:00:02,000\n[+1.3 rather positive] a wonderful mess → so\n"
        "\n"
        "2\n01:01:15,250 --> 01:01:16,000\n[−2.0 negative] <script>alert(1)</script>\n"
    )


def test_subtitles_name_speakers(timeline):
    clip = timeline.clips[0].model_copy(update={"speaker": "Anna\n\nLee"})
    captions = subtitles(timeline._replace(clips=(clip, timeline.clips[1])))
    assert "\n[+1.3 rather positive] Anna Lee: a wonderful mess\n" in captions


def test_table_has_a_row_per_utterance(timeline):
    named = timeline.clips[0].model_copy(update={"speaker": "Anna"})
    shown = timeline._replace(clips=(named, timeline.clips[1]))
    assert timeline_table(shown).to_pylist() == [
        {
            "utterance": 1,
            "start": 0.5,
            "end": 2.0,
            "text": "a wonderful mess",
            "speaker": "Anna",
            "prediction": 1.26,
            "spread": 0.25,
            "probability": None,
            "missing_modalities": [],
            "share_text": 0.9,
            "share_audio": -0.2,
            "share_vision": 0.04,
            "strongest_words": ["wonderful", "mess"],
        },
        {
            "utterance": 2,
            "start": 75.25,
            "end": 75.75,
            "text": "<script>alert(1)</script>",
            "speaker": None,
            "prediction": -2.0,
            "spread": 0.5,
            "probability": None,
            "missing_modalities": ["vision"],
            "share_text": -1.0,
            "share_audio": -0.5,
            "share_vision": 0.0,
            "strongest_words": ["<script>alert(1)</script>"],
        },
    ]


def test_table_of_classes(timeline, moments_like):
    rows = timeline_table(_as_classes(timeline, moments_like)).to_pylist()
    assert [row["prediction"] for row in rows] == ["calm", "cross"]
    assert {row["share_vision"] for row in rows} == {None}  # the run does not use it


# ---------------------------------------------------------------- the picture


def _pixels(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


@pytest.mark.parametrize("kind", ["scores", "classes"])
def test_picture_is_drawn(timeline, moments_like, tmp_path, kind):
    pytest.importorskip("matplotlib")
    shown = timeline._replace(name="$\\broken$ film")
    if kind == "classes":
        shown = _as_classes(shown, moments_like)
    draw_timeline(shown, tmp_path / "new" / "film.png")
    assert _pixels(tmp_path / "new" / "film.png") == (1500, 750)


def test_picture_is_pale_where_nothing_moved_much(timeline, moments_like, tmp_path):
    plt = pytest.importorskip("matplotlib.image")
    pictures = []
    for name, share in (("weak", 0.01), ("strong", 1.0)):
        moments = tuple(moments_like(m.prediction, {"text": share}, []) for m in timeline.moments)
        draw_timeline(timeline._replace(moments=moments), tmp_path / f"{name}.png")
        pictures.append(plt.imread(tmp_path / f"{name}.png")[500:700, :, :3])
    weak, strong = (picture.max(axis=-1) - picture.min(axis=-1) for picture in pictures)
    assert 0 < weak.max() < strong.max() / 2  # of colour: 0 is grey


def test_picture_that_cannot_be_written(timeline, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError) as caught:
        draw_timeline(timeline, tmp_path / "file" / "film.png")
    assert str(caught.value) == f"{tmp_path}/file/film.png: cannot be written (File exists)."


def test_picture_needs_matplotlib(timeline, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError) as caught:
        draw_timeline(timeline, tmp_path / "film.png")
    assert str(caught.value) == (
        "drawing a timeline needs matplotlib, which is not installed.\n"
        '  Install it: pip install "mmcl[media]"'
    )


@pytest.mark.parametrize(
    ("total", "labels"),
    [
        (0.4, ["0:00"]),
        (3.0, ["0:00", "0:01", "0:02"]),
        (7.5, ["0:00", "0:02", "0:04", "0:06"]),
        (3660.0, ["0:00", "15:00", "30:00", "45:00", "1:00:00"]),
    ],
)
def test_times_are_round_and_do_not_repeat(timeline, tmp_path, monkeypatch, total, labels):
    drawn = []
    axes = pytest.importorskip("matplotlib.axes").Axes
    monkeypatch.setattr(axes, "set_xticks", lambda self, _, texts: drawn.append(texts))
    alone = timeline._replace(
        clips=timeline.clips[:1], spans=((0.0, total),), moments=timeline.moments[:1]
    )
    draw_timeline(alone, tmp_path / "short.png")
    assert drawn == [labels]
    page = timeline_page(alone).split('class="times"')[1].split("</div>")[0]
    assert [part.split("</span>")[0] for part in page.split('%">')[1:]] == labels


def test_picture_is_grey_where_a_share_shows_nothing(timeline, moments_like, tmp_path, monkeypatch):
    colours = []
    axes = pytest.importorskip("matplotlib.axes").Axes
    monkeypatch.setattr(
        axes, "broken_barh", lambda self, *_, color, alpha, **__: colours.append((color, alpha))
    )
    moments = moments_like(1.0, {"text": 0.9, "audio": 0.04, "vision": -0.04}, [])
    draw_timeline(timeline._replace(moments=(moments,) * 2), tmp_path / "grey.png")
    grey = tuple(value / 255 for value in (128, 136, 148))
    assert [colour == (grey, 0.08) for colour in colours] == [False, True, True] * 2


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-3, 3, ["+3", "0", "−3"]),
        (-1, 1, ["+1.0", "0.0", "−1.0"]),
        (1, 5, ["5", "3", "1"]),
        (0, 5, ["5", "2.5", "0"]),
        (0, 1, ["1", "0.5", "0"]),
        (0, 100, ["100", "50", "0"]),
    ],
)
def test_scale_names_its_ends_and_the_neutral_score(low, high, expected):
    levels = page_module._levels(Task(kind="regression", low=low, high=high))
    assert [level["text"] for level in levels] == expected
    assert [level["at"] for level in levels] == [6.0, 50.0, 94.0]


def test_picture_of_stars_has_its_line_in_the_middle(timeline, tmp_path, monkeypatch):
    drawn = []
    axes = pytest.importorskip("matplotlib.axes").Axes
    monkeypatch.setattr(axes, "axhline", lambda self, y, **_: drawn.append(y))
    stars = timeline._replace(task=Task(kind="regression", low=1, high=5))
    draw_timeline(stars, tmp_path / "stars.png")
    assert drawn == [3]


def test_ten_thousand_words_are_all_there(timeline):
    repeats = 2500  # of four words
    spans = tuple((3.0 * at, 3.0 * at + 2.0) for at in range(2 * repeats))
    long = timeline._replace(
        clips=timeline.clips * repeats, spans=spans, moments=timeline.moments * repeats
    )
    page = _Page(timeline_page(long))
    assert len(page.of("word")) == 10_000
    assert [page.of("utterance")[at]["id"] for at in (0, -1)] == ["u1", "u5000"]
    assert subtitles(long).count(" --> ") == 5000
    assert timeline_table(long).num_rows == 5000
