"""Classifies texts, gives a number or several labels for each, finds their entities, or answers questions on
passages, with an exported model, or a server that has it loaded, and writes one JSON object per line.

  python -m serving.predict --text_a 手机没信号怎么办 --text_b 手机搜不到网络怎么处理
  python -m serving.predict --model_dir output/export/7 < pairs.tsv > answers.jsonl
  python -m serving.predict --server http://127.0.0.1:8501 < pairs.tsv > answers.jsonl

A line of standard input is text_a, or text_a, a tab, and text_b. A line of output:

  {"text_a": "…", "text_b": "…", "label": "1", "probabilities": {"0": 0.1, "1": 0.9}}
  {"text_a": "…", "text_b": "…", "value": 3.8}           of a regression, or with --signature regress

With a model of several labels, those that reach their threshold come with their probabilities, the likeliest
first:

  python -m serving.predict --server http://127.0.0.1:8501 --signature labels < texts.txt > labels.jsonl

  {"text_a": "…", "text_b": null, "labels": {"人生-死亡": 0.97, "灾害/意外-洪灾": 0.61}}

A model that labels entities takes a text a line:

  python -m serving.predict --text 浙商银行的叶老桂在北京
  python -m serving.predict --server http://127.0.0.1:8501 --signature tag < texts.txt > entities.jsonl

  {"text": "…", "entities": [{"text": "叶老桂", "label": "name", "start": 5, "end": 8, "score": 0.97}]}

A model that reads takes JSON objects, one a line, with question and passage, and candidates where it chooses
among them; the line of output has what it found, too:

  python -m serving.predict --question 先看什么？ --passage 先看网络，再看手机。
  python -m serving.predict --server http://127.0.0.1:8501 --signature read < questions.jsonl > answers.jsonl

  {"question": "…", "passage": "…", "answer": "网络", "start": 2, "end": 4, "score": 9.1, "null_score": -3.2}
  {"question": "…", "passage": "…", "candidates": ["…", "…"], "answer": "…", "choice": 1, "probabilities":
  [0.2, 0.8]}
"""
import atexit
import json
import os
import re
import sys
from dataclasses import dataclass
from typing import IO, Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from etl.common import json_text
from etl.common.batches import in_batches
from etl.common.command_line import UserError, flag, run
from etl.common.files import not_utf8
from serving.entity_lists import TAG, entities_of, left_out
from serving.label_rows import LABELS, labels_of
from serving.rest_client import RestClient
from serving.version_files import MAX_CANDIDATES, MODEL_FILE

