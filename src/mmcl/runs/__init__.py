"""Everything that trains a network or uses a trained one on whole corpora and recordings.

In come a corpus and settings, or finished runs and something new to predict; out come run
folders, comparisons of many models, ablations, searches for settings, robustness sweeps and
predicted recordings. Whatever is long can be stopped and resumed here. Metrics and the test
split's door belong to ``evaluation``, the training step to ``learning``, figures to ``explain``.
"""
