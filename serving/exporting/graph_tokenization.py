"""Raw text → model input inside the graph, using only stock TensorFlow operations.

`GraphTokenizer` gives the same ids as `etl.text.tokenization.WordPieceTokenizer` for every string: its tables
are made at export by calling that tokenizer's own functions on every code point. The steps for a batch, with
all texts in one flat row:

    bytes → code points → symbols (normalized characters, as numbers) → words → pieces → ids

A symbol is either a word by itself (Han, punctuation, white space), whose id is one look-up, or part of a
word: then the longest vocabulary entry from every position is found at once, by walking a trie until no
position can continue, and each word is split piece by piece.
"""
import functools
import re
import unicodedata
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from etl.common.command_line import UserError
from etl.text import pairs, windows
from etl.text.tokenization import (HAN_RANGES, MAX_CHARS_PER_WORD, WHITE_SPACE, Vocabulary,
                                   WordPieceTokenizer, is_dropped, is_punctuation, split_words)

NUM_CODE_POINTS = 0x110000
PAGE_SIZE = 128
SIGMA, FINAL_SIGMA = 0x3A3, 0x3C2
# Symbols that are not vocabulary characters. NO_SYMBOL pads rows, and stops a walk through the trie.
NO_SYMBOL, SPACE, UNKNOWN, UNKNOWN_ALONE, FIRST_CHARACTER = range(5)
# A character's role next to a Σ: str.lower looks past transparent ones for a cased one.
OTHER, CASED, TRANSPARENT, IS_MARK = range(4)  # the last is added where a character goes with its accent
NO_PIECE, PIECE, FAILURE = range(3)
NO_TOKEN = -1

_WHITE_SPACE = re.compile("[%s]" % WHITE_SPACE)


