"""Samples → sorted run files → merged shards. Memory is bounded by the buffer of one run and the fan-in of one merge.

A sample's key is 16 bytes of hash and 12 bytes of origin. The hash decides its shard, and its place there: shards are sorted by
key, which shuffles all samples the same way on every run. When repeated documents are to be dropped, the hash leaves their place out, so
that equal hashes of different origin meet in the merge.
"""
import contextlib
import hashlib
import heapq
import itertools
import os
import struct
from typing import IO, Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from etl.examples import frame
from etl.files import atomic_write, free_range, read_json, temporary_path, write_json
from etl.manifest import Shard

RUN_BYTES = 64 << 20                           # records a worker buffers before it writes them out sorted
MERGE_FAN_IN = 128                             # runs that one merge holds open

_HASH_BYTES = 16
_ORIGIN = struct.Struct(">IQ")                 # file index, byte offset of the document
_KEY_BYTES = _HASH_BYTES + _ORIGIN.size
_LENGTH = struct.Struct("<I")
_READ_BUFFER = 1 << 18


class Sample(NamedTuple):
    """A record on its way: which part it belongs to, its key, its serialized bytes."""
    part: str
    key: bytes
    record: bytes


class Extent(NamedTuple):
    """The samples of one shard in one run file: `bytes` from `offset` on, sorted by key."""
    part: str
    shard: int
    path: str
    offset: int
    bytes: int
    records: int


class MergedShard(NamedTuple):
    """A finished shard, and how many records of repeated documents were left out of it."""
    shard: Shard
    dropped: int


def sample_key(parts: Tuple[object, ...], file_index: int, offset: int) -> bytes:
    """28 bytes: a hash of what the sample is, then where its document stands."""
    return hashlib.blake2b(repr(parts).encode("utf-8"), digest_size=_HASH_BYTES).digest() + _ORIGIN.pack(file_index, offset)


