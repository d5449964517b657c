import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.samples.masking import (KEPT, MASKED, RANDOM, apply_mask, choose_permutation, choose_replacements,
                                 choose_runs, choose_words, find_words, num_to_predict)


def words_from(*samples, max_seq_length=60):
    """Words of the given lengths, segment behind segment, each behind a special token, sample by sample."""
    starts, is_text = np.zeros((2, len(samples), max_seq_length), bool)
    for row, segments in enumerate(samples):
        place = 0
        for lengths in segments:
            place += 1
            for length in lengths:
                starts[row, place], is_text[row, place:place + length] = True, True
                place += length
    return find_words(starts, is_text)


def chosen(words, limit, draws, runs=None, is_taken=None):
    """Positions of the tokens chosen in a single sample."""
    is_chosen = choose_words(words, np.array([limit]), np.array(draws), runs and np.array(runs), is_taken)
    return np.flatnonzero(words.tokens_of(is_chosen)).tolist()


SEGMENTS = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=8), min_size=1, max_size=3)


@pytest.mark.parametrize("num_tokens, prob, most, number", [
    (100, 0.15, 20, 15), (200, 0.15, 20, 20), (3, 0.15, 20, 1), (0, 0.15, 20, 1), (10, 0.25, 20, 2),
    (10, 0.26, 20, 3)])
def test_num_to_predict(num_tokens, prob, most, number):
    assert num_to_predict(np.array([num_tokens]), prob, most).tolist() == [number]


@pytest.mark.parametrize("starts, is_text, begins, lengths, segment_ends", [
    ([[0, 1, 0, 1, 1]], [[0, 1, 1, 1, 0]], [1, 3], [2, 1], [2, 2]), ([[0, 1]], [[0, 1]], [1], [1], [1]),
    ([[0, 0, 1, 0]], [[0, 1, 1, 0]], [1, 2], [1, 1], [2, 2]),  # a segment begins a word
    ([[0, 1, 1, 0, 1, 0, 0]], [[0, 1, 1, 0, 1, 1, 0]], [1, 2, 4], [1, 1, 2], [2, 2, 3]),  # as does the next
    ([[0, 1, 1], [0, 1, 0]], [[0, 1, 1], [0, 1, 1]], [1, 2, 4], [1, 1, 2], [2, 2, 3])])
