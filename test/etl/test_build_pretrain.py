import bz2
import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest

from etl import build_pretrain
from etl.build_pretrain import main
from etl.building import plan, publish
from etl.common.files import write_json, write_text
from etl.records import manifest
from etl.records.examples import deserialize_example, read_frames
from etl.text.tokenization import is_han


@pytest.fixture
def flags(corpus, vocab_file, tmp_path, build_flags):
    return ["--input_file", corpus, "--vocab_file", vocab_file, "--output_dir",
            str(tmp_path / "out")] + build_flags


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


def files_of(folder):
    """All files of a build and their bytes, the work folder apart."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as stream:
                found[os.path.relpath(path, folder)] = stream.read()
    return {name: content for name, content in found.items() if not name.startswith(".work")}


def shards_of(folder):
    return {name: content for name, content in files_of(folder).items() if name.endswith(".tfrecord")}


def records_of(folder, shards):
    for shard in shards:
        with open(os.path.join(folder, shard.path), "rb") as stream:
            yield from map(deserialize_example, read_frames(stream, shard.path))


def error_of(capsys, argv, status=1):
    """The one line that a failing build leaves."""
    assert main(argv) == status
    last = capsys.readouterr().err.rstrip("\n").split("\n")[-1]
    assert last.startswith("etl.build_pretrain: error: ")
    return last[len("etl.build_pretrain: error: "):]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def test_files_of_a_build(built, vocab_file):
    files = files_of(built)
    assert sorted(files) == ["eval/tf_examples-00000-of-00001.tfrecord", "manifest.json", "report.html",
                             "tf_examples-00000-of-00002.tfrecord", "tf_examples-00001-of-00002.tfrecord",
                             "vocab.txt"]
    assert files["vocab.txt"] == open(vocab_file, "rb").read()
    assert not os.path.exists(os.path.join(built, ".work"))


def test_manifest_of_a_build(built, corpus):
    found = manifest.read(built)
    assert [shard.path for shard in found.train] == ["tf_examples-0000%d-of-00002.tfrecord" % index
                                                     for index in range(2)]
    assert (found.max_seq_length, found.max_predictions_per_seq) == (24, 4)
    assert found.flags["input_file"] == [corpus] and found.flags["dupe_factor"] == 3
    assert [os.path.basename(entry["path"]) for entry in found.inputs] == ["a.txt", "b.txt"]
    assert sum(shard.records for shard in found.train) == found.counters["train_samples"] > 0
    assert sum(shard.records for shard in found.eval) == found.counters["eval_samples"] > 0
    assert [os.path.getsize(os.path.join(built, shard.path)) for shard in found.train] == [
        shard.bytes for shard in found.train]


def test_records_of_a_build(built, vocabulary):
    found = manifest.read(built)
    for values in records_of(built, found.train + found.eval):
        length, predictions = int(values["input_mask"].sum()), int(values["masked_lm_weights"].sum())
        ids, positions = values["input_ids"], values["masked_lm_positions"]
        assert ids[0] == vocabulary.cls and ids[length - 1] == vocabulary.sep and not ids[length:].any()
        assert (predictions >= 1 and (positions[:predictions] < length - 1).all()
                and (positions[:predictions] > 0).all())
        assert values["next_sentence_labels"].tolist() in ([0], [1])
        labels = [vocabulary.tokens[index] for index in values["masked_lm_ids"][:predictions]]
        assert not [label for label in labels if label.startswith("##") and is_han(label[-1])]


def test_report(flags, capsys, out):
    assert main(flags) == 0
    captured = capsys.readouterr()
    assert "Building samples from 2 files (0.0 MB) with 1 process\n" in captured.out
    for row in ("documents ", "sentences, words, tokens ", "padding ", "predicted tokens ", "swapped ",
                "shards "):
        assert "  " + row in captured.out
    assert captured.out.endswith("Wrote %s/manifest.json\nLook at %s/report.html\nNext: python -m "
                                 "estimator.pretrain --input_file %s\n" % (out, out, out))


def test_ranges_do_not_change_a_byte(flags, built, out):
    assert main(flags + ["--range_bytes", "100"]) == 0
    assert shards_of(out) == shards_of(built)


@pytest.mark.parametrize("workers", ["2", "3"])
def test_worker_processes_do_not_change_a_byte(flags, built, out, workers):
    assert main(flags + ["--range_bytes", "300", "--direct_num_workers", workers]) == 0
    assert shards_of(out) == shards_of(built)


@pytest.fixture
def engine(job_service):
    return ["--runner", "PortableRunner", "--job_endpoint", job_service, "--parallelism", "2"]


def test_an_engine_does_not_change_a_byte(flags, built, out, engine, monkeypatch, capsys):
    monkeypatch.setattr(build_pretrain, "MERGE_IN_PROCESS_BYTES", 0)
    assert main(flags + engine + ["--range_bytes", "300"]) == 0
    assert shards_of(out) == shards_of(built)
    assert "(0.0 MB) on PortableRunner at %s, parallelism 2\n" % engine[3] in capsys.readouterr().out
    assert manifest.read(out).counters == manifest.read(built).counters and not os.path.exists(
        os.path.join(out, ".work"))


def test_an_engines_workers_stand_in_other_folders(flags, corpus, vocab_file, built, out, engine,
                                                   monkeypatch):
    monkeypatch.chdir(os.path.dirname(corpus))
    argv = ["--input_file", "a.txt", "b.txt"] + flags[2:] + ["--vocab_file", os.path.relpath(vocab_file),
                                                             "--output_dir", os.path.relpath(out)]
    assert main(argv + engine + ["--sentence_objective", "next"]) == 0
    found = shards_of(out)
    assert main(argv + ["--sentence_objective", "next"]) == 0
    assert found == shards_of(out)


def test_a_bad_document_ends_a_build_on_an_engine_with_one_line(flags, tmp_path, out, engine, capsys):
    path = write(tmp_path / "bad.txt", BAD_UTF8)
    argv = flags + ["--input_file", path, "--eval_fraction", "0"] + engine
    assert error_of(capsys, argv) == "%s: line 4: not UTF-8: invalid start byte at byte 0xff" % path
    assert not os.path.exists(out)
    assert main(argv + ["--max_bad_fraction", "0.05"]) == 0
    assert json.loads(files_of(out)["dead_letters/bad_records.jsonl"].decode("utf-8"))["offset"] == 35


def test_a_worker_with_other_libraries_is_refused(flags, out, engine, capsys, monkeypatch):
    monkeypatch.setattr(plan, "versions", lambda: {"jieba": "0.0.1"})
    message = error_of(capsys, flags + engine)
    assert re.fullmatch(
        "the worker on host .* has jieba 0.42.1, the command 0.0.1: every host must have the same", message)
    assert not os.path.exists(out)


@pytest.mark.parametrize("runner, flag, thing", [
    ("FlinkRunner", "flink_master", "Flink"), ("FlinkRunner", "job_endpoint", "job server"),
    ("PortableRunner", "job_endpoint", "job server")])
def test_an_engine_that_does_not_answer(flags, out, capsys, monkeypatch, runner, flag, thing):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % nobody.getsockname()[1]
        message = error_of(capsys, flags + ["--runner", runner, "--" + flag, address, "--parallelism", "2"])
    assert message == "--%s: no %s answers at %s: Connection refused" % (flag, thing, address)
    assert not os.path.exists(out)


@pytest.mark.parametrize("segmenter", ["jieba", "rjieba"])
def test_the_segmenter_does_not_change_a_byte(flags, built, out, segmenter):
    assert main(flags + ["--segmenter", segmenter]) == 0
    assert shards_of(out) == shards_of(built)


def test_another_run_in_the_same_folder_does_not_change_a_byte(flags, built, out):
    shutil.copytree(built, out)
    assert main(flags) == 0
    assert shards_of(out) == shards_of(built)


def test_another_seed_changes_the_samples(flags, built, out):
    assert main(flags + ["--random_seed", "1"]) == 0
    assert shards_of(out) != shards_of(built)


def test_shards_of_an_earlier_build_disappear(flags, built, out):
    shutil.copytree(built, out)
    for name in ("notes.txt", "dead_letters/bad_records.jsonl"):
        os.makedirs(os.path.dirname(os.path.join(out, name)), exist_ok=True)
        open(os.path.join(out, name), "w").close()
    assert main(flags + ["--num_shards", "1", "--eval_fraction", "0", "--overwrite"]) == 0
    assert sorted(files_of(out)) == ["manifest.json", "notes.txt", "report.html",
                                     "tf_examples-00000-of-00001.tfrecord", "vocab.txt"]
    assert sorted(os.listdir(out)) == sorted(files_of(out))            # no empty folders


@pytest.mark.parametrize("more, changes", [
    (["--random_seed", "1"], "--random_seed was 12345, is 1"),
    (["--num_shards", "1", "--eval_fraction", "0", "--dupe_factor", "1"],
     "--dupe_factor was 3, is 1; --eval_fraction was 0.3, is 0.0; --num_shards was 2, is 1"),
    (["--input_file", "{vocab}2"], "the input differs"),
    (["--vocab_file", "{vocab}2"], "the vocabulary differs"),
])
def test_samples_of_another_build_stay(flags, built, out, vocab_file, tmp_path, capsys, more, changes):
    shutil.copytree(built, out)
    another = write(tmp_path / "2.txt", open(vocab_file, encoding="utf-8").read() + "中国\n")
    argv = flags + [flag.replace("{vocab}2", another) for flag in more]
    assert error_of(capsys, argv) == (
        "--output_dir: %s holds the %d samples of another build (%s): give another folder, or --overwrite"
        % (out, manifest.read(built).counters["train_samples"], changes))
    assert files_of(out) == files_of(built) and not os.path.exists(os.path.join(out, ".work"))


def test_the_same_build_again_changes_nothing(flags, built, out):
    shutil.copytree(built, out)
    assert main(flags + ["--range_bytes", "99", "--segmenter", "jieba", "--max_bad_fraction", "0.1"]) == 0
    assert shards_of(out) == shards_of(built)


@pytest.mark.parametrize("name", ["train.tfrecord", "a.tf_record", "p.tfrecords-00000-of-00010",
                                  "A.TFRecord.gz"])
def test_records_of_other_tools_stay(flags, out, capsys, name):
    os.makedirs(out)
    open(os.path.join(out, name), "w").close()
    assert error_of(capsys, flags) == (
        "--output_dir: %s holds %s, and no manifest.json says how it was made: give another folder, or "
        "--overwrite" % (out, name))


def test_samples_that_no_manifest_explains_stay(flags, built, out, capsys):
    shutil.copytree(built, out)
    os.remove(os.path.join(out, "manifest.json"))
    assert error_of(capsys, flags) == (
        "--output_dir: %s holds eval/tf_examples-00000-of-00001.tfrecord, and no manifest.json says how it "
        "was made: give another folder, or --overwrite" % out)


def test_next_command_of_a_single_document(tmp_path, vocab_file, out, capsys):
    path = write(tmp_path / "a.txt", "我爱北京天安门。\n今天天气很好。\n")
    argv = ["--input_file", path, "--vocab_file", vocab_file, "--output_dir", out, "--max_seq_length", "24"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "Note: of 1 document, none is held out: there is nothing to evaluate on\n" in printed
    assert printed.endswith("Next: python -m estimator.pretrain --input_file %s --do_eval false\n" % out)
    assert "Warning: %s: has no blank lines and so is one document. " % path in printed
    assert error_of(capsys, argv + ["--sentence_objective", "next", "--overwrite"]) == (
        "--sentence_objective next: second segments come from other documents, and the training part holds "
        "1; give more text, or --sentence_objective order")


def test_a_vocabulary_for_another_text_is_questioned(tmp_path, vocab_file, out, capsys):
    path = write(tmp_path / "a.txt", "鳞鳞鳍。\n我爱北京。\n\n" * 2)
    assert main(["--input_file", path, "--vocab_file", vocab_file, "--output_dir", out, "--max_seq_length",
                 "24", "--eval_fraction", "0"]) == 0
    assert ("Warning: 33%% of the tokens are [UNK], most often of 鳞 鳍: is %s a vocabulary for this text? "
            "python -m etl.build_vocab makes one of it\n" % vocab_file) in capsys.readouterr().out


def test_samples_cut_inside_a_sentence_are_counted(built):
    found = manifest.read(built)
    assert 0 < found.counters["cut_samples"] < found.counters["train_samples"]
    names = ["cut_inside_sentence" in record for part in (found.eval, found.train) for record in
             records_of(built, part)]
    held_out = sum(shard.records for shard in found.eval)
    assert all(names[:held_out]) and not any(names[held_out:])
    assert "cut inside a sentence" in open(os.path.join(built, "report.html"), encoding="utf-8").read()


def test_a_build_that_fails_leaves_the_work_of_an_interrupted_one(flags, tmp_path, out, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_pretrain, "publish", interrupt)
    assert main(flags) == 130
    monkeypatch.undo()
    work = os.listdir(os.path.join(out, ".work"))
    assert "no text in" in error_of(capsys, ["--input_file", write(tmp_path / "empty.txt", "")] + flags[2:])
    assert sorted(os.listdir(os.path.join(out, ".work"))) == sorted(work)
    assert main(flags + ["--random_seed", "1"]) == 0
    assert not os.path.exists(os.path.join(out, ".work"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_names_that_are_not_utf8(flags, built, corpus, tmp_path, workers):
    texts = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff")
    shutil.copytree(os.path.dirname(corpus), texts)
    out = os.path.join(texts, "out")
    assert main(["--input_file", texts + "/?.txt"] + flags[2:] + ["--output_dir", out, "--direct_num_workers",
                                                                  workers]) == 0
    assert publish.verify(out) and shards_of(out) == shards_of(built)
    assert [entry["path"] for entry in manifest.read(out).inputs] == [texts + "/a.txt", texts + "/b.txt"]


@pytest.mark.parametrize("module, name, at", [
    (build_pretrain, "publish", ""), (publish.os, "replace", "tf_examples-00001-of-00002.tfrecord"),
    (publish.manifest, "write", ""), (publish, "remove_work", "")])
def test_an_interrupted_build_goes_on(flags, built, out, monkeypatch, module, name, at):
    function = getattr(module, name)

    def interrupted(*args, **kwargs):
        if not at or os.path.join(out, at) in args:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, interrupted)
    assert main(flags) == 130
    monkeypatch.undo()
    assert os.path.exists(os.path.join(out, "manifest.json")) == (name == "remove_work")
    assert main(flags) == 0
    assert shards_of(out) == shards_of(built)
    assert publish.verify(out) and not os.path.exists(os.path.join(out, ".work"))


def interrupt_before(monkeypatch, flags, module, name):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, interrupted)
    assert main(flags) == 130
    monkeypatch.undo()


def state_of(folder):
    """All that can be seen of the files below a folder."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            status = os.stat(path)
            with open(path, "rb") as stream:
                found[os.path.relpath(path, folder)] = stream.read(), status.st_blocks, status.st_mtime_ns
    return found


