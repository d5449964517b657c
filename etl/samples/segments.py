"""Sentences → segment pairs. Everything here is positions in a document's token array; no text is copied or
lost.

A document's tokens are packed into chunks of at most `budget` tokens, and a chunk is split into two segments
that end alike: after the same mark (。 or ； or ” behind 。), or both after a letter, as headings and cut
sentences do. Otherwise the mark alone would reveal the order, and the sentence-order task would learn that
instead. So a chunk has at least two whole sentences wherever the text allows it. Where their marks differ,
these stay in their places when the segments are swapped: `甲；乙；│丙。` → `丙；│甲；乙。`. Elsewhere both
the end and the split are inside sentences, between two letters; a mark at a document's end stays there.

    两句。也是。│很长的一句话，一个样本装┊不下。│下一句。        │ a segment ends, ┊ inside a sentence
"""
import bisect
from typing import List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np


class TokenizedDocument(NamedTuple):
    """A document as arrays.

    Attributes:
      ids: int32 [tokens].
      word_starts: bool [tokens], True where a word begins.
      sentence_starts: int32 [sentences], position of each sentence's first token; ascending, the first is 0.
      is_mark: bool [tokens], True for punctuation and symbols.
      mark_starts: int32 [sentences], where the marks at the end of each sentence begin; its end if there are
        none.
      endings: int64 [sentences], equal where sentences end alike; 0 for a letter or digit.
    """
    ids: np.ndarray
    word_starts: np.ndarray
    sentence_starts: np.ndarray
    is_mark: np.ndarray
    mark_starts: np.ndarray
    endings: np.ndarray


class Chunk(NamedTuple):
    """Tokens [begin, end) of a document.

    Attributes:
      splits: the sentence boundaries inside where a split leaves both segments ending alike or, if there are
        none, with two marks that will stay in their places.
      is_cut: whether the chunk begins or ends inside a sentence.
    """
    begin: int
    end: int
    splits: Tuple[int, ...]
    is_cut: bool


class SegmentPair(NamedTuple):
    """Two segments; `b_ids` is empty when there is one segment only.

    Attributes:
      a_ids, b_ids: int32 [length of the segment].
      a_word_starts, b_word_starts: bool, same lengths.
      label: 1 when the second segment does not follow the first: swapped (order) or random (next).
      is_cut: whether a segment begins or ends inside a sentence.
    """
    a_ids: np.ndarray
    a_word_starts: np.ndarray
    b_ids: np.ndarray
    b_word_starts: np.ndarray
    label: int
    is_cut: bool


def find_endings(ids: np.ndarray, sentence_starts: np.ndarray, is_mark: np.ndarray, is_closing: np.ndarray
                 ) -> Tuple[np.ndarray, np.ndarray]:
    """How sentences end: `mark_starts` and `endings` of a TokenizedDocument.

    Sentences end alike if their last marks are the same, and so are the last before closing quotes and
    brackets.

    Args:
      ids, sentence_starts: of the document.
      is_mark, is_closing: bool [tokens].
    """
    ends = np.append(sentence_starts[1:], len(ids)).astype(np.int32)
    if not len(ids):
        return ends[:0], ends[:0].astype(np.int64)
    places = np.arange(len(ids), dtype=np.int32)
    behind_text = np.maximum.accumulate(np.where(is_mark, 0, places + 1))[ends - 1]
    mark_starts = np.maximum(behind_text, sentence_starts).astype(np.int32)
    before_closing = np.maximum.accumulate(np.where(is_closing, 0, places))[ends - 1]
    marks = [np.where((mark_starts <= at) & is_mark[at], ids[at] + 1, 0).astype(np.int64)
             for at in (ends - 1, before_closing)]
    return mark_starts, marks[0] << 32 | marks[1]


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


def pack(document: TokenizedDocument, target: int, budget: int, in_pairs: bool = True) -> List[Chunk]:
    """Cuts a document into chunks that cover it without gap or overlap, each of at most `budget` tokens and,
    unless all of the document is one word, of two words.

    A chunk ends with the sentence that brings it to `target`, or with the last one that fits. Needs words of
    at most budget / 3 tokens (`break_giant_words`).

    Args:
      in_pairs: whether chunks will be split in two. Then a chunk ends where it can be split between sentences
        into segments that end alike or, failing that, with two marks; where no such end fits, the chunk
        before gives up sentences, and where that does not help either, a sentence is cut.
    """
    packing = _Packing(document, target, budget, in_pairs)
    cuts = [0]
    while cuts[-1] < len(document.ids):
        packing.advance(cuts)
    return [packing.chunk(begin, end) for begin, end in zip(cuts, cuts[1:])]


