import dataclasses
import json
import os
import pickle
import subprocess
import sys

import pytest

from etl.building.chunks import (ChunkJob, build_chunk, dead_letters_path, histograms_path, marker_path,
                                 read_histograms, read_marker, read_markers)
from etl.building.shards import Piece, merge_shard, run_path
from etl.building.sources import plan_ranges
from etl.common.command_line import UserError
from etl.common.files import expand, read_json, write_json
from etl.records.examples import deserialize_example
from etl.samples.instances import InstanceConfig
from etl.text.tokenization import TokenizerConfig


@pytest.fixture
def job(tmp_path, vocab_file):
    return ChunkJob(str(tmp_path / "work"), TokenizerConfig(vocab_file),
                    InstanceConfig(max_seq_length=24, max_predictions_per_seq=4, dupe_factor=3),
                    (("train", 2), ("eval", 1)), 0.3)


def build_all(job, paths, range_bytes=None):
    for numbered in enumerate(plan_ranges(paths, range_bytes)):
        build_chunk(job, numbered)
    return read_markers(job, len(plan_ranges(paths, range_bytes)))


def records_of(job, markers, part):
    pieces = [Piece(run_path(job.work_dir, extent.chunk, extent.run), *extent[4:]) for marker in markers
              for extent in marker.extents if extent.part == part]
    path = os.path.join(job.work_dir, part)
    merge_shard(pieces, path, keep_duplicates=job.keep_duplicates)
    return open(path, "rb").read()


def test_a_marker_accounts_for_the_chunk(job, corpus):
    paths = expand([corpus], "corpus")
    markers = build_all(job, paths)
    assert [marker.bytes for marker in markers] == [os.path.getsize(path) for path in paths]
    counters = {name: sum(marker.counters.get(name, 0) for marker in markers) for name in markers[0].counters}
    assert counters["documents"] == 20 == counters["train_documents"] + counters["eval_documents"]
    assert counters["sentences"] == sum(3 + number % 4 for number in range(20))
    assert 0 < counters["eval_documents"] < counters["train_documents"]
    assert counters["unknown_tokens"] == counters["bad_records"] == counters["documents_too_short"] == 0
    assert counters["predictions"] == sum(counters[kind + "_predictions"]
                                          for kind in ("masked", "kept", "random", "permuted"))
    samples = counters["train_samples"] + counters["eval_samples"]
    assert samples == sum(extent.records for marker in markers for extent in marker.extents)
    assert 0 < counters["label_1_samples"] < samples


def test_ranges_and_order_do_not_change_the_records(job, corpus, tmp_path):
    paths = expand([corpus], "corpus")
    whole = build_all(job, paths)
    for range_bytes in (40, 333):
        other = dataclasses.replace(job, work_dir=str(tmp_path / str(range_bytes)))
        for numbered in reversed(list(enumerate(plan_ranges(paths, range_bytes)))):
            build_chunk(other, numbered)
        markers = read_markers(other, len(plan_ranges(paths, range_bytes)))
        for part in ("train", "eval"):
            assert records_of(other, markers, part) == records_of(job, whole, part)


def test_a_finished_chunk_is_not_built_again(job, corpus):
    paths = expand([corpus], "corpus")
    before = build_all(job, paths)
    runs = {name: os.stat(os.path.join(job.work_dir, "runs", name)).st_mtime_ns
            for name in os.listdir(job.work_dir + "/runs")}
    assert build_all(job, paths) == before
    assert {name: os.stat(os.path.join(job.work_dir, "runs", name)).st_mtime_ns for name in runs} == runs


def test_markers_of_finished_chunks_alone(job, corpus):
    ranges = plan_ranges(expand([corpus], "corpus"))
    build_chunk(job, (1, ranges[1]))
    assert read_markers(job, 2) == [read_marker(job, 1)]


def changed(fields, place, value):
    """The fields with another value at a place in lists and objects."""
    *way, last = place
    inner = fields
    for step in way:
        inner = inner[step]
    inner[last] = value
    return fields


@pytest.mark.parametrize("place, value, message", [
    (["extents", 0, 0], "test", "extents[0]: there is no shard 0 of part 'test'"),
    (["extents", 0, 0], 3, "extents[0][0] must be a string, got 3"),
    (["extents", 0, 1], 1, "extents[0]: there is no shard 1 of part 'eval'"),
    (["extents", 0, 1], True, "extents[0][1] must be an integer of at least 0, got True"),
    (["extents", 0, 2], 1, "extents[0]: belongs to chunk 1"),
    (["extents", 0, 2], "/etc/passwd", "extents[0][2] must be an integer of at least 0, got '/etc/passwd'"),
    (["extents", 0, 3], "../../../x", "extents[0][3] must be an integer of at least 0, got '../../../x'"),
    (["extents", 0, 3], 7, "extents: run 0: must start at byte 0, got offset"),
    (["extents", 0, 4], -65536, "extents[0][4] must be an integer of at least 0, got -65536"),
    (["extents", 0, 4], 4096, "extents: run 0: must start at byte 0, got offset 4096"),
    (["extents", 0, 5], 1 << 40, "extents: run 0: must start at byte 1099511627776, got offset"),
    (["extents", 0, 5], 1.5, "extents[0][5] must be an integer of at least 0, got 1.5"),
    (["extents", 0, 6], None, "extents[0][6] must be an integer of at least 0, got None"),
    (["extents", 0], ["eval", 0, "/etc/passwd", 0, 65536, 1], "extents[0] must hold 8 values, got 6"),
    (["extents"], {}, "extents must be a list, got {}"),
    (["extents"], [], "extents: 0 records of part train, but counters.train_samples is "),
    (["counters", "eval_samples"], 0, "extents: 11 records of part eval, but counters.eval_samples is 0"),
    (["counters", "documents"], "many", "counters.documents must be an integer of at least 0, got 'many'"),
    (["counters"], [], "counters must be an object, got []"),
    (["bytes"], [[]], "bytes must be an integer of at least 0, got [[]]"),
    (["bad_records"], [{}], "bad_records[0] must be a string, got {}"),
])
def test_a_marker_that_somebody_else_has_written(job, corpus, place, value, message):
    build_all(job, expand([corpus], "corpus"))
    path = marker_path(job.work_dir, 0)
    write_json(path, changed(read_json(path), place, value))
    with pytest.raises(OSError) as error:
        read_markers(job, 2)
    assert str(error.value).startswith("%s: %s" % (path, message))
    assert str(error.value).endswith(": damaged, or not written by a build; remove it, and the same command "
                                     "creates it again")
    os.remove(path)
    assert len(build_all(job, expand([corpus], "corpus"))) == 2


