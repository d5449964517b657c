import fcntl
import hashlib
import os
import re
import threading

import pytest

from etl.common.command_line import UserError
from etl.common.files import (atomic_folder, atomic_write, await_files, expand, expand_sets, fingerprint,
                              free_range,
                              is_temporary, lock, missing_shards, not_utf8, open_regular, read_json,
                              remove_temporary, require_file, require_folder, sha256_of_file, sync_folder,
                              temporary_path, write_json, write_text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.txt", "a.txt", "sub/c.txt", "odd[1].txt"):
        write_text(name, name)
    for name in ("odd1.csv", "odd[1].csv", "x,y.csv"):
        write_text(name, name)
    os.symlink("a.txt", "link.csv")
    return tmp_path


def test_atomic_write_makes_folders_and_leaves_one_file(tmp_path):
    with atomic_write(str(tmp_path / "x" / "y.bin")) as stream:
        stream.write(b"abc")
        assert not (tmp_path / "x" / "y.bin").exists()
    assert os.listdir(str(tmp_path / "x")) == ["y.bin"]
    assert (tmp_path / "x" / "y.bin").read_bytes() == b"abc"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(),
                                   ValueError("x")])
def test_failed_write_keeps_what_was_there(tmp_path, error):
    path = tmp_path / "y.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        with atomic_write(str(path)) as stream:
            stream.write(b"half")
            raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(str(tmp_path)) == ["y.bin"]


def test_failed_sync_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(str(tmp_path / "y.txt"), "abc")
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("path", ["x/vocab.txt", "x", "/y/z/", "语" * 85, "a" * 255, "a\nb", "../link/../y"])
def test_temporary_names_are_new_short_and_known(path):
    names = {os.path.basename(temporary_path(path)) for _ in range(3)}
    assert len(names) == 3
    assert all(is_temporary(name) and len(os.fsencode(name)) < 256 for name in names)
    assert os.path.dirname(temporary_path(path)) == os.path.dirname(path.rstrip("/"))


@pytest.mark.parametrize("name", [
    "notes.tmp", "notes.tmp-12", "checkpoint.tmp0123", "x.chinese-albert-tmp-",
    "x.chinese-albert-tmp-%032X" % (10 << 100), "x.chinese-albert-tmp-%032x.txt" % 0,
    "x.chinese-albert-tmp-%031x" % 0, "x.chinese-albert-tmp-%032x\n" % 0])
def test_names_of_others_are_not_temporary(name):
    assert not is_temporary(name)


def test_only_our_temporary_files_and_folders_go(tmp_path):
    mine, outside = tmp_path / "mine", tmp_path / "outside"
    write_text(str(outside / "kept"), "x")
    write_text(temporary_path(str(mine / "a.txt")), "x")
    write_text(os.path.join(temporary_path(str(mine / "b")), "c.txt"), "x")
    write_text(temporary_path(str(mine / "sub" / "d.txt")), "x")
    write_text(str(mine / "notes.tmp-1"), "x")
    os.symlink(str(outside), temporary_path(str(mine / "link")))
    remove_temporary(str(mine))
    left = sorted(os.listdir(str(mine)))
    assert left[1:] == ["notes.tmp-1", "sub"] and left[0].startswith("link.")
    assert os.listdir(str(outside)) == ["kept"] and len(os.listdir(str(mine / "sub"))) == 1
    remove_temporary(str(tmp_path / "none"))


def test_a_long_name_can_be_written(tmp_path):
    path = str(tmp_path / ("语" * 85))
    write_text(path, "x")
    assert os.listdir(str(tmp_path)) == ["语" * 85]


def test_atomic_folder(tmp_path):
    path = str(tmp_path / "a" / "b")
    with atomic_folder(path, "output_dir") as folder:
        write_json(os.path.join(folder, "x.json"), 1)
        assert not os.path.exists(path)
    assert os.listdir(str(tmp_path / "a")) == ["b"] and os.listdir(path) == ["x.json"]
    with pytest.raises(UserError, match="--output_dir: .* already exists: give a new folder"):
        with atomic_folder(path, "output_dir"):
            pass


def test_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        with atomic_folder(str(tmp_path / "b"), "output_dir") as folder:
            write_json(os.path.join(folder, "x.json"), 1)
            raise KeyError()
    assert os.listdir(str(tmp_path)) == []


