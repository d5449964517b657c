import grp
import os
import pwd
import types

import pytest
from mistakes import message_of

from etl.common.command_line import UserError
from serving.service import trusted_folders


@pytest.fixture
def folder(tmp_path):
    """A model's folder, with one version in it."""
    made = tmp_path / "models" / "lcqmc"
    (made / "7" / "variables").mkdir(parents=True)
    (made / "7" / "saved_model.pb").write_bytes(b"")
    return made


def refused(folder, *roots):
    """What can be written to by others; None if nothing is."""
    try:
        trusted_folders.require(str(folder), list(map(str, roots)))
    except UserError as error:
        return str(error).split("other users can write to ")[1].split(", so it can only be given at st")[0]
    return None


def test_a_folder_of_this_user_may_be_named(folder):
    trusted_folders.require(str(folder), [])
    os.chmod(str(folder.parent), 0o1777)           # as /tmp is
    trusted_folders.require(str(folder), [])


@pytest.mark.parametrize("opened, mode", [
    ("lcqmc", 0o777), ("lcqmc", 0o1777), (".", 0o777), ("lcqmc/7", 0o1777), ("lcqmc/7/variables", 0o757),
    ("lcqmc/7/saved_model.pb", 0o646)])
def test_what_everybody_can_write_to_may_not(folder, opened, mode):
    path = os.path.normpath(os.path.join(str(folder.parent), opened))
    os.chmod(path, mode)
    said = message_of(trusted_folders.require, str(folder), [str(folder.parent / "other")])
    assert said == "%s: other users can write to %s, so it can only be given at startup" % (folder, path)
    trusted_folders.require(str(folder), ["/nowhere", str(folder.parent)])


def test_what_is_no_version_does_not_matter(folder):
    (folder / "uploads").mkdir()
    os.chmod(str(folder / "uploads"), 0o777)
    trusted_folders.require(str(folder), [])


@pytest.mark.parametrize("group, users, is_refused", [
    ([], [], True), ([], ["me"], False), (["me"], [], False), (["root"], ["me"], False), (["wang"], [], True),
    ([], ["me", "wang"], True), (["gone"], ["me"], True), (None, [], True)])
@pytest.mark.parametrize("opened", [".", "7/saved_model.pb"])
def test_a_group_with_somebody_else_in_it_may_not_write_either(folder, monkeypatch, group, users, is_refused,
                                                               opened):
    """The group has these members, and is these users' own; None: there is no such group."""
    def members(number):
        if group is None:
            raise KeyError
        return types.SimpleNamespace(gr_mem=group)
    path = os.path.normpath(str(folder / opened))
    os.chmod(path, 0o775)
    number = os.stat(path).st_gid
    accounts = [("root", 0, number + 1), ("me", os.geteuid(), number + 1), ("wang", 12345, number + 1)]
    monkeypatch.setattr(grp, "getgrgid", members)
    monkeypatch.setattr(pwd, "getpwall", lambda: [
        types.SimpleNamespace(pw_name=name, pw_uid=user, pw_gid=number if name in users else gid)
        for name, user, gid in accounts])
    assert refused(folder) == (path if is_refused else None)


def test_an_access_list_may_name_anybody(folder, monkeypatch):
    monkeypatch.setattr(grp, "getgrgid", lambda number: types.SimpleNamespace(gr_mem=["root"]))
    monkeypatch.setattr(pwd, "getpwall", lambda: [types.SimpleNamespace(pw_name="root", pw_uid=0, pw_gid=0)])
    os.chmod(str(folder), 0o775)
    assert refused(folder) is None
    monkeypatch.setattr(os, "listxattr", lambda path: ["system.posix_acl_access"])
    assert refused(folder) == str(folder)


@pytest.mark.parametrize("owned", [".", "7", "7/saved_model.pb"])
def test_nor_may_what_belongs_to_another_user(folder, monkeypatch, owned):
    path, stat = os.path.normpath(str(folder / owned)), os.lstat
    monkeypatch.setattr(os, "lstat", lambda name: types.SimpleNamespace(
        st_uid=12345 if name == path else os.geteuid(), st_gid=0, st_mode=stat(name).st_mode))
    assert refused(folder) == path


def test_a_link_counts_as_what_it_leads_to(folder):
    os.chmod(str(folder), 0o777)
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert refused(link) == str(folder)


def test_nobody_else_may_lead_a_link_elsewhere(folder, tmp_path):
    link = tmp_path / "shared" / "link"
    link.parent.mkdir()
    link.symlink_to(folder)
    trusted_folders.require(str(link), [])
    os.chmod(str(link.parent), 0o777)
    assert refused(link) == str(link.parent)
    trusted_folders.require(str(link), [str(folder.parent), str(link.parent)])


def test_a_version_s_links_count_too(folder, tmp_path):
    shared = tmp_path / "shared"
    (shared / "8").mkdir(parents=True)
    (folder / "8").symlink_to("../../shared/8")
    (folder / "7" / "model").symlink_to(folder / "7" / "saved_model.pb")
    (folder / "7" / "dangling").symlink_to(folder / "nothing")
    (folder / "7" / "loop").symlink_to(folder / "7")
    trusted_folders.require(str(folder), [])
    os.chmod(str(shared), 0o777)
    assert refused(folder) == str(shared)
    trusted_folders.require(str(folder), [str(folder)])        # whoever writes there was trusted at startup


def test_a_link_that_leads_nowhere(folder):
    (folder.parent / "a").symlink_to("b")
    (folder.parent / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        trusted_folders.require(str(folder.parent / "a"), [])


def test_too_many_files_to_look_at(folder, monkeypatch):
    monkeypatch.setattr(trusted_folders, "MAX_FILES", 2)
    assert "its versions hold more than 2 files" in message_of(trusted_folders.require, str(folder), [])


def test_a_folder_that_is_not_there(folder):
    with pytest.raises(OSError):
        trusted_folders.require(str(folder / "x"), [])
