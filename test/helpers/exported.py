"""Models as fine-tuning leaves them: freshly initialized, with checkpoint and description."""
import dataclasses
import os
from typing import Any, Sequence

import tensorflow.compat.v1 as tf

import albert_config
from albert_config import AlbertConfig
from estimator.model import heads, modeling
from estimator.model.kinds import MULTI_LABEL, SPANS, TAGS
from estimator.weights import model_folder
from estimator.weights.model_folder import Labelling, ModelFolder, Reading, Tagging
from etl.text.tokenization import SPECIAL_TOKENS, TokenizerConfig

TOKENS = list(SPECIAL_TOKENS) + list(
    "北京你好吗手机没信号怎么办搜不到网络普通话字句？，") + ["abc", "ab", "##c"] + list("x") + ["##x"]
LABELS = ("相同", "不同", "其他")
CONFIG = AlbertConfig(vocab_size=len(TOKENS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                      intermediate_size=32, max_position_embeddings=48, embedding_size=8,
                      initializer_range=0.5)


def make_classifier(folder: str, leave_out: str = "", labels: Sequence[str] = LABELS) -> None:
    """Writes a tiny model's folder; the checkpoint lacks the variable `leave_out`. Without labels it is a
    regression."""
    write_model(folder, ModelFolder(CONFIG, _write_vocabulary(folder), 32, "sentence_pair", tuple(labels)),
                leave_out)


def make_reader(folder: str, kind: str) -> None:
    """Writes a tiny model's folder of a kind that reads passages."""
    reading = Reading(5, 6, 7, None) if kind == SPANS else None
    write_model(folder, ModelFolder(CONFIG, _write_vocabulary(folder), 32, kind, kind=kind, reading=reading))


def _write_vocabulary(folder: str) -> TokenizerConfig:
    os.makedirs(folder, exist_ok=True)
    vocab_file = os.path.join(folder, "vocab.txt")
    with open(vocab_file, "wb") as stream:
        stream.write(("\n".join(TOKENS) + "\n").encode("utf-8"))
    return TokenizerConfig(vocab_file)


def make_shipped_classifier(folder: str, config_name: str, max_seq_length: int = 128) -> ModelFolder:
    """Writes a folder of a shipped config and the shipped vocabulary; values so large that answers to two
    texts differ."""
    return _make_shipped(folder, config_name, max_seq_length, "sentence_pair", ("0", "1"))


def make_shipped_tagger(folder: str, config_name: str, max_seq_length: int = 128) -> ModelFolder:
    """The same of a model that labels entities."""
    return _make_shipped(folder, config_name, max_seq_length, "tagging", ("人", "地"), kind=TAGS,
                         tagging=Tagging(4, False))


def make_shipped_labels(folder: str, config_name: str, max_seq_length: int = 128) -> ModelFolder:
    """The same of a model of several labels."""
    return _make_shipped(folder, config_name, max_seq_length, "multi_label", ("天", "地", "人", "水"),
                         kind=MULTI_LABEL, labelling=Labelling())


def _make_shipped(folder: str, config_name: str, *what: Any, **how: Any) -> ModelFolder:
    config = albert_config.load(config_name)
    config = dataclasses.replace(config, initializer_range=config.hidden_size ** -0.5)
    model = ModelFolder(config, TokenizerConfig(albert_config.vocab_path()), *what, **how)
    write_model(folder, model)
    return model


def write_model(folder: str, model: ModelFolder, leave_out: str = "") -> None:
    """Writes the description and a checkpoint of random values, always the same."""
    model_folder.write(folder, model)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        ids = tf.placeholder(tf.int32, [None, None])
        head = heads.fine_tuned(model.kind, len(model.labels))
        head(model.config, modeling.build_encoder(model.config, ids))
        step = tf.train.get_or_create_global_step()
        session.run(tf.global_variables_initializer())
        saved = [variable for variable in tf.global_variables() if variable.op.name != leave_out]
        tf.train.Saver(saved).save(session, os.path.join(folder, "model.ckpt"), step)