def work_dir_of(out):
    name, = set(os.listdir(os.path.join(out, ".work"))) - {"lock"}
    return os.path.join(out, ".work", name)


def in_folder(flags, out):
    return flags + ["--output_dir", out]


@pytest.mark.parametrize("module, name", [(build_pretrain, "_merge"), (build_pretrain, "publish"),
                                          (publish.manifest, "write")])
@pytest.mark.parametrize("way", ["copied", "hard-linked", "moved"])
def test_a_build_goes_on_in_another_folder_and_leaves_the_first_alone(flags, built, out, tmp_path,
                                                                      monkeypatch, module, name, way):
    interrupt_before(monkeypatch, flags, module, name)
    other = str(tmp_path / "other" / "folder")
    if way == "moved":
        os.renames(out, other)
    else:
        shutil.copytree(out, other, copy_function=shutil.copy2 if way == "copied" else os.link)
    before = state_of(out)
    chunks = os.path.join(work_dir_of(other), "chunks")
    chunks_before = state_of(chunks)
    merge = build_pretrain._merge
    chunks_after = {}
    monkeypatch.setattr(build_pretrain, "_merge",
                        lambda *args: chunks_after.update(state_of(chunks)) or merge(*args))
    assert main(in_folder(flags, other)) == 0
    monkeypatch.undo()
    assert shards_of(other) == shards_of(built) and publish.verify(other)
    assert chunks_after == chunks_before       # none was built anew
    assert state_of(out) == before
    if way != "moved":
        assert main(flags) == 0 and shards_of(out) == shards_of(built)


