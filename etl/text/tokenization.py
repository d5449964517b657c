"""Text → token ids, each with the characters of the text that it stands for.

WordPiece follows BERT (Devlin et al. 2018, its released vocabularies): clean, set Han characters apart, split
at white space, lower-case and strip accents, split at punctuation, then match the longest vocabulary entry,
piece by piece. `普通话ABC` → `普 通 话 abc`. SentencePiece uses a trained model; a leading ▁ marks the pieces
that begin a word. As in ALBERT's own code (google-research/albert, tokenization.py), `preprocess_text` comes
first, and pieces such as `2020,` are split afterwards. Under Python 3 that code compares text with bytes and
so leaves an extra piece ▁ before a number that had none; here there is none.

The same functions build the tokenizer inside the serving graph, so training and serving cannot diverge.
"""
import codecs
import contextlib
import functools
import itertools
import re
import sys
import unicodedata
from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from etl.common.command_line import UserError
from etl.common.files import not_utf8

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (PAD, UNK, CLS, SEP, MASK)
MAX_CHARS_PER_WORD = 200                       # a longer word is [UNK], as in BERT

_BASIC_PLANE = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x10000)]))
_NEVER_TEXT = re.compile(r"\[unused\d+\]|<unused_?\d+>|<[STst]>|</s>|<pad>|<unk>|\[[A-Z]{3,4}\]")
_MEMO_ENTRIES, _MEMO_CHARS = 1 << 17, 64      # limits the memory for memoized units

# Han characters as BERT defines them: each is a separate word.
HAN_RANGES = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
              (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))
