import dataclasses
import functools
import math
import os
import pickle
import re
import socket
import subprocess
import sys
import time

import pytest

from etl.beam import pipeline
from etl.beam.cluster import RunnerConfig
from etl.beam.pipeline import run_map
from etl.building.sources import FileRange
from etl.common.command_line import UserError
from etl.common.files import read_json

ONE_PROCESS = RunnerConfig("DirectRunner", 1)


def keep(path, element):
    with open(path, "w") as stream:
        stream.write(repr(element))


def touch(folder, name):
    with open(os.path.join(folder, name), "a") as stream:
        stream.write("x")


def refuse(element):
    raise UserError("语料.txt: line %d: \"bad\" <b>\\ 'record'" % element)


def fill_disk(element):
    raise OSError(28, "No space left on device", "out/x")


def blunder(element):
    raise ZeroDivisionError("our own mistake")


def test_every_element_is_seen(tmp_path):
    names = ["%d" % number for number in range(20)]
    run_map("Touch", functools.partial(touch, str(tmp_path)), names, ONE_PROCESS)
    assert sorted(os.listdir(str(tmp_path))) == sorted(names)
    assert (tmp_path / "7").read_text() == "x"


def test_no_elements(tmp_path):
    run_map("Touch", functools.partial(touch, str(tmp_path)), [], ONE_PROCESS)
    assert os.listdir(str(tmp_path)) == []


def test_a_users_mistake_comes_back_word_for_word():
    with pytest.raises(UserError) as error:
        run_map("Refuse", refuse, [3], ONE_PROCESS)
    assert str(error.value) == "语料.txt: line 3: \"bad\" <b>\\ 'record'"


def test_a_full_disk_comes_back_as_an_error_of_the_system():
    with pytest.raises(OSError, match="^No space left on device: out/x$"):
        run_map("Fill", fill_disk, [1], ONE_PROCESS)


def test_our_own_mistake_stays_an_error():
    with pytest.raises(Exception) as error:
        run_map("Blunder", blunder, [1], ONE_PROCESS)
    assert not isinstance(error.value, UserError)
    assert "our own mistake" in str(error.value)


# With several workers a function must be one that another process can import: not of this file.
@pytest.fixture
def two_processes(tmp_path):
    return RunnerConfig("DirectRunner", 2, str(tmp_path / "workers.log"))


