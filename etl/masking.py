"""Which tokens are predicted, and what stands in their place. Choosing uses the random numbers; applying does not."""
from typing import NamedTuple, Sequence, Tuple

import numpy as np

# What happens to a predicted token: 10 %, 80 %, 10 % of those that are masked; PERMUTED ones come on top.
KEPT, MASKED, RANDOM, PERMUTED = 0, 1, 2, 3


class Word(NamedTuple):
    """Tokens [begin, end) that are predicted together."""
    begin: int
    end: int


def num_to_predict(num_tokens: int, masked_lm_prob: float, max_predictions: int) -> int:
    """How many tokens to predict: the given share, at least 1, at most `max_predictions` (Devlin et al. 2018, data code)."""
    return min(max_predictions, max(1, int(round(num_tokens * masked_lm_prob))))


def words_of_segment(word_starts: np.ndarray, shift: int) -> Sequence[Word]:
    """The words of one segment that stands at `shift` in the sample. A segment's first token always begins a word."""
    begins = np.flatnonzero(word_starts)
    if len(word_starts) and (not len(begins) or begins[0]):
        begins = np.concatenate(([0], begins))
    edges = (np.append(begins, len(word_starts)) + shift).tolist()
    return [Word(begin, end) for begin, end in zip(edges[:-1], edges[1:])]


def choose_words(segments: Sequence[Sequence[Word]], limit: int, rng: np.random.Generator, ngram: int = 1,
                 taken_positions: Sequence[int] = ()) -> np.ndarray:
    """Draws whole words, in runs of up to `ngram` inside one segment, until `limit` tokens are reached.

    A run of k words is drawn with p(k) ∝ 1/k (ALBERT, Lan et al. 2019, section 4.1: n-gram masking); one that would pass the
    limit or meet a chosen word is shortened from its end, and left out when nothing remains.

    Args:
      segments: the words of each segment.
      limit: most tokens to choose.
      ngram: longest run.
      taken_positions: words that begin at one of these are not chosen.

    Returns:
      int32 [predictions], ascending positions, at most `limit`; empty when every word is longer than `limit`.
    """
    words = [word for segment in segments for word in segment]
    segment_end = [end for segment, end in zip(segments, np.cumsum([len(segment) for segment in segments]))
                   for _ in segment]
    order = np.argsort(rng.random(len(words)), kind="stable")
    shares = np.cumsum([1.0 / k for k in range(1, ngram + 1)])
    runs = 1 + np.searchsorted(shares / shares[-1], rng.random(len(words)), side="right")
    used = np.isin([word.begin for word in words], taken_positions)
    taken = np.zeros(len(words), dtype=bool)
    room = limit
    for first, run in zip(order.tolist(), runs.tolist()):
        for index in range(first, min(first + run, segment_end[first])):
            length = words[index].end - words[index].begin
            if taken[index] or used[index] or length > room:
                break
            taken[index] = True
            room -= length
        if not room:
            break
    positions = [position for index in np.flatnonzero(taken) for position in range(*words[index])]
    return np.array(positions, dtype=np.int32)


def choose_replacements(token_ids: np.ndarray, mask_id: int, replaceable_ids: np.ndarray,
                        rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
    """For each predicted token on its own: 80 % [MASK], 10 % itself, 10 % a random token (Devlin et al. 2018, 3.1).

    Args:
      token_ids: int32 [predictions], the tokens to be predicted.
      replaceable_ids: int32, what a random replacement may be: never special or unused tokens.

    Returns:
      (int32 [predictions] what stands there instead, int8 [predictions] KEPT, MASKED or RANDOM).
    """
    draws = rng.random(len(token_ids))
    kinds = np.where(draws < 0.8, MASKED, np.where(draws < 0.9, KEPT, RANDOM)).astype(np.int8)
    random_ids = replaceable_ids[(rng.random(len(token_ids)) * len(replaceable_ids)).astype(np.int64)]
    return np.choose(kinds, [token_ids, np.full_like(token_ids, mask_id), random_ids]), kinds


def choose_permutation(token_ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same tokens in a random order (ALBERT's data code, do_permutation); int32, same shape."""
    return token_ids[np.argsort(rng.random(len(token_ids)), kind="stable")]


def apply_mask(token_ids: np.ndarray, positions: np.ndarray, replacements: np.ndarray) -> np.ndarray:
    """A copy of `token_ids` with `replacements` at `positions`; int32, same shape."""
    masked = token_ids.copy()
    masked[positions] = replacements
    return masked
