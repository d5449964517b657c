import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.text.tokenization import SPECIAL_TOKENS, Vocabulary, WordPieceTokenizer
from etl.text.windows import begins_of_windows, join_windows, pack_windows, pieces_of, places_in_windows

TOKENS = list(SPECIAL_TOKENS) + list("甲乙丙丁谁，?") + ["cafe", "ab", "##c", "ss", "12"]


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(Vocabulary(TOKENS, "test"), do_lower_case=True)


def shown(tokenizer, text):
    ids, spans = pieces_of(tokenizer, text)
    assert ids.dtype == spans.dtype == np.int32
    return [(tokenizer.vocabulary.tokens[index], text[begin:end]) for index, (begin, end) in zip(ids, spans)]


@pytest.mark.parametrize("text, wanted", [
    ("", []),
    (" \t", []),
    ("甲ABC，乙", [("甲", "甲"), ("ab", "AB"), ("##c", "C"), ("，", "，"), ("乙", "乙")]),
    ("Cafe\u0301\u0323 Café", [("cafe", "Cafe\u0301\u0323"), ("cafe", "Café")]),
    ("甲\u0301乙", [("甲", "甲\u0301"), ("乙", "乙")]),
    ("a\u200bb\u00adc\u200b甲", [("ab", "a\u200bb"), ("##c", "c"), ("甲", "甲")]),
    ("xyz甲", [("[UNK]", "xyz"), ("甲", "甲")]),
    ("👨\u200d👩甲", [("[UNK]", "👨\u200d👩"), ("甲", "甲")]),
    ("\U00020000\U00010400", [("[UNK]", "\U00020000"), ("[UNK]", "\U00010400")]),
    ("\u0301甲\0\ufffd", [("甲", "甲")]),
    (" \U0001d165\u302e ", [("[UNK]", "\U0001d165\u302e")]),       # marks that NFD puts the other way round
])
def test_each_piece_has_its_characters(tokenizer, text, wanted):
    assert shown(tokenizer, text) == wanted


def test_marks_that_are_kept_stand_for_themselves():
    tokenizer = WordPieceTokenizer(Vocabulary(TOKENS + ["e", "##\u0301"], "test"), do_lower_case=False)
    assert shown(tokenizer, "e\u0301甲") == [("e", "e"), ("##\u0301", "\u0301"), ("甲", "甲")]


def packed(tokenizer, question, text, *args):
    return [(" ".join(tokenizer.vocabulary.tokens[index] for index in window.input_ids),
             "".join(map(str, window.segment_ids)), [tuple(span) for span in window.spans.tolist()])
            for window in pack_windows(tokenizer, question, pieces_of(tokenizer, text), *args)]


def test_windows_overlap_behind_the_question(tokenizer):
    assert packed(tokenizer, "谁？", " 甲乙丙丁", 7, 1, 1) == [
        ("[CLS] 谁 [SEP] 甲 乙 丙 [SEP]", "0001111", [(0, 0)] * 3 + [(1, 2), (2, 3), (3, 4), (0, 0)]),
        ("[CLS] 谁 [SEP] 丙 丁 [SEP]", "000111", [(0, 0)] * 3 + [(3, 4), (4, 5), (0, 0)])]


def test_windows_without_a_question(tokenizer):
    assert packed(tokenizer, None, "甲乙丙", 4, 1, 1) == [
        ("[CLS] 甲 乙 [SEP]", "0000", [(0, 0), (0, 1), (1, 2), (0, 0)]),
        ("[CLS] 乙 丙 [SEP]", "0000", [(0, 0), (1, 2), (2, 3), (0, 0)])]


def test_a_text_without_tokens_has_one_window(tokenizer):
    assert packed(tokenizer, "谁", " ", 8, 1, 2) == [("[CLS] 谁 [SEP] [SEP]", "0001", [(0, 0)] * 4)]


def test_exactly_full_and_one_more():
    assert list(begins_of_windows(0, 3, 2)) == list(begins_of_windows(3, 3, 2)) == [0]
    assert list(begins_of_windows(4, 3, 2)) == list(begins_of_windows(5, 3, 2)) == [0, 2]
    assert list(begins_of_windows(6, 3, 2)) == [0, 2, 4]


def test_windows_without_room(tokenizer):
    with pytest.raises(ValueError,
                       match="doc_stride must be below 4, .* a window of 8 .* max_query_length 1; got 5"):
        pack_windows(tokenizer, "谁", pieces_of(tokenizer, "甲"), 8, 5, 1)


def test_where_a_piece_stands_in_each_window(tokenizer):
    windows = pack_windows(tokenizer, "谁", pieces_of(tokenizer, "甲乙丙丁"), 7, 1, 1)
    assert [[window.token_of(piece) for piece in range(4)] for window in windows] == [
        [3, 4, 5, None], [None, None, 3, 4]]


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 12), st.data())
def test_windows_cover_the_text_and_none_is_idle(length, size, data):
    stride = data.draw(st.integers(1, size))
    windows = [range(length)[begin:begin + size] for begin in begins_of_windows(length, size, stride)]
    assert sorted({place for window in windows for place in window}) == list(range(length))
    assert all(len(window) == size for window in windows[:-1]) and (len(windows[-1]) > 0 or length == 0)
    assert length <= size or len(windows) == -(-(length - size) // stride) + 1


def test_the_window_that_shows_most_around_a_token():
    windows, numbers = places_in_windows(5, 3, 1)
    assert windows.tolist() == [0, 0, 0, 1, 1] and numbers.tolist() == [0, 1, 2, 1, 2]
    assert [part.tolist() for part in places_in_windows(3, 3, 2)] == [[0, 0, 0], [0, 1, 2]]
    assert [part.size for part in places_in_windows(0, 3, 2)] == [0, 0]


def test_what_windows_know_becomes_what_is_known_of_the_text():
    assert join_windows([np.arange(3), np.arange(10, 13)], 3, 1).tolist() == [0, 1, 2, 11, 12]
    assert join_windows([np.zeros((0, 2))], 3, 1).shape == (0, 2)


@given(st.integers(0, 40), st.integers(1, 12), st.data())
def test_each_token_stands_in_its_window_as_far_from_the_edges_as_it_can(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    begins = list(begins_of_windows(length, size, size - overlap))
    for token, (window, number) in enumerate(zip(*places_in_windows(length, size, overlap))):
        assert begins[window] + number == token and number < size
        margins = {begin: min(token - begin if begin else length,
                              begin + size - 1 - token if begin != begins[-1] else length)
                   for begin in begins if begin <= token < begin + size}
        assert max(margins.values()) <= 1 + margins[begins[window]]