def test_every_element_is_seen_by_processes(tmp_path, two_processes, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")             # a proxy that does not answer
    run_map("Make", os.mkdir, [str(tmp_path / "made") + str(number) for number in range(9)], two_processes)
    assert sorted(set(os.listdir(str(tmp_path))) - {"workers.log"}) == [
        "made%d" % number for number in range(9)]


@pytest.mark.parametrize("function, element, kind, message", [
    (read_json, "语料 <b>\\.json", UserError, "语料 <b>\\.json: no such file"),
    (read_json, "\udcff.json", UserError, "\\udcff.json: no such file"),
    (os.rmdir, "gone", OSError, "No such file or directory: gone"),
])
def test_what_a_process_raised_comes_back_word_for_word_and_alone(two_processes, capfd, function, element,
                                                                  kind, message):
    with pytest.raises(kind) as error:
        run_map("Refuse", function, [element], two_processes)
    assert str(error.value) == message
    assert capfd.readouterr() == ("", "")
    with open(two_processes.log_path) as log:
        assert "Traceback" in log.read()


def test_our_own_mistake_in_a_process_stays_an_error(two_processes):
    with pytest.raises(RuntimeError, match="math domain error"):
        run_map("Blunder", math.sqrt, [-1], two_processes)


def test_a_dead_worker_is_an_error_of_the_system(two_processes, capfd):
    with pytest.raises(OSError) as error:
        run_map("Exit", os._exit, [3], two_processes)
    assert str(error.value) == (
        "a worker process died: killed, or out of memory. Run the same command again to resume the build; "
        "fewer --direct_num_workers need less memory. Log of the workers: "
        + two_processes.log_path)
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_died_before_anybody_looked(two_processes, monkeypatch):
    monkeypatch.setattr(pipeline, "_count_children", lambda parent: 1)
    monkeypatch.setattr(pipeline, "POLL_SECONDS", 0.1)
    with pytest.raises(OSError, match="^a worker process died: killed, or out of memory"):
        run_map("Sleep", time.sleep, [60], two_processes)


def test_workers_that_go_one_after_the_other_at_the_end_have_not_died(monkeypatch):
    counts = [9] + [count for count in range(8, 0, -1) for _ in range(3)]      # three looks for each to go
    monkeypatch.setattr(pipeline.select, "select", lambda *_: ([], [], []) if counts else (["said"], [], []))
    monkeypatch.setattr(pipeline, "_count_children", lambda parent: counts.pop(0))
    process = subprocess.Popen(["true"], stdout=subprocess.PIPE)
    pipeline._watch(process, RunnerConfig("DirectRunner", 9))
    process.communicate()


def test_beams_own_process_dies(two_processes, monkeypatch):
    monkeypatch.setattr(pipeline, "_watch", lambda process, config: process.kill())
    with pytest.raises(OSError, match="^the process that runs Beam died: killed, or out of memory. Run the "
                       "same command again to resume"):
        run_map("Sleep", time.sleep, [60], two_processes)


def test_no_worker_has_started(two_processes, monkeypatch):
    monkeypatch.setattr(pipeline, "START_SECONDS", 1)
    monkeypatch.setattr(pipeline, "_count_children", lambda parent: 0)
    with pytest.raises(OSError,
                       match="^no worker process has started within 1 seconds. Beam's log: .*workers.log$"):
        run_map("Sleep", time.sleep, [60], two_processes)


def test_pythons_path_may_hold_a_blank(tmp_path, two_processes, monkeypatch):
    environment = tmp_path / "with blank"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(sys.executable)
    (environment / "lib").symlink_to(os.path.join(sys.prefix, "lib"))
    (environment / "pyvenv.cfg").write_bytes(open(os.path.join(sys.prefix, "pyvenv.cfg"), "rb").read())
    monkeypatch.setattr(sys, "executable", str(environment / "bin" / "python"))
    monkeypatch.setattr(pipeline, "START_SECONDS", 10)
    run_map("Make", os.mkdir, [str(tmp_path / "made")], two_processes)
    assert (tmp_path / "made").exists()


def unshared(element):
    raise AssertionError("called for %s" % element)


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    gone = str(tmp_path / "gone")
    with pytest.raises(UserError) as error:
        run_map("Refuse", unshared, [1], RunnerConfig("DirectRunner", 1, shared_folder=gone))
    assert str(error.value) == ("--output_dir: %s is not there for the worker on host %s; it must be on a "
                                "file system that all hosts share, under the same path"
                                % (gone, socket.gethostname()))


def test_on_a_cluster_the_systems_error_names_the_host(tmp_path):
    with pytest.raises(OSError, match=r"^No space left on device: out/x \(on host %s\)$"
                       % re.escape(socket.gethostname())):
        run_map("Fill", fill_disk, [1], RunnerConfig("DirectRunner", 1, shared_folder=str(tmp_path)))


@pytest.mark.parametrize("element, arrives", [
    ("语料 \udcff", "语料 \udcff"), (("train", 7), ["train", 7]),
    ((3, FileRange(1, "\udcff.txt", 0, None, 7)), [3, [1, "\udcff.txt", 0, None, 7]])])
def test_elements_travel_as_json(tmp_path, element, arrives):
    run_map("Keep", functools.partial(keep, str(tmp_path / "arrived")), [element], ONE_PROCESS)
    assert (tmp_path / "arrived").read_text() == repr(arrives)


# An engine that needs no Java: Beam's own job service, in a process of its own.
@pytest.fixture
def engine(tmp_path, job_service, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")             # a proxy that does not answer
    return RunnerConfig("PortableRunner", 1, str(tmp_path / "workers.log"),
                        ("--job_endpoint=" + job_service, "--environment_type=LOOPBACK",
                         "--job_server_timeout=200"), str(tmp_path))


def test_every_element_is_seen_by_an_engine(tmp_path, engine, capfd):
    run_map("Make", os.mkdir, [str(tmp_path / "made") + str(number) for number in range(9)], engine)
    assert sorted(set(os.listdir(str(tmp_path))) - {"workers.log"}) == [
        "made%d" % number for number in range(9)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("function, element, kind, message", [
    (read_json, "语料 <b>'x'.json", UserError, "语料 <b>'x'.json: no such file$"),
    (os.rmdir, "gone", OSError, r"No such file or directory: gone \(on host .*\)$"),
    (math.sqrt, -1, OSError,
     "the job failed: .* Run the same command again to resume the build. Beam's log: .*workers.log$"),])
def test_what_a_worker_of_an_engine_raised_comes_back(engine, capfd, function, element, kind, message):
    with pytest.raises(kind) as error:
        run_map("Refuse", function, [element], engine)
    assert re.match(message, str(error.value)) and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_an_engine_that_has_gone(engine, job_service):
    gone = dataclasses.replace(engine, options=("--job_endpoint=127.0.0.1:9", "--environment_type=LOOPBACK",
                                                "--job_server_timeout=1"))
    with pytest.raises(OSError, match="^the job failed: .* Beam's log: "):
        run_map("Make", os.mkdir, ["x"], gone)


def test_no_other_user_reads_what_an_engine_told(tmp_path, engine):
    run_map("Make", os.mkdir, [str(tmp_path / "made")], engine)
    assert os.stat(engine.log_path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("entry, request_", [
    ("from etl.beam.worker import main; main(['--listen', '127.0.0.1:0'])", None),
    ("from etl.beam.pipeline import answer; answer()", ("Label", print, [1], ONE_PROCESS)),
])
def test_grpc_comes_without_its_handler_for_forks_where_workers_are_started(entry, request_):
    code = """if True:
        import os, sys
        class Watch:
            def find_spec(self, name, *_):
                if name == "grpc":
                    print("grpc with", os.environ.get("GRPC_ENABLE_FORK_SUPPORT"), file=sys.stderr, flush=True)
        sys.meta_path.insert(0, Watch())
        """ + entry
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environment, start_new_session=True)
    pickle.dump(request_, process.stdin)
    process.stdin.flush()                      # and open: its end tells `answer` that nobody waits
    try:
        assert process.stderr.readline().decode() == "grpc with 0\n"
    finally:
        process.kill()
        process.communicate()
