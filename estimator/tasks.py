"""Labelled data by task: which files, which columns, which labels, and the numbers the task is judged by.

A new task is an entry in TASKS; a new shape of file is one small function from a line to an Example.
"""
import json
import os
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from etl.command_line import UserError
from etl.pairs import pack_pair

TRAIN, DEV, TEST = "train", "dev", "test"


class Example(NamedTuple):
    """One example. text_b is None for single sentences, label is None where a test file has none."""
    text_a: str
    text_b: Optional[str]
    label: Optional[str]


class Layout(NamedTuple):
    """One shape of data file.

    Attributes:
      suffix: of the file; its name is the part's: train, dev or test.
      parse: a line → an Example; ValueError with the reason when it is none.
      header: a first line that equals it is no example.
    """
    suffix: str
    parse: Callable[[str], Example]
    header: Optional[str] = None


@dataclass(frozen=True)
class Task:
    """What one task is.

    Attributes:
      name: as --task_name takes it.
      labels: by class index.
      layouts: shapes its files may have; of each part the first that exists is read.
      metric: a name in metrics.BY_NAME.
    """
    name: str
    labels: Tuple[str, ...]
    layouts: Tuple[Layout, ...]
    metric: str = "accuracy"


def pair_columns(line: str) -> Example:
    """`text_a⇥text_b⇥label`, or without the label."""
    fields = line.split("\t")
    if len(fields) not in (2, 3):
        raise ValueError("wanted text_a, text_b and label separated by tabs, got %d field(s)" % len(fields))
    return Example(fields[0], fields[1], fields[2] if len(fields) == 3 else None)


def single_columns(line: str) -> Example:
    """`label⇥text_a`, or the text alone."""
    fields = line.split("\t")
    if len(fields) > 2:
        raise ValueError("wanted label and text_a separated by a tab, got %d fields" % len(fields))
    return Example(fields[-1], None, fields[0] if len(fields) == 2 else None)


def pair_json(line: str) -> Example:
    """`{"sentence1": …, "sentence2": …, "label": …}` as CLUE ships it; more fields are ignored."""
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ValueError("not JSON: %s" % error)
    if not isinstance(fields, dict):
        raise ValueError("wanted a JSON object, got %s" % type(fields).__name__)
    for name in ("sentence1", "sentence2"):
        if not isinstance(fields.get(name), str):
            raise ValueError("wanted a text %s, got %r" % (name, fields.get(name)))
    label = fields.get("label")
    return Example(fields["sentence1"], fields["sentence2"], None if label is None else str(label))


_PAIRS = Layout(".tsv", pair_columns, header="text_a\ttext_b\tlabel")
_CLUE_PAIRS = Layout(".json", pair_json)
_SINGLES = Layout(".tsv", single_columns, header="label\ttext_a")
_NO_YES = ("0", "1")

TASKS: Dict[str, Task] = {task.name: task for task in (
    Task("sentence_pair", _NO_YES, (_PAIRS,)),
    Task("lcqmc", _NO_YES, (_PAIRS,)),
    Task("afqmc", _NO_YES, (_CLUE_PAIRS, _PAIRS)),
    Task("single_sentence", _NO_YES, (_SINGLES,)),
    Task("chnsenticorp", _NO_YES, (_SINGLES,)),
)}


def read_examples(task: Task, data_dir: str, part: str) -> List[Example]:
    """The examples of one part: "train", "dev" or "test"; labels may be absent in test alone.

    Raises UserError with file and line for a missing file, bad UTF-8, a wrong count of fields, a label the task does
    not have, an empty text, or a file without examples.
    """
    path, layout = find_file(task, data_dir, part)
    examples = []
    for number, line in _lines(path):
        if number == 1 and line == layout.header:
            continue
        try:
            example = layout.parse(line)
            _check(example, task, label_needed=part != TEST)
        except ValueError as error:
            raise UserError("%s: line %d: %s" % (path, number, error))
        examples.append(example)
    if not examples:
        raise UserError("%s: holds no example" % path)
    return examples


def find_file(task: Task, data_dir: str, part: str) -> Tuple[str, Layout]:
    """The file of one part and its shape. Raises UserError naming all it looked for."""
    paths = [os.path.join(data_dir, part + layout.suffix) for layout in task.layouts]
    for path, layout in zip(paths, task.layouts):
        if os.path.isfile(path):
            return path, layout
    raise UserError("task %s: no such file: %s" % (task.name, " or ".join(paths)))


def encode_examples(examples: Sequence[Example], tokenizer, max_seq_length: int,
                    labels: Sequence[str]) -> Dict[str, np.ndarray]:
    """The examples as arrays: input_ids, input_mask, segment_ids int32 [n, max_seq_length], label_ids int32 [n].

    Padding is 0; where an example has no label, its label id is 0, too, and means nothing.
    """
    index = {label: number for number, label in enumerate(labels)}
    input_ids, input_mask, segment_ids = np.zeros((3, len(examples), max_seq_length), dtype=np.int32)
    for row, example in enumerate(examples):
        packed = pack_pair(tokenizer, example.text_a, example.text_b, max_seq_length)
        length = len(packed.input_ids)
        input_ids[row, :length] = packed.input_ids
        input_mask[row, :length] = 1
        segment_ids[row, :length] = packed.segment_ids
    label_ids = np.array([0 if example.label is None else index[example.label] for example in examples], np.int32)
    return {"input_ids": input_ids, "input_mask": input_mask, "segment_ids": segment_ids, "label_ids": label_ids}


def _lines(path: str) -> Iterator[Tuple[int, str]]:
    """Numbered lines; only "\\n" ends one, since texts may hold other line separators."""
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError("%s: line %d: not UTF-8: %s" % (path, number, error))
            yield number, text.rstrip("\r\n")


def _check(example: Example, task: Task, label_needed: bool) -> None:
    for name, text in (("text_a", example.text_a), ("text_b", example.text_b)):
        if text is not None and not text.strip():
            raise ValueError("%s is empty" % name)
    if example.label is None and label_needed:
        raise ValueError("no label")
    if example.label is not None and example.label not in task.labels:
        raise ValueError("unknown label %r; task %s has %s" % (example.label, task.name, ", ".join(task.labels)))
