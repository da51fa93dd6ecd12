"""Uploads: streamed to the disk, and refused as soon as they are too large."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from mmcl.errors import UsageError, did_you_mean
from mmcl.serve.limits import MIB, Limits
from mmcl.serve.problems import ServiceError
from mmcl.serve.store import RECORDING

__all__ = ["drain", "read_body", "receive"]

_FIELDS = ("file", "transcript", "language")
_MAX_PARTS = 8
_MAX_LANGUAGE = 16  # bytes
_MAX_NAME = 100  # characters
_FORM_BYTES = 64 * 1024  # that a form may need beside the content of its fields
_DRAIN_SECONDS = 5.0


async def receive(request: Request, folder: Path, limits: Limits) -> tuple[str, str | None]:
    """Write the recording of a form, and its transcript, to a folder.

    Args:
        request: ``multipart/form-data`` with ``file`` and optionally ``transcript`` and
            ``language``.
        folder: An existing folder.
        limits: Limits of size and time.

    Returns:
        The recording's name without folders, and the language of its speech where it was given.

    Raises:
        ServiceError: If the upload is too large or too slow.
        UsageError: If the form is broken or has other fields.
    """
    # The length in the header counts the whole form.
    others = limits.max_transcript_bytes + _FORM_BYTES
    _check_length(request, limits.max_bytes, "recording", others=others)
    form = _Form(folder, limits)
    try:
        async with asyncio.timeout(limits.upload_seconds):
            parser = MultipartParser(_boundary(request), form.callbacks())
            async for block in _blocks(request, limits):
                parser.write(block)
            parser.finalize()
    except TimeoutError:
        raise ServiceError(
            f"the upload was not complete after {limits.upload_seconds:g} s.\n"
            "  Send a smaller recording.",
            status=408,
            kind="too-slow",
        ) from None
    except FormParserError as fault:
        raise UsageError(
            f"the form cannot be read ({fault}).\n"
            "  Send multipart/form-data: curl -F file=@talk.mp4 URL/v1/predict"
        ) from None
    finally:
        form.close()
    return form.result()


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the body of a request; one that is too large or too slow raises a ServiceError."""
    limit = limits.max_body_bytes
    _check_length(request, limit, "request")
    blocks, size = [], 0
    async for block in _blocks(request, limits):
        size += len(block)
        if size > limit:
            raise _too_large("request", limit)
        blocks.append(block)
    return b"".join(blocks)


