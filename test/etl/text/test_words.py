import functools
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.common.command_line import UserError
from etl.text.words import (FastSegmenter, Segmenter, SegmenterConfig, check_user_dict, load_segmenter,
                            mark_word_starts)

TEXT = st.text(st.sampled_from("我爱北京天安门中华人民共和国研究生命起源，。！ab12. -%\t\u3000\u2028\0😀é"),
               max_size=30)


@functools.lru_cache(None)
def segmenter():
    return Segmenter()


@functools.lru_cache(None)
def fast_segmenter():
    return FastSegmenter()


def words_of(sentence, segmenter=None):
    edges = (segmenter or load_segmenter()).word_offsets(sentence).tolist() + [len(sentence)]
    return [sentence[begin:end] for begin, end in zip(edges[:-1], edges[1:])]


@pytest.mark.parametrize("sentence, words", [
    ("我爱北京天安门", "我 爱 北京 天安门"),
    ("中华人民共和国成立了", "中华人民共和国 成立 了"),
    ("研究生命起源", "研究 生命 起源"),
    ("用TensorFlow写", "用 TensorFlow 写"),
    ("好", "好"),
])
def test_words(sentence, words):
    assert words_of(sentence) == words.split(" ")


def test_offsets_are_positions():
    offsets = load_segmenter().word_offsets("我爱北京天安门")
    assert offsets.dtype == np.int32 and offsets.tolist() == [0, 1, 2, 4]


def test_empty_sentence_has_no_words():
    assert load_segmenter().word_offsets("").tolist() == []


FUZZ = st.lists(st.one_of(
    TEXT, st.text("我爱北京天安门研究生命起源常在较陡峭aB1.-%+#&_", max_size=20),
    st.text("的一是在不了有和人这中大为上个国我以要他", max_size=12),
    st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FD8), max_size=6), st.text(max_size=5),
    st.sampled_from(["T恤", "卡拉OK", "C++", "AT&T", "1.5%", "小S", "阿Q", "4S店", "江南Style", "\r\n", "㐀",
                     "鿖", "１２"]),), max_size=8).map("".join)


@settings(max_examples=1500)
@given(FUZZ)
@example("常在较陡峭的礁岸")                      # the HMM's two best ways are a ten-millionth apart
@example("究研a")
def test_both_segmenters_find_the_same_words(sentence):
    assert words_of(sentence, fast_segmenter()) == words_of(sentence, segmenter())


@pytest.mark.parametrize("sentence", ["aB3-" * 5000, "爱1-" * 5000, "龘靐齉爩" * 5000, "我爱北京" * 5000,
                                      "a." * 200 + "在"])
def test_long_blocks(sentence):
    assert words_of(sentence, fast_segmenter()) == words_of(sentence, segmenter())


@pytest.mark.parametrize(
    "sentence", [char * size for char in "啊炎缝东" for size in (33, 36, 60, 94, 150)]
    + ["得以院墙搱肚傻憨傻红番红边缘听听听进军孙乍得佗纤纤纤善性善累积参预要道麻糖路头路沃沃沃"])
def test_ways_of_equal_probability(sentence):
    """Rounding decides between them, in long blocks another way for rjieba's total than for jieba's."""
    sentence = "好人，" + sentence + "。一生平安"
    assert words_of(sentence, fast_segmenter()) == words_of(sentence, segmenter())


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["东东东", "缝缝缝", "听听听", "红番红", "炎炎炎", "龘", "路头路", "，",
                                 "a"]), max_size=40).map("".join))
def test_many_ties(sentence):
    assert words_of(sentence, fast_segmenter()) == words_of(sentence, segmenter())


@pytest.mark.parametrize("user_dict, name, kind", [
    (None, "auto", FastSegmenter), (None, "rjieba", FastSegmenter), (None, "jieba", Segmenter),
    ("d", "auto", Segmenter), ("d", "jieba", Segmenter)])
def test_choice_of_the_segmenter(tmp_path, user_dict, name, kind):
    (tmp_path / "d").write_text("云计算平台 9 n\n", encoding="utf-8")
    assert type(load_segmenter(SegmenterConfig(user_dict and str(tmp_path / "d"), name))) is kind


def test_rjieba_takes_no_user_dictionary(tmp_path):
    with pytest.raises(UserError) as error:
        load_segmenter(SegmenterConfig("d", "rjieba"))
    assert str(error.value) == "--segmenter rjieba takes no --user_dict; use jieba or auto"


