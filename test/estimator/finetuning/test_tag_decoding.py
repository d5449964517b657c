import itertools

import numpy as np
import pytest

from estimator.data.entities import Entity
from estimator.finetuning.tag_decoding import (
    OUT,
    Tagged,
    best_tags,
    can_be_found,
    entities_of,
    moves_of,
    num_tags,
    probabilities_of,
    tag_names,
    tags_of,
)

LABELS = ("x", "y")  # tags: O, B-x, I-x, B-y, I-y
SPANS = np.int32([[0, 1], [1, 2], [3, 7], [7, 8], [8, 8], [8, 9]])


def test_names_of_tags():
    assert tag_names(LABELS) == ["O", "B-x", "I-x", "B-y", "I-y"] and num_tags(2) == 5


@pytest.mark.parametrize(
    "entities, tags, found",
    [
        ([], [0, 0, 0, 0, 0, 0], 0),
        ([Entity(0, 2, "y"), Entity(3, 7, "x")], [3, 4, 1, 0, 0, 0], 2),
        ([Entity(0, 1, "x"), Entity(1, 2, "x")], [1, 1, 0, 0, 0, 0], 2),  # side by side
        ([Entity(1, 7, "x")], [0, 1, 2, 0, 0, 0], 1),  # over a character without a token
        ([Entity(3, 5, "x")], [0, 0, 1, 0, 0, 0], 0),  # ends within a token
        ([Entity(3, 4, "x"), Entity(4, 7, "y")], [0, 0, 3, 0, 0, 0], 0),  # share a token
        ([Entity(7, 9, "x")], [0, 0, 0, 1, 2, 2], 1),  # around a token without characters
        ([Entity(2, 3, "x")], [0, 0, 0, 0, 0, 0], 0),
    ],
)  # no token
def test_tags_of_entities(entities, tags, found):
    assert tags_of(entities, SPANS, LABELS).tolist() == tags
    assert can_be_found(entities, SPANS, LABELS) == found


def test_entities_of_tags():
    values = np.float32([0.5, 1, 0.25, 0, 0, 1])
    assert entities_of(np.array([3, 4, 1, 0, 0, 1]), SPANS, LABELS, values) == [
        Tagged(Entity(0, 2, "y"), 0.75),
        Tagged(Entity(3, 7, "x"), 0.25),
        Tagged(Entity(8, 9, "x"), 1.0),
    ]
    assert entities_of(np.array([], int), SPANS[:0], LABELS, values[:0]) == []


def best_by_trying(scores, moves):
    ways = itertools.product(range(scores.shape[1]), repeat=len(scores))

    def value(tags):
        steps = sum(moves.transitions[one, other] for one, other in zip(tags, tags[1:]))
        return moves.starts[tags[0]] + steps + sum(scores[place, tag] for place, tag in enumerate(tags))

    return list(max(ways, key=value))


@pytest.mark.parametrize("learned", [False, True])
def test_the_best_sequence_is_the_best_of_all_that_are_legal(learned):
    rng = np.random.RandomState(5)
    moves = moves_of(2, rng.randn(5, 5).astype(np.float32) if learned else None)
    scores, lengths = rng.randn(40, 4, 5).astype(np.float32), rng.randint(1, 5, 40)
    found = best_tags(scores, lengths, moves)
    for row, length, tags in zip(scores, lengths, found):
        assert tags[:length].tolist() == best_by_trying(row[:length], moves)
        assert (tags[length:] == OUT).all()
    assert best_tags(scores[:, :0], lengths * 0, moves).shape == (40, 0)


def test_illegal_moves():
    moves = moves_of(2)
    assert np.isneginf(moves.starts).tolist() == [False, False, True, False, True]
    assert np.isneginf(moves.transitions[:, 2]).tolist() == [True, False, False, True, True]
    assert np.isneginf(moves.transitions[:, 4]).tolist() == [True, True, True, False, False]
    assert np.isfinite(moves.transitions[:, [0, 1, 3]]).all()


def test_long_texts_lose_no_digits():
    scores = np.full((1, 20000, 3), 90, np.float32)
    scores[0, :, 0] += np.float32(2**-10)
    scores[0, 19999, 1] += 1
    assert np.flatnonzero(best_tags(scores, np.array([20000]), moves_of(1))[0]).tolist() == [19999]


def test_probabilities():
    scores = np.log(np.float32([[[1, 2, 1], [1, 1, 2]]])) + 100
    assert probabilities_of(scores, np.array([[1, 0]])) == pytest.approx(np.array([[0.5, 0.25]]), rel=1e-4)
