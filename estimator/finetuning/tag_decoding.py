"""Labels of entities ↔ tags of tokens, and scores of tags → the best sequence of tags that spells entities.

A label has two tags, B at the first token of an entity and I at the others; O is outside: label n has tags
2n + 1 and 2n + 2, O is 0. An I continues its own label, and nothing else. `serving.exporting.tagging_graph`
does the same inside the served graph; a test holds the two together.
"""
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from estimator.data.entities import OUTSIDE, Entity

OUT = 0


class Moves(NamedTuple):
    """Scores of sequences of tags, besides those of the tokens; -inf for what is no sequence.

    Attributes:
      starts: float32 [tags], of the first tag.
      transitions: float32 [tags, tags], of the second after the first.
    """
    starts: np.ndarray
    transitions: np.ndarray


class Tagged(NamedTuple):
    """An entity that was found. score: mean probability of its tokens' tags."""
    entity: Entity
    score: float


def num_tags(num_labels: int) -> int:
    return 2 * num_labels + 1


def tag_names(labels: Sequence[str]) -> List[str]:
    """`x, y` → O, B-x, I-x, B-y, I-y."""
    return [OUTSIDE] + [mark + label for label in labels for mark in ("B-", "I-")]


def moves_of(num_labels: int, learned: Optional[np.ndarray] = None) -> Moves:
    """What may follow what; `learned`: a CRF's transitions, float32 [tags, tags]."""
    tags = np.arange(num_tags(num_labels))
    is_inside = (tags > 0) & (tags % 2 == 0)
    continues = is_inside & ((tags[:, np.newaxis] == tags) | (tags[:, np.newaxis] == tags - 1))
    low = np.float32(-np.inf)
    transitions = np.zeros((len(tags), len(tags)), np.float32) if learned is None else learned
    return Moves(np.where(is_inside, low, np.float32(0)), np.where(is_inside & ~continues, low, transitions))


def best_tags(scores: np.ndarray, lengths: np.ndarray, moves: Moves) -> np.ndarray:
    """The sequences of highest score, by Viterbi's algorithm: int64 [texts, length], OUT behind each text's
    end. Of equal ones the lower tags win, from the end backwards.

    Args:
      scores: float32 [texts, length, tags].
      lengths: int [texts].
    """
    num_texts, length, count = scores.shape
    tags = np.zeros((num_texts, length), np.int64)
    if not length:
        return tags
    best = scores[:, 0] + moves.starts
    before = np.tile(np.arange(count, dtype=np.min_scalar_type(count)), (length, num_texts, 1))
    for place in range(1, length):
        best = best - best.max(axis=1, keepdims=True)  # else long texts would lose digits
        ways = best[:, :, np.newaxis] + moves.transitions
        is_in = (place < lengths)[:, np.newaxis]
        before[place] = np.where(is_in, ways.argmax(axis=1), before[place])
        best = np.where(is_in, ways.max(axis=1) + scores[:, place], best)
    tag = best.argmax(axis=1)
    for place in reversed(range(length)):
        tags[:, place] = tag
        tag = np.take_along_axis(before[place], tag[:, np.newaxis], axis=1)[:, 0]
    return np.where(np.arange(length) < np.asarray(lengths)[:, np.newaxis], tags, OUT)


def probabilities_of(scores: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Of each token's tag among all, a softmax over the scores of the token alone: float32 as `tags`."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    chosen = np.take_along_axis(weights, tags[..., np.newaxis], axis=-1)[..., 0]
    return chosen / weights.sum(axis=-1)


def tags_of(entities: Sequence[Entity], spans: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """The tag of each token: int32 [tokens].

    A token belongs to the entity that has most of its characters, the first of several; so does one without
    characters of its own inside an entity.

    Args:
      entities: ascending, none overlapping another.
      spans: int32 [tokens, 2], ascending: the characters of each token.
      labels: by number.
    """
    owners = np.full(len(spans), -1)
    most = np.zeros(len(spans), np.int64)
    for number, entity in enumerate(entities):
        first, last = _tokens_of(entity, spans)
        shared = np.minimum(spans[first:last, 1], entity.end) - np.maximum(spans[first:last, 0], entity.start)
        shared = np.maximum(shared, 1)
        is_more = shared > most[first:last]
        owners[first:last] = np.where(is_more, number, owners[first:last])
        most[first:last] = np.maximum(shared, most[first:last])
    number_of = {label: number for number, label in enumerate(labels)}
    inside = np.array([2 * number_of[entity.label] + 2 for entity in entities] + [OUT], np.int32)
    is_first = (owners >= 0) & (owners != np.concatenate([[-1], owners[:-1]]))
    return inside[owners] - is_first.astype(np.int32)


def entities_of(tags: np.ndarray, spans: np.ndarray, labels: Sequence[str],
                probabilities: np.ndarray) -> List[Tagged]:
    """The entities that a sequence of tags spells, one that `best_tags` gives: each from its first token's
    first to its last token's last character.

    Args:
      tags, probabilities: [tokens].
      spans, labels: as above.
    """
    begins = np.flatnonzero(tags % 2 == 1)
    is_inside = np.append((tags > 0) & (tags % 2 == 0), False)
    ends = [begin + 1 + int(np.argmin(is_inside[begin + 1:])) for begin in begins]
    return [Tagged(Entity(int(spans[begin, 0]), int(spans[end - 1, 1]), labels[tags[begin] // 2]),
                   float(probabilities[begin:end].mean())) for begin, end in zip(begins, ends)]


def decoded(
    texts: Sequence[Tuple[np.ndarray, np.ndarray]], moves: Moves, labels: Sequence[str]
) -> List[List[Tagged]]:
    """The entities of each text, of which `texts` has scores, float32 [tokens, tags], and spans, int32
    [tokens, 2]."""
    lengths = np.array([len(scores) for scores, _ in texts], np.int64)
    scores = np.zeros((len(texts), lengths.max(initial=0), len(moves.starts)), np.float32)
    for row, (values, _) in enumerate(texts):
        scores[row, :len(values)] = values
    tags = best_tags(scores, lengths, moves)
    probabilities = probabilities_of(scores, tags)
    return [
        entities_of(tags[row, :length], spans, labels, probabilities[row])
        for row, (length, (_, spans)) in enumerate(zip(lengths, texts))
    ]


def can_be_found(entities: Sequence[Entity], spans: np.ndarray, labels: Sequence[str]) -> int:
    """How many of the entities the right tags spell: not those that begin or end within a token."""
    tags = tags_of(entities, spans, labels)
    found = entities_of(tags, spans, labels, np.ones(len(tags)))
    return len(set(entities) & {tagged.entity for tagged in found})


def _tokens_of(entity: Entity, spans: np.ndarray) -> Tuple[int, int]:
    """The tokens, from the first to behind the last, that have characters of the entity."""
    return (
        int(np.searchsorted(spans[:, 1], entity.start, side="right")),
        int(np.searchsorted(spans[:, 0], entity.end, side="left")),
    )