@pytest.mark.parametrize("content", ["[]", "{", "", "[" * 100000, "\0"])
def test_a_marker_that_is_none(job, corpus, content):
    build_all(job, expand([corpus], "corpus"))
    with open(marker_path(job.work_dir, 0), "w") as stream:
        stream.write(content)
    with pytest.raises(OSError, match="000000.json: .*; remove it, and the same command creates it again"):
        read_markers(job, 2)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path), os.mkdir],
                         ids=["fifo", "device", "folder"])
def test_a_marker_that_is_no_file(job, make):
    path = marker_path(job.work_dir, 0)
    os.makedirs(os.path.dirname(path))
    make(path)
    with pytest.raises(OSError, match="000000.json: must be a regular file, not a link"):
        read_markers(job, 1)


@pytest.mark.parametrize("name, value, message", [
    ("lengths", {"x": 1}, "lengths: must be numbers of tokens, got 'x'"),
    ("masked_positions", {"9" * 99: 1}, "masked_positions: must be numbers of tokens, got '999"),
    ("labels", {"-1": 1}, "labels: must be numbers of tokens, got '-1'"),
    ("words", {"天": -1}, "words.天 must be an integer of at least 0, got -1"),
    ("words", [], "words must be an object, got []")])
def test_histograms_that_somebody_else_has_written(job, corpus, name, value, message):
    build_all(job, expand([corpus], "corpus"))
    path = histograms_path(job.work_dir, 1)
    fields = read_json(path)
    assert read_histograms(job.work_dir, 1) == fields
    write_json(path, dict(fields, **{name: value}))
    with pytest.raises(OSError) as error:
        read_histograms(job.work_dir, 1)
    assert str(error.value).startswith("%s: %s" % (path, message))


@pytest.fixture
def bad_file(tmp_path):
    path = str(tmp_path / "bad.txt")
    with open(path, "wb") as stream:
        stream.write("我爱北京天安门。\n\n今天\n".encode("utf-8") + b"ab\xff\n\n"
                     + "他去图书馆看书。\n".encode("utf-8"))
    return path


def test_a_bad_document_stops_the_job(job, bad_file):
    with pytest.raises(UserError) as error:
        build_all(job, [bad_file])
    assert str(error.value) == bad_file + ": line 4: not UTF-8: invalid start byte at byte 0xff"
    assert read_markers(job, 1) == []


def test_or_goes_to_the_dead_letters(job, bad_file):
    job = dataclasses.replace(job, stop_at_bad_records=False)
    marker, = build_all(job, [bad_file])
    assert marker.counters["bad_records"] == 1 and marker.counters["documents"] == 2
    assert marker.bad_records == (bad_file + ": line 4: not UTF-8: invalid start byte at byte 0xff",)
    with open(dead_letters_path(job.work_dir, 0), encoding="utf-8") as letters:
        assert [json.loads(line) for line in letters] == [
            {"file": bad_file, "offset": 35, "reason": "not UTF-8: invalid start byte at byte 0xff"}]


def test_repeated_documents(job, tmp_path):
    path = str(tmp_path / "twice.txt")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("我爱北京天安门。\n今天天气很好。\n\n" * 2)
    job = dataclasses.replace(job, eval_fraction=0.0)
    kept = records_of(job, build_all(job, [path]), "train")
    dropping = dataclasses.replace(job, keep_duplicates=False, work_dir=str(tmp_path / "drop"))
    dropped = records_of(dropping, build_all(dropping, [path]), "train")
    assert len(kept) == 2 * len(dropped) > 0


def test_token_boundary_is_written_on_demand(job, corpus):
    job = dataclasses.replace(job, instances=dataclasses.replace(job.instances, token_boundary=True))
    extent = build_all(job, expand([corpus], "corpus"))[0].extents[0]
    with open(run_path(job.work_dir, extent.chunk, extent.run), "rb") as stream:
        content = stream.read()
    assert b"token_boundary" in content
    record = content[extent.offset + 32:extent.offset + 32 + int.from_bytes(
        content[extent.offset + 28:extent.offset + 32], "little")]
    values = deserialize_example(record)
    length = int(values["input_mask"].sum())
    assert (values["token_boundary"][[0, length - 1]].tolist() == [1, 1]
            and values["token_boundary"][length:].sum() == 0)


def test_a_job_can_travel(job):
    assert pickle.loads(pickle.dumps(job)) == job


def test_workers_need_no_tensorflow():
    code = "import sys, etl.building.chunks; print(sorted({'tensorflow', 'apache_beam'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code]).decode().strip() == "[]"
