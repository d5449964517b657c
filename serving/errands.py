"""A call in a thread that may be left behind: what hangs in the kernel, on a dead mount say, nothing can end.

concurrent.futures would wait for such a thread when the process ends, and have one less for other calls until then.
"""
import asyncio
import contextlib
import threading
from typing import Any, Callable, Optional


class Overdue(Exception):
    """A call took longer than it may; its thread goes on."""


class Errand:
    """Starts `call` in a daemon thread, where `discard` gets what it gives if it ends after it was given up."""

    def __init__(self, call: Callable[[], Any], discard: Optional[Callable[[Any], None]] = None) -> None:
        self._call, self._discard = call, discard
        self._loop = asyncio.get_event_loop()
        self._ended = self._loop.create_future()       # value, error
        self._lock = threading.Lock()
        self._is_over = self._is_given_up = False
        self._thread = threading.Thread(target=self._run, name="errand", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def result(self, seconds: float) -> Any:
        """What the call gives, or raises. Raises Overdue when that takes longer: then it is given up, as when cancelled."""
        try:
            await asyncio.wait({self._ended}, timeout=seconds)
        finally:
            with self._lock:
                self._is_given_up = not self._is_over
        if self._is_given_up:
            raise Overdue("took longer than %g s" % seconds)
        value, error = await self._ended
        if error is None:
            return value
        raise error if isinstance(error, Exception) else RuntimeError(repr(error))

    def _run(self) -> None:
        value = error = None
        try:
            value = self._call()
        except BaseException as raised:        # whatever it is, somebody waits for it
            error = raised
        with self._lock:
            self._is_over = not self._is_given_up
        if self._is_over:
            with contextlib.suppress(RuntimeError):    # the loop has been closed
                self._loop.call_soon_threadsafe(self._ended.set_result, (value, error))
        elif self._discard and error is None:
            self._discard(value)
