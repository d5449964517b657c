"""Labelled data by task: its files, columns, labels and metric.

A new task is an entry in TASKS. What is learned is its kind: a class or a number for a text or a pair, the
answer in a passage, one of several candidates, the entities in a text, several labels for a text. Its files
are described as their distributors ship them; columns that have other names are one `columns(...)`, and a row
that is more than that is one small function from a row to Examples.
"""
import contextlib
import dataclasses
import itertools
import math
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from estimator.data import candidates, column_order, entities, headers
from estimator.data.task_files import SUFFIXES, Row, field_rows, is_json, read_rows
from estimator.model.kinds import CHOICES, CLASSES, MULTI_LABEL, SPANS, TAGS
from etl.common.command_line import UserError

TRAIN, DEV, TEST = "train", "dev", "test"
DEV_MISMATCHED, TEST_MISMATCHED = "dev_mismatched", "test_mismatched"
PARTS = (TRAIN, DEV, DEV_MISMATCHED, TEST, TEST_MISMATCHED)

MOST_FOUND = 1000                              # labels that are taken from a training file
GENERIC = ("sentence_pair", "single_sentence", "multi_label")     # tasks whose columns flags may change


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
      files: name by part, or a pattern, such as "[dm]-train.json", of several that belong together.
      read: of classes a row → its examples, most often one; ValueError with the reason when it cannot. Of
        choices a candidates.ChoiceReader. None where a kind tells shapes itself.
      order: see task_files.read_rows.
    """
    files: Mapping[str, str]
    read: Any
    order: Optional[Tuple[str, ...]] = ()


@dataclass(frozen=True)
class Task:
    """The description of one task.

    Attributes:
      name: for --task_name.
      labels: by class index; () is a regression, whose labels are numbers. Of tags those of entities, and
        of several labels all: () are those that the files have.
      layouts: shapes its files may have; of each part the first that exists is read.
      metric: what the best checkpoint is chosen by, a name in scores.METRICS.
      undecided: a label that says its annotators could not agree; such examples are left out, in a test
        file unlabelled.
      pairs_per_question: examples in a row that belong to one question, of which the most likely one is the
        answer.
      submission: name of the file of predictions, where it is not `<name>_predict.json`.
      kind: what is learned, a name in model.kinds.KINDS.
      measure: of spans, how right an answer is, a name in answer_scores.MEASURES.
      may_be_impossible: of spans, whether a passage may hold no answer.
    """
    name: str
    labels: Tuple[str, ...]
    layouts: Tuple[Layout, ...]
    metric: str = "accuracy"
    undecided: Optional[str] = None
    pairs_per_question: int = 1
    submission: Optional[str] = None
    kind: str = CLASSES
    measure: str = ""
    may_be_impossible: bool = False

    @property
    def is_regression(self) -> bool:
        return self.kind == CLASSES and not self.labels

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


def label_lists(text_a: str, label: str = "label") -> Reader:
    """A reader of rows with several labels, which stay as the field has them: see data.label_lists."""
    def read(row: Row) -> List[Example]:
        return [Example(_text(row, text_a), None, row.get(label), row.get("id"))]
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
    if right in _NO_LABEL:
        right = None
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


def _with_several(read: Reader, order: Optional[Tuple[str, ...]] = ()) -> Tuple[Layout, ...]:
    """Of texts with several labels: a test file with labels stands in for a dev file that there is not."""
    return _any_suffix(read, order) + tuple(Layout({DEV: TEST + suffix}, read, order) for suffix in SUFFIXES)


_PAIR, _SINGLE = ("text_a", "text_b", "label"), ("label", "text_a")
_PAIRS = _any_suffix(columns("text_a", "text_b"), _PAIR)
_CLUE_PAIRS = (Layout(_parts("%s.json"), columns("sentence1", "sentence2")),)
_OCNLI = tuple(Layout({TRAIN: "train.%s.json" % size}, columns("sentence1", "sentence2"))
               for size in ("50k", "30k", "10k"))


def _choices(pattern: str, read: candidates.ChoiceReader) -> Layout:
    return Layout(_parts(pattern), read)


def _clue_test(read: candidates.ChoiceReader) -> Layout:
    """The test file that CLUE 1.1 ships beside that of 1.0."""
    return Layout({TEST: "test1.1.json"}, read)


def _reading(*names: str) -> Layout:
    """Files of train, dev and test, of those that there are, in the form of `reading`."""
    return Layout({part: name + ".json" for part, name in zip((TRAIN, DEV, TEST), names)}, None)


def _tagging(pattern: str) -> Layout:
    """Files in a form that `entities` reads."""
    return Layout(_parts(pattern), None)


_OWN_READING = _reading("train", "dev", "test")
_COPA_PAIRS = Layout(_parts("%s.json"), _copa)
_RACE = tuple(_choices(folder + "%s/*/*.txt", candidates.race) for folder in ("", "RACE/"))
_NO_LABEL = ("", "?", "none", "null", "nan", "-1")    # in test files; the last may be a number, too
_NO_YES = ("0", "1")
_NLI = ("contradiction", "entailment", "neutral")
_CLUENER = ("address", "book", "company", "game", "government", "movie", "name", "organization", "position",
            "scene")
_TNEWS = tuple(str(number) for number in range(100, 117) if number not in (105, 111))

TASKS: Dict[str, Task] = {task.name: task for task in (
    Task("sentence_pair", _NO_YES, _PAIRS),
    Task("single_sentence", _NO_YES, _any_suffix(columns("text_a"), _SINGLE)),
    Task("multi_label", (), _with_several(label_lists("text_a"), _SINGLE), metric="micro_f1",
         kind=MULTI_LABEL),
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
    Task("copa", (), (_choices("%s.json", candidates.copa),), kind=CHOICES),
    Task("c3", (), (_choices("[dm]-%s.json", candidates.c3), _choices("c3-[dm]-%s.json", candidates.c3),
                    _clue_test(candidates.c3), _choices("%s.json", candidates.c3)),
         kind=CHOICES, submission="c311_predict.json"),
    Task("chid", (), (_clue_test(candidates.chid), _choices("%s.json", candidates.chid)), kind=CHOICES,
         submission="chid11_predict.json"),
    Task("cmrc2018", (), (_reading("cmrc2018_train", "cmrc2018_dev", "cmrc2018_test"),
                          _reading("cmrc2018_trial"), _OWN_READING),
         metric="f1", kind=SPANS, measure="cmrc"),
    Task("drcd", (), (_reading("DRCD_training", "DRCD_dev", "DRCD_test"), _OWN_READING),
         metric="f1", kind=SPANS, measure="cmrc"),
    # Google's
    Task("squad_v1", (), (_reading("train-v1.1", "dev-v1.1", "test-v1.1"),), metric="f1", kind=SPANS,
         measure="squad_v1"),
    Task("squad_v2", (), (_reading("train-v2.0", "dev-v2.0", "test-v2.0"),), metric="f1", kind=SPANS,
         measure="squad_v2", may_be_impossible=True),
    Task("race", (), _RACE, kind=CHOICES),
    # entities; a test file with labels stands in for a dev file that there is not
    Task("cluener", _CLUENER, (_tagging("%s.json"), Layout({DEV: "test.json"}, None)), metric="f1",
         kind=TAGS, submission="cluener_predict.json"),
    Task("msra", (), (*map(_tagging, ("%s.txt", "msra_%s_bio.txt", "%s.char.bmes")),
                      Layout({DEV: "test.txt"}, None), Layout({DEV: "msra_test_bio.txt"}, None)),
         metric="f1", kind=TAGS),
    # one's own
    Task("tagging", (), tuple(_tagging("%s" + suffix) for suffix in entities.SUFFIXES), metric="f1",
         kind=TAGS),
    Task("reading", (), (_OWN_READING,), metric="f1", kind=SPANS, measure="cmrc", may_be_impossible=True),
    Task("choices", (), (_choices("%s.json", candidates.own), _choices("%s.jsonl", candidates.own)),
         kind=CHOICES),
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

# Models of these tasks that earlier releases fine-tuned go on being evaluated and exported as what they are.
EARLIER: Dict[Tuple[str, str], Task] = {
    ("copa", CLASSES): Task("copa", _NO_YES, (_COPA_PAIRS,), metric="choice_accuracy", pairs_per_question=2)}


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
    order = None if all(value.isdigit() for value in given.values()) else ()
    layouts = (_with_several(label_lists(**given), order) if task.kind == MULTI_LABEL
               else _any_suffix(columns(**given), order))
    return dataclasses.replace(task, layouts=layouts)


def with_found_labels(task: Task, data_dir: str) -> Task:
    """The task with the labels of its training file, in the order in which they come, numbers by size, if
    these are none of the task's own; prints them.

    Some labels that are the task's own and some that are not are more likely a mistake, which `read_examples`
    names.
    """
    (path,), layout = find_files(task, data_dir, TRAIN)
    if is_json(path) or not layout.order:
        return task
    rows = [fields for _, fields in field_rows(path) if any(field.strip() for field in fields)]
    rows[1:] = [fields for fields in rows[1:] if not headers.stands_inside(fields)]    # refused when read
    names = _names_of_header(rows[:1], layout.order)
    if names:
        found = list(dict.fromkeys(row[names.index("label")] for row in rows[1:]
                                   if len(row) == len(names))) if "label" in names else []
    else:
        found = column_order.find_labels(rows, len(layout.order) - 1) or []
    if not 2 <= len(found) <= min(MOST_FOUND, len(rows) / 2) or set(found) & set(task.labels):
        return task
    if not names:
        _refuse_likely_header(path, rows, layout.order, found[1:])
    if all(label.isdecimal() for label in found):
        found.sort(key=int)
    print("%s: labels found: %s" % (path, ", ".join(found)))
    return dataclasses.replace(task, labels=tuple(found))


def read_examples(task: Task, data_dir: str, part: str) -> List[Example]:
    """The examples of one part of a task of classes, without undecided ones, whose number is told; labels
    may be absent in test parts alone.

    Raises UserError with file and line for a missing file or column, invalid UTF-8, a wrong number of fields,
    an unknown label, an empty text, or a file without examples.
    """
    (path,), layout = find_files(task, data_dir, part)
    is_test = part.startswith(TEST)
    examples, num_undecided = [], 0
    for number, row in read_rows(path, _order_in(path, layout, task, is_test),
                                 may_lack="label" if is_test else ""):
        try:
            for example in layout.read(row):
                if example.label is None and not is_test:
                    raise ValueError("no label; there are: %s" % ", ".join(map(str, row)))
                if example.label is not None and example.label == task.undecided:
                    if not is_test:
                        num_undecided += 1
                        continue
                    example = example._replace(label=None)     # a submission has a line for each example
                if is_test and example.label is not None and _is_no_label(example.label, task):
                    example = example._replace(label=None)
                _check(example, task)
                examples.append(example)
        except ValueError as error:
            raise UserError("%s: line %d: %s" % (path, number, error))
    if not examples:
        raise UserError("%s: holds no example" % path)
    if num_undecided:
        print("%s: %d examples skipped: their label is %s, undecided" % (path, num_undecided, task.undecided))
    return examples


def _names_of_header(first_rows: Sequence[Sequence[str]], order: Sequence[str]) -> Optional[List[str]]:
    """The columns of a first line that is a header; None if it is none. One that leaves them open is refused
    where it is read."""
    for first in first_rows:
        if set(order) - {"label"} <= set(first):
            return list(first)
        with contextlib.suppress(ValueError):
            return headers.match(first, order, may_lack="label")
    return None


def _order_in(path: str, layout: Layout, task: Task, is_test: bool) -> Optional[Sequence[str]]:
    """The order of a file's columns: the layout's, if these do not show another."""
    if layout.order == () or is_json(path) or not task.labels:
        return layout.order
    rows = [fields for _, fields in itertools.islice(field_rows(path), 1000)
            if any(field.strip() for field in fields)]
    if _names_of_header(rows[:1], layout.order) if layout.order else any(map(headers.is_header, rows[:1])):
        return layout.order
    labels = task.labels + (_NO_LABEL if is_test else ())
    if is_test:
        _refuse_likely_header(path, rows, layout.order, labels)
    if not layout.order:
        return None
    found = column_order.find_order(rows, layout.order, labels, may_lack=is_test)
    if found is None:
        return layout.order
    print("%s: no header; the columns are %s" % (path, ", ".join(found)))
    return found


def _refuse_likely_header(path: str, rows: Sequence[Sequence[str]], order: Optional[Sequence[str]],
                          labels: Sequence[str]) -> None:
    """Raises UserError if the first line may be a header in words that nobody knows."""
    if headers.looks_like_one(rows, labels):
        wanted = ", ".join(name for name in order or _PAIR if name != "label")
        raise UserError("%s: line 1: %s: if this is a header, remove it or name the columns %s; if these are "
                        "texts, put such a header above them" % (path, ", ".join(rows[0]), wanted))


def find_files(task: Task, data_dir: str, part: str) -> Tuple[List[str], Layout]:
    """The files of one part, most often one, and their shape. Raises UserError naming all it looked for."""
    if not os.path.isdir(data_dir):
        reason = (" is a file, not a folder: name the one it lies in" if os.path.exists(data_dir)
                  else ": no such folder")
        raise UserError("--data_dir: %s%s" % (data_dir, reason))
    layouts = [layout for layout in task.layouts if part in layout.files]
    for layout in layouts:
        found = candidates.files_that_match(data_dir, layout.files[part])
        if found:
            return found, layout
    paths = [os.path.join(data_dir, layout.files[part]) for layout in layouts]
    raise UserError("task %s: no such file: %s" % (task.name, " or ".join(dict.fromkeys(paths))))


def find_labelled_file(task: Task, data_dir: str, part: str) -> Tuple[str, Layout]:
    """The one file of a part; says so where another part's stands in for it, in a layout without training
    file. Raises UserError as `find_files` does."""
    (path,), layout = find_files(task, data_dir, part)
    if TRAIN not in layout.files:
        print("%s: read as %s: there is no file of its own" % (path, part))
    return path, layout


_ANSWERS = {SPANS: "a part of the passage", CHOICES: "one of the candidates", TAGS: "entities in the text",
            MULTI_LABEL: "several labels"}


def describe_all() -> str:
    """A line per task: name, labels, metric, files of all layouts."""
    lines = []
    for task in TASKS.values():
        labels = _ANSWERS.get(task.kind) or ("a number" if task.is_regression else ", ".join(task.labels)
                                             if len(task.labels) < 6 else "%d labels" % len(task.labels))
        files = sorted({name for layout in task.layouts for name in layout.files.values()})
        has_any_suffix = all(TRAIN + suffix in files for suffix in SUFFIXES)
        shown = ["train, dev, test with one of %s" % " ".join(SUFFIXES)] if has_any_suffix else files
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


def _is_no_label(label: str, task: Task) -> bool:
    """Whether a label is what test files have in place of one."""
    label = label.strip().lower()
    return label not in task.labels and label in (_NO_LABEL[:-1] if task.is_regression else _NO_LABEL)


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
        raise unknown_label(example.label, task)


def unknown_label(label: str, task: Task) -> ValueError:
    """The error to raise for a label that the task does not have."""
    shown = ", ".join(task.labels[:20]) + (", …" if len(task.labels) > 20 else "")
    return ValueError("unknown label %r; task %s has %s" % (label, task.name, shown))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
