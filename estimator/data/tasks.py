"""Labelled data by task: its files, columns, labels and metric.

A new task is an entry in TASKS. Its files are described in their distributors' format; other column names
need one `columns(...)`, and more complex rows one small function from a row to Examples.
"""
import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from estimator.data.task_files import SUFFIXES, Row, read_rows
from etl.common.command_line import UserError

TRAIN, DEV, TEST = "train", "dev", "test"
DEV_MISMATCHED, TEST_MISMATCHED = "dev_mismatched", "test_mismatched"
PARTS = (TRAIN, DEV, DEV_MISMATCHED, TEST, TEST_MISMATCHED)

GENERIC = ("sentence_pair", "single_sentence")  # tasks whose columns and labels flags may change


class Example(NamedTuple):
    """One example. text_b is None for single sentences, label is None if a test file has none."""
    text_a: str
    text_b: Optional[str]
    label: Optional[str]
    id: Any = None  # from the file, for a submission; None: the example's number


Reader = Callable[[Row], List[Example]]


class Layout(NamedTuple):
    """One format of data files.

    Attributes:
      files: name by part.
      read: a row → its examples, usually one; raises ValueError with the reason if it cannot.
      order: see task_files.read_rows.
    """
    files: Mapping[str, str]
    read: Reader
    order: Optional[Tuple[str, ...]] = ()


@dataclass(frozen=True)
class Task:
    """The description of one task.

    Attributes:
      name: for --task_name.
      labels: by class index; () is a regression, whose labels are numbers.
      layouts: formats its files may have; for each part the first that exists is read.
      metric: selects the best checkpoint, a name in scores.METRICS.
      undecided: a label on which annotators could not agree; such examples are skipped, in a test file
        unlabelled.
      choices: consecutive examples that belong to one question, of which the most likely one is the answer.
      submission: name of the prediction file, if it is not `<name>_predict.json`.
      kind: what is learned, a name in job.KINDS.
    """
    name: str
    labels: Tuple[str, ...]
    layouts: Tuple[Layout, ...]
    metric: str = "accuracy"
    undecided: Optional[str] = None
    choices: int = 1
    submission: Optional[str] = None
    kind: str = "classes"

    @property
    def is_regression(self) -> bool:
        return not self.labels

    @property
    def parts(self) -> List[str]:
        """The parts with files, train first."""
        return [part for part in PARTS if any(part in layout.files for layout in self.layouts)]


def columns(text_a: str, text_b: Optional[str] = None, label: str = "label", id: str = "id") -> Reader:
    """A reader of rows whose columns, or JSON fields, have these names."""
    def read(row: Row) -> List[Example]:
        return [Example(_text(row, text_a), None if text_b is None else _text(row, text_b),
                        _label(row, label), row.get(id))]
    return read


def _csl(row: Row) -> List[Example]:
    """Do these keywords belong to this abstract?"""
    keywords = row.get("keyword")
    if not (isinstance(keywords, list) and all(isinstance(word, str) for word in keywords)):
        raise ValueError("wanted a list of texts as keyword, got %r" % (keywords,))
    return [Example(" ".join(keywords), _text(row, "abst"), _label(row), row.get("id"))]


def _wsc(row: Row) -> List[Example]:
    """Does the pronoun mean the noun? Both are marked: `_小明_说[他]累了`."""
    text, target = _text(row, "text"), row.get("target")
    spans = []
    for name, left, right in (("span1", "_", "_"), ("span2", "[", "]")):
        found, begin = (target.get(name + "_text"),
                        target.get(name + "_index")) if isinstance(target, dict) else (None, None)
        if not (isinstance(found, str) and isinstance(begin, int)
                and text[begin:begin + len(found)] == found):
            raise ValueError("target: %s is %r at %r, which the text does not have there"
                             % (name, found, begin))
        spans.append((begin, begin + len(found), left, right))
    for begin, end, left, right in sorted(spans, reverse=True):     # from the end: positions stay valid
        text = text[:begin] + left + text[begin:end] + right + text[end:]
    return [Example(text, None, _label(row), row.get("id"))]


def _copa(row: Row) -> List[Example]:
    """Which of two is the cause, or the effect? Each is an example, in temporal order; the right one's label
    is 1."""
    question, right = row.get("question"), _label(row)
    if question not in ("cause", "effect"):
        raise ValueError("wanted cause or effect as question, got %r" % (question,))
    if right not in (None, "0", "1"):
        raise ValueError("unknown label %r; it must be 0 or 1" % right)
    found = []
    for number in (0, 1):
        pair = [_text(row, "premise"), _text(row, "choice%d" % number)]
        first, then = pair if question == "effect" else pair[::-1]
        found.append(Example(first, then, None if right is None else str(int(right == str(number))),
                             row.get("id")))
    return found


