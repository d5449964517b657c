"""Segments from other documents, for the next-sentence objective: pools that are the same for any ranges and
workers.

A part's pool is the `POOL_DOCUMENTS` documents with the lowest hashes in that part, so that no held-out text
gets into training. One cheap pass (no tokenization) finds the lowest of each range, the driver keeps the
lowest overall and stores their texts; workers tokenize one when it is first drawn.
"""
import heapq
import itertools
import os
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from etl.building.sources import FileRange, TextFormat, read_documents, read_documents_at
from etl.building.work_files import damaged, read_own, read_own_list
from etl.common.files import write_json
from etl.samples.draws import rng_for
from etl.samples.instances import PARTS, part_of, tokenize_document
from etl.samples.segments import TokenizedDocument, break_giant_words
from etl.text.documents import Document

POOL_DOCUMENTS = 4096
POOL_SENTENCES = 64                            # of each document; limits the pool's memory

Candidate = Tuple[str, int, int]               # (hash in hexadecimal, file index, byte offset)


def candidates_path(work_dir: str, index: int) -> str:
    """The candidates of range `index`."""
    return os.path.join(work_dir, "candidates", "%06d.json" % index)


def pool_path(work_dir: str, part: str) -> str:
    """The texts of a part's pool."""
    return os.path.join(work_dir, "random_documents-%s.json" % part)


def collect_candidates(work_dir: str, seed: int, eval_fraction: float, text_format: TextFormat,
                       numbered_range: Tuple[int, FileRange]) -> None:
    """Writes each part's documents with the lowest hashes of one range; does nothing if already done."""
    index, file_range = numbered_range[0], FileRange(*numbered_range[1])  # a list, when it comes from JSON
    path = candidates_path(work_dir, index)
    if os.path.exists(path):
        return
    lowest = {part: _Lowest() for part in PARTS}
    for document in read_documents(file_range, text_format):
        if isinstance(document, Document):
            candidate = _hash(document, seed), document.file_index, document.offset
            lowest[part_of(document, seed, eval_fraction)].add(candidate)
    write_json(path, {part: found.chosen() for part, found in lowest.items()})


def write_pools(work_dir: str, paths: List[str], text_format: TextFormat, num_ranges: int
                ) -> Dict[str, int]:
    """Merges the candidates of all ranges and writes the texts of each part's pool; returns how many each
    has."""
    sizes = {}
    for part in PARTS:
        lowest = _Lowest()
        for index in range(num_ranges):
            path = candidates_path(work_dir, index)
            for digest, file_index, offset in read_own(path, {part: [(str, int, int)]})[part]:
                if file_index >= len(paths):
                    raise damaged(path, "%s: there is no input file %d" % (part, file_index))
                lowest.add((digest, file_index, offset))
        places = sorted(candidate[1:] for candidate in lowest.chosen())
        texts = [document.sentences[:POOL_SENTENCES]
                 for file_index, found in itertools.groupby(places, key=lambda place: place[0])
                 for document in read_documents_at(paths[file_index], file_index,
                                                   (offset for _, offset in found), text_format)]
        write_json(pool_path(work_dir, part), texts)
        sizes[part] = len(texts)
    return sizes


class RandomSegments:
    """A part's pool in a worker. Words of over `longest_word` tokens count as several, as in samples."""

    def __init__(self, path: str, tokenizer: Any, segmenter: Any, longest_word: int) -> None:
        self._documents = [Document(tuple(sentences), 0, 0) for sentences in read_own_list(path, [[str]])]
        self._tokenizer, self._segmenter, self._longest_word = tokenizer, segmenter, longest_word
        self._tokenized: Dict[int, TokenizedDocument] = {}

    def draw(self, rng: np.random.Generator, not_from: Tuple[str, ...], limit: int
             ) -> Optional[Tuple[np.ndarray, np.ndarray, bool]]:
        """Text of a random document that does not begin with the sentences `not_from`, from a random
        sentence on.

        Returns:
          (int32 [length] token ids, bool [length] word starts, whether a sentence is cut), at most `limit`
          tokens, ending with a sentence where possible, else with a word; None when the pool holds nothing
          that fits.
        """
        index = int(rng.random() * len(self._documents))
        start = rng.random()
        for place in range(len(self._documents)):
            at = (index + place) % len(self._documents)
            if self._documents[at].sentences != not_from[:POOL_SENTENCES] and len(self._load(at).ids):
                segment = _cut(self._load(at), start, limit)
                if segment:
                    return segment
        return None

    def _load(self, index: int) -> TokenizedDocument:
        if index not in self._tokenized:
            document = tokenize_document(self._documents[index], self._tokenizer, self._segmenter)
            self._tokenized[index] = document._replace(
                word_starts=break_giant_words(document.word_starts, self._longest_word))
        return self._tokenized[index]


def _cut(document: TokenizedDocument, start: float, limit: int
         ) -> Optional[Tuple[np.ndarray, np.ndarray, bool]]:
    """At most `limit` tokens from a sentence on; None when its first word is longer."""
    sentences = document.sentence_starts
    begin = int(sentences[int(start * len(sentences))])
    end, is_cut = begin + limit, False
    if end < len(document.ids):
        ends = [places[(places > begin) & (places <= end)]
                for places in (sentences, np.flatnonzero(document.word_starts))]
        fitting = ends[0] if len(ends[0]) else ends[1]
        if not len(fitting):
            return None
        end, is_cut = int(fitting[-1]), not len(ends[0])
    return document.ids[begin:end], document.word_starts[begin:end], is_cut


class _Lowest:
    """Keeps the candidates with the lowest hashes, each hash once."""

    def __init__(self) -> None:
        self._found: Dict[str, Candidate] = {}
        self._bound = "g"                      # above all hashes

    def add(self, candidate: Candidate) -> None:
        if candidate[0] >= self._bound:
            return
        self._found[candidate[0]] = min(self._found.get(candidate[0], candidate), candidate)
        if len(self._found) >= 2 * POOL_DOCUMENTS:
            kept = self.chosen()
            self._found, self._bound = {entry[0]: entry for entry in kept}, kept[-1][0]

    def chosen(self) -> List[Candidate]:
        return heapq.nsmallest(POOL_DOCUMENTS, self._found.values())


def _hash(document: Document, seed: int) -> str:
    return "%016x" % int(rng_for(seed, document.identity, "pool").integers(1 << 63))
