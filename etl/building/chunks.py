"""One unit of work: a byte range of a file → samples in run files, and a marker that describes them.

The marker is written last. A chunk whose marker exists is done, so an interrupted job resumes where it
stopped, and progress and counters work the same on every runner.
"""
import functools
import json
import os
import platform
import re
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from etl.building.random_segments import RandomSegments, pool_path
from etl.building.shards import EXTENT_SHAPE, Extent, Sample, require_runs, sample_key, seeds_of, write_runs
from etl.building.sources import BadRecord, FileRange, TextFormat, line_number, read_documents
from etl.building.work_files import damaged, read_own
from etl.common.batches import in_batches
from etl.common.command_line import UserError
from etl.common.files import write_json, write_text
from etl.records.examples import CUT_INSIDE_SENTENCE, serialize_examples
from etl.records.manifest import COUNTS
from etl.samples.draws import rng_for
from etl.samples.features import instance_features
from etl.samples.histograms import NAMES, TEXT_NAMES, Histograms
from etl.samples.instances import (PARTS, DrawSegment, InstanceConfig, Instances, mask_pairs, part_of,
                                   segment_pairs, tokenize_document)
from etl.samples.masking import KEPT, MASKED, PERMUTED, RANDOM
from etl.samples.segments import SegmentPair, TokenizedDocument
from etl.text.documents import Document
from etl.text.tokenization import TokenizerConfig, Vocabulary, load_tokenizer
from etl.text.words import SegmenterConfig, load_segmenter

REASONS_SHOWN = 3
SAMPLES_AT_ONCE = 64  # that NumPy masks at once: many for its speed, few for the caches

_MARKER_SHAPE = {"extents": [EXTENT_SHAPE], "counters": COUNTS, "bytes": int, "bad_records": [str]}
_SMALL_NUMBER = re.compile("[0-9]{1,8}")       # a document has fewer bytes

# Counters of the kinds of predicted tokens, by the kind's number.
_KIND_NAMES = [name + "_predictions" for _, name in sorted(
    {KEPT: "kept", MASKED: "masked", RANDOM: "random", PERMUTED: "permuted"}.items())]


@dataclass(frozen=True)
class ChunkJob:
    """The settings of every chunk of a build. It is pickled for the workers.

    Attributes:
      num_shards: ("train", N), ("eval", M).
      eval_fraction: share of documents, by hash of their text, that go to the eval shards.
      keep_duplicates: False gives repeated documents the same samples, so that the merge can drop them.
      stop_at_bad_records: True raises for the first chunk that meets one; False puts them into dead letters.
      word_share: share of documents whose words are counted for the report.
      versions: the output of `versions` where the build was planned; with others, a worker would make
        different samples.
    """
    work_dir: str
    tokenizer: TokenizerConfig
    instances: InstanceConfig
    num_shards: Tuple[Tuple[str, int], ...]
    eval_fraction: float
    text_format: TextFormat = TextFormat()
    segmenter: SegmenterConfig = SegmenterConfig()
    keep_duplicates: bool = True
    stop_at_bad_records: bool = True
    word_share: float = 1.0
    versions: Tuple[Tuple[str, str], ...] = ()


class KeyedPair(NamedTuple):
    """The segments of an unmasked sample, with its part and its key."""
    part: str
    key: bytes
    pair: SegmentPair


class Worker:
    """What a process loads once: tokenizer, segmenter, and the pools of random segments if the objective
    needs them."""

    def __init__(self, job: ChunkJob) -> None:
        _require_versions(job)
        self.tokenizer = load_tokenizer(job.tokenizer)
        self.segmenter = load_segmenter(job.segmenter)
        self.pools: Dict[str, RandomSegments] = {}
        if job.instances.sentence_objective == "next":
            self.pools = {part: RandomSegments(pool_path(job.work_dir, part), self.tokenizer, self.segmenter,
                                               job.instances.longest_word) for part in PARTS}

    @property
    def vocabulary(self) -> Vocabulary:
        return self.tokenizer.vocabulary

    def draw_segment_for(self, document: Document, part: str) -> Optional[DrawSegment]:
        """Draws segments from other documents of the part."""
        if not self.pools:
            return None
        pool = self.pools[part]
        return lambda rng, limit: pool.draw(rng, document.sentences, limit)


def marker_path(work_dir: str, index: int) -> str:
    """The marker of chunk `index`."""
    return os.path.join(work_dir, "chunks", "%06d.json" % index)


def dead_letters_path(work_dir: str, index: int) -> str:
    """The bad records of chunk `index`, JSON lines; no file if there are none."""
    return os.path.join(work_dir, "dead_letters", "%06d.jsonl" % index)


