import pytest

from etl.text.pairs import pack_pair
from etl.text.tokenization import SPECIAL_TOKENS, Vocabulary, WordPieceTokenizer
from serving.exporting.parity import TRICKY_TEXTS, Parity


@pytest.fixture(scope="module")
def compared():
    """A parity, and the tokenizer that it may be told to expect instead."""
    tokenizer = WordPieceTokenizer(Vocabulary(list(SPECIAL_TOKENS) + list("北京中文abc"), "test"), True)
    return Parity(tokenizer, 6), tokenizer


def test_nothing_differs(compared):
    parity, _ = compared
    assert parity.differing(TRICKY_TEXTS) == []
    assert parity.differing_pairs(list(zip(TRICKY_TEXTS, reversed(TRICKY_TEXTS)))) == []
    assert parity.differing([]) == []


def test_says_what_differs(compared):
    parity, tokenizer = compared
    parity._tokenizer = WordPieceTokenizer(tokenizer.vocabulary, do_lower_case=False)
    try:
        assert parity.differing(["中文", "中A", b"a\xff", b"A\xff"]) == ["中A", b"A\xff"]
        assert parity.differing_pairs([("中", "文"), ("中", "A"), ("A", "")]) == [("中", "A"), ("A", "")]
    finally:
        parity._tokenizer = tokenizer


def test_says_what_is_cut_otherwise(compared):
    parity, tokenizer = compared
    short, long = ("中", "文"), ("中文中文", "北京")
    assert len(pack_pair(tokenizer, *long, 7).input_ids) == 7
    parity._max_seq_length = 7
    try:
        assert parity.differing_pairs([short, long]) == [long]
    finally:
        parity._max_seq_length = 6