def _multinli_zh(row: Row) -> List[Example]:
    """XNLI's training pairs, whose words are separated by spaces."""
    return [example._replace(text_a=example.text_a.replace(" ", ""),
                             text_b=(example.text_b or "").replace(" ", ""))
            for example in _premise_and_hypothesis(row)]


def _premise_and_hypothesis(row: Row) -> List[Example]:
    """CLUE's version of XNLI; `contradictory` is the label's name in its training file."""
    example, = columns("premise", "hypo")(row)
    return [example._replace(label="contradiction") if example.label == "contradictory" else example]


def _xnli(row: Row) -> List[Example]:
    """The Chinese examples among XNLI's fifteen languages."""
    if _text(row, "language") != "zh":
        return []
    return columns("sentence1", "sentence2", "gold_label")(row)


def _parts(pattern: str, **others: str) -> Dict[str, str]:
    return dict({part: pattern % part for part in (TRAIN, DEV, TEST)}, **others)


def _any_suffix(read: Reader, order: Optional[Tuple[str, ...]] = ()) -> Tuple[Layout, ...]:
    return tuple(Layout(_parts("%s" + suffix), read, order) for suffix in SUFFIXES)


_PAIR, _SINGLE = ("text_a", "text_b", "label"), ("label", "text_a")
_PAIRS = _any_suffix(columns("text_a", "text_b"), _PAIR)
_CLUE_PAIRS = (Layout(_parts("%s.json"), columns("sentence1", "sentence2")),)
_OCNLI = tuple(Layout({TRAIN: "train.%s.json" % size}, columns("sentence1", "sentence2"))
               for size in ("50k", "30k", "10k"))

_NO_YES = ("0", "1")
_NLI = ("contradiction", "entailment", "neutral")
_TNEWS = tuple(str(number) for number in range(100, 117) if number not in (105, 111))

TASKS: Dict[str, Task] = {task.name: task for task in (
    Task("sentence_pair", _NO_YES, _PAIRS),
    Task("single_sentence", _NO_YES, _any_suffix(columns("text_a"), _SINGLE)),
    Task("lcqmc", _NO_YES, _PAIRS),
    Task("lcqmc_pair", _NO_YES, _PAIRS),       # as Ascend's port calls it
    Task("bq", _NO_YES, _CLUE_PAIRS + _PAIRS),
    Task("chnsenticorp", _NO_YES, _any_suffix(columns("text_a"), _SINGLE)),
    Task("xnli", _NLI, (Layout({TRAIN: "multinli.train.zh.tsv"}, _multinli_zh),
                        Layout({DEV: "xnli.dev.tsv", TEST: "xnli.test.tsv"}, _xnli),
                        Layout(_parts("%s.json"), _premise_and_hypothesis))),
    # CLUE
    Task("afqmc", _NO_YES, _CLUE_PAIRS + _PAIRS),
    # test.json of tnews and wsc is CLUE 1.1's, as the names of their submissions show.
    Task("tnews", _TNEWS, (Layout(_parts("%s.json"), columns("sentence")),),
         submission="tnews11_predict.json"),
    Task("iflytek", tuple(map(str, range(119))), (Layout(_parts("%s.json"), columns("sentence")),)),
    Task("cmnli", _NLI, _CLUE_PAIRS, undecided="-"),
    Task("ocnli", _NLI, _OCNLI + _CLUE_PAIRS, undecided="-", submission="ocnli_50k_predict.json"),
    Task("csl", _NO_YES, (Layout(_parts("%s.json"), _csl),)),
    Task("wsc", ("true", "false"), (Layout(_parts("%s.json"), _wsc),), submission="cluewsc11_predict.json"),
    Task("copa", _NO_YES, (Layout(_parts("%s.json"), _copa),), metric="choice_accuracy", choices=2),
    # GLUE
    Task("cola", _NO_YES, (Layout({TRAIN: "train.tsv", DEV: "dev.tsv"}, columns("sentence"),
                                  ("source", "label", "star", "sentence")),
                           Layout({TEST: "test.tsv"}, columns("sentence", id="index"))),
         metric="matthews_correlation"),
    Task("mnli", _NLI,
         (Layout({TRAIN: "train.tsv", DEV: "dev_matched.tsv", DEV_MISMATCHED: "dev_mismatched.tsv",
                  TEST: "test_matched.tsv", TEST_MISMATCHED: "test_mismatched.tsv"},
                 columns("sentence1", "sentence2", "gold_label", "index")),)),
    Task("mrpc", _NO_YES, (Layout(_parts("%s.tsv"), columns("#1 String", "#2 String", "Quality", "index")),
                           Layout({TRAIN: "msr_paraphrase_train.txt", TEST: "msr_paraphrase_test.txt"},
                                  columns("#1 String", "#2 String", "Quality"))), metric="f1"),
    Task("sts-b", (), (Layout(_parts("%s.tsv"), columns("sentence1", "sentence2", "score", "index")),),
         metric="pearson"),
)}


