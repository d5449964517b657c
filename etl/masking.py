"""Which tokens are predicted, and what stands in their place. Choosing uses the random numbers; applying does not."""
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

# What happens to a predicted token: 10 %, 80 %, 10 % of those that are masked; PERMUTED ones come on top.
KEPT, MASKED, RANDOM, PERMUTED = 0, 1, 2, 3


class Words(NamedTuple):
    """The words of a sample, segment after segment; special tokens are in none.

    Attributes:
      positions: int32 [tokens], where each token stands in the sample.
      lengths: int32 [words], tokens of each word, in the same order.
      segment_ends: int32 [words], the index behind the last word of the segment that the word is in.
    """
    positions: np.ndarray
    lengths: np.ndarray
    segment_ends: np.ndarray


def num_to_predict(num_tokens: int, masked_lm_prob: float, max_predictions: int) -> int:
    """How many tokens to predict: the given share, at least 1, at most `max_predictions` (Devlin et al. 2018, data code)."""
    return min(max_predictions, max(1, int(round(num_tokens * masked_lm_prob))))


def find_words(*segments: Tuple[int, np.ndarray]) -> Words:
    """The words of segments, each given as (position of its first token, bool word starts). A segment begins a word."""
    positions, lengths, segment_ends, count = [], [], [], 0
    for begin, word_starts in segments:
        if not len(word_starts):
            continue
        begins = np.flatnonzero(word_starts)
        if not len(begins) or begins[0]:
            begins = np.append(0, begins)
        count += len(begins)
        positions.append(np.arange(begin, begin + len(word_starts), dtype=np.int32))
        lengths.append(begins[1:] - begins[:-1])
        lengths.append([len(word_starts) - begins[-1]])
        segment_ends.append(np.full(len(begins), count, dtype=np.int32))
    return Words(np.concatenate(positions), np.concatenate(lengths), np.concatenate(segment_ends))


def choose_words(words: Words, limit: int, rng: np.random.Generator, ngram: int = 1,
                 taken_positions: Sequence[int] = ()) -> np.ndarray:
    """Draws whole words, in runs of up to `ngram` inside one segment, until `limit` tokens are reached.

    A run of k words is drawn with p(k) ∝ 1/k (ALBERT, Lan et al. 2019, section 4.1: n-gram masking); one that would pass the
    limit or meet a chosen word is shortened from its end, and left out when nothing remains.

    Args:
      limit: most tokens to choose.
      ngram: longest run.
      taken_positions: words that begin at one of these are not chosen.

    Returns:
      int32 [predictions], ascending positions, at most `limit`; empty when every word is longer than `limit`.
    """
    lengths, segment_ends = words.lengths.tolist(), words.segment_ends.tolist()
    order = np.argsort(rng.random(len(lengths)), kind="stable").tolist()
    runs = _draw_runs(len(lengths), ngram, rng) if ngram > 1 else [1] * len(lengths)
    taken = [False] * len(lengths)
    used = list(taken)
    if len(taken_positions):
        used = np.isin(words.positions[np.cumsum(words.lengths) - words.lengths], taken_positions).tolist()
    room = limit
    for first, run in zip(order, runs):
        for index in range(first, min(first + run, segment_ends[first])):
            if taken[index] or used[index] or lengths[index] > room:
                break
            taken[index] = True
            room -= lengths[index]
        if not room:
            break
    return words.positions[np.repeat(np.array(taken, dtype=bool), words.lengths)]


def _draw_runs(count: int, ngram: int, rng: np.random.Generator) -> List[int]:
    shares = np.cumsum([1.0 / k for k in range(1, ngram + 1)])
    return (1 + np.searchsorted(shares / shares[-1], rng.random(count), side="right")).tolist()


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
    return np.where(kinds == MASKED, np.int32(mask_id), np.where(kinds == KEPT, token_ids, random_ids)), kinds


def choose_permutation(token_ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same tokens in a random order (ALBERT's data code, do_permutation); int32, same shape."""
    return token_ids[np.argsort(rng.random(len(token_ids)), kind="stable")]


def apply_mask(token_ids: np.ndarray, positions: np.ndarray, replacements: np.ndarray) -> np.ndarray:
    """A copy of `token_ids` with `replacements` at `positions`; int32, same shape."""
    masked = token_ids.copy()
    masked[positions] = replacements
    return masked
