"""Creates a vocabulary: the bundled one, or one learned from your own text.

Without --input_file: 21,128 entries from data in Python itself (the Han repertoires of its codecs, the
English of its help pages) and the sample text. With --input_file: WordPiece or SentencePiece entries learned
from that text. Special tokens have the ids of the released Chinese checkpoints: [PAD] 0, [UNK] 100, [CLS]
101, [SEP] 102, [MASK] 103.

  python -m etl.build_vocab --output_file output/vocab.txt
  python -m etl.build_vocab --input_file 'corpus/*.txt' --vocab_size 8000 --output_file output/vocab.txt
  python -m etl.build_vocab --input_file 'corpus/*.txt' --vocab_size 8000 --model sentencepiece \\
      --output_file output/spm.model
  python -m etl.build_vocab --input_file news.jsonl --input_format jsonl --text_field title content
  --vocab_size 8000
"""
import heapq
import io
import itertools
import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pydoc_data import topics
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from etl.building.first_look import require_text, warnings_of
from etl.building.sources import (BadRecord, FileRange, TextFormat, is_compressed, line_number, opened,
                                  read_documents)
from etl.common.command_line import UserError, flag, nested, run
from etl.common.files import atomic_write, expand, expand_sets, not_utf8, require_file, write_text
from etl.common.progress_line import progress_line, ticking_line
from etl.text.documents import clean_line, split_sentences
from etl.text.tokenization import (MAX_CHARS_PER_WORD, SPECIAL_TOKENS, UNIT_PATTERN, is_han, preprocess_text,
                                   split_words)

SHIPPED_SIZE = 21128
LATIN_PIECES = 4000                            # of the bundled vocabulary
SPECIAL = ["[PAD]"] + ["[unused%d]" % i for i in range(1, 100)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>",
                                                                   "<T>"]
MODELS = ("wordpiece", "sentencepiece")
COVERAGES = dict(zip(MODELS, (1.0, 0.9995)))   # if none is given

COMPRESSION = 4                                # guessed, for the line of progress
MAX_SENTENCE_CHARS = 1000                      # SentencePiece skips sentences of over 4,192 bytes
PLAIN_TEXT = TextFormat()
RESERVED = "▅"                                 # and those with this, which it reserves

_SAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample", "*.txt")


@dataclass(frozen=True)
class VocabConfig:
    """The flags of this command."""
    output_file: str = flag("output/vocab.txt", "file for the vocabulary (for sentencepiece: the model)")
    input_file: Tuple[str, ...] = flag(
        (), "text to learn from: names or quoted globs; without it, the bundled vocabulary is written")
    text_format: TextFormat = nested(TextFormat)
    vocab_size: int = flag(SHIPPED_SIZE, "number of entries")
    model: str = flag("wordpiece", "kind of vocabulary", MODELS)
    do_lower_case: bool = flag(True, "lower-case and strip accents first")
    character_coverage: Optional[float] = flag(
        None, "share of the text whose characters get entries; the rarest beyond it get none. Default: 1 for "
        "wordpiece, 0.9995 for sentencepiece")

    def __post_init__(self) -> None:
        if self.vocab_size <= len(SPECIAL):
            raise ValueError("vocab_size must be above %d, the number of special entries, got %d"
                             % (len(SPECIAL), self.vocab_size))
        if self.model == "sentencepiece" and not self.input_file:
            raise ValueError("model sentencepiece needs input_file: it is learned from text")
        if not self.input_file and self.vocab_size != SHIPPED_SIZE:
            raise ValueError("vocab_size of the shipped vocabulary is %d, got %d; give input_file to "
                             "learn another" % (SHIPPED_SIZE, self.vocab_size))
        if not 0 < self.coverage <= 1:
            raise ValueError("character_coverage must be in (0, 1], got %s" % self.character_coverage)

    @property
    def coverage(self) -> float:
        """`character_coverage`, or the kind's own."""
        return COVERAGES[self.model] if self.character_coverage is None else self.character_coverage


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("etl.build_vocab", __doc__, VocabConfig, build, argv)


