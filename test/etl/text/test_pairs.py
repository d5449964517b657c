import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.text.pairs import pack_pair, truncate_pair
from etl.text.tokenization import SPECIAL_TOKENS, Vocabulary, WordPieceTokenizer

LENGTHS = st.integers(0, 40)


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(Vocabulary(list(SPECIAL_TOKENS) + list("你好吗我"), "test"), do_lower_case=True)


def truncate_one_by_one(length_a, length_b, budget):
    while length_a + length_b > budget:
        if length_a > length_b:
            length_a -= 1
        else:
            length_b -= 1
    return length_a, length_b


@given(LENGTHS, LENGTHS, LENGTHS)
def test_closed_form_is_the_loop(length_a, length_b, budget):
    assert truncate_pair(length_a, length_b, budget) == truncate_one_by_one(length_a, length_b, budget)


def packed(tokenizer, text_a, text_b, max_seq_length):
    input_ids, segment_ids = pack_pair(tokenizer, text_a, text_b, max_seq_length)
    assert input_ids.dtype == segment_ids.dtype == np.int32
    return " ".join(tokenizer.vocabulary.tokens[index] for index in input_ids), segment_ids.tolist()


def test_pair(tokenizer):
    assert packed(tokenizer, "你好", "好", 8) == ("[CLS] 你 好 [SEP] 好 [SEP]", [0, 0, 0, 0, 1, 1])


@pytest.mark.parametrize("text_b", [None, ""])
def test_no_second_text(tokenizer, text_b):
    assert packed(tokenizer, "你好", text_b, 8) == ("[CLS] 你 好 [SEP]", [0, 0, 0, 0])
    assert packed(tokenizer, "你好吗我", text_b, 5) == ("[CLS] 你 好 吗 [SEP]", [0] * 5)


def test_second_text_without_tokens_is_still_a_second_text(tokenizer):
    assert packed(tokenizer, "你", " ", 8) == ("[CLS] 你 [SEP] [SEP]", [0, 0, 0, 1])


def test_longer_side_is_truncated_at_its_end(tokenizer):
    assert packed(tokenizer, "你好吗我", "好", 6) == ("[CLS] 你 好 [SEP] 好 [SEP]", [0, 0, 0, 0, 1, 1])
    assert packed(tokenizer, "你好吗", "我好吗", 6) == ("[CLS] 你 好 [SEP] 我 [SEP]", [0, 0, 0, 0, 1, 1])


def test_exactly_full_and_one_less(tokenizer):
    assert packed(tokenizer, "你好", "好吗", 7)[0] == "[CLS] 你 好 [SEP] 好 吗 [SEP]"
    assert packed(tokenizer, "你好", "好吗", 3)[0] == "[CLS] [SEP] [SEP]"


def test_empty_texts(tokenizer):
    assert packed(tokenizer, "", "", 8) == ("[CLS] [SEP]", [0, 0])
    assert packed(tokenizer, "", "好", 8) == ("[CLS] [SEP] 好 [SEP]", [0, 0, 1, 1])


def test_length_without_room_is_refused(tokenizer):
    with pytest.raises(ValueError, match="max_seq_length must be at least 3, got 2"):
        pack_pair(tokenizer, "你", "好", 2)
