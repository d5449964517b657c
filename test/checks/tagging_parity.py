"""The entities that an exported model finds against those of its evaluation, text by text, and against
Python's for random texts.

  python test/checks/tagging_parity.py --data path/to/dev.json --checkpoint output/finetune

Exports the model of the folder, asks it every text of the file, and compares its entities with those of
predictions.jsonl beside the checkpoints, which `python -m estimator.finetune --do_eval` wrote for the same
file. Then it compares them, for 100,000 random texts of emoji, combining marks, invisible and astral
characters and pieces of the file, with what Python makes of the trained model's scores. Where two sequences
of tags are equally good but for rounding, either is right; how often that was so is printed. Prints what
differs and ends with status 1 where anything does.
"""
import argparse
import json
import os
import random
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from estimator.training import best_checkpoint
from estimator.weights import model_folder
from etl.common.batches import in_batches
from etl.text.tokenization import load_tokenizer
from serving import export
from serving.entity_lists import entities_of
from serving.exporting.tagging_model import Reader
from serving.saved_model import SavedModel

TEXTS_AT_ONCE, RANDOM_TEXTS, LONGEST = 64, 100000, 30
ODD = [
    "👍🏽", "👨\u200d👩", "🇨🇳", "e\u0301", "\u0301", "\u0323", "\u200b", "\u00ad", "\ufeff", "\0",
    "\U00020000", "\U0001d165", "ﬁ", "Σ", "İ", "각", "ß", "ＡＢ", "１２", "２０1", "iPhone4", "x" * 201, " ",
    "\u3000", "\t", "\n", "[CLS]", "##a"
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="file of texts, JSON lines")
    parser.add_argument("--checkpoint", required=True, help="folder that estimator.finetune wrote")
    parser.add_argument("--random_texts", type=int, default=RANDOM_TEXTS)
    flags = parser.parse_args()
    with open(flags.data, encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream if line.strip()]
    with open(os.path.join(flags.checkpoint, "predictions.jsonl"), encoding="utf-8") as stream:
        predicted = [json.loads(line) for line in stream]
    if [line["text"] for line in predicted] != texts:
        return "%s: predictions.jsonl is of other texts: run finetune --do_eval" % flags.checkpoint
    with tempfile.TemporaryDirectory() as folder:
        if export.main(["--checkpoint_dir", flags.checkpoint, "--output_dir", folder, "--version", "1"]):
            return 1
        saved = SavedModel(os.path.join(folder, "1"))
    differing = of_evaluation(saved, predicted)
    rng = random.Random(1)
    some = ["".join(piece(rng, texts) for _ in range(rng.randint(0, LONGEST)))
            for _ in range(flags.random_texts)]
    differing += of_python(saved, flags.checkpoint, some)
    return int(differing > 0)


def piece(rng, texts):
    """A character of the file's, or something odd."""
    return rng.choice(ODD) if rng.random() < 0.3 else rng.choice(rng.choice(texts))


def of_evaluation(saved, predicted):
    """How many texts of the file differ, which are printed."""
    differing = 0
    for batch in in_batches(predicted, TEXTS_AT_ONCE):
        for line, row in zip(batch, saved.rows("tag", [{"text": line["text"]} for line in batch])):
            names = ("start", "end", "label", "text")
            given, wanted = ([[entity[name] for name in names] for entity in found]
                             for found in (entities_of(row), line["predicted"]))
            if given != wanted:
                differing += 1
                print("%s: the graph has %s, Python %s" % (line["text"], given, wanted))
    print("%d texts of the file, %d differing" % (len(predicted), differing))
    return differing


def of_python(saved, folder, texts):
    """How many of the texts differ by more than rounding."""
    checkpoint = best_checkpoint.choose(folder, "checkpoint")
    model = model_folder.read(os.path.dirname(checkpoint))
    reader = Reader(model, checkpoint, load_tokenizer(model.tokenizer))
    differing = equally_good = 0
    for batch in in_batches(texts, TEXTS_AT_ONCE):
        rows = saved.rows("tag", [{"text": text} for text in batch])
        for text, row, reading in zip(batch, rows, reader.read(batch)):
            given = entities_of(row)
            if not reading.agrees(row, text, reader.moves, model.labels):
                differing += 1
                print("%r: the graph has %s, Python %s" % (text, given, reading.found))
            elif [tuple(entity[name] for name in ("start", "end", "label")) for entity in given] != [
                    tuple(one.entity) for one in reading.found][:len(given)]:
                equally_good += 1
    print("%d random texts, %d differing; in %d two readings are equally good"
          % (len(texts), differing, equally_good))
    return differing


if __name__ == "__main__":
    sys.exit(main())
