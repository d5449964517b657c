"""The outputs of a BERT-NER script's model, by the file that it wrote of them → those of our tags."""
import os
from typing import Dict, List, NamedTuple, Tuple

from estimator.data.entities import OUTSIDE
from estimator.data.task_files import lines_of
from estimator.finetuning.tag_decoding import tag_names
from etl.common import files
from etl.common.command_line import UserError


class TagOutputs(NamedTuple):
    """What a model's outputs mean.

    Attributes:
      labels: of entities, in the order of their outputs.
      outputs: the number of the output of each of our tags.
      unused: names of the others, such as X, [CLS] and [SEP].
    """
    labels: Tuple[str, ...]
    outputs: Tuple[int, ...]
    unused: Tuple[str, ...]


def read(path: str) -> TagOutputs:
    """Raises UserError, naming the file, for anything but different whole numbers of O and of a B- and an I-
    for each label."""
    numbers = _numbers(path)
    if len(set(numbers.values())) != len(numbers):
        raise UserError("%s: two labels have the same number" % path)
    names = sorted(numbers, key=numbers.__getitem__)
    labels = tuple(dict.fromkeys(name[2:] for name in names if name[:2] in ("B-", "I-") and name[2:]))
    wanted = tag_names(labels)
    missing = [name for name in wanted if name not in numbers]
    others = [name for name in names if name[:2] in ("E-", "S-", "M-")]
    if not labels or missing or others:
        why = "; there is %s" % others[0] if others else "; there is no %s" % missing[0] if missing else ""
        raise UserError("%s: wanted the numbers of %s and of a B- and an I- for each label (BIO)%s"
                        % (path, OUTSIDE, why))
    return TagOutputs(labels, tuple(numbers[name] for name in wanted),
                      tuple(name for name in names if name not in wanted))


def _numbers(path: str) -> Dict[str, int]:
    """Number by label."""
    if not os.path.isfile(path):
        raise UserError("--label2id: %s: no such file" % path)
    with open(path, "rb") as stream:
        begin = stream.read(1)
    if begin in (b"\x80", b"("):               # of a pickle
        raise UserError("%s: a pickle, which is not read, since it can run anything: write what it holds as "
                        "JSON" % path)
    found = files.read_json(path) if begin == b"{" else dict(_pairs(path))
    for name, number in found.items():
        if type(number) is not int or number < 0:
            raise UserError("%s: %s: wanted a whole number from 0, got %.40r" % (path, name, number))
    return dict(found)


def _pairs(path: str) -> List[Tuple[str, int]]:
    pairs = []
    for line, text in lines_of(path):
        fields = text.split()
        if not fields:
            continue
        if len(fields) != 2 or not fields[1].isdecimal():
            raise UserError("%s: line %d: wanted a label and its number, got %.40r" % (path, line, text))
        pairs.append((fields[0], int(fields[1])))
    return pairs
