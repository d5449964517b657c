"""Do both segmenters find the same words in a text? Prints a row for each file; ends with status 1 at the
first difference.

  python test/benchmark/segmenters.py --data 'corpus/*.txt'
"""
import argparse
import glob
import itertools
import os
import time

import numpy as np

from etl.text.words import FastSegmenter, Segmenter

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

LINES_AT_ONCE = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "etl", "sample", "*.txt"),
                        help="text; ** for folders")
    data = parser.parse_args().data
    segmenters = Segmenter(), FastSegmenter()
    print("%-40s %12s %14s %14s" % ("file", "words", "jieba MB/CPU s", "fast MB/CPU s"))
    for path in sorted(glob.glob(data, recursive=True)):
        seconds, words = [0.0, 0.0], 0
        with open(path, encoding="utf-8", errors="replace", newline="\n") as stream:
            for text in iter(lambda: "".join(itertools.islice(stream, LINES_AT_ONCE)), ""):
                found = []
                for index, segmenter in enumerate(segmenters):
                    begin = time.process_time()
                    found.append(segmenter.word_offsets(text))
                    seconds[index] += time.process_time() - begin
                if not np.array_equal(*found):
                    at = min(set(found[0].tolist()) ^ set(found[1].tolist()))
                    raise SystemExit("%s: words differ at %r" % (path, text[max(0, at - 10):at + 10]))
                words += len(found[0])
        megabytes = os.path.getsize(path) / 1e6
        print("%-40s %12d %14.2f %14.2f"
              % (os.path.basename(path), words, *(megabytes / spent for spent in seconds)), flush=True)


if __name__ == "__main__":
    main()
