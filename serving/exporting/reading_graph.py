"""The graphs that are served of models that read: a question and a passage → the answer and its place; a
question, a passage and candidates → the right one.

    question, passage ─► windows with the characters of their tokens ─► logits ─► best span ─► answer
    question, passage, candidates ─► a row for each candidate ─► scores ─► the best candidate

Where a vocabulary cannot run inside the graph, it takes ids and ends at the logits. What is computed from
them on is what `estimator.finetuning.span_decoding` and `choices` do, in plain TensorFlow operations, with
the same rule for equal scores.
"""
from typing import Any, Callable, Dict, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data.candidates import BLANK
from estimator.finetuning.span_decoding import TIE
from estimator.model import heads, host_kernels, modeling
from estimator.model.kinds import SPANS
from estimator.weights.model_folder import ModelFolder
from serving.exporting.graph_tokenization import GraphTokenizer, GraphWindows
from serving.version_files import MAX_CANDIDATES

READ, CHOOSE = "read", "choose"
IDS = ("input_ids", "input_mask", "segment_ids")
AT_ONCE = 16                                   # windows, or candidates, that the encoder computes at once
LOW = np.float32(np.finfo(np.float32).min)
_PLACES = 1 << 24                              # more than a text has characters; float32 counts up to it
_NO_PLACE = np.int64(np.iinfo(np.int64).max)

Tensors = Dict[str, tf.Tensor]


def read(model: ModelFolder, tokenizer: GraphTokenizer, question: tf.Tensor, passage: tf.Tensor) -> Tensors:
    """The answers to a batch of questions, string [batch] each, on passages of any length.

    Returns:
      answer: string [batch], a part of the passage, "" for none; start, end: int32 [batch], its characters;
      score: float [batch], the sum of its logits; null_score: that of no answer. For a passage without tokens
      both scores are those of no answer.
    """
    settings = model.reading
    assert settings is not None
    windows = tokenizer.windows(question, passage, model.max_seq_length, settings.doc_stride,
                                settings.max_query_length)
    best = _best_of_windows(model, windows, settings.max_answer_length)         # [windows, 4]
    batch = tf.size(question)
    score, begin, end = best_of_texts(best[:, 0], tf.cast(best[:, 1:3], tf.int64), windows.of_text, batch)
    null_score = tf.math.unsorted_segment_min(best[:, 3], windows.of_text, batch)
    has_answer = score > LOW
    score = tf.where_v2(has_answer, score, null_score)
    if settings.null_score_diff_threshold is not None:
        has_answer &= ~(null_score - score > np.float32(settings.null_score_diff_threshold))
    begin, end = (tf.where_v2(has_answer, place, tf.zeros_like(place)) for place in (begin, end))
    answer = slices(passage, tf.range(batch), begin, end)
    return {"answer": answer, "start": begin, "end": end, "score": score, "null_score": null_score}


