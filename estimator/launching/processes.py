"""Processes that start together and end together, whatever happens to any of them, or to this one.

Each has a log, a process group and a mark in its environment, which all that it starts inherits. Three things
see that none outlives this process: the kernel kills a rank whose starter has died; a keeper, a process of
its own that waits for that, kills whatever else bears the mark; and this process does so before it ends.
"""
import contextlib
import ctypes
import os
import signal
import subprocess
import time
import uuid
from types import FrameType
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence

MARK = "CHINESE_ALBERT_LAUNCH"                 # the variable that marks what a launch has started
STOPPED = "Stopped by SIGTERM"                 # how a trainer that was asked to end begins its last line

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_TURN_SECONDS = 0.1
_SWEEP_SECONDS = 10.0                          # for what starts new processes while it is being killed
# that the others may take when one has failed: in a step that waits for it they will never end
FAILURE_SECONDS = 30.0


class Start(NamedTuple):
    """One process to be.

    Attributes:
      name: in messages: "rank 3 on device 3".
      arguments: its command line.
      environment: all of its variables.
      log: the file that gets its output and errors.
      cores: that it keeps to; none: it is not bound.
    """
    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: str
    cores: Sequence[int] = ()


class End(NamedTuple):
    """How a launch ended.

    Attributes:
      status: 0 when all came to their end; else that of the first that failed, as a shell has it: 128 and the
        signal for one that was killed, or for a signal that this process got.
      failed: the first that failed; None without one, or when a signal ended the launch.
    """
    status: int
    failed: Optional[Start] = None


class Launch:
    """Starts processes, forwards signals to them, and ends all when one fails."""

    def __init__(self, starts: Sequence[Start], stop_seconds: float) -> None:
        """
        Args:
          starts: the first is the one that saves when all are asked to end: the others wait for it.
          stop_seconds: that those asked to end may take before they are killed.
        """
        self._starts, self._stop_seconds = list(starts), stop_seconds
        self._mark = uuid.uuid4().hex
        self._running: Dict[int, "subprocess.Popen[bytes]"] = {}         # by position in `starts`
        self._signals: List[int] = []          # that came, in order
        self._deadline: Optional[float] = None  # set when the others have been asked to end

    def run(self) -> End:
        """Returns when all have ended, and nothing that they started is left."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            # who starts us under nohup wants us to stay; an interrupt is never meant to be lost
            if number != signal.SIGHUP or before[number] is not signal.SIG_IGN:
                signal.signal(number, self._note)
        keeper = _Keeper(self._mark)
        end = End(0)
        try:
            for position, start in enumerate(self._starts):
                if self._signals:
                    break
                self._running[position] = self._start(start)
            end = self._wait()
        finally:
            sweep(self._mark)
            for process in self._running.values():
                process.wait()
            keeper.dismiss()
            for number in _SIGNALS:
                signal.signal(number, before[number] or signal.SIG_DFL)
        return end

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        self._signals.append(number)

    def _start(self, start: Start) -> "subprocess.Popen[bytes]":
        os.makedirs(os.path.dirname(os.path.abspath(start.log)), exist_ok=True)
        starter, cores = os.getpid(), list(start.cores)

        def prepare() -> None:                 # in the new process, before it is the command
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            _LIBC.prctl(_PR_SET_PDEATHSIG, *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0)))
            if os.getppid() != starter:        # it died before the kernel was told
                os.kill(os.getpid(), signal.SIGKILL)
            if cores:
                with contextlib.suppress(OSError):      # the cores that we may use have just changed
                    os.sched_setaffinity(0, cores)
        with open(start.log, "wb") as log:
            return subprocess.Popen(start.arguments, env=dict(start.environment, **{MARK: self._mark}),
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                    start_new_session=True, preexec_fn=prepare)

    def _wait(self) -> End:
        """Watches until none runs; the first that fails, or a signal, stops the others."""
        end: Optional[End] = None
        heard = 0
        while self._running:
            for position, process in list(self._running.items()):
                if process.poll() is None:
                    continue
                del self._running[position]
                status = _status_of(process.returncode, self._starts[position].log)
                if end is None and status:
                    end = End(status, self._starts[position])
                    self._ask_to_end(min(self._stop_seconds, FAILURE_SECONDS))
            if len(self._signals) > heard:
                heard = len(self._signals)
                if end is None:
                    end = End(128 + self._signals[0])
                if self._deadline is None:
                    self._ask_to_end(self._stop_seconds)
                else:
                    self._deadline = 0.0       # asked a second time
            if self._deadline is not None and (0 not in self._running or time.monotonic() > self._deadline):
                self._kill()
                continue
            if self._running:
                time.sleep(_TURN_SECONDS)
        if end is None and self._signals:
            end = End(128 + self._signals[0])
        return end or End(0)

    def _ask_to_end(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        for process in self._running.values():
            process.terminate()

    def _kill(self) -> None:
        """The processes and their groups; what left its group goes by its mark, at the end."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):       # it has ended, and its group with it
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._running.values():
            process.wait()


class _Keeper:
    """A process that outlives a killed launcher by as long as it takes to kill what that has started.

    It knows of the launcher's end by a pipe whose other end only the launcher holds.
    """

    def __init__(self, mark: str) -> None:
        reader, self._writer = os.pipe()
        self._process = os.fork()
        if self._process:
            os.close(reader)
            return
        try:                                   # from here on it is the keeper
            os.setsid()
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            os.close(self._writer)
            silence = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(silence, descriptor)
            os.read(reader, 1)
            sweep(mark)
        finally:
            os._exit(0)

    def dismiss(self) -> None:
        """Returns when it has ended."""
        os.close(self._writer)
        os.waitpid(self._process, 0)


def sweep(mark: str) -> None:
    """Kills all processes that bear a mark, however they have cut their ties, until none is left.

    Only the user's own can be seen and killed. One that has emptied its environment is not recognized.
    """
    deadline = time.monotonic() + _SWEEP_SECONDS
    while time.monotonic() < deadline:
        found = bearing(mark)
        if not found:
            return
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def bearing(mark: str) -> List[int]:
    """The processes that bear a mark, those left out that have ended and that nobody has waited for."""
    wanted = ("%s=%s" % (MARK, mark)).encode("ascii")
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open("/proc/%s/environ" % name, "rb") as stream:
                    if wanted in stream.read().split(b"\0"):
                        found.append(int(name))
            except OSError:                    # it is another user's, or has just ended
                continue
    return found


def last_lines(path: str, count: int) -> List[str]:
    """The last lines of a log, of at most some kilobytes, decoded whatever they are; [] without a log."""
    try:
        with open(path, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - (1 << 16)))
            text = stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line for line in text.replace("\r", "\n").split("\n") if line.strip()][-count:]


def _status_of(returncode: int, log: str) -> int:
    """As a shell has it. A trainer that was asked to end saves and ends with 0, but it is not at its end."""
    if returncode < 0:
        return 128 - returncode
    if returncode == 0 and any(line.startswith(STOPPED) for line in last_lines(log, 20)):
        return 128 + signal.SIGTERM
    return returncode


_LIBC = ctypes.CDLL(None)                      # loaded here: nothing may be loaded between fork and exec