def choose_split(document: TokenizedDocument, chunk: Chunk, draw: float) -> int:
    """Where the second segment begins: with a sentence if possible, else with a word inside one.

    Args:
      draw: uniform in [0, 1).

    Returns:
      A position strictly inside the chunk; 0 when the chunk is one word.
    """
    candidates: Sequence[int] = chunk.splits
    if not candidates:
        candidates = _inside_sentences(document, chunk.begin, chunk.end)
    if not len(candidates):                    # all its sentences are of one word
        candidates = chunk.begin + 1 + np.flatnonzero(document.word_starts[chunk.begin + 1:chunk.end])
    return int(candidates[int(draw * len(candidates))]) if len(candidates) else 0


def split_and_swap(document: TokenizedDocument, chunk: Chunk, split: int, is_swapped: bool) -> SegmentPair:
    """The chunk as two consecutive segments, in reading order or swapped. If these do not end alike, the
    marks at their ends stay in their places in either order."""
    is_cut = chunk.is_cut or split not in chunk.splits and _is_inside_sentence(document, split)
    parts = [[slice(chunk.begin, split)], [slice(split, chunk.end)]]
    if is_swapped:
        parts.reverse()
        first, second = (_end_of_text(document, place) for place in (split, chunk.end))
        # where no text would remain, all is swapped
        if first.ending != second.ending and chunk.begin < first.marks and split < second.marks:
            parts = [[slice(split, second.marks), slice(first.marks, split)],
                     [slice(chunk.begin, first.marks), slice(second.marks, chunk.end)]]
    (a_ids, a_word_starts), (b_ids, b_word_starts) = (
        [_joined(array, slices) for array in (document.ids, document.word_starts)] for slices in parts)
    return SegmentPair(a_ids, a_word_starts, b_ids, b_word_starts, int(is_swapped), is_cut)


