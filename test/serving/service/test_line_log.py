import logging
import os
import re
import subprocess
import sys
import threading

import pytest

from serving.service import line_log
from serving.service.line_log import LineLog, LineLogHandler, relay_pieces

LINE = b"x" * 999 + b"\n"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# As a library in C++ does: past all of Python's streams.
LIBRARY = """
import os
from serving.service.line_log import output_apart, relayed_errors
with relayed_errors(), output_apart() as output:
    %s
"""


def start(statement, **streams):
    return subprocess.Popen([sys.executable, "-c", LIBRARY % statement], cwd=ROOT, **streams)


def test_lines_in_order():
    reading, writing = os.pipe()
    log = LineLog(writing)
    for number in range(1000):
        log.write(b"%d\n" % number)
    assert log.close(60)
    assert os.read(reading, 65536) == b"".join(b"%d\n" % number for number in range(1000))
    os.close(reading)
    os.close(writing)


def test_nobody_waits_for_a_reader_and_what_is_lost_is_counted(monkeypatch):
    monkeypatch.setattr(line_log, "MAX_WAITING_BYTES", 100000)
    reading, writing = os.pipe()
    lost = []
    log = LineLog(writing, lost.append)
    for _ in range(1000):
        log.write(LINE)
    assert not log.close(0)
    assert 700 < sum(lost) <= 920              # a pipe takes 64 KiB; so many more wait
    written = 0
    while written < 1000 - sum(lost):          # somebody reads at last
        written += os.read(reading, 65536).count(b"\n")
    assert log.close(60)
    os.close(reading)
    log.write(LINE)                            # now nobody ever will
    assert log.close(60) and sum(lost) == 1001 - written
    os.close(writing)


def test_logging_goes_through_it():
    reading, writing = os.pipe()
    log = LineLog(writing)
    LineLogHandler(log).emit(logging.LogRecord("serving", logging.INFO, "", 0, "version %d 服务", (7,), None))
    assert log.close(60)
    assert os.read(reading, 65536).decode() == "version 7 服务\n"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("descriptor", [1, 2])
def test_a_library_that_writes_past_everything_does_not_wait_either(descriptor):
    process = start("os.write(%d, b'x' * (1 << 20)); os.write(output, b'done')" % descriptor,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.wait(60) == 0           # nobody has read until now
        assert process.stdout.read() == b"done"
        assert len(process.stderr.read()) > 60000
    finally:
        process.kill()
        process.communicate()


def test_last_words_are_read_when_the_process_has_aborted():
    process = start("os.write(2, b'first\\n'); os.write(1, b'last words'); os.abort()",
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.communicate(timeout=60) == (b"", b"first\nlast words")
    assert process.returncode < 0


def test_a_file_is_written_to_directly(tmp_path):
    with open(str(tmp_path / "log"), "wb") as log:
        assert start("assert os.path.samestat(os.fstat(2), os.stat(%r))" % log.name, stderr=log).wait(60) == 0


def test_what_is_relayed_and_lost_is_told(monkeypatch):
    monkeypatch.setattr(line_log, "MAX_WAITING_BYTES", 100000)
    monkeypatch.setattr(line_log, "PIECE_BYTES", len(LINE))
    monkeypatch.setattr(LineLog.close, "__defaults__", (60,))
    (source, writing), (reading, target) = os.pipe(), os.pipe()
    relaying = threading.Thread(target=relay_pieces, args=(source, target))
    relaying.start()
    for _ in range(1000):                      # ends, though nobody reads
        os.write(writing, LINE)
    os.close(writing)
    found, told = b"", 0
    while found.count(b"x\n") + told < 1000:   # lines may follow what is told, if the relay is slow
        found += os.read(reading, 65536)
        told = sum(map(int, re.findall(rb"(?m)^(\d+) lines were lost here, since nobody read them$", found)))
    relaying.join()
    assert told > 700 and found.count(b"x\n") + told == 1000
    os.close(reading)
    os.close(target)
    os.close(source)