def test_disk_space_that_a_copy_of_hard_links_cannot_give_back_is_told(flags, out, tmp_path, monkeypatch,
                                                                       capsys):
    interrupt_before(monkeypatch, flags, build_pretrain, "_merge")
    other = str(tmp_path / "other")
    shutil.copytree(out, other, copy_function=os.link)
    assert main(in_folder(flags, other)) == 0
    assert re.search("Note: [0-9.]+ MB of %s/.work/[0-9a-f]{16}/runs are hard-linked elsewhere" % other,
                     capsys.readouterr().out)


STRAY = (".work/notes.txt", ".work/.DS_Store", ".work/lost+found/x", ".work/0123456789abcdef/mine",
         "HASH/notes.txt", "HASH/.nfs01", "HASH/chunks/mine", "HASH/runs/x.tmp", "HASH/shards/eval/x",
         "tf_examples-mine.tfrecord", "eval/tf_examples-old.tfrecord", "x.tmp-1", "dead_letters/mine")


def test_files_of_others_stay_and_fail_nothing(flags, built, out, monkeypatch, capsys):
    interrupt_before(monkeypatch, flags, build_pretrain, "publish")
    name = os.path.basename(work_dir_of(out))
    paths = [os.path.join(out, path.replace("HASH", ".work/" + name)) for path in STRAY]
    for path in paths:
        write_text(path, "mine")
    os.makedirs(os.path.join(out, "tf_examples-00009-of-00010.tfrecord"))
    assert main(flags) == 0
    assert "Note: %s/.work was kept: it holds files that no build wrote" % out in capsys.readouterr().out
    assert [open(path).read() for path in paths] == ["mine"] * len(paths)
    assert sorted(os.listdir(os.path.join(out, ".work"))) == sorted([name, "0123456789abcdef", "notes.txt",
                                                                     ".DS_Store", "lost+found"])
    assert main(flags + ["--random_seed", "1", "--overwrite"]) == 0
    assert [open(path).read() for path in paths] == ["mine"] * len(paths)


