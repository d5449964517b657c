"""The commands of docs/migration.md, on files as the older tools leave them."""
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import albert_config
from estimator.model import heads

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# As the older tools' own: fields of theirs that mean nothing, none of ours. Narrow, since only the
# names matter.
CONFIG = {"attention_probs_dropout_prob": 0.0, "directionality": "bidi", "hidden_act": "gelu",
          "hidden_dropout_prob": 0.0, "embedding_size": 16, "hidden_size": 32, "initializer_range": 0.02,
          "intermediate_size": 64, "max_position_embeddings": 512, "num_attention_heads": 4,
          "num_hidden_layers": 2, "pooler_fc_size": 768,
          "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3, "pooler_size_per_head": 128,
          "pooler_type": "first_token_transform", "type_vocab_size": 2, "vocab_size": 21128,
          "ln_type": "postln"}
LENGTH, PREDICTIONS = 64, 10                   # as the document's commands say


def commands():
    """The shell lines of the document's `sh` blocks, in order, up to those on other scripts' models, whose
    files are not here."""
    with open(os.path.join(ROOT, "docs", "migration.md"), encoding="utf-8") as stream:
        text, heading, _ = stream.read().partition("\n## Models and data of BERT-NER scripts\n")
    assert heading
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def write_record(path, rng):
    """Eight records by TensorFlow's own writer, with a feature more, as Google's tool writes."""
    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(8):
            ids = rng.randint(200, 5000, LENGTH)
            writer.write(tf.train.Example(features=tf.train.Features(feature={
                "input_ids": ints(ids), "input_mask": ints([1] * LENGTH),
                "segment_ids": ints([0] * 30 + [1] * (LENGTH - 30)),
                "token_boundary": ints([1] * LENGTH), "masked_lm_positions": ints(range(1, 1 + PREDICTIONS)),
                "masked_lm_ids": ints(ids[:PREDICTIONS]), "next_sentence_labels": ints([1]),
                "masked_lm_weights": tf.train.Feature(
                    float_list=tf.train.FloatList(value=[1.0] * PREDICTIONS)),
            })).SerializeToString())


def write_checkpoint(prefix, num_labels, moments):
    """A checkpoint with the family's names, and the moments that the older tools' optimizer leaves in a
    fine-tuned one."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        heads.declare_variables(albert_config.load(str(
            prefix.parent.parent / "albert_tiny_zh" / "albert_config_tiny.json")), num_labels)
        if moments:
            for variable in tf.trainable_variables():
                for suffix in ("adam_m", "adam_v"):
                    tf.get_variable(variable.op.name + "/" + suffix, variable.shape,
                                    initializer=tf.zeros_initializer())
            tf.train.create_global_step()
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(prefix), write_state=moments)


@pytest.fixture(scope="module")
def old_files(tmp_path_factory):
    """A folder with what users of the older tools have."""
    folder = tmp_path_factory.mktemp("old")
    for name in ("albert_tiny_zh", "old_records", "old_lcqmc", "corpus", "lcqmc"):
        (folder / name).mkdir()
    (folder / "albert_tiny_zh" / "albert_config_tiny.json").write_text(json.dumps(CONFIG))
    with open(albert_config.vocab_path(), encoding="utf-8", newline="\n") as stream:
        tokens = stream.read().split("\n")[:CONFIG["vocab_size"]]
    # the released vocabulary has Han characters inside words, too
    tokens[-4:] = ["##气", "##步", "##多", "##新"]
    (folder / "albert_tiny_zh" / "vocab.txt").write_bytes("\n".join(tokens + [""]).encode("utf-8"))
    write_checkpoint(folder / "albert_tiny_zh" / "albert_model.ckpt", None, moments=False)
    write_checkpoint(folder / "old_lcqmc" / "model.ckpt-8", 2, moments=True)
    for number in range(2):
        write_record(folder / "old_records" / ("tf_examples_%d.tfrecord" % number),
                     np.random.RandomState(number))
    (folder / "corpus" / "news.txt").write_text("今天天气很好。\n我们去公园散步。\n公园里有很多人。\n\n"
                                                "手机没有信号。\n重新启动就好了。\n", encoding="utf-8")
    for part in ("train", "dev", "test"):
        (folder / "lcqmc" / (part + ".txt")).write_text(
            "手机没信号\t手机搜不到网络\t1\n手机没信号\t屏幕碎了\t0\n" * 4, encoding="utf-8")
    return folder


def test_the_document_s_commands_work_in_order(old_files):
    environment = dict(os.environ, PYTHONPATH=ROOT)
    outputs = {}
    for command in commands():
        words = shlex.split(command)
        assert words[:2] == ["python", "-m"]
        done = subprocess.run([sys.executable] + words[1:], cwd=str(old_files), env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == 0, "%s\n%s" % (command, done.stderr.decode("utf-8"))
        outputs[" ".join(words[2:4])] = done.stdout.decode("utf-8")
    assert "family: albert_zh" in outputs["estimator.checkpoints inspect"]
    made = {path.name for path in (old_files / "output").iterdir()}
    assert made == {"continued", "records", "lcqmc", "adopted", "export"}
    assert (old_files / "output" / "lcqmc" / "test_results.tsv").exists()
    assert "num_examples = 8" in (old_files / "output" / "adopted" / "eval_results.txt").read_text()
    assert set(json.loads(outputs["serving.predict --model_dir"])["probabilities"]) == {"0", "1"}


def test_what_was_adopted_answers_as_its_weights_do(old_files):
    """The classifier's own bias is what came in."""
    given = tf.train.load_checkpoint(str(old_files / "old_lcqmc" / "model.ckpt-8"))
    adopted = tf.train.load_checkpoint(str(old_files / "output" / "adopted" / "model.ckpt"))
    names = set(adopted.get_variable_to_shape_map()) - {"global_step"}
    assert names == {name for name in given.get_variable_to_shape_map()
                     if not name.endswith(("adam_m", "adam_v", "global_step"))}
    for name in names:
        np.testing.assert_array_equal(adopted.get_tensor(name), given.get_tensor(name))
