import pytest

from estimator.data import task_files
from etl.common.command_line import UserError

ORDER = ("text", "label")


def read(tmp_path, name, content, order=ORDER, may_lack=""):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return [tuple(row) for row in task_files.read_rows(str(tmp_path / name), order, may_lack)]


@pytest.mark.parametrize("content", ["天\t1\n地\t0\n", "天\t1\r\n地\t0", "\ufefftext\tlabel\n天\t1\n地\t0\n"])
def test_columns_with_and_without_a_header(tmp_path, content):
    first = 2 if "label" in content else 1
    assert read(tmp_path, "a.tsv", content) == [(first, {"text": "天", "label": "1"}),
                                                (first + 1, {"text": "地", "label": "0"})]


def test_a_headers_columns_may_be_more_and_in_any_order(tmp_path):
    assert read(tmp_path, "a.txt",
                "id\tlabel\ttext\n7\t1\t天\n") == [(2, {"id": "7", "label": "1", "text": "天"})]
    assert read(tmp_path, "b.tsv", "a\tb\n1\t2\n", order=()) == [(2, {"a": "1", "b": "2"})]


def test_columns_by_number(tmp_path):
    assert read(tmp_path, "a.tsv", "天\t1\n地\t0\n", order=None) == [(1, {"1": "天", "2": "1"}),
                                                                     (2, {"1": "地", "2": "0"})]


def test_a_column_that_may_lack(tmp_path):
    assert read(tmp_path, "a.tsv", "天\n地\n", may_lack="label") == [(1, {"text": "天"}), (2, {"text": "地"})]
    assert read(tmp_path, "a.tsv", "天\t1\n", may_lack="label") == [(1, {"text": "天", "label": "1"})]
    assert read(tmp_path, "a.tsv", "text\n天\n", may_lack="label") == [(2, {"text": "天"})]


def test_csv_may_quote_commas_and_line_ends(tmp_path):
    assert read(tmp_path, "a.csv", 'text,label\n"天,\n""地""",1\n山,0\n') == [
        (3, {"text": '天,\n"地"', "label": "1"}), (4, {"text": "山", "label": "0"})]


def test_json_lines(tmp_path):
    for name in ("a.json", "a.jsonl"):
        assert read(tmp_path, name, '{"text": "天", "n": [1]}\n') == [(1, {"text": "天", "n": [1]})]


def test_other_line_separators_are_text(tmp_path):
    assert read(tmp_path, "a.tsv", "天\u2028地\x0b\t1\n") == [(1, {"text": "天\u2028地\x0b", "label": "1"})]


@pytest.mark.parametrize("content, wanted", [
    ("句子\n天\n", {"text": "天"}), ("text\n天\n", {"text": "天"}),
    ("标签\t句子\n1\t天\n", {"text": "天", "label": "1"}),
    ("sentence,label\n天,1\n", {"text": "天", "label": "1"}),
    ("编号\tquery\t类别\n7\t天\t1\n", {"id": "7", "text": "天", "label": "1"}),
])
def test_a_header_of_the_usual_names(tmp_path, capsys, content, wanted):
    name = "a.csv" if "," in content else "a.tsv"
    assert read(tmp_path, name, content, may_lack="label") == [(2, wanted)]
    if not content.startswith("text"):         # those are the names wanted
        assert "%s: line 1 is a header, no example: " % name in capsys.readouterr().out


def test_a_header_above_numbered_columns(tmp_path):
    assert read(tmp_path, "a.tsv", "q1\tq2\n天\t地\n", order=None) == [(2, {"1": "天", "2": "地"})]


@pytest.mark.parametrize("name, content", [
    ("a.tsv", "天\t1\n\n \t\n地\t0\n\n\n"), ("a.csv", "天,1\n,\n\n地,0\n\n"),
    ("a.json", '{"text": "天"}\n \n\n{"text": "地"}\n\n'),
])
def test_blank_lines_are_no_rows_and_counted_within(tmp_path, capsys, name, content):
    assert [row["text"] for _, row in read(tmp_path, name, content)] == ["天", "地"]
    assert capsys.readouterr().out.endswith("%s: 2 blank line(s) skipped\n" % name)
    read(tmp_path, name, content.split("\n")[0] + "\n\n")
    assert capsys.readouterr().out == ""


def test_a_field_of_any_length(tmp_path):
    text = "长" * 140000
    assert read(tmp_path, "a.csv", "%s,1\n" % text) == [(1, {"text": text, "label": "1"})]


@pytest.mark.parametrize("name, content, message", [
    ("a.tsv", "标题\t内容\t标签\n天\t地\t1\n",
     "line 1: a header, 标题, 内容, 标签, that does not say which columns are text, label: "),
    ("a.tsv", "句子\t标签\n天\t1\n句子\t标签\n", "line 3: the header once more"),
    ("a.tsv", "天\t1\n句子\t标签\n", "line 2: 句子, 标签: looks like a header inside the file"),
    ("a.tsv", b"\x1f\x8b\x08\0", "gzip-compressed: unpack it first"),
    ("a.json", '{\n"text": "天"\n}\n',
     "line 1: not JSON: .*: one object a line is wanted, jq -c . writes them so"),
    ("a.json", '[\n{"text": "天"}]\n', "line 1: not JSON: .* jq -c '.\\[]' writes them so"),
    ("a.json", '[{"text": "天"}]\n',
     "line 1: wanted a JSON object, got list: jq -c '.\\[]' writes its objects"),
    ("a.tsv", "天\t1\n地\n", r"line 2: wanted 2 field\(s\): text, label; got 1"),
    ("a.tsv", "天\t1\t2\n", r"line 1: wanted 2 field\(s\): text, label; got 3"),
    ("a.tsv", "text\tlabel\tid\n天\t1\n", r"line 2: wanted 3 field\(s\): text, label, id; got 2"),
    ("a.tsv", b"\xcc\xec\t1\n", "line 1: not UTF-8: "),
    ("a.csv", 'text,label\n天,1\n"天,1\n地,0\n', "line 4: not CSV: .*; the row begins in line 3"),
    ("a.json", "天\n", "line 1: not JSON: "),
    ("a.jsonl", "{}\n" + "[" * 150000 + "\n",
     "line 2: not JSON: lists and objects are nested more than 64 deep"),
    ("a.jsonl", "{}\n[1]\n", "line 2: wanted a JSON object, got list"),
    ("a.json", '{"text": ["\\uD83D\\uDE00"]}\n{"text": ["天\\uD83D"]}\n',
     r"line 2: \\ud83d is half a character"),
])
def test_what_is_wrong_is_named_by_file_and_line(tmp_path, name, content, message):
    with pytest.raises(UserError, match=name + ": " + message):
        read(tmp_path, name, content)


def test_a_blank_line_among_texts_alone_is_refused(tmp_path):
    with pytest.raises(UserError, match="a.tsv: line 2: blank: a text must not be"):
        read(tmp_path, "a.tsv", "天\n\n地\n", may_lack="label")