@pytest.mark.parametrize("name", [
    "manifest.json", "report.html", "vocab.txt", "dead_letters/bad_records.jsonl",
    "tf_examples-00001-of-00002.tfrecord", "eval/tf_examples-00000-of-00001.tfrecord"])
def test_a_folder_in_the_place_of_a_file_is_told_before_the_work(flags, out, capsys, name):
    os.makedirs(os.path.join(out, name))
    assert error_of(capsys, flags) == "--output_dir: %s is a folder, not a file" % os.path.join(out, name)
    assert not os.path.exists(os.path.join(out, ".work"))


def test_a_file_in_the_place_of_a_folder_is_told_before_the_work(flags, out, capsys):
    write_text(os.path.join(out, "eval"), "x")
    assert error_of(capsys, flags) == "--output_dir: %s is a file, not a folder" % os.path.join(out, "eval")


def flip_first_byte(path):
    with open(path, "r+b") as stream:
        stream.write(b"\xff")


@pytest.mark.parametrize("change, message", [
    (lambda path: os.truncate(path, 5),
     "bytes: [0-9]+, but .*shards/tf_examples-00000-of-00002.tfrecord differs"),
    (lambda path: flip_first_byte(path),
     "sha256: [0-9a-f]{64}, but .*shards/tf_examples-00000-of-00002.tfrecord differs"),
    (os.remove, "bytes: [0-9]+, but .*out/tf_examples-00000-of-00002.tfrecord differs"),
    (lambda path: write_json(path + ".json",
                             {"records": -1, "bytes": 1, "sha256": "", "dropped": 0, "linked_bytes": 0}),
     "records must be an integer of at least 0, got -1"),
    (lambda path: write_json(path + ".json", {"shard": ["/etc/passwd", 1, 1, ""], "dropped": 0}),
     "missing field records, bytes"),])
