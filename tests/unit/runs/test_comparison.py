"""Choices of a comparison before it trains."""

import pytest

from mmcl.corpus.schema import Task
from mmcl.evaluation.item_sums import summable_metrics
from mmcl.runs.comparison import DEFAULT_METRICS, default_metrics


@pytest.mark.parametrize(
    "task",
    [
        Task(kind="regression", low=-3, high=3),
        Task(kind="classes", names=("bad", "good")),
        Task(kind="emotions", names=("happy", "sad")),
    ],
    ids=lambda task: task.kind,
)
def test_every_task_has_its_usual_metrics(task):
    chosen = default_metrics(task.kind, (), summable_metrics(task))
    assert chosen == list(DEFAULT_METRICS[task.kind])
