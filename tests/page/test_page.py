"""The page in a browser, on a service whose jobs a test lets go on."""

import pytest

from mmcl.explain.timeline_page import timeline_page
from page.browsing import until
from page.stub import PREDICTIONS, SAID, STAGES, timeline_of

RESULT = "#panel-one article"
NAMES_OF_CONTROLS = """
  [...document.querySelectorAll("button, input, select, textarea, video, svg[role]")]
    .filter((each) => each.checkVisibility())
    .map((each) => each.ariaLabel || each.textContent.trim()
      || each.labels?.[0]?.textContent.trim())
"""


def predict(page, path):
    page.set_input_files("#picker input[type=file]", path)
    page.click("#ask-one [type=submit]")


@pytest.fixture
def shown(stub, open_page, clip):
    """A page with a result on it: ``shown(width=360)``."""

    def show(**options):
        page = open_page(stub.address, **options)
        predict(page, clip)
        page.wait_for_selector(RESULT)
        return page

    return show


def hold_still(page):
    """Keep what is sought from playing on."""
    page.evaluate("() => { HTMLMediaElement.prototype.play = () => Promise.resolve(); }")


def fits(page):
    return page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


# ---------------------------------------------------------------- a recording


def test_recording_is_sent_with_what_the_form_says(stub, open_page, clip):
    page = open_page(stub.address)
    page.select_option("#ask-one select", "beta")
    page.fill("#picker .transcript", " I love it. ")
    page.fill("#picker .language", "EN")
    predict(page, clip)
    page.wait_for_selector(RESULT)
    assert stub.received == [
        {
            "model": "beta",
            "wait": 0,
            "name": "example.mp4",
            "bytes": clip.stat().st_size,
            "transcript": "I love it.",
            "language": "en",
        }
    ]


def test_progress_is_shown_stage_by_stage(stub, open_page, clip):
    stub.gate.clear()
    page = open_page(stub.address)
    predict(page, clip)
    line = page.locator(".now-line")
    line.get_by_text(STAGES[1]).wait_for()
    assert page.locator(".stages li").all_text_contents() == [STAGES[0]]
    assert line.get_attribute("role") == "status"
    assert page.locator(RESULT).count() == 0
    stub.gate.set()
    page.wait_for_selector(RESULT)
    assert page.locator(".working").count() == 0


def test_cancel_ends_the_job_and_gives_the_form_back(stub, open_page, clip):
    stub.gate.clear()
    page = open_page(stub.address)
    predict(page, clip)
    page.locator(".now-line").get_by_text(STAGES[1]).wait_for()
    page.click(".cancel")
    page.wait_for_selector(".working", state="detached")
    assert stub.jobs["job0"]["status"] == "cancelled"
    assert page.evaluate("document.activeElement.textContent") == "Predict"
    assert page.locator(".problem:visible").count() == 0


def test_result_shows_every_utterance(shown):
    page = shown()
    assert page.locator("article h2").text_content() == "example.mp4"
    assert page.locator("article .lead").text_content().startswith("3 utterances: on average")
    assert page.locator(".badge").all_text_contents() == [
        "+2.1 positive",
        "+1.4 rather positive",
        "−1.6 negative",
    ]
    assert page.locator(".word").all_inner_texts() == [w for _, words in SAID for w in words]
    assert page.locator(".plot .step").count() == 3
    assert page.locator(".plot .whisker").count() == 3
    assert page.locator(".plot .band").count() == 3
    # A cell for what is common and one for what is kept, per word in which it was measured.
    strips = page.locator(".strip svg").all()
    assert [each.locator(".common, .action").count() for each in strips] == [26, 26, 14]
    assert page.locator(".bars .number").all_text_contents()[6:] == ["−1.0", "+0.2", "none"]
    assert page.locator("aside").text_content() == "vision is missing in 1 of 3 utterances"


