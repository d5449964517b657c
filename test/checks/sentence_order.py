"""How far final marks alone tell the sentence order of samples: a judge that sees of each segment only
whether it ends with one.

  python test/checks/sentence_order.py --data 'corpus/*.txt'

For each file and length, `etl.build_pretrain` makes samples, as many copies as give 5,000. The judge guesses
for each of the four cases (first segment ends with 。！？… or not, second does or not) the order that is more
frequent there. Prints how often it is right, with the 95 % interval, and the share of samples cut inside a
sentence; ends with status 1 where it is right in over 53 %, or the interval reaches above 54 %.
"""
import argparse
import contextlib
import io
import itertools
import math
import os
import sys
import tempfile
from collections import Counter
from typing import Iterator, List, Tuple

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
FINAL, CLOSING = set("。！？…!?"), set("”’」』）)》\"'】〉〕〗")


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
    print("%-32s %6s %8s %7s %15s %6s" % ("file", "length", "samples", "right", "95 % interval", "cut"))
    status = 0
    for path, length in itertools.product(paths, LENGTHS):
        cells, cut = judged(path, length, more)
        samples = sum(cells.values())
        right = sum(max(cells[ends + (0,)], cells[ends + (1,)])
                    for ends in itertools.product((False, True), repeat=2)) / samples
        half = 1.96 * math.sqrt(right * (1 - right) / samples)
        is_good = right <= MOST_RIGHT and right + half <= MOST_UPPER
        status |= not is_good
        print("%-32s %6d %8d %7.4f  %.4f–%.4f %5.1f%%%s"
              % (os.path.basename(path), length, samples, right, right - half, right + half,
                 100 * cut / samples, "" if is_good else "  too high"), flush=True)
    return status


def judged(path: str, length: int, more: List[str]) -> Tuple[Counter, int]:
    """How many samples there are of each (first ends with a final mark, second does, label), and how many are
    cut inside a sentence."""
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
                return Counter(_seen(folder, build)), build.counters["cut_samples"]
        copies = math.ceil(1.05 * copies * FEWEST_SAMPLES / samples)


def _seen(folder: str, build: manifest.Manifest) -> Iterator[Tuple[bool, bool, int]]:
    tokens = load_tokenizer(build.tokenizer).vocabulary.tokens
    for shard in build.train:
        path = os.path.join(folder, shard.path)
        with open(path, "rb") as stream:
            for record in read_frames(stream, path):
                values = deserialize_example(record)
                ids = values["input_ids"][:int(values["input_mask"].sum())].copy()
                is_real = values["masked_lm_weights"] > 0
                ids[values["masked_lm_positions"][is_real]] = values["masked_lm_ids"][is_real]
                second = int(values["segment_ids"].sum())
                first_ends, second_ends = (_has_final_mark([tokens[index] for index in segment])
                                           for segment in (ids[:-second - 1], ids[-second:-1]))
                yield first_ends, second_ends, int(values["next_sentence_labels"][0])


def _has_final_mark(segment: List[str]) -> bool:
    text = "".join(segment).rstrip("".join(CLOSING))
    return text[-1:] in FINAL


if __name__ == "__main__":
    sys.exit(main())
