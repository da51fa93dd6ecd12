"""A service without networks, so that a test decides what a job does and when."""

import json
import threading

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from mmcl.corpus.schema import Clip, Task, Word
from mmcl.evaluation.moments import Moments
from mmcl.runs.recordings import Timeline
from mmcl.serve.page_files import CONTENT_POLICY, page_files
from mmcl.serve.results import result_of, task_of

SCORES = Task(kind="regression", low=-3, high=3)
STAGES = ("opening the file", "hearing the words", "predicting")
SAID = (
    (0.3, ("This", "film", "is", "wonderful.")),
    (3.0, ("I", "love", "the", "music.")),
    (5.2, ("But", "the", "end", "was", "bad.")),
)
PREDICTIONS = {"alpha": (2.1, 1.4, -1.6), "beta": (1.9, -0.8, -1.8)}
WEIGHTS = {"wonderful.": 1.1, "love": 0.9, "bad.": -1.2, "But": -0.3}
LATER = 0.3  # seconds a word lasts
DURATION = 7.5  # seconds
SPEAKERS = (None,)  # who take turns
SHARE_OF_VOICE = 0.2


def timeline_of(name, model):
    """Prediction for any recording: three utterances; two lack a face at times."""
    clips, moments, spans = [], [], []
    for at, (start, said) in enumerate(SAID):
        words = tuple(
            Word(text=text, start=i * LATER, end=(i + 1) * LATER) for i, text in enumerate(said)
        )
        clips.append(
            Clip(
                id=f"c/{at}",
                split="test",
                features={},
                text=" ".join(said),
                words=words,
                speaker=SPEAKERS[at % len(SPEAKERS)],
            )
        )
        spans.append((start, start + len(said) * LATER))
        moments.append(_moments(at, said, PREDICTIONS[model][at]))
    return Timeline(
        name=name,
        task=SCORES,
        clips=tuple(clips),
        spans=tuple(spans),
        moments=tuple(moments),
        error=0.61,
        notes=("vision is missing in 1 of 3 utterances",),
    )


def _moments(at, said, prediction):
    draw = np.random.default_rng(at)
    seen = ("text", "audio", "vision") if at < 2 else ("text", "audio")
    count = len(said)
    values = {m: draw.uniform(size=(2, count)).astype(np.float32).round(2) for m in seen}
    return Moments(
        id=f"c/{at}",
        prediction=prediction,
        spread=0.3,
        probability=None,
        probabilities={},
        share={
            "text": 0.6 * prediction,
            "audio": SHARE_OF_VOICE,
            "vision": -0.1 if at < 2 else 0.0,
        },
        present=seen,
        commonality={m: each[0] for m, each in values.items()},
        action={m: each[1].round() for m, each in values.items()},
        keep_probability={m: each[1] for m, each in values.items()},
        found={m: np.arange(count) != (1 if (m, at) == ("vision", 0) else -1) for m in seen},
        word_share=np.array([WEIGHTS.get(word, 0.02) for word in said]),
    )


def problem(status, detail):
    return {
        "type": "urn:mmcl:media-error",
        "title": "HTTP's own",
        "status": status,
        "detail": detail,
    }


