"""The serving graph: one path from tf.Example to probabilities, or to a regression's value, which a caller
may enter at three points.

    examples ─► text_a, text_b ─► input_ids, input_mask, segment_ids ─► probabilities, label, logits; or value
   (examples,   (serving_default,      (predict_ids; encode                 └► pooled, mean (embed)
    classify,    encode, embed)         ends here)
    regress)

A model that reads, or labels entities, has one entry, and a graph of its own (`reading_graph`, from text or
from ids; `tagging_graph`).

An entry point is a placeholder whose default is the output of the previous part, so that each part is in the
graph only once.
"""
from typing import Any, Dict, NamedTuple, Optional, Sequence, Union

import tensorflow.compat.v1 as tf

from estimator.model import heads, host_kernels, modeling
from estimator.model.kernels import STOCK, dimensions
from estimator.model.kinds import CLASSES, MULTI_LABEL, TAGS
from estimator.weights.model_folder import ModelFolder
from serving.exporting import reading_graph, tagging_graph
from serving.exporting.graph_tokenization import GraphTokenizer
from serving.exporting.reading_graph import IDS
from serving.label_rows import LABELS

DEFAULT, ENCODE, EMBED = "serving_default", "encode", "embed"         # from text
PREDICT_IDS = "predict_ids"
CLASSIFY, REGRESS, EXAMPLES = "classify", "regress", "examples"       # from serialized tf.Examples

Tensors = Dict[str, tf.Tensor]


class Answer(NamedTuple):
    """A classifier's outputs for a batch."""
    probabilities: tf.Tensor                   # float [batch, num_labels]
    label: tf.Tensor                           # string [batch], in UTF-8
    logits: tf.Tensor                          # float [batch, num_labels]


class Labelling(NamedTuple):
    """The outputs of several labels for a batch."""
    probabilities: tf.Tensor                   # float [batch, num_labels]
    logits: tf.Tensor                          # float [batch, num_labels]


class Number(NamedTuple):
    """A regression's output for a batch."""
    value: tf.Tensor                           # float [batch]


def build(model: ModelFolder, tokenizer: Optional[GraphTokenizer],
          thresholds: Sequence[float] = ()) -> Dict[str, Any]:
    """Builds the graph and returns its SignatureDefs by name; without a tokenizer there is only
    PREDICT_IDS. thresholds: of several labels, by label index."""
    predict = tf.saved_model.predict_signature_def
    if model.kind not in (CLASSES, MULTI_LABEL) and tokenizer is not None:
        return (tagging_graph if model.kind == TAGS else reading_graph).build(model, tokenizer)
    if tokenizer is None:
        ids = {name: tf.placeholder(tf.int32, [None, None], name) for name in IDS}
        if model.kind in (CLASSES, MULTI_LABEL):
            return {PREDICT_IDS: predict(ids, answer(model, **ids)._asdict())}
        masked = dict(ids, input_mask=_with_first(ids["input_mask"]))
        return {PREDICT_IDS: predict(ids, reading_graph.of_ids(model, **masked))}
    serialized = tf.placeholder(tf.string, [None], "examples")
    texts = _door(_parse(serialized), [None])
    packed = tokenizer.pack_pair(texts["text_a"], texts["text_b"], model.max_seq_length)
    ids = _door(dict(zip(IDS, packed)), [None, None])
    answered = answer(model, **ids)
    several = {LABELS: predict(texts, _chosen(model, answered.probabilities, thresholds))} if isinstance(
        answered, Labelling) else {}
    return {
        **several,
        DEFAULT: predict(texts, answered._asdict()),
        PREDICT_IDS: predict(ids, answered._asdict()),
        **_for_examples(model, serialized, answered),
        EXAMPLES: predict({"examples": serialized}, answered._asdict()),
        ENCODE: predict(texts, ids),
        EMBED: predict(texts, _embed(model, **ids)),
    }


