import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.masking import (KEPT, MASKED, RANDOM, apply_mask, choose_permutation, choose_replacements, choose_words, find_words,
                         num_to_predict)


class Draws:
    """Stands for a random generator: gives prepared numbers."""

    def __init__(self, *arrays):
        self._arrays = list(arrays)

    def random(self, size):
        array = np.array(self._arrays.pop(0))
        assert len(array) == size
        return array


def words_from(*segments, begin=0):
    """Words of the given lengths, segment behind segment, with a [SEP] between."""
    found = []
    for lengths in segments:
        found.append((begin, np.array([place == 0 for length in lengths for place in range(length)], dtype=bool)))
        begin += sum(lengths) + 1
    return find_words(*found)


SEGMENTS = st.lists(st.lists(st.integers(1, 5), max_size=8), min_size=1, max_size=3).filter(any)


@pytest.mark.parametrize("num_tokens, prob, most, number", [
    (100, 0.15, 20, 15), (200, 0.15, 20, 20), (3, 0.15, 20, 1), (0, 0.15, 20, 1), (10, 0.25, 20, 2), (10, 0.26, 20, 3)])
def test_num_to_predict(num_tokens, prob, most, number):
    assert num_to_predict(num_tokens, prob, most) == number


@pytest.mark.parametrize("segments, positions, lengths, segment_ends", [
    ([(1, [1, 0, 1])], [1, 2, 3], [2, 1], [2, 2]), ([(5, [1])], [5], [1], [1]),
    ([(0, [0, 0, 1])], [0, 1, 2], [2, 1], [2, 2]), ([(2, [0])], [2], [1], [1]),
    ([(1, [1, 1]), (4, [1, 0])], [1, 2, 4, 5], [1, 1, 2], [2, 2, 3]), ([(1, [1]), (3, [])], [1], [1], [1])])
def test_find_words(segments, positions, lengths, segment_ends):
    words = find_words(*[(begin, np.array(starts, dtype=bool)) for begin, starts in segments])
    assert (words.positions.tolist(), words.lengths.tolist(), words.segment_ends.tolist()) == (positions, lengths, segment_ends)


@pytest.mark.parametrize("limit, positions", [(1, [6]), (2, [0, 6]), (3, [4, 5, 6]), (4, [0, 4, 5, 6]), (9, list(range(7)))])
def test_words_are_drawn_in_order_and_never_cut(limit, positions):
    words = words_from([1, 3, 2, 1])           # drawn last to first; the word of 3 tokens needs the room of three
    rng = Draws([0.9, 0.8, 0.7, 0.1])
    assert choose_words(words, limit, rng).tolist() == positions


@pytest.mark.parametrize("draw, limit, positions", [
    (0.0, 3, [1]), (0.54, 3, [1]), (0.55, 3, [1, 2]), (0.81, 3, [1, 2]), (0.82, 3, [1, 2, 3]),
    (0.99, 2, [1, 2]),                         # shortened from its end by the limit
])
def test_first_run_of_words(draw, limit, positions):
    words = words_from([1, 1, 1, 50], begin=1)
    rng = Draws([0.1, 0.9, 0.8, 0.7], [draw, 0.0, 0.0, 0.0])
    chosen = choose_words(words, limit, rng, ngram=3).tolist()
    assert chosen[:len(positions)] == positions


def test_a_run_ends_with_its_segment():
    rng = Draws([0.9, 0.1, 0.2, 0.8], [0.99] * 4)
    assert choose_words(words_from([1, 1], [1, 1], begin=1), 3, rng, ngram=3).tolist() == [2, 4, 5]


def test_a_run_ends_where_a_word_is_taken():
    rng = Draws([0.2, 0.1, 0.9, 0.5], [0.0, 0.99, 0.0, 0.0])               # word 1 alone, then a run from word 0, then word 3
    assert choose_words(words_from([1, 1, 1, 1]), 3, rng, ngram=3).tolist() == [0, 1, 3]


