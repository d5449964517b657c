"""Which tokens are predicted, and their replacements. Choosing takes random numbers; applying does not."""
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

# What happens to a predicted token: 10 %, 80 %, 10 % of the masked ones; PERMUTED ones are additional.
KEPT, MASKED, RANDOM, PERMUTED = 0, 1, 2, 3


class Words(NamedTuple):
    """The words of several samples, in the order of their tokens; special tokens belong to none.

    Attributes:
      shape: (samples, max_seq_length) of the token arrays.
      begins: int64 [words], where each word begins in the flattened array.
      lengths: int64 [words], tokens of each.
      samples: int64 [words], the sample of each.
      segment_ends: int64 [words], the index after the last word of each one's segment.
    """
    shape: Tuple[int, int]
    begins: np.ndarray
    lengths: np.ndarray
    samples: np.ndarray
    segment_ends: np.ndarray

    def tokens_of(self, chosen: np.ndarray) -> np.ndarray:
        """The tokens of the words that are True in `chosen`: bool [samples, max_seq_length]."""
        edges = np.zeros(self.shape[0] * self.shape[1] + 1, np.int8)
        edges[self.begins[chosen]] = 1
        edges[(self.begins + self.lengths)[chosen]] -= 1
        return np.cumsum(edges[:-1], dtype=np.int8).view(bool).reshape(self.shape)


def num_to_predict(num_tokens: np.ndarray, masked_lm_prob: float, max_predictions: int) -> np.ndarray:
    """How many tokens to predict: the given share, at least 1, at most `max_predictions` (Devlin et al. 2018,
    data code)."""
    return np.clip(np.rint(num_tokens * masked_lm_prob), 1, max_predictions).astype(np.int32)


def find_words(word_starts: np.ndarray, is_text: np.ndarray) -> Words:
    """The words of samples: both bool [samples, max_seq_length]; False in `is_text` separates segments and is
    in no word."""
    begins_segment = is_text.copy()
    begins_segment[:, 1:] &= ~is_text[:, :-1]
    places = np.flatnonzero(word_starts | begins_segment | ~is_text)
    holds_word = is_text.ravel()[places]
    begins = places[holds_word]
    segments = np.cumsum(begins_segment.ravel()[begins])
    return Words(is_text.shape, begins, np.diff(np.append(places, is_text.size))[holds_word],
                 begins // is_text.shape[1],
                 np.searchsorted(segments, segments, side="right"))


def choose_words(words: Words, limits: np.ndarray, draws: np.ndarray, runs: Optional[np.ndarray] = None,
                 is_taken: Optional[np.ndarray] = None) -> np.ndarray:
    """Takes whole words in the order of their draws, in runs inside one segment, until each sample's limit
    is reached.

    A run that would exceed the limit or reach a chosen word is shortened from its end, and skipped if nothing
    remains.

    Args:
      limits: int [samples], maximum tokens to choose.
      draws: uniform [words].
      runs: int [words], length of the run that begins with each word; all 1 by default.
      is_taken: bool [words], words that must not be chosen.

    Returns:
      bool [words]; none if every word of a sample is longer than its limit.
    """
    order = np.argsort((words.samples << 46) | (draws * 2.0 ** 46).astype(np.int64),
                       kind="stable")    # sample by sample
    if is_taken is not None:
        order = order[~is_taken[order]]
    return _choose_single(words, limits,
                          order) if runs is None else _choose_runs(words, limits, order, runs, is_taken)


def _choose_single(words: Words, limits: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Words one by one. In each sample all words up to the first that does not fit are taken at once; that
    one is skipped, and so on."""
    is_chosen = np.zeros(len(words.begins), dtype=bool)
    room = limits.copy()
    while True:
        order = order[words.lengths[order] <= room[words.samples[order]]]
        if not len(order):
            return is_chosen
        samples, totals = words.samples[order], np.cumsum(words.lengths[order])
        begins = np.searchsorted(samples, samples)             # of each word's sample
        fits = totals - np.append(0, totals)[begins] <= room[samples]
        chosen, order = order[fits], order[~fits]
        is_chosen[chosen] = True
        room -= np.bincount(words.samples[chosen], words.lengths[chosen], len(room)).astype(room.dtype)


def _choose_runs(words: Words, limits: np.ndarray, order: np.ndarray, runs: np.ndarray,
                 is_taken: Optional[np.ndarray]) -> np.ndarray:
    """Runs of words one by one, since each may reach another."""
    ends_of_runs = np.minimum(np.arange(len(runs)) + runs, words.segment_ends).tolist()
    closed = [False] * len(runs) if is_taken is None else is_taken.tolist()
    lengths = words.lengths.tolist()
    chosen: List[int] = []
    ends = np.searchsorted(words.samples[order], np.arange(words.shape[0]), side="right").tolist()
    for begin, end, room in zip([0] + ends, ends, limits.tolist()):
        for first in order[begin:end].tolist():
            index, run_end = first, ends_of_runs[first]
            while index < run_end and not closed[index] and lengths[index] <= room:
                closed[index] = True
                chosen.append(index)
                room -= lengths[index]
                index += 1
            if not room:
                break
    is_chosen = np.zeros(len(runs), dtype=bool)
    is_chosen[chosen] = True
    return is_chosen


def choose_runs(draws: np.ndarray, ngram: int) -> np.ndarray:
    """Lengths of runs of words, 1 to `ngram`, with p(k) ∝ 1/k (ALBERT, Lan et al. 2019, section 4.1:
    n-gram masking)."""
    shares = np.cumsum([1.0 / k for k in range(1, ngram + 1)])
    return 1 + np.searchsorted(shares / shares[-1], draws, side="right")


def choose_replacements(token_ids: np.ndarray, mask_id: int, replaceable_ids: np.ndarray,
                        kind_draws: np.ndarray, id_draws: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """For each predicted token on its own: 80 % [MASK], 10 % itself, 10 % a random token (Devlin et al.
    2018, 3.1).

    Args:
      token_ids: int32 [predictions], the tokens to predict.
      replaceable_ids: int32, allowed random replacements: never special or unused tokens.
      kind_draws, id_draws: uniform [predictions].

    Returns:
      (int32 [predictions] replacements, int8 [predictions] KEPT, MASKED or RANDOM).
    """
    kinds = np.where(kind_draws < 0.8, MASKED, np.where(kind_draws < 0.9, KEPT, RANDOM)).astype(np.int8)
    random_ids = replaceable_ids[(id_draws * len(replaceable_ids)).astype(np.int64)]
    return np.where(kinds == MASKED, np.int32(mask_id), np.where(kinds == KEPT, token_ids, random_ids)), kinds


def choose_permutation(token_ids: np.ndarray, samples: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The same tokens in a random order inside each sample (ALBERT's data code, do_permutation); int32,
    same shape.

    Args:
      samples: int [tokens], ascending, the sample of each token.
      draws: uniform [tokens].
    """
    return token_ids[np.lexsort((draws, samples))]


def apply_mask(token_ids: np.ndarray, is_predicted: np.ndarray, replacements: np.ndarray) -> np.ndarray:
    """A copy of `token_ids` with `replacements`, one per token that is True in `is_predicted`; int32, same
    shape."""
    masked = token_ids.copy()
    masked[is_predicted] = replacements
    return masked
