import os

import pytest

from etl.building.work_files import read_own, read_own_list, remove_work, require_own, work_folders
from etl.common.files import temporary_path, write_json, write_text

OURS = ("chunks/000000.json", "chunks/1234567.json", "histograms/000000.json", "dead_letters/000000.jsonl",
        "candidates/000000.json", "runs/000000-0000.run", "shards/tf_examples-00000-of-00001.tfrecord",
        "shards/tf_examples-00000-of-00001.tfrecord.json",
        "shards/eval/tf_examples-00000-of-00001.tfrecord.extents", "workers.log",
        "random_documents-train.json")
OTHERS = ("notes.txt", "chunks/000000.json~", "chunks/.nfs0001", "runs/000000-0000.run.tmp-1",
          "shards/eval/x.tfrecord", "more/x", "shards/eval/more/tf_examples-00000-of-00001.tfrecord",
          "random_documents-test.json", "runs/chunks/000000.json")


def files_below(folder):
    return sorted(os.path.relpath(os.path.join(parent, name), folder) for parent, _, names in os.walk(folder)
                  for name in names)


def write_all(folder, names):
    for name in names:
        write_text(os.path.join(folder, name), "x")


def test_all_that_is_ours_goes_and_the_folder_with_it(tmp_path):
    folder = str(tmp_path / "work")
    write_all(folder, OURS + tuple(temporary_path(name) for name in OURS))
    require_own(folder)
    remove_work(folder)
    assert os.listdir(str(tmp_path)) == []
    remove_work(folder)


def test_what_is_others_stays(tmp_path):
    folder = str(tmp_path / "work")
    write_all(folder, OURS + OTHERS)
    require_own(folder)
    remove_work(folder)
    assert files_below(folder) == sorted(OTHERS)


@pytest.mark.parametrize("name", ["chunks", "runs", "shards", "shards/eval", ""])
def test_a_link_to_a_folder_is_refused_and_nothing_behind_it_goes(tmp_path, name):
    work, elsewhere = str(tmp_path / "work"), str(tmp_path / "elsewhere")
    write_all(elsewhere, OURS + ("000000.json", "000000-0000.run", "tf_examples-00000-of-00001.tfrecord"))
    before = files_below(elsewhere)
    link = os.path.join(work, name).rstrip("/")
    os.makedirs(os.path.dirname(link), exist_ok=True)
    os.symlink(elsewhere, link)
    if name:
        with pytest.raises(OSError, match="%s: must be a folder, not a link: remove it" % link):
            require_own(work)
    remove_work(work)
    assert files_below(elsewhere) == before


@pytest.mark.parametrize("name", OURS)
def test_a_link_to_a_file_is_refused_and_only_the_link_goes(tmp_path, name):
    work, victim = str(tmp_path / "work"), str(tmp_path / "victim")
    write_text(victim, "x")
    path = os.path.join(work, name)
    os.makedirs(os.path.dirname(path))
    os.symlink(victim, path)
    with pytest.raises(OSError, match="%s: must be a regular file, not a link: remove it" % path):
        require_own(work)
    remove_work(work)
    assert os.listdir(str(tmp_path)) == ["victim"]


def test_a_fifo_is_refused(tmp_path):
    os.mkfifo(str(tmp_path / "workers.log"))
    with pytest.raises(OSError, match="workers.log: must be a regular file, not a link: remove it"):
        require_own(str(tmp_path))


def test_work_folders(tmp_path):
    for name in ("0123456789abcdef", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef.bak",
                 "lost+found"):
        (tmp_path / name).mkdir()
    (tmp_path / "0000000000000000").touch()
    os.symlink(str(tmp_path / "lost+found"), str(tmp_path / "1111111111111111"))
    assert list(work_folders(str(tmp_path))) == ["0123456789abcdef"]


def test_read_own(tmp_path):
    path = str(tmp_path / "x.json")
    write_text(path, '{"a": [[1, "b"]], "further": 1}')
    assert read_own(path, {"a": [(int, str)]}) == {"a": ((1, "b"),)}
    with pytest.raises(OSError) as error:
        read_own(path, {"a": [(str, str)]})
    assert str(error.value) == (path + ": a[0][0] must be a string, got 1: damaged, or not written by a "
                                "build; remove it, and the same command creates it again")


def test_read_own_list(tmp_path):
    path = str(tmp_path / "x.json")
    write_json(path, [["a", 1], ["b", 2]])
    assert read_own_list(path, [(str, int)]) == (("a", 1), ("b", 2))
    with pytest.raises(OSError,
                       match=r"x.json: \[0\]\[0\] must be an integer of at least 0, got 'a': damaged"):
        read_own_list(path, [(int, int)])
