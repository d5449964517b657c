"""Texts with several labels each, in one column or in a JSON list → examples."""
from typing import Any, List, Optional, Sequence, Tuple

from estimator.data import tasks
from estimator.data.task_files import read_rows
from estimator.data.tasks import TEST, Example, Task
from etl.common.command_line import UserError


def read_label_lists(task: Task, data_dir: str, part: str, separator: str) -> List[Example]:
    """The examples of one part, whose `label` is a tuple of labels; None throughout where a test file has no
    labels.

    Args:
      task: of several labels; where it has labels of its own, there are no others.
      separator: of the labels in a column.

    Raises UserError as `tasks.read_examples` does, and for a label that is empty or stands there twice.
    """
    path, layout = tasks.find_labelled_file(task, data_dir, part)
    is_test, examples = part.startswith(TEST), []
    for number, row in read_rows(path, layout.order, may_lack="label" if is_test else ""):
        try:
            (example,) = layout.read(row)
            labels = labels_in(example.label, separator)
            if labels is None and not is_test:
                raise ValueError("no label; there are: %s" % ", ".join(map(str, row)))
            _check(example.text_a, labels or (), task)
            examples.append(example._replace(label=labels))
        except ValueError as error:
            raise UserError("%s: line %d: %s" % (path, number, error))
    if not examples:
        raise UserError("%s: holds no example" % path)
    if is_test and not any(example.label for example in examples):
        return [example._replace(label=None) for example in examples]
    return [example._replace(label=example.label or ()) for example in examples]


def labels_in(value: Any, separator: str) -> Optional[Tuple[str, ...]]:
    """The labels of a field, or of a list in JSON: `"人生-死亡| 灾害/意外-洪灾"` → `("人生-死亡",
    "灾害/意外-洪灾")`. Nothing, or an empty list, is no label; None if there is no field. Raises ValueError
    for other values, and for a label that is empty or there twice."""
    if value is None:
        return None
    if isinstance(value, str) and not value.strip():
        return ()
    given: Sequence[Any] = value.split(separator) if isinstance(value, str) else (
        value if isinstance(value, list) else [value])
    if not all(isinstance(label, str) or type(label) is int for label in given):
        raise ValueError("wanted a list of labels, got %.80r" % (value,))
    labels = tuple(str(label).strip() for label in given)
    if not all(labels):
        raise ValueError("an empty label among %.80r" % (value,))
    for number, label in enumerate(labels):
        if label in labels[:number]:
            raise ValueError("the label %s twice in %.80r" % (label, value))
    return labels


def found_labels(examples: Sequence[Example]) -> Tuple[str, ...]:
    """All labels, in the order in which they come."""
    return tuple(dict.fromkeys(label for example in examples for label in example.label or ()))


def _check(text: str, labels: Sequence[str], task: Task) -> None:
    if not text.strip():
        raise ValueError("text_a is empty")
    for label in labels:
        if task.labels and label not in task.labels:
            raise tasks.unknown_label(label, task)
