"""Texts → vectors of a pretrained or fine-tuned model, read and written batch by batch."""
import contextlib
import sys
from typing import Callable, Iterable, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.data.rows import RowsConfig, make_rows
from estimator.data.task_files import numbered_lines
from estimator.data.tasks import Example
from estimator.finetuning.predictions import json_lines
from estimator.model import modeling
from estimator.model.modeling import EncoderOutput
from estimator.tools.flags import CLS, POOLED, EmbedConfig
from estimator.weights import checkpoint_files, descriptions
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.batches import in_batches
from etl.common.command_line import UserError

CHUNK = 4096  # texts that are batched by similar lengths

Embed = Callable[[Sequence[str]], np.ndarray]  # texts → float32 [texts, hidden]


def embed(config: EmbedConfig) -> None:
    """Writes the vector of each text. Raises UserError for invalid input, before anything is written."""
    if config.output_file:
        files.require_file(config.output_file, "output_file")
    checkpoint = checkpoint_files.resolve(config.checkpoint_dir, "checkpoint_dir")
    model = descriptions.describe(config, checkpoint, "checkpoint_dir", max_seq_length=config.max_seq_length)
    check_layer(config, model.config)
    to_vectors = load(config, model, checkpoint)
    if config.output_file is None:
        for texts in in_batches(read_texts(config.input_file), CHUNK):
            sys.stdout.buffer.write(
                lines_of(texts, to_vectors(texts)).encode("utf-8"))    # whatever the locale
            sys.stdout.buffer.flush()
        return
    count = 0
    with files.atomic_write(config.output_file) as stream:
        found = []
        for texts in in_batches(read_texts(config.input_file), CHUNK):
            vectors = to_vectors(texts)
            count += len(texts)
            if config.output_file.endswith(".jsonl"):
                stream.write(lines_of(texts, vectors).encode("utf-8"))
            else:
                found.append(vectors)
        if config.output_file.endswith(".npy"):
            array = np.concatenate(found or [np.zeros([0, model.config.hidden_size], np.float32)])
            np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
            stream.write(array)                # np.save does not notice when the last few kB fill the disk
    print("Wrote %d vectors of %d numbers to %s" % (count, model.config.hidden_size, config.output_file))


def check_layer(config: EmbedConfig, model: AlbertConfig) -> None:
    """Raises UserError for a --layer that the model does not have."""
    layers = model.num_hidden_layers * (model.inner_group_num or 1)
    if not -layers <= config.layer < layers:
        raise UserError("--layer must be in [%d, %d), the model's layers; got %d"
                        % (-layers, layers, config.layer))


def load(config: EmbedConfig, model: ModelFolder, checkpoint: str) -> Embed:
    """A function from texts to their vectors, float32 [texts, hidden]; its session stays open."""
    with tf.Graph().as_default():
        inputs = {name: tf.placeholder(tf.int32, [None, None], name)
                  for name in ("input_ids", "input_mask", "segment_ids")}
        vectors = pool(modeling.build_encoder(model.config, **inputs), inputs["input_mask"], config.pooling,
                       config.layer)
        session = tf.Session()
        checkpoint_files.restore(session, checkpoint, model.config)

    def to_vectors(texts: Sequence[str]) -> np.ndarray:
        rows = make_rows([Example(text, None, None) for text in texts],
                         RowsConfig(model.tokenizer, model.max_seq_length))
        found = np.empty([len(texts), model.config.hidden_size], np.float32)
        order = np.argsort(rows.lengths, kind="stable")
        for begin in range(0, len(order), config.batch_size):
            chosen = order[begin:begin + config.batch_size]
            batch = rows.batch(chosen)
            found[chosen] = session.run(vectors, {tensor: batch[name] for name, tensor in inputs.items()})
        return found
    return to_vectors


def pool(encoded: EncoderOutput, input_mask: tf.Tensor, pooling: str, layer: int) -> tf.Tensor:
    """One vector per text, float [batch, hidden].

    Args:
      encoded: the encoder's output.
      input_mask: int32 [batch, length].
      pooling: one of POOLINGS.
      layer: index into all_layers.
    """
    if pooling == POOLED:
        return encoded.pooled_output
    hidden = encoded.all_layers[layer]
    if pooling == CLS:
        return hidden[:, 0]
    is_token = tf.cast(input_mask, tf.float32)[:, :, tf.newaxis]
    return tf.reduce_sum(hidden * is_token, axis=1) / tf.reduce_sum(is_token, axis=1)


def read_texts(path: Optional[str]) -> Iterable[str]:
    """The lines of a file or of standard input. Raises UserError with the line number for invalid UTF-8 or an
    empty text."""
    place = path or "standard input"
    with contextlib.ExitStack() as opened:
        stream = opened.enter_context(open(path, "rb")) if path else sys.stdin.buffer
        for number, text in numbered_lines(stream, place):
            if not text.strip():
                raise UserError("%s: line %d: the text is empty" % (place, number))
            yield text


def lines_of(texts: Sequence[str], vectors: np.ndarray) -> str:
    return json_lines([{"text": text, "vector": [round(float(value), 6) for value in vector]}
                       for text, vector in zip(texts, vectors)])
