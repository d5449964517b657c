"""A call in a thread that may be left behind: what hangs in the kernel, on a dead mount say, nothing can end.

concurrent.futures would wait for such a thread when the process ends, and have one less for other calls until then.
"""
import asyncio
import contextlib
import queue
import threading
from typing import Any, Callable, List, Optional


class Overdue(Exception):
    """A call took longer than it may; its thread goes on."""


class Errand:
    """Starts `call` in a daemon thread, where `discard` gets what it gives if it ends after it was given up."""

    def __init__(self, call: Callable[[], Any], discard: Optional[Callable[[Any], None]] = None) -> None:
        self._call, self._discard = call, discard
        self._loop = asyncio.get_event_loop()
        self._answer = self._loop.create_future()      # value, error
        self._lock = threading.Lock()
        self._is_over = self._is_given_up = self._has_ended = False
        (_idle.pop() if _idle else _Messenger()).errands.put(self)

    def is_alive(self) -> bool:
        """Whether the call, or what discards it, goes on."""
        return not self._has_ended

    async def result(self, seconds: float) -> Any:
        """What the call gives, or raises. Raises Overdue when that takes longer: then it is given up, as when cancelled."""
        try:
            await asyncio.wait({self._answer}, timeout=seconds)
        finally:
            with self._lock:
                self._is_given_up = not self._is_over
        if self._is_given_up:
            raise Overdue("took longer than %g s" % seconds)
        value, error = await self._answer
        if error is None:
            return value
        raise error if isinstance(error, Exception) else RuntimeError(repr(error))

    def run(self) -> Callable[[], None]:
        """Makes the call; returns what tells its caller. Belongs to the thread."""
        value = error = None
        try:
            value = self._call()
        except BaseException as raised:        # whatever it is, somebody waits for it
            error = raised
        with self._lock:
            self._is_over = not self._is_given_up
        if not self._is_over and self._discard and error is None:
            self._discard(value)
        self._has_ended = True

        def tell() -> None:
            if self._is_over:
                with contextlib.suppress(RuntimeError):        # the loop has been closed
                    self._loop.call_soon_threadsafe(self._answer.set_result, (value, error))
        return tell


class _Messenger(threading.Thread):
    """Does one errand after the other. New threads for each would take new arenas of memory, 10 MB more for each model loaded."""

    def __init__(self) -> None:
        super().__init__(name="errand", daemon=True)
        self.errands: "queue.Queue[Errand]" = queue.Queue()
        self.start()

    def run(self) -> None:
        while True:
            tell = self.errands.get().run()
            _idle.append(self)                 # before the caller hears of it: his next errand is for this thread
            tell()
            del tell                           # it holds what the call gave


_idle: List[_Messenger] = []
