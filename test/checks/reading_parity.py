"""The answers of an exported reader against those of the evaluation that trained it, question by question.

  python test/checks/reading_parity.py --data path/to/cmrc2018_dev.json --checkpoint output/finetune

Exports the model of the folder, asks it every question of the file, and compares answer and place with
predictions.json and nbest_predictions.json beside the checkpoints, which `python -m estimator.finetune
--do_eval` wrote for the same file. Prints what differs and ends with status 1 where anything does.
"""
import argparse
import json
import os
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from estimator.data.reading import read_squad
from etl.common.batches import in_batches
from serving import export
from serving.saved_model import SavedModel

QUESTIONS_AT_ONCE = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="file in SQuAD's form")
    parser.add_argument("--checkpoint", required=True, help="folder that estimator.finetune wrote")
    flags = parser.parse_args()
    examples = read_squad(flags.data, False, False, True, False)
    predicted, nbest = (read(flags.checkpoint, name)
                        for name in ("predictions.json", "nbest_predictions.json"))
    if set(predicted) != {example.id for example in examples}:
        return "%s: predictions.json is of other questions: run finetune --do_eval" % flags.checkpoint
    with tempfile.TemporaryDirectory() as folder:
        if export.main(["--checkpoint_dir", flags.checkpoint, "--output_dir", folder, "--version", "1"]):
            return 1
        model = SavedModel(os.path.join(folder, "1"))
    differing = 0
    for batch in in_batches(examples, QUESTIONS_AT_ONCE):
        rows = model.rows("read", [{"question": example.question, "passage": example.passage}
                                   for example in batch])
        for example, row in zip(batch, rows):
            entry = next(entry for entry in nbest[example.id] if entry["text"] == predicted[example.id])
            wanted = (predicted[example.id], ) + (
                (entry["start"], entry["end"]) if predicted[example.id] else (0, 0))
            if (row["answer"], row["start"], row["end"]) != wanted:
                differing += 1
                print("%s: the graph has %r at %d:%d, Python %r at %d:%d" % (
                    (example.id, row["answer"], row["start"], row["end"]) + wanted))
    print("%d questions, %d differing" % (len(examples), differing))
    return int(differing > 0)


def read(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as stream:
        return json.load(stream)


if __name__ == "__main__":
    sys.exit(main())
