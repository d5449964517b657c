"""One unit of work: a byte range of a file → samples in run files, and a marker that says what they hold.

The marker is written last. A chunk whose marker exists is done, so a job that was interrupted goes on where it stopped, and progress and
counters work the same on every runner.
"""
import functools
import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Tuple

from etl.command_line import UserError
from etl.documents import Document
from etl.examples import encode_example, pad_instance
from etl.files import read_json, write_json, write_text
from etl.instances import Instance, InstanceConfig, instances_from_document, rng_for, tokenize_document
from etl.masking import KEPT, MASKED, RANDOM
from etl.segments import TokenizedDocument
from etl.shards import Extent, Sample, sample_key, write_runs
from etl.sources import BadRecord, FileRange, line_number, read_documents
from etl.tokenization import TokenizerConfig, load_tokenizer
from etl.words import load_segmenter


@dataclass(frozen=True)
class ChunkJob:
    """What every chunk of a build needs to know. Its pickled form travels to the workers."""
    work_dir: str
    tokenizer: TokenizerConfig
    instances: InstanceConfig
    num_shards: Tuple[Tuple[str, int], ...]    # ("train", N), ("eval", M)
    eval_fraction: float


def marker_path(work_dir: str, index: int) -> str:
    """The marker of chunk `index`."""
    return os.path.join(work_dir, "chunks", "%06d.json" % index)


def read_markers(work_dir: str, count: int) -> List[Dict[str, Any]]:
    """The markers of all finished chunks among `count`, in order."""
    paths = (marker_path(work_dir, index) for index in range(count))
    return [read_json(path) for path in paths if os.path.exists(path)]


def build_chunk(job: ChunkJob, numbered_range: Tuple[int, FileRange]) -> None:
    """Builds the samples of all documents that a range owns. Does nothing when that is done already.

    Raises UserError for the first document that cannot be used.
    """
    index, file_range = numbered_range
    marker = marker_path(job.work_dir, index)
    if os.path.exists(marker):
        return
    counters: Counter = Counter()
    prefix = os.path.join(job.work_dir, "runs", "%06d" % index)
    extents = list(write_runs(_samples(job, file_range, counters), prefix, dict(job.num_shards)))
    size = (file_range.end or os.path.getsize(file_range.path)) - file_range.begin
    write_json(marker, {"extents": extents, "counters": counters, "bytes": size})


def _samples(job: ChunkJob, file_range: FileRange, counters: Counter) -> Iterator[Sample]:
    tokenizer, segmenter = _load_tokenizer(job.tokenizer), load_segmenter()
    for document in read_documents(file_range):
        if isinstance(document, BadRecord):
            raise UserError("%s: line %d: %s" % (document.path, line_number(document.path, document.offset),
                                                 document.reason))
        tokenized = tokenize_document(document, tokenizer, segmenter)
        counters.update(documents=1, sentences=len(document.sentences), words=int(tokenized.word_starts.sum()),
                        tokens=len(tokenized.ids), unknown_tokens=int((tokenized.ids == tokenizer.vocabulary.unk).sum()))
        yield from _document_samples(job, document, tokenized, tokenizer.vocabulary, counters)


def _document_samples(job: ChunkJob, document: Document, tokenized: TokenizedDocument, vocabulary: Any,
                      counters: Counter) -> Iterator[Sample]:
    config = job.instances
    identity = (document.identity, document.file_index, document.offset)
    held_out = rng_for(config.random_seed, document.identity, "eval").random() < job.eval_fraction
    part = "eval" if held_out else "train"
    samples = 0
    for copy in range(1 if held_out else config.dupe_factor):    # a held-out document is measured once, not ten times
        for number, instance in enumerate(instances_from_document(tokenized, identity, copy, config, vocabulary)):
            key = sample_key((config.random_seed, identity, copy, number), document.file_index, document.offset)
            record = encode_example(pad_instance(instance, config.max_seq_length, config.max_predictions_per_seq))
            _count(instance, counters)
            samples += 1
            yield Sample(part, key, record)
    counters.update({part + "_documents": 1, part + "_samples": samples, "documents_too_short": int(not samples)})


def _count(instance: Instance, counters: Counter) -> None:
    kinds = instance.masked_lm_kinds
    counters.update(
        sample_tokens=len(instance.input_ids), predictions=len(kinds), swapped_samples=instance.label,
        masked_predictions=int((kinds == MASKED).sum()), kept_predictions=int((kinds == KEPT).sum()),
        random_predictions=int((kinds == RANDOM).sum()))


@functools.lru_cache(maxsize=1)
def _load_tokenizer(config: TokenizerConfig) -> Any:
    return load_tokenizer(config)
