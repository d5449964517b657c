"""The tokenizer inside the graph against the Python tokenizer, over all that may tell them apart.
Takes minutes.

  python test/checks/parity.py --data 'corpus/*.txt' 'questions/*.tsv'

For each vocabulary (the shipped or given one, one that holds every character, one for each of some scripts),
lower-cased and not: every code point alone, between letters and in upper-case context, the lines of the data,
random strings, random bytes, words about as long as the longest that is not [UNK], and pairs cut to several
lengths. Prints a row for each and ends with status 1 where one differs.
"""
import argparse
import itertools
import os
import random
import sys
import time
import unicodedata
from typing import Callable, Dict, Iterable, Iterator, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow.compat.v1 as tf

import albert_config
from etl.common import files
from etl.common.batches import in_batches
from etl.common.command_line import UserError
from etl.text.tokenization import (MAX_CHARS_PER_WORD, SPECIAL_TOKENS, Vocabulary, WordPieceTokenizer,
                                   load_vocabulary)
from serving.exporting.parity import TRICKY_TEXTS, Parity, Text

SEED = 12345
TEXTS_AT_ONCE = 4096
PAIR_LENGTHS = (3, 4, 5, 16, 128)
# Vocabularies that the full one would hide: most characters of other scripts are unknown to them.
SCRIPTS = {"Latin": "LATIN", "Greek": "GREEK", "Cyrillic": "CYRILLIC", "Hangul": "HANGUL",
           "Kana": "KATAKANA HIRAGANA",
           "Devanagari": "DEVANAGARI", "Thai": "THAI", "Arabic": "ARABIC", "Hebrew": "HEBREW"}
ASSIGNED = [char for char in map(chr, range(0x110000))
            if unicodedata.category(char) not in ("Cn", "Co", "Cs")]
