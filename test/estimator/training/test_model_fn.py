import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_training
from estimator.training import model_fn
from estimator.training.model_fn import TrainingConfig
from etl.common.command_line import UserError

TRAIN, EVAL, PREDICT = tf.estimator.ModeKeys.TRAIN, tf.estimator.ModeKeys.EVAL, tf.estimator.ModeKeys.PREDICT
TRAINING = TrainingConfig(optimizer="adamw", learning_rate=0.02, num_train_steps=20, num_warmup_steps=0,
                          random_seed=1)


def pretraining_batch(num_real=8):
    """8 records, the last ones zero rows."""
    rows = [tiny_training.record_values(number) for number in range(8)]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    batch["is_real_example"] = np.int32(np.arange(8) < num_real)
    return {name: (values * batch["is_real_example"][:, None] if values.ndim == 2 else values).astype(
        np.float32 if values.dtype.kind == "f" else np.int32) for name, values in batch.items()}


def classifier_batch(num_real=8):
    """8 examples of two classes, of one word each."""
    batch = pretraining_batch(num_real)
    labels = np.arange(8, dtype=np.int32) % 2 * batch["is_real_example"]
    input_ids = np.where(batch["input_ids"] >= 5, 5 + labels[:, None], batch["input_ids"]).astype(np.int32)
    return {"input_ids": input_ids, "input_mask": batch["input_mask"], "segment_ids": batch["segment_ids"],
            "label_ids": labels, "is_real_example": batch["is_real_example"]}


def train(make_spec, batch, steps=20):
    """The loss of each of `steps` steps on one batch."""
    with tf.Graph().as_default():
        tf.set_random_seed(1)
        tf.train.create_global_step()
        spec = make_spec({name: tf.constant(array) for name, array in batch.items()}, TRAIN)
        with tf.train.MonitoredTrainingSession(save_checkpoint_secs=None, save_summaries_steps=None,
                                               log_step_count_steps=None) as session:
            return [session.run([spec.loss, spec.train_op])[0] for _ in range(steps)]


def evaluate(make_spec, batches):
    """The metrics over `batches` of a model with fixed random values."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(2)
        inputs = {name: tf.placeholder(tf.as_dtype(array.dtype), array.shape)
                  for name, array in batches[0].items()}
        spec = make_spec(inputs, EVAL)
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        for batch in batches:
            session.run([update for _, update in spec.eval_metric_ops.values()],
                        {inputs[name]: batch[name] for name in inputs})
        return session.run({name: value for name, (value, _) in spec.eval_metric_ops.items()})


@pytest.mark.learning
@pytest.mark.parametrize("optimizer, learning_rate", [("adamw", 0.01), ("lamb", 0.1)])
def test_pretraining_loss_falls(optimizer, learning_rate):
    training = TrainingConfig(optimizer, learning_rate, 20, 2, random_seed=1)
    losses = train(model_fn.pretraining_model_fn(tiny_training.CONFIG, training), pretraining_batch())
    assert losses[0] == pytest.approx(np.log(20) + np.log(2), abs=0.05)
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.learning
def test_classifier_loss_falls():
    lively = dataclasses.replace(tiny_training.CONFIG, initializer_range=0.2)
    losses = train(model_fn.classifier_model_fn(lively, TRAINING, 2), classifier_batch())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.learning
def test_regression_loss_falls():
    lively = dataclasses.replace(tiny_training.CONFIG, initializer_range=0.2)
    batch = classifier_batch()
    batch["label_ids"] = 3 * batch["label_ids"].astype(np.float32)
    slower = dataclasses.replace(TRAINING, num_train_steps=100, learning_rate=0.005)
    losses = train(model_fn.classifier_model_fn(lively, slower, 0), batch, 100)
    assert losses[-1] < 0.3 * losses[0]


def test_without_sentence_order_its_head_is_not_built():
    make_spec = model_fn.pretraining_model_fn(tiny_training.CONFIG, TRAINING, has_sentence_order=False)
    with tf.Graph().as_default():
        spec = make_spec({name: tf.constant(array) for name, array in pretraining_batch().items()}, EVAL)
        assert sorted(spec.eval_metric_ops) == ["masked_lm_accuracy", "masked_lm_loss", "num_examples"]
        assert not [variable for variable in tf.trainable_variables() if "seq_relationship" in variable.name]
    assert train(make_spec, pretraining_batch(), steps=1)[0] == pytest.approx(np.log(20), abs=0.05)


def test_padding_changes_no_metric():
    make_spec = model_fn.pretraining_model_fn(tiny_training.CONFIG, TRAINING)
    whole, first, rest = pretraining_batch(), pretraining_batch(num_real=5), pretraining_batch()
    for name, array in rest.items():
        rest[name] = np.concatenate([array[5:], np.zeros_like(array[:5])])
    in_one, in_two = evaluate(make_spec, [whole]), evaluate(make_spec, [first, rest])
    assert in_one["num_examples"] == in_two["num_examples"] == 8
    assert in_two == pytest.approx(in_one, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("num_labels, width", [(3, 3), (0, 1)])
def test_prediction_gives_outputs_by_example(num_labels, width):
    make_spec = model_fn.classifier_model_fn(tiny_training.CONFIG, TRAINING, num_labels)
    batch = classifier_batch(5)
    batch["label_ids"] = batch["label_ids"].astype(np.int32 if num_labels else np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        spec = make_spec({name: tf.constant(array) for name, array in batch.items()}, PREDICT)
        session.run(tf.global_variables_initializer())
        found = session.run(spec.predictions)
    assert found["outputs"].shape == (8, width)
    assert not num_labels or found["outputs"].sum(axis=1) == pytest.approx(np.ones(8))
    assert found["is_real_example"].tolist() == [1] * 5 + [0] * 3


def test_a_class_that_weighs_nothing_does_not_count():
    lively = dataclasses.replace(tiny_training.CONFIG, initializer_range=0.2)
    batch = classifier_batch()
    all_alike = dict(batch, input_ids=np.repeat(batch["input_ids"][1:2], 8,
                                                axis=0))  # so the text says nothing
    losses = train(model_fn.classifier_model_fn(lively, TRAINING, 2, class_weights=(3.0, 0.0)), all_alike)
    assert losses[-1] < 0.1  # class 0 is always right


@pytest.fixture
def checkpoint(tmp_path):
    """The prefix of a checkpoint of a pretrained model."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.create_global_step()
        model_fn.pretraining_model_fn(tiny_training.CONFIG, TRAINING)(
            {name: tf.constant(array) for name, array in pretraining_batch().items()}, TRAIN)
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))


