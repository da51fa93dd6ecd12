"""``mmcl serve``: trained runs as a service and a page."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["serve_command"]


def serve_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    host: Annotated[
        str, typer.Option(help="Address to listen at; beyond this machine a token is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8760,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of jobs and results; in your home by default."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MMCL_TOKEN", help="Clients must show it; others on this machine read options."
        ),
    ] = None,
    max_mib: Annotated[int, typer.Option(min=1, help="Of a recording, in MiB.")] = 200,
    max_seconds: Annotated[float, typer.Option(min=1, help="Of a recording.")] = 600,
    keep_hours: Annotated[float, typer.Option(min=0.01, help="Results are kept so long.")] = 24,
) -> None:
    """Serve runs: a page to drop a recording on, and an interface for programs.

    Features sent as JSON are answered at once; a recording becomes a job, and is removed when
    the job is over. Its result can be had as json, csv, srt and html. What it all looks like
    to a program: docs/serving.md, or /openapi.json of the service.

    Examples:

      mmcl serve runs/talks

      mmcl serve runs/talks runs/talks-2 --port 8000 --state jobs

      MMCL_TOKEN=... mmcl serve runs/talks --host 0.0.0.0
    """
    from mmcl.serve.clean import begin_imports
    from mmcl.serve.limits import MIB, Limits
    from mmcl.serve.serving import check_token, default_state, listen, serve

    check_token(host, token)
    with listen(host, port) as listening:
        begin_imports()
        from mmcl.runs.run import Run

        opened = [Run.load(run) for run in runs]
        limits = Limits(max_bytes=max_mib * MIB, max_seconds=max_seconds, result_hours=keep_hours)
        url = _url(listening.getsockname())

        def say() -> None:
            typer.echo(f"Serving {', '.join(run.folder.resolve().name for run in opened)}")
            shown = url if token is None else f"{url}?token=TOKEN, with your token for TOKEN"
            typer.echo(f"Open {shown}\nStop it with Ctrl-C")

        with suppress(KeyboardInterrupt):  # it has ended in good order
            serve(
                opened,
                listening,
                state=state or default_state(),
                token=token,
                limits=limits,
                started=say,
            )
        # Said of a process begun in the background, too: there no KeyboardInterrupt is raised.
        typer.echo("Stopped; jobs that were not done are taken up again next time.")


def _url(address: tuple[object, ...]) -> str:
    host, port = str(address[0]), address[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
