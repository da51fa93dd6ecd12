"""Waiting in a browser whose page forbids code made of text, as playwright's own waiting is."""

import time

__all__ = ["until"]


def until(page, expression, seconds=10):
    """Wait until an expression is true on a page."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"not within {seconds} s: {expression}"
        page.wait_for_timeout(20)
