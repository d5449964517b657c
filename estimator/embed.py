"""Turns texts into vectors with a pretrained or fine-tuned model.

  python -m estimator.embed --input_file texts.txt --output_file vectors.npy
  echo 手机没信号怎么办 | python -m estimator.embed --checkpoint_dir albert_tiny_zh --albert_config_file tiny --vocab_file vocab.txt

A text is a line. Vectors go to standard output as JSON lines, {"text": …, "vector": […]}, or into a file in the order of the
texts: .npy, float32 [texts, hidden], or .jsonl. --pooling says what a text's vector is:

  pooled   the pooled output, which the heads read
  mean     the mean over the tokens of --layer, [CLS] and [SEP] too, as the exported signature `embed` has it
  cls      the vector of [CLS] in --layer
"""
import contextlib
import os
import sys
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Optional, Sequence

import albert_config
from estimator.data import encoded
from estimator.data.task_files import numbered_lines
from estimator.data.tasks import Example
from estimator.finetuning.evaluation import json_lines
from estimator.weights import model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.batches import in_batches
from etl.common.command_line import UserError, flag, run
from etl.text.tokenization import TokenizerConfig

POOLED, MEAN, CLS = POOLINGS = ("pooled", "mean", "cls")
CHUNK = 4096                                   # texts whose batches are made of similar lengths, and answered together

Embed = Callable[[Sequence[str]], Any]         # texts → float32 [texts, hidden]


@dataclass(frozen=True)
class EmbedConfig:
    """The flags of this command."""
    checkpoint_dir: str = flag("output/pretrain", "checkpoint, or folder of one")
    albert_config_file: Optional[str] = flag(None, "config by name or file; without it the one beside the checkpoint")
    vocab_file: Optional[str] = flag(None, "vocabulary, where none lies beside the checkpoint")
    spm_model_file: Optional[str] = flag(None, "SentencePiece model, where none lies beside the checkpoint")
    input_file: Optional[str] = flag(None, "texts, one a line; without it standard input")
    output_file: Optional[str] = flag(None, "file ending in .npy or .jsonl; without it standard output")
    pooling: str = flag(MEAN, "what a text's vector is", POOLINGS)
    layer: int = flag(-1, "which layer mean and cls read: 0 is the lowest, -1 the highest")
    max_seq_length: int = flag(128, "tokens of a text; longer ones are cut")
    batch_size: int = flag(32, "texts of a batch")

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError("batch_size must be at least 1, got %d" % self.batch_size)
        if self.output_file and not self.output_file.endswith((".npy", ".jsonl")):
            raise ValueError("output_file must end in .npy or .jsonl, got %s" % self.output_file)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("estimator.embed", __doc__, EmbedConfig, embed, argv)


def embed(config: EmbedConfig) -> None:
    """Writes the vector of each text. Raises UserError before anything is written for what does not fit."""
    import numpy as np
    from estimator.weights import checkpoint_files
    if config.output_file:
        files.require_file(config.output_file, "output_file")
    checkpoint = checkpoint_files.resolve(config.checkpoint_dir, "checkpoint_dir")
    model = describe_model(config, checkpoint)
    to_vectors = load(config, model, checkpoint)
    if config.output_file is None:
        for texts in in_batches(read_texts(config.input_file), CHUNK):
            sys.stdout.buffer.write(lines_of(texts, to_vectors(texts)).encode("utf-8"))    # whatever the locale says
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
            stream.write(array)                # np.save does not notice a disk that the last few kB fill
    print("Wrote %d vectors of %d numbers to %s" % (count, model.config.hidden_size, config.output_file))


