"""Errors as problems: a status by their kind, their own text, and no folder of this machine."""

import pytest

from mmcl import errors
from mmcl.errors import DiskError
from mmcl.serve.problems import Problem, ServiceError, problem_of, replace_names, unknown_problem


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("UsageError", 400, "usage-error"),
        ("ConfigError", 400, "config-error"),
        ("DatasetError", 422, "dataset-error"),
        ("MediaError", 422, "media-error"),
        ("ShapeError", 422, "shape-error"),
        ("RunError", 422, "run-error"),
        ("TrainingError", 500, "training-error"),
        ("MissingExtraError", 501, "missing-extra-error"),
        ("MMCLError", 422, "mmclerror"),
    ],
)
def test_status_by_kind(name, status, kind):
    problem = problem_of(getattr(errors, name)("found\n  fix"))
    assert (problem.status, problem.type) == (status, f"urn:mmcl:{kind}")
    assert problem.detail == "found\n  fix"


def test_what_only_a_service_says():
    problem = problem_of(ServiceError("too many", status=429, kind="busy"))
    assert problem == Problem(
        type="urn:mmcl:busy", title="Too Many Requests", status=429, detail="too many"
    )


def test_folders_become_names_the_longest_first():
    names = {"/srv/runs": "RUNS", "/srv/runs/talks": "talks", '"recording"': '"a.mp4"'}
    fault = errors.RunError('/srv/runs/talks: cannot read "recording" of /srv/runs/other')
    assert problem_of(fault, names).detail == 'talks: cannot read "a.mp4" of RUNS/other'


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("/srv/a: broken", "A: broken"),
        ("in /srv/a.", "in A."),
        ('href="/srv/a/page.html"', 'href="A/page.html"'),
        ("/srv/ab /srv/a-b /srv/a.b x/srv/a", "/srv/ab /srv/a-b /srv/a.b x/srv/a"),
        ("start. st and / stay", "start. st and / stay"),
    ],
)
def test_only_whole_absolute_paths_are_replaced(text, read):
    names = {"/srv/a": "A", ".": "DOT", "st": "ST", "/": "ROOT"}
    assert replace_names(text, names) == read


def test_letters_that_mean_something_to_a_pattern_mean_nothing_in_a_path():
    names = {"/srv/a+b (1)": r"run\1"}
    assert replace_names("/srv/a+b (1)/x and /srv/aab 1", names) == r"run\1/x and /srv/aab 1"


def test_unknown_problem_says_nothing():
    assert unknown_problem().model_dump() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": None,
    }


def test_full_disk_is_the_services_problem_and_its_log_names_the_file(caplog):
    fault = DiskError("/srv/jobs/uploads/1: the disk is full (x)", "Free some space.")
    problem = problem_of(fault)
    assert (problem.type, problem.status) == ("urn:mmcl:disk-error", 507)
    assert problem.detail == (
        "the disk of the service takes no more, so this cannot be stored.\n"
        "  Send it again later, or tell the owner of the service, whose log says more."
    )
    assert caplog.messages == [str(fault)]
