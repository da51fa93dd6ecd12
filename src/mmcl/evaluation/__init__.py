"""How good a prediction is, said in the field's own numbers.

In come truths and scores as plain arrays and the task they belong to; out go metrics with
the preset that defines them, summaries over seeds, and the reference rows that every result
must be read against. In come published tables too (csv, markdown), to be held against what their
test set allows. Nothing here trains a network, reads a corpus's file format or draws a page,
and nothing rounds a number before it has been averaged.
"""
