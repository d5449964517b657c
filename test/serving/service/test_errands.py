import asyncio
import os
import sys
import threading

import pytest
from served import run

from serving.service.errands import Errand, Overdue


def fail(error):
    raise error


def test_what_a_call_gives_or_raises():
    async def ask():
        assert await Errand(lambda: 3).result(60) == 3
        with pytest.raises(KeyError):
            await Errand(lambda: fail(KeyError("x"))).result(60)
        with pytest.raises(RuntimeError, match="SystemExit"):      # it would end the server
            await Errand(lambda: fail(SystemExit(2))).result(60)
        # it would end a coroutine as if all were well
        with pytest.raises(RuntimeError, match="StopIteration"):
            await Errand(lambda: next(iter(()))).result(60)
    run(ask())


def test_what_is_given_up_is_discarded_when_it_ends():
    release, discarded = threading.Event(), []

    async def ask():
        errand = Errand(lambda: release.wait() and "late", discarded.append)
        with pytest.raises(Overdue, match="^took longer than 0.01 s$"):
            await errand.result(0.01)
        assert errand.is_alive() and not discarded
        release.set()
        while errand.is_alive():
            await asyncio.sleep(0.01)
        assert discarded == ["late"]
    run(ask())


def test_a_caller_that_is_cancelled_gives_up():
    release, discarded = threading.Event(), []

    async def ask():
        errand = Errand(lambda: release.wait() and "late", discarded.append)
        asking = asyncio.ensure_future(errand.result(60))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        release.set()
        while errand.is_alive():
            await asyncio.sleep(0.01)
        assert discarded == ["late"]
    run(ask())


def test_one_thread_does_all_that_do_not_hang():
    release = threading.Event()

    async def ask():
        names = {await Errand(threading.get_ident).result(60) for _ in range(20)}
        assert len(names) <= 2                 # the other may have come back from the test before
        with pytest.raises(Overdue):
            await Errand(release.wait).result(0.01)
        assert await Errand(threading.get_ident).result(60) not in names
    run(ask())
    release.set()


def test_a_loop_may_be_closed_before_an_errand_ends():
    release, begun = threading.Event(), []

    async def ask():
        begun.append(Errand(release.wait))
    asyncio.run(ask())
    release.set()
    while begun[0].is_alive():
        pass
    assert asyncio.run(asyncio.wait_for(again(), 60)) == 1


async def again():
    return await Errand(lambda: 1).result(60)


@pytest.mark.skipif(sys.platform != "linux", reason="threads share their process's priority")
def test_what_answers_requests_comes_first():
    async def ask():
        assert await Errand(lambda: os.nice(0)).result(60) == min(19, os.nice(0) + 10)
    run(ask())