def _for_examples(model: ModelFolder, serialized: tf.Tensor,
                  answered: Union[Answer, Labelling, Number]) -> Dict[str, Any]:
    """The signatures for the calls Classify and Regress. Of two classes, the number is the probability of the
    second."""
    regress = tf.saved_model.regression_signature_def
    if isinstance(answered, Number):
        return {REGRESS: regress(serialized, answered.value)}
    labels = tf.tile(_labels(model)[tf.newaxis], [tf.size(serialized), 1])
    classify = tf.saved_model.classification_signature_def
    found = {CLASSIFY: classify(serialized, labels, answered.probabilities)}
    if len(model.labels) == 2 and isinstance(answered, Answer):
        found[REGRESS] = regress(serialized, answered.probabilities[:, 1])
    return found


def answer(model: ModelFolder, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor,
           skip_padding: bool = True) -> Union[Answer, Labelling, Number]:
    """The classifier, several labels, or the regression, over ids, integers [batch, seq_length]; the last
    layer is computed for [CLS] only.

    `skip_padding` makes shapes depend on the batch; without it all are static if those of the ids are, and
    the ops are those that a device's compiler recognizes.
    """
    batch, _ = dimensions(input_ids)
    encoded = modeling.build_encoder(model.config, input_ids, _with_first(input_mask), segment_ids,
                                     skip_padding=skip_padding,
                              kernels=host_kernels.SERVING if skip_padding else STOCK,
                              output_positions=tf.zeros([batch, 1], tf.int32))
    if not model.labels:
        return Number(heads.regressor(model.config, encoded).predictions)
    if model.kind == MULTI_LABEL:
        several = heads.multi_label(model.config, encoded, len(model.labels))
        return Labelling(several.probabilities, several.logits)
    found = heads.classifier(model.config, encoded, len(model.labels))
    return Answer(found.probabilities, tf.gather(_labels(model), found.predictions), found.logits)


def _chosen(model: ModelFolder, probabilities: tf.Tensor, thresholds: Sequence[float]) -> Tensors:
    """The labels that reach their threshold, the likeliest first: count, int32 [batch], and of each text as
    many places as there are labels, "" and 0 behind the last: label, string, and score, float."""
    is_chosen = probabilities >= tf.constant(thresholds, tf.float32)
    ordered = tf.nn.top_k(tf.where(is_chosen, probabilities, probabilities - 2.0), len(model.labels))
    count = tf.reduce_sum(tf.cast(is_chosen, tf.int32), axis=1)
    is_there = tf.range(len(model.labels)) < count[:, tf.newaxis]
    names = tf.gather(_labels(model), ordered.indices)
    return {"count": count, "label": tf.where(is_there, names, tf.fill(tf.shape(names), "")),
            "score": ordered.values * tf.cast(is_there, tf.float32)}


def _with_first(input_mask: tf.Tensor) -> tf.Tensor:
    """[CLS] is a token even in a row that is all padding, which a caller may use to fill its batch."""
    _, length = dimensions(input_mask)
    is_first = tf.equal(tf.range(length), 0)   # tf.one_hot of integers has no counterpart in ONNX
    return tf.maximum(input_mask, tf.cast(is_first, tf.int32))


def _embed(model: ModelFolder, input_ids: tf.Tensor, input_mask: tf.Tensor,
           segment_ids: tf.Tensor) -> Tensors:
    """Vectors of a text or pair, float [batch, hidden]: the pooler's, and the mean over all tokens of the
    last layer."""
    encoded = modeling.build_encoder(model.config, input_ids, input_mask, segment_ids, skip_padding=True,
                                     kernels=host_kernels.SERVING)
    lengths = tf.cast(tf.reduce_sum(input_mask, axis=1, keepdims=True), tf.float32)
    return {"pooled": encoded.pooled_output, "mean": tf.reduce_sum(encoded.sequence_output, axis=1) / lengths}


def _parse(serialized: tf.Tensor) -> Tensors:
    return tf.io.parse_example(serialized, {"text_a": tf.io.FixedLenFeature([], tf.string),
                                            "text_b": tf.io.FixedLenFeature([], tf.string, default_value="")})


def _door(tensors: Tensors, shape: Any) -> Tensors:
    return {name: tf.placeholder_with_default(tensor, shape, name) for name, tensor in tensors.items()}


def _labels(model: ModelFolder) -> tf.Tensor:
    return tf.constant([label.encode("utf-8") for label in model.labels])