def test_without_rjieba(monkeypatch):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    load_segmenter.cache_clear()
    assert type(load_segmenter()) is Segmenter
    with pytest.raises(UserError) as error:
        load_segmenter(SegmenterConfig(segmenter="rjieba"))
    assert (str(error.value)
            == "--segmenter rjieba: it is not installed; use jieba or auto, or pip install rjieba==0.1.11")
    load_segmenter.cache_clear()


@given(TEXT)
@example("\u3000 \t")
def test_joined_words_are_the_sentence(sentence):
    words = words_of(sentence)
    assert "".join(words) == sentence
    assert all(words)


def test_user_dictionary(tmp_path):
    (tmp_path / "user.txt").write_text("云计算平台 9 n\n", encoding="utf-8")
    assert "云计算平台" in words_of("他做云计算平台", Segmenter(str(tmp_path / "user.txt")))
    assert "云计算平台" not in words_of("他做云计算平台")


@pytest.mark.parametrize("content", ["云计算平台\n", "云计算平台 9\r\n", "\ufeff云计算平台 n\n\n",
                                     "云计算平台 9 nz", ""])
def test_user_dictionaries_as_jieba_has_them(tmp_path, content):
    (tmp_path / "user.txt").write_bytes(content.encode("utf-8"))
    assert ("云计算平台" in words_of("他做云计算平台",
                                     Segmenter(str(tmp_path / "user.txt")))) == bool(content)


@pytest.mark.parametrize("line, message", [
    (b"\xff", "not UTF-8: invalid start byte at byte 0xff"),
    (b"ab\t9", "must be a word, optionally its frequency (digits) and its tag (lower-case letters), "
     "separated by single spaces, got 'ab\\t9'")])
def test_a_bad_line_of_a_user_dictionary_is_named(tmp_path, line, message):
    path = tmp_path / "user.txt"
    path.write_bytes(b"ab 9 n\n" + line + b"\n")
    with pytest.raises(UserError) as error:
        Segmenter(str(path))
    assert str(error.value) == "%s: line 2: %s" % (path, message)


@pytest.mark.parametrize("line, word", [
    ("Edu Trust认证 2000", "Edu Trust认证"), ("Machine Learning", "Machine Learning"), ("ab 9 n x", "ab 9 n"),
    ("史蒂夫·乔布斯 5 nr", "史蒂夫·乔布斯"), ("ab  9", "ab "), ("ab 9 N", "ab 9 N")])
def test_words_that_jieba_never_finds_are_told(tmp_path, line, word):
    path = tmp_path / "user.txt"
    path.write_text("云计算平台 5\nC++ 3 eng\n%s\n" % line, encoding="utf-8")
    assert "云计算平台" in words_of("他做云计算平台", Segmenter(str(path)))
    assert check_user_dict(str(path)) == (
        "%s: 1 word has no effect, since jieba splits text at spaces and punctuation: line 3: %s"
        % (path, word))
    path.write_text("云计算平台 5\n\n", encoding="utf-8")
    assert check_user_dict(str(path)) is None


@pytest.mark.parametrize("token_offsets, word_offsets, starts", [
    # 我|爱|北京|天安门, a token for each character
    ([0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 4], [1, 1, 1, 0, 1, 0, 0]),
    ([0, 2, 4], [0, 4], [1, 0, 1]),                                    # a word of two pieces stays whole
    ([0, 3], [0, 2, 3], [1, 1]),                                       # the first token spans two words
    ([0, 0, 0], [0], [1, 0, 0]),                                       # three tokens of one character
    ([2, 3], [0, 1, 2, 3], [1, 1]),                                    # the first words gave no token
    ([1, 2], [0], [1, 0]),
    ([], [0], []),
    ([], [], []),
])
def test_mark_word_starts(token_offsets, word_offsets, starts):
    marked = mark_word_starts(np.array(token_offsets, np.int32), np.array(word_offsets, np.int32))
    assert marked.dtype == bool and marked.astype(int).tolist() == starts


@given(TEXT.filter(bool))
def test_one_token_a_character_begins_where_jieba_says(sentence):
    offsets = load_segmenter().word_offsets(sentence)
    starts = mark_word_starts(np.arange(len(sentence), dtype=np.int32), offsets)
    assert np.flatnonzero(starts).tolist() == offsets.tolist()