def describe_model(config: EmbedConfig, checkpoint: str) -> ModelFolder:
    """Config and tokenizer from the flags, else from beside the checkpoint."""
    beside = model_folder.beside(checkpoint)
    if beside:
        if config.albert_config_file or config.vocab_file or config.spm_model_file:
            raise UserError("--checkpoint_dir: %s says itself what it is: leave --albert_config_file, --vocab_file and "
                            "--spm_model_file out" % os.path.dirname(checkpoint))
        model, tokenizer = beside.config, beside.tokenizer
    elif config.albert_config_file and (config.vocab_file or config.spm_model_file):
        model = albert_config.load(config.albert_config_file)
        tokenizer = TokenizerConfig(config.vocab_file, spm_model_file=config.spm_model_file)
    else:
        raise UserError("--checkpoint_dir: beside %s there is no %s to say what it is: give --albert_config_file and "
                        "--vocab_file or --spm_model_file" % (checkpoint, model_folder.DESCRIPTION_FILE))
    layers = model.num_hidden_layers * (model.inner_group_num or 1)
    if not -layers <= config.layer < layers:
        raise UserError("--layer must be in [%d, %d), the model's layers; got %d" % (-layers, layers, config.layer))
    return model_folder.from_flags(model, tokenizer, config.max_seq_length)


def load(config: EmbedConfig, model: ModelFolder, checkpoint: str) -> Embed:
    """A function from texts to their vectors, float32 [texts, hidden]; its session stays open."""
    import numpy as np
    import tensorflow.compat.v1 as tf
    from estimator.model import modeling
    from estimator.weights import checkpoint_files
    with tf.Graph().as_default():
        inputs = {name: tf.placeholder(tf.int32, [None, None], name) for name in ("input_ids", "input_mask", "segment_ids")}
        vectors = pool(modeling.encode(model.config, **inputs), inputs["input_mask"], config.pooling, config.layer)
        plan = checkpoint_files.make_plan(checkpoint, model.config)
        checkpoint_files.check_data(checkpoint, plan.assignment_map)
        session = tf.Session()
        tf.train.Saver(plan.assignment_map).restore(session, checkpoint)

    def to_vectors(texts: Sequence[str]) -> Any:
        rows = encoded.make_rows([Example(text, None, None) for text in texts],
                                 encoded.Encoding(model.tokenizer, model.max_seq_length))
        found = np.empty([len(texts), model.config.hidden_size], np.float32)
        order = np.argsort(rows.lengths, kind="stable")
        for begin in range(0, len(order), config.batch_size):
            chosen = order[begin:begin + config.batch_size]
            batch = rows.batch(chosen)
            found[chosen] = session.run(vectors, {tensor: batch[name] for name, tensor in inputs.items()})
        return found
    return to_vectors


def pool(encoded_texts: Any, input_mask: Any, pooling: str, layer: int) -> Any:
    """A vector for each text, float [batch, hidden].

    Args:
      encoded_texts: a `modeling.Encoded`.
      input_mask: int32 [batch, length].
      pooling: one of POOLINGS.
      layer: index into all_layers.
    """
    import tensorflow.compat.v1 as tf
    if pooling == POOLED:
        return encoded_texts.pooled_output
    hidden = encoded_texts.all_layers[layer]
    if pooling == CLS:
        return hidden[:, 0]
    is_token = tf.cast(input_mask, tf.float32)[:, :, tf.newaxis]
    return tf.reduce_sum(hidden * is_token, axis=1) / tf.reduce_sum(is_token, axis=1)


def read_texts(path: Optional[str]) -> Iterable[str]:
    """The lines of a file or of standard input. Raises UserError with the line's number for bad UTF-8 or an empty text."""
    place = path or "standard input"
    with contextlib.ExitStack() as opened:
        stream = opened.enter_context(open(path, "rb")) if path else sys.stdin.buffer
        for number, text in numbered_lines(stream, place):
            if not text.strip():
                raise UserError("%s: line %d: the text is empty" % (place, number))
            yield text


def lines_of(texts: Sequence[str], vectors: Any) -> str:
    return json_lines([{"text": text, "vector": [round(float(value), 6) for value in vector]}
                       for text, vector in zip(texts, vectors)])


if __name__ == "__main__":
    raise SystemExit(main())
