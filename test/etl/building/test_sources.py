import bz2
import gzip
import io
import itertools
import json
import os
import random

import pytest

from etl.building import sources
from etl.building.sources import (BadRecord, FileRange, TextFormat, line_number, open_input,
                                  plan_ranges, read_documents, read_documents_at)
from etl.common.command_line import UserError
from etl.common.files import not_utf8
from etl.text.documents import Document

TEXT = TextFormat()
PIECES = [piece.encode("utf-8") for piece in ("\n", "\n", "\n\n", "\r\n", "\r", "　", " ", "\t", "\ufeff",
                                              "\u200b", "\u2028", "\x85", "\x1c", "a", "你好。", "再见！",
                                              "b c", "\0")] + [b"\xff", b"\xe3\x80", b"\x85"]
JSON_PIECES = [b'{"text": "\xe4\xbd\xa0\xe5\xa5\xbd\xe3\x80\x82ab"}\n', b'{"text": ""}\n', b'{"text": 3}\n',
               b'{"body": "a"}\r\n', b"[]\n",
               b"{\n", b"\n", b" \r\n", b"\xef\xbb\xbf", b"\xff\n", b'{"text": "x"}', "　\n".encode("utf-8")]


def is_blank_text(text):
    return all(char.isspace() or char in "\ufeff\u200b" for char in text)


def cleaned(text):
    while text and is_blank_text(text[0]):
        text = text[1:]
    while text and is_blank_text(text[-1]):
        text = text[:-1]
    return text


def lines_of(content):
    """(offset, line) of each line, newline included."""
    lines = io.BytesIO(content).readlines()
    return list(zip(itertools.accumulate([0] + [len(line) for line in lines]), lines))


def all_documents(content, max_line=1 << 20, max_document=1 << 24):
    """What a reader that has the whole file in memory gives: (offset, sentences) or (offset, reason of a
    bad record)."""
    found, lines = [], []
    for offset, line in lines_of(content) + [(len(content), b"")]:
        if len(line.rstrip(b"\n")) > max_line or not is_blank_text(line.decode("utf-8", "replace")):
            lines.append((offset, line))
        elif lines:
            found.append(one_document(lines, max_line, max_document))
            lines = []
    return found


