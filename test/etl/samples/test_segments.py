import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.samples.segments import (Chunk, TokenizedDocument, break_giant_words, choose_split, find_endings,
                                  pack, split_and_swap)


MARK, OTHER = "。", "；"


def document_of(*sentences):
    """A document from the lengths of its words, sentence by sentence; a string is a mark, a word of its own.
    The ids are 0, 1, 2 …"""
    words = [word for sentence in sentences for word in sentence]
    lengths = [1 if isinstance(word, str) else word for word in words]
    starts = np.zeros(sum(lengths), dtype=bool)
    starts[np.cumsum([0] + lengths[:-1])] = True
    sizes = [sum(1 if isinstance(word, str) else word for word in sentence) for sentence in sentences]
    ends = np.cumsum(sizes).astype(np.int32)
    is_mark = np.repeat([isinstance(word, str) for word in words], lengths)
    marks = [len(list(itertools.takewhile(lambda word: isinstance(word, str), reversed(sentence))))
             for sentence in sentences]
    endings = [ord(sentence[-1]) if count else 0 for sentence, count in zip(sentences, marks)]
    return TokenizedDocument(np.arange(len(starts), dtype=np.int32), starts, ends - sizes, is_mark,
                             ends - marks, np.array(endings, np.int64))


@st.composite
def packings(draw, fewest_words=1, smallest_budget=5, longest_words=(1, 2, 4, 30)):
    """(document with no giant words, target, budget), as instances.py calls `pack`."""
    budget = draw(st.integers(smallest_budget, 24))
    target = draw(st.integers(2, budget))
    word = st.integers(1, draw(st.sampled_from(longest_words)))
    sentence = st.builds(list.__add__, st.lists(word, min_size=fewest_words, max_size=12),
                         st.sampled_from([[], [MARK], [MARK, MARK], [OTHER]]))
    document = document_of(*draw(st.lists(sentence, min_size=1, max_size=8)))
    return document._replace(word_starts=break_giant_words(document.word_starts, budget // 3)), target, budget


def num_words(document, chunk):
    return int(document.word_starts[chunk.begin:chunk.end].sum())


def ends_of(document):
    return np.append(document.sentence_starts[1:], len(document.ids)).tolist()


def ending_of(document, ids):
    """How a segment ends."""
    ranges = zip(document.mark_starts, ends_of(document), document.endings)
    return next((ending for begin, end, ending in ranges if begin <= ids[-1] < end), 0)


@settings(max_examples=300)
@given(packings(), st.booleans())
def test_chunks_cover_the_document_and_keep_to_the_budget(packing, in_pairs):
    document, target, budget = packing
    chunks = pack(*packing, in_pairs)
    assert [chunk.begin for chunk in chunks] == [0] + [chunk.end for chunk in chunks[:-1]]
    assert chunks[-1].end == len(document.ids)
    assert max(chunk.end - chunk.begin for chunk in chunks) <= budget


@settings(max_examples=300)
@given(packings(), st.booleans())
def test_every_chunk_can_be_split_into_two_segments(packing, in_pairs):
    document = packing[0]
    fewest = min(2, int(document.word_starts.sum()))
    assert min(num_words(document, chunk) for chunk in pack(*packing, in_pairs)) >= fewest


@settings(max_examples=300)
@given(packings())
def test_cuts_are_word_starts_and_splits_are_the_sentence_starts_inside_that_are_like_the_end(packing):
    document = packing[0]
    ends = ends_of(document)
    endings = dict(zip(ends, document.endings.tolist()))
    for chunk in pack(*packing):
        assert document.word_starts[chunk.begin]
        inside = [end for end in ends if chunk.begin < end < chunk.end]
        ending = endings.get(chunk.end, 0)
        alike = [end for end in inside if endings[end] == ending]
        marked = [end for end in inside if endings[end]]
        others = marked or inside * (chunk.end == ends[-1])
        assert list(chunk.splits) == (alike or others if ending else alike)


@settings(max_examples=300)
@given(packings(fewest_words=3, smallest_budget=12, longest_words=(1, 2)), st.floats(0, 0.999))
def test_marks_do_not_tell_the_order(packing, draw):
    document = packing[0]
    for chunk in pack(*packing):
        split = choose_split(document, chunk, draw)
        kept, swapped = (split_and_swap(document, chunk, split, is_swapped) for is_swapped in (False, True))
        assert [ending_of(document, ids) for ids in (kept.a_ids, kept.b_ids)] == [
            ending_of(document, ids) for ids in (swapped.a_ids, swapped.b_ids)]
        assert sorted(np.concatenate((swapped.a_ids, swapped.b_ids))) == list(range(chunk.begin, chunk.end))
        assert np.concatenate((kept.a_ids, kept.b_ids)).tolist() == list(range(chunk.begin, chunk.end))


@settings(max_examples=300)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=12), st.integers(2, 21))
def test_no_sentence_is_cut_where_three_fit(lengths, target):
    document = document_of(*([1] * length + [MARK] for length in lengths))
    for chunk in pack(document, target, 21):
        assert chunk.splits and chunk.end in ends_of(document)


