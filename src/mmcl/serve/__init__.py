"""Service that answers HTTP requests with the predictions of trained runs, and its page.

Runs, features as JSON and recordings come in; predictions, results of recordings and counters go
out. Features are predicted at once, in batches, by one worker process; a recording becomes a job
on the disk, done by another one, so that no file can take the service down. ``app`` has the
routes. Nothing here trains, scores against labels or draws figures of its own. Needs the extra
``serve``, and ``media`` for recordings.
"""
