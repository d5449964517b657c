"""Compares the tokenizer inside the graph with the Python tokenizer: for every text they must give the same
ids."""
from typing import Any, Iterable, List, Sequence, Tuple, Union

import numpy as np
import tensorflow.compat.v1 as tf

from etl.text import pairs
from etl.text.tokenization import WordPieceTokenizer
from serving.exporting.graph_tokenization import GraphTokenizer

Text = Union[str, bytes]                       # bytes may be invalid UTF-8

# Edge cases: lower-casing in context, marks, full-width forms, dropped characters, text that looks like our
# own syntax.
TRICKY_TEXTS: Tuple[Any, ...] = (
    "", " ", "北京ABC", "普通话。ＡＢＣ，ａｂｃ１２３", "Café, naïve ÀÉÎÕÜ", "İstanbul ǅ ﬁ ẞ",
    "ΟΔΥΣΣΕΥΣ Σ ΑΣ. ΑΣ\u0301Α ΑΣ\u00adΒ ΣΑ中Σ", "한국어 각 \u1100\u1161\u11a8",
    "e\u0301\u0323 \u302e\U0001d165", "\ufeff\u200b\u0000\ufffd\x85a\x1cb", "a\tb\r\nc\u3000d\u2028e",
    "[CLS] [MASK] ##ing #", "$1,000.50 a@b.c ^_^ `x`", "“引号”…—《书》",
    "👍🏽👨\u200d👩 \U0001f1e8\U0001f1f3", "\U00020000\uf900\U0002f800", "हिन्दी ไทย עברית العربية",
    "x" * 200, "x" * 201, "字" * 300, b"\xe5\x8c\x97\xe4\xba", b"\xc0\x80a\xed\xa0\x80b\xff\xf4\x90\x80\x80")


class Parity:
    """A tokenizer and its `twin` in a separate graph. Raises UserError for a vocabulary that cannot have
    one."""

    def __init__(self, tokenizer: WordPieceTokenizer, max_seq_length: int) -> None:
        self._tokenizer, self._max_seq_length = tokenizer, max_seq_length
        self._session = tf.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            self.twin = GraphTokenizer(tokenizer)
            self._text_a, self._text_b = tf.placeholder(tf.string, [None]), tf.placeholder(tf.string, [None])
            self._tokens = self.twin.tokens(self._text_a)
            self._packed = self.twin.pack_pair(self._text_a, self._text_b, max_seq_length)

    def differing(self, texts: Iterable[Text]) -> List[Text]:
        """Those of `texts` for which the two give different ids."""
        texts = list(texts)
        found = self._session.run(self._tokens, {self._text_a: texts})
        rows = np.split(found.values, found.row_splits[1:-1])
        return [text for text, row in zip(texts, rows)
                if not np.array_equal(row, self._tokenizer.encode(as_str(text)).ids)]

    def differing_pairs(self, given: Sequence[Tuple[Text, Text]]) -> List[Tuple[Text, Text]]:
        """Those of the pairs that the two pack, truncate or number differently."""
        texts_a, texts_b = zip(*given)
        rows = zip(given, *self._session.run(self._packed, {self._text_a: texts_a, self._text_b: texts_b}))
        return [pair for pair, input_ids, input_mask, segment_ids in rows
                if not self._is_wanted(pair, input_ids, input_mask, segment_ids)]

    def _is_wanted(self, pair: Tuple[Text, Text], *found: np.ndarray) -> bool:
        packed = pairs.pack_pair(self._tokenizer, as_str(pair[0]), as_str(pair[1]), self._max_seq_length)
        wanted = (packed.input_ids, np.ones_like(packed.input_ids), packed.segment_ids)
        length = len(packed.input_ids)
        return all(np.array_equal(row[:length], values) and not row[length:].any()
                   for row, values in zip(found, wanted))


def as_str(text: Text) -> str:
    return text.decode("utf-8", "ignore") if isinstance(text, bytes) else text
