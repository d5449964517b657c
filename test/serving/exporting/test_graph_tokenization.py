import functools
import unicodedata

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.common.command_line import UserError
from etl.text.pairs import pack_pair
from etl.text.tokenization import SPECIAL_TOKENS, Vocabulary, WordPieceTokenizer, is_han
from serving.exporting.graph_tokenization import GraphTokenizer
from serving.exporting.parity import TRICKY_TEXTS

LETTERS = ("abcdeiosxyzß0123456789" + "ABCÀÉé" + "αβοςσδυΣΑ" + "наст" + "\u1100\u1161\u11a8\u1112\u11ab"
           + "हनद\u093f" + "\u302e\u302f")
HAN = "北京普通话引号字书你好吗中國\u8c48\U00020000"
PUNCTUATION = "!#$%,.[]^_`~。，“”《》…—？！"
PIECES = ["ab", "abc", "bc", "ing", "the", "##ab", "##abc", "##ing", "##bcd", "##" + "x" * 30, "x" * 7, "σς",
          "##ος",
          "naive", "cafe"]
QUIRKS = ["", "a b", "\u2028", "c\u2028", "a.", "##a中", "##", "#", "##中", "ab", "[unused1]", "²", "Ａ",
          "ａ", "１", "👍", "Å", "각"]

MARKS = "\u0301\u0323\u0345\u20dd\u302e\u302f\u093f\u0903"
IGNORABLE = "'’·\u00ad\u200b\u200d\ufeff:^`\u02b0"
DROPPED = "\x00\x01\x1c\x7f\x85\ufffd\u202e\U000e0001"
BLANKS = " \t\n\r\u00a0\u1680\u2003\u2028\u3000"
SPECIAL_CASES = "ΣΣΣσςİıǅﬁẞßÅΆΐ각힣한ＡＢａ１≮\u037e\u0387\u1fef豈\uf900\U0002f800\U0001d15e\U0001d160𝐀👍🏽"
CHARACTERS = st.one_of(st.sampled_from("abcxΑΣ中"),
                       st.sampled_from(LETTERS + HAN + PUNCTUATION + SPECIAL_CASES),
                       st.sampled_from(MARKS + IGNORABLE + DROPPED + BLANKS),
                       st.characters(blacklist_categories=["Cs"]))
TEXTS = st.text(CHARACTERS, max_size=15)
CHUNKS_OF_BYTES = st.one_of(st.binary(max_size=4), TEXTS.map(lambda text: text.encode("utf-8")),
                            st.sampled_from([b"\xe5\x8c\x97", b"\xe5\x8c", b"\xf0\x9f\x91", b"\xed\xa0\x80",
                                             b"\xc0\x80", b"\xf4\x90\x80\x80"]))
ASSIGNED = [char for char in map(chr, range(0x110000))
            if unicodedata.category(char) not in ("Cn", "Co", "Cs")]
UNASSIGNED = [char for char in map(chr, range(0, 0x110000, 61)) if unicodedata.category(char) in ("Cn", "Co")]

RAW_TEXTS = st.lists(CHUNKS_OF_BYTES, max_size=3).map(b"".join)


def small_vocabulary():
    singles = list(LETTERS + HAN + PUNCTUATION)
    return Vocabulary(list(SPECIAL_TOKENS) + singles + ["##" + char for char in singles] + PIECES + QUIRKS,
                      "test")


def full_vocabulary():
    """Every character there is, also inside a word if it can be, so that no mistake hides behind an [UNK]."""
    chars = [char for char in ASSIGNED if unicodedata.combining(char) not in (9, 216, 226)]
    return Vocabulary(list(SPECIAL_TOKENS) + chars + ["##" + char for char in chars if not is_han(char)],
                      "test")


class Compared:
    """A tokenizer and its twin in a graph of its own."""

    def __init__(self, vocabulary, do_lower_case):
        self.tokenizer = WordPieceTokenizer(vocabulary, do_lower_case)
        self.twin = GraphTokenizer(self.tokenizer)
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.given = tf.placeholder(tf.string, [None])
            self.found = self.twin.tokens(self.given)
        self.session = tf.Session(graph=self.graph)

    def in_graph(self, texts):
        found = self.session.run(self.found, {self.given: texts})
        return [found.values[begin:end].tolist()
                for begin, end in zip(found.row_splits, found.row_splits[1:])]

    def in_python(self, texts):
        return [self.tokenizer.encode(as_str(text)).ids.tolist() for text in texts]

    def check(self, texts):
        results = zip(texts, self.in_graph(texts), self.in_python(texts))
        assert [text for text, found, wanted in results if found != wanted] == []


def as_str(text):
    return text.decode("utf-8", "ignore") if isinstance(text, bytes) else text


@functools.lru_cache(maxsize=None)
def small(do_lower_case):
    return Compared(small_vocabulary(), do_lower_case)


@pytest.fixture(scope="module", params=[True, False], ids=["lower", "cased"])
def compared(request):
    return small(request.param)


def test_chinese_and_latin(compared):
    tokens = compared.tokenizer.vocabulary.tokens
    assert [tokens[index] for index in compared.in_graph(["北京abcing！"])[0]] == [
        "北", "京", "abc", "##ing", "！"]