def test_a_merged_shard_that_is_not_as_its_marker_says(flags, built, out, monkeypatch, capsys, change,
                                                       message):
    interrupt_before(monkeypatch, flags, build_pretrain, "publish")
    path = os.path.join(work_dir_of(out), "shards", "tf_examples-00000-of-00002.tfrecord")
    change(path)
    error = error_of(capsys, flags)
    assert re.search("^%s.json: %s.*: damaged, or not written by a build; remove it" % (path, message), error)
    assert os.path.exists(path + ".json")


def test_a_published_shard_that_is_another(flags, out, monkeypatch, capsys):
    interrupt_before(monkeypatch, flags, publish.manifest, "write")
    path = os.path.join(out, "tf_examples-00001-of-00002.tfrecord")
    with open(path, "r+b") as stream:
        stream.write(b"x")
    assert re.search("tf_examples-00001-of-00002.tfrecord.json: sha256: [0-9a-f]{64}, but %s differs: "
                     % path, error_of(capsys, flags))


@pytest.mark.parametrize("name", ["a.txt", "vocab.txt"])
def test_input_that_changes_between_two_ranges(flags, corpus, vocab_file, tmp_path, out, monkeypatch, capsys,
                                               name):
    for path in (corpus.replace("*", "a"), corpus.replace("*", "b"), vocab_file):
        shutil.copy(path, str(tmp_path))
    markers = build_pretrain.await_files

    def change(paths):
        markers(paths)
        os.utime(str(tmp_path / name), ns=(1, 1))

    monkeypatch.setattr(build_pretrain, "await_files", change)
    argv = ["--input_file", str(tmp_path / "[ab].txt"), "--vocab_file",
            str(tmp_path / "vocab.txt")] + flags[4:]
    assert error_of(capsys, argv).startswith("%s: has changed while being read: " % (tmp_path / name))
    assert not os.path.exists(out)


