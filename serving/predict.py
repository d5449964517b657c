"""Asks an exported model, and writes one JSON object a line.

  python -m serving.predict --text_a 手机没信号怎么办 --text_b 手机搜不到网络怎么处理
  python -m serving.predict --model_dir output/export/7 < pairs.tsv > answers.jsonl

A line of standard input is text_a, or text_a, a tab and text_b. A line of output:

  {"text_a": "…", "text_b": "…", "label": "1", "probabilities": {"0": 0.1, "1": 0.9}}
"""
import json
import os
import sys
from dataclasses import dataclass
from typing import IO, Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

from etl.command_line import UserError, flag, run
from serving.saved_model import MODEL_FILE, SavedModel


@dataclass(frozen=True)
class PredictConfig:
    """The flags of this command."""
    model_dir: str = flag("output/export", "folder of versions, of which the newest answers, or one version's folder")
    text_a: Optional[str] = flag(None, "the text, or the first of a pair; without it standard input is read")
    text_b: Optional[str] = flag(None, "the second of the pair", empty_ok=True)
    batch_size: int = flag(32, "lines that are answered at once")

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError("batch_size must be at least 1, got %d" % self.batch_size)
        if self.text_b is not None and self.text_a is None:
            raise ValueError("text_b is given without text_a")
        if self.text_a == "":
            raise ValueError("text_a is empty")
        for name in ("text_a", "text_b"):
            _require_unicode(name, getattr(self, name) or "")


class Question(NamedTuple):
    """What is asked; text_b is None where there is one text only."""
    text_a: str
    text_b: Optional[str]


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("serving.predict", __doc__, PredictConfig, predict, argv)


def predict(config: PredictConfig) -> None:
    """Answers the flags' question, or those of standard input batch by batch."""
    model = SavedModel(find_version(config.model_dir))
    questions: Iterable[Question] = ([Question(config.text_a, config.text_b)] if config.text_a is not None
                                     else read_questions(sys.stdin.buffer))
    for batch in _batches(questions, config.batch_size):
        for found in answer(model, batch):
            line = json.dumps(found, ensure_ascii=False) + "\n"
            sys.stdout.buffer.write(line.encode("utf-8"))      # whatever the locale says
        sys.stdout.buffer.flush()


def find_version(model_dir: str) -> str:
    """`model_dir` itself if it is a version's folder, else the one with the highest number in it."""
    if os.path.isfile(os.path.join(model_dir, MODEL_FILE)):
        return model_dir
    names = os.listdir(model_dir) if os.path.isdir(model_dir) else []
    versions = [name for name in names if name.isdigit() and os.path.isfile(os.path.join(model_dir, name, MODEL_FILE))]
    if not versions:
        raise UserError("--model_dir: %s: no exported model here: run python -m serving.export first" % model_dir)
    return os.path.join(model_dir, max(versions, key=int))


def read_questions(lines: IO[bytes]) -> Iterator[Question]:
    """A question for each line. Raises UserError with the line's number for bad UTF-8 or a wrong count of fields."""
    for number, line in enumerate(lines, 1):
        try:
            fields = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise UserError("standard input: line %d is not UTF-8: %s" % (number, error))
        if len(fields) > 2:
            raise UserError("standard input: line %d: wanted text_a, or text_a and text_b separated by a tab, got %d "
                            "fields" % (number, len(fields)))
        if not fields[0]:
            raise UserError("standard input: line %d: text_a is empty" % number)
        yield Question(fields[0], fields[1] if len(fields) == 2 else None)


def answer(model: SavedModel, questions: Sequence[Question]) -> List[Dict[str, Any]]:
    """One JSON object for each question."""
    found = model.run({"text_a": [question.text_a for question in questions],
                       "text_b": [question.text_b or "" for question in questions]})
    return [{"text_a": question.text_a, "text_b": question.text_b, "label": label.decode("utf-8"),
             "probabilities": {name: round(float(p), 6) for name, p in zip(model.labels, probabilities)}}
            for question, label, probabilities in zip(questions, found["label"], found["probabilities"])]


def _batches(questions: Iterable[Question], size: int) -> Iterator[List[Question]]:
    batch: List[Question] = []
    for question in questions:
        batch.append(question)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _require_unicode(name: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("%s is not UTF-8: %r" % (name, text))


if __name__ == "__main__":
    raise SystemExit(main())
