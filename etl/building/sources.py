"""Files → byte ranges → documents, so that one huge file is read by many workers, each document by exactly
one.

Only "\\n" ends a line. In plain text a document belongs to the range that contains the first byte of the last
blank line before it (the first document to the range that contains byte 0); its owner reads on past the end
of the range. In JSON lines a document belongs to the range that contains its first byte. Compressed files
cannot be read from the middle: one range each.

A file that changes while it is read would silently give fewer or different documents: that is an error.
"""
import bz2
import contextlib
import gzip
import os
import zlib
from dataclasses import dataclass
from typing import (IO, Any, Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union,
                    cast)

from etl.common import json_text
from etl.common.command_line import UserError, flag
from etl.common.files import not_utf8
from etl.text.documents import Document, clean_line, document_from_lines, is_blank, split_sentences

MAX_DOCUMENT_BYTES = 1 << 24  # longer documents and lines are bad records, which limits a worker's memory
MAX_LINE_BYTES = {"text": 1 << 20, "jsonl": MAX_DOCUMENT_BYTES}    # a line of jsonl is a document
MIN_RANGE_BYTES, MAX_RANGE_BYTES, RANGES = 1 << 20, 1 << 26, 64
INPUT_FORMATS = ("text", "jsonl")

COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2"}
_OPENERS = {".gz": gzip.open, ".bz2": bz2.open}


@dataclass(frozen=True)
class TextFormat:
    """How documents are stored in a file."""
    input_format: str = flag("text", "text: one sentence per line, a blank line between documents; jsonl: "
                             "one document per line", INPUT_FORMATS)
    text_field: Tuple[str, ...] = flag(("text",), "names of the fields with the text in a line of jsonl, one "
                                       "or more, in order")


class FileRange(NamedTuple):
    """Bytes [begin, end) of a file; `end` is None for a compressed file, which is read whole.

    `size` is what the file had when the ranges were made; None if unknown.
    """
    file_index: int
    path: str
    begin: int
    end: Optional[int]
    size: Optional[int] = None


class BadRecord(NamedTuple):
    """An unusable document: the byte at which the problem starts, and the reason."""
    path: str
    offset: int
    reason: str


