"""Micro-batching: requests that arrive while a model is busy run together as soon as it is free.

No request waits for a batch to fill up: with one client each runs immediately and alone. A queue is
bounded, and an abandoned request (its deadline has passed, or its client has disconnected) is never run.
Each model has its own queue; their batches take turns in the same threads.
"""
import asyncio
import collections
import concurrent.futures
import time
from typing import Any, Callable, Dict, Hashable, List, NamedTuple

import grpc
import numpy as np
import tensorflow.compat.v1 as tf

from serving.service import errors
from serving.service.errors import RequestError
from serving.service.messages import Arrays
from serving.service.monitoring import Monitor


class Work(NamedTuple):
    """Inputs and the function that runs them. Work with equal `key` is concatenated along the first axis."""
    key: Hashable
    run: Callable[[Arrays], Arrays]
    inputs: Arrays
    num_rows: int


class _Waiting:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.answer = asyncio.get_event_loop().create_future()
        self.since = time.perf_counter()


class BatchThreads:
    """`count` threads that run batches of all queues; belongs to one event loop."""

    def __init__(self, count: int) -> None:
        self.count = self._num_free = count
        self._threads = concurrent.futures.ThreadPoolExecutor(count)
        self._queues: Dict["Batcher", None] = collections.OrderedDict()    # with waiting work, in turn

    def serve(self, queue: "Batcher") -> None:
        """Runs waiting work of `queue` when its turn comes."""
        self._queues.setdefault(queue, None)
        while self._num_free and self._queues:
            first = next(iter(self._queues))
            del self._queues[first]
            batch = first.take()
            if first.has_waiting():
                self._queues[first] = None     # as the last
            if batch:                          # otherwise all waiting work was abandoned
                self._num_free -= 1
                asyncio.ensure_future(self._run(first, batch))

    async def _run(self, queue: "Batcher", batch: List[_Waiting]) -> None:
        found = await asyncio.get_event_loop().run_in_executor(self._threads, run_together,
                                                               [waiting.work for waiting in batch])
        for waiting, result in zip(batch, found):
            if waiting.answer.done():              # abandoned while it ran
                continue
            if isinstance(result, Exception):
                waiting.answer.set_exception(result)
            else:
                waiting.answer.set_result(result)
        self._num_free += 1
        self.serve(queue)


class Batcher:
    """The queue of one model; belongs to the event loop that calls `submit`.

    Args:
      max_batch_size: rows of a batch.
      max_enqueued_rows: rows that may wait; more are refused at once.
      model: its name, for the metrics.
    """

    def __init__(self, max_batch_size: int, max_enqueued_rows: int, threads: BatchThreads, monitor: Monitor,
                 model: str = "") -> None:
        self._max_batch_size, self._max_enqueued_rows = max_batch_size, max_enqueued_rows
        self._monitor, self._refused = monitor, monitor.rejections.labels("queue_full")
        self._model, self._rows_gauge = model, monitor.queue_rows.labels(model)
        self._queue: Dict[_Waiting, None] = collections.OrderedDict()
        self._queued_rows = 0
        self._threads = threads

    async def submit(self, work: Work) -> Arrays:
        """The outputs of `work`. Raises RequestError: UNAVAILABLE when the queue is full, or the graph's
        error for the inputs."""
        self.require_room(work.num_rows)
        waiting = _Waiting(work)
        self._queue[waiting] = None
        self._count_queued(work.num_rows)
        self._threads.serve(self)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self._monitor.rejections.labels("abandoned").inc()
            if waiting in self._queue:
                del self._queue[waiting]
                self._count_queued(-work.num_rows)
            raise

    def has_room(self, num_rows: int) -> bool:
        """Whether so many more rows may wait."""
        return self._queued_rows + num_rows <= self._max_enqueued_rows

    def require_room(self, num_rows: int) -> None:
        """Raises RequestError when so many more rows may not wait."""
        if not self.has_room(num_rows):
            self._refused.inc()
            raise RequestError(grpc.StatusCode.UNAVAILABLE,
                               "The batch scheduling queue is full: %d rows are waiting" % self._queued_rows)

    def retire(self) -> None:
        """Removes its metric; what waits still runs."""
        self._monitor.queue_rows.remove(self._model)

    def has_waiting(self) -> bool:
        return bool(self._queue)

    def take(self) -> List[_Waiting]:
        """The first waiting work, and all that may run with it; none when nothing waits.

        It leaves a share for the other threads: one long batch beside a short one would delay the requests
        in it and those after it.
        """
        first = next(iter(self._queue), None)
        if first is None:
            return []
        most = min(self._max_batch_size, -(-self._queued_rows // self._threads.count))
        batch: List[_Waiting] = []
        num_rows = 0
        for waiting in list(self._queue):
            fits = waiting is first or num_rows + waiting.work.num_rows <= most
            if fits and waiting.work.key == first.work.key:
                del self._queue[waiting]
                batch.append(waiting)
                num_rows += waiting.work.num_rows
        self._count_queued(-num_rows)
        now = time.perf_counter()
        for waiting in batch:
            self._monitor.queue_seconds.observe(now - waiting.since)
        self._monitor.batch_requests.observe(len(batch))
        self._monitor.batch_rows.observe(num_rows)
        return batch

    def _count_queued(self, num_rows: int) -> None:
        self._queued_rows += num_rows
        self._rows_gauge.set(self._queued_rows)


def run_together(works: List[Work]) -> List[Any]:
    """The outputs of each, or its exception. If the batch as a whole fails, each runs by itself: one may be
    the cause."""
    try:
        if len(works) == 1:
            return [works[0].run(works[0].inputs)]
        joined = {name: np.concatenate([work.inputs[name] for work in works]) for name in works[0].inputs}
        found = works[0].run(joined)
        ends = np.cumsum([work.num_rows for work in works])[:-1]
        split = {name: np.split(array, ends) for name, array in found.items()}
        return [{name: arrays[index] for name, arrays in split.items()} for index in range(len(works))]
    except Exception as error:
        if len(works) > 1:
            return [result for work in works for result in run_together([work])]
        return [errors.from_tensorflow(error) if isinstance(error, tf.errors.OpError) else error]
