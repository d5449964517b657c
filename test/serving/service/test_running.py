import asyncio

import pytest

from etl.common.command_line import UserError
from serving.service.running import unless_set


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
