import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.text.documents import BLANKS, Document, clean_line, document_from_lines, is_blank, split_sentences

TEXT = st.text(st.sampled_from("你好。！？…；”」』!? \t\r\u3000\ufeff\u200b\x85\x1c\0ab\"'"), max_size=12)


@pytest.mark.parametrize("line, cleaned", [
    ("　你好。\r\n", "你好。"), ("\ufeff你好", "你好"), ("\u200b \ufeff　", ""), ("", ""),
    ("你　好", "你　好"), ("\0", "\0")])
def test_clean_line(line, cleaned):
    assert clean_line(line) == cleaned


@given(TEXT)
def test_cleaning_twice_is_cleaning_once(text):
    assert clean_line(clean_line(text)) == clean_line(text)


def stripped_turn_by_turn(line):
    """What `clean_line` says in one go: strip both kinds of blanks in turn until nothing changes, in
    quadratic time."""
    previous = None
    while previous != line:
        previous, line = line, line.strip().strip("\ufeff\u200b")
    return line


@given(TEXT | st.text() | st.text(st.sampled_from(BLANKS + "\u180e\u200c\u2060\udc80\ud800x"), max_size=40))
def test_one_go_strips_what_turns_do(text):
    assert clean_line(text) == stripped_turn_by_turn(text)


def test_blanks_are_all_that_strip_takes():
    taken = {char for char in map(chr, range(sys.maxunicode + 1)) if not char.strip()}
    assert set(BLANKS) == taken | {"\ufeff", "\u200b"} and len(BLANKS) == len(set(BLANKS))


@pytest.mark.parametrize("line", ["", "\n", "\r\n", " \t\n", "\u3000\u3000\r\n", "\ufeff", "\u200b\n",
                                  "\u2028\n", "\xa0\x85"])
def test_blank(line):
    assert is_blank(line.encode("utf-8"))


@pytest.mark.parametrize("line", [b"a\n", "你\n".encode("utf-8"), "　你".encode("utf-8"), b"\xff\n",
                                  b"\xe3\x80\n", b"\0\n"])
def test_not_blank(line):
    assert not is_blank(line)


@given(st.text(max_size=4))
def test_blank_is_what_cleaning_leaves_nothing_of(text):
    assert is_blank(text.encode("utf-8")) == (clean_line(text) == "")


def test_document_from_lines():
    assert document_from_lines(["你好。\n", "　\n", " 再见。\r\n"], 1,
                               7) == Document(("你好。", "再见。"), 1, 7)
    assert document_from_lines(["　\n"], 0, 0) is None
    assert document_from_lines([], 0, 0) is None


def test_identity_is_the_text_alone():
    assert Document(("你好", "再见"), 0, 0).identity == Document(("你好", "再见"), 3, 9).identity
    assert Document(("你好", "再见"), 0, 0).identity != Document(("你好再见",), 0, 0).identity
    assert len(Document(("你好",), 0, 0).identity) == 16


@pytest.mark.parametrize("paragraph, sentences", [
    ("", []),
    ("　\n", []),
    ("没有句号", ["没有句号"]),
    ("你好。再见！", ["你好。", "再见！"]),
    ("他说：“好。”走了。", ["他说：“好。”", "走了。"]),
    ("真的？！……好吧", ["真的？！……", "好吧"]),
    ("（他笑了。）走吧；", ["（他笑了。）", "走吧；"]),
    ("第一行\n第二行。", ["第一行", "第二行。"]),
    ("圆周率是3.14。", ["圆周率是3.14。"]),
])
def test_split_sentences(paragraph, sentences):
    assert split_sentences(paragraph) == sentences


@given(TEXT)
def test_splitting_loses_nothing_but_blanks(text):
    def visible(string):
        return [char for char in string if clean_line(char)]

    assert visible("".join(split_sentences(text))) == visible(text)