def test_plot_is_drawn_to_scale(shown):
    page = shown()
    # The scale's ends lie at 6% and 94%: +2.1 of -3..3 is (3 - 2.1) / 6 of 88% below the top.
    height = page.locator(".plot .step").first.get_attribute("y1")
    assert float(height.rstrip("%")) == pytest.approx(6 + 88 * 0.9 / 6)
    left = page.locator(".plot .hit").nth(1).get_attribute("x")
    assert float(left.rstrip("%")) == pytest.approx(100 * 3.0 / 7.5)
    band = page.locator(".plot .band").nth(1)  # +1.4, give or take 0.61
    assert float(band.get_attribute("y").rstrip("%")) == pytest.approx(6 + 88 * 0.99 / 6)
    assert float(band.get_attribute("height").rstrip("%")) == pytest.approx(88 * 1.22 / 6)
    whisker = page.locator(".plot .whisker").first
    ends = [float(whisker.get_attribute(y).rstrip("%")) for y in ("y1", "y2")]
    assert ends == pytest.approx([6 + 88 * 0.6 / 6, 6 + 88 * 1.2 / 6])


def test_words_differ_without_colour(shown):
    page = shown()
    style = (
        "each => [getComputedStyle(each).textDecorationStyle, getComputedStyle(each).fontWeight]"
    )
    by_word = {
        each.inner_text(): each.evaluate(style) for each in page.locator(".word button").all()
    }
    assert by_word["wonderful."] == ["solid", "650"]
    assert by_word["bad."] == ["dashed", "650"]
    assert by_word["But"] == ["dashed", "400"]
    title = page.locator(".word", has_text="bad.").get_attribute("title")
    assert title.startswith("moved it by −1.2\ntext: common 0.")
    assert title.endswith("face: not measured")


def test_click_seeks(shown):
    page = shown()
    hold_still(page)
    page.locator(".plot a").nth(1).click()
    until(page, "document.querySelector('article video').currentTime === 3")
    page.locator(".word button", has_text="bad.").click()
    until(page, "document.querySelector('article video').currentTime === 6.4")
    page.wait_for_selector(".utterance.now:has-text('bad.')")
    head = page.locator(".plot .head").get_attribute("x1")
    assert float(head.rstrip("%")) == pytest.approx(100 * 6.4 / 7.5, abs=0.1)
    page.locator(".strip g").nth(4).click()
    until(page, "document.querySelector('article video').currentTime === 3")


def test_click_plays(shown):
    page = shown()
    page.locator(".plot a").nth(1).click()
    until(page, "document.querySelector('article video').currentTime > 3.1")


def test_downloads_have_the_recordings_name(stub, shown):
    page = shown()
    for kind in ("json", "csv", "means.csv", "srt", "html"):
        with page.expect_download() as download:
            page.click(f".save >> text={kind}")
        assert download.value.suggested_filename == f"example.{kind}"
        assert download.value.url == f"{stub.address}/v1/jobs/job0/result?as={kind}"


def test_result_can_be_deleted_on_the_service(stub, shown):
    page = shown()
    page.click("text=Delete on the service")
    page.wait_for_selector("text=The service has deleted this result")
    assert stub.jobs["job0"]["status"] == "gone"


def test_result_that_was_not_deleted_is_said(stub, shown):
    page = shown(expected=["ERR_FAILED"])
    page.route("**/v1/jobs/job0", lambda route: route.abort())
    page.click("text=Delete on the service")
    page.wait_for_selector("text=Not deleted: Is it still running?")
    assert page.locator(".save a").count() == 5


def test_words_of_a_recording_are_never_markup(stub, open_page, clip, monkeypatch):
    hostile = "<img src=x onerror=alert(1)>"
    monkeypatch.setattr("page.stub.SAID", ((0.3, (hostile, "was", "bad.")),))
    monkeypatch.setitem(PREDICTIONS, "alpha", (1.0,))
    page = open_page(stub.address)
    page.set_input_files(
        "#picker input[type=file]",
        {"name": "<b>film</b>.mp4", "mimeType": "video/mp4", "buffer": clip.read_bytes()},
    )
    page.click("#ask-one [type=submit]")
    page.wait_for_selector(RESULT)
    assert page.locator("article h2").text_content() == "<b>film</b>.mp4"
    assert page.locator(".word").first.inner_text() == hostile
    assert page.locator("article img, article b").count() == 0


# ---------------------------------------------------------------- a recording of many utterances


@pytest.fixture
def long_talk(monkeypatch):
    """Twelve utterances in 120 s, of which the first nine are good and the last one is bad."""
    said = tuple((10.0 * at, ("number", str(at))) for at in range(12))
    scores = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 2.4, 0.0, 0.0, -2.0)
    monkeypatch.setattr("page.stub.SAID", said)
    monkeypatch.setitem(PREDICTIONS, "alpha", scores)
    monkeypatch.setattr("page.stub.SPEAKERS", ("Anna", "<b>Ben</b>"))
    monkeypatch.setattr("page.stub.DURATION", 120.0)


