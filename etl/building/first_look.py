"""Checks the beginning of each input file before it is read in full: refuses what is not text, warns of text
that is probably not as intended.

Archives and compressed files are recognized by their first bytes, whatever their names; JSON by its
beginning, after a byte order mark and blank lines; markup by its share of the lines.
"""
import os
import re
from collections import Counter
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from etl.building.sources import (COMPRESSIONS, MAX_DOCUMENT_BYTES, FileRange, TextFormat, is_compressed,
                                  opened, read_documents)
from etl.common import json_text
from etl.common.command_line import UserError
from etl.text.documents import BLANKS, Document, clean_line, ends_with_final_mark

LINES_LOOKED_AT, FEWEST_LINES_LOOKED_AT = 20000, 100         # of all files, of one of many
MARKUP_SHARE, HEADLINE_SHARE, HEADLINE_CHARS = 0.05, 0.3, 30    # no warning below these shares
MARKUP_CHARS = 300                             # of a line, in which markup is looked for

_HEAD_BYTES, _MAGIC_BYTES = 1 << 20, 512
_EACH_LINE = "If each line is a document, separate them: sed G FILE > NEW"
# Offset and bytes at the beginning of a format, and what to do with such a file.
_FORMATS = (
    (0, b"\x1f\x8b", "gzip-compressed: give it a name that ends in .gz"),
    (4, b"1AY&SY", "bzip2-compressed: give it a name that ends in .bz2"),
    (0, b"\xfd7zXZ\0", "xz-compressed: unpack it first (unxz)"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed: unpack it first (unzstd)"),
    (0, b"\x04\x22\x4d\x18", "lz4-compressed: unpack it first (unlz4)"),
    (0, b"PK\x03\x04", "a zip archive: unpack it first (unzip)"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first (7z x)"),
    (0, b"Rar!\x1a\x07", "a rar archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first (tar -xf)"),
    (0, b"%PDF-", "a PDF: take its text out first"),
    (0, b"PAR1", "a Parquet file: write its text as JSON lines first"),
    (0, b"ARROW1\0\0", "an Arrow file: write its text as JSON lines first"),
    (0, b"SQLite format 3\0", "an SQLite database: write its text as JSON lines first"),
    (0, b"\x89HDF\r\n", "an HDF5 file: write its text as JSON lines first"),
)
_STRING = r'"(?:[^"\\]|\\.)*"'
_JSON = re.compile(r'(\[\s*)?\{\s*(?:%s\s*:|\})|(\[)\s*(?:%s\s*[,\]]|\])' % (_STRING, _STRING))
_MARKUP = re.compile(
    r"</?[A-Za-z][^<>]*>|&(?:[a-z]+|#[0-9]+);|\[[^\[\]]*\]\([^()]*\)|\[\[[^\[\]]+\]\]|\{\{[^{}]+\}\}"
    r"|^(?:#{1,6} |```|~~~|\|.*\|$|={2,}[^=]+=+$|-{3,}$|\*{3,}$|\{\".*\}$)|\*\*[^*]+\*\*")


class Look(NamedTuple):
    """Statistics of a file's first lines, without blank ones.

    Attributes:
      lines, markup_lines, markup_example: number of lines, of lines with markup, the first of these.
      documents, headlines, headline_example: the same for documents, and those that are one short line
        without a final mark.
      has_blank_line: whether there is one between lines; None if the first document is too long already.
    """
    lines: int
    markup_lines: int
    markup_example: str
    documents: int
    headlines: int
    headline_example: str
    has_blank_line: Optional[bool]


def require_text(path: str, text_format: TextFormat) -> None:
    """Raises UserError, beginning with the file's name, if it is not in that format: an archive, JSON instead
    of plain text, an array or objects over several lines instead of JSON lines.

    Raises UserError for damaged files as `sources.opened` does.
    """
    with open(path, "rb") as stream:
        what = _format_of(stream.read(_MAGIC_BYTES))
    if is_compressed(path) and what and what.startswith(COMPRESSIONS[os.path.splitext(path)[1]]):
        what = None
    if not what:
        with opened(path) as text:
            head = text.read(_HEAD_BYTES)
        what = _format_of(head) or _what_json(head, text_format.input_format, path)
    if what:
        raise UserError("--input_file: %s: %s" % (path, what))


def look_at(path: str, text_format: TextFormat, most_lines: int = LINES_LOOKED_AT) -> Look:
    """Reads a file's first lines, and plain text on to the first blank line, at most as much as a document
    may have."""
    counts: Counter = Counter()
    examples: Dict[str, str] = {}
    has_blank_line: Optional[bool] = False
    document: List[str] = []

    def close() -> None:
        counts["documents"] += bool(document)
        if (len(document) == 1 and len(document[0]) <= HEADLINE_CHARS
            and not ends_with_final_mark(document[0])):
            counts["headlines"] += 1
            examples.setdefault("headline", document[0])
        document.clear()

    for text, size in _lines_of(path, text_format):
        if not text:
            has_blank_line = has_blank_line or bool(document)
            close()
        elif counts["lines"] < most_lines:
            counts["lines"] += 1
            document.append(text)
            if _MARKUP.search(text[:MARKUP_CHARS]):
                counts["markup"] += 1
                examples.setdefault("markup", text)
        if size > MAX_DOCUMENT_BYTES and not has_blank_line:
            has_blank_line = None
            break
        if counts["lines"] == most_lines and has_blank_line:
            break
    close()
    return Look(counts["lines"], counts["markup"], examples.get("markup", ""), counts["documents"],
                counts["headlines"], examples.get("headline", ""), has_blank_line)


def warnings_of(paths: Sequence[str], text_format: TextFormat, parts_documents: bool = True) -> List[str]:
    """Warnings about text files, before they are read.

    Args:
      parts_documents: whether it matters where documents end.

    Raises UserError for a file whose first document is too long because no blank line ends it.
    """
    most_lines = max(FEWEST_LINES_LOOKED_AT, LINES_LOOKED_AT // len(paths))
    looks = [(path, look_at(path, text_format, most_lines)) for path in paths]
    warnings = []
    if parts_documents and text_format.input_format == "text":
        for path, look in looks:
            if look.has_blank_line is None:
                raise UserError("--input_file: %s: no blank line in the first %d bytes, but a document may "
                                "not be longer: blank lines separate documents. %s"
                                % (path, MAX_DOCUMENT_BYTES, _EACH_LINE))
        whole = [path for path, look in looks if not look.has_blank_line and look.lines > 1]
        if whole:
            warnings.append("%s: has no blank lines and so is one document%s. %s" % (
                whole[0], ", as are %d other files" % (len(whole) - 1) if whole[1:] else "", _EACH_LINE))
    lines, markup, documents, headlines = (
        sum(getattr(look, name) for _, look in looks)
        for name in ("lines", "markup_lines", "documents", "headlines"))
    if markup > MARKUP_SHARE * lines:
        path, look = next((path, look) for path, look in looks if look.markup_lines)
        warnings.append("%.0f%% of the first %d lines contain markup, which is treated as text: %s: %.60s"
                        % (100 * markup / lines, lines, path, look.markup_example))
    elif parts_documents and headlines > HEADLINE_SHARE * documents:
        path, look = next((path, look) for path, look in looks if look.headlines)
        warnings.append("%.0f%% of the first %d documents are one short line without a final mark: %s: "
                        "%.60s; text that belongs together should have no blank lines in between"
                        % (100 * headlines / documents, documents, path, look.headline_example))
    return warnings


def _lines_of(path: str, text_format: TextFormat) -> Iterator[Tuple[str, int]]:
    """The lines of a file, "" between documents, each with the bytes read so far (0 in JSON lines)."""
    if text_format.input_format == "text":
        size = 0
        with opened(path) as stream:
            for line in iter(lambda: stream.readline(_HEAD_BYTES), b""):
                size += len(line)
                yield clean_line(line.decode("utf-8", "replace")), size
        return
    for document in read_documents(FileRange(0, path, 0, None), text_format):
        if isinstance(document, Document):
            yield from ((sentence, 0) for sentence in document.sentences + ("",))


def _format_of(head: bytes) -> Optional[str]:
    return next((what for at, begin, what in _FORMATS if head[at:at + len(begin)] == begin), None)


def _what_json(head: bytes, input_format: str, path: str) -> Optional[str]:
    """What is wrong with the JSON at the beginning of a file; None if there is none, or it is in the right
    format."""
    text = head.decode("utf-8", "replace")
    begin = len(text) - len(text.lstrip(BLANKS))
    found = _JSON.match(text, begin)
    if not found:
        return None
    line = text.count("\n", 0, begin) + 1
    first_line, is_long = text[begin:].split("\n", 1)[0].rstrip(), "\n" not in text[begin:]
    if found.group(1) or found.group(2):
        return ("line %d begins a JSON array: write one object a line (jq -c '.[]' %s > lines.jsonl), and "
                "give --input_format jsonl" % (line, os.path.basename(path)))
    if not first_line.endswith("}") and not is_long:
        return ("line %d begins a JSON object of several lines: write each on one (jq -c . %s > "
                "lines.jsonl), and give --input_format jsonl" % (line, os.path.basename(path)))
    if input_format == "jsonl":
        return None
    return ("line %d holds JSON: give --input_format jsonl, and --text_field, the field of the text%s"
            % (line, _names_of_texts(first_line)))


def _names_of_texts(line: str) -> str:
    try:
        names = [name for name, value in json_text.loads(line).items() if isinstance(value, str)]
    except ValueError:
        return ""
    return ": one of %s" % ", ".join(names[:10]) if names else ""
