"""A model, a vocabulary and records small enough to train in a second."""
import hashlib
import os

import numpy as np

from albert_config import AlbertConfig
from etl.common import files
from etl.records import manifest
from etl.records.examples import CUT_INSIDE_SENTENCE, frame, pretraining_features, serialize_examples
from etl.records.manifest import Manifest, Shard
from etl.text.tokenization import SPECIAL_TOKENS, TokenizerConfig

WORDS = "天 地 人 山 水 火 木 金 土 日 月 星 风 云 雨".split(" ")
TOKENS = SPECIAL_TOKENS + tuple(WORDS)         # 20 in all; ids from 5 on are words
SEQ_LENGTH, PREDICTIONS = 8, 2

CONFIG = AlbertConfig(vocab_size=len(TOKENS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                      intermediate_size=32, max_position_embeddings=16, embedding_size=8)


def write_vocabulary(path):
    """Writes TOKENS, one a line, and returns the path as str."""
    files.write_text(str(path), "\n".join(TOKENS) + "\n")
    return str(path)


def write_config(path, config=CONFIG):
    files.write_json(str(path), config.to_dict())
    return str(path)


def record_values(number, seq_length=SEQ_LENGTH, predictions=PREDICTIONS):
    """Values of a record that can be told by its number: `[CLS] w w [SEP] [MASK] w [SEP]`, with w chosen
    by `number`.

    The masked word follows from the words around it, so that a model can learn it.
    """
    word = 5 + number % len(WORDS)
    values = {feature.name: np.zeros(feature.length, np.float32 if feature.dtype == "float32" else np.int64)
              for feature in pretraining_features(seq_length, predictions)}
    values["input_ids"][:7] = [2, word, word, 3, 4, word, 3]
    values["input_mask"][:7] = 1
    values["segment_ids"][4:7] = 1
    values["masked_lm_positions"][0] = 4
    values["masked_lm_ids"][0] = word
    values["masked_lm_weights"][0] = 1.0
    values["next_sentence_labels"][0] = number % 2
    return values


def write_records(path, values):
    """Writes a TFRecord file of {name: array} values and returns the path as str."""
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    with open(str(path), "wb") as stream:
        for record in values:
            stream.writelines(
                map(frame, serialize_examples({name: array[None] for name, array in record.items()})))
    return str(path)


def write_build(folder, num_train=20, num_eval=5, num_shards=2, **changes):
    """A folder as etl.build_pretrain leaves it; records are numbered through. Returns the path as str."""
    folder = str(folder)
    train = [_shard(folder, "tf_examples-%05d-of-%05d.tfrecord" % (index, num_shards),
                    range(index, num_train, num_shards)) for index in range(num_shards)]
    held_out = [_shard(folder, "eval/tf_examples-00000-of-00001.tfrecord",
                       range(num_train, num_train + num_eval), is_eval=True)]
    vocabulary = write_vocabulary(os.path.join(folder, "vocab.txt"))
    fields = dict(train=tuple(train), eval=tuple(held_out), max_seq_length=SEQ_LENGTH,
                  max_predictions_per_seq=PREDICTIONS, tokenizer=TokenizerConfig("vocab.txt"),
                  vocab_size=len(TOKENS), vocab_sha256=files.sha256_of_file(vocabulary),
                  features=pretraining_features(SEQ_LENGTH, PREDICTIONS), flags={}, inputs=(), versions={},
                  counters={})
    manifest.write(folder, Manifest(**dict(fields, **changes)))
    return folder


def _shard(folder, name, numbers, is_eval=False):
    """Of held-out records, those with an odd number are marked as cut inside a sentence."""
    path = write_records(os.path.join(folder, name), [
        dict(record_values(number), **{CUT_INSIDE_SENTENCE.name: np.array([number % 2])} if is_eval else {})
        for number in numbers])
    with open(path, "rb") as stream:
        content = stream.read()
    return Shard(name, len(numbers), len(content), hashlib.sha256(content).hexdigest())
