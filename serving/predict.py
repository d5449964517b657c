"""Classifies texts with an exported model, or a server that has it loaded, and writes one JSON object
per line.

  python -m serving.predict --text_a 手机没信号怎么办 --text_b 手机搜不到网络怎么处理
  python -m serving.predict --model_dir output/export/7 < pairs.tsv > answers.jsonl
  python -m serving.predict --server http://127.0.0.1:8501 < pairs.tsv > answers.jsonl

A line of standard input is text_a, or text_a, a tab, and text_b. A line of output:

  {"text_a": "…", "text_b": "…", "label": "1", "probabilities": {"0": 0.1, "1": 0.9}}
"""
import json
import os
import re
import sys
from dataclasses import dataclass
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

from etl.common.batches import in_batches
from etl.common.command_line import UserError, flag, run
from etl.common.files import not_utf8
from serving.rest_client import RestClient
from serving.version_files import MODEL_FILE


@dataclass(frozen=True)
class PredictConfig:
    """The flags of this command."""
    model_dir: str = flag("output/export",
                          "folder of versions, whose newest is used, or one version's folder")
    server: Optional[str] = flag(
        None, "URL of a REST interface to use instead: serving.server's or TensorFlow Serving's")
    model_name: Optional[str] = flag(None, "with --server: the model's name there (default: albert)")
    text_a: Optional[str] = flag(None, "the text, or the first of a pair (default: read standard input)")
    text_b: Optional[str] = flag(None, "the second of the pair", empty_ok=True)
    batch_size: int = flag(32, "lines per batch")

    def __post_init__(self) -> None:
        if self.server and not re.match("https?://[^/]", self.server):
            raise ValueError("server must be as http://127.0.0.1:8501, got %s" % self.server)
        if self.model_name and not self.server:
            raise ValueError("model_name is given without server")
        if self.batch_size < 1:
            raise ValueError("batch_size must be at least 1, got %d" % self.batch_size)
        if self.text_b is not None and self.text_a is None:
            raise ValueError("text_b is given without text_a")
        if self.text_a == "":
            raise ValueError("text_a is empty")
        for name in ("text_a", "text_b"):
            _require_unicode(name, getattr(self, name) or "")


class Question(NamedTuple):
    """A text, or a pair; text_b is None for a single text."""
    text_a: str
    text_b: Optional[str]


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("serving.predict", __doc__, PredictConfig, predict, argv)


def predict(config: PredictConfig) -> None:
    """Classifies the text or pair in the flags, or those of standard input, batch by batch."""
    ask = prepare(config)
    questions: Iterable[Question] = ([Question(config.text_a, config.text_b)] if config.text_a is not None
                                     else read_questions(sys.stdin.buffer))
    for batch in in_batches(questions, config.batch_size):
        for question, probabilities in zip(batch, ask(batch)):
            line = json.dumps(answer(question, probabilities), ensure_ascii=False) + "\n"
            sys.stdout.buffer.write(line.encode("utf-8"))      # whatever the locale
        sys.stdout.buffer.flush()


def prepare(config: PredictConfig) -> Callable[[Sequence[Question]], List[Dict[str, float]]]:
    """A function that gives each question's probabilities by label: a server's client, or a local model."""
    if config.server:
        return RestClient(config.server, config.model_name or "albert").probabilities
    version = find_version(config.model_dir)
    # takes two seconds, which --help and a server's client should not
    from serving.saved_model import SavedModel
    return SavedModel(version).probabilities


def find_version(model_dir: str) -> str:
    """`model_dir` itself if it is a version's folder, else the one with the highest number in it."""
    if os.path.isfile(os.path.join(model_dir, MODEL_FILE)):
        return model_dir
    names = os.listdir(model_dir) if os.path.isdir(model_dir) else []
    versions = [name for name in names
                if name.isdigit() and os.path.isfile(os.path.join(model_dir, name, MODEL_FILE))]
    if not versions:
        raise UserError("--model_dir: %s: no exported model here: run python -m serving.export first"
                        % model_dir)
    return os.path.join(model_dir, max(versions, key=int))


def read_questions(lines: IO[bytes]) -> Iterator[Question]:
    """A question per line. Raises UserError with the line number for invalid UTF-8 or a wrong number of
    fields."""
    for number, line in enumerate(lines, 1):
        try:
            fields = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise UserError("standard input: line %d: %s" % (number, not_utf8(error)))
        if len(fields) > 2:
            raise UserError("standard input: line %d: wanted text_a, or text_a and text_b separated by a "
                            "tab, got %d fields" % (number, len(fields)))
        if not fields[0]:
            raise UserError("standard input: line %d: text_a is empty" % number)
        yield Question(fields[0], fields[1] if len(fields) == 2 else None)


def answer(question: Question, probabilities: Dict[str, float]) -> Dict[str, Any]:
    """The JSON object of a question and its probabilities by label."""
    return {"text_a": question.text_a, "text_b": question.text_b,
            "label": max(probabilities, key=probabilities.__getitem__),
            "probabilities": {label: round(probability, 6) for label, probability in probabilities.items()}}


def _require_unicode(name: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("%s is not UTF-8: %r" % (name, text))


if __name__ == "__main__":
    raise SystemExit(main())