def plan_ranges(paths: Sequence[str], range_bytes: Optional[int] = None) -> List[FileRange]:
    """Cuts files into ranges; by default of 1/64 of all bytes, at least 1 MiB and at most 64 MiB."""
    sizes = [os.path.getsize(path) for path in paths]
    step = range_bytes or min(MAX_RANGE_BYTES, max(MIN_RANGE_BYTES, sum(sizes) // RANGES))
    ranges = []
    for index, (path, size) in enumerate(zip(paths, sizes)):
        if is_compressed(path):
            ranges.append(FileRange(index, path, 0, None, size))
        else:
            ranges += [FileRange(index, path, begin, min(begin + step, size), size)
                       for begin in range(0, size, step)]
    return ranges


def read_documents(file_range: FileRange, text_format: TextFormat = TextFormat()
                   ) -> Iterator[Union[Document, BadRecord]]:
    """The documents that a range owns, in order, with a BadRecord in place of each unusable one."""
    with opened(file_range.path, file_range.size) as stream:
        yield from _documents_in(_lines_from(stream, file_range.begin, _longest_line(text_format)),
                                 file_range, text_format)


def read_documents_at(path: str, file_index: int, offsets: Iterable[int],
                      text_format: TextFormat) -> Iterator[Document]:
    """The documents whose first lines start at these bytes, ascending (of the decompressed text).

    A file is opened once, since a compressed one must be read from the start each time. Raises OSError if no
    document starts at a byte.
    """
    whole = FileRange(file_index, path, 0, None)
    with opened(path) as stream:
        for offset in offsets:
            stream.seek(offset)
            lines = _lines_from(stream, 0, _longest_line(text_format))
            document = next(_documents_in(lines, whole, text_format), None)
            if not isinstance(document, Document):
                raise OSError("%s: no document at byte %d, where one was before" % (path, offset))
            yield document._replace(offset=offset)


@contextlib.contextmanager
def opened(path: str, size: Optional[int] = None) -> Iterator[IO[bytes]]:
    """Opens a plain, .gz or .bz2 file for bytes while the block runs.

    Raises UserError naming the file if it is damaged, has a size other than `size`, or changes before the
    block ends.
    """
    with open_input(path) as stream, damage_named(path):
        before = stamp(os.fstat(stream.fileno()))
        if size is not None and before.size != size:
            raise UserError(changed(path, size, before.size))
        if not before.size and is_compressed(path):
            raise UserError("%s: damaged or truncated: it is empty"
                            % path)    # Python's readers return an empty text
        yield stream
        require_unchanged(path, before)


class Stamp(NamedTuple):
    """What changes when a file is written to or replaced."""
    size: int
    modified_ns: int


def stamp(status: os.stat_result) -> Stamp:
    """The stamp of a file of this status."""
    return Stamp(status.st_size, status.st_mtime_ns)


def require_unchanged(path: str, before: Stamp) -> None:
    """Raises UserError if the file has changed."""
    try:
        now = stamp(os.stat(path))
    except FileNotFoundError:
        raise UserError("%s: was removed while being read" % path)
    if now != before:
        raise UserError(changed(path, before.size, now.size))


def changed(path: str, before: int, now: int) -> str:
    """The message for a file that changes."""
    sizes = "it had %d bytes and has %d now" % (before,
                                                now) if before != now else "its %d bytes were rewritten" % now
    return "%s: has changed while being read: %s; run the command again when it is complete" % (path, sizes)


def open_input(path: str) -> IO[bytes]:
    """Opens a plain, .gz or .bz2 file for bytes."""
    opener: Callable[..., Any] = _OPENERS.get(os.path.splitext(path)[1], open)
    return cast(IO[bytes], opener(path, "rb"))


@contextlib.contextmanager
def damage_named(path: str) -> Iterator[None]:
    """Turns decompression errors for a damaged file into a UserError that names it."""
    try:
        yield
    except (EOFError, zlib.error, OSError) as error:
        if not is_compressed(path):
            raise
        raise UserError("%s: damaged or truncated: %s" % (path, error))


def line_number(path: str, offset: int) -> int:
    """The number, from 1, of the line that contains byte `offset`."""
    lines, left = 1, offset
    with open_input(path) as stream, damage_named(path):
        while left > 0:
            block = stream.read(min(left, 1 << 20))
            if not block:
                break
            lines += block.count(b"\n")
            left -= len(block)
    return lines


def is_compressed(path: str) -> bool:
    """True for a .gz or .bz2 file, which cannot be read from the middle."""
    return os.path.splitext(path)[1] in _OPENERS


def _longest_line(text_format: TextFormat) -> int:
    return MAX_LINE_BYTES[text_format.input_format]


def _documents_in(lines: Iterator[Tuple[int, Optional[bytes]]], file_range: FileRange, text_format: TextFormat
                  ) -> Iterator[Union[Document, BadRecord]]:
    if text_format.input_format == "jsonl":
        return _read_json_lines(lines, file_range, text_format.text_field)
    return _read_text(lines, file_range)


def _lines_from(stream: IO[bytes], begin: int, limit: int) -> Iterator[Tuple[int, Optional[bytes]]]:
    """(offset, line) of each line that starts at or after `begin`; the line is None if it is longer than
    `limit`."""
    offset = begin
    if begin:
        stream.seek(begin - 1)
        offset += _skip_line(stream) - 1
    while True:
        line = stream.readline(limit + 1)
        if not line:
            return
        if len(line) > limit and not line.endswith(b"\n"):
            yield offset, None
            offset += len(line) + _skip_line(stream)
        else:
            yield offset, line
            offset += len(line)


def _skip_line(stream: IO[bytes]) -> int:
    """Reads to the end of the line and returns the number of bytes."""
    skipped = 0
    while True:
        part = stream.readline(1 << 20)
        skipped += len(part)
        if not part or part.endswith(b"\n"):
            return skipped


class _OpenDocument:
    """Collects the lines of one document, and the first reason why it is unusable."""

    def __init__(self) -> None:
        self.lines: List[str] = []
        self.offset: Optional[int] = None
        self.size = 0
        self.bad: Optional[Tuple[int, str]] = None

    def add(self, offset: int, line: Optional[bytes]) -> None:
        if self.offset is None:
            self.offset = offset
        if self.bad:
            return
        self.size += len(line or b"")
        if line is None:
            self.bad = offset, "line longer than %d bytes" % MAX_LINE_BYTES["text"]
        elif self.size > MAX_DOCUMENT_BYTES:
            self.bad = self.offset, "document longer than %d bytes" % MAX_DOCUMENT_BYTES
        else:
            try:
                self.lines.append(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                self.bad = offset + error.start, not_utf8(error)
            else:
                if b"\r" in line.strip():  # the line end of old Mac files, which would be one sentence
                    self.bad = offset, "line holds a carriage return in the middle"

    def close(self, file_range: FileRange) -> Iterator[Union[Document, BadRecord]]:
        if self.offset is None:
            return
        if self.bad:
            yield BadRecord(file_range.path, *self.bad)
            return
        document = document_from_lines(self.lines, file_range.file_index, self.offset)
        if document:
            yield document


def _read_text(lines: Iterator[Tuple[int, Optional[bytes]]], file_range: FileRange
               ) -> Iterator[Union[Document, BadRecord]]:
    owned = file_range.begin == 0
    document = _OpenDocument()
    for offset, line in lines:
        past_end = file_range.end is not None and offset >= file_range.end
        if line is not None and is_blank(line):
            yield from document.close(file_range)
            document = _OpenDocument()
            if past_end:
                return
            owned = True
        elif owned:
            document.add(offset, line)
        elif past_end:
            return
    yield from document.close(file_range)


def _read_json_lines(lines: Iterator[Tuple[int, Optional[bytes]]], file_range: FileRange,
                     text_fields: Sequence[str]
                     ) -> Iterator[Union[Document, BadRecord]]:
    for offset, line in lines:
        if file_range.end is not None and offset >= file_range.end:
            return
        if line is not None and is_blank(line):
            continue
        try:
            sentences = split_sentences(_text_of(line, text_fields))
        except ValueError as error:
            yield BadRecord(file_range.path, offset, str(error))
            continue
        if sentences:
            yield Document(tuple(sentences), file_range.file_index, offset)


def _text_of(line: Optional[bytes], text_fields: Sequence[str]) -> str:
    """The texts in a line of JSON, each on separate lines. Raises ValueError with the reason if it is
    invalid."""
    if line is None:
        raise ValueError("line longer than %d bytes" % MAX_LINE_BYTES["jsonl"])
    try:
        value: Any = json_text.loads(clean_line(line.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise ValueError(not_utf8(error))
    except ValueError as error:
        raise ValueError("not JSON: %s" % error)
    if not isinstance(value, dict):
        raise ValueError("no JSON object with a text in field %s" % _either(text_fields))
    # one of several may be null; one that is missing, in a line at least, is most often a wrong name
    texts: List[Any] = ["" if name in value and value[name] is None else value.get(name)
                        for name in text_fields]
    wrong = [name for name, text in zip(text_fields, texts) if not isinstance(text, str)]
    if wrong or not any(isinstance(value[name], str) for name in text_fields):
        there = [name for name, text in value.items() if isinstance(text, str)]
        raise ValueError("no text in field %s; fields with one: %.200s" % (
            _either(wrong or text_fields), ", ".join(there) or "none"))
    if any("\ud800" <= char <= "\udfff" for text in texts for char in text):
        raise ValueError("half a surrogate pair in field %s" % _either(text_fields))
    return "\n".join(texts)


def _either(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names))