@pytest.mark.parametrize("sentences, target, budget, chunks", [
    ([[1]], 8, 8, [(0, 1, ())]),
    ([[2, 2]], 8, 8, [(0, 4, ())]),
    ([[4, 4]], 8, 8, [(0, 8, ())]),                                       # exactly full
    # ends with the sentence that reaches the target, but not with the first
    ([[1, MARK]] * 4, 3, 8, [(0, 4, (2,)), (4, 8, (6,))]),
    ([[1, MARK]] * 4, 2, 8, [(0, 4, (2,)), (4, 8, (6,))]),
    # ends before the one that does not fit
    ([[1, 1, MARK]] * 4, 8, 8, [(0, 6, (3,)), (6, 12, (9,))]),
    # before a heading, which begins the next
    ([[1, 1, MARK], [1, MARK], [1, 1], [1, MARK], [1, MARK]], 8, 8, [(0, 5, (3,)), (5, 11, (9,))]),
    ([[1, 1], [1, 1, MARK], [1, MARK], [1, 1, 1]], 8, 8, [(0, 7, (5,)), (7, 10, ())]),
    ([[3] * 6], 8, 8, [(0, 6, ()), (6, 12, ()), (12, 18, ())]),    # cut at a word, not inside
    # a sentence alone gets the beginning of the next; what is left goes with the one behind
    ([[1] * 6 + [MARK], [1] * 5 + [MARK], [1, MARK]], 10, 10, [(0, 10, ()), (10, 15, (13,))]),
    ([[1] * 6 + [MARK], [1, 1, 1, MARK]], 10, 10, [(0, 4, ()), (4, 11, (7,))]),
    # a last sentence alone gets one of the chunk before, or the end of it
    ([[1, MARK]] * 3 + [[1] * 4 + [MARK]], 6, 7, [(0, 4, (2,)), (4, 11, (6,))]),
    ([[1] * 3 + [MARK]] * 3, 8, 8, [(0, 6, ()), (6, 12, (8,))]),
    # a last sentence that ends like no other is good: marks will stay in their places
    ([[1, OTHER]] * 3 + [[1, MARK]], 8, 8, [(0, 8, (2, 4, 6))]),
    ([[1, 1], [1, 1, MARK]], 8, 8, [(0, 5, (2,))]),
    # elsewhere a chunk ends before it, if it can
    ([[1, OTHER], [1, 1, 1, MARK], [1] * 5 + [MARK]], 6, 6, [(0, 6, (2,)), (6, 12, ())]),
    ([[1, OTHER], [1, OTHER], [1, MARK], [1, MARK], [1, MARK]], 6, 6, [(0, 4, (2,)), (4, 10, (6, 8))]),
    # cut between two letters
    ([[1, 1, ",", 1, 1, ",", 1, 1, ",", 1, 1]], 9, 9, [(0, 7, ()), (7, 11, ())]),
    # a lone last word gets another
    ([[1] * 8, [1]], 8, 8, [(0, 7, ()), (7, 9, (8,))]),
])
def test_pack(sentences, target, budget, chunks):
    assert [chunk[:3] for chunk in pack(document_of(*sentences), target, budget)] == chunks


