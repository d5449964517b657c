"""Questions on passages, whose answers are parts of the passage: files in SQuAD's JSON form → examples.

  {"data": [{"paragraphs": [{"context": "…", "qas": [
      {"id": "…", "question": "…", "answers": [{"text": "…", "answer_start": 7}], "is_impossible":
      false}]}]}]}

CMRC 2018, DRCD and SQuAD are published so. An offset counts the characters (code points) of the passage.
What is wrong with a file is a UserError that names file and question.
"""
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from etl.common import json_text
from etl.common.command_line import UserError
from etl.common.files import not_utf8

HAS_NUL = "questions with NUL in their texts, which no token stands for"


class Answer(NamedTuple):
    """What answers a question. start: of its first character in the passage; -1 where it does not stand at
    the offset that its file says."""
    text: str
    start: int

    @property
    def end(self) -> int:
        """Behind its last character."""
        return self.start + len(self.text)


class ReadingExample(NamedTuple):
    """One question on one passage. label: the right answers; () where there is none in the passage; None
    where it is not known."""
    question: str
    passage: str
    label: Optional[Tuple[Answer, ...]]
    id: str


class Counts:
    """What is to be told of a file: lines by what was counted."""

    def __init__(self) -> None:
        self._numbers: Dict[str, int] = {}

    def add(self, what: str) -> None:
        self._numbers[what] = self._numbers.get(what, 0) + 1

    def tell(self, path: str) -> None:
        """Prints what was counted, a line each."""
        for what, number in self._numbers.items():
            print("%s: %d %s" % (path, number, what))


def read_squad(path: str, is_training: bool, is_test: bool, may_be_impossible: bool,
               skip_bad_answers: bool) -> List[ReadingExample]:
    """The questions of a file, in its order.

    Args:
      path: of a JSON file.
      is_training: whether answers are learned: then each must stand at its offset, and a question with
        several keeps them in the file's order. Elsewhere only their texts count.
      is_test: whether answers may be missing.
      may_be_impossible: whether a question may have no answer in its passage.
      skip_bad_answers: whether an answer that must stand at its offset, but does not, is left out and
        counted, and so is a question that has no other.
    """
    examples: List[ReadingExample] = []
    seen: Dict[str, None] = {}
    counts = Counts()
    for passage, question in _questions(path, counts):
        identity = question.get("id")
        if type(identity) is int:
            identity = str(identity)
        place = "%s: question %s" % (path,
                                     identity if isinstance(identity, str) and identity else len(seen) + 1)
        if not isinstance(identity, str) or not identity:
            raise UserError("%s: id must be a text, got %r" % (place, identity))
        if identity in seen:
            raise UserError("%s: this id comes twice" % place)
        seen[identity] = None
        text = question.get("question")
        if not isinstance(text, str):
            raise UserError("%s: question must be a text, got %r" % (place, text))
        if not text.strip():                   # CMRC's trial set has two
            counts.add("questions skipped: they have no text" if is_training
                       else "questions without a text, answered from their passages alone")
            if is_training:
                continue
        if not passage.strip():
            raise UserError("%s: its passage (context) is empty" % place)
        if "\0" in passage + text:
            counts.add(HAS_NUL)
        label = _label(place, passage, question, is_test, may_be_impossible)
        if is_training and label:
            label = _at_their_offsets(place, passage, question, label, skip_bad_answers, counts)
            if label is None:
                continue
            if len(set(label)) > 1:
                counts.add("questions with several answers: the first is learned")
        elif label and any(answer.start < 0 for answer in label):
            counts.add(
                "questions with an answer that does not stand at its offset, and counts by its text alone")
        examples.append(ReadingExample(text, passage, label, identity))
    if not examples:
        raise UserError("%s: holds no question%s" % (path, " that can be learned" if seen else ""))
    counts.tell(path)
    return examples


def _questions(path: str, counts: Counts) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """(passage, question as it stands in the file) of all questions."""
    content = read_json(path)
    articles = content.get("data") if isinstance(content, dict) else None
    if not isinstance(articles, list):
        raise UserError('%s: wanted SQuAD\'s form, {"data": [{"paragraphs": [{"context": …, "qas": […]}]}]}'
                        % path)
    for number, article in enumerate(articles, 1):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            raise UserError("%s: data %d: paragraphs must be a list, got %.40r" % (path, number, paragraphs))
        for paragraph in paragraphs:
            found = paragraph if isinstance(paragraph, dict) else {}
            passage, questions = found.get("context"), found.get("qas", [])
            if not isinstance(passage, str) or not isinstance(questions, list) or not all(
                    isinstance(question, dict) for question in questions):
                raise UserError(
                    "%s: data %d: a paragraph must have context, a text, and qas, a list of objects" %
                    (path, number))
            if not questions:
                counts.add("passages without a question")
            for question in questions:
                yield passage, question


