"""The answers of an exported reader against those of the evaluation that trained it, question by question.

  python test/checks/reading_parity.py --data path/to/cmrc2018_dev.json --checkpoint output/finetune
  python test/checks/reading_parity.py --checkpoint output/c3

Exports the model of the folder, asks it every question, and compares what it gives with what
`python -m estimator.finetune --do_eval` wrote beside the checkpoints: answer and place with predictions.json
and nbest_predictions.json, which are of the questions in --data; of a model that chooses among candidates its
choice, and the probabilities to 0.001, with predictions.jsonl, which has the questions, too. Prints what
differs and ends with status 1 where anything does.
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
from serving.predict import inputs_of
from serving.saved_model import SavedModel

QUESTIONS_AT_ONCE = 16
TOLERANCE = 1e-3                               # of probabilities


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="file in SQuAD's form, for a model that finds answers")
    parser.add_argument("--checkpoint", required=True, help="folder that estimator.finetune wrote")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if export.main(["--checkpoint_dir", flags.checkpoint, "--output_dir", folder, "--version", "1"]):
            return 1
        model = SavedModel(os.path.join(folder, "1"))
    if "choose" in model.signatures:
        lines = questions_of_choices(flags.checkpoint)
    elif flags.data:
        lines = questions_of_passages(flags.checkpoint, flags.data)
    else:
        parser.error("--data is missing: the file whose questions were evaluated")
    differing = compare(model, *lines)
    return int(differing > 0)


def compare(model, signature, lines, agrees):
    """How many of `lines` the model answers otherwise; prints each."""
    differing = 0
    for batch in in_batches(lines, QUESTIONS_AT_ONCE):
        for line, row in zip(batch, model.rows(signature, [inputs_of(line, signature) for line in batch])):
            if not agrees(line, row):
                differing += 1
                print("%s: the graph has %r, Python %r" % (line["id"], row, line["wanted"]))
    print("%d questions, %d differing" % (len(lines), differing))
    return differing


def questions_of_passages(folder, data):
    """The signature, the questions with what was answered, and what compares it."""
    predicted, nbest = (json.loads(read(folder, name))
                        for name in ("predictions.json", "nbest_predictions.json"))
    lines = []
    for example in read_squad(data, False, False, True, False):
        if example.id not in predicted:
            sys.exit("%s: predictions.json is of other questions: run finetune --do_eval" % folder)
        text = predicted.pop(example.id)
        place = next([entry["start"], entry["end"]]
                     for entry in nbest[example.id] if entry["text"] == text) if text else [0, 0]
        lines.append({"id": example.id, "question": example.question, "passage": example.passage,
                      "wanted": [text] + place})
    if predicted:
        sys.exit("%s: predictions.json is of other questions: run finetune --do_eval" % folder)
    return "read", lines, lambda line, row: [row["answer"], row["start"], row["end"]] == line["wanted"]


def questions_of_choices(folder):
    """The same of a model that chooses among candidates."""
    lines = [json.loads(line) for line in read(folder, "predictions.jsonl").splitlines()]
    for line in lines:
        line["wanted"] = [line["predicted"]] + line["probabilities"]

    def agrees(line, row):
        given = row["probabilities"][:len(line["candidates"])]
        return row["choice"] == line["predicted"] and row["count"] == len(given) and all(
            abs(one - other) <= TOLERANCE for one, other in zip(given, line["probabilities"]))
    return "choose", lines, agrees


def read(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as stream:
        return stream.read()


if __name__ == "__main__":
    sys.exit(main())