_HAN = "".join("%s-%s" % (chr(first), chr(last)) for first, last in HAN_RANGES)
# All but the blocks of Han and Hangul, and unassigned ones.
_WITHOUT_LETTER_BLOCKS = ((0, 0x3400), (0xA000, 0xAC00), (0xD7A4, 0x20000), (0xE0000, 0xE1000))
# White space at which BERT splits: category Zs, tab, line ends. Other control characters are removed without
# splitting.
WHITE_SPACE = "\t\n\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Text between white space and Han characters is normalized as one string: lower-casing depends on its
# context.
_WHITE_SPACE = re.compile("[%s]" % WHITE_SPACE)
_BLANK_RUN, _QUOTES = re.compile(r"\s+"), re.compile("``|''")
UNIT_PATTERN = re.compile("[%s]|[^%s%s]+" % (_HAN, _HAN, WHITE_SPACE))
_EncodedUnit = Tuple[Tuple[int, ...], Tuple[int, ...], Tuple[int, ...]]      # ids, offsets and ends
_IN_WORD, _BLANK = -1, -2  # in a tokenizer's table: characters that are not tokens by themselves


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer, and its files. With `spm_model_file`, pieces come from that SentencePiece model.

    `vocab_file` may be None only with `spm_model_file`: the model has its own vocabulary.
    """
    vocab_file: Optional[str] = None
    do_lower_case: bool = True
    spm_model_file: Optional[str] = None

    def __post_init__(self) -> None:
        if not self.vocab_file and not self.spm_model_file:
            raise ValueError("vocab_file or spm_model_file must be given, got neither")

    @property
    def vocabulary_file(self) -> str:
        """The file with the vocabulary: the SentencePiece model if there is one, otherwise `vocab_file`."""
        return str(self.spm_model_file or self.vocab_file)


class Encoding(NamedTuple):
    """Tokens of one text, int32 [n] each. Token i stands for text[offsets[i]:ends[i]]; ends are those of kept
    characters alone, see `windows.pieces_of`."""
    ids: np.ndarray
    offsets: np.ndarray
    ends: np.ndarray


class Vocabulary:
    """Token strings by id, ids by string, and the ids of the special tokens.

    Attributes:
      tokens: list of str, by id.
      ids: dict str → id.
      pad, unk, cls, sep, mask: ids of the special tokens.
      replaceable_ids: int32 array of the ids allowed as random replacements: no special or unused tokens, no
        Han characters with ##, which never occur in text.
      is_mark: bool array by id: what ends in neither a letter nor a digit, but a mark; so [UNK], which may be
        one.
      is_closing: bool array by id: closing quotes and brackets.
      continued_ids: int32 array by id: for a Han character with a ## counterpart, the counterpart's id;
        otherwise the id itself.
    """

    def __init__(self, tokens: List[str], source: str) -> None:
        self.tokens = tokens
        self.ids: Dict[str, int] = {}
        for index, token in enumerate(tokens):
            self.ids.setdefault(token, index)
        missing = [token for token in SPECIAL_TOKENS if token not in self.ids]
        if missing:
            raise UserError("%s: a vocabulary must hold %s; missing: %s"
                            % (source, " ".join(SPECIAL_TOKENS), " ".join(missing)))
        self.pad, self.unk, self.cls, self.sep, self.mask = (self.ids[token] for token in SPECIAL_TOKENS)
        if self.pad != 0:
            raise UserError("%s: [PAD] must be the first entry (id 0), since records are padded "
                            "with 0; got id %d" % (source, self.pad))
        self.replaceable_ids = np.array([index for index, token in enumerate(tokens)
                                         if token and not _NEVER_TEXT.fullmatch(token)
                                         and not (len(token) == 3 and token[:2] == "##"
                                                  and is_han(token[2]))], dtype=np.int32)
        ends = [token[-1:] for token in tokens]
        self.is_mark = np.array([index == self.unk or is_mark(end) for index, end in enumerate(ends)])
        self.is_closing = np.array(list(map(is_closing, ends)))
        self.continued_ids = np.array([self.ids.get("##" + token, index) if len(token) == 1 and is_han(token)
                                       else index for index, token in enumerate(tokens)], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.tokens)


def load_vocabulary(path: str) -> Vocabulary:
    """Reads one token per line. Only "\\n" ends a line: released vocabularies have entries with U+2028.

    A byte order mark and `\\r\\n` are left out. Raises UserError, with file and lines, for bytes that are not
    UTF-8, repeated entries, or missing special tokens.
    """
    with open(path, "rb") as stream:
        content = stream.read()
    lines = (content[3:] if content.startswith(codecs.BOM_UTF8) else content).split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    tokens: List[str] = []
    for number, line in enumerate(lines, 1):
        try:
            tokens.append(line.decode("utf-8").rstrip("\r"))
        except UnicodeDecodeError as error:
            _refuse_sentencepiece(path, content)
            raise UserError("%s: line %d: %s" % (path, number, not_utf8(error)))
    try:
        # first: for a text given by mistake, this says more than a repeated line
        vocabulary = Vocabulary(tokens, path)
    except UserError:
        _refuse_sentencepiece(path, content)
        raise
    for index, token in enumerate(tokens):
        if vocabulary.ids[token] != index:
            raise UserError("%s: lines %d and %d hold the same entry: %s"
                            % (path, vocabulary.ids[token] + 1, index + 1, token))
    return vocabulary


def _refuse_sentencepiece(path: str, content: bytes) -> None:
    """Raises UserError if the vocabulary is one of SentencePiece's files."""
    if re.match(rb"[^\t\n]+\t-?[0-9.]+\r?\n", content):
        raise UserError("%s: a list of SentencePiece's pieces: give the model that lies beside it by "
                        "--spm_model_file" % path)
    if content[:1] == b"\n":                   # the tag of the first piece
        import sentencepiece
        with contextlib.suppress(RuntimeError):
            sentencepiece.SentencePieceProcessor().LoadFromSerializedProto(content)
            raise UserError("%s: a SentencePiece model: give it by --spm_model_file" % path)