def curve_of(page):
    return page.evaluate("document.querySelector('.curve path').getAttribute('d')")


def places_of(path):
    """The points of a curve, x and y in percent."""
    return [tuple(map(float, point.split(" "))) for point in path[1:].replace("M", "L").split("L")]


def test_curve_is_the_mean_of_a_window(long_talk, shown):
    page = shown()
    # Ten utterances are in 100 s, but a window is at most a quarter of the recording.
    choice = page.get_by_label("Curve: mean over")
    assert choice.locator("option").all_text_contents() == ["off", "10 s", "30 s"]
    assert choice.input_value() == "30"
    levels = [
        float(y.rstrip("%"))
        for y in page.eval_on_selector_all(
            ".plot .step", "steps => steps.map((each) => each.getAttribute('y1'))"
        )
    ]
    points = places_of(curve_of(page))
    assert [x for x, _ in points] == pytest.approx(
        [100 * (10 * at + 0.3) / 120 for at in range(12)], abs=0.001
    )
    assert points[4][1] == pytest.approx(sum(levels[3:6]) / 3, abs=0.01)
    assert points[0][1] == pytest.approx(sum(levels[0:2]) / 2, abs=0.01)
    choice.select_option("10 s")  # each utterance alone
    assert [y for _, y in places_of(curve_of(page))] == pytest.approx(levels, abs=0.01)
    choice.select_option("off")
    assert curve_of(page) == ""
    assert page.locator(".plot .step").count() == 12


def test_curve_has_a_gap_in_a_long_silence(long_talk, shown, monkeypatch):
    said = tuple((10.0 * at + 60 * (at > 5), ("number", str(at))) for at in range(12))
    monkeypatch.setattr("page.stub.SAID", said)
    monkeypatch.setattr("page.stub.DURATION", 180.0)
    assert [len(places_of(f"M{part}")) for part in curve_of(shown()).split("M")[1:]] == [6, 6]


def test_few_utterances_have_no_curve_and_no_list(shown):
    page = shown()
    assert curve_of(page) is None
    assert not page.locator(".smooth").is_visible()
    assert page.locator(".extremes, .speakers, .speaker").count() == 0


def test_what_stands_out_is_a_list_to_jump_from(long_talk, shown):
    page = shown(height=600)
    hold_still(page)
    lists = page.locator(".extremes ol")
    assert lists.nth(0).locator("li").all_inner_texts()[0].split() == [
        "1:20",
        "+2.4",
        "number",
        "8",
    ]
    assert lists.nth(0).locator("li").count() == 5
    assert lists.nth(1).locator("li").all_inner_texts() == ["1:50\n−2.0\nnumber 11"]
    page.evaluate(
        "() => { window.sought = []; Object.defineProperty(document.querySelector('article video'),"
        "'currentTime', { get: () => 0, set: (at) => sought.push(at) }); }"
    )
    lists.nth(1).locator("a").click()
    assert page.evaluate("window.sought") == [110]
    until(
        page,
        "(() => { const place = document.querySelector('#u12').getBoundingClientRect();"
        " return place.top >= 0 && place.bottom <= innerHeight; })()",
    )


def test_speakers_are_named_and_told_apart(long_talk, shown):
    page = shown()
    assert page.locator(".speakers dt").all_text_contents() == ["Anna", "<b>Ben</b>"]
    assert page.locator(".speakers dd").first.text_content() == (
        "6 utterances: on average rather positive (+1.3 of −3…3), from 0.0 to +2.4."
    )
    assert page.locator(".speaker").all_text_contents()[:3] == ["Anna", "<b>Ben</b>", "Anna"]
    assert page.locator("article b b, dl b").count() == 0


def test_two_runs_share_the_choice_of_a_curve(long_talk, stub, open_page, clip, monkeypatch):
    monkeypatch.setitem(PREDICTIONS, "beta", tuple(-score for score in PREDICTIONS["alpha"]))
    page = open_page(stub.address)
    page.click("[role=tab] >> text=Two runs")
    page.set_input_files("#picker input[type=file]", clip)
    page.click("#ask-two [type=submit]")
    page.wait_for_selector("#panel-two article")
    path = "document.querySelectorAll('#panel-two .curve path')[{}].getAttribute('d')"
    curves = [page.evaluate(path.format(at)) for at in range(2)]
    ys = [[y for _, y in places_of(each)] for each in curves]
    assert [one + other for one, other in zip(*ys, strict=True)] == pytest.approx(
        [100] * 12, abs=0.02
    )
    page.get_by_label("Curve: mean over").select_option("off")
    assert [page.evaluate(path.format(at)) for at in range(2)] == ["", ""]