def test_vocabulary_in_the_output_folder(flags, built, out):
    shutil.copytree(built, out)
    assert main(flags + ["--vocab_file", os.path.join(out, "vocab.txt")]) == 0
    assert shards_of(out) == shards_of(built)


def test_compressed_input_gives_the_same_samples(tmp_path, vocab_file, build_flags):
    text = "我爱北京天安门。\n今天天气很好。\n\n他去图书馆看书。\n我们明天去爬山。\n".encode("utf-8")
    found = []
    for name, content in (("x.txt", text), ("x.txt.gz", gzip.compress(text)),
                          ("x.txt.bz2", bz2.compress(text))):
        path = write(tmp_path / name, content)
        folder = str(tmp_path / ("out" + name))
        assert main(["--input_file", path, "--vocab_file", vocab_file, "--output_dir", folder] + build_flags
                    + ["--eval_fraction", "0"]) == 0
        found.append(shards_of(folder))
    assert found[0] == found[1] == found[2]


def test_json_lines_and_random_segments_in_any_ranges(tmp_path, vocab_file, build_flags):
    lines = [json.dumps({"body": "我爱北京天安门。今天天气很好。" + "他去图书馆看书。" * number},
                        ensure_ascii=False) for number in range(6)]
    path = write(tmp_path / "x.jsonl", "\n".join(lines))
    found = []
    for range_bytes in ("50", "5000"):
        folder = str(tmp_path / range_bytes)
        assert main(["--input_file", path, "--input_format", "jsonl", "--text_field", "body", "--vocab_file",
                     vocab_file, "--output_dir", folder, "--sentence_objective", "next", "--range_bytes",
                     range_bytes] + build_flags + ["--eval_fraction", "0"]) == 0
        found.append(shards_of(folder))
    assert found[0] == found[1] and any(found[0].values())


def test_repeated_documents_are_dropped_on_demand(tmp_path, vocab_file, build_flags):
    once = write(tmp_path / "once.txt", "我爱北京天安门。\n今天天气很好。\n")
    twice = write(tmp_path / "twice.txt", "我爱北京天安门。\n今天天气很好。\n\n" * 2)
    records = []
    for path, duplicates in ((once, "keep"), (twice, "keep"), (twice, "drop")):
        folder = str(tmp_path / "out")
        assert main(["--input_file", path, "--vocab_file", vocab_file, "--output_dir", folder, "--duplicates",
                     duplicates, "--overwrite"] + build_flags + ["--eval_fraction", "0"]) == 0
        records.append(sum(shard.records for shard in manifest.read(folder).train))
    assert records[0] == records[2] and records[1] == 2 * records[0]


