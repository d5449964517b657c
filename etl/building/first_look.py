"""Checks the beginning of each input file before it is read in full: refuses what is not text, warns of text
that is probably not as intended.

Archives and compressed files are recognized by their first bytes, whatever their names; JSON by its
beginning, after a byte order mark and blank lines; markup by its share of the lines.
"""
import os
import re
from collections import Counter
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from etl.building.sources import (COMPRESSIONS, MAX_DOCUMENT_BYTES, FileRange, TextFormat, opened,
                                  read_documents)
from etl.common import json_text
from etl.common.command_line import UserError
from etl.common.file_formats import HEAD_BYTES, format_of
from etl.text.documents import BLANKS, Document, clean_line, ends_with_final_mark

LINES_LOOKED_AT, FEWEST_LINES_LOOKED_AT = 20000, 100         # of all files, of one of many
MARKUP_SHARE, HEADLINE_SHARE, HEADLINE_CHARS = 0.05, 0.3, 30    # no warning below these shares
JSON_TEXT_SHARE = 0.5                          # of lines in quotation marks, as prose has some, too
MARKUP_CHARS = 300                             # of a line, in which markup is looked for

_HEAD_BYTES = 1 << 20
_EACH_LINE = "If each line is a document, separate them: sed G FILE > NEW"
_STRING = r'"(?:[^"\\]|\\.)*"'
_JSON = re.compile(r'(\[\s*)?\{\s*(?:%s\s*:|\})|(\[)\s*(?:%s\s*[,\]]|\])' % (_STRING, _STRING))
_MARKUP = re.compile(
    r"</?[A-Za-z][^<>]*>|&(?:[a-z]+|#[0-9]+);|\[[^\[\]]*\]\([^()]*\)|\[\[[^\[\]]+\]\]|\{\{[^{}]+\}\}"
    r"|^(?:#{1,6} |```|~~~|\|.*\|$|={2,}[^=]+=+$|-{3,}$|\*{3,}$)|\*\*[^*]+\*\*")


class Look(NamedTuple):
    """Statistics of a file's first lines, without blank ones.

    Attributes:
      lines, markup_lines, markup_example: number of lines, of lines with markup, the first of these.
      documents, headlines, headline_example: the same for documents, and those that are one short line
        without a final mark.
      has_blank_line: whether there is one between lines; None if the first document is too long already.
      json_lines, json_texts, json_example: number of lines of text that are JSON objects or arrays, of those
        that are JSON strings, the first of both.
    """
    lines: int
    markup_lines: int
    markup_example: str
    documents: int
    headlines: int
    headline_example: str
    has_blank_line: Optional[bool]
    json_lines: int
    json_texts: int
    json_example: str


def require_text(path: str, text_format: TextFormat) -> None:
    """Raises UserError, beginning with the file's name, if it is not in that format: an archive, JSON instead
    of plain text, an array or objects over several lines instead of JSON lines.

    Raises UserError for damaged files as `sources.opened` does.
    """
    with open(path, "rb") as stream:
        what = format_of(stream.read(HEAD_BYTES))
    for suffix, name in COMPRESSIONS.items():
        if what and what.startswith(name):
            what = None if path.endswith(suffix) else "%s-compressed: give it a name that ends in %s" % (
                name, suffix)
    if not what:
        with opened(path) as text:
            head = text.read(_HEAD_BYTES)
        what = format_of(head[:HEAD_BYTES]) or _what_json(head, text_format.input_format, path)
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

    reads_text = text_format.input_format == "text"
    for text, size in _lines_of(path, text_format):
        if not text:
            has_blank_line = has_blank_line or bool(document)
            close()
        elif counts["lines"] < most_lines:
            counts["lines"] += 1
            document.append(text)
            kind = _json_kind(text) if reads_text else None
            if kind:
                counts["json_texts" if kind == "string" else "json"] += 1
                examples.setdefault("json", text)
            elif _MARKUP.search(text[:MARKUP_CHARS]):
                counts["markup"] += 1
                examples.setdefault("markup", text)
        if size > MAX_DOCUMENT_BYTES and not has_blank_line:
            has_blank_line = None
            break
        if counts["lines"] == most_lines and has_blank_line:
            break
    close()
    return Look(counts["lines"], counts["markup"], examples.get("markup", ""), counts["documents"],
                counts["headlines"], examples.get("headline", ""), has_blank_line, counts["json"],
                counts["json_texts"], examples.get("json", ""))


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
    lines, markup, json_lines, json_texts, documents, headlines = (
        sum(getattr(look, name) for _, look in looks)
        for name in ("lines", "markup_lines", "json_lines", "json_texts", "documents", "headlines"))
    if json_lines > MARKUP_SHARE * lines or json_texts > JSON_TEXT_SHARE * lines:
        path, look = next((path, look) for path, look in looks if look.json_lines + look.json_texts)
        warnings.append("%.0f%% of the first %d lines are JSON, which is treated as text: %s: %.60s; "
                        "--input_format jsonl reads it, in files of its own"
                        % (100 * (json_lines + json_texts) / lines, lines, path, look.json_example))
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


def _what_json(head: bytes, input_format: str, path: str) -> Optional[str]:
    """What is wrong with the JSON at the beginning of a file; None if there is none, or it is in the right
    format."""
    text = head.decode("utf-8", "replace")
    begin = len(text) - len(text.lstrip(BLANKS))
    lines = list(filter(None, map(clean_line, text[begin:].split("\n"))))
    first_line, is_long = text[begin:].split("\n", 1)[0].rstrip(), "\n" not in text[begin:]
    name, line = os.path.basename(path), text.count("\n", 0, begin) + 1
    if len(head) == _HEAD_BYTES:               # the last line may be incomplete
        lines.pop()
    kinds = list(map(_json_kind, lines[:2]))
    if kinds == ["array", "array"]:
        return ("line %d holds a JSON array, as others do: write an object a line (jq -c '{text: .[0]}' %s > "
                "lines.jsonl), and give --input_format jsonl" % (line, name))
    if kinds == ["string", "string"] and all(_json_kind(line) == "string" for line in lines):
        return ("every line holds a JSON string: write them as text (jq -r . %s > text.txt)" % name)
    found = _JSON.match(text, begin)
    if not found and kinds[:1] != ["array"]:
        return None
    if not found or found.group(1) or found.group(2):
        return ("line %d begins a JSON array: write one object a line (jq -c '.[]' %s > lines.jsonl), and "
                "give --input_format jsonl" % (line, name))
    if not first_line.endswith("}") and not is_long:
        return ("line %d begins a JSON object of several lines: write each on one (jq -c . %s > "
                "lines.jsonl), and give --input_format jsonl" % (line, name))
    if input_format == "jsonl":
        return None
    return ("line %d holds JSON: give --input_format jsonl, and --text_field, the field of the text%s"
            % (line, _names_of_texts(first_line)))


def _json_kind(line: str) -> Optional[str]:
    """"object", "array" or "string" if all of a line is JSON of this type with a text in it; None if not."""
    if line[:1] + line[-1:] not in ("{}", "[]", '""'):
        return None
    try:
        value = json_text.loads(line)
    except ValueError:
        return None
    if isinstance(value, list):                # [1] is most often a footnote
        return "array" if any(isinstance(part, (str, list, dict)) for part in value) else None
    return "object" if isinstance(value, dict) else "string"


def _names_of_texts(line: str) -> str:
    try:
        names = [name for name, value in json_text.loads(line).items() if isinstance(value, str)]
    except ValueError:
        return ""
    return ": one of %s" % ", ".join(names[:10]) if names else ""