def test_bar_of_what_shows_nothing_has_no_colour(shown, monkeypatch):
    monkeypatch.setattr("page.stub.SHARE_OF_VOICE", 0.04)
    page = shown()
    voice = page.locator(".utterance").first.locator(".bars .track span").nth(1)
    assert (voice.get_attribute("class"), voice.bounding_box()["width"]) == ("neutral", 0)
    assert page.locator(".bars .number").nth(1).text_content() == "0.0"


def test_times_of_an_hour_and_of_three_seconds(shown, monkeypatch):
    for duration, expected in (
        (3.0, ["0:00", "0:01", "0:02"]),
        (3660.0, ["0:00", "15:00", "30:00", "45:00", "1:00:00"]),
    ):
        monkeypatch.setattr("page.stub.DURATION", duration)
        monkeypatch.setattr("page.stub.SAID", ((0.3, ("This", "is", "short.")),))
        monkeypatch.setitem(PREDICTIONS, "alpha", (1.0,))
        assert shown().locator(".times span").all_text_contents() == expected


def test_page_of_a_file_has_the_curve_and_jumps(long_talk, open_page, tmp_path):
    (tmp_path / "talk.html").write_text(timeline_page(timeline_of("talk.mp4", "alpha")))
    page = open_page((tmp_path / "talk.html").as_uri(), height=600)
    assert page.get_by_label("Curve: mean over").input_value() == "10"
    assert len(places_of(curve_of(page))) == 12
    page.locator(".extremes a >> text=number 11").click()
    until(page, "document.querySelector('#u12').getBoundingClientRect().bottom <= innerHeight")


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("refused.mp4", '"refused.mp4" is refused.\n  Send another one.'),
        ("broken.mp4", '"broken.mp4" is broken.\n  Copy it again.'),
    ],
    ids=["at-once", "while-it-is-read"],
)
def test_problem_is_shown_in_the_words_of_the_service(stub, open_page, name, text):
    page = open_page(stub.address, expected=["413"])
    predict(page, {"name": name, "mimeType": "video/mp4", "buffer": b"words"})
    problem = page.locator(".work .problem")
    problem.wait_for()
    assert text in problem.text_content()
    assert problem.get_attribute("role") == "alert"
    assert page.locator(".work .working").count() == 0


def test_recording_that_is_too_large_is_not_sent(stub, open_page):
    page = open_page(stub.address)
    predict(page, {"name": "long.mp4", "mimeType": "video/mp4", "buffer": b"0" * 2_500_000})
    problem = page.locator(".work .problem")
    problem.wait_for()
    assert '"long.mp4" has 2.4 MiB; expected at most 1.9 MiB.' in problem.text_content()
    assert stub.received == []


def test_form_without_a_recording_says_what_to_do(stub, open_page):
    page = open_page(stub.address)
    page.click("#ask-one [type=submit]")
    problem = page.locator(".work .problem")
    problem.wait_for()
    assert "Drop a video or a sound, choose a file, record one" in problem.text_content()


def test_missing_camera_is_said(stub, open_page):
    page = open_page(stub.address)
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = "
        "() => Promise.reject(new DOMException('', 'NotFoundError')); }"
    )
    page.click("text=Record one")
    problem = page.locator(".camera-problem")
    problem.wait_for()
    assert problem.text_content().startswith("This device has no camera and no microphone")


# ---------------------------------------------------------------- other ways to a recording


def test_example_needs_no_upload(stub, open_page, clip):
    page = open_page(stub.address)
    page.click("text=Try the example")
    page.wait_for_selector(RESULT)
    assert stub.received[0]["transcript"].startswith("This film is wonderful.")
    assert stub.received[0]["bytes"] == clip.stat().st_size
    until(page, "document.querySelector('article video').duration > 5")