class GraphTokenizer:
    """`tokenizer` inside a graph. Holds 1 to 2 MB of tables, which become constants of the graph that uses
    them.

    Raises UserError for a vocabulary with combining marks that Unicode may reorder among each other.
    """

    def __init__(self, tokenizer: WordPieceTokenizer) -> None:
        self._vocabulary = tokenizer.vocabulary
        self._do_lower_case = tokenizer.do_lower_case
        characters = sorted(set("".join(tokenizer.vocabulary.tokens)) | {"#"})
        if tokenizer.do_lower_case:
            _require_one_order_of_marks(characters)
        self._symbols = _number_symbols(characters, tokenizer.vocabulary)
        self._pages = _paged(_code_point_table(self._symbols.of_code_point, tokenizer.do_lower_case))
        self._trie = _build_trie(tokenizer.vocabulary, self._symbols.of_code_point)

    def tokens(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Token ids of each text, int32 [batch, (n)]. texts: string [batch] in UTF-8; invalid bytes are
        dropped."""
        code_points = _decode(texts)
        tokens = self._tokenize(code_points)
        return tf.RaggedTensor.from_value_rowids(tokens.ids,
                                                 tokens.texts,
                                                 nrows=code_points.nrows(),
                                                 validate=False)

    def pack_pair(self, text_a: tf.Tensor, text_b: tf.Tensor, max_seq_length: int,
                  keeps_end_of_b: bool = False) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Does what `etl.text.pairs.pack_pair` does, for a batch, padded to its longest row.

        Args:
          text_a, text_b: string [batch]; an empty text_b means there is none. InvalidArgumentError at run
            time if their numbers of elements differ.
          max_seq_length: pairs are truncated to it.
          keeps_end_of_b: as there.

        Returns:
          input_ids, input_mask, segment_ids: int32 [batch, longest].
        """
        pairs.check_length(max_seq_length)
        one_for_each = tf.debugging.assert_equal(
            tf.size(text_a), tf.size(text_b),
            message="text_a and text_b must have the same number of elements")
        with tf.control_dependencies([one_for_each]):
            batch = tf.size(text_a)
        code_points = _decode(tf.concat([text_a, text_b], axis=0))
        has_b = tf.cast(code_points.row_lengths()[batch:] > 1, tf.int32)    # more than the " " of _decode
        ids, texts, _ = self._tokenize(code_points)
        lengths = tf.math.unsorted_segment_sum(tf.ones_like(ids), texts, 2 * batch)
        budget = max_seq_length - 2 - has_b                                 # from here as pairs.truncate_pair
        kept_b = tf.minimum(lengths[batch:], tf.maximum(budget - lengths[:batch], budget // 2))
        kept_a = tf.minimum(lengths[:batch], budget - kept_b)
        ends_a = kept_a + 2                                                 # after [CLS] a [SEP]
        ends = ends_a + kept_b + has_b
        longest = tf.maximum(tf.reduce_max(ends), 2)                        # 2: for a batch of 0

        # A row holds both texts in sequence: a token's position is its text's start plus its index in the
        # text.
        rows = tf.range(batch) * longest
        begins = tf.concat([rows + 1, rows + ends_a], axis=0)
        numbers = tf.range(tf.size(ids)) - tf.gather(tf.cumsum(lengths, exclusive=True), texts)
        if keeps_end_of_b:
            cut = tf.concat([tf.zeros([batch], tf.int32), lengths[batch:] - kept_b], axis=0)
            numbers -= tf.gather(cut, texts)
        kept = (numbers >= 0) & (numbers < tf.gather(tf.concat([kept_a, kept_b], axis=0), texts))
        places = numbers + tf.gather(begins, texts)
        cls, sep = tf.fill([batch], self._vocabulary.cls), tf.fill([2 * batch], self._vocabulary.sep)
        places = tf.concat([tf.boolean_mask(places, kept), rows, rows + ends_a - 1, rows + ends - 1], axis=0)
        input_ids = tf.tensor_scatter_nd_update(
            tf.fill([batch * longest], self._vocabulary.pad), places[:, tf.newaxis],
            tf.concat([tf.boolean_mask(ids, kept), cls, sep], axis=0))
        input_mask, in_segment_a = (tf.cast(tf.range(longest) < end[:, tf.newaxis], tf.int32)
                                    for end in (ends, ends_a))
        return tf.reshape(input_ids, [batch, longest]), input_mask, input_mask - in_segment_a

    def windows(self, question: Optional[tf.Tensor], text: tf.Tensor, max_seq_length: int, overlap: int,
                max_query_length: int) -> "GraphWindows":
        """What `etl.text.windows.pack_windows` does, for a batch, padded to its longest.

        Args:
          question, text: string [batch]. InvalidArgumentError at run time when one has more elements than the
            other. question None: there is none.
          max_seq_length, overlap, max_query_length: as there.
        """
        windows.check_windows(max_seq_length, overlap, max_query_length, question is not None)
        batch, texts = tf.size(text), text
        if question is not None:
            one_for_each = tf.debugging.assert_equal(
                tf.size(question), batch,
                message="question and passage must have as many elements as each other")
            with tf.control_dependencies([one_for_each]):
                texts = tf.concat([question, text], axis=0)
        code_points = _decode(texts)
        tokens = self._tokenize(code_points, with_spans=True)
        all_lengths = tf.math.unsorted_segment_sum(tf.ones_like(tokens.ids), tokens.texts, tf.size(texts))
        all_firsts = tf.cumsum(all_lengths, exclusive=True)                 # of each text's tokens
        num_questions = tf.size(texts) - batch
        lengths, firsts = all_lengths[num_questions:], all_firsts[num_questions:]
        heads = tf.ones_like(lengths)                                       # [CLS]
        if question is not None:                                            # [CLS] question [SEP]
            heads += 1 + tf.minimum(all_lengths[:batch], max_query_length)
        capacity = max_seq_length - heads - 1
        stride = capacity - overlap
        beyond = tf.maximum(lengths - capacity, 0)
        counts = 1 + (beyond + stride - 1) // stride                        # as windows.begins_of_windows

        of_text = tf.repeat(tf.range(batch), counts)                        # [windows] from here on
        begins = (tf.range(tf.size(of_text)) -
                  tf.gather(tf.cumsum(counts, exclusive=True), of_text)) * tf.gather(stride, of_text)
        sizes = tf.minimum(tf.gather(capacity, of_text), tf.gather(lengths, of_text) - begins)
        heads = tf.gather(heads, of_text)
        columns = tf.range(tf.maximum(tf.reduce_max(heads + sizes) + 1, 3))  # 3: for a batch of 0
        heads, ends = heads[:, tf.newaxis], (heads + sizes)[:, tf.newaxis]
        in_question = (columns > 0) & (columns < heads - 1)
        in_text = (columns >= heads) & (columns < ends)
        places = tf.where_v2(in_question, tf.gather(all_firsts[:batch], of_text)[:, tf.newaxis] + columns - 1,
                             (tf.gather(firsts, of_text) + begins)[:, tf.newaxis] + columns - heads)
        places = tf.where_v2(in_question | in_text, places, tf.size(tokens.ids))
        ids = tf.gather(tf.concat([tokens.ids, [self._vocabulary.pad]], axis=0), places)
        ids = tf.where_v2(tf.equal(columns, heads - 1) | tf.equal(columns, ends), self._vocabulary.sep, ids)
        ids = tf.where_v2(tf.equal(columns, 0), self._vocabulary.cls, ids)
        mask = tf.cast(columns <= ends, tf.int32)
        spans = tf.concat([tokens.spans, [[0, 0]]], axis=0)
        spans = tf.gather(spans, tf.where_v2(in_text, places, tf.size(tokens.ids)))
        segments = tf.zeros_like(mask) if question is None else mask * tf.cast(columns >= heads, tf.int32)
        return GraphWindows(ids, mask, segments, spans, of_text, counts, lengths)

    def _tokenize(self, code_points: tf.RaggedTensor, with_spans: bool = False) -> "_Tokens":
        """The tokens of all texts, one behind the other."""
        with tf.name_scope("tokenize"):
            symbols, sources = self._normalize(code_points)
            texts = tf.gather(code_points.value_rowids(), sources)
            alone = tf.gather(self._symbols.stands_alone, symbols)
            starts = alone | tf.concat([[True], alone], axis=0)[:-1]
            words = tf.cumsum(tf.cast(starts, tf.int64)) - 1
            word_lengths = tf.math.segment_sum(tf.ones_like(words), words)
            too_long = tf.gather(word_lengths, words) > MAX_CHARS_PER_WORD
            matched = ~alone & ~too_long
            nodes = self._longest_matches(tf.where_v2(alone, NO_SYMBOL, symbols), starts, matched)
            outcome = self._hop(nodes, starts & matched, alone)
            unknown = too_long | tf.equal(tf.gather(tf.math.segment_max(outcome, words), words), FAILURE)
            pieces = tf.where_v2(tf.equal(outcome, PIECE), tf.gather(self._trie.ids, nodes), NO_TOKEN)
            unk = tf.where_v2(starts, self._vocabulary.unk, NO_TOKEN)
            ids = tf.where_v2(alone, tf.gather(self._symbols.ids, symbols), tf.where_v2(unknown, unk, pieces))
            kept = ids > NO_TOKEN
            spans = tf.zeros([0, 2], tf.int32)
            if with_spans:
                numbers = tf.range(tf.size(symbols, out_type=tf.int64))
                of_piece = numbers + tf.gather(self._trie.lengths, nodes) - 1
                of_word = tf.gather(tf.math.segment_max(numbers, words), words)
                lasts = tf.where_v2(alone, numbers, tf.where_v2(unknown, of_word, of_piece))
                spans = self._spans(code_points, tf.boolean_mask(sources, kept),
                                    tf.gather(sources, tf.boolean_mask(lasts, kept)))
            return _Tokens(tf.boolean_mask(ids, kept), tf.boolean_mask(texts, kept), spans)

    def _spans(self, code_points: tf.RaggedTensor, firsts: tf.Tensor, lasts: tf.Tensor) -> tf.Tensor:
        """Begin and end in their text, int32 [n, 2], of tokens that stand for the code points from `firsts`
        to `lasts`, int64 [n]; marks that are stripped belong to what they follow."""
        ends = lasts + 1
        if self._do_lower_case:
            values = code_points.values
            page = tf.gather(self._pages.page_of, values // PAGE_SIZE)
            is_mark = tf.gather(self._pages.rows[:, -1] >= IS_MARK, page * PAGE_SIZE + values % PAGE_SIZE)
            others = tf.where(~is_mark)[:, 0]                               # the " " of each text is one
            ends = tf.gather(others, tf.searchsorted(others, ends, out_type=tf.int64))
        begins_of_texts = tf.gather(code_points.row_starts(), tf.gather(code_points.value_rowids(), firsts))
        return tf.cast(tf.stack([firsts - begins_of_texts, ends - begins_of_texts], axis=1), tf.int32)

    def _normalize(self, code_points: tf.RaggedTensor) -> Tuple[tf.Tensor, tf.Tensor]:
        """Symbols, int32 [n], and the code point that each is of, int64 [n]. The last symbol of each text is
        SPACE."""
        values = code_points.values
        page = tf.gather(self._pages.page_of, values // PAGE_SIZE)
        table = tf.gather(self._pages.rows, page * PAGE_SIZE + values % PAGE_SIZE)
        symbols, context = table[:, :-1], table[:, -1] % IS_MARK
        if self._do_lower_case:
            sigmas = _final_sigmas(values, context)
            final = tf.fill(tf.shape(sigmas), self._symbols.of_code_point[FINAL_SIGMA])
            symbols = tf.tensor_scatter_nd_update(symbols, tf.stack([sigmas, tf.zeros_like(sigmas)], axis=1),
                                                  final)
        present = tf.where(tf.not_equal(symbols, NO_SYMBOL))
        return tf.gather_nd(symbols, present), present[:, 0]

    def _longest_matches(self, symbols: tf.Tensor, starts: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
        """The deepest trie node, int64 [n], reached by the symbols from each active position on; 0
        elsewhere."""
        trie = self._trie
        keys = tf.constant(trie.keys)

        def go_on(position: tf.Tensor, node: tf.Tensor, depth: tf.Tensor, deepest: tf.Tensor) -> tf.Tensor:
            return tf.size(position) > 0

        def one_symbol(position: tf.Tensor, node: tf.Tensor, depth: tf.Tensor,
                       deepest: tf.Tensor) -> Tuple[tf.Tensor, ...]:
            key = node * trie.num_symbols + tf.cast(tf.gather(symbols, position + depth), tf.int64)
            edge = tf.searchsorted(keys, key, out_type=tf.int64)
            found = tf.equal(tf.gather(keys, edge), key)
            position, node = tf.boolean_mask(position, found), tf.boolean_mask(edge, found) + 1
            return position, node, depth + 1, tf.tensor_scatter_nd_update(deepest, position[:, None], node)

        position = tf.where(active)[:, 0]
        node = tf.where_v2(tf.gather(starts, position), np.int64(0), np.int64(trie.continuation))
        loop = (position, node, tf.constant(0, tf.int64), tf.zeros_like(symbols, tf.int64))
        any_length = tf.TensorShape([None])
        return tf.while_loop(go_on, one_symbol, loop, back_prop=False,
                             shape_invariants=(any_length, any_length, tf.TensorShape([]), any_length))[-1]

    def _hop(self, nodes: tf.Tensor, starts: tf.Tensor, alone: tf.Tensor) -> tf.Tensor:
        """Splits all words at once, piece by piece: int32 [n], PIECE where one begins, FAILURE where none
        can."""
        lengths = tf.gather(self._trie.lengths, nodes)

        def go_on(position: tf.Tensor, outcome: tf.Tensor) -> tf.Tensor:
            return tf.size(position) > 0

        def one_piece(position: tf.Tensor, outcome: tf.Tensor) -> Tuple[tf.Tensor, ...]:
            length = tf.gather(lengths, position)
            matched = length > 0
            outcome = tf.tensor_scatter_nd_update(outcome, position[:, None],
                                                  tf.where_v2(matched, PIECE, FAILURE))
            following = position + length
            return tf.boolean_mask(following, matched & ~tf.gather(alone, following)), outcome

        loop = (tf.where(starts)[:, 0], tf.fill(tf.shape(nodes), NO_PIECE))
        any_length = tf.TensorShape([None])
        return tf.while_loop(go_on, one_piece, loop, back_prop=False,
                             shape_invariants=(any_length, any_length))[-1]


class GraphWindows(NamedTuple):
    """Windows of a batch of texts, padded with 0 to the longest of them.

    Attributes:
      input_ids, input_mask, segment_ids: int32 [windows, longest].
      spans: int32 [windows, longest, 2]; see windows.Window.
      of_text: int32 [windows], ascending: the text of each.
      counts, lengths: int32 [batch]: windows and tokens of each text.
    """
    input_ids: tf.Tensor
    input_mask: tf.Tensor
    segment_ids: tf.Tensor
    spans: tf.Tensor
    of_text: tf.Tensor
    counts: tf.Tensor
    lengths: tf.Tensor


class _Tokens(NamedTuple):
    """Tokens of several texts, one behind the other. ids: int32 [n]; texts: int64 [n], the text of each;
    spans:
    int32 [n, 2], or [0, 2] where nobody asked."""
    ids: tf.Tensor
    texts: tf.Tensor
    spans: tf.Tensor


def _decode(texts: tf.Tensor) -> tf.RaggedTensor:
    """Code points, int32 [batch, (n)], as bytes.decode("utf-8", "ignore") gives them, each text followed by a
    " ".

    The space keeps the operation from misreading a text that ends within a character, and ends the last
    word.
    """
    return tf.strings.unicode_decode(tf.strings.join([texts, " "]), "UTF-8", errors="ignore")


def _final_sigmas(code_points: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
    """Positions, int64 [k], of each Σ that str.lower turns into ς: one after, but not before, a cased
    character."""
    opaque = tf.where(tf.not_equal(context, TRANSPARENT))[:, 0]
    cased = tf.equal(tf.gather(context, opaque), CASED)
    after_cased = tf.concat([[False], cased], axis=0)[:-1]
    before_cased = tf.concat([cased, [False]], axis=0)[1:]
    is_sigma = tf.equal(tf.gather(code_points, opaque), SIGMA)
    return tf.boolean_mask(opaque, is_sigma & after_cased & ~before_cased)


class _Symbols(NamedTuple):
    of_code_point: np.ndarray               # int32 [NUM_CODE_POINTS]: of a normalized character
    stands_alone: np.ndarray                # bool [num_symbols]
    ids: np.ndarray                         # int32 [num_symbols]: of the symbol as a word, NO_TOKEN for SPACE


class _Pages(NamedTuple):
    """A table indexed by code point that stores equal pages once."""
    page_of: np.ndarray                        # int32 [NUM_CODE_POINTS / PAGE_SIZE]
    rows: np.ndarray                           # int32 [num_pages · PAGE_SIZE, columns]


class _Trie(NamedTuple):
    """Edge i, key `parent · num_symbols + symbol`, leads to node i + 1. Node 0 is the root; each node is
    a prefix."""
    keys: np.ndarray                    # int64 [num_edges + 1], ascending; the last is larger than any key
    ids: np.ndarray                     # int32 [num_nodes]: of the longest entry that is a prefix of the node
    lengths: np.ndarray                 # int64 [num_nodes]: its characters without ##; 0 if there is none
    continuation: int                   # the node of "##", where pieces within a word begin
    num_symbols: int


def _require_one_order_of_marks(characters: Sequence[str]) -> None:
    """Raises UserError for marks of several classes: NFD sorts combining marks by class, the graph does not.

    Otherwise it makes no difference: most marks (Mn) are stripped; of the other 20, those of one class keep
    their order, and a word with one that the vocabulary lacks is [UNK] in any order.
    """
    marks = [char for char in characters
             if unicodedata.combining(char) and unicodedata.category(char) != "Mn"]
    if len({unicodedata.combining(char) for char in marks}) > 1:
        raise UserError(
            "vocabulary: combining marks of several classes cannot be tokenized inside the graph: %s"
            % " ".join("U+%04X" % ord(char) for char in marks))


def _number_symbols(characters: Sequence[str], vocabulary: Vocabulary) -> _Symbols:
    alone = _alone_code_points()
    of_code_point = np.where(alone, UNKNOWN_ALONE, UNKNOWN).astype(np.int32)
    codes = [ord(char) for char in characters]
    of_code_point[codes] = np.arange(len(codes)) + FIRST_CHARACTER
    reserved_alone = [symbol in (SPACE, UNKNOWN_ALONE) for symbol in range(FIRST_CHARACTER)]
    reserved_ids = [vocabulary.unk if symbol == UNKNOWN_ALONE else NO_TOKEN
                    for symbol in range(FIRST_CHARACTER)]
    ids = reserved_ids + [vocabulary.ids.get(char, vocabulary.unk) for char in characters]
    return _Symbols(of_code_point, np.concatenate([reserved_alone, alone[codes]]), np.array(ids, np.int32))


def _code_point_table(symbol_of: np.ndarray, do_lower_case: bool) -> np.ndarray:
    """int32 [NUM_CODE_POINTS, k + 1]: the symbols of each code point's normal form, then its role next to
    a Σ."""
    forms, context = _normal_forms(do_lower_case)
    symbols = np.where(forms == 0, NO_SYMBOL, symbol_of[forms])
    blanks = [ord(char) for char in _assigned() if _WHITE_SPACE.match(char)]
    symbols[blanks] = [SPACE] + [NO_SYMBOL] * (symbols.shape[1] - 1)
    return np.column_stack([symbols, context]).astype(np.int32)


def _paged(table: np.ndarray) -> _Pages:
    columns = table.shape[1]
    numbers: Dict[bytes, int] = {}
    page_of = [numbers.setdefault(page.tobytes(), len(numbers))
               for page in table.reshape(-1, PAGE_SIZE * columns)]
    return _Pages(np.array(page_of, np.int32),
                  np.frombuffer(b"".join(numbers), np.int32).reshape(-1, columns))


def _build_trie(vocabulary: Vocabulary, symbol_of: np.ndarray) -> _Trie:
    """Numbers prefixes by length, then parent, then last symbol, so that edges are created in order."""
    num_symbols = int(symbol_of.max()) + 1
    entries = set(vocabulary.ids) | {"##"}
    nodes, keys, longest = {"": 0}, [], [(NO_TOKEN, 0)]        # longest: id and length, by node
    for depth in range(1, max(map(len, entries)) + 1):
        edges = {nodes[entry[:depth - 1]] * num_symbols + int(symbol_of[ord(entry[depth - 1])]): entry[:depth]
                 for entry in entries if len(entry) >= depth}
        for key, prefix in sorted(edges.items()):
            keys.append(key)
            nodes[prefix] = len(keys)
            if prefix == "##":
                longest.append((NO_TOKEN, 0))
            elif prefix in vocabulary.ids:
                longest.append((vocabulary.ids[prefix], len(prefix) - (2 if prefix.startswith("##") else 0)))
            else:
                longest.append(longest[nodes[prefix[:-1]]])
    ids, lengths = zip(*longest)
    return _Trie(np.array(keys + [np.iinfo(np.int64).max], np.int64), np.array(ids, np.int32),
                 np.array(lengths, np.int64), nodes["##"], num_symbols)


@functools.lru_cache(maxsize=None)
def _assigned() -> List[str]:
    """The characters that a rule may affect. The other 970,000 are unassigned or private and stay
    unchanged."""
    return [char for char in map(chr, range(NUM_CODE_POINTS))
            if unicodedata.category(char) not in ("Cn", "Co", "Cs")]


@functools.lru_cache(maxsize=None)
def _alone_code_points() -> np.ndarray:
    """bool [NUM_CODE_POINTS]: is_punctuation or is_han."""
    alone = np.zeros(NUM_CODE_POINTS, np.bool_)
    alone[[ord(char) for char in _assigned() if is_punctuation(char)]] = True
    for first, last in HAN_RANGES:
        alone[first:last + 1] = True
    return alone


@functools.lru_cache(maxsize=None)
def _normal_forms(do_lower_case: bool) -> Tuple[np.ndarray, np.ndarray]:
    """The tokenizer's normal form of each code point: int32 [NUM_CODE_POINTS, k] code points, 0 for none;
    its role next to a Σ."""
    chars = _assigned()
    forms = ["".join(word for word, _ in split_words(char, do_lower_case)) for char in chars]
    width = max(map(len, forms))
    filled = "".join(form.ljust(width, "\0") for form in forms).encode("utf-32-le")
    codes = [ord(char) for char in chars]
    table = np.zeros([NUM_CODE_POINTS, width], np.int32)
    table[:, 0] = np.arange(NUM_CODE_POINTS)
    table[codes] = np.frombuffer(filled, "<i4").reshape(-1, width)
    context = np.full(NUM_CODE_POINTS, OTHER, np.int32)
    context[codes] = [_context(char) for char in chars]
    context[windows.is_mark()] += IS_MARK
    return table, context


def _context(char: str) -> int:
    if is_dropped(char):
        return TRANSPARENT
    if (char + "Σ").lower().endswith("ς"):
        return CASED
    return TRANSPARENT if ("A" + char + "Σ").lower().endswith("ς") else OTHER
