import json
from types import SimpleNamespace

import pytest

from estimator.finetuning import label_thresholds
from estimator.weights.model_folder import Labelling
from etl.common.command_line import UserError


def model(threshold):
    return SimpleNamespace(labels=("x", "y"), labelling=Labelling(threshold))


def test_one_threshold_for_all():
    assert label_thresholds.of_model("nowhere/model.ckpt-3", model("0.25")) == [0.25, 0.25]


def test_what_was_found_is_beside_its_checkpoint(tmp_path):
    checkpoint = str(tmp_path / "model.ckpt-3")
    path = label_thresholds.write(checkpoint, model("dev"), [0.25, 0.75])
    assert json.loads((tmp_path / "label_thresholds.json").read_text(encoding="utf-8")) == {
        "checkpoint": "model.ckpt-3", "thresholds": {"x": 0.25, "y": 0.75}}
    assert label_thresholds.of_model(checkpoint, model("dev")) == [0.25, 0.75]
    with pytest.raises(UserError, match="checkpoint is model.ckpt-3, wanted model.ckpt-4"):
        label_thresholds.of_model(str(tmp_path / "model.ckpt-4"), model("dev"))
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({"checkpoint": "model.ckpt-3", "thresholds": {"x": 0.25}}, stream)
    with pytest.raises(UserError, match="a number in .0, 1. for each label"):
        label_thresholds.of_model(checkpoint, model("dev"))


def test_thresholds_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="label_thresholds.json: no such file"):
        label_thresholds.of_model(str(tmp_path / "model.ckpt-3"), model("dev"))
