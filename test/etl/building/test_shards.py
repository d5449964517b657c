import hashlib
import os
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.building import shards
from etl.building.shards import (Extent, Piece, Sample, merge_shard, read_shard_marker, require_runs,
                                 run_path, sample_key, shard_name, shard_of, shard_path, write_extents,
                                 write_runs, write_shard)
from etl.common.files import free_range, read_json, sha256_of_file
from etl.records.examples import frame, read_frames

NUM_SHARDS = {"train": 3, "eval": 1}


def make_samples(count, seed=0, documents=1 << 20):
    rng = random.Random(seed)
    return [Sample("eval" if rng.random() < 0.2 else "train",
                   sample_key((rng.randrange(documents),), number % 3, number),
                   b"%d" % number * rng.randrange(9)) for number in range(count)]


def runs_of(samples, folder, pieces):
    """The extents of samples that were built in several chunks."""
    found = []
    for number in range(pieces):
        found += write_runs(samples[number::pieces], str(folder), number, NUM_SHARDS)
    return found


def path_of(extent, folder):
    return run_path(str(folder), extent.chunk, extent.run)


def pieces_of(extents, folder):
    return [Piece(path_of(extent, folder), *extent[4:]) for extent in extents]


def extents_of(extents, part, shard):
    return [extent for extent in extents if (extent.part, extent.shard) == (part, shard)]


def records_of(path):
    with open(path, "rb") as stream:
        return list(read_frames(stream, path))


def sorted_in_memory(samples, part, shard):
    chosen = [sample for sample in samples
              if sample.part == part and shard_of(sample.key, NUM_SHARDS[part]) == shard]
    return [sample.record for sample in sorted(chosen, key=lambda sample: sample.key)]


def test_sample_key():
    key = sample_key((1, b"x"), 2, 3)
    assert len(key) == 28 and key[16:] == b"\0\0\0\2" + b"\0" * 7 + b"\3"
    assert key == sample_key((1, b"x"), 2, 3)
    assert key[:16] == sample_key((1, b"x"), 9, 9)[:16] != sample_key((2, b"x"), 2, 3)[:16]


@pytest.mark.parametrize("first, num_shards, shard", [
    (b"\x00", 4, 0), (b"\x3f", 4, 0), (b"\x40", 4, 1), (b"\xff", 4, 3), (b"\xff", 1, 0), (b"\x55", 3, 0),
    (b"\x56", 3, 1)])
def test_shard_of(first, num_shards, shard):
    assert shard_of(first + b"\x00" * 27, num_shards) == shard


@given(st.binary(min_size=28, max_size=28), st.integers(1, 1000))
def test_every_key_has_a_shard(key, num_shards):
    assert 0 <= shard_of(key, num_shards) < num_shards


def test_shard_name():
    assert shard_name("train", 3, 12) == "tf_examples-00003-of-00012.tfrecord"
    assert shard_name("eval", 0, 1) == "eval/tf_examples-00000-of-00001.tfrecord"


def test_runs_hold_every_sample_sorted(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "RUN_BYTES", 2000)
    samples = make_samples(50)
    extents = list(write_runs(samples, str(tmp_path), 7, NUM_SHARDS))
    assert sum(extent.records for extent in extents) == 50
    runs = sorted({path_of(extent, tmp_path) for extent in extents})
    assert len(runs) > 2 and sorted(os.listdir(str(tmp_path / "runs"))) == [
        os.path.basename(run) for run in runs]
    assert os.path.basename(runs[1]) == "000007-0001.run"
    require_runs(str(tmp_path), extents)
    for run in runs:
        within = [extent for extent in extents if path_of(extent, tmp_path) == run]
        assert [extent.offset for extent in within] == [sum(extent.bytes for extent in within[:n])
                                                        for n in range(len(within))]
        assert os.path.getsize(run) == sum(extent.bytes for extent in within)


def test_no_samples_no_runs(tmp_path):
    assert list(write_runs([], str(tmp_path), 0, NUM_SHARDS)) == []
    assert os.listdir(str(tmp_path)) == []


@settings(max_examples=30)
@given(st.integers(0, 60), st.integers(1, 9), st.sampled_from([2, 3, 128]), st.integers(0, 99))
def test_merging_is_sorting_everything(tmp_path_factory, count, pieces, fan_in, seed):
    folder = tmp_path_factory.mktemp("merge")
    samples = make_samples(count, seed)
    extents = runs_of(samples, folder, pieces)
    for part, num_shards in NUM_SHARDS.items():
        for index in range(num_shards):
            path = str(folder / part / ("%d.tfrecord" % index))
            merged = merge_shard(pieces_of(extents_of(extents, part, index), folder), path,
                                 keep_duplicates=True, fan_in=fan_in)
            expected = sorted_in_memory(samples, part, index)
            assert records_of(path) == expected
            data = b"".join(map(frame, expected))
            assert merged == ((path, len(expected), len(data), hashlib.sha256(data).hexdigest()), 0)
    assert not [name for name in os.listdir(str(folder / "train")) if "merge" in name or "tmp" in name]


