"""A call in a thread that may be abandoned: nothing can stop a thread that hangs in the kernel, for example
on a dead mount.

concurrent.futures would wait for such a thread when the process exits, and have one thread fewer for other
calls until then.
"""
import asyncio
import contextlib
import os
import queue
import sys
import threading
from typing import Any, Callable, Generic, List, Optional, TypeVar

Result = TypeVar("Result")
NICENESS = 10


class Overdue(Exception):
    """A call exceeded its time limit; its thread continues."""


class Errand(Generic[Result]):
    """Starts `call` in a daemon thread.

        running ──call ends──► over: its caller is told
           │
           └──too late──► given up ──call ends──► ended: `discard`, if given, gets its result

    The thread decides between the two under the lock, so that a result is either told or discarded.
    """

    def __init__(self, call: Callable[[], Result],
                 discard: Optional[Callable[[Result], None]] = None) -> None:
        self._call, self._discard = call, discard
        self._loop = asyncio.get_event_loop()
        self._answer = self._loop.create_future()      # value, error
        self._lock = threading.Lock()
        self._is_over = self._is_given_up = self._has_ended = False
        messenger = _idle.pop() if _idle else _Messenger()
        messenger.errands.put(self)

    def is_alive(self) -> bool:
        """Whether the call, or discarding its result, is still running."""
        return not self._has_ended

    async def result(self, seconds: float) -> Result:
        """The call's result, or what it raises. Raises Overdue after the time limit; then, and when
        cancelled, the call is abandoned."""
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
        # A BaseException such as SystemExit must not end the event loop.
        raise error if isinstance(error, Exception) else RuntimeError(repr(error))

    def run(self) -> Callable[[], None]:
        """Makes the call; returns a function that notifies its caller. Runs in the thread."""
        value: Any = None
        error: Optional[BaseException] = None
        try:
            value = self._call()
        except BaseException as raised:        # whatever it is, the caller waits for it
            error = raised
        with self._lock:
            self._is_over = not self._is_given_up
        has_result = error is None
        if self._is_given_up and has_result and self._discard:
            self._discard(value)
        self._has_ended = True

        def tell() -> None:
            if self._is_over:
                with contextlib.suppress(RuntimeError):        # the loop has been closed
                    self._loop.call_soon_threadsafe(self._answer.set_result, (value, error))
        return tell


class _Messenger(threading.Thread):
    """A thread that runs errands one by one, with a lower priority than the threads that answer requests:
    loading a version takes seconds of a core. A new thread for each errand would use new memory arenas,
    10 MB per loaded model."""

    def __init__(self) -> None:
        super().__init__(name="errand", daemon=True)
        self.errands: "queue.Queue[Errand[Any]]" = queue.Queue()
        self.start()

    def run(self) -> None:
        if sys.platform == "linux":            # elsewhere it is the whole process's priority
            os.nice(NICENESS)
        while True:
            tell = self.errands.get().run()
            _idle.append(self)                 # before the caller is told: its next errand is for this thread
            tell()
            del tell                           # it holds the call's result


_idle: List[_Messenger] = []
