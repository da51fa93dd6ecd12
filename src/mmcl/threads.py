"""Threads that each compute one part of a batch, or one portion of a prediction, on a core.

An operation on a small batch is over before several cores have been woken for it. So each thread
takes some clips through the whole network, with as many of torch's own threads as are left to it:
where there are as many parts as cores, one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import BrokenBarrierError
from typing import Any, TypeVar

import torch

from mmcl.processes import Meeting, Seat, Share, seated, sharing

__all__ = ["Crew", "in_order"]

_Task = TypeVar("_Task")
_Answer = TypeVar("_Answer")


class Crew:
    """Threads of one process, which wait between batches.

    The number of torch's threads in the thread that calls stays as it was.

    Args:
        threads: All together, torch's own included.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, "mmcl-part", _keep_no_casts)

    def run(self, work: Callable[[int], _Answer], shares: Sequence[Share]) -> list[_Answer]:
        """Do the same work on each of this process's parts of a batch.

        Random numbers continue from torch's own generator, which is afterwards where the parts
        have come to.

        Args:
            work: Called with the number of a part, from 0, in a thread that has its share; in
                this very thread, and as if nobody shared them, where there is one.
            shares: One per part, at most as many as there are threads.

        Returns:
            What came of each part.

        Raises:
            Exception: The first part's of those that raised one; the others are ended.
        """
        if len(shares) == 1:
            return [work(0)]
        meeting = Meeting(len(shares), alone=shares[0].parts == len(shares))
        generators = [torch.Generator().set_state(torch.get_rng_state()) for _ in shares]
        seats = [Seat(meeting, *numbered) for numbered in enumerate(generators)]

        def on(share: Share, seat: Seat) -> _Answer:
            try:
                with sharing(share), seated(seat):
                    return work(seat.number)
            except BaseException:
                meeting.end()
                raise

        each = max(1, self.threads // len(shares))
        with _own_number_of_threads():
            futures = [
                self._pool.submit(_with_threads, each, on, share, seat)
                for share, seat in zip(shares, seats, strict=True)
            ]
            answers = _answers_of(futures, meeting)
        torch.set_rng_state(generators[0].get_state())
        return answers

    def alone(self, work: Callable[[], _Answer], share: Share | None) -> _Answer:
        """Do work in one of the threads: several of torch's own would round otherwise.

        Args:
            work: Called with one of torch's threads.
            share: Of the clips of this process.
        """

        def on() -> _Answer:
            with sharing(share):
                return work()

        with _own_number_of_threads():
            return self._pool.submit(_with_threads, 1, on).result()


def in_order(
    work: Callable[[_Task], _Answer],
    tasks: Iterable[_Task],
    *,
    threads: int,
    cost: Callable[[_Task], int],
    most: int,
) -> Generator[_Answer, None, None]:
    """Do tasks side by side, each with one of torch's threads; the answers in their order.

    Args:
        work: What is done.
        tasks: Taken in this thread, as they are needed.
        threads: Tasks in work at a time; one more may wait or be done.
        cost: Of a task.
        most: Cost of the tasks that are taken and not yet answered; one may cost more.
    """
    ahead: deque[tuple[Future[_Answer], int]] = deque()
    with _own_number_of_threads(), ThreadPoolExecutor(threads, "mmcl-portion") as pool:
        for task in tasks:
            price = cost(task)
            while ahead and (len(ahead) > threads or sum(paid for _, paid in ahead) + price > most):
                yield ahead.popleft()[0].result()
            ahead.append((pool.submit(_with_threads, 1, work, task), price))
        while ahead:
            yield ahead.popleft()[0].result()


@contextmanager
def _own_number_of_threads() -> Iterator[None]:
    """Have torch give new threads as many of its own as it gives this one.

    The number is each thread's own, but those that begin get the one that was set last.
    """
    own = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(own)


def _with_threads(count: int, work: Callable[..., _Answer], *given: Any) -> _Answer:
    torch.set_num_threads(count)
    return work(*given)


def _keep_no_casts() -> None:
    """Have autocast narrow a weight at each use: what it would keep, all threads would share."""
    torch.set_autocast_cache_enabled(False)


def _answers_of(futures: Sequence[Future[_Answer]], meeting: Meeting) -> list[_Answer]:
    """What all came to, once all have ended, or what the first of them failed by."""
    try:
        wait(futures)
    except BaseException:  # an interrupt
        meeting.end()
        wait(futures)
        raise
    faults = [fault for fault in (each.exception() for each in futures) if fault is not None]
    for fault in sorted(faults, key=lambda each: isinstance(each, BrokenBarrierError)):
        raise fault
    return [each.result() for each in futures]