def test_dropped_file_is_taken(stub, open_page, clip):
    page = open_page(stub.address)
    page.evaluate(
        """() => {
          const carried = new DataTransfer();
          carried.items.add(new File(["words"], "dropped.mp4", { type: "video/mp4" }));
          document.querySelector(".drop").dispatchEvent(
            new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
        }"""
    )
    assert page.locator(".chosen-name").text_content() == "dropped.mp4"


def test_recording_with_the_camera(stub, open_page):
    page = open_page(stub.address, permissions=["camera", "microphone"])
    page.click("text=Record one")
    page.wait_for_selector(".camera:visible")
    until(page, "document.querySelector('.camera video').videoWidth > 0")
    until(page, "document.querySelector('.elapsed').textContent >= '0:01'")
    page.click("text=Stop and use it")
    page.wait_for_selector(".chosen:visible")
    assert page.locator(".chosen-name").text_content() == "recording.webm"
    page.click("#ask-one [type=submit]")
    page.wait_for_selector(RESULT)
    assert stub.received[0]["bytes"] > 1000
    until(page, "Number.isFinite(document.querySelector('article video').duration)")


def test_recording_is_thrown_away(stub, open_page):
    page = open_page(stub.address, permissions=["camera", "microphone"])
    page.click("text=Record one")
    page.wait_for_selector(".camera:visible")
    page.click("text=Discard it")
    page.wait_for_selector(".choices:visible")
    assert page.locator(".chosen").is_hidden()


# ---------------------------------------------------------------- the other tabs


def test_whoever_asks_before_the_runs_are_listed_is_served(stub, open_page, clip):
    page, held = open_page(stub.address), []
    page.route("**/v1/models", lambda route: held.append(route))
    page.reload()
    predict(page, clip)
    assert stub.received == []
    held[0].continue_()
    page.wait_for_selector(RESULT)
    assert [each["model"] for each in stub.received] == ["alpha"]


def test_report_asked_for_before_the_runs_are_listed_is_shown(stub, open_page):
    page, held = open_page(stub.address), []
    page.route("**/v1/models", lambda route: held.append(route))
    page.reload()
    page.click("#tab-report")
    until(page, "!document.getElementById('panel-report').hidden")
    held[0].continue_()
    page.frame_locator("iframe.report").get_by_text("Report of alpha").wait_for()


def test_two_runs_on_the_same_axes_and_in_words(stub, open_page, clip):
    page = open_page(stub.address)
    page.set_input_files("#picker input[type=file]", clip)
    page.click("#tab-two")
    page.click("#ask-two [type=submit]")
    page.wait_for_selector("#panel-two article")
    assert sorted(each["model"] for each in stub.received) == ["alpha", "beta"]
    said = page.locator(".said li").all_text_contents()
    # Differences +0.2, +2.2, +0.2: +0.87 on average, and as far apart.
    assert said[0] == "On average alpha rates it 0.9 higher than beta, on a scale of −3…3."
    assert said[1] == "For a single utterance they are 0.9 apart on average."
    assert said[2] == "In 1 of 3 utterances one calls positive what the other calls negative."
    assert said[3].startswith(
        "At 0:03, “I love the music.”: +1.4 rather positive against −0.8 rather negative; "
        "above all by the text, which moved them by +0.8 and −0.5"
    )
    by = page.locator(".differences td.number").all_text_contents()
    assert by == ["+0.2", "+2.2", "+0.2"]
    plots = page.locator(".pair .plot").all()
    places = [p.locator(".hit").nth(1).get_attribute("x") for p in plots]
    assert places[0] == places[1]
    hold_still(page)
    page.locator(".pair .plot a").nth(4).click()
    until(page, "document.querySelector('article video').currentTime === 3")
    shown = "[...document.querySelectorAll('.plot .head')].map((each) => each.style.visibility)"
    until(page, f"{shown}.join() === 'visible,visible'")


def test_one_run_twice_is_refused(stub, open_page, clip):
    page = open_page(stub.address)
    page.set_input_files("#picker input[type=file]", clip)
    page.click("#tab-two")
    page.select_option(".second", "alpha")
    page.click("#ask-two [type=submit]")
    page.wait_for_selector('text=Both are "alpha"; choose two different runs.')
    assert stub.received == []


def test_one_run_cannot_be_compared(stub, open_page):
    stub.models = ["alpha"]
    page = open_page(stub.address)
    page.click("#tab-two")
    assert "Start it with two to compare them" in page.locator(".few").inner_text()
    page.locator("#ask-two").wait_for(state="hidden")  # the form goes when the runs are listed


