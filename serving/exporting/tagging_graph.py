"""The graph that is served of a model that labels entities:

    text ─► windows with the characters of their tokens ─► scores of tags ─► those of the text's tokens ─►
    the best legal sequence of tags ─► entities

What is computed from the scores on is what `estimator.finetuning.tag_decoding` does, in plain TensorFlow
operations.
"""
from typing import Any, Dict, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.finetuning import tag_decoding
from estimator.finetuning.tag_decoding import OUT
from estimator.model import heads, host_kernels, modeling
from estimator.weights.model_folder import ModelFolder
from serving.entity_lists import TAG
from serving.exporting.graph_tokenization import GraphTokenizer, GraphWindows
from serving.exporting.reading_graph import Tensors, in_parts, slices
from serving.version_files import MAX_ENTITIES


def tag(model: ModelFolder, tokenizer: GraphTokenizer, text: tf.Tensor) -> Tensors:
    """The entities of a batch of texts, string [batch], of any length.

    Returns:
      count: int32 [batch], how many a text has; of each the first MAX_ENTITIES, and nothing, "" or 0, behind
      them, [batch, MAX_ENTITIES]: text and label, string, start and end, int32, its characters, and score,
      float, the mean probability of its tokens' tags.
    """
    assert model.tagging is not None
    size, overlap = model.max_seq_length - 2, model.tagging.doc_stride
    windows = tokenizer.windows(None, text, model.max_seq_length, overlap, 0)
    scores, spans = joined(_scores_of_windows(model, windows), windows, size, overlap)
    moves = tag_decoding.moves_of(len(model.labels))
    transitions = tf.constant(moves.transitions)
    if model.tagging.crf:
        transitions += heads.crf_transitions(len(model.labels))
    tags = best_tags(scores, windows.lengths, moves.starts, transitions)
    return entities(model, text, tags, scores, spans)


