import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.samples.segments import (Chunk, TokenizedDocument, break_giant_words, choose_split, pack,
                                  split_and_swap)


def document_of(*sentences):
    """A document from the lengths of its words, sentence by sentence; the ids are 0, 1, 2 …"""
    lengths = [length for sentence in sentences for length in sentence]
    starts = np.zeros(sum(lengths), dtype=bool)
    starts[np.cumsum([0] + lengths[:-1])] = True
    firsts = np.cumsum([0] + [sum(sentence) for sentence in sentences[:-1]])
    return TokenizedDocument(np.arange(len(starts), dtype=np.int32), starts, firsts.astype(np.int32))


@st.composite
def packings(draw):
    """(document with no giant words, target, budget), as instances.py calls `pack`."""
    budget = draw(st.integers(5, 24))
    target = draw(st.integers(2, budget))
    word = st.integers(1, draw(st.sampled_from([1, 2, 4, 30])))
    document = document_of(*draw(st.lists(st.lists(word, min_size=1, max_size=12), min_size=1, max_size=8)))
    return document._replace(word_starts=break_giant_words(document.word_starts, budget // 3)), target, budget


def num_words(document, chunk):
    return int(document.word_starts[chunk.begin:chunk.end].sum())


@settings(max_examples=300)
@given(packings())
def test_chunks_cover_the_document_and_keep_to_the_budget(packing):
    document, target, budget = packing
    chunks = pack(*packing)
    assert [chunk.begin for chunk in chunks] == [0] + [chunk.end for chunk in chunks[:-1]]
    assert chunks[-1].end == len(document.ids)
    assert max(chunk.end - chunk.begin for chunk in chunks) <= budget


@settings(max_examples=300)
@given(packings())
def test_every_chunk_can_be_split_into_two_segments(packing):
    document = packing[0]
    fewest = min(2, int(document.word_starts.sum()))
    assert min(num_words(document, chunk) for chunk in pack(*packing)) >= fewest


@settings(max_examples=300)
@given(packings())
def test_cuts_are_word_starts_and_boundaries_are_the_sentence_starts_inside(packing):
    document = packing[0]
    for chunk in pack(*packing):
        assert document.word_starts[chunk.begin]
        inside = document.sentence_starts[(document.sentence_starts > chunk.begin) & (
            document.sentence_starts < chunk.end)]
        assert list(chunk.boundaries) == inside.tolist()


@settings(max_examples=300)
@given(packings())
def test_a_sentence_within_the_budget_is_cut_only_to_save_a_lone_word(packing):
    document, _, budget = packing
    firsts, chunks = document.sentence_starts.tolist(), pack(*packing)
    for before, after in zip(chunks[:-1], chunks[1:]):
        if after.begin in firsts:
            continue
        begin = max(first for first in firsts if first < after.begin)
        end = min([first for first in firsts if first > after.begin] + [len(document.ids)])
        saves_first = num_words(document, Chunk(before.begin, begin, ())) == 1
        saves_last = after is chunks[-1] and num_words(document, after) == 2
        assert end - begin > budget or saves_first or saves_last


@pytest.mark.parametrize("sentences, target, budget, chunks", [
    ([[1]], 8, 8, [(0, 1, ())]),
    ([[2, 2]], 8, 8, [(0, 4, ())]),
    ([[4, 4]], 8, 8, [(0, 8, ())]),                                       # exactly full
    # ends with the sentence that reaches the target
    ([[1, 1], [1, 1], [1, 1]], 4, 8, [(0, 4, (2,)), (4, 6, ())]),
    ([[1, 1, 1], [1, 1, 1], [1, 1, 1]], 8, 8,
     [(0, 6, (3,)), (6, 9, ())]),  # ends before the one that does not fit
    ([[3] * 6], 8, 8, [(0, 6, ()), (6, 12, ()), (12, 18, ())]),    # cut at a word, not inside
    ([[1, 1], [1] * 12], 8, 8, [(0, 8, (2,)), (8, 14, ())]),       # a giant sentence fills the chunk, goes on
    ([[1] * 4, [1] * 4, [1]], 8, 8, [(0, 4, ()), (4, 9, (8,))]),   # a lone last word gets a sentence
    ([[1] * 8, [1]], 8, 8, [(0, 7, ()), (7, 9, (8,))]),            # or a word
    ([[1, 1, 1], [1]], 3, 8, [(0, 4, (3,))]),                      # or joins what has room
    ([[4], [1] * 5, [1]], 8, 8, [(0, 8, (4,)), (8, 10, (9,))]),    # a lone first word is saved by a cut
])
def test_pack(sentences, target, budget, chunks):
    assert pack(document_of(*sentences), target, budget) == [Chunk(*chunk) for chunk in chunks]


def test_empty_document_has_no_chunks():
    empty = TokenizedDocument(np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0, np.int32))
    assert pack(empty, 8, 8) == []


@pytest.mark.parametrize("lengths, limit, broken", [
    ([1, 2, 3], 3, [1, 2, 3]), ([7], 3, [3, 3, 1]), ([2, 6, 1], 3, [2, 3, 3, 1]), ([1], 1, [1])])
def test_break_giant_words(lengths, limit, broken):
    starts = document_of(lengths).word_starts
    before = starts.copy()
    assert break_giant_words(starts, limit).tolist() == document_of(broken).word_starts.tolist()
    assert starts.tolist() == before.tolist()


def test_no_words_to_break():
    assert break_giant_words(np.zeros(0, bool), 3).tolist() == []


@pytest.mark.parametrize("boundaries, draw, split", [
    ((4, 6), 0.0, 4), ((4, 6), 0.49, 4), ((4, 6), 0.5, 6), ((4, 6), 0.999, 6),
    ((), 0.0, 3), ((), 0.999, 7),  # words of the chunk begin at 2, 3, 5, 7
])
def test_choose_split(boundaries, draw, split):
    starts = document_of([2, 1, 2, 2, 2]).word_starts
    assert choose_split(Chunk(2, 9, boundaries), starts, draw) == split


def test_one_word_cannot_be_split():
    assert choose_split(Chunk(0, 3, ()), document_of([3]).word_starts, 0.5) == 0


def test_split_and_swap():
    document = document_of([1, 2], [3])
    kept = split_and_swap(document, Chunk(0, 6, (3,)), 3, is_swapped=False)
    assert (kept.a_ids.tolist(), kept.b_ids.tolist(), kept.label) == ([0, 1, 2], [3, 4, 5], 0)
    assert (kept.a_word_starts.tolist(), kept.b_word_starts.tolist()) == ([True, True, False],
                                                                          [True, False, False])
    swapped = split_and_swap(document, Chunk(0, 6, (3,)), 3, is_swapped=True)
    assert (swapped.a_ids.tolist(), swapped.b_ids.tolist(), swapped.label) == ([3, 4, 5], [0, 1, 2], 1)


def test_one_segment_has_an_empty_second():
    pair = split_and_swap(document_of([1, 2]), Chunk(0, 3, ()), 3, is_swapped=False)
    assert pair.a_ids.tolist() == [0, 1, 2] and len(pair.b_ids) == len(pair.b_word_starts) == 0
