"""Text → where its words begin, as jieba's precise mode with HMM segments it. The only file that imports
jieba and rjieba."""
import functools
import logging
import math
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import numpy as np

from etl.common.command_line import UserError, flag
from etl.common.files import not_utf8

SEGMENTERS = ("auto", "jieba", "rjieba")

_ENTRY = re.compile(r"(.+?)( [0-9]+)?( [a-z]+)?")    # of a user dictionary, as jieba reads it

_FIRST_HAN, _LAST_HAN = 0x4E00, 0x9FD5         # Han, according to jieba
_HAN, _SIGNS = "%s-%s" % (chr(_FIRST_HAN), chr(_LAST_HAN)), "+#&._%-"
# jieba finds words in blocks of Han, letters, digits and signs; any other character is a word by itself.
# Here: a block of Han; one of letters and digits, which is one word; and, as the group, every other block.
_BLOCKS = re.compile(
    "[{0}]+(?![{0}a-zA-Z0-9{1}])|[a-zA-Z0-9]+(?![{0}a-zA-Z0-9{1}])|([{0}a-zA-Z0-9{1}]+)".format(_HAN, _SIGNS))
# How it splits single characters left by its dictionary; the group goes to the HMM.
_PIECES = re.compile("([%s]+)|[a-zA-Z0-9]+(?:\\.[0-9]+)?%%?|[%s]+" % (_HAN, _SIGNS))
_FINDABLE = re.compile("[{0}a-zA-Z0-9{1}]+".format(_HAN, _SIGNS))
_IS_ALPHANUMERIC = np.array([chr(code).isalnum() for code in range(128)] + [False])
_MEMO_ENTRIES, _MEMO_CHARS = 1 << 17, 64      # limits the memory for memoized blocks
# rjieba counts repeated dictionary entries once, so its scores are jieba's shifted by 878117 / 2 ** 44 for
# each word. Scores below 256 still round the same, and so do ties between paths: 14 words, whose logarithms
# are above -18.
_SURE_WORDS = 14


@dataclass(frozen=True)
class SegmenterConfig:
    """The words, and the segmenter that finds them in a text."""
    user_dict: Optional[str] = flag(None, "additional words for jieba, in its own format")
    segmenter: str = flag("auto", "word segmenter: both find the same words, rjieba several times as fast. "
                          "auto: rjieba where it is installed and there is no user_dict", SEGMENTERS)


class Segmenter:
    """Finds words with jieba; `user_dict` is a file in jieba's own format, or None. The reference."""

    def __init__(self, user_dict: Optional[str] = None) -> None:
        import jieba                           # it takes a third of a second, which --help should not
        jieba.setLogLevel(logging.WARNING)
        self.jieba = jieba.Tokenizer()
        self.hmm = jieba.finalseg
        if user_dict:
            check_user_dict(user_dict)
            self.jieba.load_userdict(user_dict)
        self.jieba.initialize()

    def word_offsets(self, text: str) -> np.ndarray:
        """Positions at which words begin, int32 [words]. `"我爱北京天安门"` → 0, 1, 2, 4."""
        lengths = [len(word) for word in self.jieba.cut(text)]
        offsets = np.zeros(len(lengths), dtype=np.int32)
        np.cumsum(lengths[:-1], out=offsets[1:])
        return offsets


