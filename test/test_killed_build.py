"""Builds in real processes that are killed: the same command then gives the same bytes."""
import contextlib
import glob
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from etl.build_pretrain import main
from job_service import job_service

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLE = os.path.join(ROOT, "etl", "sample", "*.txt")


def flags(folder, name, workers):
    return ["--input_file", SAMPLE, "--output_dir", str(folder / name), "--max_seq_length", "64",
            "--dupe_factor", "2",
            "--range_bytes", "7000", "--num_shards", "2", "--direct_num_workers", str(workers)]


def hashes(folder, name):
    return {os.path.relpath(path, str(folder / name)): hashlib.sha256(open(path, "rb").read()).hexdigest()
            for path in glob.glob(str(folder / name / "**" / "*.tfrecord"), recursive=True)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(flags(folder, "out", 1)) == 0
    return hashes(folder, "out")


def start(folder, workers=2, engine=()):
    """Starts a build, and waits until it has finished a few chunks and is at work on others."""
    build = subprocess.Popen([sys.executable, "-m", "etl.build_pretrain"] + flags(folder, "out", workers)
                             + list(engine), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    while len(glob.glob(str(folder / "out" / ".work" / "*" / "chunks" / "*.json"))) < 3:
        assert build.poll() is None, build.communicate()
        time.sleep(0.02)
    return build


def workers_of(process):
    """Processes below `process` that run a worker."""
    parent_of = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path) as stream:
            parent_of[int(path.split("/")[2])] = int(stream.read().rsplit(")", 1)[1].split()[1])
    return [child for child in parent_of if is_below(child, process, parent_of)
            and "etl.beam.worker" in command_of(child)]


def is_below(child, process, parent_of):
    while child in parent_of:
        child = parent_of[child]
        if child == process:
            return True
    return False


def command_of(process):
    """The program and its arguments; nothing for a shell around it, a dead process or a zombie."""
    with contextlib.suppress(OSError), open("/proc/%d/cmdline" % process) as stream:
        command = stream.read().replace("\0", " ")
        return "" if command.startswith("/bin/sh") else command
    return ""


def test_a_killed_worker_ends_the_build_and_the_same_command_completes_it(tmp_path, undisturbed):
    build = start(tmp_path)
    os.kill(workers_of(build.pid)[0], signal.SIGKILL)
    _, errors = build.communicate(timeout=200)
    assert build.returncode == 1
    assert_one_line(errors, "error: a worker process died")
    assert hashes(tmp_path, "out") == {} and os.listdir(str(tmp_path / "out")) == [".work"]
    assert main(flags(tmp_path, "out", 1)) == 0
    assert hashes(tmp_path, "out") == undisturbed


def test_after_the_driver_was_killed_its_workers_go_and_the_same_command_completes_the_build(
        tmp_path, undisturbed, monkeypatch):
    meeting_place = tmp_path / "tmp"
    meeting_place.mkdir()
    monkeypatch.setenv("TMPDIR", str(meeting_place))
    build = start(tmp_path)
    assert list(meeting_place.glob("etl-*/1"))
    workers = workers_of(build.pid)
    build.kill()
    build.communicate(timeout=200)
    assert len(workers) == 2
    await_the_end_of(workers)
    assert list(meeting_place.glob("etl-*")) == []
    assert hashes(tmp_path, "out") == {}
    assert main(flags(tmp_path, "out", 1)) == 0
    assert hashes(tmp_path, "out") == undisturbed


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
# SIGTERM is not caught: it ends the driver as SIGKILL does, above.
@pytest.mark.parametrize("end, status, line", [
    (signal.SIGINT, 130, "interrupted"),
    pytest.param(signal.SIGTERM, -signal.SIGTERM, None, marks=pytest.mark.slow)])
def test_an_interrupted_build_says_one_line_leaves_no_worker_and_goes_on(tmp_path, undisturbed, workers, end,
                                                                         status, line):
    build = start(tmp_path, workers)
    processes = workers_of(build.pid)
    build.send_signal(end)
    _, errors = build.communicate(timeout=200)
    assert build.returncode == status
    assert_one_line(errors, line)
    await_the_end_of(processes)
    assert main(flags(tmp_path, "out", 1)) == 0
    assert hashes(tmp_path, "out") == undisturbed


@pytest.mark.parametrize("end, status, line",
                         [(signal.SIGINT, 130, "interrupted"), (signal.SIGKILL, -signal.SIGKILL, None)])
def test_a_build_on_an_engine_that_ends_takes_its_job_back_and_another_runner_goes_on(
        tmp_path, undisturbed, end, status, line):
    with job_service(str(tmp_path)) as address:
        build = start(tmp_path, 0, ["--runner", "PortableRunner", "--job_endpoint", address, "--parallelism",
                                    "1"])
        processes = workers_of(build.pid)
        build.send_signal(end)
        _, errors = build.communicate(timeout=200)
        assert build.returncode == status
        assert_one_line(errors, line)
        assert processes
        await_the_end_of(processes)
    log_path, = glob.glob(str(tmp_path / "out" / ".work" / "*" / "workers.log"))
    with open(log_path) as log:
        assert "The command has ended: cancelling its job" in log.read()
    assert main(flags(tmp_path, "out", 1)) == 0
    assert hashes(tmp_path, "out") == undisturbed


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_no_room_is_one_line_and_keeps_the_work(tmp_path, undisturbed, workers):
    def limit_files():                         # as a full disk, for files of over 20 kB
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    build = subprocess.run([sys.executable, "-m", "etl.build_pretrain"] + flags(tmp_path, "out", workers),
                           cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=limit_files)
    assert build.returncode == 1
    assert_one_line(build.stderr, "error: File too large: %s/out/.work/" % tmp_path)
    assert os.listdir(str(tmp_path / "out")) == [".work"]
    assert main(flags(tmp_path, "out", 1)) == 0
    assert hashes(tmp_path, "out") == undisturbed


def assert_one_line(errors, wanted):
    """`wanted` is in the only line besides progress; None: there is no line."""
    lines = [line for line in errors.decode().splitlines() if not line.startswith(("samples: ", "shards: "))]
    assert len(lines) == (wanted is not None) and all(wanted in line for line in lines), lines


def await_the_end_of(processes):
    deadline = time.time() + 200
    while any(command_of(process) for process in processes):
        assert time.time() < deadline, "workers outlive their driver"
        time.sleep(0.1)