def best_spans(start_logits: tf.Tensor, end_logits: tf.Tensor, spans: tf.Tensor,
               max_answer_length: int) -> Tuple[tf.Tensor, tf.Tensor]:
    """The best answer in each window; among equal scores the one that begins, then ends, first.

    Args:
      start_logits, end_logits: float [windows, length].
      spans: see GraphWindows.
      max_answer_length: tokens of an answer.

    Returns:
      float [windows], LOW where there is none; int32 [windows, 2], begin and end in characters.
    """
    length = tf.shape(start_logits)[1]
    is_text = spans[:, :, 1] > spans[:, :, 0]
    beyond = [[0, 0], [0, max_answer_length]]
    lasts = tf.range(length)[:, tf.newaxis] + tf.range(max_answer_length)       # [length, answers]
    valid = is_text[:, :, tf.newaxis] & tf.gather(tf.pad(is_text, beyond), lasts, axis=1)
    scores = start_logits[:, :, tf.newaxis] + tf.gather(tf.pad(end_logits, beyond), lasts, axis=1)
    scores = tf.where_v2(valid, scores, LOW)                                    # [windows, length, answers]
    best = tf.reduce_max(scores, axis=[1, 2])
    is_best = valid & (scores >= best[:, tf.newaxis, tf.newaxis] - TIE)
    begins, ends = tf.cast(spans[:, :, 0], tf.int64), tf.cast(spans[:, :, 1], tf.int64)
    places = begins[:, :, tf.newaxis] * _PLACES + tf.gather(tf.pad(ends, beyond), lasts, axis=1)
    first = tf.reduce_min(tf.where_v2(is_best, places, _NO_PLACE), axis=[1, 2])
    is_first = is_best & tf.equal(places, first[:, tf.newaxis, tf.newaxis])
    score = tf.reduce_max(tf.where_v2(is_first, scores, LOW), axis=[1, 2])
    return score, tf.cast(tf.stack([first // _PLACES, first % _PLACES], axis=1), tf.int32)


def best_of_texts(scores: tf.Tensor, places: tf.Tensor, of_text: tf.Tensor,
                  batch: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """For each text the best answer of its windows, by the same rule.

    Args:
      scores, places: float [windows] and int64 [windows, 2]; see `best_spans`.
      of_text: see GraphWindows.
      batch: the number of texts.

    Returns:
      float [batch], LOW where there is none; int32 [batch] begin and end.
    """
    best = tf.math.unsorted_segment_max(scores, of_text, batch)
    is_best = scores >= tf.gather(best - TIE, of_text)
    keys = places[:, 0] * _PLACES + places[:, 1]
    first = tf.math.unsorted_segment_min(tf.where_v2(is_best, keys, _NO_PLACE), of_text, batch)
    is_first = is_best & tf.equal(keys, tf.gather(first, of_text))
    score = tf.math.unsorted_segment_max(tf.where_v2(is_first, scores, LOW), of_text, batch)
    return score, tf.cast(first // _PLACES, tf.int32), tf.cast(first % _PLACES, tf.int32)


def choose(model: ModelFolder, tokenizer: GraphTokenizer, question: tf.Tensor, passage: tf.Tensor,
           candidates: tf.Tensor) -> Tensors:
    """The best of each question's candidates.

    Args:
      question, passage: string [batch]; the passage may be "".
      candidates: string [batch, number]; "" where a question has fewer. Candidates that repeat the first one
        count as absent, too: TensorFlow Serving pads a request of one row with it, to the longest of the
        batch. A request of several rows it pads with its first row's first: such a request must be
        MAX_CANDIDATES wide.

    Returns:
      answer: string [batch]; choice: int32 [batch], its number; count: int32 [batch], the number of the last
      present candidate, from 1 on; probabilities: float [batch, MAX_CANDIDATES], 0 for absent ones.
    """
    batch, most = tf.shape(candidates)[0], tf.shape(candidates)[1]
    checks = [
        tf.debugging.assert_less_equal(most,
                                       MAX_CANDIDATES,
                                       message="a question must have at most %d candidates" %
                                       MAX_CANDIDATES),
        tf.debugging.assert_equal(tf.size(question),
                                  batch,
                                  message="question and candidates must have the same number of rows"),
        tf.debugging.assert_equal(tf.size(passage),
                                  batch,
                                  message="passage and candidates must have the same number of rows")
    ]
    with tf.control_dependencies(checks):
        numbers = tf.range(most)
    is_candidate = tf.not_equal(candidates, "") & (
        tf.equal(numbers, 0) | tf.not_equal(candidates, candidates[:, :1]))
    each = tf.where(is_candidate)                                               # [rows, 2]
    before, gap, after = _around_gap(question)

    def compute(of_part: slice) -> tf.Tensor:
        rows = each[of_part]
        of_question = rows[:, 0]
        parts = [tf.gather(before, of_question), tf.gather(gap, of_question), tf.gather_nd(candidates, rows),
                 tf.gather(after, of_question)]
        ids, mask, segments = tokenizer.pack_pair(tf.gather(passage, of_question), tf.strings.join(parts),
                                                  model.max_seq_length, keeps_end_of_b=True)
        encoded = modeling.build_encoder(model.config, ids, mask, segments, skip_padding=True,
                                         kernels=host_kernels.SERVING,
                                         output_positions=tf.zeros_like(ids[:, :1]))
        return heads.choices(model.config, encoded).logits

    low = tf.fill([batch, MAX_CANDIDATES], LOW)
    scores = tf.tensor_scatter_nd_update(low, each, in_parts(compute, tf.shape(each)[0], 1)[:, 0])
    is_best = scores >= tf.reduce_max(scores, axis=1, keepdims=True) - TIE
    choice = tf.argmax(tf.cast(is_best, tf.int32), axis=1, output_type=tf.int32)        # the first one
    probabilities = tf.where_v2(scores > LOW, tf.nn.softmax(scores), tf.zeros_like(scores))
    count = tf.reduce_max(tf.where_v2(is_candidate, numbers + 1, tf.zeros_like(numbers)), axis=1)
    answer = tf.gather_nd(candidates, tf.stack([tf.range(batch), choice], axis=1))
    return {"answer": answer, "choice": choice, "count": count, "probabilities": probabilities}


def of_ids(model: ModelFolder, input_ids: tf.Tensor, input_mask: tf.Tensor,
           segment_ids: tf.Tensor) -> Tensors:
    """What a model says of ids, integers [batch, seq_length], of windows or of candidates: start_logits and
    end_logits, float [batch, seq_length], low at padding; or scores, float [batch]."""
    read_positions = None if model.kind == SPANS else tf.zeros_like(input_ids[:, :1])
    encoded = modeling.build_encoder(model.config, input_ids, input_mask, segment_ids, skip_padding=True,
                                     kernels=host_kernels.SERVING, output_positions=read_positions)
    if model.kind == SPANS:
        found = heads.spans(model.config, encoded, input_mask)
        return {"start_logits": found.start_logits, "end_logits": found.end_logits}
    return {"scores": heads.choices(model.config, encoded).logits[:, 0]}


def build(model: ModelFolder, tokenizer: GraphTokenizer) -> Dict[str, Any]:
    """Builds the graph of a model of this kind and returns its SignatureDef by name."""
    question, passage = (tf.placeholder(tf.string, [None], name) for name in ("question", "passage"))
    if model.kind == SPANS:
        inputs = {"question": question, "passage": passage}
        name, outputs = READ, read(model, tokenizer, question, passage)
    else:
        candidates = tf.placeholder(tf.string, [None, None], "candidates")
        inputs = {"question": question, "passage": passage, "candidates": candidates}
        name, outputs = CHOOSE, choose(model, tokenizer, question, passage, candidates)
    return {name: tf.saved_model.predict_signature_def(inputs, outputs)}


def _around_gap(question: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What stands before a candidate in each question, between and behind it, as candidates.filled has it."""
    has_gap = tf.strings.regex_full_match(question, r"\C*%s\C*" % BLANK)
    before = tf.strings.regex_replace(question, r"%s\C*" % BLANK, "", replace_global=False)
    after = tf.strings.regex_replace(question, r"^\C*?%s+" % BLANK, "", replace_global=False)
    nothing = tf.fill(tf.shape(question), "")
    return before, tf.where_v2(has_gap, nothing, " "), tf.where_v2(has_gap, after, nothing)


def _best_of_windows(model: ModelFolder, windows: GraphWindows, max_answer_length: int) -> tf.Tensor:
    """Of each window the best answer's score, begin and end, and the score of no answer: float [windows,
    4]."""
    def compute(of_part: slice) -> tf.Tensor:
        mask = windows.input_mask[of_part]
        length = tf.reduce_max(tf.reduce_sum(mask, axis=1))
        ids, mask, segments, spans = (values[of_part, :length] for values in (
            windows.input_ids, windows.input_mask, windows.segment_ids, windows.spans))
        encoded = modeling.build_encoder(model.config, ids, mask, segments, skip_padding=True,
                                         kernels=host_kernels.SERVING)
        found = heads.spans(model.config, encoded)
        score, places = best_spans(found.start_logits, found.end_logits, spans, max_answer_length)
        null_score = found.start_logits[:, 0] + found.end_logits[:, 0]
        return tf.concat([score[:, tf.newaxis],
                          tf.cast(places, tf.float32), null_score[:, tf.newaxis]],
                         axis=1)

    return in_parts(compute, tf.shape(windows.input_ids)[0], 4)


def in_parts(compute: Callable[[slice], tf.Tensor], num_rows: tf.Tensor, width: int) -> tf.Tensor:
    """`compute` of AT_ONCE rows after the other, so that memory is bounded however long passages are: float
    [num_rows, width].

    Args:
      compute: takes a slice of the rows; returns float [rows, width].
    """
    num_parts = (num_rows + AT_ONCE - 1) // AT_ONCE

    def part(number: tf.Tensor, found: tf.TensorArray) -> Tuple[tf.Tensor, tf.TensorArray]:
        values = compute(slice(number * AT_ONCE, (number + 1) * AT_ONCE))
        return number + 1, found.write(number, tf.reshape(values, [-1]))

    found = tf.TensorArray(tf.float32, num_parts, infer_shape=False, element_shape=[None])
    _, found = tf.while_loop(lambda number, _: number < num_parts, part, [0, found], parallel_iterations=1,
                             back_prop=False)
    return tf.reshape(found.concat(), [num_rows, width])


def slices(texts: tf.Tensor, of_text: tf.Tensor, begins: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """Parts of texts, string [n]: of the text of that number, int32 [n], the characters from begin to end,
    int32 [n]; bytes that are no UTF-8 count as nothing."""
    characters = tf.strings.unicode_decode(tf.strings.join([texts, " "]), "UTF-8", errors="ignore")
    firsts = tf.gather(tf.cast(characters.row_starts(), tf.int32), of_text) + begins
    lengths = ends - begins
    places = tf.repeat(firsts - tf.cumsum(lengths, exclusive=True), lengths) + tf.range(
        tf.reduce_sum(lengths))
    chosen = tf.RaggedTensor.from_row_lengths(tf.gather(characters.values, places),
                                              tf.cast(lengths, tf.int64),
                                              validate=False)
    return tf.strings.unicode_encode(chosen, "UTF-8")