REORDERED_CLASSES = (9, 216, 226)  # combining classes that a vocabulary may not mix with class 224


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=[os.path.join(ROOT, "etl", "sample", "*.txt"),
                                                      os.path.join(ROOT, "estimator", "sample", "*.tsv")],
                        help="text files, globs")
    parser.add_argument("--vocab_file", default=albert_config.vocab_path())
    parser.add_argument("--random_texts", type=int, default=100000, help="of each kind, vocabulary and case")
    arguments = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    try:
        paths = files.expand(arguments.data, "data")
    except UserError as error:
        parser.error(str(error))
    lines = [line.rstrip(b"\n") for path in paths for line in open(path, "rb")]
    print("%-12s %-6s %-20s %10s %10s %8s" % ("vocabulary", "case", "texts", "compared", "differing",
                                              "seconds"))
    total = wrong = 0
    for (name, vocabulary), lower in itertools.product(vocabularies(arguments.vocab_file).items(),
                                                       (True, False)):
        tokenizer = WordPieceTokenizer(vocabulary, lower)
        complete = name in ("given", "every char")
        kinds: Dict[str, Callable[[], Iterable[Text]]] = {
            "tricky": lambda: TRICKY_TEXTS, "its own entries": lambda: vocabulary.tokens,
            "code points": lambda: code_points(every=complete),
            "data": lambda: lines if complete else lines[::20],
            "random strings": lambda: random_strings(vocabulary, arguments.random_texts),
            "random bytes": lambda: random_bytes(vocabulary, arguments.random_texts),
            "long words": lambda: long_words(vocabulary, arguments.random_texts // 20)}
        parity = Parity(tokenizer, PAIR_LENGTHS[-1])
        checks = [(kind, texts, parity.differing) for kind, texts in kinds.items()]
        checks += [("pairs cut to %d" % length, lambda: pairs(vocabulary, arguments.random_texts // 5),
                    Parity(tokenizer, length).differing_pairs) for length in PAIR_LENGTHS]
        for kind, texts, differing in checks:
            begin, compared, found = time.time(), 0, []
            for chunk in in_batches(texts(), TEXTS_AT_ONCE):
                compared += len(chunk)
                found += differing(chunk)
            print("%-12s %-6s %-20s %10d %10d %8.1f" % (name, "lower" if lower else "cased", kind, compared,
                                                        len(found),
                                                        time.time() - begin), flush=True)
            for text in found[:3]:
                print("    %s" % ascii(text))
            total, wrong = total + compared, wrong + len(found)
    print("%d of %d differ" % (wrong, total))
    return int(wrong > 0)


def vocabularies(path: str) -> Dict[str, Vocabulary]:
    found = {"given": load_vocabulary(path)}
    allowed = [char for char in ASSIGNED if unicodedata.combining(char) not in REORDERED_CLASSES]
    found["every char"] = Vocabulary([*SPECIAL_TOKENS, *allowed, *("##" + char for char in allowed)],
                                     "every char")
    rng = random.Random(SEED)
    for name, words in SCRIPTS.items():
        chars = [char for char in allowed
                 if unicodedata.name(char, "").startswith(tuple(words.split()))][:800]
        forms = sorted(
            set(unicodedata.normalize("NFD", "".join(chars).lower()) + "".join(chars)) & set(allowed))
        pieces = {"".join(rng.choice(forms) for _ in range(rng.randint(1, 4))) for _ in range(3000)}
        entries = [*forms, *("##" + char for char in forms[::2])]
        entries += sorted((pieces | {"##" + piece for piece in pieces}) - set(entries))
        found[name] = Vocabulary([*SPECIAL_TOKENS, *entries], name)
    return found


def code_points(every: bool) -> Iterator[str]:
    """Of those without a meaning, which all fare alike, one in 7 unless `every`."""
    meant = set(ASSIGNED)
    for char in map(chr, range(0x110000)):
        if not 0xD800 <= ord(char) < 0xE000 and (every or char in meant or ord(char) % 7 == 0):
            yield "%s a%sb A%sΣ%sB %s%s" % ((char,) * 6)


def random_strings(vocabulary: Vocabulary, count: int) -> Iterator[str]:
    rng = random.Random(SEED)
    known = set("".join(vocabulary.tokens[:5000]))
    pools = [sorted(known), ASSIGNED, "abcxyz ABCΣσς", "中文字。，！ ", " \t\n\u3000\u00a0\u2028",
             "\u0301\u0323\u0345\u302e\u302f\u093f", "\x00\x01\ufffd\u200b\u200d\ufeff\u00ad",
             "ＡＢｃ１２！。", "👍🏽👨\u200d👩🇨🇳", "각힣한\u1100\u1161\u11a8", "0123456789.,-_@#$%^&*"]
    for _ in range(count):
        mixed = rng.sample(pools, rng.randint(1, 3))
        yield "".join(rng.choice(rng.choice(mixed)) for _ in range(rng.randint(0, 24)))


def random_bytes(vocabulary: Vocabulary, count: int) -> Iterator[bytes]:
    """Random strings with bytes taken out, put in or changed, so that the UTF-8 is broken anywhere."""
    rng = random.Random(SEED + 1)
    for text in random_strings(vocabulary, count):
        data = bytearray(text.encode("utf-8"))
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(data))
            data[at:at + rng.randint(0, 2)] = bytes(rng.choice((rng.randrange(256), 0xE5, 0xF0, 0xED, 0xC0,
                                                                0x80)) for _ in range(rng.randint(0, 2)))
        yield bytes(data)


def long_words(vocabulary: Vocabulary, count: int) -> Iterator[str]:
    rng = random.Random(SEED + 2)
    parts = [token.replace("#", "") or "a" for token in rng.sample(vocabulary.tokens,
                                                                   50)] + ["a", "각", "e\u0301", "\u00ad"]
    for _ in range(count):
        length = MAX_CHARS_PER_WORD + rng.randint(-60, 60)
        yield "".join(rng.choice(parts) for _ in range(length))[:length]


def pairs(vocabulary: Vocabulary, count: int) -> Iterator[Tuple[Text, Text]]:
    texts = random_bytes(vocabulary, 2 * count)
    rng = random.Random(SEED + 3)
    for text_a, text_b in zip(texts, texts):
        yield text_a * rng.choice((1, 1, 5)), rng.choice((b"", b"\xff", text_b, text_b * 5))


if __name__ == "__main__":
    sys.exit(main())
