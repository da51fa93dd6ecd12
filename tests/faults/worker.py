"""Child process of the campaign: makes an input, gives it to mmcl, and says what came of it.

Numbers come in by stdin, a line each; a line of JSON per input goes out by stdout.
"""

import contextlib
import io
import json
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from faults.inputs import EARLIER_RUN, RECORDING, make_input

# What no input may make the process do.
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST_VALUE = re.compile(r"[^\s\"'/]{201,}")
_done: list[str] = []  # forbidden things that were done


def _watch(event: str, arguments: object) -> None:
    # A command asks for the name of its machine, for the lock of its output.
    if event.startswith(_FORBIDDEN) and event != "socket.gethostname":
        _done.append(f"{event} {arguments!r:.200}\n{''.join(traceback.format_stack(limit=8))}")


def _check_corpus(path: Path, folder: Path) -> str:
    """Give a file to ``mmcl corpus check``; what it passes must be readable in full."""
    from mmcl.cli.main import main
    from mmcl.corpus.readers import read_corpus

    code = main(["corpus", "check", str(path)])
    if code != 0:
        return f"exit {code}"
    corpus = read_corpus(path)
    clips = list(corpus.every_clip().clips())
    is_finite = all(
        math.isfinite(float(abs(steps.astype(float)).sum()))
        for c in clips
        for steps in c.features.values()
    )
    corpus.split("train").labels(), corpus.checksum()
    return "exit 0" if is_finite else "invalid: features that are not finite"


def _predict(run: Path, folder: Path) -> str:
    """Predict a valid corpus with a damaged run, and show its scores."""
    from mmcl.cli.main import main

    out = folder / "out.jsonl"
    code = main(["predict", str(run), str(EARLIER_RUN / "planted.arrow"), "--out", str(out)])
    codes = [code, main(["evaluate", str(run)])]
    if out.exists() and re.search("NaN|Infinity", out.read_text()):
        return "invalid: NaN in the predictions"
    return f"exit {max(codes)}"


def _read_transcript(path: Path, folder: Path) -> str:
    from mmcl.media.transcripts.reading import read_transcript

    transcript = read_transcript(path, None)
    times = [t for u in transcript.utterances for t in (u.start, u.end) if t is not None]
    return "exit 0" if all(map(math.isfinite, times)) else "invalid: a time that is not finite"


def _read_labels(path: Path, folder: Path) -> str:
    from mmcl.media.folders.gather import gather

    gather([path])
    return "exit 0"


def _decode(path: Path, folder: Path) -> str:
    from mmcl.media.containers.decode import frames, probe
    from mmcl.media.containers.sound import read_audio

    info = probe(path)
    if info.has_video:
        for _ in frames(path, rate=1.0):
            pass
    if info.has_audio:
        read_audio(path)
    return "exit 0"


_USES = {
    **dict.fromkeys(("pickle", "npz", "arrow", "csd", "table"), _check_corpus),
    "run": _predict,
    "transcript": _read_transcript,
    "label.csv": _read_labels,
    "media": _decode,
}


def _outcome(kind: str, path: Path, folder: Path) -> tuple[str, str]:
    """Return what came of an input (read, refused, or what must not be), and the text."""
    from mmcl.errors import MMCLError

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            result = _USES[kind](path, folder)
    except MMCLError as error:
        said.write(str(error))
        result = "exit 1"
    except BaseException:
        return "traceback", traceback.format_exc()[-1500:]
    text = said.getvalue()
    if _CONTROLS.search(text) or _LONGEST_VALUE.search(text.replace(str(folder), "")):
        return "unfit text", text[-1500:]
    if result == "exit 0":
        return "read", ""
    if result not in ("exit 1", "exit 2"):
        return result, text[-1500:]
    return ("unforeseen" if "does not foresee" in text else "refused"), text[-1500:]


def _warm_up() -> None:
    """Use every part once, so that the time of an input is not that of imports."""
    platform.processor()  # starts a process, once
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        assert _check_corpus(EARLIER_RUN / "planted.arrow", folder) == "exit 0"
        assert _predict(EARLIER_RUN / "run", folder) == "exit 0"
        (folder / "a.txt").write_text("It is good.")
        assert _read_transcript(folder / "a.txt", folder) == "exit 0"
        assert _decode(RECORDING, folder) == "exit 0"


def main() -> None:
    """Answer numbers until stdin ends."""
    seed, canary = int(sys.argv[1]), Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    _warm_up()

    sys.addaudithook(lambda event, arguments: _watch(event, arguments))
    for line in sys.stdin:
        folder = Path(tempfile.mkdtemp(prefix="mmcl-fuzz-"))
        kind, path = make_input(seed, int(line), folder, canary)
        print(json.dumps({"kind": kind}), file=answers, flush=True)
        _done.clear()
        outcome, text = _outcome(kind, path, folder)
        if _done or canary.exists():
            outcome, text = "executed", "\n".join(_done)
        print(json.dumps({"outcome": outcome, "text": text}), file=answers, flush=True)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