BAD_UTF8 = ("我爱北京天安门。\n\n今天\n".encode("utf-8") + b"ab\xff\n\n"
            + "他去图书馆看书。\n我们明天去爬山。\n".encode("utf-8"))


def test_a_share_of_bad_documents_may_be_allowed(flags, tmp_path, out, capsys):
    path = write(tmp_path / "bad.txt", BAD_UTF8)
    allowed = flags + ["--input_file", path, "--eval_fraction", "0", "--max_bad_fraction"]
    assert ("1 of 23 documents cannot be used, --max_bad_fraction is 0.01: %s: line 4: not UTF-8" % path
            in error_of(capsys, allowed + ["0.01"]))
    assert main(allowed + ["0.05"]) == 0
    assert "unusable documents         %s/dead_letters/bad_records.jsonl" % out in capsys.readouterr().out
    letters = files_of(out)["dead_letters/bad_records.jsonl"].decode("utf-8").split("\n")
    assert json.loads(letters[0]) == {"file": path, "offset": 35,
                                      "reason": "not UTF-8: invalid start byte at byte 0xff"}
    assert manifest.read(out).counters["bad_records"] == 1


BAD_INPUTS = {
    "pattern": (None, "--input_file: {path} matches no file"),
    "empty": (b"", "--input_file: no text in {path}"),
    "blank": ("\n　\n\ufeff\n".encode("utf-8"), "--input_file: no text in {path}"),
    "utf8": (BAD_UTF8, "{path}: line 4: not UTF-8: invalid start byte at byte 0xff"),
    "short": ("好\n".encode("utf-8"), "--input_file: 1 documents gave no training sample: 1 are too short "
              "for two segments, 0 are held out; give more text, or --eval_fraction 0"),
    "control characters": (b"\0\n", "--input_file: 1 documents gave no training sample: 1 are too short for "
                           "two segments, 0 are held out; give more text, or --eval_fraction 0"),}


@pytest.mark.parametrize("case, earlier",
                         [(case, False) for case in sorted(BAD_INPUTS)] + [("utf8", True), ("short", True)])
def test_bad_input_is_one_line_and_leaves_what_was_there(built, tmp_path, vocab_file, build_flags, capsys,
                                                         case, earlier):
    content, message = BAD_INPUTS[case]
    path = str(tmp_path / "语料.txt") if content is None else write(tmp_path / "语料.txt", content)
    out = str(tmp_path / "out")
    if earlier:
        shutil.copytree(built, out)
    argv = ["--input_file", path, "--vocab_file", vocab_file, "--output_dir",
            out] + build_flags + ["--eval_fraction", "0", "--overwrite"]
    assert error_of(capsys, argv) == message.format(path=path)
    assert files_of(out) == (files_of(built) if earlier else {}) and os.path.exists(out) == earlier
    assert not os.path.exists(os.path.join(out, ".work"))


def test_bad_vocabularies(flags, tmp_path, out, capsys):
    without = write(tmp_path / "v.txt", "[PAD]\n我\n")
    assert error_of(capsys, flags + ["--vocab_file", without]) == (
        without
        + ": a vocabulary must hold [PAD] [UNK] [CLS] [SEP] [MASK]; missing: [UNK] [CLS] [SEP] [MASK]")
    assert error_of(capsys, flags + ["--vocab_file", "gone.txt"]) == "No such file or directory: gone.txt"
    assert error_of(capsys, flags + ["--spm_model_file", without]) == without + ": not a SentencePiece model"
    assert not os.path.exists(out)


