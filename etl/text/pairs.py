"""One or two texts → the model's input: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

`serving.exporting.graph_tokenization` does the same inside the serving graph; a test compares the two.
"""
from typing import Any, NamedTuple, Optional, Tuple

import numpy as np

MIN_SEQ_LENGTH = 3                             # [CLS] [SEP] [SEP]


class PackedPair(NamedTuple):
    """Model input without padding. input_ids, segment_ids: int32 [n]; segments are 1 from the first token of
    b on."""
    input_ids: np.ndarray
    segment_ids: np.ndarray


def pack_pair(tokenizer: Any, text_a: str, text_b: Optional[str], max_seq_length: int,
              keeps_end_of_b: bool = False) -> PackedPair:
    """Packs a pair into at most `max_seq_length` tokens; a text_b that is None or "" means there is none.
    `keeps_end_of_b`: what is cut of text_b is its beginning.

    `("你好", "好")` → `[CLS] 你 好 [SEP] 好 [SEP]` with segments `0 0 0 0 1 1`.
    """
    check_length(max_seq_length)
    vocabulary = tokenizer.vocabulary
    ids_a = tokenizer.encode(text_a).ids
    ids_b = tokenizer.encode(text_b).ids if text_b else ids_a[:0]
    kept_a, kept_b = truncate_pair(len(ids_a), len(ids_b), max_seq_length - (3 if text_b else 2))
    segment_a = [[vocabulary.cls], ids_a[:kept_a], [vocabulary.sep]]
    cut_b = len(ids_b) - kept_b if keeps_end_of_b else 0
    segment_b = [ids_b[cut_b:cut_b + kept_b], [vocabulary.sep]] if text_b else []
    input_ids = np.concatenate(segment_a + segment_b).astype(np.int32)
    return PackedPair(input_ids, (np.arange(len(input_ids)) >= kept_a + 2).astype(np.int32))


def truncate_pair(length_a: int, length_b: int, budget: int) -> Tuple[int, int]:
    """How many tokens of a and of b are kept when the longer one (b if equal) loses its last until both fit
    `budget`.

    `(9, 2, 8)` → `(6, 2)`; `(9, 9, 8)` → `(4, 4)`; `(9, 9, 7)` → `(4, 3)`.
    """
    kept_b = min(length_b, max(budget - length_a, budget // 2))
    return min(length_a, budget - kept_b), kept_b


def check_length(max_seq_length: int) -> None:
    """Raises ValueError for a length without room for the special tokens."""
    if max_seq_length < MIN_SEQ_LENGTH:
        raise ValueError("max_seq_length must be at least %d, got %d" % (MIN_SEQ_LENGTH, max_seq_length))
