"""Sentences → segment pairs. Everything here is positions in a document's token array; no text is copied or
lost.

A document's tokens are packed into chunks of at most `budget` tokens. Whole sentences are added while they
fit; a sentence longer than the budget is split at a word boundary and continues in the next chunk. Every
chunk has at least two words, so it can be split into two segments, unless the document is a single word.
Sentences stay whole if possible: one cut at the end of a chunk would reveal which segment is the second, and
the sentence-order task would learn that instead.
"""
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np


class TokenizedDocument(NamedTuple):
    """A document as arrays.

    Attributes:
      ids: int32 [tokens].
      word_starts: bool [tokens], True where a word begins.
      sentence_starts: int32 [sentences], position of each sentence's first token; ascending, the first is 0.
    """
    ids: np.ndarray
    word_starts: np.ndarray
    sentence_starts: np.ndarray


class Chunk(NamedTuple):
    """Tokens [begin, end) of a document, and the sentence boundaries strictly inside."""
    begin: int
    end: int
    boundaries: Tuple[int, ...]


class SegmentPair(NamedTuple):
    """Two segments as views of token arrays; `b_ids` is empty when there is one segment only.

    Attributes:
      a_ids, b_ids: int32 [length of the segment].
      a_word_starts, b_word_starts: bool, same lengths.
      label: 1 when the second segment does not follow the first: swapped (order) or random (next).
    """
    a_ids: np.ndarray
    a_word_starts: np.ndarray
    b_ids: np.ndarray
    b_word_starts: np.ndarray
    label: int


def break_giant_words(word_starts: np.ndarray, limit: int) -> np.ndarray:
    """Word starts with words of over `limit` tokens (addresses, long numbers) cut every `limit` tokens.

    They could be neither masked whole nor fitted into a sample whole.
    """
    begins = np.flatnonzero(word_starts)
    lengths = np.diff(np.append(begins, len(word_starts)))
    if not len(lengths) or lengths.max() <= limit:
        return word_starts
    broken = word_starts.copy()
    for begin, length in zip(begins[lengths > limit], lengths[lengths > limit]):
        broken[begin:begin + length:limit] = True
    return broken


def pack(document: TokenizedDocument, target: int, budget: int) -> List[Chunk]:
    """Cuts a document into chunks that cover it without gap or overlap, each of at most `budget` tokens.

    A chunk ends with the sentence that brings it to `target`, or before the sentence that does not fit any
    more. Needs words of at most budget / 3 tokens (`break_giant_words`).
    """
    words = np.flatnonzero(document.word_starts)
    ends = np.append(document.sentence_starts[1:], len(document.ids)).tolist()
    chunks: List[Chunk] = []
    begin = end = 0
    boundaries: List[int] = []
    for sentence_end in ends:
        while end < sentence_end:
            if sentence_end - begin <= budget:
                cut = sentence_end
            elif sentence_end - end > budget or not _has_two_words(words, begin, end):
                cut = _last_word_start(words, begin + budget)
            else:
                cut = end
            if cut > end:
                if end > begin:
                    boundaries.append(end)
                end = cut
            full = end - begin >= target or end < sentence_end
            if full and _has_two_words(words, begin, end):
                chunks.append(Chunk(begin, end, tuple(boundaries)))
                begin, boundaries = end, []
    if end > begin:
        chunks.append(Chunk(begin, end, tuple(boundaries)))
    return _mend_last(chunks, words, document.sentence_starts, budget)


def choose_split(chunk: Chunk, word_starts: np.ndarray, draw: float) -> int:
    """Where the second segment begins: a sentence boundary, or in a chunk of one sentence a word boundary.

    Args:
      draw: uniform in [0, 1).

    Returns:
      A position strictly inside the chunk; 0 when the chunk is one word.
    """
    candidates: Sequence[int] = chunk.boundaries
    if not candidates:
        candidates = (chunk.begin + 1 + np.flatnonzero(word_starts[chunk.begin + 1:chunk.end])).tolist()
    return candidates[int(draw * len(candidates))] if candidates else 0


def split_and_swap(document: TokenizedDocument, chunk: Chunk, split: int, is_swapped: bool) -> SegmentPair:
    """The chunk as two consecutive segments, in reading order or swapped."""
    first, second = slice(chunk.begin, split), slice(split, chunk.end)
    if is_swapped:
        first, second = second, first
    return SegmentPair(document.ids[first], document.word_starts[first],
                       document.ids[second], document.word_starts[second], int(is_swapped))


def _has_two_words(words: np.ndarray, begin: int, end: int) -> bool:
    return np.searchsorted(words, end) - np.searchsorted(words, begin) >= 2


def _last_word_start(words: np.ndarray, at_most: int) -> int:
    return int(words[np.searchsorted(words, at_most, side="right") - 1])


def _mend_last(chunks: List[Chunk], words: np.ndarray, sentence_starts: np.ndarray,
               budget: int) -> List[Chunk]:
    """Gives a last chunk of one word another from the chunk before it: a sentence where possible, else
    a word."""
    if len(chunks) < 2 or _has_two_words(words, chunks[-1].begin, chunks[-1].end):
        return chunks
    before, last = chunks[-2:]
    boundaries = before.boundaries + ((last.begin,) if last.begin in sentence_starts else ())
    if last.end - before.begin <= budget:
        return chunks[:-2] + [Chunk(before.begin, last.end, boundaries)]
    inner = words[(words > before.begin) & (words < last.begin)].tolist()
    for candidates in (before.boundaries, inner):
        for cut in reversed(candidates):
            if last.end - cut <= budget and _has_two_words(words, before.begin, cut):
                left = tuple(boundary for boundary in boundaries if boundary < cut)
                right = tuple(boundary for boundary in boundaries if boundary > cut)
                return chunks[:-2] + [Chunk(before.begin, cut, left), Chunk(cut, last.end, right)]
    return chunks