CLASSIFY, REGRESS, READ, CHOOSE = "classify", "regress", "read", "choose"
# what a line of a question holds, by signature
FIELDS = {READ: ("question", "passage"), CHOOSE: ("question", "passage", "candidates")}


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
    text: Optional[str] = flag(None, "the text, for a model that labels entities (default: read standard "
                               "input)", empty_ok=True)
    question: Optional[str] = flag(None,
                                   "the question, for a model that reads (default: read standard input)")
    passage: Optional[str] = flag(None, "what the question is about", empty_ok=True)
    candidates: Tuple[str, ...] = flag((), "the answers to choose from, for a model that chooses")
    signature: Optional[str] = flag(
        None, "what to ask (default: what the model has; with --server what the other "
        "flags are of, else classify)", (CLASSIFY, REGRESS, LABELS, TAG, *FIELDS))
    batch_size: int = flag(32, "lines per batch")

    def __post_init__(self) -> None:
        if self.server and not re.match("https?://[^/]", self.server):
            raise ValueError("server must be as http://127.0.0.1:8501, got %s" % self.server)
        if self.model_name and not self.server:
            raise ValueError("model_name is given without server")
        if self.batch_size < 1:
            raise ValueError("batch_size must be at least 1, got %d" % self.batch_size)
        if (self.passage is not None or self.candidates) and self.question is None:
            raise ValueError("passage and candidates are given without question")
        if len(self.candidates) > MAX_CANDIDATES:
            raise ValueError("candidates must be at most %d, got %d" % (MAX_CANDIDATES, len(self.candidates)))
        given = [name for name in ("question", "text_a", "text") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError("%s are given: no model takes both" % " and ".join(given))
        if self.text_b is not None and self.text_a is None:
            raise ValueError("text_b is given without text_a")
        if self.text_a == "":
            raise ValueError("text_a is empty")
        for name in ("text_a", "text_b", "text", "question", "passage"):
            _require_unicode(name, getattr(self, name) or "")
        _require_unicode("candidates", "".join(self.candidates))


class Question(NamedTuple):
    """A text, or a pair; text_b is None for a single text."""
    text_a: str
    text_b: Optional[str]


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("serving.predict", __doc__, PredictConfig, predict, argv)


def predict(config: PredictConfig) -> None:
    """Answers what is in the flags, or on standard input, batch by batch."""
    model, signature = prepare(config)
    _require_flags_of(config, signature)
    if signature == TAG:
        untagged: Iterable[str] = [config.text] if config.text is not None else read_texts(sys.stdin.buffer)
        for some in in_batches(untagged, config.batch_size):
            rows = model.rows(TAG, [{"text": text} for text in some])
            _write(tagged(text, row) for text, row in zip(some, rows))
        return
    if signature in (CLASSIFY, REGRESS, LABELS):
        texts: Iterable[Question] = ([Question(config.text_a, config.text_b)] if config.text_a is not None
                                     else read_questions(sys.stdin.buffer))
        for batch in in_batches(texts, config.batch_size):
            _write({**question._asdict(), **outputs}
                   for question, outputs in zip(batch, answers(model, signature, batch)))
        return
    given = {"question": config.question, "passage": config.passage or "",
             **({"candidates": list(config.candidates)} if signature == CHOOSE else {})}
    questions: Iterable[Dict[str, Any]] = ([given] if config.question is not None
                                           else read_json_questions(sys.stdin.buffer, signature))
    for lines in in_batches(questions, config.batch_size):
        found = model.rows(signature, [inputs_of(line, signature) for line in lines])
        _write({**line, **answer_of(line, row)} for line, row in zip(lines, found))


def _require_flags_of(config: PredictConfig, signature: str) -> None:
    """Raises UserError for a flag that another kind of model takes."""
    kinds = {TAG: ("labels entities", "text"), **dict.fromkeys(FIELDS, ("reads passages", "question"))}
    does, wanted = kinds.get(signature, ("takes texts and pairs", "text_a"))
    for name in ("text_a", "text", "question"):
        if name != wanted and getattr(config, name) is not None:
            raise UserError("--%s: the model %s: give --%s" % (name, does, wanted))


def _write(lines: Iterable[Dict[str, Any]]) -> None:
    for line in lines:
        text = json.dumps(line, ensure_ascii=False) + "\n"
        sys.stdout.buffer.write(text.encode("utf-8"))          # whatever the locale
    sys.stdout.buffer.flush()


def prepare(config: PredictConfig) -> Tuple[Any, str]:
    """What answers, a server's client or a local model, and the signature to ask."""
    if config.server:
        given = (CHOOSE if config.candidates else READ if config.question is not None
                 else TAG if config.text is not None else CLASSIFY)
        return RestClient(config.server, config.model_name or "albert"), config.signature or given
    version = find_version(config.model_dir)
    # takes two seconds, which --help and a server's client should not
    from serving.saved_model import SavedModel
    model = SavedModel(version)
    atexit.register(model.close)               # else TensorFlow prints a traceback when Python ends
    own = [name for name in (TAG, LABELS, *FIELDS, CLASSIFY, REGRESS)
           if name in model.signatures] or [CLASSIFY]
    if config.signature not in (None, *own):
        raise UserError("--signature: the model has %s, not %s" % (", ".join(own), config.signature))
    return model, config.signature or own[0]


def read_json_questions(lines: IO[bytes], signature: str) -> Iterator[Dict[str, Any]]:
    """The object of each line. Raises UserError with the line number for any other than the signature
    takes."""
    for place, line in _decoded(lines):
        try:
            found = json_text.loads(line)
            json_text.require_whole_characters(found)
        except ValueError as error:
            raise UserError("%snot JSON: %s" % (place, error))
        if not isinstance(found, dict):
            raise UserError("%swanted an object with %s" % (place, ", ".join(FIELDS[signature])))
        for name in FIELDS[signature]:
            value = found.get(name, "" if name == "passage" else None)
            texts = value if name == "candidates" else [value]
            if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
                raise UserError(
                    "%s%s must be %s, got %.40r" %
                    (place, name, "a list of texts" if name == "candidates" else "a text", value))
            if len(texts) > MAX_CANDIDATES:
                raise UserError("%scandidates must be at most %d, got %d"
                                % (place, MAX_CANDIDATES, len(texts)))
        yield found


def read_texts(lines: IO[bytes]) -> Iterator[str]:
    """The text of each line. Raises UserError with the line number for invalid UTF-8."""
    for _, line in _decoded(lines):
        yield line.rstrip("\r\n")


def _decoded(lines: IO[bytes]) -> Iterator[Tuple[str, str]]:
    """Each line, behind the beginning of an error message about it."""
    for number, line in enumerate(lines, 1):
        place = "standard input: line %d: " % number
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(place + not_utf8(error))
        yield place, text


def tagged(text: str, row: Dict[str, Any]) -> Dict[str, Any]:
    """The JSON object of a text and the signature's outputs for it."""
    found = [dict(entity, score=round(entity["score"], 6)) for entity in entities_of(row)]
    beyond = left_out(row)
    return {"text": text, "entities": found, **({"left_out": beyond} if beyond else {})}


def inputs_of(line: Dict[str, Any], signature: str) -> Dict[str, Any]:
    """What the signature takes of a line. Candidates are filled up with "" to MAX_CANDIDATES, so that no
    server has to."""
    found = {"question": line["question"], "passage": line.get("passage", "")}
    if signature == CHOOSE:
        found["candidates"] = line["candidates"] + [""] * (MAX_CANDIDATES - len(line["candidates"]))
    return found


def answer_of(line: Dict[str, Any], outputs: Dict[str, Any]) -> Dict[str, Any]:
    """What is written of a line's outputs: of candidates' probabilities as many as there are candidates."""
    found = {name: round(value, 6) if isinstance(value, float) else value for name, value in outputs.items()
             if name not in ("count", "probabilities")}
    if "probabilities" in outputs:
        found["probabilities"] = [
            round(value, 6) for value in outputs["probabilities"][:len(line["candidates"])]
        ]
    return found


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
    for place, line in _decoded(lines):
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) > 2:
            raise UserError("%swanted text_a, or text_a and text_b separated by a tab, got %d fields"
                            % (place, len(fields)))
        if not fields[0]:
            raise UserError(place + "text_a is empty")
        yield Question(fields[0], fields[1] if len(fields) == 2 else None)


def answers(model: Any, signature: str, batch: Sequence[Question]) -> List[Dict[str, Any]]:
    """What is written of each text or pair."""
    if signature == LABELS:
        rows = model.rows(LABELS, [{"text_a": text_a, "text_b": text_b or ""} for text_a, text_b in batch])
        return [{"labels": {label: round(score, 6) for label, score in labels_of(row).items()}}
                for row in rows]
    found = model.probabilities(batch) if signature == CLASSIFY else model.values(batch)
    return [answer(outputs) for outputs in found]


def answer(outputs: Union[Dict[str, float], float]) -> Dict[str, Any]:
    """What is written of a text's probabilities by label, or of its number."""
    if isinstance(outputs, float):
        return {"value": round(outputs, 6)}
    return {"label": max(outputs, key=outputs.__getitem__),
            "probabilities": {label: round(probability, 6) for label, probability in outputs.items()}}


def _require_unicode(name: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("%s is not UTF-8: %r" % (name, text))


if __name__ == "__main__":
    raise SystemExit(main())
