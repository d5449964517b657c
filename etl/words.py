"""Text → where its words begin, as jieba's precise mode with HMM segments it. The only file that imports jieba and rjieba."""
import functools
import itertools
import logging
import re
from typing import Any, List, Optional, Tuple

import numpy as np

from etl.command_line import UserError

SEGMENTERS = ("auto", "jieba", "rjieba")

_ENTRY = re.compile(r"\S+( [0-9]+)?( [a-z]+)?")

# jieba looks for words in blocks of Han and ASCII; any other character is a word by itself. Here: Han alone; letters and digits
# alone, which are one word; and, as the group, every other block.
_FIRST_HAN, _LAST_HAN = 0x4E00, 0x9FD5         # what jieba takes for Han
_BLOCKS = re.compile("[{0}]+(?![{0}{1}])|[a-zA-Z0-9]+(?![{0}{1}])|([{0}{1}]+)".format(
    "%s-%s" % (chr(_FIRST_HAN), chr(_LAST_HAN)), "a-zA-Z0-9+#&._%-"))
_IS_ALPHANUMERIC = np.array([chr(code).isalnum() for code in range(128)] + [False])
_MEMO_ENTRIES = 1 << 17                        # bounds the memory a worker spends on what came before


class Segmenter:
    """Finds words with jieba, or as far as they agree with rjieba, which is ten times as fast.

    They agree on blocks of Han. jieba gets the blocks of both Han and ASCII, and everything where there is a user dictionary.
    """

    def __init__(self, user_dict: Optional[str] = None, name: str = "auto") -> None:
        """Loads the dictionaries.

        Args:
          user_dict: a file in jieba's own format.
          name: jieba, rjieba, or auto: rjieba where it is installed and there is no user dictionary.

        Raises UserError for a damaged user dictionary, for rjieba with one, or where it is not installed.
        """
        import jieba
        jieba.setLogLevel(logging.WARNING)
        self._rjieba = _import_rjieba(name, bool(user_dict))
        self._jieba = jieba.Tokenizer()
        if user_dict:
            _check_user_dict(user_dict)
            self._jieba.load_userdict(user_dict)
        self._jieba.initialize()
        self._ascii_starts = functools.lru_cache(_MEMO_ENTRIES)(self._starts_by_jieba)
        self._joined = functools.lru_cache(_MEMO_ENTRIES)(self._find_joined)

    def word_offsets(self, text: str) -> np.ndarray:
        """Positions at which words begin, int32 [words]. `"我爱北京天安门"` → 0, 1, 2, 4."""
        if self._rjieba is None or "\r\n" in text:    # to jieba, \r\n is one word
            return np.array(self._starts_by_jieba(text), dtype=np.int32)
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        is_alphanumeric = _IS_ALPHANUMERIC[np.minimum(codes, len(_IS_ALPHANUMERIC) - 1)]
        starts = np.ones(len(codes), dtype=bool)
        starts[1:] = ~(is_alphanumeric[1:] & is_alphanumeric[:-1])
        is_han = (codes >= _FIRST_HAN) & (codes <= _LAST_HAN)
        by_jieba: List[int] = []
        for block in _BLOCKS.finditer(text):
            if block.lastindex:
                string, begin, end = block.group(), block.start(), block.end()
                starts[begin:end] = is_han[begin:end] = False
                block_starts = self._ascii_starts(string) if string.isascii() else self._starts_by_jieba(string)
                by_jieba += [begin + start for start in block_starts]
        starts[is_han] = False
        starts[by_jieba] = True
        starts[self._starts_by_rjieba(codes, is_han)] = True
        return np.flatnonzero(starts).astype(np.int32)

    def _starts_by_rjieba(self, codes: np.ndarray, is_han: np.ndarray) -> np.ndarray:
        """Starts of the words in the characters that are Han, as positions in `codes`."""
        kept = is_han.copy()
        kept[1:] |= is_han[:-1]                # what follows a block parts it from the next, as a blank
        places = np.flatnonzero(kept)
        is_han = is_han[places]
        blocks = np.where(is_han, codes[places], ord(" ")).astype("<u4").tobytes().decode("utf-32-le")
        words = self._rjieba.cut(blocks, False)
        lengths = np.fromiter(map(len, words), np.int32, len(words))
        begins = np.cumsum(lengths) - lengths
        is_single = (lengths == 1) & is_han[begins]
        edges = np.append(begins, len(blocks))[np.flatnonzero(np.diff(np.concatenate(([0], is_single, [0]))))]
        starts = is_han & False
        starts[begins] = is_han[begins]
        joined: List[int] = []
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist()):
            if end - begin > 1:
                joined += [begin + at for at in self._joined(blocks[begin:end])]
        starts[joined] = False
        return places[starts]

    def _find_joined(self, characters: str) -> Tuple[int, ...]:
        """Which of several characters that the dictionary leaves single continue a new word, as jieba's HMM sees it."""
        from jieba import finalseg
        if self._jieba.FREQ.get(characters):
            return ()
        starts = itertools.accumulate(map(len, finalseg.cut(characters)))
        return tuple(set(range(1, len(characters))) - set(starts))

    def _starts_by_jieba(self, text: str) -> List[int]:
        starts, end = [], 0
        for word in self._jieba.cut(text):
            starts.append(end)
            end += len(word)
        return starts


def _import_rjieba(name: str, has_user_dict: bool) -> Any:
    """The module, or None where jieba is to do everything."""
    if name == "jieba" or name == "auto" and has_user_dict:
        return None
    if has_user_dict:
        raise UserError("--segmenter rjieba takes no --user_dict; use jieba or auto")
    try:
        import rjieba
        return rjieba
    except ImportError:
        if name == "auto":
            return None
        raise UserError("--segmenter rjieba: rjieba is not installed; use jieba or auto, or pip install rjieba==0.1.11")


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
def load_segmenter(user_dict: Optional[str] = None, name: str = "auto") -> Segmenter:
    """One segmenter a process: its dictionary takes a second and 150 MB."""
    return Segmenter(user_dict, name)


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