class FastSegmenter:
    """Finds the same words several times as fast: in pure Han text, rjieba finds the most probable path
    through the dictionary.

    The rest of jieba is implemented here: the same path for blocks with ASCII, where rjieba differs; and the
    HMM that joins single characters left by the dictionary, since rjieba's has lower precision. Raises
    ImportError if rjieba is not installed.
    """

    def __init__(self) -> None:
        import rjieba
        self._rjieba = rjieba
        self._reference = Segmenter()
        self._counts: Dict[str, int] = self._reference.jieba.FREQ
        self._log_total = math.log(self._reference.jieba.total)
        self._join = functools.partial(_join, *_tables_of(self._reference.hmm))
        self._remembered_joined: Callable[[str], Tuple[int, ...]] = functools.lru_cache(_MEMO_ENTRIES)(
            self._find_joined)
        self._remembered_starts = functools.lru_cache(_MEMO_ENTRIES)(self._block_starts)

    def word_offsets(self, text: str) -> np.ndarray:
        """Positions at which words begin, int32 [words]. `"我爱北京天安门"` → 0, 1, 2, 4."""
        if "\r\n" in text:  # one word to jieba, the only longer one outside of blocks
            return self._reference.word_offsets(text)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        is_alphanumeric = _IS_ALPHANUMERIC[np.minimum(codes, len(_IS_ALPHANUMERIC) - 1)]
        starts = np.ones(len(codes), dtype=bool)
        starts[1:] = ~(is_alphanumeric[1:] & is_alphanumeric[:-1])
        is_han = (codes >= _FIRST_HAN) & (codes <= _LAST_HAN)
        found: List[int] = []
        for match in _BLOCKS.finditer(text):
            if match.lastindex:
                block, begin, end = match.group(), match.start(), match.end()
                starts[begin:end] = is_han[begin:end] = False
                comes_again = block.isascii() and len(block) <= _MEMO_CHARS
                block_starts = self._remembered_starts(block) if comes_again else self._block_starts(block)
                found += [begin + start for start in block_starts]
        starts[is_han] = False
        starts[found] = True
        starts[self._han_starts(codes, is_han)] = True
        return np.flatnonzero(starts).astype(np.int32)

    def _han_starts(self, codes: np.ndarray, is_han: np.ndarray) -> np.ndarray:
        """Where words begin in blocks of only Han, as positions in `codes`."""
        kept = is_han.copy()
        kept[1:] |= is_han[:-1]  # the character after a block becomes the blank before the next one
        places = np.flatnonzero(kept)
        is_han = is_han[places]
        blocks = np.where(is_han, codes[places], ord(" ")).astype("<u4").tobytes().decode("utf-32-le")
        begins = self._dictionary_begins(blocks, is_han)
        starts = np.zeros(len(blocks), dtype=bool)
        starts[begins] = is_han[begins]
        starts[self._joined_in_runs(blocks, is_han, begins)] = False
        return places[starts]

    def _joined_in_runs(self, blocks: str, is_han: np.ndarray, begins: np.ndarray) -> List[int]:
        """Which characters continue a word, in runs of single characters left by the dictionary.

            blocks              我 爱 北 京 _ 杭 研       _ is the blank between blocks
            begins              0  1  2     4  5  6
            is_single           1  1  0     0  1  1       a word of one Han character
            runs                0 … 2          5 … 7      [first character, end) of each
        """
        edges = np.append(begins, len(blocks))
        is_single = (np.diff(edges) == 1) & is_han[begins]
        changes = np.diff(np.concatenate(([0], is_single, [0])))
        firsts, ends = edges[changes == 1].tolist(), edges[changes == -1].tolist()
        joined: List[int] = []
        for first, end in zip(firsts, ends):
            if end - first > 1:
                joined += [first + place for place in self._joined(blocks[first:end])]
        return joined

    def _dictionary_begins(self, blocks: str, is_han: np.ndarray) -> np.ndarray:
        """Where the most probable words begin, and the blanks between blocks, int [words and blanks].

        rjieba finds them all. A block of more than _SURE_WORDS words is segmented again here, since rjieba's
        scores are too coarse for it. With _SURE_WORDS = 2:

            rjieba's pieces     我  爱  _  北  京  人  _  好         _ is the blank between blocks
            begins              0   1   2  3   4   5   6  7   8      8 is the end of the text
            blank_indices              2               6
            first_words         0          3              7          by index in `begins`
            end_words                  2               6     8
            num_words           2          3              1          the second block has too many
            kept, cut, kept     0 … 2      3 … 5       6 … 7
        """
        pieces = self._rjieba.cut(blocks, False)
        lengths = np.fromiter(map(len, pieces), np.int32, len(pieces))
        begins = np.concatenate(([0], np.cumsum(lengths)))
        blank_indices = np.flatnonzero(~is_han[begins[:-1]])
        first_words = np.concatenate(([0], blank_indices + 1))
        end_words = np.append(blank_indices, len(pieces))
        parts, kept_to = [], 0
        for block in np.flatnonzero(end_words - first_words > _SURE_WORDS):
            first_word, end_word = first_words[block], end_words[block]
            begin, end = int(begins[first_word]), int(begins[end_word])
            parts += [begins[kept_to:first_word],
                      begin + np.array(self._most_probable_begins(blocks[begin:end]))]
            kept_to = end_word
        return np.concatenate(parts + [begins[kept_to:-1]]).astype(np.int64)

    def _most_probable_begins(self, block: str) -> List[int]:
        """Where the words of the most probable path through a block begin. `"北京人"` → 0, 2."""
        ends = self._most_probable_ends(block)
        begins, at = [], 0
        while at < len(block):
            begins.append(at)
            at = ends[at]
        return begins

    def _block_starts(self, block: str) -> List[int]:
        """Where words begin in a block: the most probable words, with single characters between them
        joined."""
        ends = self._most_probable_ends(block)
        starts: List[int] = []
        begin = at = 0                         # from begin to at, all is single
        while at <= len(block):
            end = ends[at]
            if end - at > 1:
                joined = set(self._joined(block[begin:at]))
                starts += [place for place in range(begin, at) if place - begin not in joined]
                starts.append(at)
                begin = end
            at = end
        return starts[:-1]

    def _most_probable_ends(self, block: str) -> List[int]:
        """For each position, the end of the word that begins there on the most probable path to the block's
        end.

        A word of two after the end terminates a run of single characters.
        """
        counts, log_total, size = self._counts, self._log_total, len(block)
        scores, ends = [0.0] * (size + 1), [size + 2] * (size + 1)
        for begin in range(size - 1, -1, -1):
            best, end = None, begin + 1
            count = counts.get(block[begin])
            while count is not None:           # 0: not a word, but the beginning of one
                score = math.log(count) - log_total + scores[end] if count else None
                if score is not None and (best is None or score >= best):
                    best, ends[begin] = score, end
                end += 1
                count = counts.get(block[begin:end]) if end <= size else None
            if best is None:
                best, ends[begin] = 0.0 - log_total + scores[begin + 1], begin + 1
            scores[begin] = best
        return ends

    def _joined(self, characters: str) -> Tuple[int, ...]:
        if len(characters) <= _MEMO_CHARS:
            return self._remembered_joined(characters)
        return self._find_joined(characters)

    def _find_joined(self, characters: str) -> Tuple[int, ...]:
        """Which of several characters, each a single one to the dictionary, continue the word before them."""
        if len(characters) < 2 or self._counts.get(characters):
            return ()
        joined: List[int] = []
        for piece in _PIECES.finditer(characters):
            begin, end = piece.span()
            joined += ([begin + place for place in self._join(piece.group())] if piece.lastindex
                       else range(begin + 1, end))
        return tuple(joined)