@pytest.mark.parametrize("sentences, target, budget, chunks", [
    ([[1, 1, MARK]] * 2, 2, 8, [(0, 3), (3, 6)]),
    ([[1, MARK], [1] * 12], 8, 8, [(0, 2), (2, 10), (10, 14)]),
    ([[1] * 4, [1] * 4, [1]], 8, 8, [(0, 4), (4, 9)]),             # a lone last word gets a sentence
    ([[1] * 8, [1]], 8, 8, [(0, 5), (5, 9)]),                      # or words
    ([[1, 1, 1], [1]], 3, 8, [(0, 4)]),                            # or joins what has room
])
def test_pack_what_is_not_split(sentences, target, budget, chunks):
    found = pack(document_of(*sentences), target, budget, in_pairs=False)
    assert [chunk[:3] for chunk in found] == [(*chunk, ()) for chunk in chunks]


def test_empty_document_has_no_chunks():
    empty = TokenizedDocument(np.zeros(0, np.int32), np.zeros(0, bool), *[np.zeros(0, np.int32)] * 4)
    assert pack(empty, 8, 8) == []


@pytest.mark.parametrize("sentences, mark_starts, endings", [
    (["ab", "c"], [2, 3], [0, 0]),
    (["ab。", "c。。", "d；", "e"], [2, 4, 7, 9], ["。", "。", "；", 0]),
    (["a。”", "b”", "c。", "d。”"], [1, 4, 6, 8], ["。”", "”", "。", "。”"]),
    (["—", "”", "a"], [0, 1, 3], ["—", "”", 0]),                   # of marks alone
    ([], [], []),
])
def test_find_endings(sentences, mark_starts, endings):
    text = "".join(sentences)
    starts = np.cumsum([0] + list(map(len, sentences)))[:-1].astype(np.int32)
    found = find_endings(np.array(list(map(ord, text)), np.int32), starts,
                         np.array([not char.isalpha() for char in text], bool),
                         np.array([char == "”" for char in text], bool))
    assert found[0].tolist() == mark_starts
    by_ending = dict(zip(endings, found[1].tolist()))
    assert [by_ending[ending] for ending in endings] == found[1].tolist()
    assert len(set(by_ending.values())) == len(by_ending) and by_ending.get(0, 0) == 0


@pytest.mark.parametrize("lengths, limit, broken", [
    ([1, 2, 3], 3, [1, 2, 3]), ([7], 3, [3, 3, 1]), ([2, 6, 1], 3, [2, 3, 3, 1]), ([1], 1, [1])])
def test_break_giant_words(lengths, limit, broken):
    starts = document_of(lengths).word_starts
    before = starts.copy()
    assert break_giant_words(starts, limit).tolist() == document_of(broken).word_starts.tolist()
    assert starts.tolist() == before.tolist()


def test_no_words_to_break():
    assert break_giant_words(np.zeros(0, bool), 3).tolist() == []


@pytest.mark.parametrize("splits, draw, split", [
    ((4, 6), 0.0, 4), ((4, 6), 0.49, 4), ((4, 6), 0.5, 6), ((4, 6), 0.999, 6),
    # inside a sentence: words begin at 1, 3, and behind the marks at 8
    ((), 0.0, 1), ((), 0.34, 3), ((), 0.999, 8),
])
def test_choose_split(splits, draw, split):
    document = document_of([1, 2, 2, MARK], [2, 3, MARK, MARK])
    assert choose_split(document, Chunk(0, 13, splits, False), draw) == split