class WordPieceTokenizer:
    """BERT's tokenizer over `vocabulary`; lower-cases and strips accents when `do_lower_case`."""

    def __init__(self, vocabulary: Vocabulary, do_lower_case: bool) -> None:
        self.vocabulary = vocabulary
        self.do_lower_case = do_lower_case
        self._memo: Dict[str, _EncodedUnit] = {}
        self.strips_marks = do_lower_case
        self._char_ids = self._ids_of_characters()
        self._continues = np.array([token.startswith("##") for token in vocabulary.tokens])

    def encode(self, text: str) -> Encoding:
        """Token ids of a text and their positions. `"北京ABC"` → ids of 北, 京, abc; offsets 0, 1, 2."""
        char_ids = self._char_ids[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")]
        offsets_alone = np.flatnonzero(char_ids >= 0)
        edges = np.flatnonzero(np.diff(np.concatenate(([0], char_ids == _IN_WORD, [0])))).tolist()
        ids: List[int] = []
        offsets: List[int] = []
        ends: List[int] = []
        memo = self._memo
        for begin, end in zip(edges[::2], edges[1::2]):
            string = text[begin:end]
            found = memo.get(string)
            if found is None:
                found = self._encode_unit(string)
                if len(memo) >= _MEMO_ENTRIES:
                    memo.clear()
                if len(string) <= _MEMO_CHARS:
                    memo[string] = found
            ids += found[0]
            offsets += [begin + offset for offset in found[1]]
            ends += [begin + offset for offset in found[2]]
        all_offsets = np.concatenate((offsets_alone, offsets)).astype(np.int32)
        order = np.argsort(all_offsets, kind="stable")
        return Encoding(np.concatenate((char_ids[offsets_alone], ids)).astype(np.int32)[order],
                        all_offsets[order],
                        np.concatenate((offsets_alone + 1, ends)).astype(np.int32)[order])

    def encode_sentences(self, sentences: Sequence[str]) -> Encoding:
        """Token ids of sentences, one after another; offsets are those in `"\\n".join(sentences)`."""
        return self.encode("\n".join(sentences))

    def _ids_of_characters(self) -> np.ndarray:
        """By code point, int32: the id of a character that is one token in any context, otherwise _IN_WORD or
        _BLANK."""
        ids = self.vocabulary.ids
        table = np.full(sys.maxunicode + 1, _IN_WORD, np.int32)
        for first, last in HAN_RANGES:
            table[first:last + 1] = self.vocabulary.unk
        # Stripping accents maps compatibility forms to other characters; other Han characters are unchanged.
        forms = map(chr, [*range(0xF900, 0xFB00), *range(0x2F800, 0x2FA20)])
        found = {token: index for token, index in ids.items() if len(token) == 1 and is_han(token)}
        found.update({form: self._encode_unit(form)[0][0] for form in forms})
        found.update({char: ids.get(char, self.vocabulary.unk) for char in _punctuation_alone()})
        found.update(dict.fromkeys(_WHITE_SPACE.findall(_BASIC_PLANE), _BLANK))
        table[[ord(char) for char in found]] = list(found.values())
        return table

    def may_begin_word(self, ids: np.ndarray) -> np.ndarray:
        """Which tokens of a text may begin a word, bool [tokens]: all but those that continue one
        (`caf ##e`)."""
        return ~self._continues[ids]

    def tokenize(self, text: str) -> List[str]:
        """Token strings of a text."""
        return [self.vocabulary.tokens[index] for index in self.encode(text).ids]

    def _encode_unit(self, unit: str) -> _EncodedUnit:
        ids: List[int] = []
        offsets: List[int] = []
        ends: List[int] = []
        for word, positions in split_words(unit, self.do_lower_case):
            for index, begin, end in self._match_pieces(word):
                ids.append(index)
                offsets.append(min(positions[begin:end]))
                ends.append(max(positions[begin:end]) + 1)
        return tuple(ids), tuple(offsets), tuple(ends)

    def _match_pieces(self, word: str) -> List[Tuple[int, int, int]]:
        """(id, begin and end in the word) of the longest matches from the left, or one [UNK] when any part
        has none."""
        vocabulary_ids = self.vocabulary.ids
        if len(word) > MAX_CHARS_PER_WORD:
            return [(self.vocabulary.unk, 0, len(word))]
        pieces = []
        begin = 0
        while begin < len(word):
            for end in range(len(word), begin, -1):
                piece = word[begin:end] if begin == 0 else "##" + word[begin:end]
                if piece in vocabulary_ids:
                    break
            else:
                return [(self.vocabulary.unk, 0, len(word))]
            pieces.append((vocabulary_ids[piece], begin, end))
            begin = end
        return pieces


class SentencePieceTokenizer:
    """Pieces of a SentencePiece model; a word begins where a piece begins with ▁.

    The model must have [CLS], [SEP] and [MASK], and <pad> and <unk> under those names or as [PAD] and [UNK].
    """

    def __init__(self, model_file: str, do_lower_case: bool) -> None:
        import sentencepiece
        self.do_lower_case = do_lower_case
        self.strips_marks = True               # see preprocess_text
        self._processor = sentencepiece.SentencePieceProcessor()
        # a missing file is an OSError with its name, not the library's own error
        with open(model_file, "rb"):
            pass
        try:
            self._processor.Load(model_file)
        except (OSError, RuntimeError):
            raise UserError("%s: not a SentencePiece model" % model_file)
        names = {"<pad>": PAD, "<unk>": UNK}
        pieces = [self._processor.IdToPiece(index) for index in range(self._processor.GetPieceSize())]
        self.vocabulary = Vocabulary([names.get(piece, piece) for piece in pieces], model_file)
        self._ids = dict(zip(pieces, range(len(pieces))))
        self._behind_blank = np.array([piece.startswith("▁") for piece in pieces])
        self._holds_han = np.array([any(map(is_han, piece)) for piece in pieces])

    def encode(self, text: str) -> Encoding:
        """Token ids of a text and their positions; a piece with ▁ begins at the first character after the
        space."""
        prepared, positions = preprocess_text(text, self.do_lower_case)
        found: List[Tuple[int, int, int]] = []         # id, begin and end in the prepared text
        for piece in self._processor.EncodeAsImmutableProto(prepared).pieces:
            begin = piece.begin + (prepared[piece.begin:piece.begin + 1] == " ")
            if piece.piece[-1] == "," and piece.piece[-2:-1].isdigit():
                found += [(index, min(begin + first, piece.end - 1), min(begin + last, piece.end - 1))
                          for index, first, last in self._encode_number(piece.piece[:-1])]
                found.append((self._id_of(","), piece.end - 1, piece.end))
            else:
                found.append((piece.id, begin, piece.end))
        if not found:
            return Encoding(*[np.zeros(0, np.int32)] * 3)
        ids, begins, ends = np.array(found, np.int32).T
        offsets = positions[np.minimum(begins, len(positions) - 1)]
        return Encoding(ids, offsets, np.where(ends > begins, positions[ends - 1] + 1, offsets))

    def _encode_number(self, piece: str) -> List[Tuple[int, int, int]]:
        """(id, begin, end) of what a piece becomes without its comma; ▁ only where it was before.
        `"▁2020"` → `▁2020`; `"020"` → `0 20`."""
        found = [(part.id, part.begin, part.end, part.piece)
                 for part in self._processor.EncodeAsImmutableProto(piece.replace("▁", "")).pieces]
        _, begin, end, first = found[0]
        if first.startswith("▁") and not piece.startswith("▁"):
            found[:1] = [(self._id_of(first[1:]), begin, end, first[1:])] if len(first) > 1 else []
        return [part[:3] for part in found]

    def _id_of(self, piece: str) -> int:
        return self._ids.get(piece, self.vocabulary.unk)

    def encode_sentences(self, sentences: Sequence[str]) -> Encoding:
        """Token ids of sentences, one after another; offsets are those in `"\\n".join(sentences)`."""
        encodings = [self.encode(sentence) for sentence in sentences]
        begins = list(itertools.accumulate([0] + [len(sentence) + 1 for sentence in sentences[:-1]]))
        offsets = [encoding.offsets + begin for encoding, begin in zip(encodings, begins)]
        ends = [encoding.ends + begin for encoding, begin in zip(encodings, begins)]
        return Encoding(np.concatenate([encoding.ids for encoding in encodings]),
                        np.concatenate(offsets).astype(np.int32), np.concatenate(ends).astype(np.int32))

    def may_begin_word(self, ids: np.ndarray) -> np.ndarray:
        """Which pieces of a text may begin a word, bool [pieces]; see `may_begin_word_by_blanks`."""
        return may_begin_word_by_blanks(self._behind_blank[ids], self._holds_han[ids])

    def tokenize(self, text: str) -> List[str]:
        """Token strings of a text."""
        return [self.vocabulary.tokens[index] for index in self.encode(text).ids]


Tokenizer = Union[WordPieceTokenizer, SentencePieceTokenizer]


def may_begin_word_by_blanks(behind_blank: np.ndarray, holds_han: np.ndarray) -> np.ndarray:
    """Without Han characters, text between spaces is one word: `▁don ' t`. With Han characters, spaces mean
    nothing: `▁他 去 图书馆`.

    Args:
      behind_blank: bool [pieces], True for a piece with ▁.
      holds_han: bool [pieces], True for a piece with a Han character.

    Returns:
      bool [pieces]: True after a space, and for all pieces between two spaces if one of them has Han.
    """
    between = np.cumsum(behind_blank)
    return behind_blank | (np.bincount(between, weights=holds_han) > 0)[between]


@functools.lru_cache(maxsize=1)
def _punctuation_alone() -> Tuple[str, ...]:
    """Punctuation that neither affects nor is affected by its neighbours: in lower case, sigma is final
    before it."""
    return tuple(char for char in _BASIC_PLANE
                 if is_punctuation(char) and unicodedata.normalize("NFD", char) == char
                 and ("AΣ%sA" % char).lower() == "aς%sa" % char)


def load_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """The tokenizer that `config` asks for: a WordPieceTokenizer or a SentencePieceTokenizer."""
    if config.spm_model_file:
        return SentencePieceTokenizer(config.spm_model_file, config.do_lower_case)
    return WordPieceTokenizer(load_vocabulary(config.vocab_file), config.do_lower_case)


def split_words(unit: str, do_lower_case: bool) -> List[Tuple[str, List[int]]]:
    """Splits a unit without white space into normalized words, each with its characters' original positions.

    `"Café，OK"` → `("cafe", [0, 1, 2, 3])`, `("，", [4])`, `("ok", [5, 6])`.
    """
    kept = [index for index, char in enumerate(unit) if not is_dropped(char)]
    text = "".join(unit[index] for index in kept)
    positions = kept
    if do_lower_case:
        lowered = text.lower()                 # the whole string: the final sigma depends on its neighbours
        positions = [index for index, char in zip(positions, text) for _ in char.lower()]
        text = unicodedata.normalize("NFD", lowered)
        positions = _in_order_of_marks([(char, index) for index, composed in zip(positions, lowered)
                                        for char in unicodedata.normalize("NFD", composed)])
    words: List[Tuple[List[str], List[int]]] = []
    open_word = False
    for char, position in zip(text, positions):
        if do_lower_case and unicodedata.category(char) == "Mn":
            continue
        alone = is_punctuation(char)
        if alone or not open_word:
            words.append(([], []))
        words[-1][0].append(char)
        words[-1][1].append(position)
        open_word = not alone
    return [("".join(chars), origins) for chars, origins in words]


def _in_order_of_marks(characters: Sequence[Tuple[str, int]]) -> List[int]:
    """Positions in the order that NFD gives their characters: marks that follow each other go by their class
    (Unicode's canonical ordering)."""
    if not any(unicodedata.combining(char) for char, _ in characters):
        return [position for _, position in characters]
    ordered: List[int] = []
    for is_mark, run in itertools.groupby(characters, key=lambda item: unicodedata.combining(item[0]) > 0):
        found = list(run)
        if is_mark:
            found.sort(key=lambda item: unicodedata.combining(item[0]))
        ordered += [position for _, position in found]
    return ordered


def preprocess_text(text: str, do_lower_case: bool) -> Tuple[str, np.ndarray]:
    """A text as ALBERT's code prepares it for SentencePiece, and each character's original position, int32
    [characters].

    White space is collapsed, and removed at both ends; `` and '' become a quotation mark; characters are
    decomposed (NFKD) without combining marks, then lower-cased. `" ``Café''  ～ "` → `"cafe" ~`.
    """
    parts = list(map(_without_accents, text))
    for match in _BLANK_RUN.finditer(text):
        is_inside = match.start() > 0 and match.end() < len(text)
        parts[match.start():match.end()] = [" " if is_inside else ""] + [""] * (len(match.group()) - 1)
    for match in _QUOTES.finditer(text):
        parts[match.start():match.end()] = ['"', ""]
    prepared = "".join(parts)
    positions = np.repeat(np.arange(len(text), dtype=np.int32), list(map(len, parts)))
    return prepared.lower() if do_lower_case else prepared, positions    # no letter that remains gets longer


@functools.lru_cache(_MEMO_ENTRIES)
def _without_accents(char: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part))


