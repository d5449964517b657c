import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest

from etl.building import first_look
from etl.building.first_look import Look, look_at, require_text, warnings_of
from etl.building.sources import TextFormat
from etl.common.command_line import UserError

TEXT, JSONL = TextFormat(), TextFormat("jsonl", ("content",))
LINE = '{"id": 1, "title": "标题", "content": "你好。"}\n'
GIVE = "give --input_format jsonl, and --text_field, the field of the text: one of title, content"


def tar(compression=""):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:" + compression) as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    return stream.getvalue()


def archive_of_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "你好。")
    return stream.getvalue()


def refusal(tmp_path, name, content, text_format=TEXT):
    """What is said of a file; None when nothing is."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    try:
        require_text(str(path), text_format)
    except UserError as error:
        assert str(error).startswith("--input_file: %s: " % path)
        return str(error)[len("--input_file: %s: " % path):]
    return None


@pytest.mark.parametrize("name, content, what", [
    ("a.tar", tar(), "a tar archive: unpack it first (tar -xf)"),
    ("a.tar.gz", tar("gz"), "a tar archive: unpack it first (tar -xf)"),
    ("a.tbz", tar("bz2"), "bzip2-compressed: give it a name that ends in .bz2"),
    ("a.tar.bz2", tar("bz2"), "a tar archive: unpack it first (tar -xf)"),
    ("a.txt", gzip.compress(b"a"), "gzip-compressed: give it a name that ends in .gz"),
    ("a.GZ", gzip.compress(b"a"), "gzip-compressed: give it a name that ends in .gz"),
    ("a.txt", bz2.compress(b"a"), "bzip2-compressed: give it a name that ends in .bz2"),
    ("a.gz", bz2.compress(b"a"), "bzip2-compressed: give it a name that ends in .bz2"),
    ("a.xz", lzma.compress(b"a"), "xz-compressed: unpack it first (unxz)"),
    ("a.txt", archive_of_zip(), "a zip archive: unpack it first (unzip)"),
    ("a.zst", b"\x28\xb5\x2f\xfd\x24\x01", "zstd-compressed: unpack it first (unzstd)"),
    ("a.pdf", b"%PDF-1.7\n", "a PDF: take its text out first"),
    ("a.txt", "BZhang 你好。", None), ("a.gz", gzip.compress("你好。".encode("utf-8")), None),
    ("a.txt", b"", None),
], ids=lambda value: "content" if isinstance(value, bytes) else None)  # archives tell the time
def test_archives_are_named(tmp_path, name, content, what):
    assert refusal(tmp_path, name, content) == refusal(tmp_path, name, content, JSONL) == what


ARRAY = ("line 1 begins a JSON array: write one object a line (jq -c '.[]' x > lines.jsonl), and give "
         "--input_format jsonl")
ARRAYS = ("line 1 holds a JSON array, as others do: write an object a line (jq -c '{text: .[0]}' x > "
          "lines.jsonl), and give --input_format jsonl")
STRINGS = "every line holds a JSON string: write them as text (jq -r . x > text.txt)"
OBJECT = ("line 1 begins a JSON object of several lines: write each on one (jq -c . x > lines.jsonl), and "
          "give --input_format jsonl")


@pytest.mark.parametrize("content, as_text, as_lines", [
    (LINE, "line 1 holds JSON: " + GIVE, None),
    ("\ufeff" + LINE, "line 1 holds JSON: " + GIVE, None),
    ("\n \u3000\n" + LINE, "line 3 holds JSON: " + GIVE, None),
    ("[%s]" % LINE.strip(), ARRAY, ARRAY),
    ('\ufeff[\n  {\n"a": 1', ARRAY, ARRAY),
    ('[\n  {"a": 1', ARRAY, ARRAY),
    ('["你好。",\n"再见。"]', ARRAY, ARRAY),
    ('{\n  "content": "你好。"\n}\n', OBJECT, OBJECT),
    ('{"content":\n', OBJECT, OBJECT),
    ("{你好}\n", None, None), ("[1] 参考文献\n", None, None), ("[[维基]]\n", None, None),
    ("你好。\n" + LINE, None, None), ("[查看原文](https://example.org)\n", None, None),
    ("“你好。”\n", None, None),
    ('["你好。", 1]\n\n["再见。", 0]\n', ARRAYS, ARRAYS), ('[1, ["你好。"]]\n[2, []]\n', ARRAYS, ARRAYS),
    ('[1, "你好。"]', ARRAY, ARRAY), ("[1]\n[2]\n", None, None),
    ('"你好。"\n"他说\\"好\\"。"\n', STRINGS, STRINGS),
    ('"你好。"\n他说。\n', None, None), ('"你好。"\n', None, None),
])
def test_json_is_not_text(tmp_path, content, as_text, as_lines):
    assert refusal(tmp_path, "x", content) == as_text
    assert refusal(tmp_path, "x", content, JSONL) == as_lines


@pytest.mark.parametrize("line", ["=" * 5000 + "x", "[" * 5000, "<a" * 5000, "**" * 5000, "|" * 5000 + "x"])
def test_no_line_takes_long_to_look_through(tmp_path, line):
    assert look(tmp_path, line + "。\n").lines == 1


def look(tmp_path, content, text_format=TEXT):
    (tmp_path / "x").write_text(content, encoding="utf-8")
    return look_at(str(tmp_path / "x"), text_format)


def test_look_at(tmp_path):
    assert look(tmp_path, "# 标题\n\n<p>一。</p>\n二。\n\n第二章\n\n三。\n") == Look(
        5, 2, "# 标题", 4, 2, "# 标题", True, 0, 0, "")
    assert look(tmp_path, "\n一。\n二。\n\n") == Look(2, 0, "", 1, 0, "", True, 0, 0, "")
    assert look(tmp_path, "一。\n二。") == Look(2, 0, "", 1, 0, "", False, 0, 0, "")
    assert look(tmp_path, '一。\n["二", 1]\n[1]\n"三"\n"四\n{"五": 6}\n')[-3:] == (2, 1, '["二", 1]')
    found = look(tmp_path, LINE + '{"content": "<b>二</b>"}\n', JSONL)
    assert found[:6] == (2, 1, "<b>二</b>", 2, 1, "<b>二</b>")


@pytest.mark.parametrize("line", [
    "<p>你好</p>", "a&nbsp;b", "[原文](https://a.org)", "## 天气", "---", "| a | b |", "**粗**",
    "[[链接|词]]", "```"])
def test_what_markup_is(tmp_path, line):
    assert look(tmp_path, line).markup_lines == 1


@pytest.mark.parametrize("line", [
    "a < b > c", "A&B 公司", "#1 你好", "[1] 文献（二）", "—— 你好", "3 * 4 * 5", "你好。"])
def test_what_no_markup_is(tmp_path, line):
    assert look(tmp_path, line).markup_lines == 0


def warned(tmp_path, content, **more):
    path = tmp_path / "x"
    path.write_text(content, encoding="utf-8")
    return [warning.replace(str(path), "x") for warning in warnings_of([str(path)], TEXT, **more)]


def test_warnings(tmp_path):
    assert warned(tmp_path, "一。\n二。\n\n三。\n四。\n" * 9) == []
    assert warned(tmp_path, "# 一\n\n二\n\n<p>三。</p>\n") == [
        "67% of the first 3 lines contain markup, which is treated as text: x: # 一"]
    assert warned(tmp_path, "一。\n二。\n") == [
        "x: has no blank lines and so is one document. If each line is a document, separate them: sed G "
        "FILE > NEW"]
    assert warned(tmp_path, "一。\n二。\n", parts_documents=False) == []
    assert warned(tmp_path, "一。\n" + LINE, parts_documents=False) == [
        "50%% of the first 2 lines are JSON, which is treated as text: x: %.60s; --input_format jsonl reads "
        "it, in files of its own" % LINE.strip()]
    assert warned(tmp_path, '一。\n"好。"\n', parts_documents=False) == []
    assert warned(tmp_path, "第一章\n\n一。二。\n\n") == [
        "50% of the first 2 documents are one short line without a final mark: x: 第一章; text that "
        "belongs together should have no blank lines in between"]


def test_lines_that_are_never_parted(tmp_path, monkeypatch):
    monkeypatch.setattr(first_look, "MAX_DOCUMENT_BYTES", 20)
    with pytest.raises(UserError, match="x: no blank line in the first 20 bytes, but a document may"):
        warned(tmp_path, "一二三。\n" * 9)
