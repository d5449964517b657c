"""Data files → rows: columns separated by tabs or, in CSV, commas, and lines of JSON; each row with its line
number.

A first line that is a header is not a row, whether or not the other files of the data have one. Blank lines
are not rows either: at the end of a file they are ignored, elsewhere counted. Errors in a file are UserErrors
that name file and line.
"""
import csv
import itertools
import sys
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from estimator.data import headers
from etl.common import json_text
from etl.common.command_line import UserError
from etl.common.file_formats import HEAD_BYTES, format_of
from etl.common.files import not_utf8

# .txt is read like .tsv; both JSON ones have one object per line
SUFFIXES = (".tsv", ".csv", ".json", ".jsonl", ".txt")

_JSON = (".json", ".jsonl")
# How a pretty-printed file begins, and what writes it in lines.
_JQ = {"[": "'.[]'", "{": ".", "[{": "'.[]'"}

Row = Dict[str, Any]                           # by column or field; in JSON a value may be of any type


class NumberedRow(NamedTuple):
    """A row, and the number of the line at which it ends."""
    line: int
    row: Row


def read_rows(path: str, order: Optional[Sequence[str]], may_lack: str = "") -> Iterator[NumberedRow]:
    """The rows of a file, by its suffix.

    Args:
      path: ends in one of SUFFIXES.
      order: names of the columns if the file has no header; a first line with all these names, or with usual
        names of such columns (`headers`), is a header. (): there must be a header. None: columns are called
        "1", "2" and so on, and a header is skipped. JSON fields have names.
      may_lack: a name in `order` that may be missing throughout, like labels in test files.

    Raises UserError for invalid UTF-8, lines that are not JSON objects, a different number of fields than
    before, and a header that leaves the columns open or is repeated.
    """
    blank = skipped = 0
    for row in _numbered_rows(path, order, may_lack):
        if row is None:
            blank += 1
            continue
        if blank and len(row.row) == 1 and not is_json(path):
            # each line is a text, and the number of a prediction that of its line
            raise UserError("%s: line %d: blank: a text must not be" % (path, row.line - 1))
        blank, skipped = 0, skipped + blank
        yield row
    if skipped:
        print("%s: %d blank line(s) skipped" % (path, skipped))


def _numbered_rows(path: str, order: Optional[Sequence[str]], may_lack: str
                   ) -> Iterator[Optional[NumberedRow]]:
    """The rows, None for a blank line."""
    if is_json(path):
        for number, line in lines_of(path):
            yield NumberedRow(number, _json_object(path, number, line)) if line.strip() else None
        return
    names: Optional[List[str]] = None
    header: Optional[List[str]] = None
    for number, fields in field_rows(path):
        if not any(field.strip() for field in fields):
            yield None
            continue
        if names is None:
            names, is_header = _names(path, number, order, fields, may_lack)
            if is_header:
                header = fields
                continue
        if len(fields) != len(names):
            raise UserError("%s: line %d: wanted %d field(s): %s; got %d"
                            % (path, number, len(names), ", ".join(names), len(fields)))
        if fields == header:
            raise UserError("%s: line %d: the header once more: remove the line" % (path, number))
        if headers.stands_inside(fields):
            _refuse_header_inside(path, number, fields, names, header)
        yield NumberedRow(number, dict(zip(names, fields)))


def _names(path: str, number: int, order: Optional[Sequence[str]], first: List[str],
           may_lack: str) -> Tuple[List[str], bool]:
    """What the columns are called, and whether the first line says so."""
    without = [name for name in order or () if name != may_lack]
    if order is not None and set(without) <= set(first):
        return first, True                     # that they are all there where none is wanted
    try:
        named = (headers.match(first, order, may_lack) if order
                 else [] if headers.is_header(first) else None)
    except ValueError as error:
        raise UserError("%s: line %d: %s" % (path, number, error))
    if named is not None:
        print("%s: line %d is a header, no example: %s" % (path, number, ", ".join(first)))
    if order is None:
        return [str(place) for place in range(1, len(first) + 1)], named is not None
    if named is not None:
        return named, True
    return without if may_lack and len(first) == len(without) else list(order), False


def _refuse_header_inside(path: str, number: int, fields: List[str], names: List[str],
                          header: Optional[List[str]]) -> None:
    """Raises UserError, but for a single text below a header that calls it as the task does: this may be
    one."""
    what = "%s: line %d: %s: looks like a header inside the file" % (path, number, ", ".join(fields))
    if len(fields) > 1 or header != names:
        raise UserError("%s, as where files were joined: remove the line%s" % (
            what, "" if len(fields) > 1 else "; if it is a text, put a header above all: %s" % names[0]))
    print("Warning: %s; it is read as a text" % what)


def is_json(path: str) -> bool:
    """Whether rows have fields by name."""
    return path.endswith(_JSON)


def field_rows(path: str) -> Iterator[Tuple[int, List[str]]]:
    """Line numbers and fields of all lines, blank ones and a header too, of a file that is not JSON."""
    if not path.endswith(".csv"):
        return _tab_fields(path)
    return _csv_fields(path, "\t" if _has_tabs(path) else ",")


def _has_tabs(path: str) -> bool:
    """Whether the columns of a .csv are separated by tabs: as many in each of the first lines, whose commas
    differ or are none."""
    lines = [line for _, line in itertools.islice(lines_of(path), 50) if line.strip()]
    tabs, commas = ({line.count(mark) for line in lines} for mark in "\t,")
    return len(tabs) == 1 and tabs != {0} and (commas == {0} or len(commas) > 1)


def _json_object(path: str, number: int, line: str) -> Row:
    try:
        row = json_text.loads(line)
    except ValueError as error:
        hint = ": one object a line is wanted, jq -c %s writes them so" % _JQ[line.strip()] if (
            line.strip() in _JQ) else ""
        raise UserError("%s: line %d: not JSON: %s%s" % (path, number, error, hint))
    if not isinstance(row, dict):
        hint = ": jq -c '.[]' writes its objects a line each" if isinstance(row, list) else ""
        raise UserError("%s: line %d: wanted a JSON object, got %s%s"
                        % (path, number, type(row).__name__, hint))
    # escapes can write half a surrogate pair, which our files cannot contain
    if "\\ud" in line.lower():
        try:
            json_text.require_whole_characters(row)
        except ValueError as error:
            raise UserError("%s: line %d: %s" % (path, number, error))
    return row


def _tab_fields(path: str) -> Iterator[Tuple[int, List[str]]]:
    for number, line in lines_of(path):
        yield number, line.split("\t")


def _csv_fields(path: str, separator: str) -> Iterator[Tuple[int, List[str]]]:
    """Fields may be quoted, and then contain commas and line ends; they may be of any length."""
    csv.field_size_limit(sys.maxsize)          # the default is 131,072 characters
    reader = csv.reader((line + "\n" for _, line in lines_of(path)), strict=True, delimiter=separator)
    begin = 1
    try:
        for fields in reader:
            yield reader.line_num, fields
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError("%s: line %d: not CSV: %s; the row begins in line %d"
                        % (path, reader.line_num, error, begin))


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


def lines_of(path: str) -> Iterator[Tuple[int, str]]:
    """`numbered_lines` of a file."""
    with open(path, "rb") as stream:
        what = format_of(stream.read(HEAD_BYTES))
        if what:
            raise UserError("%s: %s" % (path, what))
        stream.seek(0)
        yield from numbered_lines(stream, path)
