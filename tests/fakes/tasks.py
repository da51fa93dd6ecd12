"""Work for processes of Ray; importable by a process of its own."""

from mmcl.errors import DatasetError


def scale(task, threads):
    """The task times its share of the cores; a word is refused."""
    if isinstance(task, str):
        raise DatasetError(f'"{task}" is no number.\n  Give a number.')
    return task * threads


def fail(task, threads):
    """A fault that is not of ours."""
    raise RuntimeError(f"{task}: a library has a fault")
