"""Our half of `make check-transformers`: models of ours with their logits, and the logits of what
transformers wrote.

  ours.py write FOLDER    random models in FOLDER/ours/, each as a checkpoint, in transformers' layout, and a
                          batch with logits
  ours.py check FOLDER    takes over the models in FOLDER/theirs/ and holds their logits against those
                          written there
"""
import dataclasses
import os
import sys

import numpy as np
import tensorflow.compat.v1 as tf

import albert_config
from estimator import checkpoints
from estimator.model import heads, modeling
from estimator.weights import checkpoint_files, model_folder
from estimator.weights.model_folder import ModelFolder
from etl.text.pairs import pack_pair
from etl.text.tokenization import TokenizerConfig, load_tokenizer

TOLERANCE = 1e-5
SEQ_LENGTH = 24
TEXTS = (("手机没信号怎么办", "手机搜不到网络怎么处理？"), ("今天天气不错", ""),
         ("BERT与ALBERT，2019年", "Café 100%"))
LABELS = ("相同", "不同", "其他")
SHIPPED = ("tiny_google", "small_google", "tiny_google_fast", "base_google_fast", "bert_config")


def cases():
    """(name, config, labels): each shipped config with a counterpart, the large ones with three layers, and
    what none of them has: two layers in a group, several groups, embeddings as wide as the model, other
    activations."""
    configs = {name: albert_config.load(name) for name in SHIPPED}
    configs["bert_config"] = dataclasses.replace(configs["bert_config"], num_hidden_layers=3)
    configs["base_google_fast"] = dataclasses.replace(configs["base_google_fast"], num_hidden_layers=3,
                                                      num_hidden_groups=3)
    small = configs["tiny_google"]
    configs["inner_groups"] = dataclasses.replace(small, num_hidden_groups=2, inner_group_num=2)
    configs["wide_embeddings"] = dataclasses.replace(small, embedding_size=312, hidden_act="relu")
    configs["swish"] = dataclasses.replace(small, hidden_act="swish")
    for name, config in configs.items():
        for labels in ((), LABELS):
            yield "%s_%s" % (name, "classifier" if labels else "pretraining"), config, labels


def batch(tokenizer):
    """Ids, mask and segments of TEXTS, padded, int32 [3, SEQ_LENGTH] each, and some positions, int32
    [3, 3]."""
    arrays = np.zeros((3, len(TEXTS), SEQ_LENGTH), np.int32)
    for row, (text_a, text_b) in enumerate(TEXTS):
        packed = pack_pair(tokenizer, text_a, text_b or None, SEQ_LENGTH)
        length = len(packed.input_ids)
        arrays[0, row, :length], arrays[1, row, :length], arrays[2, row, :length] = (packed.input_ids, 1,
                                                                                     packed.segment_ids)
    return dict(zip(("input_ids", "input_mask", "segment_ids"), arrays),
                positions=np.array([[1, 2, 5], [1, 3, 4], [2, 1, 7]]))


def logits_of(config, num_labels, features, wanted=("prediction_logits", "order_logits")):
    """Tensors in the default graph: the classifier's logits, or what is wanted of an encoder's output, the
    masked LM's logits at the positions and the sentence order's."""
    encoded = modeling.build_encoder(config, *(tf.constant(features[name])
                                               for name in ("input_ids", "input_mask", "segment_ids")))
    if num_labels:
        return {"logits": heads.classifier(config, encoded, num_labels).logits}
    if "logits" in wanted:
        return {"logits": heads.regressor(config, encoded).predictions[:, tf.newaxis]}
    found = {}
    if "sequence_output" in wanted:
        is_token = tf.constant(features["input_mask"][:, :, np.newaxis], tf.float32)
        found["sequence_output"] = encoded.sequence_output * is_token
    if "prediction_logits" in wanted:
        found["prediction_logits"] = heads.masked_lm_logits(config, encoded,
                                                            tf.constant(features["positions"]))
    if "order_logits" in wanted:
        found["order_logits"] = heads.sentence_order(config, encoded).logits
    return found


def set_random_values(session, width):
    """Scales near 1, all else near 0, but nothing 0."""
    rng = np.random.RandomState(1)
    for variable in tf.trainable_variables():
        value = rng.standard_normal(variable.shape.as_list()) / np.sqrt(width) + float(
            variable.op.name.endswith("gamma"))
        session.run(variable.initializer, {variable.initializer.inputs[1]: value})


def write(folder):
    tokenizer = TokenizerConfig(albert_config.vocab_path())
    features = batch(load_tokenizer(tokenizer))
    for name, config, labels in cases():
        place = os.path.join(folder, "ours", name)
        checkpoint = os.path.join(place, "checkpoint", "model.ckpt")
        model_folder.write(os.path.dirname(checkpoint),
                           ModelFolder(config, tokenizer, SEQ_LENGTH, None, labels))
        with tf.Graph().as_default(), tf.Session() as session:
            logits = logits_of(config, len(labels), features)
            set_random_values(session, config.hidden_size)
            tf.train.Saver().save(session, checkpoint, write_meta_graph=False, write_state=False)
            found = session.run(logits)
        np.savez(os.path.join(place, "batch.npz"), **features, **found)
        if checkpoints.main(["to_transformers", "--checkpoint", os.path.dirname(checkpoint),
                             "--output_dir", os.path.join(place, "transformers")]):
            sys.exit(1)


def check(folder):
    worst = 0.0
    for name in sorted(os.listdir(os.path.join(folder, "theirs"))):
        place = os.path.join(folder, "theirs", name)
        task = ["--task_name", "sts-b"] if name.endswith("regression") else []
        if checkpoints.main(["from_transformers", "--input_dir", os.path.join(place, "transformers"),
                             "--output_dir", os.path.join(place, "checkpoint")] + task):
            sys.exit(1)
        description = model_folder.read(os.path.join(place, "checkpoint"))
        features = dict(np.load(os.path.join(place, "batch.npz")))
        with tf.Graph().as_default(), tf.Session() as session:
            logits = logits_of(description.config, len(description.labels), features, features)
            # a masked LM has no pooler, which is in the graph all the same
            checkpoint_files.load(checkpoint_files.plan_loading(
                checkpoint_files.resolve(os.path.join(place, "checkpoint")), description.config,
                new_prefixes=heads.PRETRAINING_PARTS))
            session.run(tf.global_variables_initializer())
            found = session.run(logits)
        for head, values in found.items():
            difference = np.abs(values - features[head]).max()
            worst = max(worst, difference)
            print("from_transformers  %-28s %-18s largest logit %6.3f  largest difference %.1e"
                  % (name, head, np.abs(values).max(), difference))
    return worst


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2])
    elif not check(sys.argv[2]) <= TOLERANCE:
        sys.exit("a difference is above %g" % TOLERANCE)
