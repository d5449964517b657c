"""A text of any length → windows of model input, each token with the characters that it stands for:
`[CLS] window [SEP]`, or behind a question `[CLS] question [SEP] window [SEP]`.

What reads spans of characters off a text, answers say, or labels, goes through windows. They overlap, so that
what one of them cuts stands whole in its neighbour. `serving.exporting.graph_tokenization` does the same
inside the served graph; a test holds the two together.
"""
import functools
import unicodedata
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

NUM_CODE_POINTS = 0x110000


class Window(NamedTuple):
    """Model input without padding.

    Attributes:
      input_ids, segment_ids: int32 [n]; segments are 1 from the text's first token on where there is a
        question.
      spans: int32 [n, 2]; where a token is of the text, it stands for text[begin:end]. Elsewhere both are 0.
      first_piece, first_token: the number of the window's first token among the text's, and where it stands.
    """
    input_ids: np.ndarray
    segment_ids: np.ndarray
    spans: np.ndarray
    first_piece: int
    first_token: int

    def token_of(self, piece: int) -> Optional[int]:
        """Where a token of the text stands; None where the window does not hold it."""
        token = piece - self.first_piece + self.first_token
        return token if self.first_token <= token < len(self.input_ids) - 1 else None


class Pieces(NamedTuple):
    """The tokens of a text. ids: int32 [n]; spans: int32 [n, 2], begin and end in the text's characters."""
    ids: np.ndarray
    spans: np.ndarray


def pieces_of(tokenizer: Any, text: str) -> Pieces:
    """Tokens with their characters; marks that the tokenizer strips belong to the character before them.

    `"Cafe\\u0301，好"` → cafe 0:5, ， 5:6, 好 6:7.
    """
    encoding = tokenizer.encode(text)
    ends = encoding.ends
    if tokenizer.strips_marks:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        marks = np.append(is_mark()[codes], False)
        if marks.any():
            beyond = np.where(marks, len(codes), np.arange(len(codes) + 1))     # itself where it is no mark
            ends = np.minimum.accumulate(beyond[::-1])[::-1][ends].astype(np.int32)
    return Pieces(encoding.ids, np.stack([encoding.offsets, ends], axis=1).reshape(-1, 2))


def pack_windows(tokenizer: Any, question: Optional[str], pieces: Pieces, max_seq_length: int, overlap: int,
                 max_query_length: int) -> List[Window]:
    """The windows of a text, at least one; each is full but the last.

    Args:
      tokenizer: of etl.text.tokenization.
      question: stands before each window, cut to its first `max_query_length` tokens. None: there is none.
      pieces: of a text of any length.
      max_seq_length: tokens of a window, special ones and the question's included.
      overlap: tokens of the text that a window shares with the next.

    `("谁", "甲乙丙丁", 7, 1)` → `[CLS] 谁 [SEP] 甲 乙 丙 [SEP]`, `[CLS] 谁 [SEP] 丙 丁 [SEP]`.
    """
    check_windows(max_seq_length, overlap, max_query_length, question is not None)
    vocabulary = tokenizer.vocabulary
    head = [vocabulary.cls]
    if question is not None:
        head = [vocabulary.cls, *tokenizer.encode(question).ids[:max_query_length].tolist(), vocabulary.sep]
    capacity = max_seq_length - len(head) - 1
    return [_window(head, pieces, begin, begin + capacity, vocabulary.sep, question is not None)
            for begin in begins_of_windows(len(pieces.ids), capacity, capacity - overlap)]


def begins_of_windows(length: int, size: int, stride: int) -> range:
    """Where windows of `size` begin, `stride` apart, up to the one that reaches the end.

    `(5, 3, 2)` → 0, 2.
    """
    return range(0, max(0, length - size) + stride, stride)


def places_in_windows(length: int, size: int, overlap: int) -> Tuple[np.ndarray, np.ndarray]:
    """For each token of a text the window that shows most of what stands around it, and its number among the
    window's tokens: int64 [length] each. Windows as of `begins_of_windows`, whose stride is size - overlap;
    what two of them share is parted in the middle.

    `(5, 3, 1)` → windows 0 0 0 1 1, numbers 0 1 2 1 2.
    """
    stride = size - overlap
    last = len(begins_of_windows(length, size, stride)) - 1
    windows = np.clip((np.arange(length) - (overlap + 1) // 2) // stride, 0, last)
    return windows, np.arange(length) - windows * stride


def join_windows(windows: Sequence[np.ndarray], size: int, overlap: int) -> np.ndarray:
    """What is known of a text's tokens, [tokens, …], from what is known of those of each window, each token's
    by `places_in_windows`."""
    length = (len(windows) - 1) * (size - overlap) + len(windows[-1])
    numbers, places = places_in_windows(length, size, overlap)
    starts = np.cumsum([0] + [len(window) for window in windows[:-1]])
    return np.concatenate(windows)[starts[numbers] + places]


def check_windows(max_seq_length: int, overlap: int, max_query_length: int, has_question: bool) -> None:
    """Raises ValueError for windows without room for more than their overlap."""
    room = max_seq_length - 2 - (max_query_length + 1 if has_question else 0)
    if room <= overlap:
        raise ValueError(
            "doc_stride must be below %d, the tokens of a text that a window of %d has room for%s;"
            " got %d" % (room, max_seq_length, " behind a question of max_query_length %d" %
                         max_query_length if has_question else "", overlap))


@functools.lru_cache(maxsize=1)
def is_mark() -> np.ndarray:
    """bool [NUM_CODE_POINTS]: the marks that go with accents (category Mn)."""
    return np.array([unicodedata.category(chr(code)) == "Mn" for code in range(NUM_CODE_POINTS)])


def _window(head: List[int], pieces: Pieces, begin: int, end: int, sep: int, has_question: bool) -> Window:
    ids = pieces.ids[begin:end]
    length = len(head) + len(ids) + 1
    spans = np.zeros((length, 2), np.int32)
    spans[len(head):-1] = pieces.spans[begin:end]
    in_text = np.arange(length) >= len(head) if has_question else np.zeros(length)
    return Window(np.concatenate([head, ids, [sep]]).astype(np.int32), in_text.astype(np.int32), spans, begin,
                  len(head))
