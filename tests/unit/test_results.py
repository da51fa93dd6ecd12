"""Kept results: the pages say what they are, and which are older than the code."""

import json
import re
import sys

import pytest

import kept
import pages
import results
from mmcl.learning.ddpg import DdpgLearner
from steps import STEPS

COMMITS = {path.stem: json.loads(path.read_text())["commit"] for path in kept.FOLDER.glob("*.json")}


@pytest.fixture
def history():
    missing = sorted(name for name, commit in COMMITS.items() if not kept.has_history(commit))
    if missing:
        pytest.skip(f"git has no history of the commits that made {', '.join(missing)}")


def test_pages_are_what_the_results_say(history):
    """After a change of code that a result depends on, run: python benchmarks/pages.py"""
    wrong = [path.name for path, text in pages.pages().items() if path.read_text() != text]
    assert wrong == []


def test_a_result_is_older_once_a_file_it_depends_on_has_changed(history):
    depends = STEPS["planted"].depends
    content = kept.kept("planted") | {"commit": kept.source_commit()}
    assert kept.is_of_this_code(content, ("LICENSE",))
    first = kept._git("rev-list", "--max-parents=0", "HEAD").splitlines()[-1]
    assert not kept.is_of_this_code(content | {"commit": first}, depends)
    assert not kept.is_of_this_code(content | {"uncommitted": True}, depends)
    head = pages.made_by("planted", content | {"commit": first})
    assert head.endswith(pages.OLDER)


@pytest.mark.parametrize(
    ("after", "same"),
    [
        ('"""Says more."""\n\n\ndef f(x):\n    """Twice."""\n    return 2 * x  # doubled\n', True),
        ("def f(x):\n    return 3 * x\n", False),
        ('def f(x):\n    return 2 * x\n\n\nNAME = "Says."\n', False),
    ],
)
def test_prose_alone_does_not_make_a_result_older(after, same):
    before = '"""Says."""\n\ndef f(x):\n    return 2*x\n'
    assert (kept.code_alone(after) == kept.code_alone(before)) is same


def test_every_kept_result_has_a_step_and_every_step_a_table():
    texts = [path.read_text() for path in pages.RESULTS.glob("*.md")]
    tables = set(re.findall(r"<!-- table:([\w-]+) -->", "".join(texts)))
    assert set(COMMITS) <= set(STEPS)
    assert tables == set(STEPS) | set(pages.SEVERAL)
    assert all(set(step.after) <= set(STEPS) for step in STEPS.values())
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in COMMITS.values())


def test_steps_bring_those_that_they_need():
    assert results.ordered(["explanation-ravdess"]) == [
        "search-ravdess",
        "ravdess",
        "explanation-ravdess",
    ]
    assert results.ordered([]) == [name for name in STEPS if not STEPS[name].by_name]


def test_uncommitted_changes_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(results, "uncommitted", lambda: ["M src/mmcl/config.py"])
    monkeypatch.setattr(sys, "argv", ["results.py", "planted"])
    with pytest.raises(SystemExit):
        results.main()
    assert "uncommitted changes, so no commit made the results:\nM src/mmcl/config.py\n" in (
        capsys.readouterr().err
    )


def test_a_step_is_made_once_and_kept_with_what_made_it(history, monkeypatch, tmp_path, capsys):
    made = []

    def make(place):
        made.append(place)
        return {
            "kind": "explanation",
            "conclusions": ["It is so."],
            "notes": [],
            "areas": [1 / 3, 2.0],
        }

    step = STEPS["search-pom"]._replace(make=make, data=(), depends=("LICENSE",))
    monkeypatch.setitem(STEPS, "search-pom", step)
    place = results.Place(tmp_path, tmp_path / "kept")
    assert results.done("search-pom", place, again=False)
    assert results.done("search-pom", place, again=False)
    assert len(made) == 1
    out = capsys.readouterr().out
    assert "\n- It is so.\nsearch-pom: done in 0.0 min\n" in out
    assert out.endswith("search-pom: skipped, its result is of this code\n")
    content = kept.kept("search-pom", place.results)
    assert content["areas"] == [0.333333, 2.0]
    assert content["commit"] == kept.source_commit()
    assert content["command"] == "python benchmarks/results.py search-pom"
    assert '"areas": [0.333333, 2.0]' in (place.results / "search-pom.json").read_text()


def test_a_step_that_fails_is_told_and_keeps_nothing(monkeypatch, tmp_path, capsys):
    def make(place):
        raise ValueError("no")

    step = STEPS["search-pom"]._replace(make=make, data=())
    monkeypatch.setitem(STEPS, "search-pom", step)
    place = results.Place(tmp_path, tmp_path / "kept")
    assert not results.done("search-pom", place, again=False)
    assert "search-pom: failed after 0.0 min" in capsys.readouterr().out
    assert kept.kept("search-pom", place.results) is None


def test_phases_name_methods_that_exist():
    source = (kept.ROOT / "benchmarks/phases.py").read_text()
    watched = re.findall(r'parts\.watch\(learner, "(\w+)"', source)
    assert len(watched) == 3
    assert all(hasattr(DdpgLearner, name) for name in watched)
