"""A progress line while other processes work: amount done, rate, time left."""
import contextlib
import os
import select
import sys
import threading
import time
from typing import Callable, Iterator, Tuple

INTERVAL_SECONDS = 2.0
TICK_SECONDS = 10.0


@contextlib.contextmanager
def progress_line(label: str, total: int, measure: Callable[[], Tuple[int, str]]) -> Iterator[None]:
    """While the block runs, prints `label: 3.1 of 11.2 MB, 1.40 MB/s, 5,120 samples, 0:06 left` to stderr
    whenever more is done.

    Args:
      total: bytes to do.
      measure: returns (bytes done, remark); called from a thread.
    """
    done = threading.Event()
    begin = time.time()
    first = measure()

    def watch() -> None:
        shown = first
        while not done.wait(INTERVAL_SECONDS):
            finished, remark = measure()
            # the rate would fall, and the time left grow, just because a range takes long
            if (finished, remark) == shown:
                continue
            shown = finished, remark
            rate = (finished - first[0]) / (time.time() - begin)
            left = ", %s left" % clock((total - finished) / rate) if rate > 0 else ""
            sys.stderr.write("%s: %.1f of %.1f MB, %.2f MB/s, %s%s\n"
                             % (label, finished / 1e6, total / 1e6, rate / 1e6, remark, left))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def ticking_line(label: str) -> Iterator[None]:
    """While the block runs, prints `label: 0:20` to stderr every 10 seconds: for a library call that reports
    no progress and blocks other threads. A separate process prints; it ends together with this one."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(writer)
            begin = time.time()
            while not select.select([reader], [], [], TICK_SECONDS)[0]:
                os.write(2, ("%s: %s\n" % (label, clock(time.time() - begin))).encode("utf-8"))
        finally:
            os._exit(0)                        # after Ctrl-C, too: the rest is for the other process
    os.close(reader)
    try:
        yield
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def clock(seconds: float) -> str:
    """`3725` → `1:02:05`, `65` → `1:05`."""
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return "%d:%02d:%02d" % (hours, minutes, rest) if hours else "%d:%02d" % (minutes, rest)
