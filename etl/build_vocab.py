"""Creates a vocabulary: the bundled one, or one learned from your own text.

Without --input_file: 21,128 entries from data in Python itself (the Han repertoires of its codecs, the
English of its help pages) and the sample text. With --input_file: WordPiece or SentencePiece entries learned
from that text. Special tokens have the ids of the released Chinese checkpoints: [PAD] 0, [UNK] 100, [CLS]
101, [SEP] 102, [MASK] 103.

  python -m etl.build_vocab --output_file output/vocab.txt
  python -m etl.build_vocab --input_file 'corpus/*.txt' --vocab_size 8000 --output_file output/vocab.txt
  python -m etl.build_vocab --input_file 'corpus/*.txt' --vocab_size 8000 --model sentencepiece \\
      --output_file output/spm.model
"""
import heapq
import io
import itertools
import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pydoc_data import topics
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from etl.building.sources import opened
from etl.common.command_line import UserError, flag, run
from etl.common.files import atomic_write, expand, not_utf8, require_file, write_text
from etl.text.documents import clean_line
from etl.text.tokenization import SPECIAL_TOKENS, UNIT_PATTERN, is_han, split_words

SHIPPED_SIZE = 21128
LATIN_PIECES = 4000                            # of the bundled vocabulary
SPECIAL = ["[PAD]"] + ["[unused%d]" % i for i in range(1, 100)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>",
                                                                   "<T>"]
MODELS = ("wordpiece", "sentencepiece")

_SAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample", "*.txt")


@dataclass(frozen=True)
class VocabConfig:
    """The flags of this command."""
    output_file: str = flag("output/vocab.txt", "file for the vocabulary (for sentencepiece: the model)")
    input_file: Tuple[str, ...] = flag(
        (), "text to learn from: names or quoted globs; without it, the bundled vocabulary is written")
    vocab_size: int = flag(SHIPPED_SIZE, "number of entries")
    model: str = flag("wordpiece", "kind of vocabulary", MODELS)
    do_lower_case: bool = flag(True, "lower-case and strip accents first")

    def __post_init__(self) -> None:
        if self.vocab_size <= len(SPECIAL):
            raise ValueError("vocab_size must be above %d, the number of special entries, got %d"
                             % (len(SPECIAL), self.vocab_size))
        if self.model == "sentencepiece" and not self.input_file:
            raise ValueError("model sentencepiece needs input_file: it is learnt from text")
        if not self.input_file and self.vocab_size != SHIPPED_SIZE:
            raise ValueError("vocab_size of the shipped vocabulary is %d, got %d; give input_file to "
                             "learn another" % (SHIPPED_SIZE, self.vocab_size))


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("etl.build_vocab", __doc__, VocabConfig, build, argv)


def build(config: VocabConfig) -> None:
    """Creates the vocabulary and writes it."""
    require_file(config.output_file, "output_file")
    if config.model == "sentencepiece":
        _train_sentencepiece(config)
    else:
        tokens = (learn_wordpiece(read_lines(expand(config.input_file, "input_file")), config.vocab_size,
                                  config.do_lower_case) if config.input_file else shipped_vocabulary())
        write_text(config.output_file, "\n".join(tokens) + "\n")
    print("Wrote %s: %d entries\nNext: python -m etl.build_pretrain --%s %s"
          % (config.output_file, config.vocab_size,
             "spm_model_file" if config.model == "sentencepiece" else "vocab_file", config.output_file))


def read_lines(paths: Iterable[str]) -> Iterator[str]:
    """The non-blank lines of text files. UserError names file and line of bytes that are not UTF-8."""
    for path in paths:
        with opened(path) as stream:
            for number, line in enumerate(stream, 1):
                try:
                    text = clean_line(line.decode("utf-8"))
                except UnicodeDecodeError as error:
                    raise UserError("%s: line %d: %s" % (path, number, not_utf8(error)))
                if text:
                    yield text


def learn_wordpiece(lines: Iterable[str], vocab_size: int, do_lower_case: bool) -> List[str]:
    """Special tokens, every character seen (most frequent first), then merged pieces; padded with
    [unused] entries.

    Raises UserError if there is no text, or the characters alone exceed `vocab_size`.
    """
    words = _count_words(lines, do_lower_case)
    if not words:
        raise UserError("--input_file: no text")
    characters: Counter = Counter()
    for word, count in words.items():
        for piece in _characters(word):
            characters[piece] += count
    ranked = sorted(characters, key=lambda piece: (-characters[piece], piece))
    room = vocab_size - len(SPECIAL) - len(ranked)
    if room < 0:
        raise UserError("--vocab_size: the text has %d different characters; with the special entries that "
                        "needs %d, got %d" % (len(ranked), len(ranked) + len(SPECIAL), vocab_size))
    tokens = SPECIAL + ranked + learn_merges(words, room)
    return tokens + ["[unused%d]" % i for i in range(100, 100 + vocab_size - len(tokens))]


def learn_merges(words: Dict[str, int], limit: int) -> List[str]:
    """Joins the most frequent neighbouring pieces again and again (byte-pair encoding, Sennrich et al. 2016,
    algorithm 1).

    Args:
      words: how often each word occurs in the text.
      limit: maximum number of pieces; pairs that occur only once are never joined.

    Returns:
      The new pieces, in the order of creation; those that continue a word begin with ##.
    """
    spelt = [(_characters(word), count) for word, count in sorted(words.items()) if len(word) > 1]
    pairs: Counter = Counter()
    places: Dict[Tuple[str, str], Set[int]] = defaultdict(set)
    for index, (pieces, count) in enumerate(spelt):
        for pair in zip(pieces, pieces[1:]):
            pairs[pair] += count
            places[pair].add(index)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(queue)
    made: Dict[str, None] = {}
    while queue and len(made) < limit:
        count, pair = heapq.heappop(queue)
        if -count != pairs[pair]:              # a stale entry: the pair's count has changed since
            if pairs[pair] > 0:
                heapq.heappush(queue, (-pairs[pair], pair))
            continue
        if -count < 2:
            break
        piece = pair[0] + pair[1][2:]
        made.setdefault(piece)
        for index in places.pop(pair):
            _join(spelt[index], pair, piece, index, pairs, places, queue)
    return list(made)


