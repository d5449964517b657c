"""Segments from other documents, for the next-sentence objective: a pool that is the same for any ranges and workers.

The pool is the `POOL_DOCUMENTS` documents of lowest hash in the whole input. One cheap pass (no tokenization) finds the lowest of each range,
the driver keeps the lowest of all and stores their texts; workers tokenize one when it is drawn first.
"""
import heapq
import os
from typing import Any, Dict, Iterable, List, Optional, Tuple

import numpy as np

from etl.documents import Document
from etl.files import read_json, write_json
from etl.instances import rng_for, tokenize_document
from etl.segments import TokenizedDocument
from etl.sources import FileRange, read_document_at, read_documents

POOL_DOCUMENTS = 4096
POOL_SENTENCES = 64                            # of each document; bounds the pool's memory

Candidate = Tuple[str, int, int]               # (hash in hexadecimal, file index, byte offset)


def candidates_path(work_dir: str, index: int) -> str:
    """The candidates of range `index`."""
    return os.path.join(work_dir, "candidates", "%06d.json" % index)


def pool_path(work_dir: str) -> str:
    """The texts of the pool."""
    return os.path.join(work_dir, "random_documents.json")


def collect_candidates(work_dir: str, seed: int, input_format: str, text_field: str,
                       numbered_range: Tuple[int, FileRange]) -> None:
    """Writes the documents of lowest hash of one range; does nothing when that is done already."""
    index, file_range = numbered_range
    path = candidates_path(work_dir, index)
    if not os.path.exists(path):
        documents = (document for document in read_documents(file_range, input_format, text_field)
                     if isinstance(document, Document))
        write_json(path, _lowest((_hash(document, seed), document.file_index, document.offset)
                                 for document in documents))


def write_pool(work_dir: str, paths: List[str], input_format: str, text_field: str, num_ranges: int) -> None:
    """Merges the candidates of all ranges and writes the pool's texts."""
    chosen = _lowest(tuple(candidate) for index in range(num_ranges)
                     for candidate in read_json(candidates_path(work_dir, index)))
    texts = []
    for _, file_index, offset in sorted(chosen, key=lambda candidate: candidate[1:]):
        document = read_document_at(paths[file_index], file_index, offset, input_format, text_field)
        texts.append(document.sentences[:POOL_SENTENCES])
    write_json(pool_path(work_dir), texts)


class RandomSegments:
    """The pool in a worker."""

    def __init__(self, path: str, tokenizer: Any, segmenter: Any) -> None:
        self._documents = [Document(tuple(sentences), 0, 0) for sentences in read_json(path)]
        self._tokenizer, self._segmenter = tokenizer, segmenter
        self._tokenized: Dict[int, TokenizedDocument] = {}

    def draw(self, rng: np.random.Generator, not_from: Tuple[str, ...], limit: int
             ) -> Optional[Tuple[np.ndarray, np.ndarray]]:
        """Text of a random document that does not begin with the sentences `not_from`, from a random sentence on.

        Returns:
          (int32 [length] token ids, bool [length] word starts), at most `limit` tokens, ending with a sentence where possible, else with a
          word, else inside the first; None when the pool holds nothing else.
        """
        index = int(rng.random() * len(self._documents))
        start = rng.random()
        for place in range(len(self._documents)):
            at = (index + place) % len(self._documents)
            if self._documents[at].sentences != not_from[:POOL_SENTENCES] and len(self._load(at).ids):
                return _cut(self._load(at), start, limit)
        return None

    def _load(self, index: int) -> TokenizedDocument:
        if index not in self._tokenized:
            self._tokenized[index] = tokenize_document(self._documents[index], self._tokenizer, self._segmenter)
        return self._tokenized[index]


def _cut(document: TokenizedDocument, start: float, limit: int) -> Tuple[np.ndarray, np.ndarray]:
    sentences = document.sentence_starts
    begin = int(sentences[int(start * len(sentences))])
    end = min(begin + limit, len(document.ids))
    for ends in (sentences, np.flatnonzero(document.word_starts)):
        fitting = ends[(ends > begin) & (ends <= end)]
        if end < len(document.ids) and len(fitting):
            end = int(fitting[-1])
            break
    return document.ids[begin:end], document.word_starts[begin:end]


def _lowest(candidates: Iterable[Any]) -> List[Candidate]:
    """The candidates of lowest hash, each hash once."""
    found: Dict[str, Candidate] = {}
    bound = ""
    for candidate in candidates:
        if bound and candidate[0] >= bound:
            continue
        known = found.get(candidate[0])
        found[candidate[0]] = min(known, candidate) if known else candidate
        if len(found) >= 2 * POOL_DOCUMENTS:
            kept = heapq.nsmallest(POOL_DOCUMENTS, found.values())
            found, bound = {entry[0]: entry for entry in kept}, kept[-1][0]
    return heapq.nsmallest(POOL_DOCUMENTS, found.values())


def _hash(document: Document, seed: int) -> str:
    return "%016x" % int(rng_for(seed, document.identity, "pool").integers(1 << 63))