def test_json_round_trip_is_readable_and_stable(tmp_path):
    path = str(tmp_path / "x.json")
    write_json(path, {"b": [1, 2.5], "a": "你好"})
    assert open(path, encoding="utf-8").read() == '{\n  "a": "你好",\n  "b": [\n    1,\n    2.5\n  ]\n}\n'
    assert read_json(path) == {"a": "你好", "b": [1, 2.5]}


def test_names_that_are_not_utf8_come_back(tmp_path):
    path = str(tmp_path / "\udcff.json")
    write_json(path, {"path": "语\udce8.txt"})
    assert open(path, "rb").read().decode("utf-8") == '{\n  "path": "语\\udce8.txt"\n}\n'
    assert read_json(path) == {"path": "语\udce8.txt"}


def test_deeply_nested_json(tmp_path):
    (tmp_path / "x.json").write_text("[" * 100000)
    with pytest.raises(UserError,
                       match="x.json: not JSON in UTF-8: lists and objects are nested more than 64 deep"):
        read_json(str(tmp_path / "x.json"))


@pytest.mark.parametrize("content, message", [
    (b"{", "not JSON in UTF-8: Expecting property name"), (b'"\xff"', "not JSON in UTF-8: 'utf-8' codec")])
def test_bad_json_names_the_file(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match="x.json: " + message):
        read_json(str(tmp_path / "x.json"))


def test_missing_json_names_the_file(tmp_path):
    with pytest.raises(UserError, match="x.json: no such file"):
        read_json(str(tmp_path / "x.json"))


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_sha256_of_file(tmp_path, size):
    (tmp_path / "x").write_bytes(b"a" * size)
    assert sha256_of_file(str(tmp_path / "x")) == hashlib.sha256(b"a" * size).hexdigest()


@pytest.mark.parametrize("change", [0, (1 << 20) - 1, 5 << 20, (6 << 20) - 1])
def test_fingerprint_shows_an_edit(tmp_path, change):
    content = bytearray(6 << 20)
    path = tmp_path / "x"
    path.write_bytes(content)
    before = fingerprint(str(path))
    assert before["path"] == str(path) and before["bytes"] == 6 << 20
    content[change] = 1
    path.write_bytes(content)
    assert fingerprint(str(path)) != before


@pytest.mark.parametrize("patterns, found", [
    (["*.txt"], ["a.txt", "b.txt", "odd[1].txt"]),
    (["b.txt", "a.txt"], ["a.txt", "b.txt"]),
    (["b.txt,a.txt"], ["a.txt", "b.txt"]),
    (["a.txt", "?.txt", ""], ["a.txt", "b.txt"]),
    (["odd[1].txt"], ["odd[1].txt"]),
    (["**/c.txt"], ["sub/c.txt"]),
    (["odd[1].csv"], ["odd[1].csv"]),                                  # the name, not odd1.csv
    (["x,y.csv"], ["x,y.csv"]),
    (["?.txt", "link.csv"], ["a.txt", "b.txt"]),
    (["link.csv", "a.txt"], ["link.csv"]),
    (["./b.txt", "sub/../b.txt"], ["b.txt"]),
])
def test_expand(folder, patterns, found):
    assert expand(patterns, "input_file") == found


@pytest.mark.parametrize("paths, missing", [
    (["a-00000-of-00003.txt", "a-00002-of-00003.txt", "b.txt"], ["a-00001-of-00003.txt"]),
    (["a-00001-of-00002", "a-00002-of-00002"], []),
    (["a-00000-of-00001", "x/a-00001-of-00002"], ["x/a-00000-of-00002"]),
    (["a-2-of-3.txt"], []),
])
def test_shards_that_are_missing_from_their_set(paths, missing):
    assert missing_shards(paths) == missing


def test_expand_sets_tells_of_missing_shards(folder, capsys):
    for number in (0, 3):
        write_text("s-%05d-of-00004" % number, "x")
    expand_sets(["s-*"], "input_file")
    assert capsys.readouterr().out == ("Note: --input_file: 2 of a set of shards are not among the files: "
                                       "s-00001-of-00004, ...\n")


def test_absolute_and_relative_name_of_one_file(folder):
    assert expand([str(folder / "a.txt"), "a.txt"], "input_file") == [str(folder / "a.txt")]


@pytest.mark.parametrize("require, path, message", [
    (require_folder, "a.txt", "--out: {folder}/a.txt is a file, not a folder"),
    (require_folder, "a.txt/x/y", "--out: {folder}/a.txt is a file, not a folder"),
    (require_file, "sub", "--out: sub is a folder, not a file"),
    (require_file, "a.txt/x", "--out: {folder}/a.txt is a file, not a folder"),
])
def test_a_file_in_the_place_of_a_folder(folder, require, path, message):
    with pytest.raises(UserError) as error:
        require(path, "out")
    assert str(error.value) == message.format(folder=folder)