def test_find_words(starts, is_text, begins, lengths, segment_ends):
    words = find_words(np.array(starts, dtype=bool), np.array(is_text, dtype=bool))
    assert (words.begins.tolist(), words.lengths.tolist(),
            words.segment_ends.tolist()) == (begins, lengths, segment_ends)
    assert words.samples.tolist() == [begin // len(starts[0]) for begin in begins]


@pytest.mark.parametrize("limit, positions", [
    (0, []), (1, [7]), (2, [1, 7]), (3, [5, 6, 7]), (4, [1, 5, 6, 7]), (9, list(range(1, 8)))])
def test_words_are_drawn_in_order_and_never_cut(limit, positions):
    words = words_from([[1, 3, 2, 1]])  # drawn last to first; the word of 3 tokens needs the room of three
    assert chosen(words, limit, [0.9, 0.8, 0.7, 0.1]) == positions


@pytest.mark.parametrize("run, limit, positions",
                         [(1, 3, [1]), (2, 3, [1, 2]), (3, 3, [1, 2, 3]), (3, 2, [1, 2])])
def test_first_run_of_words(run, limit, positions):
    assert chosen(words_from([[1, 1, 1, 40]]), limit, [0.1, 0.9, 0.8, 0.7],
                  [run, 1, 1, 1])[:len(positions)] == positions


def test_a_run_ends_with_its_segment():
    assert chosen(words_from([[1, 1], [1, 1]]), 3, [0.9, 0.1, 0.2, 0.8], [3] * 4) == [2, 4, 5]


def test_a_run_ends_where_a_word_is_taken():
    # word 1 alone, then a run from word 0, then word 3
    assert chosen(words_from([[1, 1, 1, 1]]), 3, [0.2, 0.1, 0.9, 0.5], [3, 1, 1, 1]) == [1, 2, 4]


def test_taken_words_are_not_chosen_again():
    taken = np.array([False, True, False, False])
    assert chosen(words_from([[1, 2, 1, 1]]), 9, [0.1, 0.2, 0.3, 0.4], [3] * 4, taken) == [1, 4, 5]


@given(st.lists(SEGMENTS, min_size=1, max_size=3), st.integers(1, 30), st.integers(1, 4),
       st.integers(0, 1 << 30))
def test_whole_words_within_the_limits(samples, limit, ngram, seed):
    words = words_from(*samples, max_seq_length=130)
    rng = np.random.Generator(np.random.PCG64(seed))
    draws, runs = rng.random(len(words.begins)), choose_runs(rng.random(len(words.begins)), ngram)
    limits = np.arange(limit, limit + len(samples))
    is_chosen = choose_words(words, limits, draws, runs)
    tokens = np.bincount(words.samples, words.lengths * is_chosen, len(samples))
    assert (tokens <= limits).all()
    assert words.tokens_of(is_chosen).sum(axis=1).tolist() == tokens.tolist()
    left = limits - tokens
    assert (words.lengths > left[words.samples])[~is_chosen].all()  # what was left out would not have fitted
    for number, sample in enumerate(samples):                       # and nothing depends on the neighbours
        own = words.samples == number
        alone = choose_words(words_from(sample, max_seq_length=130), limits[[number]], draws[own], runs[own])
        assert alone.tolist() == is_chosen[own].tolist()


@given(st.lists(SEGMENTS, min_size=1, max_size=3), st.integers(1, 30), st.integers(0, 1 << 30))
def test_single_words_equal_runs_of_one(samples, limit, seed):
    words = words_from(*samples, max_seq_length=130)
    rng = np.random.Generator(np.random.PCG64(seed))
    draws, is_taken, ones = (rng.random(len(words.begins)), rng.random(len(words.begins)) < 0.2,
                             np.ones(len(words.begins), int))
    limits = np.arange(limit, limit + len(samples))
    for taken in (None, is_taken):
        assert choose_words(words, limits, draws, None,
                            taken).tolist() == choose_words(words, limits, draws, ones, taken).tolist()


def test_no_word_fits():
    assert chosen(words_from([[3, 3]]), 2, [0.1, 0.2]) == []


def test_run_lengths_follow_1_over_n():
    draws = np.random.Generator(np.random.PCG64(7)).random(300000)
    runs = np.bincount(choose_runs(draws, 3), minlength=4)[1:]
    np.testing.assert_allclose(runs / runs.sum(), [6 / 11, 3 / 11, 2 / 11], atol=0.005)


@pytest.mark.parametrize("draw, ngram, run", [
    (0.0, 3, 1), (0.54, 3, 1), (0.55, 3, 2), (0.81, 3, 2), (0.82, 3, 3), (0.99, 1, 1)])
def test_choose_runs(draw, ngram, run):
    assert choose_runs(np.array([draw]), ngram).tolist() == [run]


def test_words_are_equally_likely():
    draws = np.random.Generator(np.random.PCG64(3)).random(50000)
    words = words_from(*[[[1] * 10]] * 5000, max_seq_length=11)
    is_chosen = choose_words(words, np.full(5000, 2), draws)
    np.testing.assert_allclose(is_chosen.reshape(5000, 10).mean(axis=0), [0.2] * 10, atol=0.03)


def test_choose_replacements():
    replaced, kinds = choose_replacements(np.array([7, 8, 9, 10], np.int32), 4, np.array([5, 6], np.int32),
                                          np.array([0.79, 0.8, 0.89, 0.9]), np.array([0.0, 0.0, 0.0, 0.5]))
    assert replaced.tolist() == [4, 8, 9, 6]
    assert kinds.tolist() == [MASKED, KEPT, KEPT, RANDOM]
    assert replaced.dtype == np.int32 and kinds.dtype == np.int8


def test_no_replacements():
    nothing = np.zeros(0)
    replaced, kinds = choose_replacements(np.zeros(0, np.int32), 4, np.array([5], np.int32), nothing, nothing)
    assert replaced.tolist() == kinds.tolist() == []


def test_80_10_10():
    ids = np.full(200000, 7, np.int32)
    replaceable = np.arange(5, 25, dtype=np.int32)
    rng = np.random.Generator(np.random.PCG64(1))
    replaced, kinds = choose_replacements(ids, 4, replaceable, rng.random(200000), rng.random(200000))
    np.testing.assert_allclose(np.bincount(kinds) / len(ids), [0.1, 0.8, 0.1], atol=0.005)
    assert set(replaced[kinds == MASKED]) == {4} and set(replaced[kinds == KEPT]) == {7}
    random_ids = np.bincount(replaced[kinds == RANDOM], minlength=25)
    assert random_ids[:5].sum() == 0
    np.testing.assert_allclose(random_ids[5:] / random_ids.sum(), [0.05] * 20, atol=0.01)


def test_choose_permutation():
    ids, samples = np.array([7, 8, 9, 5, 6], np.int32), np.array([0, 0, 0, 2, 2])
    assert choose_permutation(ids, samples, np.array([0.5, 0.9, 0.1, 0.4, 0.3])).tolist() == [9, 7, 8, 6, 5]
    assert choose_permutation(ids[:0], samples[:0], np.zeros(0)).tolist() == []


def test_apply_mask_leaves_its_input():
    ids = np.array([[1, 2], [3, 4]], np.int32)
    assert apply_mask(ids, np.array([[True, False],
                                     [False, True]]), np.array([9, 8], np.int32)).tolist() == [[9, 2], [3, 8]]
    assert apply_mask(ids, np.zeros((2, 2), bool), np.zeros(0, np.int32)).tolist() == [[1, 2], [3, 4]]
    assert ids.tolist() == [[1, 2], [3, 4]]