def one_document(lines, max_line, max_document):
    sentences, size = [], 0
    for offset, line in lines:
        size += len(line)
        if len(line.rstrip(b"\n")) > max_line:
            return offset, "line longer than %d bytes" % max_line
        if size > max_document:
            return lines[0][0], "document longer than %d bytes" % max_document
        try:
            sentences.append(cleaned(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            return offset + error.start, not_utf8(error)
        if b"\r" in line.strip():
            return offset, "line holds a carriage return in the middle"
    return lines[0][0], tuple(sentences)


def all_json_documents(content):
    found = []
    for offset, line in lines_of(content):
        text = line.decode("utf-8", "replace")
        if is_blank_text(text):
            continue
        try:
            value = json.loads(cleaned(line.decode("utf-8")))
            sentences = tuple(value["text"].replace("。", "。\n").split("\n"))
            if any(sentences):
                found.append((offset, tuple(filter(None, sentences))))
        except (ValueError, TypeError, KeyError, AttributeError):
            found.append((offset, None))
    return found


def read_in_ranges(path, range_bytes, text_format=TEXT):
    found = []
    for file_range in plan_ranges([path], range_bytes):
        for document in read_documents(file_range, text_format):
            assert getattr(document, "path", path) == path and getattr(document, "file_index", 0) == 0
            found.append((document.offset, getattr(document, "sentences", None) or document.reason))
    return found


def random_contents(pieces, count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        content = b"".join(rng.choice(pieces) for _ in range(rng.randrange(25)))
        sizes = {1, len(content) + 1} | {rng.randint(1, max(1, len(content))) for _ in range(2)}
        yield content, sizes


@pytest.mark.parametrize("seed", range(4))
def test_any_ranges_give_the_documents_of_the_whole(tmp_path, seed):
    path = tmp_path / "x.txt"
    for content, sizes in random_contents(PIECES, 500, seed):
        path.write_bytes(content)
        expected = all_documents(content)
        for size in sizes:
            assert (content, read_in_ranges(str(path), size)) == (content, expected)


def test_any_ranges_give_the_same_over_long_lines_and_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", {"text": 12})
    monkeypatch.setattr(sources, "MAX_DOCUMENT_BYTES", 30)
    path = tmp_path / "x.txt"
    reasons = set()
    for content, sizes in random_contents(PIECES[:-3] + [b"abcdef", b"a" * 12], 500, 9):
        path.write_bytes(content)
        expected = all_documents(content, 12, 30)
        reasons |= {found for _, found in expected if isinstance(found, str)}
        for size in sizes:
            assert (content, read_in_ranges(str(path), size)) == (content, expected)
    assert {"line longer than 12 bytes", "document longer than 30 bytes"} <= reasons


def test_any_ranges_give_the_same_json_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    for content, sizes in random_contents(JSON_PIECES, 300, 5):
        path.write_bytes(content)
        expected = all_json_documents(content)
        for size in sizes:
            found = [(offset, what if isinstance(what, tuple) else None)
                     for offset, what in read_in_ranges(str(path), size, TextFormat("jsonl"))]
            assert (content, found) == (content, expected)


@pytest.mark.parametrize("content, documents", [
    (b"", []),
    (b"\n\r\n \n", []),
    ("你好。\n再见。\n\n　\r\n走了。".encode("utf-8"), [(0, ("你好。", "再见。")), (26, ("走了。",))]),
    (b"\xef\xbb\xbfa\r\nb\r\n", [(0, ("a", "b"))]),
    (b"a\n\nb\r\nc\rd\r\n", [(0, ("a",)), (6, "line holds a carriage return in the middle")]),
    ("a\u2028b\u0085c\n".encode("utf-8"), [(0, ("a\u2028b\u0085c",))]),
    (b"a\n\nb\xff\nc\n\nd", [(0, ("a",)), (4, "not UTF-8: invalid start byte at byte 0xff"), (9, ("d",))]),
])
def test_text(tmp_path, content, documents):
    (tmp_path / "x.txt").write_bytes(content)
    assert read_in_ranges(str(tmp_path / "x.txt"), None) == documents


@pytest.mark.parametrize("line, reason", [
    (b"\xff", "not UTF-8: invalid start byte at byte 0xff"),
    (b'{"body": "a", "x": ' + b"[" * 65 + b"]" * 65 + b"}",
     "not JSON: lists and objects are nested more than 64 deep"),
    (b"{", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    (b"[1]", "no JSON object with a text in field 'body'"),
    (b'{"text": "a", "title": "b", "id": 1}', "no text in field 'body'; fields with one: text, title"),
    (b'{"body": null, "id": 1}', "no text in field 'body'; fields with one: none"),
])
def test_bad_json_lines(tmp_path, line, reason):
    path = str(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_bytes(b'{"body": "a"}\n' + line + b"\n")
    assert list(read_documents(FileRange(0, path, 0, 99), TextFormat("jsonl", ("body",)))) == [
        Document(("a",), 0, 0), BadRecord(path, 14, reason)]


@pytest.mark.parametrize("line, found", [
    (b'{"title": "t", "body": "a! b!"}', Document(("t", "a!", "b!"), 0, 0)),
    (b'{"title": null, "body": "a"}', Document(("a",), 0, 0)),
    (b'{"title": "", "body": "a"}', Document(("a",), 0, 0)),
    (b'{"body": "a"}', "no text in field 'title'; fields with one: body"),
    (b'{"title": null, "body": null}', "no text in field 'title' or 'body'; fields with one: none"),
])
def test_several_fields_are_one_document(tmp_path, line, found):
    path = str(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_bytes(line + b"\n")
    documents = list(read_documents(FileRange(0, path, 0, 99), TextFormat("jsonl", ("title", "body"))))
    assert documents == [found if isinstance(found, Document) else BadRecord(path, 0, found)]


@pytest.mark.parametrize("line", [b"[" * 100000, b'{"body": "\\ud800"}'],
                         ids=["deep", "half of a surrogate pair"])
def test_json_that_python_reads_and_nobody_can_use(tmp_path, line):
    path = str(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_bytes(line + b"\n")
    found, = read_documents(FileRange(0, path, 0, 99), TextFormat("jsonl", ("body",)))
    assert isinstance(found, BadRecord)


def test_over_long_json_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", {"jsonl": 20})
    path = str(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "%s"}\n{"text": "b"}\n' % (b"a" * 20))
    assert list(read_documents(FileRange(3, path, 0, 99), TextFormat("jsonl"))) == [
        BadRecord(path, 0, "line longer than 20 bytes"), Document(("b",), 3, 33)]


@pytest.mark.parametrize("suffix, compress", [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_file_is_one_range(tmp_path, suffix, compress):
    path = str(tmp_path / ("x.txt" + suffix))
    content = "你好。\n\n再见。\n".encode("utf-8") * 50
    with open(path, "wb") as stream:
        stream.write(compress(content))
    assert plan_ranges([path], 10) == [FileRange(0, path, 0, None, os.path.getsize(path))]
    assert read_in_ranges(path, 10) == all_documents(content)
    assert open_input(path).read() == content
    assert line_number(path, 13) == 3
    assert list(read_documents_at(path, 0, [11, 32], TEXT)) == [
        Document(("再见。", "你好。"), 0, 11), Document(("再见。", "你好。"), 0, 32)]


def broken_files():
    content = gzip.compress(b"hello\n" * 1000)
    damaged = content[:20] + bytes(255 - byte for byte in content[20:30]) + content[30:]
    return [("cut.gz", content[:-9]), ("damaged.gz", damaged), ("plain.gz", b"hello\n"),
            ("cut.bz2", bz2.compress(b"hello\n")[:-9]),
            ("plain.bz2", b"hello\n"), ("empty.gz", b""), ("empty.bz2", b"")]


@pytest.mark.parametrize("name, content", broken_files(), ids=[name for name, _ in broken_files()])
def test_broken_compressed_file_is_an_error_that_names_it(tmp_path, name, content):
    path = str(tmp_path / name)
    with open(path, "wb") as stream:
        stream.write(content)
    with pytest.raises((OSError, UserError)) as error:
        list(read_documents(FileRange(0, path, 0, None)))
    assert name in str(error.value)


CONTENT = "你好。\n\n再见。\n\n".encode("utf-8") * 5
CHANGES = {
    "cut": lambda path: os.truncate(path, os.path.getsize(path) // 2),
    "grown": lambda path: open(path, "ab").write(CONTENT),
    "written anew": lambda path: open(path, "wb").write(CONTENT) and os.utime(path, ns=(1, 1)),
    "replaced": lambda path: open(path + ".new", "wb").write(CONTENT) and os.utime(path + ".new", ns=(1, 1))
    or os.replace(path + ".new", path),
    "removed": os.remove,
}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress], ids=["plain", "gz", "bz2"])
@pytest.mark.parametrize("change", list(CHANGES))
def test_a_file_that_changes_while_it_is_read(tmp_path, change, compress):
    path = str(tmp_path / ("x" + {gzip.compress: ".gz", bz2.compress: ".bz2"}.get(compress, ".txt")))
    with open(path, "wb") as stream:
        stream.write(compress(CONTENT))
    documents = read_documents(plan_ranges([path])[0])
    assert isinstance(next(documents), Document)
    CHANGES[change](path)
    with pytest.raises(UserError, match="^%s: (has changed while|was removed while|damaged or truncated)"
                       % path):
        list(documents)


@pytest.mark.parametrize("change", ["cut", "grown"])
def test_a_file_that_has_changed_since_it_was_planned(tmp_path, change):
    path = str(tmp_path / "x.txt")
    (tmp_path / "x.txt").write_bytes(CONTENT)
    file_range, = plan_ranges([path])
    CHANGES[change](path)
    with pytest.raises(UserError) as error:
        list(read_documents(file_range))
    sizes = len(CONTENT), os.path.getsize(path)
    assert str(error.value) == ("%s: has changed while being read: it had %d bytes and has %d now; run the "
                                "command again when it is complete" % ((path,) + sizes))


def test_no_document_where_one_should_be(tmp_path):
    path = str(tmp_path / "x.txt")
    (tmp_path / "x.txt").write_bytes(b"a\n\xff\n")
    for offset in (2, 4, 99):
        with pytest.raises(OSError, match="x.txt: no document at byte %d, where one was before" % offset):
            list(read_documents_at(path, 0, [offset], TEXT))


def test_plan_ranges(tmp_path):
    sizes = {"a": 10, "b": 0, "c": 4}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert plan_ranges([a, b, c], 4) == [FileRange(0, a, 0, 4, 10), FileRange(0, a, 4, 8, 10),
                                         FileRange(0, a, 8, 10, 10), FileRange(2, c, 0, 4, 4)]
    assert plan_ranges([a, c]) == [FileRange(0, a, 0, 10, 10), FileRange(1, c, 0, 4, 4)]


@pytest.mark.parametrize("total, step", [(1, 1 << 20), (256 << 20, 4 << 20), (1 << 40, 1 << 26)])
def test_default_ranges_are_a_64th_within_bounds(monkeypatch, total, step):
    monkeypatch.setattr(sources.os.path, "getsize", lambda path: min(total, 1 << 30))
    ranges = plan_ranges(["x"] * max(1, total >> 30))
    assert max(file_range.end - file_range.begin for file_range in ranges) == min(step, total)


@pytest.mark.parametrize("offset, number", [(0, 1), (1, 1), (2, 2), (3, 3), (9, 4)])
def test_line_number(tmp_path, offset, number):
    (tmp_path / "x").write_bytes(b"a\n\nb\nc")
    assert line_number(str(tmp_path / "x"), offset) == number


def test_read_documents_at(tmp_path):
    path = str(tmp_path / "x.txt")
    (tmp_path / "x.txt").write_bytes("你好。\n\n再见。\n走了。\n\n完".encode("utf-8"))
    found = list(read_documents(FileRange(2, path, 0, 99)))
    assert list(read_documents_at(path, 2, [document.offset for document in found], TEXT)) == found
    (tmp_path / "x.jsonl").write_bytes(b'{"t": "a. b!c"}\n{"t": "d"}\n')
    path = str(tmp_path / "x.jsonl")
    found = list(read_documents(FileRange(2, path, 0, 99), TextFormat("jsonl", ("t",))))
    assert list(read_documents_at(path, 2, [document.offset for document in found],
                                  TextFormat("jsonl", ("t",)))) == found


def test_a_file_is_opened_once_for_many_documents(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(sources, "open_input", lambda path: opened.append(path) or gzip.open(path, "rb"))
    path = str(tmp_path / "x.gz")
    with gzip.open(path, "wb") as stream:
        stream.write(b"a\n\n" * 100)
    assert len(list(read_documents_at(path, 0, range(0, 300, 3), TEXT))) == 100
    assert opened == [path]


def test_a_document_of_json_may_be_longer_than_a_line_of_text(tmp_path):
    for name, content in (("x.txt", b"%s\n"), ("x.jsonl", b'{"text": "%s"}\n')):
        (tmp_path / name).write_bytes(content % (b"a" * (2 << 20)))
    assert read_in_ranges(str(tmp_path / "x.txt"), None) == [(0, "line longer than 1048576 bytes")]
    assert read_in_ranges(str(tmp_path / "x.jsonl"), 1 << 20,
                          TextFormat("jsonl")) == [(0, ("a" * (2 << 20),))]
