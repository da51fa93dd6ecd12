"""Runs to serve, a service of them on a socket, and a client."""

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from fakes.reader import SETTINGS, FakeReader
from fakes.served import TALK, client_of
from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.store import pack_corpus
from mmcl.media.recipe import Recipe
from mmcl.runs.run import Run, train
from mmcl.serve.app import create_app
from mmcl.serve.limits import Limits


@pytest.fixture(scope="session")
def runs(tmp_path_factory, tiny_config):
    """``talks`` takes recordings, ``planted`` does not, ``plain`` has no policies."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = {"extraction": Recipe().model_dump()}
    made = {}
    for name, model, changes, seeds in (
        ("talks", "calibrated", {"recipe": recipe}, (1, 2)),
        ("planted", "calibrated", {}, (1,)),
        ("plain", "late_fusion", {"recipe": recipe}, (1,)),
    ):
        card = plant_card(SETTINGS).model_copy(update={"name": name, **changes})
        corpus = pack_corpus(card, plant_clips(SETTINGS))
        train(corpus, tiny_config(model=model), out=folder / name, seeds=seeds)
        made[name] = Run.load(folder / name)
    return made


@pytest.fixture(scope="session")
def served(runs, tmp_path_factory):
    """A client of a service of all three runs, and the service; it is shared."""
    state = tmp_path_factory.mktemp("state") / "jobs"
    limits = Limits(max_bytes=20_000, max_body_bytes=300_000, max_clips=8, max_steps=40)
    app = create_app(list(runs.values()), limits, state, make_reader=FakeReader)
    with client_of(app) as client:
        yield client, app.state.service


@pytest.fixture
def client(served):
    return served[0]


@pytest.fixture
def service(served):
    return served[1]


@pytest.fixture
def send(client):
    """Send a recording: ``send("text", wait=5, transcript="...")``."""

    def post(content=TALK, *, name="talk.mp4", wait=20, model="talks", **fields):
        content = content.encode() if isinstance(content, str) else content
        return client.post(
            "/v1/predict",
            params={"model": model, "wait": wait},
            files={"file": (name, content)},
            data=fields,
        )

    return post
