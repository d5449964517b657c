import logging
import os

from serving.service import line_log
from serving.service.line_log import LineLog, LineLogHandler

LINE = b"x" * 999 + b"\n"


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
    assert 700 < sum(lost) <= 900              # a pipe takes 64 KiB; so many more wait
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
