import socket
import subprocess
import sys

import pytest

from etl.beam.worker import WorkerConfig, main


@pytest.mark.parametrize("flags", [{}, {"id": "1"},
                                   {"listen": "127.0.0.1:1", "id": "1", "provision_endpoint": "x:1"}])
def test_a_worker_or_a_pool(flags):
    with pytest.raises(ValueError, match="^give either listen, or both id and provision_endpoint$"):
        WorkerConfig(**flags)


def test_a_token_is_for_a_pool():
    with pytest.raises(ValueError, match="^token_file is for listen$"):
        WorkerConfig(id="1", provision_endpoint="x:1", token_file="token")


def test_a_pool_as_a_command():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % free.getsockname()[1]
    pool = subprocess.Popen([sys.executable, "-m", "etl.beam.worker", "--listen", address],
                            stdout=subprocess.PIPE)
    try:
        assert pool.stdout.readline().decode() == "Starting workers on request at %s\n" % address
        pool.terminate()
        assert pool.wait(100) == 0
    finally:
        pool.kill()
        pool.communicate()


def test_a_worker_to_whom_nobody_answers_ends():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        command = [sys.executable, "-m", "etl.beam.worker", "--id", "1", "--provision_endpoint",
                   "127.0.0.1:%d" % nobody.getsockname()[1]]
        assert subprocess.run(command, stderr=subprocess.PIPE, timeout=100).returncode == 1


def test_a_port_alone_is_no_address():
    with pytest.raises(ValueError, match="^listen must be HOST:PORT, got 50000$"):
        WorkerConfig(listen="50000")


def test_bad_flags_are_one_line(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert (capsys.readouterr().err
            == "etl.beam.worker: error: give either listen, or both id and provision_endpoint (see --help)\n")