def joined(scores: tf.Tensor, windows: GraphWindows, size: int, overlap: int) -> Tuple[tf.Tensor, tf.Tensor]:
    """What windows.join_windows does, for a batch: float [batch, longest, tags] and int32 [batch, longest,
    2]; what stands behind a text's end is any value.

    Args:
      scores: float [windows, length, tags], of all tokens of the windows.
      windows: of the texts.
      size, overlap: tokens of a text that a window holds, and that two have in common.
    """
    stride = size - overlap
    numbers = tf.range(tf.maximum(tf.reduce_max(windows.lengths), 1))
    of_window = tf.minimum(
        tf.maximum(numbers - (overlap + 1) // 2, 0) // stride, windows.counts[:, tf.newaxis] - 1
    )
    rows = of_window + tf.cumsum(windows.counts, exclusive=True)[:, tf.newaxis]
    columns = 1 + numbers - of_window * stride
    columns = tf.where_v2(numbers < windows.lengths[:, tf.newaxis], columns, 0)
    places = tf.stack([rows, columns], axis=2)
    return tf.gather_nd(scores, places), tf.gather_nd(windows.spans, places)


def best_tags(scores: tf.Tensor, lengths: tf.Tensor, starts: np.ndarray, transitions: tf.Tensor) -> tf.Tensor:
    """What tag_decoding.best_tags does: int32 [batch, length].

    Args:
      scores: float [batch, length, tags], length at least 1.
      lengths: int32 [batch].
      starts, transitions: see tag_decoding.Moves.
    """
    count, batch, length = len(starts), tf.shape(scores)[0], tf.shape(scores)[1]
    small = tf.uint8 if count <= 256 else tf.int32     # what came before is kept for each place of the batch
    identity = tf.tile(tf.range(count)[tf.newaxis], [batch, 1])

    def step(place: tf.Tensor, best: tf.Tensor, before: tf.TensorArray) -> Tuple[Any, ...]:
        best -= tf.reduce_max(best, axis=1, keepdims=True)
        ways = best[:, :, tf.newaxis] + transitions
        is_in = (place < lengths)[:, tf.newaxis]
        came_from = tf.where_v2(is_in, tf.argmax(ways, axis=1, output_type=tf.int32), identity)
        best = tf.where_v2(is_in, tf.reduce_max(ways, axis=1) + tf.gather(scores, place, axis=1), best)
        return place + 1, best, before.write(place, tf.cast(came_from, small))

    def step_back(place: tf.Tensor, tag: tf.Tensor, tags: tf.TensorArray) -> Tuple[Any, ...]:
        came_from = tf.gather_nd(before.read(place), tf.stack([tf.range(batch), tag], axis=1))
        return place - 1, tf.cast(came_from, tf.int32), tags.write(place, tag)

    _, best, before = tf.while_loop(
        lambda place, *_: place < length, step,
        (1, scores[:, 0] + starts, tf.TensorArray(small, length)),
        parallel_iterations=1, back_prop=False)
    _, tag, tags = tf.while_loop(
        lambda place, *_: place > 0, step_back,
        (length - 1, tf.argmax(best, axis=1, output_type=tf.int32), tf.TensorArray(tf.int32, length)),
        parallel_iterations=1, back_prop=False)
    found = tf.transpose(tags.write(0, tag).stack())
    return tf.where_v2(tf.range(length) < lengths[:, tf.newaxis], found, OUT)


def entities(
    model: ModelFolder, text: tf.Tensor, tags: tf.Tensor, scores: tf.Tensor, spans: tf.Tensor
) -> Tensors:
    """What tag_decoding.entities_of does, for a batch; returns what `tag` does.

    Args:
      text: string [batch].
      tags, scores, spans: [batch, length, …].
    """
    is_begin = tf.equal(tags % 2, 1)
    is_inside = (tags > 0) & ~is_begin
    is_end = (tags > 0) & ~tf.pad(is_inside[:, 1:], [[0, 0], [0, 1]])
    begins, ends, tokens = (tf.cast(tf.where(chosen), tf.int32) for chosen in (is_begin, is_end, tags > 0))
    of_text = begins[:, 0]
    scores = tf.gather_nd(scores, tokens)
    weights = tf.exp(scores - tf.reduce_max(scores, axis=1, keepdims=True))
    numbers = tf.range(tf.shape(tokens)[0])
    chosen = tf.gather_nd(weights, tf.stack([numbers, tf.gather_nd(tags, tokens)], axis=1))
    probabilities = chosen / tf.reduce_sum(weights, axis=1)
    of_entity = tf.cumsum(tf.cast(tf.gather_nd(is_begin, tokens), tf.int32)) - 1
    start, end = tf.gather_nd(spans, begins)[:, 0], tf.gather_nd(spans, ends)[:, 1]
    found = {
        "text": (slices(text, of_text, start, end), ""),
        "label": (
            tf.gather([label.encode("utf-8") for label in model.labels], tf.gather_nd(tags, begins) // 2),
            "",
        ),
        "start": (start, 0),
        "end": (end, 0),
        "score": (tf.math.segment_mean(probabilities, of_entity), 0.0),
    }
    batch, num_found = tf.size(text), tf.size(of_text)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(of_text), of_text, batch)
    numbers = tf.range(num_found) - tf.gather(tf.cumsum(counts, exclusive=True), of_text)
    given = tf.where(numbers < MAX_ENTITIES)[:, 0]
    slots = tf.tensor_scatter_nd_update(
        tf.fill([batch, MAX_ENTITIES], num_found),
        tf.gather(tf.stack([of_text, numbers], axis=1), given),
        tf.cast(given, tf.int32),
    )
    return {
        "count": counts,
        **{
            name: tf.gather(tf.concat([values, [nothing]], axis=0), slots)
            for name, (values, nothing) in found.items()
        },
    }


def build(model: ModelFolder, tokenizer: GraphTokenizer) -> Dict[str, Any]:
    """Builds the graph and returns its SignatureDef by name."""
    text = tf.placeholder(tf.string, [None], "text")
    return {TAG: tf.saved_model.predict_signature_def({"text": text}, tag(model, tokenizer, text))}


def _scores_of_windows(model: ModelFolder, windows: GraphWindows) -> tf.Tensor:
    """float [windows, longest, tags]."""
    num_windows, longest = tf.shape(windows.input_ids)[0], tf.shape(windows.input_ids)[1]
    count = tag_decoding.num_tags(len(model.labels))

    def compute(of_part: slice) -> tf.Tensor:
        mask = windows.input_mask[of_part]
        length = tf.reduce_max(tf.reduce_sum(mask, axis=1))
        ids, mask, segments = (
            values[of_part, :length]
            for values in (windows.input_ids, windows.input_mask, windows.segment_ids)
        )
        encoder_output = modeling.build_encoder(
            model.config, ids, mask, segments, skip_padding=True, kernels=host_kernels.SERVING
        )
        logits = heads.tags(model.config, encoder_output, len(model.labels)).logits
        return tf.pad(logits, [[0, 0], [0, longest - length], [0, 0]])

    return tf.reshape(in_parts(compute, num_windows, longest * count), [num_windows, longest, count])
