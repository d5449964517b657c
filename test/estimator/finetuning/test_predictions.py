import dataclasses
import json

import numpy as np
import pytest

from estimator.data.rows import Rows
from estimator.data.tasks import EARLIER, TASKS, Example
from estimator.finetuning import predictions, scores
from estimator.finetuning.predictions import Part

PAIRS = TASKS["lcqmc"]

COPA = EARLIER["copa", "classes"]


def rows_of(example_numbers, labels, lengths=None):
    lengths = lengths or [2] * len(example_numbers)
    return Rows(np.ones(sum(lengths), np.int32), np.zeros(sum(lengths), np.int32), np.cumsum([0] + lengths),
                np.int32(example_numbers), np.array(labels)[example_numbers])


def part(name="dev", labels=(1, 0, 1), task=PAIRS, **more):
    return Part(name, [Example("天%d" % number, "地", str(label), **more)
                       for number, label in enumerate(labels)], rows_of(list(range(len(labels))), labels))


class Model:
    """An estimator whose output for a row is its length, in batches with a filler row."""

    def predict(self, input_fn, checkpoint_path, yield_single_examples):
        import tensorflow.compat.v1 as tf
        with tf.Graph().as_default(), tf.Session() as session:
            iterator = tf.data.make_initializable_iterator(input_fn())
            batch = iterator.get_next()
            session.run(iterator.initializer)
            try:
                while True:
                    found = session.run(batch)
                    yield {"outputs": found["input_mask"].sum(axis=1, keepdims=True).astype(np.float32),
                           "is_real_example": found["is_real_example"]}
            except tf.errors.OutOfRangeError:
                return


@pytest.mark.parametrize("seq_length", [None, 9])
def test_outputs_come_by_example_and_windows_are_averaged(seq_length):
    rows = rows_of([0, 0, 1, 2, 2], [1, 0, 1], [9, 4, 2, 5, 1])
    found = predictions.run_model(Model(), rows, 3, seq_length, "model.ckpt-1")
    assert found.tolist() == [[6.5], [2], [3]]


def test_numbers_are_named_by_part():
    outputs = np.array([[.1, .9], [.6, .4], [.8, .2]])
    found = predictions.score(PAIRS, part(), outputs)
    assert set(found) == {"eval_" + name for name in scores.metrics_of(2)} | {"majority_accuracy",
                                                                              "num_examples"}
    assert (found["eval_accuracy"], found["majority_accuracy"]) == pytest.approx((2 / 3, 2 / 3))
    mismatched = predictions.score(PAIRS, part("dev_mismatched"), outputs)
    assert {"eval_accuracy_mismatched", "num_examples_mismatched"} < set(mismatched)
    assert predictions.results_line(PAIRS, found) == (
        "3 dev examples: eval_accuracy 0.6667 (majority class 0.6667)  eval_roc_auc 0.5000  eval_loss %.4f"
        % found["eval_loss"])


def test_the_line_begins_with_the_tasks_own_metric():
    found = predictions.score(TASKS["sts-b"], part(labels=(1.0, 2.0, 4.0)), np.array([[1.], [2.], [3.]]))
    assert predictions.results_line(TASKS["sts-b"], found) == (
        "3 dev examples: eval_pearson 0.9820  eval_spearman 1.0000  eval_loss 0.3333")


def read_lines(path):
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def test_files_of_a_test_part(tmp_path):
    outputs = np.array([[.25, .75], [.6, .4], [.8, .2]])
    table, lines, submission = predictions.write_predictions(str(tmp_path), PAIRS, part("test"), outputs)
    assert ((tmp_path / "test_results.tsv").read_text()
            == "0.25\t0.75\n0.6\t0.4\n0.8\t0.2\n")
    assert read_lines(lines)[0] == {"text_a": "天0", "text_b": "地", "gold": "1", "predicted": "1",
                                          "probabilities": {"0": .25, "1": .75}}
    assert submission.endswith("lcqmc_predict.json")
    assert read_lines(submission) == [{"id": 0, "label": "1"}, {"id": 1, "label": "0"},
                                      {"id": 2, "label": "0"}]
    path, = predictions.write_predictions(str(tmp_path), PAIRS, part(), outputs)
    assert path.endswith("/predictions.jsonl") and len(read_lines(path)) == 3


@pytest.mark.parametrize("task, name, wanted", [
    ("wsc", "test", "cluewsc11_predict.json"), ("tnews", "test", "tnews11_predict.json"),
    ("ocnli", "test", "ocnli_50k_predict.json"), ("sts-b", "test", "sts_b_predict.json"),
    ("mnli", "test_mismatched", "mismatched_mnli_predict.json")])
def test_names_of_submissions(task, name, wanted):
    assert predictions.submission_name(TASKS[task], part(name)) == wanted


def test_a_submission_keeps_ids_and_answers_questions_with_several_choices():
    outputs = np.array([[.6, .4], [.8, .2], [.5, .5], [.1, .9]])
    examples = [Example("a", "b", None, number) for number in ("7", "7", "q9", "007")]
    assert predictions.submission_lines(COPA, examples, outputs) == [
        {"id": 7, "label": "0"}, {"id": "q9", "label": "1"}]
    plain = dataclasses.replace(COPA, pairs_per_question=1)
    assert predictions.submission_lines(plain, examples, outputs)[3] == {"id": "007", "label": "1"}


def test_near_ties_and_small_numbers_keep_their_float32(tmp_path):
    values = np.array([np.float32(0.5), np.nextafter(np.float32(0.5), 1, dtype=np.float32), np.float32(1e-9)])
    assert [np.float32(predictions.exact(value)) for value in values] == list(values)
    assert len({predictions.exact(value) for value in values}) == 3
