"""Samples → sorted run files → merged shards. Memory is limited by the buffer of one run and the fan-in of
one merge.

A sample's key is 16 bytes of hash and 12 bytes of origin. The hash determines its shard, and its position
there: shards are sorted by key, which shuffles all samples the same way on every run. If repeated documents
are to be dropped, the hash does not include their position, so that equal hashes of different origin meet in
the merge.
"""
import contextlib
import hashlib
import heapq
import itertools
import os
import struct
from typing import IO, Any, Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

import google_crc32c
import numpy as np

from etl.building.work_files import read_own, read_own_list, require_own_folder
from etl.common.files import atomic_write, free_range, open_regular, sync_folder, temporary_path, write_json
from etl.records.examples import frame
from etl.records.manifest import Shard

RUN_BYTES = 64 << 20                           # records a worker buffers before it writes them out sorted
MERGE_FAN_IN = 128                             # runs that one merge keeps open

_HASH_BYTES = 16
_ORIGIN = struct.Struct(">IQ")                 # file index, byte offset of the document
_KEY_BYTES = _HASH_BYTES + _ORIGIN.size
_LENGTH = struct.Struct("<I")
_ENTRY_HEADER_BYTES = _KEY_BYTES + _LENGTH.size
_READ_BUFFER = 1 << 18


class Sample(NamedTuple):
    """A record before sorting: its part, its key, its serialized bytes."""
    part: str
    key: bytes
    record: bytes


class Extent(NamedTuple):
    """The samples of one shard in one run file: `bytes` from `offset` on, sorted by key, and their CRC-32C.

    It has no path: it is run `run` of range `chunk`, wherever the work folder is now.
    """
    part: str
    shard: int
    chunk: int
    run: int
    offset: int
    bytes: int
    records: int
    crc32c: int


EXTENT_SHAPE = (str, int, int, int, int, int, int, int)


class Piece(NamedTuple):
    """An extent, found: what to read of which file."""
    path: str
    offset: int
    bytes: int
    records: int
    crc32c: int


class MergedShard(NamedTuple):
    """A finished shard, and how many records of repeated documents were left out of it."""
    shard: Shard
    dropped: int


def sample_key(parts: Tuple[object, ...], file_index: int, offset: int) -> bytes:
    """28 bytes: a hash of the sample's identity, then its document's position."""
    return hashlib.blake2b(repr(parts).encode("utf-8"),
                           digest_size=_HASH_BYTES).digest() + _ORIGIN.pack(file_index, offset)