@given(SEGMENTS, st.integers(1, 30), st.integers(1, 4), st.integers(0, 1 << 30))
def test_whole_words_within_the_limit(lengths, limit, ngram, seed):
    words = words_from(*lengths, begin=1)
    positions = choose_words(words, limit, np.random.Generator(np.random.PCG64(seed)), ngram)
    assert positions.dtype == np.int32
    assert len(positions) <= limit
    assert positions.tolist() == sorted(set(positions.tolist()))
    whole = np.split(words.positions, np.cumsum(words.lengths)[:-1])
    taken = [word for word in whole if word[0] in positions]
    assert np.concatenate(taken + [[]]).tolist() == positions.tolist()
    left = [len(word) for word in whole if word[0] not in positions]
    assert all(length > limit - len(positions) for length in left)          # what was left out would not have fitted


def test_taken_words_are_not_chosen_again():
    words = words_from([1, 2, 1, 1])
    rng = Draws([0.1, 0.2, 0.3, 0.4], [0.99] * 4)
    assert choose_words(words, 9, rng, ngram=3, taken_positions=[1, 2]).tolist() == [0, 3, 4]


def test_no_room_no_words():
    assert choose_words(words_from([1, 1]), 0, Draws([0.1, 0.2])).tolist() == []


def test_same_seed_same_words():
    words = words_from([1, 2, 3] * 20)
    first, again, other = (choose_words(words, 20, np.random.Generator(np.random.PCG64(seed)), 3).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_no_word_fits():
    assert choose_words(words_from([3, 3]), 2, np.random.Generator(np.random.PCG64(0))).tolist() == []


def test_run_lengths_follow_1_over_n():
    words = words_from([1] * 300000)           # so many that runs seldom touch
    positions = choose_words(words, 4000, np.random.Generator(np.random.PCG64(7)), ngram=3)
    edges = np.flatnonzero(np.diff(np.concatenate(([-2], positions, [1 << 30]))) > 1)
    runs = np.bincount(np.diff(edges), minlength=4)[1:4]
    np.testing.assert_allclose(runs / runs.sum(), [6 / 11, 3 / 11, 2 / 11], atol=0.03)


def test_words_are_equally_likely():
    rng = np.random.Generator(np.random.PCG64(3))
    counts = sum(np.bincount(choose_words(words_from([1] * 10), 2, rng), minlength=10) for _ in range(5000))
    np.testing.assert_allclose(counts / 5000, [0.2] * 10, atol=0.03)


def test_choose_replacements():
    replaced, kinds = choose_replacements(np.array([7, 8, 9, 10], np.int32), 4, np.array([5, 6], np.int32),
                                          Draws([0.79, 0.8, 0.89, 0.9], [0.0, 0.0, 0.0, 0.5]))
    assert replaced.tolist() == [4, 8, 9, 6]
    assert kinds.tolist() == [MASKED, KEPT, KEPT, RANDOM]
    assert replaced.dtype == np.int32 and kinds.dtype == np.int8


def test_no_replacements():
    replaced, kinds = choose_replacements(np.zeros(0, np.int32), 4, np.array([5], np.int32), Draws([], []))
    assert replaced.tolist() == kinds.tolist() == []


def test_80_10_10():
    ids = np.full(200000, 7, np.int32)
    replaceable = np.arange(5, 25, dtype=np.int32)
    replaced, kinds = choose_replacements(ids, 4, replaceable, np.random.Generator(np.random.PCG64(1)))
    np.testing.assert_allclose(np.bincount(kinds) / len(ids), [0.1, 0.8, 0.1], atol=0.005)
    assert set(replaced[kinds == MASKED]) == {4} and set(replaced[kinds == KEPT]) == {7}
    random_ids = np.bincount(replaced[kinds == RANDOM], minlength=25)
    assert random_ids[:5].sum() == 0
    np.testing.assert_allclose(random_ids[5:] / random_ids.sum(), [0.05] * 20, atol=0.01)


def test_choose_permutation():
    assert choose_permutation(np.array([7, 8, 9], np.int32), Draws([0.5, 0.9, 0.1])).tolist() == [9, 7, 8]
    assert choose_permutation(np.zeros(0, np.int32), Draws([])).tolist() == []


def test_apply_mask_leaves_its_input():
    ids = np.array([1, 2, 3], np.int32)
    assert apply_mask(ids, np.array([0, 2]), np.array([9, 8], np.int32)).tolist() == [9, 2, 8]
    assert apply_mask(ids, np.zeros(0, np.int32), np.zeros(0, np.int32)).tolist() == [1, 2, 3]
    assert ids.tolist() == [1, 2, 3]
