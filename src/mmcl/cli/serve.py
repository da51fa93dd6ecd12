"""The command ``mmcl serve``: serve trained runs over HTTP, with a page."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from mmcl.cli.options import check_run

__all__ = ["serve_command"]


def serve_command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Run folders. Default: the starter."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at. One that other machines reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8760,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for jobs and results. Default: one in your home."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MMCL_TOKEN",
            help="Token that clients must send. Other users of this machine can read options.",
        ),
    ] = None,
    max_mib: Annotated[int, typer.Option(min=1, help="Largest recording, in MiB.")] = 200,
    max_seconds: Annotated[float, typer.Option(min=1, help="Longest recording, in seconds.")] = 600,
    keep_hours: Annotated[float, typer.Option(min=0.01, help="Hours to keep results.")] = 24,
) -> None:
    """Serve runs over HTTP: a page for people, and an interface for programs.

    Features sent as JSON are predicted at once. A recording becomes a job. The recording is
    removed when its job ends; the result can be had as json, csv, srt or html.
    docs/serving.md and /openapi.json of the service describe the interface.

    Examples:

      mmcl serve

      mmcl serve runs/talks

      mmcl serve runs/talks runs/talks-2 --port 8000 --state jobs

      MMCL_TOKEN=... mmcl serve runs/talks --host 0.0.0.0
    """
    from mmcl.serve.http_server import check_token, default_state, listen, serve
    from mmcl.serve.limits import MIB, Limits
    from mmcl.serve.supervisor import begin_imports

    # Refused before anything listens: an open address without a token, or a busy port.
    check_token(host, token)
    with listen(host, port) as listening:
        # The workers import torch while this process loads the runs.
        begin_imports()
        from mmcl.runs.run import Run
        from mmcl.runs.starter import is_starter, load_starter, starter_notice

        # Answers name a run, and not its path, where that is whole.
        opened = [
            load_starter() if is_starter(run) else Run.load(check_run(run).absolute())
            for run in runs or ()
        ]
        if not runs:
            opened = [load_starter()]
            typer.echo(starter_notice(opened[0]))
        limits = Limits(max_bytes=max_mib * MIB, max_seconds=max_seconds, result_hours=keep_hours)
        url = _url(listening.getsockname())

        def announce() -> None:
            typer.echo(f"Serving {', '.join(run.name for run in opened)}")
            shown = url if token is None else f"{url}?token=TOKEN, with your token for TOKEN"
            typer.echo(f"Open {shown}\nStop it with Ctrl-C")

        with suppress(KeyboardInterrupt):  # Ctrl-C is the usual way to stop it
            serve(
                opened,
                listening,
                state=(state or default_state()).absolute(),
                token=token,
                limits=limits,
                started=announce,
            )
        # A process in the background is stopped without a KeyboardInterrupt.
        typer.echo("Stopped. Unfinished jobs are run when it is started again.")


def _url(address: tuple[object, ...]) -> str:
    """Return the URL to open on this machine."""
    host, port = str(address[0]), address[1]
    # A browser cannot open the addresses that mean "all".
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
