import numpy as np
import pytest

from estimator.data.rows import Rows
from estimator.data.tasks import TASKS, Example
from estimator.finetuning import classes
from estimator.finetuning.classes import CLASS_KIND
from estimator.finetuning.flags import FinetuneConfig
from estimator.finetuning.kind import Setting
from estimator.finetuning.predictions import Part
from estimator.npu.devices import Device
from estimator.training import model_fn
from etl.common.command_line import UserError

PAIRS, SINGLE, REGRESSION = TASKS["sentence_pair"], TASKS["single_sentence"], TASKS["sts-b"]
PAIR, TEXT = Example("天", "地", "0"), Example("天", None, "0")


@pytest.mark.parametrize("given, label_ids, wanted", [
    ((), [0, 1, 1], []),
    (("1", "0.5"), [0, 1, 1], [1.0, 0.5]),
    (("0", "2"), [0], [0.0, 2.0]),
    (("balanced",), [0, 1, 1, 1], [2.0, 4 / 6]),
    (("balanced",), [1, 1], [1.0, 0.5]),       # a class without examples counts as one with one
])
def test_class_weights(given, label_ids, wanted):
    config = FinetuneConfig(task_name="sentence_pair", class_weights=given)
    assert classes.class_weights(config, PAIRS, label_ids) == pytest.approx(wanted)


@pytest.mark.parametrize("given", [("1", "-2"), ("0", "0"), ("a", "1"), ("nan", "1"), ("inf", "1"),
                                   ("balanced", "1")])
def test_class_weights_that_are_none(given):
    config = FinetuneConfig(task_name="sentence_pair", class_weights=given)
    with pytest.raises(UserError,
                       match="--class_weights must be balanced, or numbers of at least 0, not all of them 0"):
        classes.class_weights(config, PAIRS, [0, 1])


@pytest.mark.parametrize("task, example, flags, message", [
    (PAIRS, PAIR, {"doc_stride": 4}, "--doc_stride is for tasks with one text; sentence_pair has pairs"),
    (SINGLE, TEXT, {"doc_stride": 7, "max_seq_length": 8},
     "--doc_stride must be at most --max_seq_length - 2, which is 6, or words are skipped; got 7"),
    (REGRESSION, PAIR, {"class_weights": ("balanced",)}, "--class_weights: sts-b has no classes"),
    (PAIRS, PAIR, {"class_weights": ("1", "2", "3")},
     "--class_weights: task sentence_pair has 2 labels, got 3 weights"),
    (REGRESSION, PAIR, {"best_metric": "accuracy"}, "--best_metric: task sts-b has no accuracy"),
    (PAIRS, PAIR, {"best_metric": "pearson"}, "--best_metric: task sentence_pair has no pearson"),
])
def test_flags_that_do_not_fit_the_task(task, example, flags, message):
    with pytest.raises(UserError) as error:
        CLASS_KIND.check_flags(FinetuneConfig(task_name=task.name, data_dir="x", **flags), task,
                            {"train": [example]})
    assert str(error.value) == message


@pytest.mark.parametrize("task, example, flags", [
    (PAIRS, PAIR, {}), (SINGLE, TEXT, {"doc_stride": 6, "max_seq_length": 8}),
    (REGRESSION, PAIR, {"best_metric": "pearson"}), (PAIRS, PAIR, {"class_weights": ("balanced",)}),
    (PAIRS, PAIR, {"class_weights": ("1", "2"), "best_metric": "f1"})])
def test_flags_that_fit(task, example, flags):
    CLASS_KIND.check_flags(FinetuneConfig(task_name=task.name, data_dir="x", **flags), task,
                        {"train": [example], "dev": []})


@pytest.mark.parametrize("parts, wanted", [(("train", "dev"), [2.0, 2 / 3]), (("dev",), [])])
def test_the_model_learns_with_the_weights_of_the_training_examples(monkeypatch, parts, wanted):
    labels = np.int32([0, 1, 1, 1])
    rows = Rows(np.int32([1] * 4), np.int32([0] * 4), np.arange(5), np.int32(range(4)), labels)
    config = FinetuneConfig(task_name="sentence_pair", class_weights=("balanced",))
    folder = type("Folder", (), {"config": "a config"})
    setting = Setting(config, PAIRS, Device(), folder, {name: Part(name, [PAIR] * 4, rows) for name in parts},
                      None)
    monkeypatch.setattr(model_fn, "classifier_model_fn", lambda *arguments: arguments)
    model, numbers, num_labels, weights = CLASS_KIND.model_fn(setting, "numbers")
    assert (model, numbers, num_labels) == ("a config", "numbers", 2) and weights == pytest.approx(wanted)
