import asyncio
import threading

import grpc
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from served import run

from serving.service.batching import Batcher, BatchThreads, Work, run_together
from serving.service.errors import RequestError
from serving.service.monitoring import Monitor


class Model:
    """Doubles x, batch by batch, as soon as it is let."""

    def __init__(self):
        self.batches = []
        self.may_go_on = threading.Event()

    def run(self, inputs):
        self.batches.append(inputs["x"].tolist())
        assert self.may_go_on.wait(100)
        if -1 in inputs["x"]:
            raise tf.errors.InvalidArgumentError(None, None, "x is -1")
        return {"y": 2 * inputs["x"]}


def work(model, *values, key="double"):
    return Work(key, model.run, {"x": np.array(values)}, len(values))


async def submit_all(batcher, works):
    """Their answers as tasks, all of which have been submitted; the first runs."""
    tasks = [asyncio.ensure_future(batcher.submit(item)) for item in works]
    await asyncio.sleep(0.05)
    return tasks


async def answers_of(tasks):
    return [found if isinstance(found, Exception) else found["y"].tolist()
            for found in await asyncio.gather(*tasks, return_exceptions=True)]


def test_what_comes_while_the_model_is_busy_runs_together():
    async def ask():
        model, batcher = Model(), Batcher(4, 100, BatchThreads(1), Monitor())
        tasks = await submit_all(batcher, [work(model, *values)
                                           for values in ([1], [2], [3, 4], [5, 6], [7])])
        model.may_go_on.set()
        assert await answers_of(tasks) == [[2], [4], [6, 8], [10, 12], [14]]
        assert model.batches == [[1], [2, 3, 4, 7], [5, 6]]
    run(ask())


def test_queues_take_turns_and_fill_up_apart():
    async def ask():
        threads, model = BatchThreads(1), Model()
        first, second = (Batcher(2, 4, threads, Monitor()) for _ in range(2))
        tasks = await submit_all(first, [work(model, value) for value in (1, 2, 3, 4, 5)])
        assert not first.has_room(1) and second.has_room(4)
        tasks += await submit_all(second, [work(model, value) for value in (11, 12, 13)])
        model.may_go_on.set()
        await answers_of(tasks)
        assert model.batches == [[1], [2, 3], [11, 12], [4, 5], [13]]
    run(ask())


def test_other_keys_run_apart():
    async def ask():
        model, batcher = Model(), Batcher(4, 100, BatchThreads(1), Monitor())
        tasks = await submit_all(batcher, [work(model, value, key=key)
                                           for value, key in enumerate("xaba", 1)])
        model.may_go_on.set()
        await answers_of(tasks)
        assert model.batches == [[1], [2, 4], [3]]
    run(ask())


def test_full_queue_refuses_at_once():
    async def ask():
        model, monitor = Model(), Monitor()
        batcher = Batcher(4, 3, BatchThreads(1), monitor)
        tasks = await submit_all(batcher, [work(model, 1), work(model, 2, 3), work(model, 4)])
        with pytest.raises(RequestError, match="queue is full: 3 rows are waiting") as refused:
            await batcher.submit(work(model, 5))
        assert refused.value.code == grpc.StatusCode.UNAVAILABLE
        assert b'serving_rejections_total{reason="queue_full"} 1.0' in monitor.expose()
        model.may_go_on.set()
        assert await answers_of(tasks) == [[2], [4, 6], [8]]
        assert (await batcher.submit(work(model, 5)))["y"] == [10]
    run(ask())


def test_abandoned_requests_are_not_run_and_make_room():
    async def ask():
        model, monitor = Model(), Monitor()
        batcher = Batcher(4, 2, BatchThreads(1), monitor, "albert")
        tasks = await submit_all(batcher, [work(model, 1), work(model, 2), work(model, 3)])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(tasks[0]), 0.01)
        tasks[1].cancel()
        await asyncio.sleep(0)
        tasks += await submit_all(batcher, [work(model, 4)])
        model.may_go_on.set()
        assert await answers_of([tasks[0], *tasks[2:]]) == [[2], [6], [8]]
        assert model.batches == [[1], [3, 4]]
        assert b'serving_rejections_total{reason="abandoned"} 1.0' in monitor.expose()
        assert b'serving_queue_rows{model="albert"} 0.0' in monitor.expose()
    run(ask())


def test_abandoned_while_it_runs():
    async def ask():
        model, batcher = Model(), Batcher(4, 100, BatchThreads(1), Monitor())
        (task,) = await submit_all(batcher, [work(model, 1)])
        task.cancel()
        model.may_go_on.set()
        assert (await batcher.submit(work(model, 2)))["y"] == [4]
    run(ask())


def test_one_bad_request_harms_no_other():
    async def ask():
        model, batcher = Model(), Batcher(4, 100, BatchThreads(1), Monitor())
        tasks = await submit_all(batcher, [work(model, 1), work(model, 2), work(model, -1), work(model, 3)])
        model.may_go_on.set()
        first, second, bad, third = await answers_of(tasks)
        assert (first, second, third) == ([2], [4], [6])
        assert (bad.code, str(bad)) == (grpc.StatusCode.INVALID_ARGUMENT, "x is -1")
    run(ask())


def test_several_threads():
    async def ask():
        model, batcher = Model(), Batcher(1, 100, BatchThreads(2), Monitor())
        tasks = await submit_all(batcher, [work(model, 1), work(model, 2), work(model, 3)])
        assert sorted(model.batches) == [[1], [2]]
        model.may_go_on.set()
        await answers_of(tasks)
    run(ask())


def test_a_batch_leaves_their_share_to_the_other_threads():
    async def ask():
        model, batcher = Model(), Batcher(8, 100, BatchThreads(2), Monitor())
        tasks = await submit_all(batcher, [work(model, value) for value in range(1, 9)])
        assert sorted(model.batches) == [[1], [2]]
        model.may_go_on.set()
        await answers_of(tasks)
        # three of six, two of the three left, and the last
        assert sorted(model.batches[2:]) == [[3, 4, 5], [6, 7], [8]]
    run(ask())


def test_other_errors_are_handed_on():
    def fail(inputs):
        raise KeyError("y")
    (found,) = run_together([Work("x", fail, {}, 1)])
    assert isinstance(found, KeyError)
