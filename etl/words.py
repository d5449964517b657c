"""Sentence → where its words begin, as jieba's precise mode with HMM segments it. The only file that imports jieba."""
import functools
import logging
import re
from typing import Optional

import numpy as np

from etl.command_line import UserError

_ENTRY = re.compile(r"\S+( [0-9]+)?( [a-z]+)?")


class Segmenter:
    """Finds words with jieba; `user_dict` is a file in jieba's own format, or None."""

    def __init__(self, user_dict: Optional[str] = None) -> None:
        import jieba
        jieba.setLogLevel(logging.WARNING)
        self._tokenizer = jieba.Tokenizer()
        if user_dict:
            _check_user_dict(user_dict)
            self._tokenizer.load_userdict(user_dict)
        self._tokenizer.initialize()

    def word_offsets(self, sentence: str) -> np.ndarray:
        """Positions at which words begin, int32 [words]. `"我爱北京天安门"` → 0, 1, 2, 4."""
        lengths = [len(word) for word in self._tokenizer.cut(sentence)]
        offsets = np.zeros(len(lengths), dtype=np.int32)
        np.cumsum(lengths[:-1], out=offsets[1:])
        return offsets


def _check_user_dict(path: str) -> None:
    """Raises UserError, with file and line, for what is not as the format says: jieba would take all of it as one word."""
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8").strip().lstrip("\ufeff")
            except UnicodeDecodeError as error:
                raise UserError("%s: line %d: not UTF-8: %s at byte 0x%02x" % (path, number, error.reason, line[error.start]))
            if text and not _ENTRY.fullmatch(text):
                raise UserError("%s: line %d: must be a word, then if wanted its frequency (digits) and its tag (small letters), "
                                "parted by single blanks, got %.60r" % (path, number, text))


@functools.lru_cache(maxsize=1)
def load_segmenter(user_dict: Optional[str] = None) -> Segmenter:
    """One segmenter a process: its dictionary takes a second and 150 MB."""
    return Segmenter(user_dict)


def mark_word_starts(token_offsets: np.ndarray, word_offsets: np.ndarray) -> np.ndarray:
    """Which tokens begin a word: bool [tokens].

    A token belongs to the word its first character lies in; the first token of each word begins it. So a word that
    becomes several tokens stays whole, and a token that spans two words counts with the first.

    Args:
      token_offsets: int32 [tokens], ascending, position of each token's first character.
      word_offsets: int32 [words], ascending, position of each word's first character.
    """
    words = np.searchsorted(word_offsets, token_offsets, side="right")
    starts = np.ones(len(words), dtype=bool)
    starts[1:] = words[1:] != words[:-1]
    return starts
