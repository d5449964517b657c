"""Real processes: shells that trap, wait and start others."""
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from estimator.launching import processes
from estimator.launching.processes import End, Launch, Start

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PATIENCE = 60.0

HEEDS = ("trap 'echo \"Stopped by SIGTERM after step 3\"; exit 0' TERM; echo ready; "
         "while :; do sleep 0.05; done")
IGNORES = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
# Starts one process in its own group, and one that cuts its ties; both ignore whatever can be ignored.
STARTS_OTHERS = ("trap '' TERM HUP INT; (while :; do sleep 0.05; done) & "
                 "setsid sh -c 'while :; do sleep 0.05; done' & echo ready; wait")


def starts(folder, *scripts):
    return [Start("rank %d" % number, ["bash", "-c", script], dict(os.environ, NUMBER=str(number)),
                  str(folder / "logs" / str(number) / "log")) for number, script in enumerate(scripts)]


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def said(folder, number):
    path = folder / "logs" / str(number) / "log"
    return path.read_text() if path.exists() else ""


def signal_when_ready(folder, count, *numbers):
    """Sends signals to this process, one after the other, once the first `count` have said that they are
    ready."""
    def send():
        until(lambda: all("ready" in said(folder, number) for number in range(count)))
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)
    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path):
    before = own_children()                    # of other tests in this process: Python's own helpers
    yield
    assert set(own_children()) <= set(before)


def runs(process):
    """A process that has ended and that nobody has waited for does not."""
    try:
        with open("/proc/%s/stat" % process) as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def own_children():
    with open("/proc/self/task/%d/children" % os.getpid()) as stream:
        return stream.read().split()


def test_each_gets_its_environment_and_log_and_all_come_to_their_end(tmp_path):
    launch = starts(tmp_path, 'echo "number $NUMBER"; echo error >&2', 'echo "number $NUMBER"')
    assert Launch(launch, 5).run() == End(0)
    assert (said(tmp_path, 0), said(tmp_path, 1)) == ("number 0\nerror\n", "number 1\n")


def test_each_keeps_to_its_cores(tmp_path):
    core = min(os.sched_getaffinity(0))
    start = starts(tmp_path, "taskset -cp $$")[0]._replace(cores=[core])
    assert Launch([start], 5).run() == End(0) and said(tmp_path, 0).rstrip().endswith(": %d" % core)


def test_the_first_that_fails_stops_all_even_those_that_will_not(tmp_path):
    launch = starts(tmp_path, IGNORES, "echo gave up; exit 7", STARTS_OTHERS)
    assert Launch(launch, 0.3).run() == End(7, launch[1])


def test_one_that_is_killed_has_a_shells_status(tmp_path):
    launch = starts(tmp_path, HEEDS, "kill -9 $$")
    assert Launch(launch, 30).run() == End(137, launch[1])


def test_a_signal_lets_the_first_save_and_then_kills_the_others(tmp_path):
    thread = signal_when_ready(tmp_path, 3, signal.SIGINT)
    begin = time.monotonic()
    assert Launch(starts(tmp_path, HEEDS, IGNORES, STARTS_OTHERS), 1000).run() == End(130)
    thread.join()
    assert said(tmp_path, 0).endswith("Stopped by SIGTERM after step 3\n")
    assert time.monotonic() - begin < PATIENCE


def test_the_second_signal_does_not_wait(tmp_path):
    thread = signal_when_ready(tmp_path, 1, signal.SIGTERM, signal.SIGTERM)
    assert Launch(starts(tmp_path, IGNORES), 1000).run() == End(143)
    thread.join()


def test_a_trainer_that_somebody_else_has_stopped_is_not_at_its_end(tmp_path):
    launch = starts(tmp_path, "echo 'Stopped by SIGTERM after step 3'")
    assert Launch(launch, 5).run() == End(143, launch[0])


def test_what_a_process_leaves_behind_at_its_good_end_goes_too(tmp_path):
    script = "setsid sh -c 'echo $$; while :; do sleep 0.05; done' & sleep 0.3"
    assert Launch(starts(tmp_path, script), 5).run() == End(0)
    assert not runs(said(tmp_path, 0).strip())


# Runs a launch of the scripts that follow, and says under which mark.
LAUNCHER = """
import os, pathlib, sys, test_processes
from estimator.launching import processes
launch = processes.Launch(test_processes.starts(pathlib.Path(sys.argv[1]), *sys.argv[2:]), 1000)
print(launch._mark, flush=True)
launch.run()
"""


@pytest.mark.parametrize("also", [False, True])
def test_nothing_outlives_a_launcher_that_is_killed(tmp_path, also):
    """`also`: the keeper is killed just before, so that the kernel alone sees to the ranks."""
    path = os.pathsep.join([ROOT, os.path.dirname(os.path.abspath(__file__))])
    scripts = [IGNORES, IGNORES if also else STARTS_OTHERS]
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path), *scripts],
                                env=dict(os.environ, PYTHONPATH=path), stdout=subprocess.PIPE,
                                universal_newlines=True)
    mark = launcher.stdout.readline().strip()
    until(lambda: "ready" in said(tmp_path, 0) and "ready" in said(tmp_path, 1))
    assert len(processes.bearing(mark)) >= 2
    if also:
        with open("/proc/%d/task/%d/children" % (launcher.pid, launcher.pid)) as stream:
            keeper, = [child for child in map(int, stream.read().split())
                       if child not in processes.bearing(mark)]
        os.kill(keeper, signal.SIGKILL)
    launcher.kill()
    launcher.communicate()
    # of a shell that the kernel has killed, a sleep may be left for a moment
    until(lambda: not processes.bearing(mark))


def test_the_last_lines_of_a_log(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"one\n\xff two\r\nthree\n\n")
    assert processes.last_lines(str(log), 2) == ["\ufffd two", "three"]
    assert processes.last_lines(str(tmp_path / "none"), 2) == []
