import os
import re

import pytest

from estimator.weights import checkpoint_list
from mistakes import message_of

FILES = (".data-00000-of-00001", ".index", ".meta")


@pytest.fixture
def folder(tmp_path):
    """`run` holds model.ckpt-5 and model.ckpt-6, `other` beside it model.ckpt-3, model.ckpt-5 and notes."""
    for name, steps in (("run", (5, 6)), ("other", (3, 5))):
        (tmp_path / name).mkdir()
        for step in steps:
            for ending in FILES:
                (tmp_path / name / ("model.ckpt-%d%s" % (step, ending))).write_text("%s %d" % (name, step))
    (tmp_path / "other" / "notes").write_text("mine")
    return tmp_path / "run"


def write(folder, *paths, newest="model.ckpt-6"):
    lines = ["model_checkpoint_path: %s" % quoted(newest)] + ["all_model_checkpoint_paths: %s" % quoted(path)
                                                              for path in paths]
    (folder / "checkpoint").write_text("\n".join(lines) + "\n")


def quoted(path):
    return '"%s"' % path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def state_of(folder):
    return {str(path): os.path.islink(str(path)) or path.read_bytes()
            for path in folder.rglob("*") if not path.is_dir()}


# What a list says → the names that it means; {} is the folder that holds run and other.
MEANT = [
    ("model.ckpt-5", "model.ckpt-6"), ("./model.ckpt-5", "model.ckpt-6"),
    ("{}/run/model.ckpt-5", "{}/run/model.ckpt-6"), ("{}/other/model.ckpt-5", "model.ckpt-6"),
    ("../other/model.ckpt-5", "model.ckpt-6"), ("/moved/model.ckpt-5", "/moved/model.ckpt-6"),
    ("D:\\bert\\out\\model.ckpt-5", "D:\\bert\\out\\model.ckpt-6"),
    ("D:\\bert/out\\model.ckpt-5", "D:/bert/out/model.ckpt-6"),
    ("\\\\server\\share\\model.ckpt-5", "//server/share/model.ckpt-6"), ("D:model.ckpt-5", "d:model.ckpt-6"),
    ("..\\other\\model.ckpt-5", "model.ckpt-6"), ("best/model.ckpt-5", "model.ckpt-6"),
]


@pytest.mark.parametrize("paths", MEANT)
def test_an_entry_means_what_is_beside_the_list(folder, paths):
    here = [path.format(folder.parent) for path in paths]
    write(folder, *here, newest=here[-1])
    before = state_of(folder.parent / "other")
    checkpoint_list.take_over(str(folder))
    assert (folder / "checkpoint").read_text() == (
        'model_checkpoint_path: "model.ckpt-6"\nall_model_checkpoint_paths: "model.ckpt-5"\n'
        'all_model_checkpoint_paths: "model.ckpt-6"\n')
    assert checkpoint_list.is_own(str(folder))
    assert checkpoint_list.keep(str(folder), ["model.ckpt-5", "model.ckpt-6"], 1) == ["model.ckpt-6"]
    assert sorted(os.listdir(str(folder))) == ["checkpoint"] + ["model.ckpt-6" + ending for ending in FILES]
    assert state_of(folder.parent / "other") == before


@pytest.mark.parametrize("path", ["{}/other/model.ckpt-3", "../other/model.ckpt-3",
                                  "../run/../other/model.ckpt-3", "{}/other/notes", "../other"])
def test_one_that_leads_to_something_elsewhere_is_refused(folder, path):
    path = path.format(folder.parent)
    write(folder, path)
    before = state_of(folder.parent)
    assert message_of(checkpoint_list.check, str(folder)) == (
        "%s: names %s, which is not in this folder: copy it here, or remove that line"
        % (folder / "checkpoint", path))
    assert message_of(checkpoint_list.take_over, str(folder)) and state_of(folder.parent) == before


@pytest.mark.parametrize("path", ["model.ckpt-*", "{}/other/*", "model.ckpt-[0-9]", "model.ckpt-?", "a/",
                                  "a\\", "..", "../.", "D:", "a\nb", "it's", 'a"b', "/a\0b/model.ckpt-5"])
def test_one_that_can_be_no_checkpoints_name_is_refused(folder, path):
    write(folder, path.replace("{}", str(folder.parent)))
    message = message_of(checkpoint_list.take_over, str(folder))
    assert ("cannot be the name of a checkpoint: remove that line" in message and "\n" not in message
            and "\0" not in message)


@pytest.mark.parametrize("path", ["model.ckpt-4", "{}/run/model.ckpt-4", "/moved/model.ckpt-4",
                                  "D:\\out\\model.ckpt-4"])
def test_an_older_one_that_is_nowhere_is_taken_off_the_list(folder, path):
    path = path.format(folder.parent)
    write(folder, path, "model.ckpt-5")
    assert checkpoint_list.take_over(str(folder)) == [
        "%s: 1 of 3 entries are not there, and were taken off the list: %s" % (folder / "checkpoint", path)]
    assert checkpoint_list.names(str(folder)) == ["model.ckpt-5", "model.ckpt-6"]


@pytest.mark.parametrize("path, stays", [
    ("model.ckpt-5", True), ("{}/run/model.ckpt-5", True), ("{}/run/model.ckpt-4", True),
    ("{}/other/model.ckpt-5", False), ("D:\\out\\model.ckpt-5", False), ("/moved/model.ckpt-5", False)])
def test_other_ranks_wait_only_while_something_leads_elsewhere(folder, path, stays):
    write(folder, path.format(folder.parent))
    assert checkpoint_list.stays_here(str(folder)) is stays


