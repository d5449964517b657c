"""Lines to standard output or standard error, written by a separate thread: logging never blocks on the
reader.

C++ libraries write to standard error themselves, some while holding Python's GIL, and a last time when they
abort. So what the process writes there goes through another process, which runs this file, reads continuously
and outlives a crash.
"""
import contextlib
import logging
import os
import queue
import signal
import stat
import subprocess
import sys
import threading
import time
from typing import Callable, Iterator

MAX_WAITING_BYTES = 4 << 20         # of unwritten lines; further ones are dropped
PAUSE_SECONDS = 0.02                # between two writes: waking a thread for each line slows down answers
LINE_BYTES = 64                     # overhead of a line
CLOSE_SECONDS = 1.0                 # time limit for the last lines
PIECE_BYTES = 65536


class LineLog:
    """Writes to `descriptor`, in the order of the calls. `on_lost` gets the number of dropped lines."""

    def __init__(self, descriptor: int, on_lost: Callable[[int], None] = lambda count: None) -> None:
        self._descriptor, self._on_lost = descriptor, on_lost
        self._lines: "queue.SimpleQueue[bytes]" = queue.SimpleQueue()
        self._lock = threading.Lock()          # for callers in several threads
        self._num_put = self._num_done = 0     # bytes
        self._has_thread = False               # most commands and tests log nothing

    def write(self, line: bytes) -> bool:
        """Queues a line, which ends in a line feed; drops it and returns False when the queue is full."""
        with self._lock:
            num_bytes = len(line) + LINE_BYTES
            fits = self._num_put - self._num_done + num_bytes <= MAX_WAITING_BYTES
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._write_all, daemon=True,
                                 name="log to %d" % self._descriptor).start()
            if fits:
                self._num_put += num_bytes
                self._lines.put(line)
        if not fits:
            self._on_lost(1)
        return fits

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Waits until all is written, at most so long; returns whether it is. The thread continues."""
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
        except OSError:  # a full disk, or the log's reader has exited: the server must continue
            self._on_lost(len(lines) - data[:written].count(b"\n"))
        self._num_done += len(data) + LINE_BYTES * len(lines)


class LineLogHandler(logging.Handler):
    """Python's logging through a LineLog."""

    def __init__(self, lines: LineLog) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.write((self.format(record) + "\n").encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def relayed_errors() -> Iterator[None]:
    """While the block runs, nothing that writes to descriptor 2 waits for who reads it; what nobody reads is
    lost, and told as a number.

    Where that is a file, to which writing does not wait, nothing is changed.
    """
    if not _may_block(2):
        yield
        return
    reading, writing = os.pipe()
    relay = subprocess.Popen([sys.executable, "-I", "-S", os.path.abspath(__file__)], stdin=reading,
                             stdout=subprocess.DEVNULL,
                             start_new_session=True)           # Ctrl-C is for the server alone
    original = os.dup(2)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)
    try:
        yield
    finally:
        os.dup2(original, 2)                   # the relay's input ends
        os.close(original)
        with contextlib.suppress(subprocess.TimeoutExpired):
            relay.wait(2 * CLOSE_SECONDS)


@contextlib.contextmanager
def output_apart() -> Iterator[int]:
    """Gives a descriptor of standard output; what others write to descriptor 1 goes to standard error while
    the block runs."""
    output = os.dup(1)
    try:
        with contextlib.suppress(OSError):     # standard error is closed
            os.dup2(2, 1)
        yield output
    finally:
        os.dup2(output, 1)
        os.close(output)


def relay_pieces(source: int, target: int) -> None:
    """Passes on `source` until its end, reading continuously."""
    lines, num_lost = LineLog(target), 0
    for piece in iter(lambda: os.read(source, PIECE_BYTES), b""):
        num_lost = 0 if lines.write(_notice(num_lost) + piece) else num_lost + piece.count(b"\n")
    if lines.close() and num_lost:
        lines.write(_notice(num_lost))
        lines.close()


def _notice(num_lost: int) -> bytes:
    return b"%d lines were lost here, since nobody read them\n" % num_lost if num_lost else b""


def _may_block(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:                            # it is closed
        return False
    return not stat.S_ISREG(mode) and (not stat.S_ISCHR(mode) or os.isatty(descriptor))


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # it exits when its input ends
    relay_pieces(0, 2)
    os._exit(0)                                # its thread may hang in a write