def seeds_of(keys: Sequence[bytes]) -> np.ndarray:
    """The seeds of samples' random numbers: uint64 [samples], the half of each hash that affects its position
    least."""
    hashes = b"".join(key[_HASH_BYTES // 2:_HASH_BYTES] for key in keys)
    return np.frombuffer(hashes, dtype="<u8")


def shard_of(key: bytes, num_shards: int) -> int:
    """The shard of a key: shards divide the hash space into equal intervals."""
    return int.from_bytes(key[:_HASH_BYTES], "big") * num_shards >> (8 * _HASH_BYTES)


def shard_name(part: str, index: int, num_shards: int) -> str:
    """Path below the output folder, in TensorFlow's usual form."""
    name = "tf_examples-%05d-of-%05d.tfrecord" % (index, num_shards)
    return name if part == "train" else os.path.join(part, name)


def run_path(work_dir: str, chunk: int, run: int) -> str:
    """Run `run` of chunk `chunk`."""
    return os.path.join(work_dir, "runs", "%06d-%04d.run" % (chunk, run))


def write_runs(samples: Iterable[Sample], work_dir: str, chunk: int,
               num_shards: Dict[str, int]) -> Iterator[Extent]:
    """Buffers a chunk's samples, writes each full buffer as a sorted run file, and records the extents."""
    buffer: List[Sample] = []
    size = runs = 0
    for sample in samples:
        buffer.append(sample)
        size += len(sample.record) + 200  # the tuple and its two strings weigh about that beside the bytes
        if size >= RUN_BYTES:
            yield from _write_run(buffer, work_dir, chunk, runs, num_shards)
            buffer, size, runs = [], 0, runs + 1
    if buffer:
        yield from _write_run(buffer, work_dir, chunk, runs, num_shards)


def require_runs(work_dir: str, extents: Sequence[Extent]) -> None:
    """Raises ValueError unless a chunk's extents cover its runs without gaps."""
    ends: Dict[Tuple[int, int], int] = {}
    for extent in extents:
        end = ends.get((extent.chunk, extent.run), 0)
        if extent.offset != end:
            raise ValueError("extents: run %d: must start at byte %d, got offset %d"
                             % (extent.run, end, extent.offset))
        ends[extent.chunk, extent.run] = end + extent.bytes
    for (chunk, run), end in ends.items():
        path = run_path(work_dir, chunk, run)
        size = os.path.getsize(path) if os.path.isfile(path) else None
        if size != end:
            raise ValueError("extents: %d bytes of %s, which %s"
                             % (end, path, "is not there" if size is None else "has %d bytes" % size))


def shard_path(work_dir: str, part: str, index: int, num_shards: int) -> str:
    """The path of a shard until the build is complete."""
    return os.path.join(work_dir, "shards", shard_name(part, index, num_shards))


def write_extents(work_dir: str, num_shards: Dict[str, int],
                  extents: Sequence[Extent]) -> List[Tuple[str, int]]:
    """Writes a file per shard with the extents of its samples, for `write_shard`; returns (part, number) of
    all shards.

    There may be millions of extents: too much to send through an engine.
    """
    found: Dict[Tuple[str, int], List[Extent]] = {(part, index): [] for part, count in num_shards.items()
                                                  for index in range(count)}
    for extent in extents:
        found[extent.part, extent.shard].append(extent)
    for (part, index), its_extents in found.items():
        write_json(shard_path(work_dir, part, index, num_shards[part]) + ".extents", its_extents)
    return list(found)


def write_shard(work_dir: str, num_shards: Dict[str, int], keep_duplicates: bool,
                shard: Tuple[str, int]) -> None:
    """Merges one shard into the work folder and writes its marker; does nothing if that is already done.

    Then the disk space of the shard's part of the runs is freed, so that both together need little more than
    the runs.
    """
    part, index = shard
    path = shard_path(work_dir, part, index, num_shards[part])
    if os.path.exists(path + ".json"):
        return
    require_own_folder(work_dir, "runs")
    extents = [Extent(*extent) for extent in read_own_list(path + ".extents", [EXTENT_SHAPE])]
    pieces = [Piece(run_path(work_dir, extent.chunk, extent.run), *extent[4:]) for extent in extents]
    try:
        merged = merge_shard(pieces, path, keep_duplicates)
    except OSError:
        # another host was faster, and has freed what this one was reading
        if os.path.exists(path + ".json"):
            return
        raise
    linked = sum(piece.bytes for piece in pieces if os.stat(piece.path).st_nlink > 1)
    write_json(path + ".json", dict(zip(("records", "bytes", "sha256"), merged.shard[1:]),
                                    dropped=merged.dropped, linked_bytes=linked))
    sync_folder(os.path.dirname(path))
    for piece in pieces:
        free_range(piece.path, piece.offset, piece.bytes)


def read_shard_marker(work_dir: str, part: str, index: int, count: int) -> Dict[str, Any]:
    """The content of a finished shard's marker: records, bytes, sha256; dropped, as in MergedShard;
    linked_bytes, of runs that have a second hard link and so were not freed.
    """
    return read_own(shard_path(work_dir, part, index, count) + ".json", {
        "records": int, "bytes": int, "sha256": str, "dropped": int, "linked_bytes": int})


def merge_shard(pieces: Sequence[Piece], path: str, keep_duplicates: bool,
                fan_in: int = MERGE_FAN_IN) -> MergedShard:
    """Merges a shard's pieces into a TFRecord file, which appears atomically.

    With more pieces than `fan_in`, groups of them are merged into temporary runs beside `path` first.

    Args:
      keep_duplicates: False drops samples whose hash equals that of a sample of an earlier document.

    Raises OSError if a piece differs in any byte from what was written.
    """
    with atomic_write(path) as stream:
        temporary: List[str] = []
        try:
            level = list(pieces)
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


def _write_run(samples: List[Sample], work_dir: str, chunk: int, run: int,
               num_shards: Dict[str, int]) -> Iterator[Extent]:
    samples.sort(key=lambda sample: (sample.part, sample.key))
    offset = 0
    with atomic_write(run_path(work_dir, chunk, run)) as stream:
        extents = []
        for (part, shard), group in itertools.groupby(
                samples, key=lambda sample: (sample.part, shard_of(sample.key, num_shards[sample.part]))):
            size, records, crc = _write_entries(stream, ((sample.key, sample.record) for sample in group))
            extents.append(Extent(part, shard, chunk, run, offset, size, records, crc))
            offset += size
    return iter(extents)


def _write_entries(stream: IO[bytes], entries: Iterable[Tuple[bytes, bytes]]) -> Tuple[int, int, int]:
    """Writes keys and records; returns their numbers of bytes and records, and the bytes' CRC-32C."""
    size = records = crc = 0
    for key, record in entries:
        entry = key + _LENGTH.pack(len(record)) + record
        size += stream.write(entry)
        records += 1
        crc = google_crc32c.extend(crc, entry)
    return size, records, crc


def _read_piece(piece: Piece) -> Iterator[Tuple[bytes, bytes]]:
    """The keys and records of a piece. Raises OSError, at the end, if they are not what was written."""
    left, crc = piece.bytes, 0
    with open_regular(piece.path, buffering=_READ_BUFFER) as stream:
        stream.seek(piece.offset)
        for _ in range(piece.records):
            header = stream.read(_ENTRY_HEADER_BYTES)
            left -= _ENTRY_HEADER_BYTES
            length = (_LENGTH.unpack(header[_KEY_BYTES:])[0] if len(header) == _ENTRY_HEADER_BYTES
                      else left + 1)
            left -= length
            if left < 0:
                break
            record = stream.read(length)
            crc = google_crc32c.extend(google_crc32c.extend(crc, header), record)
            yield header[:_KEY_BYTES], record
    if left or crc != piece.crc32c:
        raise OSError("%s: not what was written: truncated, damaged, or freed by another host that has "
                      "merged it; if the same command fails again, remove %s"
                      % (piece.path, os.path.dirname(os.path.dirname(piece.path))))


def _merged(pieces: Sequence[Piece]) -> Iterator[Tuple[bytes, bytes]]:
    return iter(heapq.merge(*map(_read_piece, pieces)))


def _merge_to_run(pieces: Sequence[Piece], path: str, temporary: List[str]) -> Piece:
    temporary.append(path)
    with open(path, "wb", buffering=_READ_BUFFER) as stream:
        return Piece(path, 0, *_write_entries(stream, _merged(pieces)))