def build(config: VocabConfig) -> None:
    """Creates the vocabulary and writes it."""
    require_file(config.output_file, "output_file")
    paths = expand_sets(config.input_file, "input_file") if config.input_file else []
    for path in paths:
        require_text(path, config.text_format)
    for warning in warnings_of(paths, config.text_format, parts_documents=False) if paths else []:
        print("Warning: " + warning)
    if config.model == "sentencepiece":
        _train_sentencepiece(config, paths)
    else:
        tokens = _learn_wordpiece(config, paths) if paths else shipped_vocabulary()
        write_text(config.output_file, "\n".join(tokens) + "\n")
    print("Wrote %s: %d entries\nNext: python -m etl.build_pretrain --%s %s"
          % (config.output_file, config.vocab_size,
             "spm_model_file" if config.model == "sentencepiece" else "vocab_file", config.output_file))


class Progress:
    """What has been done so far: bytes of text read, pieces made."""

    def __init__(self) -> None:
        self.bytes = self.pieces = 0

    def measure(self, total: int) -> Tuple[int, str]:
        """As `progress_line` wants it."""
        return min(self.bytes, total), "{:,} merges".format(self.pieces)


def read_lines(paths: Iterable[str], text_format: TextFormat = PLAIN_TEXT,
               progress: Optional[Progress] = None) -> Iterator[str]:
    """The non-blank lines of text files, or the sentences of JSON lines. Raises UserError, with file and
    line, for what cannot be read."""
    progress = progress or Progress()
    for path in paths:
        before = progress.bytes
        if text_format.input_format == "text":
            with opened(path) as stream:
                for number, line in enumerate(stream, 1):
                    progress.bytes += len(line)
                    try:
                        text = clean_line(line.decode("utf-8"))
                    except UnicodeDecodeError as error:
                        raise UserError("%s: line %d: %s" % (path, number, not_utf8(error)))
                    if text:
                        yield text
            continue
        for document in read_documents(FileRange(0, path, 0, None), text_format):
            if isinstance(document, BadRecord):
                number = line_number(path, document.offset)
                raise UserError("%s: line %d: %s" % (path, number, document.reason))
            progress.bytes = before + document.offset
            yield from document.sentences


def learn_wordpiece(lines: Iterable[str], vocab_size: int, do_lower_case: bool,
                    character_coverage: float = 1.0, progress: Optional[Progress] = None,
                    say: Callable[[str], None] = lambda note: None) -> List[str]:
    """Special tokens, the characters seen (most frequent first), then merged pieces; padded with [unused]
    entries.

    Args:
      character_coverage: share of the text whose characters get an entry.
      progress: updated while it works.
      say: called with notes for the user.

    Raises UserError if there is no text, or the characters alone exceed `vocab_size`.
    """
    words = _count_words(lines, do_lower_case)
    too_long = [word for word in words if len(word) > MAX_CHARS_PER_WORD]
    if too_long:
        say("words of over %d characters, which the tokenizer takes for [UNK], left out: %d, such as %.20s…"
            % (MAX_CHARS_PER_WORD, sum(map(words.pop, too_long)), too_long[0]))
    if not words:
        raise UserError("--input_file: no text%s" % (
            " but words of over %d characters" % MAX_CHARS_PER_WORD if too_long else ""))
    characters: Counter = Counter()
    for word, count in words.items():
        for piece in _characters(word):
            characters[piece] += count
    total = sum(characters.values())
    ranked = sorted(characters, key=lambda piece: (-characters[piece], piece))
    covered = list(itertools.accumulate(characters[piece] for piece in ranked))
    kept = ranked[:1 + sum(count < character_coverage * total for count in covered[:-1])]
    room = vocab_size - len(SPECIAL) - len(kept)
    if room < 0:
        fitting = vocab_size - len(SPECIAL)
        share = covered[fitting - 1] / total
        raise UserError("--vocab_size: the text has %d different characters; with the special entries that "
                        "needs %d, got %d; the %d most frequent ones are %.4f%% of the text: "
                        "--character_coverage %.6g leaves out the others"
                        % (len(kept), len(kept) + len(SPECIAL), vocab_size, fitting, 100 * share,
                           int(1e6 * share) / 1e6))
    if len(kept) < len(ranked):
        left_out = set(ranked[len(kept):])
        words = {word: count for word, count in words.items() if left_out.isdisjoint(_characters(word))}
        say("characters that have no entry: %d, %.4f%% of the text; --character_coverage 1 keeps them"
            % (len(left_out), 100 * sum(characters[piece] for piece in left_out) / total))
    tokens = SPECIAL + kept + learn_merges(words, room, progress)
    unused = vocab_size - len(tokens)
    if unused:
        say("the text gave %d entries; the last %d of %d are [unused…], which no text has: --vocab_size %d "
            "is enough" % (len(tokens), unused, vocab_size, len(tokens)))
    return tokens + ["[unused%d]" % i for i in range(100, 100 + unused)]


