"""How far the marks at the ends of segments alone tell the sentence order of samples: two judges that see no
more of them.

  python test/checks/sentence_order.py --data 'corpus/*.txt'

For each file and length, `etl.build_pretrain` makes samples, as many copies as give 5,000. One judge sees
whether each segment ends with a mark (anything but a letter or digit, before closing quotes and brackets),
the other with which mark, and behind it with which quote or bracket. Each learns from one half of the samples
which order is more frequent with what it sees, and guesses that of the other half. Prints how often they are
right, with the 95 % interval, and the share of samples cut inside a sentence; ends with status 1 where one is
right in over 53 %, or its interval reaches above 54 %.
"""
import argparse
import contextlib
import io
import itertools
import math
import os
import sys
import tempfile
import unicodedata
from collections import Counter
from typing import Callable, Iterator, List, NamedTuple, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from etl import build_pretrain
from etl.common import files
from etl.common.command_line import UserError
from etl.records import manifest
from etl.records.examples import deserialize_example, read_frames
from etl.text.tokenization import load_tokenizer

LENGTHS = (128, 512)
FEWEST_SAMPLES = 5000
MOST_RIGHT, MOST_UPPER = 0.53, 0.54
UNKNOWN = "\ufffd"                             # for [UNK], which may be a mark


class Ending(NamedTuple):
    """The last mark of a segment before closing quotes and brackets, and the last of all; "" for a letter or
    digit."""
    mark: str
    closing: str


class Seen(NamedTuple):
    """A sample: the ends of both segments, and whether these are swapped."""
    first: Ending
    second: Ending
    label: int


JUDGES = (
    ("any mark", lambda seen: (bool(seen.first.mark), bool(seen.second.mark))),
    ("which mark", lambda seen: (seen.first, seen.second)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=[os.path.join(ROOT, "etl", "sample", "*.txt")],
                        help="text files, globs")
    parser.add_argument("--vocab_file", help="default: the shipped one")
    arguments = parser.parse_args()
    try:
        paths = files.expand(arguments.data, "data")
    except UserError as error:
        parser.error(str(error))
    more = ["--vocab_file", arguments.vocab_file] if arguments.vocab_file else []
    print("%-32s %6s %8s %6s   %s" % ("file", "length", "samples", "cut", "right, 95 % interval"))
    status = 0
    for path, length in itertools.product(paths, LENGTHS):
        samples, cut = samples_of(path, length, more)
        print("%-32s %6d %8d %5.1f%%" % (os.path.basename(path), length, len(samples),
                                         100 * cut / len(samples)), end="")
        for name, view in JUDGES:
            right = share_right(samples, view)
            half = 1.96 * math.sqrt(right * (1 - right) / len(samples))
            is_good = right <= MOST_RIGHT and right + half <= MOST_UPPER
            status |= not is_good
            print("   %s: %.4f, %.4f–%.4f%s" % (name, right, right - half, right + half,
                                                "" if is_good else " too high"), end="")
        print(flush=True)
    return status


def share_right(samples: List[Seen], view: Callable[[Seen], object]) -> float:
    """The share of samples whose label is the more frequent one, in the other half, of those that look the
    same."""
    right = 0
    halves = samples[::2], samples[1::2]
    for learned, judged in (halves, halves[::-1]):
        counts = Counter((view(seen), seen.label) for seen in learned)
        right += sum(seen.label == (counts[view(seen), 1] > counts[view(seen), 0]) for seen in judged)
    return right / len(samples)


def samples_of(path: str, length: int, more: List[str]) -> Tuple[List[Seen], int]:
    """What can be seen of the samples of a file, and how many of them are cut inside a sentence."""
    copies = 1
    while True:
        with tempfile.TemporaryDirectory() as folder:
            with contextlib.redirect_stdout(io.StringIO()):
                status = build_pretrain.main(
                    ["--input_file", path, "--output_dir", folder, "--max_seq_length", str(length),
                     "--dupe_factor", str(copies), "--eval_fraction", "0"] + more)
            if status:
                raise SystemExit(status)
            build = manifest.read(folder)
            samples = build.counters["train_samples"]
            if samples >= FEWEST_SAMPLES:
                return list(_seen(folder, build)), build.counters.get("cut_samples", 0)
        copies = math.ceil(1.05 * copies * FEWEST_SAMPLES / samples)


def _seen(folder: str, build: manifest.Manifest) -> Iterator[Seen]:
    vocabulary = load_tokenizer(build.tokenizer).vocabulary
    tokens = list(vocabulary.tokens)
    tokens[vocabulary.unk] = UNKNOWN
    for shard in build.train:
        path = os.path.join(folder, shard.path)
        with open(path, "rb") as stream:
            for record in read_frames(stream, path):
                values = deserialize_example(record)
                ids = values["input_ids"][:int(values["input_mask"].sum())].copy()
                is_real = values["masked_lm_weights"] > 0
                ids[values["masked_lm_positions"][is_real]] = values["masked_lm_ids"][is_real]
                second = int(values["segment_ids"].sum())
                first_end, second_end = (_ending("".join(tokens[index] for index in segment))
                                         for segment in (ids[:-second - 1], ids[-second:-1]))
                yield Seen(first_end, second_end, int(values["next_sentence_labels"][0]))


def _ending(segment: str) -> Ending:
    text = segment.rstrip("".join(filter(_closes, set(segment))))
    return Ending(*("" if end.isalnum() else end for end in (text[-1:], segment[-1:])))


def _closes(char: str) -> bool:
    return char in "\"'" or unicodedata.category(char) in ("Pe", "Pf")


if __name__ == "__main__":
    sys.exit(main())