async def _blocks(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """Yield the body of a request; raise a ServiceError if it comes to a standstill."""
    now = asyncio.get_running_loop().time
    stream = request.stream()
    began, size = now(), 0
    while True:
        try:
            async with asyncio.timeout_at(began + limits.idle_seconds):
                block = await anext(stream, None)
        except TimeoutError:
            raise ServiceError(
                f"fewer than {limits.idle_bytes:,} bytes came in {limits.idle_seconds:g} s, so the "
                "upload was given up.\n  Send it again over a better connection.",
                status=408,
                kind="too-slow",
            ) from None
        if block is None:
            return
        yield block
        size += len(block)
        if size >= limits.idle_bytes:
            began, size = now(), 0


async def drain(request: Request, limits: Limits) -> None:
    """Read an upload that is refused for a moment longer, so that its client reads the answer."""
    if "expect" in request.headers:  # the client has asked first, and sent nothing yet
        return
    size = 0
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for block in request.stream():
                size += len(block)
                if size > limits.max_bytes:
                    return


class _Form:
    """Callbacks of the parser of a form, which calls them part by part."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.name: str | None = None
        self.texts: dict[str, bytearray] = {}
        self.field = ""
        self.num_parts = 0
        self.written = 0
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._file: IO[bytes] | None = None

    def callbacks(self) -> Any:
        """Return the callbacks by the names that the parser knows: ``on_part_begin`` and so on."""
        return {name[1:]: getattr(self, name) for name in dir(self) if name.startswith("_on_")}

    def close(self) -> None:
        """Close the recording's file, complete or not."""
        if self._file is not None:
            self._file.close()

    def result(self) -> tuple[str, str | None]:
        """Check the fields, and write the transcript."""
        if self.name is None:
            raise UsageError(
                "the form has no file.\n  Send one: curl -F file=@talk.mp4 URL/v1/predict"
            )
        # An empty field counts as absent: browsers send every field of a form.
        transcript = bytes(self.texts.get("transcript", b""))
        if transcript.strip():
            (self.folder / f"transcript{_ending(transcript)}").write_bytes(transcript)
        language = bytes(self.texts.get("language", b"")).decode("utf-8", "replace").strip()
        if language and not re.fullmatch("[a-z]{2,3}", language):
            raise UsageError(
                f'language must be two or three letters, for example en, got "{language}"'
            )
        return self.name, language or None

    def _on_part_begin(self) -> None:
        self.num_parts += 1
        if self.num_parts > _MAX_PARTS:
            raise UsageError(f"the form has more than {_MAX_PARTS} parts")
        self._disposition = b""

    def _on_header_field(self, block: bytes, start: int, end: int) -> None:
        self._header += block[start:end]

    def _on_header_value(self, block: bytes, start: int, end: int) -> None:
        self._value += block[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self.field = options.get(b"name", b"").decode("utf-8", "replace")
        if self.field not in _FIELDS:
            raise UsageError(
                f'the form has a part "{self.field[:40]}"{did_you_mean(self.field, _FIELDS)}\n'
                f"  Parts: {', '.join(_FIELDS)}"
            )
        if self.field != "file":
            self.texts[self.field] = bytearray()
        elif self._file is not None:
            raise UsageError("the form has two files; expected one recording per request.")
        else:
            self.name = _clean(options.get(b"filename", b"").decode("utf-8", "replace"))
            self._file = (self.folder / RECORDING).open("wb")

    def _on_part_data(self, block: bytes, start: int, end: int) -> None:
        if self.field == "file" and self._file is not None:
            self.written += end - start
            if self.written > self.limits.max_bytes:
                raise _too_large("recording", self.limits.max_bytes)
            self._file.write(block[start:end])
            return
        limit = _MAX_LANGUAGE if self.field == "language" else self.limits.max_transcript_bytes
        self.texts[self.field] += block[start:end]
        if len(self.texts[self.field]) > limit:
            raise _too_large(self.field, limit)


def _boundary(request: Request) -> bytes:
    _, options = parse_options_header(request.headers.get("content-type", ""))
    if not options.get(b"boundary"):
        raise FormParserError("its header names no boundary")
    return options[b"boundary"]


def _check_length(request: Request, limit: int, what: str, *, others: int = 0) -> None:
    """Refuse a request whose header already says that it is too large."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit + others:
        raise _too_large(what, limit)


def _too_large(what: str, limit: int) -> ServiceError:
    size = f"{limit / MIB:g} MiB" if limit >= MIB else f"{limit:,} bytes"
    return ServiceError(
        f"the {what} is larger than {size}, the most that is taken.\n  Send a smaller one.",
        status=413,
        kind="too-large",
    )


def _ending(transcript: bytes) -> str:
    """Return the file ending of a transcript, by its content."""
    head = transcript.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"WEBVTT"):
        return ".vtt"
    return ".srt" if b"-->" in head else ".txt"


def _clean(name: str) -> str:
    """Return a file name without folders and control characters, and not too long."""
    last = re.split(r"[/\\]", name)[-1]
    plain = "".join(c for c in last if not unicodedata.category(c).startswith("C"))
    plain = plain.replace('"', "'").strip()
    if len(plain) > _MAX_NAME:
        stem, dot, ending = plain.rpartition(".")
        keep = _MAX_NAME - len(ending) - 2
        plain = f"{stem[:keep]}….{ending}" if dot and keep > 0 else plain[:_MAX_NAME]
    return plain or RECORDING