def learn_merges(words: Dict[str, int], limit: int, progress: Optional[Progress] = None) -> List[str]:
    """Joins the most frequent neighbouring pieces again and again (byte-pair encoding, Sennrich et al. 2016,
    algorithm 1).

    Args:
      words: how often each word occurs in the text.
      limit: maximum number of pieces; pairs that occur only once are never joined.
      progress: the number of pieces made so far is written there.

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
        if progress:
            progress.pieces = len(made)
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


def _learn_wordpiece(config: VocabConfig, paths: Sequence[str]) -> List[str]:
    progress = Progress()
    notes: List[str] = []
    total = sum(os.path.getsize(path) * (COMPRESSION if is_compressed(path) else 1) for path in paths)
    with progress_line("vocabulary", total, lambda: progress.measure(total)):
        tokens = learn_wordpiece(read_lines(paths, config.text_format, progress), config.vocab_size,
                                 config.do_lower_case, config.coverage, progress, notes.append)
    for note in notes:
        print("Note: " + note)
    return tokens


def _train_sentencepiece(config: VocabConfig, paths: Sequence[str]) -> None:
    import sentencepiece
    model = io.BytesIO()
    errors: List[Exception] = []
    characters: Counter = Counter()
    text = read_lines(paths, config.text_format)
    lines = _until_error(_sentences(text, config.do_lower_case, characters), errors)
    first = list(itertools.islice(lines, 1))
    if not first and not errors:
        raise UserError("--input_file: no text")
    try:
        with ticking_line("SentencePiece is learning"):
            sentencepiece.SentencePieceTrainer.Train(
                sentence_iterator=itertools.chain(first, lines),
                model_writer=model, vocab_size=config.vocab_size, character_coverage=config.coverage,
                pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, pad_piece="<pad>", unk_piece="<unk>",
                control_symbols=[token for token in SPECIAL_TOKENS if token not in ("[PAD]", "[UNK]")],
                minloglevel=2)
    except RuntimeError as error:
        errors.append(UserError("--vocab_size %d: SentencePiece: %s"
                                % (config.vocab_size, str(error).split(") ")[-1])))
    if errors:
        raise errors[0]
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.getvalue())
    pieces = [processor.IdToPiece(index) for index in range(processor.GetPieceSize())]
    _say_what_is_missing(pieces, characters, config.coverage)
    with atomic_write(config.output_file) as stream:
        stream.write(model.getvalue())


def _sentences(lines: Iterable[str], do_lower_case: bool, characters: Counter) -> Iterator[str]:
    """The text as the tokenizer prepares it, in sentences short enough for SentencePiece; counts its
    characters."""
    for line in lines:
        for sentence in split_sentences(preprocess_text(line, do_lower_case)[0]):
            characters.update(sentence)
            sentence = sentence.replace(RESERVED, " ")
            for begin in range(0, len(sentence), MAX_SENTENCE_CHARS):
                yield sentence[begin:begin + MAX_SENTENCE_CHARS]


def _say_what_is_missing(pieces: Sequence[str], characters: Counter, coverage: float) -> None:
    known = set("".join(pieces))
    missing = {char: count for char, count in characters.items() if char not in known and not char.isspace()}
    if missing:
        print("Note: characters that have no entry: %d, %.4f%% of the text, such as %s%s" % (
            len(missing), 100 * sum(missing.values()) / sum(characters.values()),
            " ".join(sorted(missing, key=lambda char: (-missing[char], char))[:5]),
            "; a higher --character_coverage keeps more" if coverage < 1 else ""))


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
