"""The graphs that are served of models that read: a question and a passage → the answer and its place; a
question, a passage and candidates → the right one.

    question, passage ─► windows with the characters of their tokens ─► logits ─► best span of all windows ─►
    answer question, passage, candidates ─► a row for each candidate ─► scores ─► the best candidate

What is computed from the logits on is what `estimator.finetuning.span_decoding` and `choices` do, in plain
TensorFlow operations, with the same rule for equal scores.
"""
from typing import Any, Callable, Dict, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data.candidates import BLANK
from estimator.finetuning.span_decoding import TIE
from estimator.model import heads, host_kernels, modeling
from estimator.weights.model_folder import SPANS, ModelFolder
from serving.exporting.graph_tokenization import GraphTokenizer, GraphWindows

READ, CHOOSE = "read", "choose"
AT_ONCE = 16                                   # windows, or candidates, that the encoder computes at once
MAX_CANDIDATES = 64                            # of a question; outputs are as wide, whatever a batch holds
_LOW = np.float32(np.finfo(np.float32).min)
_PLACES = 1 << 32                              # more than a text has characters

Tensors = Dict[str, tf.Tensor]


def read(model: ModelFolder, tokenizer: GraphTokenizer, question: tf.Tensor, passage: tf.Tensor) -> Tensors:
    """The answers to a batch of questions, string [batch] each, on passages of any length.

    Returns:
      answer: string [batch], a part of the passage, "" for none; start, end: int32 [batch], its characters;
        score:
      float [batch], the sum of its logits; null_score: that of no answer. Of a passage without tokens both
      scores are those of no answer.
    """
    settings = model.reading
    if settings is None:
        raise ValueError("model has no reading: its kind is %s" % model.kind)
    windows = tokenizer.windows(question, passage, model.max_seq_length, settings.doc_stride,
                                settings.max_query_length)
    start_logits, end_logits = _span_logits(model, windows)
    batch = tf.size(question)
    score, begin, end = best_spans(start_logits, end_logits, windows.spans, windows.of_text, batch,
                                   settings.max_answer_length)
    null_score = tf.math.unsorted_segment_min(start_logits[:, 0] + end_logits[:, 0], windows.of_text, batch)
    has_answer = score > _LOW
    score = tf.where_v2(has_answer, score, null_score)
    if settings.null_score_diff_threshold is not None:
        has_answer &= ~(null_score - score > np.float32(settings.null_score_diff_threshold))
    begin, end = (tf.where_v2(has_answer, place, tf.zeros_like(place)) for place in (begin, end))
    return {"answer": _slices(passage, begin, end), "start": begin, "end": end, "score": score,
            "null_score": null_score}


