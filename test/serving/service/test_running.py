import asyncio

import pytest

from etl.common.command_line import UserError
from serving.service import running
from serving.service.flags import ServerConfig
from serving.service.running import queue_maker, unless_set


def test_what_is_begun_ends_when_the_server_is_told_to():
    async def ask():
        ending = asyncio.Event()
        assert await unless_set(ending, asyncio.sleep(0))
        with pytest.raises(UserError, match="no model"):
            await unless_set(ending, fail(UserError("no model")))
        asyncio.get_event_loop().call_soon(ending.set)
        assert not await unless_set(ending, asyncio.sleep(1000))

    async def fail(error):
        raise error
    asyncio.run(asyncio.wait_for(ask(), 60))


@pytest.mark.parametrize("flags, max_rows, threads", [
    ({}, 32, 3), ({"num_batch_threads": 5}, 32, 5), ({"enable_batching": False}, 1, 12)])
def test_batches_run_at_once_on_each_core_that_may_be_used(monkeypatch, flags, max_rows, threads):
    monkeypatch.setattr(running, "usable_cores", lambda: 3)
    monkeypatch.setattr(running, "Batcher", lambda *arguments: arguments)
    make_queue = queue_maker(ServerConfig(**flags), None)
    (*found, first, _, name), (*_, second, _, _) = make_queue("albert"), make_queue("lcqmc")
    assert (found, first.count, name) == ([max_rows, 1024], threads, "albert") and second is first
