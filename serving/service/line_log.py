"""Lines to standard output or standard error, written by a thread of their own: logging never blocks on the reader."""
import logging
import os
import queue
import threading
import time
from typing import Callable

MAX_WAITING_BYTES = 4 << 20                    # of lines that are not written yet; further ones are dropped
PAUSE_SECONDS = 0.02                           # between two writes: a thread that wakes for each line slows down answers
CLOSE_SECONDS = 1.0                            # time limit for the last lines


class LineLog:
    """Writes to `descriptor`, in the order of the calls. `on_lost` gets the number of lines that were not written."""

    def __init__(self, descriptor: int, on_lost: Callable[[int], None] = lambda count: None) -> None:
        self._descriptor, self._on_lost = descriptor, on_lost
        self._lines: "queue.SimpleQueue[bytes]" = queue.SimpleQueue()
        self._lock = threading.Lock()          # for callers in several threads
        self._num_put = self._num_done = 0     # bytes
        self._has_thread = False               # most commands and tests log nothing

    def write(self, line: bytes) -> None:
        """Queues a line, which ends in a line feed; drops it when the queue is full."""
        with self._lock:
            fits = self._num_put - self._num_done + len(line) <= MAX_WAITING_BYTES
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._write_all, daemon=True, name="log to %d" % self._descriptor).start()
            if fits:
                self._num_put += len(line)
                self._lines.put(line)
        if not fits:
            self._on_lost(1)

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Waits until all is written, at most so long; returns whether it is. The thread goes on."""
        end = time.monotonic() + seconds
        while self._num_done < self._num_put and time.monotonic() < end:
            time.sleep(0.001)
        return self._num_done == self._num_put

    def _write_all(self) -> None:
        while True:
            lines = [self._lines.get()]
            while not self._lines.empty():
                lines.append(self._lines.get())
            self._write(lines)
            if self._lines.empty():
                time.sleep(PAUSE_SECONDS)

    def _write(self, lines: list) -> None:
        data = b"".join(lines)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:written + 65536])
        except OSError:                        # a full disk, or the log's reader is gone: the server must go on
            self._on_lost(len(lines) - data[:written].count(b"\n"))
        self._num_done += len(data)


class LineLogHandler(logging.Handler):
    """Python's logging through a LineLog."""

    def __init__(self, lines: LineLog) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.write((self.format(record) + "\n").encode("utf-8", "backslashreplace"))