def test_tricky_texts(compared):
    compared.check(list(TRICKY_TEXTS))


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(TEXTS, max_size=10))
def test_any_text(compared, texts):
    compared.check(texts)


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(RAW_TEXTS, max_size=6))
def test_any_bytes(compared, texts):
    compared.check(texts)


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(st.text("ΑαΣΣς中 .'\u00ad\u0301\u0345\x00Ⅰⓐ", max_size=8), min_size=10, max_size=30))
def test_final_sigma(compared, texts):
    compared.check(texts)


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.sampled_from(["a", "ab", "abc", "x" * 7, "각", "e\u0301",
                                        "\u00ad"]), min_size=1, max_size=9), length=st.integers(60, 420))
def test_long_words(compared, pieces, length):
    compared.check([("".join(pieces) * length)[:length], "".join(pieces)])


# Slow: the same without lower-casing; make check-parity compares both, and with other vocabularies, too.
@pytest.mark.parametrize("do_lower_case", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_code_point(do_lower_case):
    """Alone, inside a word, beside a Σ; of those without a meaning, which share their pages, one in 61."""
    compared = Compared(full_vocabulary(), do_lower_case)
    chars = ASSIGNED + UNASSIGNED
    places = ["a" + char if is_han(char) else "%s aΣ%sΣb" % (char, char) for char in chars]
    compared.check([" ".join(places[begin:begin + 32]) for begin in range(0, len(places), 32)])


def test_odd_batches(compared):
    assert compared.in_graph([]) == []
    assert compared.in_graph(["", " ", b"\xff\xfe", "\x00"]) == [[], [], [], []]
    assert compared.in_graph(["", "中", ""]) == compared.in_python(["", "中", ""])


@pytest.mark.parametrize("unit, count", [("x" * 10**6, 1), ("각" * 10**6, 1), ("Σ" * 10**6, 1), ("字", 10**6),
                                         ("abc" * 66 + " ", 5000)],
                         ids=["one word", "Hangul", "Σ", "Han", "words"])
def test_million_characters(compared, unit, count):
    found, = compared.in_graph([unit * count])  # a fraction of a second; hours, were it quadratic
    wanted = compared.in_python([unit])[0] if count > 1 else [compared.tokenizer.vocabulary.unk]
    assert found == wanted * count


def test_graph_is_lean_and_stock(compared):
    definition = compared.graph.as_graph_def()
    assert definition.ByteSize() < 2 << 20
    assert not [node.name for node in definition.node if "PyFunc" in node.op]


def test_vocabulary_without_inner_pieces():
    vocabulary = Vocabulary(list(SPECIAL_TOKENS) + ["a", "ab", "中"], "test")
    compared = Compared(vocabulary, True)
    assert compared.in_graph(["a ab aba 中ab"]) == [[5, 6, vocabulary.unk, 7,
                                                     6]] == compared.in_python(["a ab aba 中ab"])


def test_marks_that_unicode_may_reorder_are_refused():
    vocabulary = Vocabulary(list(SPECIAL_TOKENS) + ["a", "\u302e", "##\u1b44"], "test")
    with pytest.raises(UserError, match=r"combining marks of several classes .*: U\+1B44 U\+302E"):
        GraphTokenizer(WordPieceTokenizer(vocabulary, do_lower_case=True))
    GraphTokenizer(WordPieceTokenizer(vocabulary, do_lower_case=False))


@pytest.fixture(scope="module", params=[3, 4, 9, 64])
def packing(request, compared):
    with tf.Graph().as_default() as graph:
        given = tf.placeholder(tf.string, [None]), tf.placeholder(tf.string, [None])
        found = compared.twin.pack_pair(*given, max_seq_length=request.param)
    session = tf.Session(graph=graph)

    def pack(pairs):
        return session.run(found, dict(zip(given, ([pair[side] for pair in pairs] for side in (0, 1)))))
    return compared.tokenizer, request.param, pack


@settings(max_examples=25, deadline=None)
@given(pairs=st.lists(st.tuples(RAW_TEXTS, st.just(b"") | st.just(b"\xff") | RAW_TEXTS), min_size=1,
                      max_size=4))
def test_packs_as_python_does(packing, pairs):
    tokenizer, max_seq_length, pack = packing
    wanted = [pack_pair(tokenizer, as_str(a), as_str(b), max_seq_length) for a, b in pairs]
    longest = max(len(pair.input_ids) for pair in wanted)
    input_ids, input_mask, segment_ids = pack(pairs)
    assert input_ids.shape == input_mask.shape == segment_ids.shape == (len(pairs), longest)
    assert input_ids.dtype == input_mask.dtype == segment_ids.dtype == np.int32
    for row, pair in enumerate(wanted):
        rest = [0] * (longest - len(pair.input_ids))
        assert input_ids[row].tolist() == pair.input_ids.tolist() + rest
        assert input_mask[row].tolist() == [1] * len(pair.input_ids) + rest
        assert segment_ids[row].tolist() == pair.segment_ids.tolist() + rest


def test_packs_an_empty_batch(packing):
    for tensor in packing[-1]([]):
        assert tensor.shape == (0, 2)
