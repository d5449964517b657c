"""Data files → rows: columns separated by tabs or, in CSV, commas, and lines of JSON; each row with its line
number.

Errors in a file are UserErrors that name file and line.
"""
import csv
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from etl.common import json_text
from etl.common.command_line import UserError
from etl.common.files import not_utf8

# .txt is read like .tsv; both JSON ones have one object per line
SUFFIXES = (".tsv", ".csv", ".json", ".jsonl", ".txt")

Row = Dict[str, Any]                           # by column or field; in JSON a value may be of any type


class NumberedRow(NamedTuple):
    """A row, and the number of the line at which it ends."""
    line: int
    row: Row


def read_rows(path: str, order: Optional[Sequence[str]], may_lack: str = "") -> Iterator[NumberedRow]:
    """The rows of a file, by its suffix.

    Args:
      path: ends in one of SUFFIXES.
      order: names of the columns if the file has no header; a first line with all these names is a header.
        (): there must be a header. None: there is none, and columns are called "1", "2" and so on. JSON
        fields have names.
      may_lack: a name in `order` that may be missing throughout, like labels in test files.

    Raises UserError for invalid UTF-8, lines that are not JSON objects, or a different number of fields than
    before.
    """
    if path.endswith((".json", ".jsonl")):
        for number, line in _lines(path):
            yield NumberedRow(number, _json_object(path, number, line))
        return
    names: Optional[List[str]] = None
    for number, fields in _csv_fields(path) if path.endswith(".csv") else _tab_fields(path):
        if names is None:
            names = _names(order, fields, may_lack)
            if order is not None and set(names) <= set(fields):
                continue                       # the header
        if len(fields) != len(names):
            raise UserError("%s: line %d: wanted %d field(s): %s; got %d"
                            % (path, number, len(names), ", ".join(names), len(fields)))
        yield NumberedRow(number, dict(zip(names, fields)))


def _names(order: Optional[Sequence[str]], first: List[str], may_lack: str) -> List[str]:
    """The names of the columns, from the first line's fields."""
    if order is None:
        return [str(number) for number in range(1, len(first) + 1)]
    without = [name for name in order if name != may_lack]
    if not order or set(without) <= set(first):
        return first
    return without if may_lack and len(first) == len(without) else list(order)


def _json_object(path: str, number: int, line: str) -> Row:
    try:
        row = json_text.loads(line)
    except ValueError as error:
        raise UserError("%s: line %d: not JSON: %s" % (path, number, error))
    if not isinstance(row, dict):
        raise UserError("%s: line %d: wanted a JSON object, got %s" % (path, number, type(row).__name__))
    # escapes can write half a surrogate pair, which our files cannot contain
    if "\\ud" in line.lower():
        try:
            json_text.require_whole_characters(row)
        except ValueError as error:
            raise UserError("%s: line %d: %s" % (path, number, error))
    return row


def _tab_fields(path: str) -> Iterator[Tuple[int, List[str]]]:
    for number, line in _lines(path):
        yield number, line.split("\t")


def _csv_fields(path: str) -> Iterator[Tuple[int, List[str]]]:
    """Fields may be quoted, and then contain commas and line ends."""
    reader = csv.reader((line + "\n" for _, line in _lines(path)), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise UserError("%s: line %d: not CSV: %s" % (path, reader.line_num, error))


def numbered_lines(stream: IO[bytes], place: str) -> Iterator[Tuple[int, str]]:
    """Lines with their numbers, without line ends; only "\\n" ends one, since texts may contain other line
    separators.

    Raises UserError, naming `place` and line, for invalid UTF-8.
    """
    for number, line in enumerate(stream, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError("%s: line %d: %s" % (place, number, not_utf8(error)))
        yield number, text.rstrip("\r\n")


def _lines(path: str) -> Iterator[Tuple[int, str]]:
    with open(path, "rb") as stream:
        yield from numbered_lines(stream, path)
