"""One unit of work: a byte range of a file → samples in run files, and a marker that says what they hold.

The marker is written last. A chunk whose marker exists is done, so a job that was interrupted goes on where it stopped, and progress and
counters work the same on every runner.
"""
import functools
import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

from etl.command_line import UserError
from etl.documents import Document
from etl.examples import encode_example, pad_instance
from etl.files import read_json, write_json, write_text
from etl.instances import (PARTS, DrawSegment, Instance, InstanceConfig, instances_from_document, part_of,
                           tokenize_document)
from etl.masking import KEPT, MASKED, PERMUTED, RANDOM
from etl.random_segments import RandomSegments, pool_path
from etl.segments import TokenizedDocument
from etl.shards import Sample, sample_key, write_runs
from etl.sources import BadRecord, FileRange, line_number, read_documents
from etl.tokenization import TokenizerConfig, Vocabulary, load_tokenizer
from etl.words import load_segmenter

REASONS_SHOWN = 3

# Counters of what happened to predicted tokens, by the kind's number.
_KIND_NAMES = [name + "_predictions" for _, name in sorted(
    {KEPT: "kept", MASKED: "masked", RANDOM: "random", PERMUTED: "permuted"}.items())]


@dataclass(frozen=True)
class ChunkJob:
    """What every chunk of a build needs to know. Its pickled form travels to the workers.

    Attributes:
      num_shards: ("train", N), ("eval", M).
      eval_fraction: share of documents, by hash of their text, that go to the eval shards.
      keep_duplicates: False gives repeated documents the same samples, so that the merge can drop them.
      stop_at_bad_records: True raises for the first chunk that meets one; False puts them into dead letters.
    """
    work_dir: str
    tokenizer: TokenizerConfig
    instances: InstanceConfig
    num_shards: Tuple[Tuple[str, int], ...]
    eval_fraction: float
    input_format: str = "text"
    text_field: str = "text"
    user_dict: Optional[str] = None
    token_boundary: bool = False
    keep_duplicates: bool = True
    stop_at_bad_records: bool = True


class Worker:
    """What a process loads once: tokenizer, segmenter, and the pools of random segments where the objective wants one."""

    def __init__(self, job: ChunkJob) -> None:
        self.tokenizer = load_tokenizer(job.tokenizer)
        self.segmenter = load_segmenter(job.user_dict)
        self.pools: Dict[str, RandomSegments] = {}
        if job.instances.sentence_objective == "next":
            self.pools = {part: RandomSegments(pool_path(job.work_dir, part), self.tokenizer, self.segmenter,
                                               job.instances.longest_word) for part in PARTS}

    @property
    def vocabulary(self) -> Vocabulary:
        return self.tokenizer.vocabulary

    def draw_segment_for(self, document: Document, part: str) -> Optional[DrawSegment]:
        """Draws segments from other documents of the part than this one."""
        if not self.pools:
            return None
        pool = self.pools[part]
        return lambda rng, limit: pool.draw(rng, document.sentences, limit)


def marker_path(work_dir: str, index: int) -> str:
    """The marker of chunk `index`."""
    return os.path.join(work_dir, "chunks", "%06d.json" % index)


def dead_letters_path(work_dir: str, index: int) -> str:
    """The bad records of chunk `index`, JSON lines; there is no file when there are none."""
    return os.path.join(work_dir, "dead_letters", "%06d.jsonl" % index)


def read_markers(work_dir: str, count: int) -> List[Dict[str, Any]]:
    """The markers of all finished chunks among `count`, in order."""
    paths = (marker_path(work_dir, index) for index in range(count))
    return [read_json(path) for path in paths if os.path.exists(path)]


def build_chunk(job: ChunkJob, numbered_range: Tuple[int, FileRange]) -> None:
    """Builds the samples of all documents that a range owns. Does nothing when that is done already.

    Raises UserError for documents that cannot be used, if the job stops at them.
    """
    index, file_range = numbered_range
    marker = marker_path(job.work_dir, index)
    if os.path.exists(marker):
        return
    counters: Counter = Counter()
    bad_records: List[BadRecord] = []
    prefix = os.path.join(job.work_dir, "runs", "%06d" % index)
    extents = list(write_runs(_samples(job, file_range, counters, bad_records), prefix, dict(job.num_shards)))
    if bad_records:
        write_text(dead_letters_path(job.work_dir, index), "".join(
            json.dumps({"file": bad.path, "offset": bad.offset, "reason": bad.reason}, ensure_ascii=False) + "\n"
            for bad in bad_records))
    counters["bad_records"] = len(bad_records)
    size = (file_range.end or os.path.getsize(file_range.path)) - file_range.begin
    write_json(marker, {"extents": extents, "counters": counters, "bytes": size,
                        "bad_records": [describe_bad_record(bad) for bad in bad_records[:REASONS_SHOWN]]})


def describe_bad_record(bad: BadRecord) -> str:
    """`corpus.txt: line 12: not UTF-8: …`."""
    return "%s: line %d: %s" % (bad.path, line_number(bad.path, bad.offset), bad.reason)


def _samples(job: ChunkJob, file_range: FileRange, counters: Counter, bad_records: List[BadRecord]) -> Iterator[Sample]:
    worker = load_worker(job)
    for document in read_documents(file_range, job.input_format, job.text_field):
        if isinstance(document, BadRecord):
            if job.stop_at_bad_records:
                raise UserError(describe_bad_record(document))
            bad_records.append(document)
            continue
        tokenized = tokenize_document(document, worker.tokenizer, worker.segmenter)
        counters.update(
            documents=1, sentences=len(document.sentences), words=int(tokenized.word_starts.sum()),
            tokens=len(tokenized.ids), unknown_tokens=int((tokenized.ids == worker.vocabulary.unk).sum()))
        yield from _document_samples(job, document, tokenized, worker, counters)


def _document_samples(job: ChunkJob, document: Document, tokenized: TokenizedDocument, worker: Worker,
                      counters: Counter) -> Iterator[Sample]:
    config = job.instances
    identity: Tuple[object, ...] = (document.identity,)
    if job.keep_duplicates:
        identity += (document.file_index, document.offset)
    part = part_of(document, config.random_seed, job.eval_fraction)
    draw_segment = worker.draw_segment_for(document, part)
    samples = 0
    for copy in range(1 if part == "eval" else config.dupe_factor):    # a held-out document is measured once, not ten times
        instances = instances_from_document(tokenized, identity, copy, config, worker.vocabulary, draw_segment)
        for number, instance in enumerate(instances):
            key = sample_key((config.random_seed, identity, copy, number), document.file_index, document.offset)
            record = encode_example(pad_instance(instance, config.max_seq_length, config.max_predictions_per_seq,
                                                 job.token_boundary))
            _count(instance, counters)
            samples += 1
            yield Sample(part, key, record)
    counters.update({part + "_documents": 1, part + "_samples": samples, "documents_too_short": int(not samples)})


def _count(instance: Instance, counters: Counter) -> None:
    counters.update(sample_tokens=len(instance.input_ids), predictions=len(instance.masked_lm_ids),
                    label_1_samples=instance.label)
    for name, count in zip(_KIND_NAMES, np.bincount(instance.masked_lm_kinds, minlength=len(_KIND_NAMES)).tolist()):
        counters[name] += count


@functools.lru_cache(maxsize=1)
def load_worker(job: ChunkJob) -> Worker:
    """One worker a process."""
    return Worker(job)
