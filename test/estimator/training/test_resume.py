import dataclasses
import json
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_training
from estimator.training import resume
from estimator.weights import model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common.command_line import FIXED, FREE, SAME_CONTENT, UserError, flag
from etl.text.tokenization import TokenizerConfig

FACTS = {"initial values": "none", "training data": "train.tsv (0123)"}


@dataclasses.dataclass(frozen=True)
class Flags:
    optimizer: str = flag("lamb", "", on_resume=FIXED)
    train_batch_size: int = flag(8, "")
    input_file: tuple = flag(("a",), "", on_resume=SAME_CONTENT)
    log_steps: int = flag(100, "", on_resume=FREE)


@pytest.fixture
def description(tmp_path):
    vocabulary = tiny_training.write_vocabulary(tmp_path / "vocab.txt")
    return ModelFolder(tiny_training.CONFIG, TokenizerConfig(vocabulary), max_seq_length=8)


@pytest.fixture
def folder(tmp_path, description):
    """A folder with a checkpoint of step 7."""
    path = str(tmp_path / "out")
    model_folder.write(path, description)
    resume.write_run(path, "estimator.pretrain", Flags(), "cpu", FACTS)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("global_step", initializer=np.int64(7))
        tf.get_variable("weights", initializer=np.ones(1000, np.float32))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, path + "/model.ckpt", global_step=7)
    return path


def test_an_empty_folder_is_free(tmp_path, description):
    resume.check_model(str(tmp_path / "none"), description)
    assert resume.check_training(str(tmp_path / "none"), Flags(), FACTS) == []
    assert resume.position(str(tmp_path / "none")) == (0, 0)


def test_the_same_run_goes_on_where_it_stopped(folder, description):
    resume.check_model(folder, description)
    assert resume.check_training(folder, Flags(), FACTS) == []
    assert resume.position(folder) == (7, 7)
    assert resume.position(folder, accumulation_steps=3) == (7, 21)


def test_a_checkpoint_that_no_training_wrote(folder):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("weights", initializer=np.ones(10, np.float32))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, folder + "/averaged")
    with pytest.raises(UserError, match="averaged: not a training run's, since it has no global_step: give "
                       "it as --init_checkpoint"):
        resume.position(folder)


def test_changes_are_listed_and_refused_unless_they_are_allowed(folder):
    flags = Flags(train_batch_size=16, log_steps=1, input_file=("elsewhere",))
    facts = dict(FACTS, **{"training data": "other.tsv (4567)"})
    changes = ["train_batch_size was 8, is now 16",
               "training data was train.tsv (0123), is now other.tsv (4567)"]
    with pytest.raises(UserError, match=re.escape("out holds a different run: %s. Use another folder"
                                                  % "; ".join(changes))):
        resume.check_training(folder, flags, facts)
    assert resume.check_training(folder, flags, facts, allow_changes=True) == changes


def test_a_path_may_change_where_its_content_is_the_same(folder):
    assert resume.check_training(folder, Flags(input_file=("moved",), log_steps=1), FACTS) == []


@pytest.mark.parametrize("change, message", [
    (dict(max_seq_length=16), "whose max_seq_length is 8, not 16: give another folder"),
    (dict(task="afqmc"), "whose task is None, not afqmc"),
    (dict(labels=("0", "1")), "whose labels is .*, not "),
    (dict(config=dataclasses.replace(tiny_training.CONFIG, num_hidden_layers=3)),
     "whose num_hidden_layers is 1, not 3"),
])
def test_another_model_is_refused(folder, description, change, message):
    with pytest.raises(UserError, match="--output_dir: .*out holds a model " + message):
        resume.check_model(folder, dataclasses.replace(description, **change))


def test_another_vocabulary_is_refused(folder, description):
    with open(description.tokenizer.vocab_file, "a") as stream:
        stream.write("x\n")
    with pytest.raises(UserError,
                       match="whose vocabulary is of SHA-256 [0-9a-f]{12}, not of SHA-256 [0-9a-f]{12}"):
        resume.check_model(folder, description)


def test_another_beginning_is_refused(folder):
    facts = dict(FACTS, **{"initial values": "model.ckpt-9.index (4567)"})
    with pytest.raises(UserError, match=r"initial values was none, is now model.ckpt-9.index \(4567\)"):
        resume.check_training(folder, Flags(), facts)


def test_another_optimizer_is_refused(folder):
    with pytest.raises(UserError, match="holds a model whose optimizer is lamb, not adamw"):
        resume.check_training(folder, Flags(optimizer="adamw"), FACTS, allow_changes=True)


def test_checkpoints_of_unknown_origin_are_refused(folder, description, tmp_path):
    (tmp_path / "out" / "model.json").unlink()
    with pytest.raises(UserError, match="has a checkpoint, but no model.json that describes it"):
        resume.check_model(folder, description)


def test_a_damaged_checkpoint_is_named(folder):
    data = folder + "/model.ckpt-7.data-00000-of-00001"
    with open(data, "r+b") as stream:
        stream.truncate(100)
    with pytest.raises(UserError, match="model.ckpt-7: damaged: weights cannot be read"):
        resume.position(folder)


def test_run_config_says_how_it_was_made(folder):
    with open(folder + "/run_config.json") as stream:
        run = json.load(stream)
    assert run["command"] == ("python -m estimator.pretrain --optimizer lamb --train_batch_size 8 "
                              "--input_file a --log_steps 100")
    assert (run["backend"], run["facts"], run["flags"]["train_batch_size"]) == ("cpu", FACTS, 8)
    assert run["versions"]["tensorflow"] == tf.__version__


def test_a_flag_of_the_run_is_known(folder, tmp_path):
    assert resume.flag_of_run(folder, "train_batch_size") == 8
    assert resume.flag_of_run(folder, "of_no_version") is None and resume.flag_of_run(
        str(tmp_path), "optimizer") is None


def test_facts_tell_files_apart_by_content(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "ckpt.index").write_text("y")
    assert resume.file_fact(str(tmp_path / "a")) == "a (2d711642b726)"
    assert resume.checkpoint_fact(str(tmp_path / "ckpt")).startswith("ckpt.index (")
    assert resume.checkpoint_fact(None) == "none"
    before = resume.files_fact([str(tmp_path / "a"), str(tmp_path / "ckpt.index")])
    (tmp_path / "a").write_text("z")
    assert resume.files_fact([str(tmp_path / "a"), str(tmp_path / "ckpt.index")]) != before