def test_repeated_documents_are_dropped_but_the_first(tmp_path):
    samples = [Sample("eval", sample_key(parts, 0, offset), record) for parts, offset, record in [
        (("a",), 7, b"a at 7"), (("a",), 2, b"a at 2"), (("b",), 5, b"b at 5"), (("a",), 9, b"a at 9")]]
    extents = pieces_of(runs_of(samples, tmp_path, 2), tmp_path)
    merged = merge_shard(extents, str(tmp_path / "once"), keep_duplicates=False)
    assert sorted(records_of(str(tmp_path / "once"))) == [b"a at 2", b"b at 5"]
    assert merged.dropped == 2 and merged.shard.records == 2
    assert merge_shard(extents, str(tmp_path / "all"), keep_duplicates=True).shard.records == 4


def full_disk_after(monkeypatch, calls):
    left = [calls]

    def frame_until_full(record):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return frame(record)
    monkeypatch.setattr(shards, "frame", frame_until_full)


@pytest.mark.parametrize("fan_in", [2, 128])
def test_full_disk_leaves_nothing(tmp_path, monkeypatch, fan_in):
    extents = pieces_of(extents_of(runs_of(make_samples(60), tmp_path, 9), "train", 0), tmp_path)
    full_disk_after(monkeypatch, 5)
    with pytest.raises(OSError, match="No space left on device"):
        merge_shard(extents, str(tmp_path / "out" / "x.tfrecord"), keep_duplicates=True, fan_in=fan_in)
    assert os.listdir(str(tmp_path / "out")) == []