class _Packing:
    """The rules of `pack`. Chunks are given by positions, sentences by their index."""

    def __init__(self, document: TokenizedDocument, target: int, budget: int, in_pairs: bool) -> None:
        ends = np.append(document.sentence_starts[1:], len(document.ids))
        self._document, self._target, self._budget, self._in_pairs = document, target, budget, in_pairs
        self._words = np.flatnonzero(document.word_starts)
        self._ends: List[int] = ends.tolist()
        self._words_before: List[int] = np.searchsorted(self._words, ends).tolist()
        self._endings: List[int] = document.endings.tolist()

    def advance(self, cuts: List[int]) -> None:
        """Appends the end of the chunk that begins at the last of `cuts`; may move that cut."""
        begin, size = cuts[-1], self._ends[-1]
        end = self._end_with_sentence(begin)
        if end is None and len(cuts) > 1:
            end = self._regroup(cuts)
        if end is None and size - begin > self._budget:
            end = self._last_word_within(begin)
        if end is None and len(cuts) > 1:
            self._mend_last(cuts)
        cuts.append(end or size)

    def chunk(self, begin: int, end: int) -> Chunk:
        """The chunk of tokens [begin, end)."""
        is_cut = begin > 0 and self._ends[bisect.bisect_left(self._ends, begin)] != begin
        return Chunk(begin, end, self._splits(begin, end),
                     is_cut or self._ends[bisect.bisect_left(self._ends, end)] != end)

    def _splits(self, begin: int, end: int) -> Tuple[int, ...]:
        """The ends of sentences inside [begin, end) that are like `end`; if there are none and `end` has a
        mark, those with marks; if it is the document's, all. None if chunks are not split."""
        if not self._in_pairs:
            return ()
        sentences = self._sentences_ending_in(begin, end)
        last = sentences.stop
        ending = self._endings[last] if self._ends[last] == end else 0
        found = [index for index in sentences if self._endings[index] == ending]
        if not found and ending:
            found = [index for index in sentences if self._endings[index]]
        if not found and ending and end == self._ends[-1]:
            found = list(sentences)
        return tuple(self._ends[index] for index in found)

    def _sentences_ending_in(self, begin: int, end: int) -> range:
        """The sentences that end strictly inside [begin, end)."""
        return range(bisect.bisect_right(self._ends, begin), bisect.bisect_left(self._ends, end))

    def _words_in(self, begin: int, end: int) -> int:
        return int(np.searchsorted(self._words, end) - np.searchsorted(self._words, begin))

    def _end_with_sentence(self, begin: int, beyond: int = 0) -> Optional[int]:
        """Where a chunk that begins at `begin` can end with a sentence, beyond that position; None:
        nowhere."""
        alike, unlike = None, None
        seen: Set[int] = set() if self._in_pairs else set(self._endings)
        words_before = np.searchsorted(self._words, begin)
        for index in range(bisect.bisect_right(self._ends, begin), len(self._ends)):
            end, ending = self._ends[index], self._endings[index]
            if end - begin > self._budget:
                break
            if end > beyond and self._words_before[index] - words_before >= 2:
                # the end of a document is always good: it is split inside a sentence, or marks stay in place
                if ending in seen or seen and index == len(self._ends) - 1:
                    alike = end
                    if end - begin >= self._target:
                        break
                elif ending and any(seen):
                    unlike = end
            seen.add(ending)
        return alike or unlike

    def _regroup(self, cuts: List[int]) -> Optional[int]:
        """Moves the last cut to an earlier sentence, or removes it, so that the next chunk can end with a
        sentence beyond it, and returns that end; does nothing and returns None if this is impossible."""
        before, begin = cuts[-2:]
        sentences = reversed(self._sentences_ending_in(before, begin))
        for at in [self._ends[index] for index in sentences] + [before]:
            if at == before or self._can_stand(before, at):
                end = self._end_with_sentence(at, beyond=begin)
                if end is not None:
                    cuts[-1:] = [at] if at > before else []
                    return end
        return None

    def _can_stand(self, begin: int, end: int) -> bool:
        return self._words_in(begin, end) >= 2 and bool(self._splits(begin, end) or not self._in_pairs)

    def _last_word_within(self, begin: int) -> int:
        """The last word before which a chunk can end, inside a sentence if possible."""
        limit = begin + self._budget
        inside = _inside_sentences(self._document, begin, limit + 1)
        if len(inside) and self._words_in(begin, inside[-1]) >= 2:
            return int(inside[-1])
        return int(self._words[np.searchsorted(self._words, limit, side="right") - 1])

    def _mend_last(self, cuts: List[int]) -> None:
        """Moves the last cut into a sentence if the text after it is one word, or one sentence with a mark at
        its end: then it gets the end of another that ends alike."""
        before, begin, size = cuts[-2], cuts[-1], self._ends[-1]
        inside, options = _inside_sentences(self._document, before, begin), []
        if self._in_pairs and self._endings[-1]:
            alike = [self._ends[index] for index in self._sentences_ending_in(before, begin + 1)
                     if self._endings[index] == self._endings[-1]]
            options += [inside[inside < end] for end in alike[-1:]]
        text_end = int(self._document.mark_starts[-1]) if self._in_pairs else size
        lacks_word = self._words_in(begin, text_end) < 2
        if lacks_word:
            starts, words = self._document.sentence_starts, self._words
            options += [inside, *(places[(places > before) & (places < begin)] for places in (starts, words))]
        for places in options:
            fitting = [place for place in places[places >= size - self._budget].tolist()
                       if self._words_in(before, place) >= 2]
            if fitting:
                cuts[-1] = fitting[len(fitting) // 2]
                return
        if lacks_word and size - before <= self._budget:
            cuts.pop()


class _EndOfText(NamedTuple):
    """Where the marks at the end of a text begin, and how it ends (see `TokenizedDocument.endings`)."""
    marks: int
    ending: int


def _end_of_text(document: TokenizedDocument, place: int) -> _EndOfText:
    if _is_inside_sentence(document, place):
        return _EndOfText(place, 0)
    sentence = int(np.searchsorted(document.sentence_starts, place)) - 1
    return _EndOfText(int(document.mark_starts[sentence]), int(document.endings[sentence]))


def _joined(array: np.ndarray, slices: Sequence[slice]) -> np.ndarray:
    return array[slices[0]] if len(slices) == 1 else np.concatenate([array[part] for part in slices])


def _inside_sentences(document: TokenizedDocument, begin: int, end: int) -> np.ndarray:
    """Where words begin strictly inside [begin, end) and inside a sentence, between two letters: int
    [words]."""
    is_text = ~document.is_mark[begin:end]
    places = begin + 1 + np.flatnonzero(document.word_starts[begin + 1:end] & is_text[1:] & is_text[:-1])
    starts = document.sentence_starts
    return places[starts[np.searchsorted(starts, places, side="right") - 1] < places]


def _is_inside_sentence(document: TokenizedDocument, place: int) -> bool:
    starts = document.sentence_starts
    index = int(np.searchsorted(starts, place))
    return place != (starts[index] if index < len(starts) else len(document.ids))
