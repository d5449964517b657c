import re
import threading

import pytest

from etl.common import progress_line as module
from etl.common.progress_line import clock, progress_line


@pytest.mark.parametrize("seconds, shown", [
    (0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (65, "1:05"), (3599.7, "1:00:00"), (3725, "1:02:05"),
    (360000, "100:00:00")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def watch(monkeypatch, measurements):
    """Runs a block under `progress_line` until each of the measurements was taken and shown."""
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.001)
    left, shown = list(measurements), threading.Event()

    def measure():
        if len(left) == 1:
            shown.set()
            return left[0]
        return left.pop(0)

    with progress_line("samples", 4_000_000, measure):
        assert shown.wait(60)


def test_a_line_with_rate_and_remaining_time(monkeypatch, capsys):
    watch(monkeypatch, [(0, ""), (1_000_000, "5,120 samples"), (2_000_000, "done")])
    first = capsys.readouterr().err.split("\n")[0]
    assert re.fullmatch(r"samples: 1\.0 of 4\.0 MB, \d+\.\d\d MB/s, 5,120 samples, \d+:\d\d left", first)


def test_without_progress_there_is_no_guess(monkeypatch, capsys):
    watch(monkeypatch, [(1_000_000, ""), (1_000_000, "0 samples"), (1_000_000, "0 samples")])
    assert "samples: 1.0 of 4.0 MB, 0.00 MB/s, 0 samples\n" in capsys.readouterr().err


def test_nothing_new_no_line(monkeypatch, capsys):
    watch(monkeypatch, [(0, "")] + [(1_000_000, "5 samples")] * 20 + [(2_000_000, "9 samples")] * 2)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[2] for line in lines] in (["5 samples"], ["5 samples", "9 samples"])


def test_a_quick_block_prints_nothing(capsys):
    with progress_line("samples", 1, lambda: (0, "")):
        pass
    assert capsys.readouterr().err == ""


def test_errors_pass_through_and_the_thread_ends():
    before = threading.active_count()
    with pytest.raises(KeyError):
        with progress_line("samples", 1, lambda: (0, "")):
            raise KeyError("x")
    assert threading.active_count() == before