def _label(place: str, passage: str, question: Dict[str, Any], is_test: bool,
           may_be_impossible: bool) -> Optional[Tuple[Answer, ...]]:
    """The answers of a question, each once for each time it stands there."""
    answers, impossible = question.get("answers"), question.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise UserError("%s: is_impossible must be true or false, got %r" % (place, impossible))
    if impossible or (answers == [] and may_be_impossible and not is_test):
        if not may_be_impossible:
            raise UserError("%s: is impossible, but each question of this task has an answer: "
                            "use --task_name squad_v2 or reading" % place)
        return ()
    if is_test and (not answers or _are_left_out(answers)):
        return None
    if not isinstance(answers, list) or not answers:
        raise UserError("%s: answers must be a list with an element, got %r" % (place, answers))
    found = []
    for number, answer in enumerate(answers, 1):
        fields = answer if isinstance(answer, dict) else {}
        text, start = fields.get("text"), fields.get("answer_start", -1)
        if not isinstance(text, str) or not text.strip() or type(start) is not int:
            raise UserError(
                "%s: answer %d must have text, not empty, and answer_start, a whole number; got %.80r" %
                (place, number, answer))
        stands = 0 <= start and passage.startswith(text, start)
        found.append(Answer(text, start if stands else -1))
    return tuple(found)


def _are_left_out(answers: Any) -> bool:
    """Whether answers are there without a text, in place of ones that are not published."""
    return isinstance(answers, list) and all(
        isinstance(answer, dict) and answer.get("text") == "" for answer in answers)


def _at_their_offsets(place: str, passage: str, question: Dict[str, Any], label: Tuple[Answer, ...],
                      skip_bad_answers: bool, counts: Counts) -> Optional[Tuple[Answer, ...]]:
    """The answers that stand where the file says; None where none does. Raises UserError unless bad ones are
    to be skipped."""
    for answer, given in zip(label, question["answers"]):
        if answer.start < 0:
            if not skip_bad_answers:
                raise UserError("%s: %s; --skip_bad_answers leaves such answers out, and counts them"
                                % (place, why_bad(passage, answer.text, given.get("answer_start", -1))))
            counts.add("answers skipped: they do not stand at their offsets")
    good = tuple(answer for answer in label if answer.start >= 0)
    if not good:
        counts.add("questions skipped: they have no other answer")
    return good or None


def why_bad(passage: str, text: str, start: int, whole: str = "the passage", part: str = "the answer") -> str:
    """What is wrong with a part of a text that does not stand at its offset; `whole` and `part` name both.

    Offsets of other languages' tools count bytes of UTF-8, or UTF-16's units; both are those of characters
    until the first character that is longer.
    """
    found = passage[max(0, start):max(0, start) + len(text)]
    reason = "%s has %.40r at %d, not %s %.40r" % (whole, found, start, part, text)
    if 0 <= start:
        for name, encoding, size in (("bytes of UTF-8", "utf-8", 1), ("units of UTF-16", "utf-16-le", 2)):
            data, wanted = passage.encode(encoding), text.encode(encoding)
            if data[start * size:start * size + len(wanted)] == wanted:
                return reason + ": it stands there when %s are counted, but characters are wanted" % name
    place = passage.find(text)
    return reason + (": it stands at %d" % place if place >= 0 else ": %s does not hold it at all" % whole)


def read_json(path: str) -> Any:
    """A file's value. Raises UserError for what is no JSON, too deep, no UTF-8 or half a character."""
    with open(path, "rb") as stream:
        data = stream.read()
    try:
        value = json_text.loads(data.decode("utf-8-sig"))
        if b"\\ud" in data.lower():            # escapes alone can write half a surrogate pair
            json_text.require_whole_characters(value)
    except UnicodeDecodeError as error:
        raise UserError("%s: %s" % (path, not_utf8(error)))
    except ValueError as error:
        raise UserError("%s: not JSON: %s" % (path, error))
    return value