def is_dropped(char: str) -> bool:
    """True for control and format characters, NUL and U+FFFD, which BERT removes first."""
    if char in "\t\n\r":
        return False
    return char in "\0\ufffd" or unicodedata.category(char) in ("Cc", "Cf")


def without_dropped(text: str, strips_marks: bool) -> Tuple[str, Optional[np.ndarray]]:
    """A text without characters that give no token (zero-width spaces, soft hyphens, byte order marks) and
    the original position of each remaining one, int [characters], or None if nothing was removed.

    `"人\\u200b工"` → `人工`, 0 2.
    """
    if text.isascii() and text.isprintable():
        return text, None
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    is_kept = ~_dropped_codes(strips_marks)[codes]
    if is_kept.all():
        return text, None
    return codes[is_kept].tobytes().decode("utf-32-le", "surrogatepass"), np.flatnonzero(is_kept)


@functools.lru_cache(2)
def _dropped_codes(strips_marks: bool) -> np.ndarray:
    """By code point, bool: True for what `is_dropped`, and for combining marks if they are stripped."""
    table = np.zeros(sys.maxunicode + 1, bool)
    for first, last in _WITHOUT_LETTER_BLOCKS:
        chars = map(chr, range(first, last))
        table[first:last] = [is_dropped(char) or strips_marks and unicodedata.category(char) == "Mn"
                             for char in chars]
    return table


def is_punctuation(char: str) -> bool:
    """True for Unicode's P categories and all of ASCII's non-letters, so that ^ $ ` split words too."""
    code = ord(char)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(char).startswith("P")


def is_mark(char: str) -> bool:
    """True for punctuation, symbols and all else that is neither a letter nor a digit."""
    return not char.isalnum()


def is_closing(char: str) -> bool:
    """True for closing quotes and brackets, and for straight quotes, which may close."""
    return char in ('"', "'") or bool(char) and unicodedata.category(char) in ("Pe", "Pf")


def is_han(char: str) -> bool:
    """True for the characters that BERT treats as separate words."""
    code = ord(char)
    return any(first <= code <= last for first, last in HAN_RANGES)