def with_columns(task: Task, given: Mapping[str, str], labels: Sequence[str]) -> Task:
    """The same task on files with other column names or numbers, with other labels.

    Args:
      task: one of GENERIC.
      given: name, or number from 1 on, by text_a, text_b, label; {}: the task's own.
      labels: by class index; (): the task's own.
    """
    task = dataclasses.replace(task, labels=tuple(labels) or task.labels)
    if not given:
        return task
    numbered = all(value.isdigit() for value in given.values())
    return dataclasses.replace(task, layouts=_any_suffix(columns(**given), None if numbered else ()))


def read_examples(task: Task, data_dir: str, part: str) -> List[Example]:
    """The examples of one part, without undecided ones, whose number is printed; labels may be absent only in
    test parts.

    Raises UserError with file and line for a missing file or column, invalid UTF-8, a wrong number of fields,
    an unknown label, an empty text, or a file without examples.
    """
    path, layout = find_file(task, data_dir, part)
    is_test = part.startswith(TEST)
    examples, num_undecided = [], 0
    for number, row in read_rows(path, layout.order, may_lack="label" if is_test else ""):
        try:
            for example in layout.read(row):
                if example.label is None and not is_test:
                    raise ValueError("no label; there are: %s" % ", ".join(map(str, row)))
                if example.label is not None and example.label == task.undecided:
                    if not is_test:
                        num_undecided += 1
                        continue
                    example = example._replace(label=None)     # a submission has a line for each example
                _check(example, task)
                examples.append(example)
        except ValueError as error:
            raise UserError("%s: line %d: %s" % (path, number, error))
    if not examples:
        raise UserError("%s: holds no example" % path)
    if num_undecided:
        print("%s: %d examples skipped: their label is %s, undecided" % (path, num_undecided, task.undecided))
    return examples


def find_file(task: Task, data_dir: str, part: str) -> Tuple[str, Layout]:
    """The file of one part and its shape. Raises UserError naming all it looked for."""
    if not os.path.isdir(data_dir):
        reason = (" is a file, not a folder: name the one it lies in" if os.path.exists(data_dir)
                  else ": no such folder")
        raise UserError("--data_dir: %s%s" % (data_dir, reason))
    layouts = [layout for layout in task.layouts if part in layout.files]
    paths = [os.path.join(data_dir, layout.files[part]) for layout in layouts]
    for path, layout in zip(paths, layouts):
        if os.path.isfile(path):
            return path, layout
    raise UserError("task %s: no such file: %s" % (task.name, " or ".join(dict.fromkeys(paths))))


def describe_all() -> str:
    """A line per task: name, labels, metric, files of the first layout."""
    lines = []
    for task in TASKS.values():
        labels = "a number" if task.is_regression else (", ".join(task.labels) if len(task.labels) < 6
                                                        else "%d labels" % len(task.labels))
        files = sorted({name for layout in task.layouts for name in layout.files.values()})
        shown = files if len(files) < 7 else ["train, dev, test with one of %s" % " ".join(SUFFIXES)]
        lines.append("%-16s %-36s %-21s %s" % (task.name, labels, task.metric, ", ".join(shown)))
    return "\n".join(lines)


def _text(row: Row, name: str) -> str:
    if name not in row:
        raise ValueError("no column %s; there are: %s" % (name, ", ".join(map(str, row))))
    if not isinstance(row[name], str):
        raise ValueError("wanted a text %s, got %r" % (name, row[name]))
    return row[name]


def _label(row: Row, name: str = "label") -> Optional[str]:
    """JSON numbers and booleans become labels as they are written in JSON."""
    label = row.get(name)
    return None if label is None else str(label).lower() if isinstance(label, bool) else str(label)


def _check(example: Example, task: Task) -> None:
    for name, text in (("text_a", example.text_a), ("text_b", example.text_b)):
        if text is not None and not text.strip():
            raise ValueError("%s is empty" % name)
    if example.label is None:
        return
    if task.is_regression:
        if not _is_number(example.label):
            raise ValueError("label must be a number, got %r" % example.label)
    elif example.label not in task.labels:
        shown = ", ".join(task.labels[:20]) + (", …" if len(task.labels) > 20 else "")
        raise ValueError("unknown label %r; task %s has %s" % (example.label, task.name, shown))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
