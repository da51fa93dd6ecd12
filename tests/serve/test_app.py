"""Every route, from outside: what a client sends and what he gets."""

import errno
import json
import os
import threading
import time
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest

from fakes.reader import SETTINGS, FakeReader
from fakes.served import TALK, client_of
from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.store import pack_corpus
from mmcl.serve import app as app_module
from mmcl.serve.app import create_app
from mmcl.serve.limits import Limits
from mmcl.serve.page_files import EXAMPLE_CLIP
from mmcl.serve.problems import unknown_problem
from mmcl.serve.uploads import _clean


def as_json(clip):
    return {"id": clip.id, **{m: np.asarray(x).tolist() for m, x in clip.features.items()}}


@pytest.fixture(scope="module")
def corpus():
    return pack_corpus(plant_card(SETTINGS), plant_clips(SETTINGS))


@pytest.fixture(scope="module")
def clips(corpus):
    """The planted clips, as a client sends them."""
    return [as_json(clip) for clip in corpus.every_clip().clips()]


def problem(answer):
    """Status and text of a problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["status"] == answer.status_code
    return answer.status_code, content["detail"]


def wait_for(client, identifier, *statuses, seconds=20):
    deadline = time.monotonic() + seconds
    while (job := client.get(f"/v1/jobs/{identifier}").json())["status"] not in statuses:
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
    return job


# ---------------------------------------------------------------- health and models


def test_a_relative_state_folder_is_not_taken_out_of_words(runs, tmp_path, monkeypatch):
    # "st" is a part of "request" and "must".
    monkeypatch.chdir(tmp_path)
    app = create_app([runs["talks"]], Limits(), Path("st"), make_reader=FakeReader)
    with client_of(app) as client:
        detail = client.post("/v1/predict", json=[]).json()["detail"]
    assert detail.startswith('the request must be {"clips": [...]}')


def test_health(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_models(client, runs):
    models = client.get("/v1/models").json()["models"]
    assert [each["name"] for each in models] == ["talks", "planted", "plain"]
    assert [each["takes_media"] for each in models] == [True, False, False]
    assert [each["model"] for each in models] == ["calibrated", "calibrated", "late_fusion"]
    first = models[0]
    error = first.pop("validation_error")
    assert error == runs["talks"].metrics["valid"]["mae"]["mean"]
    assert first == {
        "name": "talks",
        "model": "calibrated",
        "task": {"kind": "regression", "low": -3, "high": 3, "classes": None, "emotions": None},
        "modalities": ["text", "audio", "vision"],
        "dims": {"text": 96, "audio": 48, "vision": 24},
        "takes_media": True,
        "seeds": [1, 2],
        "limits": {
            "max_bytes": 20_000,
            "max_seconds": 600,
            "media_types": ["video/*", "audio/*"],
        },
    }


def test_report(client, runs):
    answer = client.get("/v1/models/talks/report")
    assert answer.status_code == 200
    assert "<h2" in answer.text
    assert str(runs["talks"].folder.parent) not in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "call", [("GET", "/v1/models/talk/report"), ("POST", "/v1/predict?model=talk")]
)
def test_no_such_model(client, call):
    assert problem(client.request(*call)) == (
        404,
        'no model "talk" is served; did you mean "talks"?\n  Models: talks, planted, plain',
    )


def test_what_is_not_there(client):
    assert client.get("/v2").status_code == 404
    assert client.put("/v1/models").status_code == 405
    for answer in (client.get("/v2"), client.put("/v1/models"), client.get("/page/../app.py")):
        assert problem(answer)[1] is None


# ---------------------------------------------------------------- features


@pytest.mark.parametrize("name", ["talks", "plain"])
def test_features_are_predicted_as_the_run_does(client, runs, corpus, clips, name):
    expected = runs[name].predict(corpus).to_pylist()
    found = []
    for at in range(0, len(clips), 4):
        answer = client.post(f"/v1/predict?model={name}", json={"clips": clips[at : at + 4]})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == name
        found += answer.json()["predictions"]
    assert [each["id"] for each in found] == [each["id"] for each in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["prediction"] == pytest.approx(theirs["prediction"], abs=1e-6)
        assert mine["spread"] == (
            None if theirs["spread"] is None else pytest.approx(theirs["spread"], abs=1e-6)
        )
        assert mine["probabilities"] is None


def test_many_at_once_get_what_each_gets_alone(client, clips):
    alone = [client.post("/v1/predict", json={"clips": [clip]}).json() for clip in clips]
    found = [None] * len(clips)

    def ask(at):
        with httpx.Client(base_url=client.base_url) as mine:
            found[at] = mine.post("/v1/predict", json={"clips": [clips[at]]}).json()

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(found, alone, strict=True):
        (one,), (other,) = mine["predictions"], theirs["predictions"]
        assert one["id"] == other["id"]
        assert one["prediction"] == pytest.approx(other["prediction"], abs=1e-6)
    text = client.get("/metrics").text
    total = float(text.split("mmcl_batch_clips_sum ")[1].split()[0])
    count = float(text.split("mmcl_batch_clips_count ")[1].split()[0])
    assert total > count, "nothing was predicted together"


def test_wrong_features_are_named(client, clips):
    wrong = {"clips": [clips[0], {"text": [[1.0, 2.0]]}]}
    assert problem(client.post("/v1/predict", json=wrong)) == (
        422,
        "clip 1: text must have 96 features per step, got 2",
    )
    huge = {"clips": [{"text": [[3e38] * 96]}]}
    answer = client.post("/v1/predict", json=huge)
    if answer.status_code != 200:
        assert problem(answer) == (
            422,
            "the features of a clip are so large that nothing can be predicted from them.\n"
            "  Expected numbers like those the run was trained on.",
        )


def test_body_is_bounded(client):
    body = b'{"clips": [' + b" " * 300_000 + b"]}"
    expected = (
        413,
        "the request is larger than 300,000 bytes, the most that is taken.\n  Send a smaller one.",
    )
    headers = {"Content-Type": "application/json"}
    assert problem(client.post("/v1/predict", content=body, headers=headers)) == expected
    chunks = (body[at : at + 1000] for at in range(0, len(body), 1000))  # no length is told
    assert problem(client.post("/v1/predict", content=chunks, headers=headers)) == expected


def test_content_of_another_type(client):
    answer = client.post("/v1/predict", content=b"a", headers={"Content-Type": "text/plain"})
    assert problem(answer) == (
        415,
        'content of type "text/plain" is not accepted.\n'
        "  Expected application/json (features) or multipart/form-data (a recording)",
    )


@pytest.mark.parametrize("wait", ["-1", "31", "nan", "soon"])
def test_wait_is_checked(client, wait):
    status, detail = problem(client.post(f"/v1/predict?wait={wait}", json={}))
    assert status == 422
    assert detail.startswith("query wait: ")
    assert detail.endswith(f", got '{wait}'")


# ---------------------------------------------------------------- recordings


def test_recording_is_answered_at_once(send, client, service):
    answer = send(TALK, name="my talk.mp4")
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert (result["model"], result["name"], result["duration"]) == ("talks", "my talk.mp4", 10.0)
    assert [each["text"] for each in result["utterances"]] == TALK.splitlines()
    assert "language None" in result["notes"]
    first, second = result["utterances"]
    assert [word["text"] for word in first["words"]] == ["what", "a", "wonderful", "film"]
    assert [word["start"] for word in second["words"]] == [2.0, 2.25, 2.5, 2.75]
    assert second["rows"]["vision"] is None
    assert second["shares"]["vision"] is None
    assert len(first["rows"]["audio"]["commonality"]) == len(first["rows"]["audio"]["times"]) == 4
    job = client.get(f"/v1/jobs/{answer.headers['x-job']}").json()
    assert (job["status"], job["name"], job["problem"]) == ("done", "my talk.mp4", None)
    assert job["stages"] == [
        "opening the file",
        "hearing the words",
        "following the face",
        "predicting",
        "writing the result",
    ]
    assert not (service.store.uploads / job["id"]).exists()


def test_language_and_transcript_go_to_the_extractor(send):
    result = send(TALK, language="es", transcript="una película maravillosa").json()
    assert "language es" in result["notes"]
    assert [each["text"] for each in result["utterances"]] == ["una película maravillosa"]


def test_result_in_every_form(send, client):
    answer = send(TALK, name="Größe 1.mp4")
    place = f"/v1/jobs/{answer.headers['x-job']}/result"
    assert client.get(place).json() == client.get(place, params={"as": "json"}).json()
    assert client.get(place).json() == answer.json()
    table = client.get(place, params={"as": "csv"})
    assert table.text.splitlines()[0].startswith('"utterance","start","end","text"')
    assert len(table.text.splitlines()) == 3
    subtitles = client.get(place, params={"as": "srt"}).text
    assert subtitles.startswith("1\n00:00:00,000 --> 00:00:01,500\n[")
    page = client.get(place, params={"as": "html"})
    assert "what a wonderful film" in page.text.replace("</span>", "").replace("\n", " ") or (
        "wonderful" in page.text
    )
    assert "data:video" not in page.text  # nothing uploaded outlives its job
    means = client.get(place, params={"as": "means.csv"}).text.splitlines()
    assert means[0].startswith('"of","name","start","end","utterances"')
    assert [line.split(",")[0] for line in means[1:]] == ['"recording"', '"minute"']
    result = client.get(place).json()
    assert (result["speakers"], result["extremes"]) == ([], {"positive": [], "negative": []})
    assert [each["speaker"] for each in result["utterances"]] == [None, None]
    kinds = {
        "csv": "text/csv",
        "means.csv": "text/csv",
        "srt": "application/x-subrip",
        "html": "text/html",
    }
    for form, kind in kinds.items():
        headers = client.get(place, params={"as": form}).headers
        assert headers["content-type"].startswith(kind)
        assert headers["content-disposition"] == (
            f"attachment; filename*=utf-8''Gr%C3%B6%C3%9Fe%201.{form}"
        )
    assert problem(client.get(place, params={"as": "pdf"}))[0] == 422


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        pytest.param(
            "bad",
            422,
            '"a.mp4" is bad, in "the upload".\n  Make it good.',
            id="bad",
        ),
        pytest.param(
            "bug",
            422,
            '"a.mp4" cannot be read (hearing the words): it is damaged, or of an unknown kind.'
            "\n  Copy, download or record it again.",
            id="bug",
        ),
        pytest.param(
            "full",
            422,
            '"a.mp4" needs more memory than a recording may use (hearing the words).\n'
            '  Make it smaller: ffmpeg -i "a.mp4" -vf scale=-2:720 smaller.mp4',
            id="full",
        ),
        pytest.param(
            "long",
            413,
            '"a.mp4" lasts 10000 s; expected at most 600 s.\n'
            '  Send a part of it: ffmpeg -i "a.mp4" -t 600 -c copy part.mp4',
            id="long",
        ),
        pytest.param("lacking", 501, "hearing needs ears, which are not installed.", id="lacking"),
        pytest.param(
            "hm",
            422,
            '"a.mp4": no utterance was found in it, so there is none to predict.',
            id="nothing-said",
        ),
    ],
)
def test_recording_that_fails(send, client, content, status, message):
    answer = send(content, name="a.mp4")
    assert problem(answer) == (status, message)
    identifier = answer.headers["x-job"]
    job = client.get(f"/v1/jobs/{identifier}").json()
    assert (job["status"], job["problem"]) == ("failed", answer.json())
    assert problem(client.get(f"/v1/jobs/{identifier}/result")) == (status, message)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("planted", "it was trained on features that mmcl did not extract"),
        ("plain", "late_fusion does not say from which moments it predicts"),
    ],
)
def test_run_that_takes_no_recordings(send, name, reason):
    assert problem(send(model=name)) == (
        400,
        f'"{name}" takes features only: {reason}.\n  Use one that does: talks',
    )


# ---------------------------------------------------------------- forms


def test_recording_is_bounded(send, client, service):
    expected = (
        413,
        "the recording is larger than 20,000 bytes, the most that is taken.\n  Send a smaller one.",
    )
    assert problem(send(b"a" * 20_001)) == expected
    assert problem(send(b"a" * 500_000)) == expected
    boundary = "sep"
    body = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    chunks = iter([body.encode(), *[b"a" * 1000] * 300])  # no length is told, and no end comes
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    assert problem(client.post("/v1/predict", content=chunks, headers=headers)) == expected
    assert list(service.store.uploads.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            {"files": {"video": ("a.mp4", b"x")}},
            'the form has a part "video"\n  Parts: file, transcript, language',
            id="another-part",
        ),
        pytest.param(
            {"files": [("file", ("a.mp4", b"x")), ("file", ("b.mp4", b"y"))]},
            "the form has two files; expected one recording per request.",
            id="two-files",
        ),
        pytest.param(
            {"files": {"transcript": (None, b"words")}},
            "the form has no file.\n  Send one: curl -F file=@talk.mp4 URL/v1/predict",
            id="no-file",
        ),
        pytest.param(
            {"files": {"file": ("a.mp4", b"x")}, "data": {"language": "English"}},
            'language must be two or three letters, for example en, got "English"',
            id="language",
        ),
    ],
)
def test_faulty_forms(client, service, given, message):
    assert problem(client.post("/v1/predict", **given)) == (400, message)
    assert list(service.store.uploads.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--a\r\n"),
        ("multipart/form-data; boundary=a", b"nothing of the kind"),
        ("multipart/form-data; boundary=" + "a" * 3000, b""),
        ("multipart/form-data; boundary=a", b"--a\r\nContent-Disposition form-data\r\n\r\nx"),
    ],
)
def test_broken_forms(client, service, kind, body):
    answer = client.post("/v1/predict", content=body, headers={"Content-Type": kind})
    status, detail = problem(answer)
    assert status == 400
    assert detail.startswith("the form ")
    assert list(service.store.uploads.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\films\\a.mp4", "a.mp4"),
        ("a\u202e\u0000b.mp4", "ab.mp4"),
        ("", "recording"),
        ("x" * 300 + ".mp4", "x" * 95 + "….mp4"),
    ],
)
def test_names_are_cleaned(given, name):
    assert _clean(given) == name


def test_too_many_recordings(runs, tmp_path):
    gate = tmp_path / "gate"
    app = create_app([runs["talks"]], Limits(max_jobs=2), tmp_path / "jobs", make_reader=FakeReader)
    with client_of(app) as client:

        def send():
            files = {"file": ("a.mp4", f"until {gate}\n{TALK}".encode())}
            return client.post("/v1/predict?wait=0", files=files)

        first = send()
        wait_for(client, first.json()["id"], "running")
        second, third, fourth = send(), send(), send()
        assert [each.status_code for each in (first, second, third)] == [202] * 3
        assert [each.json()["position"] for each in (second, third)] == [1, 2]
        assert problem(fourth) == (
            429,
            "2 recordings wait already, which is the most that may.\n  Try again in a minute.",
        )
        assert fourth.headers["retry-after"] == "5"
        assert "mmcl_jobs_queued 2.0" in client.get("/metrics").text
        assert "mmcl_jobs_running 1.0" in client.get("/metrics").text
        gate.touch()
        for each in (first, second, third):
            wait_for(client, each.json()["id"], "done")
        assert send().status_code == 202


# ---------------------------------------------------------------- jobs


def test_longer_recording_becomes_a_job(send, client, tmp_path):
    gate = tmp_path / "gate"
    answer = send(f"until {gate}\n{TALK}", wait=0)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["model"], job["name"], job["ended"]) == ("talks", "talk.mp4", None)
    wait_for(client, job["id"], "running")
    assert problem(client.get(f"/v1/jobs/{job['id']}/result")) == (
        409,
        f'"talk.mp4" is not done yet: it is running.\n  Follow it: GET /v1/jobs/{job["id"]}/events',
    )
    gate.touch()
    wait_for(client, job["id"], "done")
    assert len(client.get(f"/v1/jobs/{job['id']}/result").json()["utterances"]) == 2


def read_events(client, identifier):
    """The jobs of a stream of events, until it ends."""
    told = []
    with client.stream("GET", f"/v1/jobs/{identifier}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = list(answer.iter_lines())
    for name, line in pairwise(lines):
        if name == "event: job":
            told.append(json.loads(line.removeprefix("data: ")))
    return told


@pytest.mark.parametrize("end", ["finish", "fail"])
def test_who_does_not_wait_gets_the_job_however_fast_it_is(send, service, monkeypatch, end):
    queue = service.queue

    def queue_and_end(job):
        queued = queue(job)
        service.store.take()
        given = {"finish": (), "fail": (unknown_problem(422),)}[end]
        getattr(service.store, end)(job.id, *given)
        return queued

    monkeypatch.setattr(service, "queue", queue_and_end)
    answer = send(TALK, wait=0)
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"


def test_events_tell_every_change_in_order_and_end(send, client, tmp_path):
    gate = tmp_path / "gate"
    blocked = send(f"until {gate}\n{TALK}", wait=0).json()
    wait_for(client, blocked["id"], "running")
    job = send(f"hold 0.2\n{TALK}", wait=0).json()
    told = []
    thread = threading.Thread(target=lambda: told.extend(read_events(client, job["id"])))
    thread.start()
    time.sleep(0.3)
    gate.touch()
    thread.join(20)
    wait_for(client, blocked["id"], "done")
    statuses = [each["status"] for each in told]
    assert statuses == sorted(statuses, key=["queued", "running", "done"].index)
    assert {"queued", "running", "done"} <= set(statuses)
    assert told[0]["position"] == 1
    assert told[-1] == client.get(f"/v1/jobs/{job['id']}").json()
    for before, after in pairwise(told):
        assert before != after
        assert after["stages"][: len(before["stages"])] == before["stages"]
    assert "hearing the words" in [each["stage"] for each in told]


def test_events_of_a_job_that_is_over(send, client):
    identifier = send(TALK).headers["x-job"]
    assert read_events(client, identifier) == [client.get(f"/v1/jobs/{identifier}").json()]


def test_upload_is_on_the_disk_before_its_job_is_queued(send, service, monkeypatch):
    steps = []
    sync, add = app_module.sync_folder, service.store.add

    def note_sync(folder):
        sync(folder)
        steps.append(("synced", folder.parent))

    def note_add(job):
        steps.append("queued")
        return add(job)

    monkeypatch.setattr(app_module, "sync_folder", note_sync)
    monkeypatch.setattr(service.store, "add", note_add)
    assert send(TALK).status_code == 200
    assert steps == [("synced", service.store.uploads), "queued"]


def test_upload_that_a_full_disk_cannot_take_is_answered_with_507(
    send, service, monkeypatch, caplog
):
    def full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    before = set(service.store.uploads.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(app_module, "sync_folder", full)
        assert problem(send(TALK)) == (
            507,
            "the disk of the service takes no more, so this cannot be stored.\n"
            "  Send it again later, or tell the owner of the service, whose log says more.",
        )
    assert "the disk is full" in caplog.text
    assert set(service.store.uploads.iterdir()) <= before
    assert send(TALK).status_code == 200


def test_running_job_is_cancelled_and_the_next_one_works(send, client, service, tmp_path):
    job = send(f"until {tmp_path / 'never'}", wait=0).json()
    wait_for(client, job["id"], "running")
    cancelled = client.delete(f"/v1/jobs/{job['id']}").json()
    assert cancelled["status"] == "cancelled"
    assert problem(client.get(f"/v1/jobs/{job['id']}/result")) == (
        410,
        '"talk.mp4" was cancelled.',
    )
    assert not (service.store.uploads / job["id"]).exists()
    assert send(TALK).status_code == 200
    assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"


def test_waiting_job_is_cancelled(send, client, tmp_path):
    gate = tmp_path / "gate"
    first = send(f"until {gate}\n{TALK}", wait=0).json()
    second = send(TALK, wait=0).json()
    assert client.delete(f"/v1/jobs/{second['id']}").json()["status"] == "cancelled"
    assert client.get(f"/v1/jobs/{first['id']}").json()["status"] in ("queued", "running")
    gate.touch()
    wait_for(client, first["id"], "done")
    assert client.get(f"/v1/jobs/{second['id']}").json()["started"] is None


def test_job_that_is_over_is_removed(send, client, service):
    identifier = send(TALK).headers["x-job"]
    assert client.delete(f"/v1/jobs/{identifier}").json()["status"] == "done"
    assert not (service.store.results / identifier).exists()
    for call in ("GET", ""), ("GET", "/events"), ("GET", "/result"), ("DELETE", ""):
        assert problem(client.request(call[0], f"/v1/jobs/{identifier}{call[1]}")) == (
            404,
            f'no job "{identifier}": it was removed, its result is too old, or it never was.\n'
            "  Send the recording again: POST /v1/predict",
        )


# ---------------------------------------------------------------- the rest


def test_metrics_count_what_happened(send, client):
    send(TALK)
    send("bad")
    expected = (
        'mmcl_jobs_total{status="done"}',
        'mmcl_jobs_total{status="failed"}',
        'mmcl_stage_seconds_count{stage="recognise"}',
        'mmcl_clips_predicted_total{model="talks",sent="recording"}',
        'mmcl_requests_total{method="POST",route="/v1/predict",status="200"}',
    )
    end = time.monotonic() + 10.0  # a job is counted a moment after its answer can be had
    while missing := [line for line in expected if line not in client.get("/metrics").text]:
        assert time.monotonic() < end, missing
        time.sleep(0.05)


def test_page_and_its_files(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert client.get("/page/page.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/page/nothing.js").status_code == 404


def test_example_is_served(client):
    example = client.get("/v1/example").json()
    assert len(example["transcript"].split()) > 5
    media = client.get(example["media"])
    assert (media.headers["content-type"], media.content) == (
        "video/mp4",
        EXAMPLE_CLIP.read_bytes(),
    )