def histograms_path(work_dir: str, index: int) -> str:
    """The histograms of chunk `index`."""
    return os.path.join(work_dir, "histograms", "%06d.json" % index)


class Marker(NamedTuple):
    """The description of a finished chunk: the content of its runs, counts, bytes of text, the first bad
    records in words."""
    extents: Tuple[Extent, ...]
    counters: Dict[str, int]
    bytes: int
    bad_records: Tuple[str, ...]


def read_marker(job: ChunkJob, index: int) -> Marker:
    """The marker of a finished chunk. Raises OSError, naming file and field, for one that this chunk cannot
    have written."""
    path, num_shards = marker_path(job.work_dir, index), dict(job.num_shards)
    fields = read_own(path, _MARKER_SHAPE)
    marker = Marker(**dict(fields, extents=tuple(Extent(*extent) for extent in fields["extents"])))
    try:
        for place, extent in enumerate(marker.extents):
            if extent.chunk != index:
                raise ValueError("extents[%d]: belongs to chunk %d" % (place, extent.chunk))
            if extent.shard >= num_shards.get(extent.part, 0):
                raise ValueError("extents[%d]: there is no shard %d of part %.20r"
                                 % (place, extent.shard, extent.part))
        require_runs(job.work_dir, marker.extents)
        for part in PARTS:
            records = sum(extent.records for extent in marker.extents if extent.part == part)
            samples = marker.counters.get(part + "_samples", 0)
            if records != samples:
                raise ValueError("extents: %d records of part %s, but counters.%s_samples is %d"
                                 % (records, part, part, samples))
    except ValueError as error:
        raise damaged(path, str(error))
    return marker


def read_markers(job: ChunkJob, count: int) -> List[Marker]:
    """The markers of all finished chunks among `count`, in order."""
    return [read_marker(job, index)
            for index in range(count) if os.path.exists(marker_path(job.work_dir, index))]


def read_histograms(work_dir: str, index: int) -> Dict[str, Dict[str, int]]:
    """The histograms of a finished chunk, as from `Histograms.to_json`. Raises OSError as `read_marker`
    does."""
    path = histograms_path(work_dir, index)
    found = read_own(path, {name: COUNTS for name in NAMES})
    for name in set(NAMES) - set(TEXT_NAMES):
        for value in found[name]:
            if not _SMALL_NUMBER.fullmatch(value):
                raise damaged(path, "%s: must be numbers of tokens, got %.40r" % (name, value))
    return found


def build_chunk(job: ChunkJob, numbered_range: Tuple[int, FileRange]) -> None:
    """Builds the samples of all documents that a range owns. Does nothing if that is already done.

        range → documents → (part, key, segments) of each sample → batches → records → sorted runs
                    └ tally.add_document                  tally.add_samples ┘

    Raises UserError for unusable documents, if the job stops at them.
    """
    index, file_range = numbered_range[0], FileRange(*numbered_range[1])  # a list, when it comes from JSON
    marker = marker_path(job.work_dir, index)
    if os.path.exists(marker):
        return
    tally = Tally(load_worker(job), job.word_share)
    documents = _usable_documents(job, file_range, tally)
    samples = _samples(job, _keyed_pairs(job, documents, tally), tally)
    extents = list(write_runs(samples, job.work_dir, index, dict(job.num_shards)))
    if tally.bad_records:
        write_text(dead_letters_path(job.work_dir, index), "".join(map(_dead_letter, tally.bad_records)))
    write_json(histograms_path(job.work_dir, index), tally.histograms.to_json())
    size = (file_range.end or os.path.getsize(file_range.path)) - file_range.begin
    write_json(marker,
               {"extents": extents, "counters": tally.counters, "bytes": size,
                "bad_records": [describe_bad_record(bad) for bad in tally.bad_records[:REASONS_SHOWN]]})


def describe_bad_record(bad: BadRecord) -> str:
    """`corpus.txt: line 12: not UTF-8: …`."""
    return "%s: line %d: %s" % (bad.path, line_number(bad.path, bad.offset), bad.reason)


def _dead_letter(bad: BadRecord) -> str:
    """A line of JSON."""
    return json.dumps({"file": bad.path, "offset": bad.offset, "reason": bad.reason},
                      ensure_ascii=False) + "\n"