def test_full_disk_while_merging_to_runs_leaves_nothing(tmp_path, monkeypatch):
    extents = pieces_of(extents_of(runs_of(make_samples(60), tmp_path, 9), "train", 0), tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(shards, "_write_entries", full)
    with pytest.raises(OSError, match="No space left on device"):
        merge_shard(extents, str(tmp_path / "out" / "x.tfrecord"), keep_duplicates=True, fan_in=2)
    assert os.listdir(str(tmp_path / "out")) == []


@pytest.mark.parametrize("begin, end", [(0, 120), (0, 40), (80, 120), (119, 120), (32, 40), (112, 120),
                                        (41, 47), (28, 32), (108, 112)])
def test_run_whose_part_was_given_back_meanwhile(tmp_path, begin, end):
    """Whatever of it reads as zeros: all, records, the last one's bytes, a length."""
    extent, = runs_of([Sample("eval", sample_key((n,), 0, n), b"12345678") for n in range(3)], tmp_path, 1)
    assert extent.bytes == 120
    with open(path_of(extent, tmp_path), "r+b") as stream:
        stream.seek(begin)
        stream.write(b"\0" * (end - begin))
    with pytest.raises(OSError,
                       match="runs/000000-0000.run: not what was written: truncated, damaged, or freed"):
        merge_shard(pieces_of([extent], tmp_path), str(tmp_path / "x"), keep_duplicates=True)
    assert os.listdir(str(tmp_path)) == ["runs"]


@pytest.mark.parametrize("cut", [1, 8, 9, 12, 13, 39, 40])
def test_run_that_was_cut_off(tmp_path, cut):
    samples = [Sample("eval", sample_key((n,), 0, n), b"12345678") for n in range(2)]
    extent, = runs_of(samples, tmp_path, 1)
    with open(path_of(extent, tmp_path), "r+b") as stream:
        stream.truncate(extent.bytes - cut)
    with pytest.raises(OSError, match="not what was written"):
        merge_shard(pieces_of([extent], tmp_path), str(tmp_path / "x.tfrecord"), keep_duplicates=True)
    assert not (tmp_path / "x.tfrecord").exists()


def test_write_shard_leaves_a_marker_and_is_not_done_twice(tmp_path):
    work = str(tmp_path)
    samples = make_samples(20)
    shards = write_extents(work, NUM_SHARDS, runs_of(samples, tmp_path, 2))
    assert shards == [("train", 0), ("train", 1), ("train", 2), ("eval", 0)]
    write_shard(work, NUM_SHARDS, True, ("train", 1))
    path = shard_path(work, "train", 1, 3)
    assert path == os.path.join(work, "shards", "tf_examples-00001-of-00003.tfrecord")
    assert records_of(path) == sorted_in_memory(samples, "train", 1)
    marker = read_json(path + ".json")
    assert marker == read_shard_marker(work, "train", 1, 3)
    assert marker == {"records": len(records_of(path)), "bytes": os.path.getsize(path),
                      "sha256": sha256_of_file(path), "dropped": 0, "linked_bytes": 0}
    write_extents(work, NUM_SHARDS, [Extent("train", 1, 99, 0, 0, 1, 1, 0)])
    write_shard(work, NUM_SHARDS, True, ("train", 1))
    assert read_json(path + ".json") == marker


def test_a_shard_without_samples_is_an_empty_file(tmp_path):
    write_extents(str(tmp_path), NUM_SHARDS, [])
    write_shard(str(tmp_path), NUM_SHARDS, True, ("eval", 0))
    assert os.path.getsize(shard_path(str(tmp_path), "eval", 0, 1)) == 0


def test_runs_that_have_a_second_name_are_not_given_back(tmp_path):
    """A copy of hard links, `cp -al`: its files are the original's."""
    work, copy = str(tmp_path / "work"), str(tmp_path / "copy")
    samples = [Sample("train", sample_key((n,), 0, n), b"x" * 9000) for n in range(20)]
    write_extents(work, NUM_SHARDS, runs_of(samples, work, 2))
    shutil.copytree(work, copy, copy_function=os.link)
    run = run_path(work, 0, 0)
    before = open(run, "rb").read(), os.stat(run).st_blocks
    for number in range(3):
        write_shard(copy, NUM_SHARDS, True, ("train", number))
    assert (open(run, "rb").read(), os.stat(run).st_blocks) == before
    assert sum(
        read_shard_marker(copy, "train", number, 3)["linked_bytes"] for number in range(3)) == 20 * 9032
    shutil.rmtree(copy)
    for number in range(3):
        write_shard(work, NUM_SHARDS, True, ("train", number))
        assert records_of(shard_path(work, "train", number, 3)) == sorted_in_memory(samples, "train", number)
        assert read_shard_marker(work, "train", number, 3)["linked_bytes"] == 0


def test_a_merge_that_another_host_has_finished_meanwhile_is_done(tmp_path, monkeypatch):
    work = str(tmp_path)
    write_extents(work, NUM_SHARDS, runs_of(make_samples(40), work, 2))
    merge = merge_shard

    def overtaken(pieces, *rest):
        monkeypatch.setattr(shards, "merge_shard", merge)
        write_shard(work, NUM_SHARDS, True, ("train", 0))
        for piece in pieces:                   # where free_range can do nothing
            with open(piece.path, "r+b") as stream:
                stream.seek(piece.offset)
                stream.write(b"\0" * piece.bytes)
        return merge(pieces, *rest)

    monkeypatch.setattr(shards, "merge_shard", overtaken)
    write_shard(work, NUM_SHARDS, True, ("train", 0))
    path = shard_path(work, "train", 0, 3)
    assert sha256_of_file(path) == read_shard_marker(work, "train", 0, 3)["sha256"]


def test_runs_behind_a_link_are_not_touched(tmp_path):
    work = str(tmp_path / "work")
    write_extents(work, NUM_SHARDS, runs_of(make_samples(40), work, 2))
    os.rename(os.path.join(work, "runs"), str(tmp_path / "elsewhere"))
    os.symlink(str(tmp_path / "elsewhere"), os.path.join(work, "runs"))
    with pytest.raises(OSError, match="runs: must be a folder, not a link: remove it"):
        write_shard(work, NUM_SHARDS, True, ("train", 0))


@pytest.mark.parametrize("change", ["link", "fifo", "folder"])
def test_a_run_that_is_no_file(tmp_path, change):
    work = str(tmp_path / "work")
    write_extents(work, NUM_SHARDS, runs_of(make_samples(40), work, 1))
    run, victim = run_path(work, 0, 0), tmp_path / "victim"
    os.rename(run, str(victim))
    {"link": lambda: os.symlink(str(victim), run), "fifo": lambda: os.mkfifo(run),
     "folder": lambda: os.mkdir(run)}[change]()
    before = victim.read_bytes()
    for attempt in (lambda: write_shard(work, NUM_SHARDS, True, ("train", 0)), lambda: free_range(run, 0, 9)):
        with pytest.raises(OSError,
                           match="000000-0000.run: must be a regular file, not a link|Is a directory"):
            attempt()
    assert victim.read_bytes() == before


@pytest.mark.parametrize("offset, bytes_, message", [
    (1, 40, "run 0: must start at byte 0, got offset 1"),
    (0, 39, "39 bytes of .*000000-0000.run, which has 40 bytes"),
    (0, 1 << 40, "1099511627776 bytes of .*000000-0000.run, which has 40 bytes")])
def test_extents_that_are_not_the_runs(tmp_path, offset, bytes_, message):
    extent, = runs_of([Sample("eval", sample_key((1,), 0, 1), b"12345678")], tmp_path, 1)
    require_runs(str(tmp_path), [extent])
    with pytest.raises(ValueError, match=message):
        require_runs(str(tmp_path), [extent._replace(offset=offset, bytes=bytes_)])
    with pytest.raises(ValueError, match="000003-0000.run, which is not there"):
        require_runs(str(tmp_path), [extent._replace(chunk=3)])
    with pytest.raises(ValueError, match="run 0: must start at byte 40, got offset 0"):
        require_runs(str(tmp_path), [extent, extent])