def test_the_newest_must_be_there(folder):
    write(folder, "model.ckpt-5", newest="/moved/model.ckpt-7")
    assert message_of(checkpoint_list.take_over,
                      str(folder)).endswith("names model.ckpt-7 as the newest, which is not there")


def test_who_reads_what_was_led_back_is_told(folder):
    write(folder, *["D:\\out\\model.ckpt-5"] * 2000, newest="D:\\out\\model.ckpt-6")
    assert checkpoint_list.take_over(str(folder)) == [
        "%s: 2 of 2 entries led elsewhere, and now mean what is beside the list: D:\\out\\model.ckpt-5, "
        "D:\\out\\model.ckpt-6"
        % (folder / "checkpoint")]
    assert checkpoint_list.take_over(str(folder)) == []


@pytest.mark.parametrize("content", [
    b"", b"\n", b"no list", b'all_model_checkpoint_paths: "model.ckpt-6"\n',
    b'model_checkpoint_path: "\\377"\n',
    b'model_checkpoint_path: "model.ckpt-6\n', b"\xff\xfe", b'model_checkpoint_path: ""', b"{" * 5000])
def test_a_damaged_list_is_refused_in_one_line(folder, content):
    (folder / "checkpoint").write_bytes(content)
    assert message_of(checkpoint_list.read, str(folder)) == (
        "%s: names no checkpoint: it is empty or damaged; remove it, or name a checkpoint"
        % (folder / "checkpoint"))


@pytest.mark.parametrize("path", [b"D:\\bert\\out\\model.ckpt-5", b"D:\\\\bert\\\\out\\\\model.ckpt-5",
                                  b"D:\\best\\best.ckpt-5", b"\\\\server\\share\\model.ckpt-5",
                                  "D:\\\\模型\\\\model.ckpt-5".encode("gb18030"), b"out\\model.ckpt-5"])
def test_paths_of_windows_as_they_come(folder, path):
    (folder / "checkpoint").write_bytes(b'\xef\xbb\xbfmodel_checkpoint_path: "%s"\r\n' % path)
    assert checkpoint_list.names(str(folder)) == [re.split(r"\\", path.decode("latin1"))[-1]]


def test_a_name_that_is_no_utf8_is_refused(folder):
    (folder / "checkpoint").write_bytes(b'model_checkpoint_path: "a\xff"\n')
    assert "cannot be the name of a checkpoint" in message_of(checkpoint_list.read, str(folder))


def test_a_list_that_is_no_file_or_no_list_at_all(folder):
    path = folder / "checkpoint"
    path.mkdir()
    assert "must be a file" in message_of(checkpoint_list.read, str(folder))
    path.rmdir()
    os.mkfifo(str(path))
    assert "must be a file" in message_of(checkpoint_list.read, str(folder))
    path.unlink()
    path.symlink_to("nowhere")
    assert "must be a file" in message_of(checkpoint_list.read, str(folder))
    path.unlink()
    with open(str(path), "wb") as stream:
        stream.truncate(1 << 30)
    assert "must be a list of checkpoints of at most 4194304 bytes" in message_of(
        checkpoint_list.read, str(folder))
    path.unlink()
    assert checkpoint_list.read(str(folder)) == []


def test_timestamps_and_comments_are_of_no_account(folder):
    (folder / "checkpoint").write_text("# mine\nmodel_checkpoint_path: 'model.ckpt-6'\n"
                                       "all_model_checkpoint_timestamps: 1.5\n")
    assert checkpoint_list.names(str(folder)) == ["model.ckpt-6"]


@pytest.mark.parametrize("most, kept", [(0, [4, 5, 6]), (1, [6]), (2, [5, 6]), (3, [4, 5, 6]),
                                        (9, [4, 5, 6])])
def test_so_many_are_kept_whatever_the_saver_still_knows(folder, most, kept):
    for ending in FILES:
        (folder / ("model.ckpt-4" + ending)).write_text("4")
    write(folder, "model.ckpt-6")              # a saver that knows but its own
    names = ["model.ckpt-%d" % step for step in kept]
    assert checkpoint_list.keep(str(folder), ["model.ckpt-4", "model.ckpt-5"], most) == names
    assert checkpoint_list.names(str(folder)) == names
    assert sorted(os.listdir(str(folder))) == ["checkpoint"] + [name + ending for name in names
                                                                for ending in FILES]


def test_what_others_have_beside_it_stays(folder):
    others = ["model.ckpt-5.tar.gz", "model.ckpt-50.index", "model.ckpt-5.index.mine",
              "model.ckpt-5.data-1-of-1"]
    for name in others:
        (folder / name).write_text("mine")
    (folder / "model.ckpt-5.meta").unlink()
    (folder / "model.ckpt-5.meta").mkdir()
    (folder / "model.ckpt-5.index").unlink()
    (folder / "model.ckpt-5.index").symlink_to(folder.parent / "other" / "model.ckpt-5.index")
    before = state_of(folder.parent / "other")
    checkpoint_list.remove(str(folder), "model.ckpt-5")
    assert sorted(os.listdir(str(folder))) == sorted(others + ["model.ckpt-5.meta"]
                                                     + ["model.ckpt-6" + ending for ending in FILES])
    assert state_of(folder.parent / "other") == before


@pytest.mark.parametrize("path", ["run[1]", "run*", "a?/run", "a\\run"])
def test_a_path_that_tensorflow_would_take_for_a_pattern(path):
    assert message_of(checkpoint_list.require_no_pattern, path, "output_dir") == (
        "--output_dir: %s: TensorFlow takes each of * ? [ \\ in a path for a pattern: rename the folder"
        % path)
    checkpoint_list.require_no_pattern("C. Müller/运行 (2)", "output_dir")