def shipped_vocabulary() -> List[str]:
    """The bundled entries: special tokens, symbols and letters, Han characters, English pieces, more Han up
    to the size."""
    symbols = _normalized(_codec_characters("ascii", "gb2312", "euc_kr")
                          + "“”‘’…—·「」『』〈〉【】〔〕€£¥°℃™№′″")
    letters = [char for char in symbols if char.isalnum()]
    english = _count_words(list(topics.topics.values()) + list(read_lines(expand([_SAMPLE], "sample"))), True)
    latin = learn_merges({word: count for word, count in english.items()
                          if word.isascii() and word.isalpha()},
                         LATIN_PIECES)
    tokens = list(dict.fromkeys(SPECIAL + symbols + ["##" + char for char in letters] + latin))
    han = dict.fromkeys(_han("gb2312") + sorted({char for line in read_lines(expand([_SAMPLE], "sample"))
                                                 for char in line if is_han(char)}))
    for repertoire in (_han("big5", first_level_ends=b"\xc6\x7e"), _han("shift_jis"), _han("big5"),
                       _han("gbk")):
        han.update(dict.fromkeys(repertoire))
    return tokens + sorted(list(han)[:SHIPPED_SIZE - len(tokens)])


def _train_sentencepiece(config: VocabConfig) -> None:
    import sentencepiece
    model = io.BytesIO()
    errors: List[Exception] = []
    lines = _until_error(read_lines(expand(config.input_file, "input_file")), errors)
    first = list(itertools.islice(lines, 1))
    if not first and not errors:
        raise UserError("--input_file: no text")
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=(line.lower() if config.do_lower_case else line
                               for line in itertools.chain(first, lines)),
            model_writer=model, vocab_size=config.vocab_size, character_coverage=0.9995,
            pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, pad_piece="<pad>", unk_piece="<unk>",
            control_symbols=[token for token in SPECIAL_TOKENS if token not in ("[PAD]", "[UNK]")],
            minloglevel=2)
    except RuntimeError as error:
        errors.append(UserError("--vocab_size %d: SentencePiece: %s"
                                % (config.vocab_size, str(error).split(") ")[-1])))
    if errors:
        raise errors[0]
    with atomic_write(config.output_file) as stream:
        stream.write(model.getvalue())


def _until_error(lines: Iterable[str], errors: List[Exception]) -> Iterator[str]:
    """The lines up to an error, which is added to `errors`: SentencePiece's C++ would replace it with its
    own."""
    try:
        yield from lines
    except (UserError, OSError) as error:
        errors.append(error)


def _count_words(lines: Iterable[str], do_lower_case: bool) -> Dict[str, int]:
    words: Counter = Counter()
    for line in lines:
        for unit in UNIT_PATTERN.findall(line):
            words.update(word for word, _ in split_words(unit, do_lower_case))
    return words


def _characters(word: str) -> List[str]:
    return [word[0]] + ["##" + char for char in word[1:]]


def _join(word: Tuple[List[str], int], pair: Tuple[str, str], piece: str, index: int, pairs: Counter,
          places: Dict[Tuple[str, str], Set[int]], queue: List[Tuple[int, Tuple[str, str]]]) -> None:
    """Joins every occurrence of `pair` in one word, and recounts the word's pairs."""
    pieces, count = word
    for old in zip(pieces, pieces[1:]):
        pairs[old] -= count
    pieces[:] = joined(pieces, pair, piece)
    changed = list(zip(pieces, pieces[1:]))
    for new in changed:
        pairs[new] += count
        places[new].add(index)
    for new in set(changed):
        heapq.heappush(queue, (-pairs[new], new))


def joined(pieces: Sequence[str], pair: Tuple[str, str], piece: str) -> List[str]:
    """The pieces of a word with each `pair` replaced by `piece`, from the left. Time is linear: a word may
    have millions of letters."""
    found: List[str] = []
    at = 0
    while at < len(pieces):
        if pieces[at] == pair[0] and at + 1 < len(pieces) and pieces[at + 1] == pair[1]:
            found.append(piece)
            at += 2
        else:
            found.append(pieces[at])
            at += 1
    return found


def _codec_characters(*encodings: str) -> str:
    """All non-Han characters below U+10000 that the codecs know, by code point."""
    found = []
    for char in map(chr, range(0x20, 0x10000)):
        if is_han(char) or 0xD800 <= ord(char) < 0xE000:
            continue
        if any(_encoded(char, encoding) for encoding in encodings):
            found.append(char)
    return "".join(found)


def _han(encoding: str, first_level_ends: bytes = b"") -> List[str]:
    """Han characters of a codec, by code point; with `first_level_ends`, only those encoded up to there."""
    found = []
    for char in map(chr, range(0x4E00, 0xA000)):
        code = _encoded(char, encoding)
        if code and (not first_level_ends or code <= first_level_ends):
            found.append(char)
    return found


def _encoded(char: str, encoding: str) -> bytes:
    return char.encode(encoding, "ignore")


def _normalized(text: str) -> List[str]:
    """The characters of a text after lower-casing and stripping accents, each once, by code point."""
    characters = {char for original in text if not original.isspace()
                  for word, _ in split_words(original, True) for char in word}
    return sorted(characters)


if __name__ == "__main__":
    raise SystemExit(main())
