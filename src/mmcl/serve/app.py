"""Routes of the service and their answers; docs/serving.md explains them to clients.

:func:`create_app` makes an ASGI application of trained runs, and :mod:`mmcl.serve.http_server`
puts it on a socket.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mmcl.errors import MMCLError, UsageError
from mmcl.files import disk_errors, sync_folder
from mmcl.runs.run import Run
from mmcl.serve.access import AccessControl, as_answer
from mmcl.serve.features import read_features
from mmcl.serve.jobs import Job, new_id
from mmcl.serve.limits import Limits
from mmcl.serve.openapi import (
    Health,
    ModelsAnswer,
    PredictAnswer,
    ResultAnswer,
    predict_body,
    problems,
)
from mmcl.serve.page_files import EXAMPLE_CLIP, EXAMPLE_TRANSCRIPT, page_files
from mmcl.serve.problems import (
    Problem,
    ServiceError,
    problem_of,
    replace_names,
    unknown_problem,
)
from mmcl.serve.recording_worker import Reader
from mmcl.serve.results import FORMATS
from mmcl.serve.service import Service, loading, why_no_media
from mmcl.serve.uploads import drain, read_body, receive

__all__ = ["LOCAL_HOSTS", "create_app"]

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Names by which browsers of this machine reach the service."""

_MAX_WAIT = 30.0  # seconds that a request may wait for its job
_PING_SECONDS = 15.0  # between two signs of life on a stream of events
_REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
"""Content policy of a report, which contains everything it shows and may load nothing."""

_ModelName = Annotated[
    str | None, Query(description="A name of GET /v1/models; the first by default.")
]
_Wait = Annotated[
    float,
    Query(
        ge=0,
        le=_MAX_WAIT,
        allow_inf_nan=False,
        description="Seconds to wait for the result of a recording before 202 is answered.",
    ),
]
_JobId = Annotated[str, InPath(description="Id of the job.", max_length=64)]


def create_app(
    runs: Sequence[Run],
    limits: Limits | None = None,
    state: Path = Path("mmcl-serve"),
    *,
    token: str | None = None,
    hosts: Iterable[str] = LOCAL_HOSTS,
    make_reader: Callable[[], Reader] = Reader,
) -> FastAPI:
    """Return the service of some runs as an ASGI application.

    Args:
        runs: Runs to serve; the first is used where a request names none.
        limits: Limits of requests, recordings and workers.
        state: Folder of jobs and results.
        token: Token that clients must send, or None.
        hosts: Names of the service, which clients must use where there is no token.
        make_reader: Makes what reads recordings; another one in tests.

    Raises:
        UsageError: If two runs have the same name, or the folder cannot be used.
    """
    limits = limits or Limits()
    service = Service(runs, limits, state, make_reader=make_reader)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.open():
            yield

    app = FastAPI(
        title="mmcl",
        version=metadata.version("mmcl"),
        summary="Multimodal sentiment from words, voice and face.",
        description="Predictions for features at once, for recordings as jobs.",
        lifespan=lifespan,
        docs_url=None,  # these pages of FastAPI load scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,
        responses=problems(401, 403, 500),
    )
    app.state.service = service
    for add in (_add_errors, _add_health, _add_models, _add_predict, _add_jobs, _add_page):
        add(app, service)
    app.add_middleware(AccessControl, counters=service.counters, token=token, hosts=tuple(hosts))
    return app


def _add_errors(app: FastAPI, service: Service) -> None:
    folders = [(service.store.folder, "the service's folder")]
    folders += [(run.folder, name) for name, run in service.runs.items()]
    names = {str(path): name for folder, name in folders for path in (folder, folder.resolve())}

    @app.exception_handler(MMCLError)
    async def expected_fault(request: Request, fault: MMCLError) -> Response:
        problem = problem_of(fault, names)
        headers = {"Retry-After": "5"} if problem.status in (429, 503) else None
        # A client that is still sending would otherwise see a broken connection, not the answer.
        if problem.status in (408, 413):
            await drain(request, service.limits)
        return as_answer(problem, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, fault: RequestValidationError) -> Response:
        text = "\n".join(map(_explain, fault.errors()))
        return as_answer(problem_of(ServiceError(text, status=422, kind="usage-error")))

    @app.exception_handler(HTTPException)
    async def by_status(_: Request, fault: HTTPException) -> Response:
        return as_answer(unknown_problem(fault.status_code), fault.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, fault: ClientDisconnect) -> Response:
        return as_answer(unknown_problem(400))