def test_a_checkpoint_is_loaded_whole_and_a_new_head_is_named(checkpoint):
    summary = model_fn.check_init_checkpoint(checkpoint, tiny_training.CONFIG, num_labels=2)
    assert ("loaded 24 variables from %s; 2 new: output_bias, output_weights; 7 unused: cls/" % checkpoint
            in summary)
    summary = model_fn.check_init_checkpoint(checkpoint, tiny_training.CONFIG)
    assert "loaded 31 variables from %s" % checkpoint in summary
    training = TrainingConfig("adamw", 0.01, 20, 0, random_seed=1, init_checkpoint=checkpoint)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.create_global_step()
        model_fn.classifier_model_fn(tiny_training.CONFIG, training, 2)(
            {name: tf.constant(array) for name, array in classifier_batch().items()}, TRAIN)
        session.run(tf.global_variables_initializer())
        for name in ("bert/pooler/dense/kernel", "bert/embeddings/word_embeddings"):
            value = session.run(tf.get_default_graph().get_tensor_by_name(name + ":0"))
            assert (value == tf.train.load_variable(checkpoint, name)).all()


def test_a_checkpoint_of_another_model_is_refused(checkpoint):
    wider = dataclasses.replace(tiny_training.CONFIG, hidden_size=32)
    with pytest.raises(UserError, match="does not fit the model: hidden_size is 16, wanted 32"):
        model_fn.check_init_checkpoint(checkpoint, wider, num_labels=2)


def test_moments_are_taken_over_in_pretraining_where_the_file_has_them(checkpoint):
    summary = model_fn.check_init_checkpoint(checkpoint, tiny_training.CONFIG, optimizer="adamw")
    assert "62 of 62 optimizer slots are in the file" in summary
    summary = model_fn.check_init_checkpoint(checkpoint, tiny_training.CONFIG, optimizer="lamb")
    assert "0 of 62 optimizer slots are in the file; the others start at 0" in summary


def test_numbers_that_are_not_finite_stop_the_step_before_a_weight_is_changed():
    exploding = TrainingConfig("adamw", 1e30, 20, 0, random_seed=1)
    with tf.Graph().as_default():
        tf.set_random_seed(1)
        tf.train.create_global_step()
        spec = model_fn.pretraining_model_fn(tiny_training.CONFIG, exploding)(
            {name: tf.constant(array) for name, array in pretraining_batch().items()}, TRAIN)
        with tf.Session() as session:
            session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            for _ in range(20):
                before = session.run(tf.trainable_variables() + [tf.train.get_global_step()])
                try:
                    session.run(spec.train_op)
                except tf.errors.InvalidArgumentError as error:
                    assert ("numbers that are not finite] [step] [%d] [masked_lm_loss] [" % before[-1]
                            in error.message)
                    break
            else:
                raise AssertionError("nothing became infinite")
            after = session.run(tf.trainable_variables() + [tf.train.get_global_step()])
    for old, new in zip(before, after):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_the_curves_of_a_training(tmp_path, accumulation_steps):
    training = TrainingConfig("lamb", 0.01, 4, 0, random_seed=1, log_steps=2,
                              accumulation_steps=accumulation_steps)
    make_spec = model_fn.pretraining_model_fn(tiny_training.CONFIG, training)
    config = tf.estimator.RunConfig(save_checkpoints_steps=4)
    estimator = tf.estimator.Estimator(make_spec, str(tmp_path), config)
    batch = dict(pretraining_batch().items())
    estimator.train(lambda: tf.data.Dataset.from_tensors(batch).repeat(), max_steps=4)
    path, = map(str, tmp_path.glob("events*"))
    points = {(event.step, value.tag): value.simple_value
              for event in tf.train.summary_iterator(path) for value in event.summary.value}
    wanted = {"loss", "masked_lm_loss", "masked_lm_accuracy", "sentence_order_loss",
              "sentence_order_accuracy",
              "learning_rate", "gradient_norm", "perplexity", "trust_ratio/bert/pooler/dense/kernel"}
    for step in (1, 2, 4):
        assert {(step, name) for name in wanted} <= set(points)
        assert points[step, "trust_ratio/bert/pooler/dense/kernel"] > 0
    assert (4, "share_of_time_waiting_for_input") in points