class Tally:
    """What a chunk counts for its marker and for the report."""

    def __init__(self, worker: Worker, word_share: float) -> None:
        self.counters: Counter = Counter(bad_records=0)
        self.bad_records: List[BadRecord] = []
        self.histograms = Histograms(word_share)
        self._worker = worker

    def add_bad_record(self, bad: BadRecord) -> None:
        self.bad_records.append(bad)
        self.counters["bad_records"] += 1

    def add_document(self, document: Document, tokenized: TokenizedDocument, part: str,
                     num_samples: int) -> None:
        is_unknown = tokenized.ids == self._worker.vocabulary.unk
        self.counters.update({
            "documents": 1, part + "_documents": 1, "documents_too_short": int(not num_samples),
            "sentences": len(tokenized.sentence_starts), "words": int(tokenized.word_starts.sum()),
            "tokens": len(tokenized.ids),
            "unknown_tokens": int(is_unknown.sum()), part + "_samples": num_samples})
        self.histograms.add_document(document, tokenized, self._worker.tokenizer)

    def add_samples(self, instances: Instances) -> None:
        is_slot = np.arange(instances.masked_lm_kinds.shape[1]) < instances.num_predictions[:, None]
        kinds = np.bincount(instances.masked_lm_kinds[is_slot], minlength=len(_KIND_NAMES))
        self.counters.update(
            sample_tokens=int(instances.lengths.sum()), predictions=int(is_slot.sum()),
            label_1_samples=int(instances.labels.sum()), cut_samples=int(instances.is_cut.sum()),
            **dict(zip(_KIND_NAMES, kinds.tolist())))
        self.histograms.add_samples(instances)


def _usable_documents(job: ChunkJob, file_range: FileRange, tally: Tally) -> Iterator[Document]:
    for document in read_documents(file_range, job.text_format):
        if isinstance(document, Document):
            yield document
        elif job.stop_at_bad_records:
            raise UserError(describe_bad_record(document))
        else:
            tally.add_bad_record(document)


def _keyed_pairs(job: ChunkJob, documents: Iterable[Document], tally: Tally) -> Iterator[KeyedPair]:
    """The segments of every sample, document by document."""
    worker, seed = load_worker(job), job.instances.random_seed
    for document in documents:
        tokenized = tokenize_document(document, worker.tokenizer, worker.segmenter)
        part = part_of(document, seed, job.eval_fraction)
        origin = document.file_index, document.offset
        identity = (document.identity, *origin) if job.keep_duplicates else (document.identity,)
        # a held-out document is measured once, not ten times
        copies = 1 if part == "eval" else job.instances.dupe_factor
        pairs = segment_pairs(tokenized, copies, job.instances, rng_for(seed, identity),
                              worker.draw_segment_for(document, part))
        num_samples = 0
        for num_samples, pair in enumerate(pairs, 1):
            yield KeyedPair(part, sample_key((seed, identity, num_samples), *origin), pair)
        tally.add_document(document, tokenized, part, num_samples)


def _samples(job: ChunkJob, pairs: Iterable[KeyedPair], tally: Tally) -> Iterator[Sample]:
    """Masks the pairs, many at once, and serializes them."""
    vocabulary = load_worker(job).vocabulary
    for batch in in_batches(pairs, SAMPLES_AT_ONCE):
        parts, keys, found = zip(*batch)
        instances = mask_pairs(found, seeds_of(keys), job.instances, vocabulary)
        tally.add_samples(instances)
        values = instance_features(instances, job.instances.token_boundary)
        records = serialize_examples(values)
        held_out = [row for row, part in enumerate(parts) if part == "eval"]
        if held_out:
            values[CUT_INSIDE_SENTENCE.name] = instances.is_cut[:, None]
            held_out_records = serialize_examples({name: array[held_out] for name, array in values.items()})
            for row, record in zip(held_out, held_out_records):
                records[row] = record
        yield from map(Sample, parts, keys, records)


def versions() -> Dict[str, str]:
    """Versions of everything that can change a byte of the result."""
    import pkg_resources
    names = ("apache-beam", "jieba", "rjieba", "numpy", "google-crc32c", "sentencepiece")
    versions = {found.key: found.version for found in pkg_resources.working_set}
    return dict({name: versions[name] for name in names if name in versions},    # rjieba need not be
                python=platform.python_version())


def _require_versions(job: ChunkJob) -> None:
    here = versions()
    for name, wanted in job.versions:
        if here.get(name) != wanted:
            raise UserError("the worker on host %s has %s %s, the command %s: every host must have the same"
                            % (socket.gethostname(), name, here.get(name), wanted))


@functools.lru_cache(maxsize=1)
def load_worker(job: ChunkJob) -> Worker:
    """One worker per process."""
    return Worker(job)
