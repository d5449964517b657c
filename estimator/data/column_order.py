"""The order of the columns in a file without a header, from what stands in them.

Tools and people write the label first or last, and an id or none before the texts. Where the usual order
does not fit, the column of labels is the one that has nothing but labels, and an id a number that is never
repeated.
"""
from typing import Collection, List, Optional, Sequence

ID = "id"


def find_order(rows: Sequence[Sequence[str]], order: Sequence[str], labels: Collection[str],
               label: str = "label", may_lack: bool = False) -> Optional[List[str]]:
    """Names of the columns, `id` among them; None if the rows do not show them, or are in the usual order.

    `([["1", "天", "地", "0"]], ["text_a", "text_b", "label"], ["0", "1"])` → id, text_a, text_b, label.

    Args:
      rows: fields of some lines.
      order: names in the usual order.
      labels: all that may stand in the column of labels.
      label: its name in `order`.
      may_lack: whether there may be no such column.
    """
    columns = list(zip(*rows))
    if not columns or label not in order or len({len(row) for row in rows}) != 1:
        return None
    if len(columns) == len(order) and set(columns[list(order).index(label)]) <= set(labels):
        return None
    texts = [name for name in order if name != label]
    if may_lack and len(columns) == len(texts):
        return None
    repeats = [len(set(column)) < len(column) for column in columns]
    of_labels = [number for number, column in enumerate(columns) if set(column) <= set(labels)]
    if len(of_labels) > 1:                     # ids may be 0 and 1, too
        of_labels = [number for number in of_labels if repeats[number]]
    ids = [number for number, column in enumerate(columns) if number not in of_labels
           and not repeats[number] and all(value.isdecimal() for value in column)]
    others = [number for number in range(len(columns)) if number not in ids + of_labels]
    if len(others) != len(texts) or len(ids) > 1 or len(of_labels) > 1 or not (of_labels or may_lack):
        return None
    names = dict(zip(others, texts))
    names.update(dict.fromkeys(ids, ID))
    names.update(dict.fromkeys(of_labels, label))
    return [names[number] for number in range(len(columns))]


def find_labels(rows: Sequence[Sequence[str]], num_texts: int) -> Optional[List[str]]:
    """What repeats itself in one column of rows without a header, in the order in which it comes: the labels.
    None if no column does, or several.

    `[["天", "好"], ["地", "坏"], ["人", "好"]]` with one text → 好, 坏.
    """
    columns = list(zip(*rows))
    if len({len(row) for row in rows}) != 1 or len(columns) < num_texts + 1:
        return None
    distinct = [len(set(column)) for column in columns]
    fewest = min(distinct)
    if not 2 <= fewest <= len(rows) / 2 or distinct.count(fewest) != 1:
        return None
    return list(dict.fromkeys(columns[distinct.index(fewest)]))