def seeds_of(keys: Sequence[bytes]) -> np.ndarray:
    """What the random numbers of samples depend on: uint64 [samples], the half of each hash that least decides its place."""
    hashes = b"".join(key[_HASH_BYTES // 2:_HASH_BYTES] for key in keys)
    return np.frombuffer(hashes, dtype="<u8")


def shard_of(key: bytes, num_shards: int) -> int:
    """The shard of a key: shards cut the space of hashes into equal intervals."""
    return int.from_bytes(key[:_HASH_BYTES], "big") * num_shards >> (8 * _HASH_BYTES)


def shard_name(part: str, index: int, num_shards: int) -> str:
    """Path below the output folder, in the form TensorFlow users know."""
    name = "tf_examples-%05d-of-%05d.tfrecord" % (index, num_shards)
    return name if part == "train" else os.path.join(part, name)


def write_runs(samples: Iterable[Sample], path_prefix: str, num_shards: Dict[str, int]) -> Iterator[Extent]:
    """Buffers samples, writes each full buffer as a sorted run file, and says what lies where."""
    buffer: List[Sample] = []
    size = runs = 0
    for sample in samples:
        buffer.append(sample)
        size += len(sample.record) + 200       # the tuple and its two strings weigh about that beside the bytes
        if size >= RUN_BYTES:
            yield from _write_run(buffer, "%s-%04d.run" % (path_prefix, runs), num_shards)
            buffer, size, runs = [], 0, runs + 1
    if buffer:
        yield from _write_run(buffer, "%s-%04d.run" % (path_prefix, runs), num_shards)


def shard_path(work_dir: str, part: str, index: int, num_shards: int) -> str:
    """Where a shard lies until the build is complete."""
    return os.path.join(work_dir, "shards", shard_name(part, index, num_shards))


def write_extents(work_dir: str, num_shards: Dict[str, int], extents: Sequence[Extent]) -> List[Tuple[str, int]]:
    """Leaves a file for each shard that says where its samples are, for `write_shard`; returns (part, number) of all shards.

    There may be millions of extents: too much to travel through an engine.
    """
    found: Dict[Tuple[str, int], List[Extent]] = {(part, index): [] for part, count in num_shards.items() for index in range(count)}
    for extent in extents:
        found[extent.part, extent.shard].append(extent)
    for (part, index), its_extents in found.items():
        write_json(shard_path(work_dir, part, index, num_shards[part]) + ".extents", its_extents)
    return list(found)


def write_shard(work_dir: str, num_shards: Dict[str, int], keep_duplicates: bool, shard: Tuple[str, int]) -> None:
    """Merges one shard into the work folder and leaves a marker with its facts; does nothing when that is done already.

    Then the shard's part of the runs is given back to the disk, so that both together need little more than the runs.
    """
    part, index = shard
    path = shard_path(work_dir, part, index, num_shards[part])
    if not os.path.exists(path + ".json"):
        extents = [Extent(*extent) for extent in read_json(path + ".extents")]
        merged = merge_shard(extents, path, keep_duplicates)
        write_json(path + ".json", {"shard": merged.shard, "dropped": merged.dropped})
        for extent in extents:
            free_range(extent.path, extent.offset, extent.bytes)


def merge_shard(extents: Sequence[Extent], path: str, keep_duplicates: bool, fan_in: int = MERGE_FAN_IN) -> MergedShard:
    """Merges a shard's extents into a TFRecord file, which appears atomically.

    With more extents than `fan_in`, groups of them are merged into temporary runs beside `path` first.

    Args:
      keep_duplicates: False leaves out samples whose hash equals that of a sample of an earlier document.
    """
    with atomic_write(path) as stream:
        temporary: List[str] = []
        try:
            level = list(extents)
            while len(level) > fan_in:
                level = [_merge_to_run(level[at:at + fan_in], temporary_path(path), temporary)
                         for at in range(0, len(level), fan_in)]
            digest, records, size, dropped = hashlib.sha256(), 0, 0, 0
            for _, group in itertools.groupby(_merged(level), key=lambda pair: pair[0][:_HASH_BYTES]):
                for place, (_, record) in enumerate(group):
                    if place and not keep_duplicates:
                        dropped += 1
                        continue
                    framed = frame(record)
                    stream.write(framed)
                    digest.update(framed)
                    records, size = records + 1, size + len(framed)
        finally:
            for run in temporary:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(run)
    return MergedShard(Shard(path, records, size, digest.hexdigest()), dropped)


def _write_run(samples: List[Sample], path: str, num_shards: Dict[str, int]) -> Iterator[Extent]:
    samples.sort(key=lambda sample: (sample.part, sample.key))
    offset = 0
    with atomic_write(path) as stream:
        extents = []
        for (part, shard), group in itertools.groupby(
                samples, key=lambda sample: (sample.part, shard_of(sample.key, num_shards[sample.part]))):
            begin, records = offset, 0
            for sample in group:
                offset += _write_entry(stream, sample.key, sample.record)
                records += 1
            extents.append(Extent(part, shard, path, begin, offset - begin, records))
    return iter(extents)


def _write_entry(stream: IO[bytes], key: bytes, record: bytes) -> int:
    return stream.write(key + _LENGTH.pack(len(record)) + record)


def _read_extent(extent: Extent) -> Iterator[Tuple[bytes, bytes]]:
    with open(extent.path, "rb", buffering=_READ_BUFFER) as stream:
        stream.seek(extent.offset)
        for _ in range(extent.records):
            header = stream.read(_KEY_BYTES + _LENGTH.size)
            length = _LENGTH.unpack(header[_KEY_BYTES:])[0] if len(header) == _KEY_BYTES + _LENGTH.size else -1
            record = stream.read(max(0, length))
            if len(record) != length or not any(header):    # zeros: another host has merged this, and given it back to the disk
                raise OSError("%s: run file cut off" % extent.path)
            yield header[:_KEY_BYTES], record


def _merged(extents: Sequence[Extent]) -> Iterator[Tuple[bytes, bytes]]:
    return iter(heapq.merge(*map(_read_extent, extents)))


def _merge_to_run(extents: Sequence[Extent], path: str, temporary: List[str]) -> Extent:
    temporary.append(path)
    size = 0
    with open(path, "wb", buffering=_READ_BUFFER) as stream:
        for key, record in _merged(extents):
            size += _write_entry(stream, key, record)
    return Extent(extents[0].part, extents[0].shard, path, 0, size, sum(extent.records for extent in extents))