AnySegmenter = Union[Segmenter, FastSegmenter]


def _tables_of(hmm: Any) -> Tuple[Any, ...]:
    """jieba's HMM: log probabilities of initial states, of transitions, and of characters in the states B, M,
    E, S.

    Args:
      hmm: jieba.finalseg.
    """
    characters = set().union(*hmm.emit_P.values())
    emissions = {char: tuple(hmm.emit_P[state].get(char, hmm.MIN_FLOAT) for state in "BMES")
                 for char in characters}
    return hmm.start_P, hmm.trans_P, emissions, (hmm.MIN_FLOAT,) * 4


def _join(first: Dict[str, float], change: Dict[str, Dict[str, float]],
          emissions: Dict[str, Tuple[float, ...]], unknown: Tuple[float, ...], han: str) -> List[int]:
    """Which characters continue a word: those in state M or E of the most probable states (Viterbi 1967).

    Of two paths of equal score jieba takes the one whose state comes later in the alphabet.
    """
    b, m, e, s = (first[state] + score for state, score in zip("BMES", emissions.get(han[0], unknown)))
    eb, es, sb, ss = (change[state][to] for state in "ES" for to in "BS")
    bm, be, mm, me = (change[state][to] for state in "BM" for to in "ME")
    steps = []
    for char in han[1:]:
        in_b, in_m, in_e, in_s = emissions.get(char, unknown)
        b_after_e, b_after_s = e + eb + in_b, s + sb + in_b
        m_after_b, m_after_m = b + bm + in_m, m + mm + in_m
        e_after_b, e_after_m = b + be + in_e, m + me + in_e
        s_after_e, s_after_s = e + es + in_s, s + ss + in_s
        steps.append({"B": "E" if b_after_e > b_after_s else "S", "M": "B" if m_after_b > m_after_m else "M",
                      "E": "B" if e_after_b > e_after_m else "M", "S": "E" if s_after_e > s_after_s else "S"})
        b, m, e, s = (max(b_after_e, b_after_s), max(m_after_b, m_after_m), max(e_after_b, e_after_m),
                      max(s_after_e, s_after_s))
    state, joined = "E" if e > s else "S", []
    for place in range(len(steps), 0, -1):
        if state in "ME":
            joined.append(place)
        state = steps[place - 1][state]
    return joined


