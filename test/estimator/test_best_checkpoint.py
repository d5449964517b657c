import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_training
from estimator import best_checkpoint, checkpoint_files, model_folder
from estimator.best_checkpoint import keep_if_best
from estimator.model_folder import ModelFolder
from etl.command_line import UserError
from etl.tokenization import TokenizerConfig


@pytest.fixture
def keep(tmp_path):
    """Offers a checkpoint of a step that reached a loss."""
    description = ModelFolder(tiny_training.CONFIG, TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "v.txt")), 8)

    def offer(step, loss):
        prefix = tmp_path / ("model.ckpt-%d" % step)
        for ending in (".index", ".data-00000-of-00001", ".meta"):
            (tmp_path / (prefix.name + ending)).write_text("%d" % step)
        return keep_if_best(str(tmp_path), str(prefix), description, {"loss": loss, "global_step": step}, "loss")
    return offer


def test_the_best_replaces_the_one_before(keep, tmp_path):
    assert [keep(1, 5.0), keep(3, 4.5), keep(4, 4.0)] == [True, True, True]
    best = tmp_path / "best"
    assert checkpoint_files.resolve(str(best)) == str(best / "model.ckpt-4")
    assert (best / "model.ckpt-4.index").read_text() == "4"
    assert sorted(os.listdir(str(best))) == [
        "albert_config.json", "checkpoint", "eval_results.json", "eval_results.txt", "model.ckpt-4.data-00000-of-00001",
        "model.ckpt-4.index", "model.ckpt-4.meta", "model.ckpt-4.seal.json", "model.json", "vocab.txt"]
    assert json.loads((best / "eval_results.json").read_text()) == {"loss": 4.0, "global_step": 4}
    assert model_folder.read(str(best)).max_seq_length == 8


def test_of_equal_ones_the_first_stays(keep, tmp_path):
    assert [keep(1, 5.0), keep(2, 4.0), keep(3, 4.5), keep(4, 4.0)] == [True, True, False, False]
    (tmp_path / "best" / "model.ckpt-2.index").write_text("cut off")
    assert keep(2, 4.0)
    assert (tmp_path / "best" / "model.ckpt-2.index").read_text() == "2"


def test_one_that_is_no_number_never_replaces_another(keep):
    assert [keep(1, 5.0), keep(2, float("nan")), keep(3, 4.0)] == [True, False, True]
    assert keep(4, 3.0)


def test_copying_that_was_cut_off_leaves_the_one_before(keep, tmp_path, monkeypatch):
    assert keep(1, 5.0)
    monkeypatch.setattr(best_checkpoint.metrics, "write_results", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        keep(2, 4.0)
    assert checkpoint_files.resolve(str(tmp_path / "best")) == str(tmp_path / "best" / "model.ckpt-1")


def test_the_best_is_found_once_it_is_whole(tmp_path):
    assert best_checkpoint.find(str(tmp_path)) is None
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("weights", initializer=np.ones(1000, np.float32))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "best" / "model.ckpt"), global_step=7)
    prefix = str(tmp_path / "best" / "model.ckpt-7")
    assert best_checkpoint.find(str(tmp_path)) == prefix
    os.truncate(prefix + ".data-00000-of-00001", 100)
    with pytest.raises(UserError, match="best/model.ckpt-7: damaged: weights cannot be read"):
        best_checkpoint.find(str(tmp_path))
    os.remove(str(tmp_path / "best" / "checkpoint"))
    assert best_checkpoint.find(str(tmp_path)) is None


@pytest.mark.parametrize("metric, lower", [("masked_lm_loss", True), ("perplexity", True), ("masked_lm_accuracy", False),
                                           ("eval_accuracy", False), ("f1", False)])
def test_which_way_is_better(metric, lower):
    assert best_checkpoint.is_better_lower(metric) is lower
