import os

import pytest
from mistakes import message_of

from serving.service import trusted_folders


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "models" / "lcqmc"
    made.mkdir(parents=True)
    return made


def test_a_folder_of_this_user_may_be_named(folder):
    trusted_folders.require(str(folder), [])
    os.chmod(str(folder.parent), 0o1777)           # as /tmp is
    trusted_folders.require(str(folder), [])


@pytest.mark.parametrize("opened, mode", [("lcqmc", 0o777), ("lcqmc", 0o1777), (".", 0o777)])
def test_what_everybody_can_write_to_may_not(folder, opened, mode):
    path = os.path.normpath(os.path.join(str(folder.parent), opened))
    os.chmod(path, mode)
    said = message_of(trusted_folders.require, str(folder), [str(folder.parent / "other")])
    assert said.startswith("%s: other users can write to %s, so it" % (folder, path))
    trusted_folders.require(str(folder), ["/nowhere", str(folder.parent)])


def test_nor_may_what_belongs_to_another_user(folder, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    owner = os.stat(str(folder)).st_uid
    if owner == 0:
        os.chown(str(folder), 54321, -1)
    assert "other users can write to" in message_of(trusted_folders.require, str(folder), [])


def test_a_link_counts_as_what_it_leads_to(folder):
    os.chmod(str(folder), 0o777)
    os.symlink(str(folder), str(folder.parent / "link"))
    assert message_of(trusted_folders.require, str(folder.parent / "link"), [])


def test_a_folder_that_is_not_there(folder):
    with pytest.raises(OSError):
        trusted_folders.require(str(folder / "x"), [])
