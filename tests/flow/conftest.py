"""A command of the program, as a user gives it."""

import pytest

from mmcl.cli.main import main


@pytest.fixture
def run(capsys):
    """Run a command in this process; returns its exit code and what it printed."""

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call