def check_user_dict(path: str) -> Optional[str]:
    """A warning about the words of a user dictionary that jieba reads but never finds, since it splits text
    at spaces and punctuation first; None if there are none.

    Raises UserError, with file and line, for invalid UTF-8 and for tabs, which jieba would treat as part of
    the word.
    """
    in_vain = []
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8").strip().lstrip("\ufeff")
            except UnicodeDecodeError as error:
                raise UserError("%s: line %d: %s" % (path, number, not_utf8(error)))
            if "\t" in text:
                raise UserError("%s: line %d: must be a word, optionally its frequency (digits) and its tag "
                                "(lower-case letters), separated by single spaces, got "
                                "%.60r" % (path, number, text))
            entry = _ENTRY.fullmatch(text)
            if entry and not _FINDABLE.fullmatch(entry.group(1)):
                in_vain.append((number, entry.group(1)))
    if not in_vain:
        return None
    return "%s: %d word%s no effect, since jieba splits text at spaces and punctuation: line %d: %.60s" % (
        path, len(in_vain), " has" if len(in_vain) == 1 else "s have", *in_vain[0])


@functools.lru_cache(maxsize=1)
def load_segmenter(config: SegmenterConfig = SegmenterConfig()) -> AnySegmenter:
    """One segmenter per process: its dictionary takes a second and 150 MB.

    Raises UserError for a user dictionary that is damaged or combined with rjieba, and for rjieba if it is
    not installed.
    """
    if config.segmenter == "rjieba" and config.user_dict:
        raise UserError("--segmenter rjieba takes no --user_dict; use jieba or auto")
    if config.segmenter != "jieba" and not config.user_dict:
        try:
            return FastSegmenter()
        except ImportError:
            if config.segmenter == "rjieba":
                raise UserError("--segmenter rjieba: it is not installed; use jieba or auto, or pip install "
                                "rjieba==0.1.11")
    return Segmenter(config.user_dict)


def mark_word_starts(token_offsets: np.ndarray, word_offsets: np.ndarray) -> np.ndarray:
    """Which tokens begin a word: bool [tokens].

    A token belongs to the word of its first character; the first token of each word begins it. So a word that
    becomes several tokens stays whole, and a token that spans two words belongs to the first.

    Args:
      token_offsets: int32 [tokens], ascending, position of each token's first character.
      word_offsets: int32 [words], ascending, position of each word's first character.
    """
    words = np.searchsorted(word_offsets, token_offsets, side="right")
    starts = np.ones(len(words), dtype=bool)
    starts[1:] = words[1:] != words[:-1]
    return starts
