import os
import stat

import pytest

from etl.beam import socket_folder as module
from etl.beam.socket_folder import socket_folder
from etl.common.command_line import UserError


@pytest.fixture
def tmpdir_is(monkeypatch):
    return lambda path: monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(path))


def test_no_other_user_enters_the_folder_and_it_goes():
    before = os.umask(0)
    try:
        with socket_folder() as folder:
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700 and os.listdir(folder) == []
    finally:
        os.umask(before)
    assert not os.path.exists(folder)


def test_a_temporary_folder_with_too_long_a_path(tmp_path, tmpdir_is):
    (tmp_path / ("x" * 90)).mkdir()
    tmpdir_is(tmp_path / ("x" * 90))
    with socket_folder() as folder:
        assert os.path.dirname(folder) == "/tmp"
    assert os.listdir(str(tmp_path / ("x" * 90))) == []


def test_no_folder_for_short_lived_files_but_one_with_too_long_a_path(tmp_path, tmpdir_is, monkeypatch):
    (tmp_path / ("x" * 90)).mkdir()
    tmpdir_is(tmp_path / ("x" * 90))
    make = module.tempfile.mkdtemp
    monkeypatch.setattr(module.tempfile, "mkdtemp", lambda prefix, dir: make(prefix=prefix, dir="/proc/self"
                                                                             if dir == "/tmp" else dir))
    with pytest.raises(UserError, match="^TMPDIR: no Unix socket can be made in /.*: AF_UNIX path too long"):
        with socket_folder():
            pass


def test_no_folder_takes_sockets(tmp_path, tmpdir_is, monkeypatch):
    tmpdir_is(tmp_path)
    monkeypatch.setattr(module, "_why_no_socket", lambda path: "Operation not permitted")
    with pytest.raises(UserError) as error, socket_folder():
        pass
    assert (str(error.value) == "TMPDIR: no Unix socket can be made in %s: Operation not permitted; name "
            "another folder" % tmp_path)
    assert os.listdir(str(tmp_path)) == []