def best_spans(start_logits: tf.Tensor, end_logits: tf.Tensor, spans: tf.Tensor, of_text: tf.Tensor,
               batch: tf.Tensor, max_answer_length: int) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Of each text the best span of all its windows, of equal ones the one that begins, then ends, first.

    Args:
      start_logits, end_logits: float [windows, length].
      spans, of_text: see GraphWindows.
      batch: how many texts there are.
      max_answer_length: tokens of an answer.

    Returns:
      float [batch], the lowest number where there is none; int32 [batch] begin and end, in characters.
    """
    length = tf.shape(start_logits)[1]
    is_text = spans[:, :, 1] > spans[:, :, 0]
    beyond = [[0, 0], [0, max_answer_length]]
    lasts = tf.range(length)[:, tf.newaxis] + tf.range(max_answer_length)                  # [length, answers]
    valid = is_text[:, :, tf.newaxis] & tf.gather(tf.pad(is_text, beyond), lasts, axis=1)
    scores = start_logits[:, :, tf.newaxis] + tf.gather(tf.pad(end_logits, beyond), lasts, axis=1)
    scores = tf.where_v2(valid, scores, _LOW)                                   # [windows, length, answers]
    best = tf.math.unsorted_segment_max(tf.reduce_max(scores, axis=[1, 2]), of_text, batch)
    is_best = valid & (scores >= tf.gather(best - TIE, of_text)[:, tf.newaxis, tf.newaxis])
    begins, ends = tf.cast(spans[:, :, 0], tf.int64), tf.cast(spans[:, :, 1], tf.int64)
    places = begins[:, :, tf.newaxis] * _PLACES + tf.gather(tf.pad(ends, beyond), lasts, axis=1)
    none = tf.constant(np.iinfo(np.int64).max, tf.int64)
    first = tf.math.unsorted_segment_min(tf.reduce_min(tf.where_v2(is_best, places, none), axis=[1, 2]),
                                         of_text, batch)
    is_first = is_best & tf.equal(places, tf.gather(first, of_text)[:, tf.newaxis, tf.newaxis])
    score = tf.math.unsorted_segment_max(tf.reduce_max(tf.where_v2(is_first, scores, _LOW), axis=[1, 2]),
                                         of_text, batch)
    return score, tf.cast(first // _PLACES, tf.int32), tf.cast(first % _PLACES, tf.int32)


def choose(model: ModelFolder, tokenizer: GraphTokenizer, question: tf.Tensor, passage: tf.Tensor,
           candidates: tf.Tensor) -> Tensors:
    """The best of each question's candidates.

    Args:
      question, passage: string [batch]; the passage may be "".
      candidates: string [batch, number]; "" where a question has no more. What repeats the first one counts
        as absent, too: so TensorFlow Serving fills up rows of different lengths.

    Returns:
      answer: string [batch]; choice: int32 [batch], its number; count: int32 [batch], candidates up to the
        last
      present one; probabilities: float [batch, MAX_CANDIDATES], 0 for absent ones.
    """
    batch, most = tf.shape(candidates)[0], tf.shape(candidates)[1]
    checks = [
        tf.debugging.assert_less_equal(most,
                                       MAX_CANDIDATES,
                                       message="a question must have at most %d candidates" %
                                       MAX_CANDIDATES),
        tf.debugging.assert_equal(tf.size(question),
                                  batch,
                                  message="question and candidates must have as many rows as each other")
    ]
    with tf.control_dependencies(checks):
        numbers = tf.range(most)
    is_candidate = tf.not_equal(candidates, "") & (tf.equal(numbers, 0)
                                                  | tf.not_equal(candidates, candidates[:, :1]))
    each = tf.where(is_candidate)                                               # [rows, 2]
    of_question = each[:, 0]
    before, gap, after = (tf.gather(part, of_question) for part in _around_gap(question))
    filled = tf.strings.join([before, gap, tf.gather_nd(candidates, each), after])
    packed = tokenizer.pack_pair(tf.gather(passage, of_question), filled, model.max_seq_length,
                                 keeps_end_of_b=True)
    low = tf.fill([batch, MAX_CANDIDATES], _LOW)
    scores = tf.tensor_scatter_nd_update(low, each, _choice_scores(model, *packed))
    choice = tf.argmax(scores, axis=1, output_type=tf.int32)
    probabilities = tf.where_v2(scores > _LOW, tf.nn.softmax(scores), tf.zeros_like(scores))
    count = tf.reduce_max(tf.where_v2(is_candidate, numbers + 1, tf.zeros_like(numbers)), axis=1)
    answer = tf.gather_nd(candidates, tf.stack([tf.range(batch), choice], axis=1))
    return {"answer": answer, "choice": choice, "count": count, "probabilities": probabilities}


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


def _span_logits(model: ModelFolder, windows: GraphWindows) -> Tuple[tf.Tensor, tf.Tensor]:
    """Logits of begin and end, float [windows, longest] each; 0 at padding."""
    def compute(ids: tf.Tensor, mask: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
        encoded = modeling.build_encoder(model.config, ids, mask, segments, skip_padding=True,
                                         kernels=host_kernels.SERVING)
        found = heads.spans(model.config, encoded)
        return tf.stack([found.start_logits, found.end_logits], axis=2)

    logits = _in_parts(compute, windows.input_ids, windows.input_mask, windows.segment_ids, by_position=True)
    return logits[:, :, 0], logits[:, :, 1]


def _choice_scores(model: ModelFolder, ids: tf.Tensor, mask: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
    """The score of each row, float [rows]."""
    def compute(ids: tf.Tensor, mask: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
        encoded = modeling.build_encoder(model.config,
                                         ids,
                                         mask,
                                         segments,
                                         skip_padding=True,
                                         kernels=host_kernels.SERVING,
                                         output_positions=tf.zeros_like(ids[:, :1]))
        return heads.choices(model.config, encoded).logits

    return _in_parts(compute, ids, mask, segments, by_position=False)[:, 0]


def _in_parts(compute: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor], ids: tf.Tensor,
              mask: tf.Tensor, segments: tf.Tensor, by_position: bool) -> tf.Tensor:
    """`compute` of AT_ONCE rows after the other, each part as long as its longest row: so memory is bounded,
    however long passages are.

    Args:
      compute: of ids, mask and segments [rows, length].
      ids, mask, segments: int32 [rows, longest].
      by_position: whether `compute` gives float [rows, length, 2], here padded with 0 to the longest; else it
        gives [rows, 1].
    """
    rows, longest = tf.shape(ids)[0], tf.shape(ids)[1]
    num_parts = (rows + AT_ONCE - 1) // AT_ONCE

    def part(number: tf.Tensor, found: tf.TensorArray) -> Tuple[tf.Tensor, tf.TensorArray]:
        of_part = slice(number * AT_ONCE, (number + 1) * AT_ONCE)
        length = tf.reduce_max(tf.reduce_sum(mask[of_part], axis=1))
        values = compute(*(values[of_part, :length] for values in (ids, mask, segments)))
        if by_position:
            values = tf.pad(values, [[0, 0], [0, longest - length], [0, 0]])
        return number + 1, found.write(number, tf.reshape(values, [-1]))

    found = tf.TensorArray(tf.float32, num_parts, infer_shape=False, element_shape=[None])
    _, found = tf.while_loop(lambda number, _: number < num_parts, part, [0, found], parallel_iterations=1,
                             back_prop=False)
    return tf.reshape(found.concat(), tf.stack([rows, longest, 2]) if by_position else [rows, 1])


def _slices(texts: tf.Tensor, begins: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """Characters of each text, from begin to end, int32 [batch]; bytes that are no UTF-8 count as nothing."""
    characters = tf.strings.unicode_decode(tf.strings.join([texts, " "]), "UTF-8", errors="ignore")
    firsts = tf.cast(characters.row_starts(), tf.int32) + begins
    lengths = ends - begins
    places = tf.repeat(firsts - tf.cumsum(lengths, exclusive=True), lengths) + tf.range(
        tf.reduce_sum(lengths))
    chosen = tf.RaggedTensor.from_row_lengths(tf.gather(characters.values, places),
                                              tf.cast(lengths, tf.int64),
                                              validate=False)
    return tf.strings.unicode_encode(chosen, "UTF-8")
