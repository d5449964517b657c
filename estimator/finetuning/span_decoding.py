"""Logits of where an answer begins and ends → the best answers of a question, over its passage's windows.

`serving.exporting.reading_graph` does the same inside the served graph; a test holds the two together. A
score is the sum of both logits, float32. Of equal scores the best is the one whose answer begins, then ends,
first; scores that differ by less than TIE are equal, since the same logits computed in another batch differ
by rounding.
"""
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

TIE = np.float32(1e-4)


class Candidate(NamedTuple):
    """A part of a passage, in characters, that may be the answer."""
    begin: int
    end: int
    start_logit: np.float32
    end_logit: np.float32

    @property
    def score(self) -> np.float32:
        return self.start_logit + self.end_logit


def best_of_window(start_logits: np.ndarray, end_logits: np.ndarray, spans: np.ndarray,
                   max_answer_length: int, count: int) -> List[Candidate]:
    """The best `count` answers in a window, the best first.

    Args:
      start_logits, end_logits: float32 [length].
      spans: int32 [length, 2]; see windows.Window.
      max_answer_length: tokens of an answer.
    """
    length = len(spans)
    in_text = spans[:, 1] > spans[:, 0]
    starts = np.flatnonzero(in_text)
    ends = starts[:, np.newaxis] + np.arange(min(max_answer_length, length))
    inside = ends < length
    ends = np.where(inside, ends, 0)
    inside &= in_text[ends]
    scores = np.where(inside, start_logits[starts, np.newaxis] + end_logits[ends], -np.inf)
    flat = scores.ravel()
    if not len(flat):
        return []
    floor = min(np.partition(flat, -count)[-count], flat.max() - TIE) if count < len(flat) else -np.inf
    found = [
        Candidate(int(spans[starts[row], 0]), int(spans[ends[row, column], 1]), start_logits[starts[row]],
                  end_logits[ends[row, column]])
        for row, column in zip(*np.nonzero((scores >= floor) & np.isfinite(scores)))
    ]
    return _best_first(found)[:count]


def best_of_windows(windows: Iterable[Sequence[Candidate]], count: int) -> List[Candidate]:
    """The best `count` answers of all windows, each once, with the logits of the window where it is best; of
    each window the best come first."""
    windows = list(windows)
    best = _best_first([window[0] for window in windows if window])[:1]
    found: Dict[Tuple[int, int], Candidate] = {}
    for candidate in (candidate for window in windows for candidate in window):
        known = found.get((candidate.begin, candidate.end))
        if known is None or candidate.score > known.score:
            found[candidate.begin, candidate.end] = candidate
    others = [candidate for candidate in _best_first(found.values()) if candidate[:2] != best[0][:2]]
    return (best + others)[:count]


def has_answer(best: Optional[Candidate], null_score: np.float32, threshold: Optional[float]) -> bool:
    """Whether the best answer is given: not where none at all has a score that is higher by more than
    `threshold`; None: always."""
    return best is not None and (threshold is None or not null_score - best.score > np.float32(threshold))


def _best_first(candidates: Iterable[Candidate]) -> List[Candidate]:
    ordered = sorted(candidates, key=lambda candidate: (-candidate.score, candidate.begin, candidate.end))
    if ordered:
        equal = [candidate for candidate in ordered if candidate.score >= ordered[0].score - TIE]
        best = min(equal, key=lambda candidate: (candidate.begin, candidate.end))
        ordered.remove(best)
        ordered.insert(0, best)
    return ordered
