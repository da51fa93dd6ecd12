"""Scores of a prediction, in the field's own numbers.

In come truths and scores as plain arrays, with the task that they belong to. Out go metrics
under the preset that defines them, summaries over seeds, tests of significance, and the
reference rows that every result must be read against. A table of published results comes in too,
and is checked against what its test set allows.

Nothing in this room trains a network: that is done in :mod:`mmcl.runs`. Only the reference rows
(ridge and logistic regression) are fitted here. Nothing reads a corpus's file format or draws a
page, and no number is rounded before it has been averaged.
"""