def test_sentences_of_one_word_are_split_between_them():
    assert choose_split(document_of([2], [3]), Chunk(0, 5, (), False), 0.5) == 2


def test_one_word_cannot_be_split():
    assert choose_split(document_of([3]), Chunk(0, 3, (), False), 0.5) == 0


def test_split_and_swap():
    document = document_of([1, 2], [3])
    kept = split_and_swap(document, Chunk(0, 6, (3,), False), 3, is_swapped=False)
    assert (kept.a_ids.tolist(), kept.b_ids.tolist(), kept.label) == ([0, 1, 2], [3, 4, 5], 0)
    assert (kept.a_word_starts.tolist(), kept.b_word_starts.tolist()) == ([True, True, False],
                                                                          [True, False, False])
    swapped = split_and_swap(document, Chunk(0, 6, (3,), False), 3, is_swapped=True)
    assert (swapped.a_ids.tolist(), swapped.b_ids.tolist(), swapped.label) == ([3, 4, 5], [0, 1, 2], 1)


def test_marks_that_differ_stay_in_their_places():
    document = document_of([1, OTHER], [1, 1, OTHER], [2, MARK])
    swapped = split_and_swap(document, Chunk(0, 8, (2, 5), False), 5, is_swapped=True)
    assert (swapped.a_ids.tolist(), swapped.b_ids.tolist()) == ([5, 6, 4], [0, 1, 2, 3, 7])
    assert (swapped.a_word_starts.tolist(), swapped.b_word_starts.tolist()) == (
        [True, False, True], [True, True, True, True, True])


def test_a_mark_that_is_the_only_one_ends_the_sample():
    document = document_of([2, 1, 3, MARK, MARK])
    kept, swapped = (split_and_swap(document, Chunk(0, 8, (), False), 2, is_swapped)
                     for is_swapped in (False, True))
    assert (kept.a_ids.tolist(), kept.b_ids.tolist()) == ([0, 1], [2, 3, 4, 5, 6, 7])
    assert (swapped.a_ids.tolist(), swapped.b_ids.tolist()) == ([2, 3, 4, 5], [0, 1, 6, 7])
    assert (swapped.a_word_starts.tolist(), swapped.b_word_starts.tolist()) == (
        [True, True, False, False], [True, False, True, True])


def test_a_segment_of_final_marks_alone_keeps_them():
    swapped = split_and_swap(document_of([2, MARK]), Chunk(0, 3, (), False), 2, is_swapped=True)
    assert (swapped.a_ids.tolist(), swapped.b_ids.tolist()) == ([2], [0, 1])


@pytest.mark.parametrize("sentences, target, is_cut", [
    ([[1, MARK]] * 4, 4, [False, False]),
    ([[1] * 6 + [MARK], [1] * 5 + [MARK], [1, MARK]], 10, [True, True]),
    ([[1] * 5], 10, [False]),
])
def test_chunks_that_begin_or_end_inside_a_sentence(sentences, target, is_cut):
    assert [chunk.is_cut for chunk in pack(document_of(*sentences), target, 10)] == is_cut


@pytest.mark.parametrize("chunk, split, is_cut", [
    (Chunk(0, 6, (3,), False), 3, False), (Chunk(0, 6, (3,), True), 3, True),
    (Chunk(0, 6, (), False), 2, True), (Chunk(0, 8, (), False), 6, False)])
def test_samples_that_are_cut_inside_a_sentence(chunk, split, is_cut):
    document = document_of([1, 1, MARK], [1, 1, 1], [1, 1])
    assert split_and_swap(document, chunk, split, is_swapped=True).is_cut == is_cut


def test_one_segment_has_an_empty_second():
    pair = split_and_swap(document_of([1, 2]), Chunk(0, 3, (), False), 3, is_swapped=False)
    assert pair.a_ids.tolist() == [0, 1, 2] and len(pair.b_ids) == len(pair.b_word_starts) == 0