def test_places_that_can_be_made(folder):
    for path in ("sub", "new", "sub/new/x", "."):
        require_folder(path, "out")
    for path in ("a.txt", "new", "sub/new/x"):
        require_file(path, "out")


@pytest.mark.parametrize("patterns, message", [
    (["a.txt", "*.tsv"], "--input_file: *.tsv matches no file"),
    (["sub"], "--input_file: sub is a folder, not a file"),
    (["su*"], "--input_file: su* matches no file"),
    ([], "--input_file: no file given"),
    ([","], "--input_file: no file given"),
    (["gs://bucket/*"],
     "--input_file: gs://bucket/*: only paths of a local or shared file system are read; mount or copy it"),])
def test_expand_says_what_is_missing(folder, patterns, message):
    with pytest.raises(UserError) as error:
        expand(patterns, "input_file")
    assert str(error.value) == message


def test_free_range_keeps_what_lies_around(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"a" * (3 << 20))
    before = path.stat()
    free_range(str(path), 1 << 20, 1 << 20)
    after = path.stat()
    content = path.read_bytes()
    assert len(content) == 3 << 20 and content.count(b"a") >= 2 << 20
    assert content[:1 << 20] == content[2 << 20:] == b"a" * (1 << 20)
    assert after.st_blocks in (before.st_blocks,
                               before.st_blocks - (1 << 20) // 512)    # where the file system can


def test_free_range_leaves_a_file_with_a_second_name_alone(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"a" * (1 << 20))
    os.link(str(path), str(tmp_path / "y"))
    free_range(str(path), 0, 1 << 20)
    assert path.read_bytes() == b"a" * (1 << 20)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path),
                                  lambda path: os.symlink("none", path)],
                         ids=["fifo", "device", "link to nothing"])
def test_what_is_no_file_is_not_opened(tmp_path, make):
    path = str(tmp_path / "x")
    make(path)
    for attempt in (lambda: open_regular(path), lambda: open_regular(path, os.O_RDWR),
                    lambda: lock(path, "held").__enter__(), lambda: free_range(path, 0, 1)):
        with pytest.raises(OSError, match="x: must be a regular file, not a link"):
            attempt()
    assert os.listdir(str(tmp_path)) == ["x"]


def test_a_lock_whose_file_was_removed_holds_nothing(tmp_path, monkeypatch):
    path = str(tmp_path / "lock")
    flock, removed = fcntl.flock, []

    def overtaken(stream, how):                # who held it goes just before it is ours
        if not removed:
            removed.append(os.remove(path))
        return flock(stream, how)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with lock(path, "held"):
        with pytest.raises(UserError, match="held"):
            with lock(path, "held"):
                pass


def test_sync_folder(tmp_path):
    sync_folder(str(tmp_path))


@pytest.mark.parametrize("data, message", [
    ("天\n".encode("gb18030"),
     "invalid continuation byte at byte 0xcc; is it GB18030? iconv -f GB18030 -t UTF-8 converts it"),
    ("天\n".encode("utf-32"),
     "invalid start byte at byte 0xff; is it UTF-32? iconv -f UTF-32 -t UTF-8 converts it"),
    ("a京".encode("utf-16-le"),
     "invalid start byte at byte 0xac; it has zero bytes, as UTF-16 and UTF-32 have"),
    ("天\n".encode("utf-16"),
     "invalid start byte at byte 0xff; is it UTF-16? iconv -f UTF-16 -t UTF-8 converts it"),
    ("天".encode("utf-8") + "天\n".encode("gb18030"),
     "invalid continuation byte at byte 0xcc"),    # one damaged place
    (b"\xff\n", "invalid start byte at byte 0xff"),
])
def test_what_bytes_may_be_that_are_no_utf8(data, message):
    with pytest.raises(UnicodeDecodeError) as error:
        data.decode("utf-8")
    assert not_utf8(error.value) == "not UTF-8: " + message


def test_files_of_other_hosts_may_come_late(tmp_path):
    path = tmp_path / "late"
    threading.Timer(0.2, path.touch).start()
    await_files([str(path)], seconds=30)
    assert path.exists()


def test_a_file_that_does_not_come(tmp_path):
    path = str(tmp_path / "never")
    with pytest.raises(OSError, match="^%s: a worker has written it, but it is not visible here: it must be "
                       "on a file system" % re.escape(path)):
        await_files([path], seconds=0.1)