class Stub:
    """Its jobs go from stage to stage when a test lets them: ``stub.gate.set()``."""

    def __init__(self, folder):
        self.folder = folder
        self.gate = threading.Event()
        self.gate.set()
        self.models = ["alpha", "beta"]
        self.reads = True
        self.jobs = {}
        self.received = []
        self.app = self._app()

    def reset(self):
        self.gate.set()
        self.models = ["alpha", "beta"]
        self.reads = True
        self.jobs.clear()
        self.received.clear()

    def _app(self):
        app = FastAPI()

        @app.middleware("http")
        async def with_policy(request, call_next):
            response = await call_next(request)
            response.headers.setdefault("Content-Security-Policy", CONTENT_POLICY)
            return response

        @app.get("/")
        def page():
            return self._file("index.html")

        @app.get("/page/{name}")
        def file(name: str):
            return self._file(name)

        @app.get("/v1/models")
        def models():
            return {"models": [self._model(name) for name in self.models]}

        @app.get("/v1/models/{name}/report")
        def report(name: str):
            policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
            text = f"<!doctype html><title>r</title><h1>Report of {name}</h1>"
            text += "<script>document.body.append('drawn')</script>"
            return Response(
                text, media_type="text/html", headers={"Content-Security-Policy": policy}
            )

        @app.get("/v1/example")
        def example():
            text = " ".join(" ".join(words) for _, words in SAID)
            return {"transcript": text, "media": "/v1/example/media"}

        @app.get("/v1/example/media")
        def media():
            return Response((self.folder / "example.mp4").read_bytes(), media_type="video/mp4")

        @app.post("/v1/predict")
        async def predict(request: Request, model: str, wait: float = 10):
            async with request.form() as form:
                upload = form["file"]
                said = {key: form[key] for key in ("transcript", "language") if key in form}
                name, length = upload.filename, upload.size
            said |= {"model": model, "wait": wait, "name": name, "bytes": length}
            self.received.append(said)
            if name.startswith("refused"):
                detail = f'"{name}" is refused.\n  Send another one.'
                return JSONResponse(
                    problem(413, detail), 413, media_type="application/problem+json"
                )
            identifier = f"job{len(self.jobs)}"
            self.jobs[identifier] = {
                "id": identifier,
                "model": model,
                "name": name,
                "status": "queued",
                "stage": None,
                "stages": [],
                "position": 2,
                "problem": None,
            }
            location = {"Location": f"/v1/jobs/{identifier}"}
            return JSONResponse(self.jobs[identifier], 202, headers=location)

        @app.get("/v1/jobs/{identifier}")
        def job(identifier: str):
            return self.jobs[identifier]

        @app.delete("/v1/jobs/{identifier}", status_code=204)
        def delete(identifier: str):
            if self.jobs[identifier]["status"] in ("queued", "running"):
                self.jobs[identifier]["status"] = "cancelled"
            else:
                self.jobs[identifier]["status"] = "gone"

        @app.get("/v1/jobs/{identifier}/events")
        def events(identifier: str):
            return StreamingResponse(self._events(identifier), media_type="text/event-stream")

        @app.get("/v1/jobs/{identifier}/result")
        def result(identifier: str):
            job = self.jobs[identifier]
            timeline = timeline_of(job["name"], job["model"])
            return result_of(timeline, model=job["model"], duration=DURATION)

        return app

    def _file(self, name):
        file = page_files().get(name)
        if file is None:
            return Response("no such file", 404)
        return Response(file.content, media_type=file.media_type)

    def _model(self, name):
        return {
            "name": name,
            "model": "calibrated",
            "task": task_of(SCORES),
            "modalities": ["text", "audio", "vision"],
            "takes_media": self.reads,
            "seeds": [1, 2],
            "validation_error": 0.61,
            "limits": {"max_bytes": 2_000_000, "max_seconds": 600, "media_types": ["video/*"]},
        }

    def _events(self, identifier):
        job = self.jobs[identifier]
        yield _event(job)
        for at, stage in enumerate(STAGES):
            if job["status"] == "cancelled":
                break
            job.update(status="running", position=None, stage=stage, stages=list(STAGES[:at]))
            yield _event(job)
            while at == 1 and not self.gate.wait(0.05) and job["status"] == "running":
                yield ": still here\n\n"
        if job["status"] == "running":
            job.update(status="done", stage=None, stages=list(STAGES))
            if job["name"].startswith("broken"):
                detail = f'"{job["name"]}" is broken.\n  Copy it again.'
                job.update(status="failed", problem=problem(422, detail))
        yield _event(job)


def _event(job):
    return f"event: job\ndata: {json.dumps(job)}\n\n"