def test_service_without_readers_says_what_reads(stub, open_page):
    stub.reads = False
    page = open_page(stub.address)
    page.wait_for_selector("text=No run of this service reads recordings")
    page.click("#tab-report")
    page.frame_locator("iframe.report").get_by_text("Report of alpha").wait_for()


def test_service_that_is_gone_is_said(stub, open_page, clip):
    page = open_page(stub.address, expected=["ERR_FAILED"])
    page.wait_for_selector("#ask-one option", state="attached")
    page.route("**/v1/predict*", lambda route: route.abort())
    predict(page, clip)
    page.wait_for_selector("text=Is it still running? Start it again: mmcl serve RUN")


def test_lost_connection_is_taken_up_again(stub, open_page, clip):
    page = open_page(stub.address, expected=["ERR_FAILED"])
    page.route("**/events", lambda route: route.abort(), times=1)
    predict(page, clip)
    page.wait_for_selector("text=the service does not answer; asking again")
    page.wait_for_selector(RESULT)


def test_report_is_shown_in_a_sandbox(stub, open_page):
    page = open_page(stub.address)
    page.click("#tab-report")
    frame = page.frame_locator("iframe.report")
    frame.get_by_text("Report of alpha").wait_for()
    frame.get_by_text("drawn").wait_for()
    assert page.locator("iframe.report").get_attribute("sandbox") == "allow-scripts"
    page.select_option("#ask-report select", "beta")
    frame.get_by_text("Report of beta").wait_for()


# ---------------------------------------------------------------- for everyone


def test_keyboard_is_enough(stub, open_page, clip):
    page = open_page(stub.address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-two"
    assert page.locator("#panel-two").is_visible()
    page.keyboard.press("Home")
    assert page.locator("#panel-one").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "file"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Try the example
    page.wait_for_selector(RESULT)
    assert page.evaluate("document.activeElement.tagName") == "H2"
    hold_still(page)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("Boolean(document.activeElement.closest('.plot'))"):
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('article video').currentTime === 3")
    page.locator(".word button").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "film"
    page.keyboard.press("Enter")
    until(page, "document.querySelector('article video').currentTime === 0.6")


def test_focus_is_visible(stub, open_page):
    page = open_page(stub.address)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"


@pytest.mark.parametrize("tab", ["one", "two", "report"])
def test_nothing_is_cut_off_in_a_narrow_window(stub, open_page, clip, tab):
    page = open_page(stub.address, width=360, height=740)
    page.set_input_files("#picker input[type=file]", clip)
    if tab != "one":
        page.click(f"#tab-{tab}")
    assert fits(page)
    if tab != "report":
        page.click(f"#ask-{tab} [type=submit]")
        page.wait_for_selector(f"#panel-{tab} article")
        assert fits(page)


def test_dark_and_light_follow_the_reader(stub, open_page):
    for scheme, colour in (("light", "rgb(251, 251, 250)"), ("dark", "rgb(20, 23, 28)")):
        page = open_page(stub.address, color_scheme=scheme)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == colour


def test_reduced_motion_stops_what_moves(stub, open_page, clip):
    stub.gate.clear()
    page = open_page(stub.address, reduced_motion="reduce")
    predict(page, clip)
    page.wait_for_selector(".now-line .dot")
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.now-line .dot')).animationName")
        == "none"
    )


def test_token_does_not_stay_in_the_address(stub, open_page):
    page = open_page(f"{stub.address}/?token=secret")
    page.wait_for_selector("#ask-one option", state="attached")
    assert page.url == f"{stub.address}/"


def test_every_control_has_a_name(shown):
    page = shown()
    names = page.evaluate(NAMES_OF_CONTROLS)
    assert len(names) > 20
    assert all(names)


def test_what_was_said_goes_with_its_recording(stub, open_page, clip):
    page = open_page(stub.address)
    page.click("text=Try the example")
    page.wait_for_selector(RESULT)
    page.set_input_files("#picker input[type=file]", clip)
    assert page.input_value("#picker .transcript") == ""
    page.fill("#picker .transcript", "mine")  # before a file is chosen, and still its own
    page.set_input_files("#picker input[type=file]", clip)
    assert page.input_value("#picker .transcript") == "mine"