def _explain(fault: Any) -> str:
    """Return the text of one value that does not fit."""
    where = " ".join(map(str, fault["loc"]))
    return f"{where}: {fault['msg'].replace('Input should be', 'must be')}, got {fault['input']!r}"


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["health"], summary="Whether the service runs")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get(
        "/readyz",
        tags=["health"],
        summary="Whether every model is loaded",
        responses=problems(503),
    )
    async def readyz() -> Health:
        if not service.is_ready:
            raise loading()
        return Health(status="ready")

    @app.get(
        "/metrics",
        tags=["health"],
        summary="Counters, for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        service.counters.queued.set(service.store.count("queued"))
        service.counters.running.set(service.store.count("running"))
        return Response(service.counters.text(), media_type="text/plain; version=0.0.4")


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", tags=["models"], summary="The runs that are served")
    async def models() -> ModelsAnswer:
        await service.wait_until_loaded()
        return ModelsAnswer(models=[service.describe(name) for name in service.runs])

    one_report = asyncio.Lock()

    @app.get(
        "/v1/models/{name}/report",
        tags=["models"],
        summary="The report of a run, as mmcl report writes it",
        response_class=HTMLResponse,
        responses=problems(404, 422),
    )
    async def report(name: str) -> Response:
        name, run = service.run_named(name)
        async with one_report:  # one at a time: a report keeps a processor busy for a second or two
            page = await asyncio.to_thread(_report, name, run)
        return HTMLResponse(page, headers={"Content-Security-Policy": _REPORT_POLICY})


def _report(name: str, run: Run) -> str:
    from mmcl.explain.report import report_page

    # The page names the run's folder, which clients shall not see.
    page = report_page(run.folder, command=f"mmcl report {name}")
    return replace_names(page, {str(run.folder): name, str(run.folder.resolve()): name})


def _add_predict(app: FastAPI, service: Service) -> None:
    first = next(iter(service.runs.values()))

    @app.post(
        "/v1/predict",
        tags=["predict"],
        summary="Predict clips of features, or a recording",
        description=(
            "`application/json`: features of clips, predicted at once. `multipart/form-data`: a "
            "recording, which becomes a job; its result is the answer if it is done within `wait`."
        ),
        response_model=PredictAnswer | ResultAnswer,
        responses={
            200: {"description": "Predictions of the clips, or the result of the recording."},
            202: {"model": Job, "description": "The job; its address is in Location."},
            **problems(400, 404, 408, 410, 413, 415, 422, 429, 501, 503, 507),
        },
        openapi_extra=predict_body(dict(first.card.dims), service.limits),
    )
    async def predict(request: Request, model: _ModelName = None, wait: _Wait = 10.0) -> Response:
        name, _ = service.run_named(model)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return await _predict_features(service, name, request)
        if kind == "multipart/form-data":
            job = await _accept_recording(service, name, request)
            return await _answer_job(service, job, wait)
        raise ServiceError(
            f'content of type "{kind[:60]}" is not accepted.\n'
            "  Expected application/json (features) or multipart/form-data (a recording)",
            status=415,
            kind="unsupported-content",
        )


async def _predict_features(service: Service, name: str, request: Request) -> Response:
    expected = await service.expected(name)
    body = await read_body(request, service.limits)
    clips = read_features(body, expected, service.limits)
    answer = PredictAnswer(model=name, predictions=await service.batcher.predict(name, clips))
    return Response(answer.model_dump_json(), media_type="application/json")


async def _accept_recording(service: Service, name: str, request: Request) -> Job:
    """Receive a recording and queue it; an upload that fails leaves nothing behind."""
    if not service.takes_media(name):
        others = ", ".join(filter(service.takes_media, service.runs))
        hint = f"\n  Use one that does: {others}" if others else ""
        reason = why_no_media(service.runs[name])
        raise UsageError(f'"{name}" takes features only: {reason}.{hint}')
    client = request.client.host if request.client is not None else ""
    service.check_room(client)
    identifier = new_id()
    folder = service.store.uploads / identifier
    service.receiving[client] += 1
    try:
        with disk_errors(folder):
            folder.mkdir()
            recording, language = await receive(request, folder, service.limits)
            await asyncio.to_thread(sync_folder, folder)  # before the client is told of a job
        job = Job(
            id=identifier,
            model=name,
            name=recording,
            language=language,
            status="queued",
            created=time.time(),
        )
        return service.queue(job)
    except BaseException:
        service.store.remove_upload(identifier)
        raise
    finally:
        service.receiving[client] -= 1
        service.receiving += Counter()  # forget clients who send nothing


async def _answer_job(service: Service, job: Job, wait: float) -> Response:
    """Answer with the result of a job if it is ready in time, else with the job's address."""
    if wait:
        job = await service.wait_for(job.id, wait)
    headers = {"X-Job": job.id}
    if not job.is_over:
        headers["Location"] = f"/v1/jobs/{job.id}"
        return JSONResponse(job.as_dict(), status_code=202, headers=headers)
    if job.status == "done":
        return FileResponse(_result_file(service, job, "json"), headers=headers)
    return as_answer(_why_no_result(job), headers)


def _add_jobs(app: FastAPI, service: Service) -> None:
    missing = problems(404, 422)

    @app.get("/v1/jobs/{id}", tags=["jobs"], summary="The state of a job", responses=missing)
    async def state(id: _JobId) -> Job:
        return service.store.get(id)

    @app.delete(
        "/v1/jobs/{id}",
        tags=["jobs"],
        summary="Cancel a job, or remove one that has ended, with its result",
        responses=missing,
    )
    async def cancel(id: _JobId) -> Job:
        return service.cancel(id)

    @app.get(
        "/v1/jobs/{id}/events",
        tags=["jobs"],
        summary="The job at every change, as server-sent events, until it ends",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **missing,
        },
    )
    async def events(id: _JobId) -> Response:
        service.store.get(id)  # raises if there is none: a stream that has begun could not say so
        return StreamingResponse(
            _events(service, id),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    @app.get(
        "/v1/jobs/{id}/result",
        tags=["jobs"],
        summary="The result of a job that is done",
        response_class=FileResponse,
        responses={
            200: {
                "model": ResultAnswer,
                "content": {
                    kind.partition(";")[0]: {"schema": {"type": "string"}}
                    for form, kind in FORMATS.items()
                    if form != "json"
                },
            },
            **problems(404, 409, 410, 413, 422, 501, 503, 507),
        },
    )
    async def result(
        id: _JobId,
        form: Annotated[
            Literal["json", "csv", "means.csv", "srt", "html"],
            Query(alias="as", description="Form of the result."),
        ] = "json",
    ) -> Response:
        job = service.store.get(id)
        if job.status != "done":
            return as_answer(_why_no_result(job), {"X-Job": id})
        path = _result_file(service, job, form)
        if form == "json":
            return FileResponse(path, media_type=FORMATS[form])
        name = f"{Path(job.name).stem or 'result'}.{form}"
        return FileResponse(path, media_type=FORMATS[form], filename=name)


def _result_file(service: Service, job: Job, form: str) -> Path:
    return service.store.results / job.id / f"result.{form}"


def _why_no_result(job: Job) -> Problem:
    if job.problem is not None:
        return job.problem
    if job.status == "cancelled":
        fault = ServiceError(f'"{job.name}" was cancelled.', status=410, kind="cancelled")
    else:
        fault = ServiceError(
            f'"{job.name}" is not done yet: it is {job.status}.\n'
            f"  Follow it: GET /v1/jobs/{job.id}/events",
            status=409,
            kind="not-done",
        )
    return problem_of(fault)


async def _events(service: Service, identifier: str) -> AsyncIterator[str]:
    """Yield the job at every change, and a sign of life while nothing changes."""
    sent = None
    while not service.closing.is_set():
        change = service.next_job_change()
        try:
            job = service.store.get(identifier)
        except ServiceError:  # it was removed
            return
        content = json.dumps(job.as_dict())
        if content != sent:
            yield f"event: job\ndata: {content}\n\n"
            sent = content
        if job.is_over:
            return
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await change.wait()
        except TimeoutError:
            yield ": still here\n\n"


def _add_page(app: FastAPI, _: Service) -> None:
    @app.get("/v1/example", tags=["example"], summary="An example clip and its transcript")
    async def example() -> dict[str, str]:
        return {"transcript": EXAMPLE_TRANSCRIPT, "media": "/v1/example/media"}

    @app.get(
        "/v1/example/media",
        tags=["example"],
        summary="The recording of the example clip",
        response_class=FileResponse,
        responses={
            200: {"content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}}
        },
    )
    async def example_media() -> Response:
        return FileResponse(EXAMPLE_CLIP, media_type="video/mp4")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _page_file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        return _page_file(name)

    def _page_file(name: str) -> Response:
        file = page_files().get(name)
        if file is None:
            raise HTTPException(404)
        return Response(file.content, media_type=file.media_type)