def test_vocabulary_of_special_tokens_alone(flags, tmp_path, out, capsys):
    bare = write(tmp_path / "v.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    assert bare in error_of(capsys, flags + ["--vocab_file", bare])
    assert files_of(out) == {}


@pytest.mark.parametrize("changed, message", [
    (["--max_seq_length", "7"], "max_seq_length must be at least 8, got 7"),
    (["--masked_lm_probs", "0.2"],
     "unrecognized arguments: --masked_lm_probs 0.2, did you mean --masked_lm_prob or --masked_lm_labels?"),
    (["--masked_lm_prob", "inf"], "argument --masked_lm_prob: wants a number, got 'inf'"),
    (["--vocab_file", ""], "--vocab_file is empty"),
    (["--runner", "SparkRunner"],
     "argument --runner: invalid choice: 'SparkRunner' (choose from 'DirectRunner', 'FlinkRunner', "
     "'PortableRunner')"),
    (["--runner", "FlinkRunner", "--parallelism", "2"], "runner FlinkRunner needs flink_master, HOST:PORT of "
     "the cluster's web page, or job_endpoint, HOST:PORT of a running job server"),
    (["--runner", "FlinkRunner", "--streaming"], "unrecognized arguments: --streaming"),
    (["--flink_master", "x:1"],
     "flink_master is for FlinkRunner and PortableRunner, got runner DirectRunner"),
])
def test_bad_flag_is_one_line_and_status_2(flags, out, capsys, changed, message):
    with pytest.raises(SystemExit) as exit_info:
        main(flags + changed)
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == "etl.build_pretrain: error: %s (see --help)\n" % message
    assert not os.path.exists(out)


def test_user_dictionary_that_is_not_utf8(flags, tmp_path, out, capsys):
    path = write(tmp_path / "dict.txt", b"\xff\xfe\x00\n")
    assert path in error_of(capsys, flags + ["--user_dict", path])
    assert files_of(out) == {}


def test_nothing_fits_into_the_predictions(tmp_path, vocab_file, build_flags, capsys):
    path = write(tmp_path / "x.txt", "北京\n天安门\n")
    argv = ["--input_file", path, "--vocab_file", vocab_file, "--output_dir",
            str(tmp_path / "out")] + build_flags
    assert main(argv + ["--eval_fraction", "0", "--max_predictions_per_seq", "1"]) == 0
    assert "predicted tokens           0.0%" in capsys.readouterr().out


def test_cut_gzip_is_one_line(flags, tmp_path, out, capsys):
    path = write(tmp_path / "x.txt.gz", gzip.compress("我爱北京天安门。\n".encode("utf-8") * 100)[:-9])
    assert path in error_of(capsys, flags + ["--input_file", path])
    assert files_of(out) == {}


def test_verify_from_the_command_line(built, tmp_path, capsys):
    assert main(["--verify", "--output_dir", built]) == 0
    assert "all as the manifest says" in capsys.readouterr().out
    assert "manifest.json: no such file" in error_of(capsys, ["--verify", "--output_dir", str(tmp_path)])


def test_a_users_mistake_is_one_line_on_the_console(tmp_path, vocab_file):
    path = write(tmp_path / "bad.txt", BAD_UTF8)
    run = subprocess.run([sys.executable, "-m", "etl.build_pretrain", "--input_file", path, "--vocab_file",
                          vocab_file, "--output_dir", str(tmp_path / "out")],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.returncode == 1
    lines = [line for line in run.stderr.decode().split("\n")
             if not line.startswith("samples: ")]      # progress of a slow machine
    assert lines == ["etl.build_pretrain: error: %s: line 4: not UTF-8: invalid start byte at byte 0xff"
                     % path, ""]


def test_shipped_sample_is_text_worth_training_on():
    folder = os.path.join(os.path.dirname(build_pretrain.__file__), "sample")
    contents = [open(os.path.join(folder, name), encoding="utf-8").read()
                for name in sorted(os.listdir(folder))]
    documents = [document for content in contents for document in content.strip().split("\n\n")]
    assert len(documents) == len(set(documents)) >= 60
    assert sum(len(content.encode("utf-8")) for content in contents) >= 60000
    assert min(len(document.split("\n")) for document in documents) >= 2


def test_shipped_pairs_are_balanced_and_share_no_question():
    folder = os.path.join(os.path.dirname(os.path.dirname(build_pretrain.__file__)), "estimator", "sample")
    questions, pairs = {}, []
    for split in ("train", "dev", "test"):
        with open(os.path.join(folder, split + ".tsv"), encoding="utf-8") as stream:
            rows = [line.rstrip("\n").split("\t") for line in stream]
        assert all(len(row) == 3 and row[0] and row[1] and row[2] in "01" for row in rows)
        questions[split] = {question for row in rows for question in row[:2]}
        assert 0.45 <= sum(row[2] == "1" for row in rows) / len(rows) <= 0.55
        pairs += [tuple(row[:2]) for row in rows]
    assert len(pairs) == len(set(pairs)) >= 400
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not questions[one] & questions[other]
