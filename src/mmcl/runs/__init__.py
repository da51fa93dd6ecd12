"""Training, comparing, ablating and tuning models, and predicting with trained ones.

The input is a corpus with settings, or a finished run with something new to predict. The output
is a run folder, a comparison, a search, a robustness sweep or a predicted recording. Long work
can be stopped and continued. Metrics and access to the test split belong to ``evaluation``, the
training step to ``learning``, figures to ``explain``.
"""
