import dataclasses
import json
import os
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_training
from estimator import finetune, model_fn, model_folder, npu
from estimator.model_fn import TrainingConfig
from estimator.model_folder import ModelFolder
from etl.command_line import UserError
from etl.tokenization import TokenizerConfig

WORDS = tiny_training.WORDS


def run(capsys, *flags):
    """Runs the command; returns its exit status, its output and its errors."""
    status = finetune.main(list(map(str, flags)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def write_task(folder):
    """A task to learn in a few steps: the label says whether a and b are the same word."""
    folder.mkdir()
    for part, count in (("train", 40), ("dev", 7), ("test", 5)):
        lines = ["%s\t%s\t%d" % (WORDS[number % 15], WORDS[(number + number % 2) % 15], 1 - number % 2)
                 for number in range(count)]
        (folder / (part + ".tsv")).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_pretrained(folder):
    """A model folder as estimator.pretrain leaves it, untrained."""
    vocabulary = tiny_training.write_vocabulary(folder.parent / "vocab.txt")
    model_folder.write(str(folder), ModelFolder(tiny_training.CONFIG, TokenizerConfig(vocabulary, do_lower_case=False),
                                                max_seq_length=8, data_manifest_sha256="ab" * 32))
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        record = {name: tf.constant(values[None]) for name, values in tiny_training.record_values(0).items()}
        model_fn.pretraining_model_fn(tiny_training.CONFIG, TrainingConfig("adamw", 0.1, 1, 0, 1))(
            dict(record, is_real_example=tf.ones([1], tf.int32)), tf.estimator.ModeKeys.EVAL)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(folder / "model.ckpt-9"))


def flags_of(folder, output_dir="out"):
    return ["--data_dir", str(folder / "task"), "--init_checkpoint", str(folder / "pretrained"), "--output_dir",
            str(folder / output_dir), "--max_seq_length", "8", "--train_batch_size", "8", "--eval_batch_size", "4",
            "--predict_batch_size", "4", "--learning_rate", "0.01", "--num_train_epochs", "1", "--backend", "cpu"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a task and a pretrained model."""
    folder = tmp_path_factory.mktemp("inputs")
    write_task(folder / "task")
    (folder / "pretrained").mkdir()
    write_pretrained(folder / "pretrained")
    return folder


@pytest.fixture(scope="module")
def trained(inputs):
    """The same folder after one run that trains, evaluates and predicts."""
    assert finetune.main(flags_of(inputs) + ["--do_train", "--do_eval", "--do_predict"]) == 0
    return inputs


def test_every_dev_example_is_evaluated(trained):
    results = json.loads((trained / "out" / "eval_results.json").read_text())
    assert sorted(results) == ["eval_accuracy", "eval_loss", "global_step", "majority_accuracy", "num_examples"]
    assert (results["global_step"], results["num_examples"]) == (5, 7)
    assert results["eval_accuracy"] * 7 == pytest.approx(round(results["eval_accuracy"] * 7))
    assert results["majority_accuracy"] == pytest.approx(4 / 7)


def test_every_test_example_is_predicted_in_order(trained):
    rows = [[float(value) for value in line.split("\t")]
            for line in (trained / "out" / "test_results.tsv").read_text().splitlines()]
    assert np.array(rows).shape == (5, 2) and np.sum(rows, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    found = [json.loads(line) for line in (trained / "out" / "predictions.jsonl").read_text().splitlines()]
    assert found == [{"id": number, "label": str(int(np.argmax(row)))} for number, row in enumerate(rows)]


def test_the_model_folder_says_all_that_serving_needs(trained):
    found = model_folder.read(str(trained / "out"))
    assert (found.task, found.labels, found.max_seq_length) == ("sentence_pair", ("0", "1"), 8)
    assert found.config == tiny_training.CONFIG
    assert found.tokenizer == TokenizerConfig(str(trained / "out" / "vocab.txt"), do_lower_case=False)
    assert found.data_manifest_sha256 == "ab" * 32


def test_without_training_the_folder_is_enough(trained, capsys):
    flags = ["--data_dir", trained / "task", "--output_dir", trained / "out", "--max_seq_length", 8,
             "--do_train", "false", "--optimizer", "lamb"]          # the last is of no account here
    before = (trained / "out" / "eval_results.json").read_text()
    status, output, errors = run(capsys, *flags)
    assert (status, errors) == (0, "")
    assert "Step 5, 7 dev examples: eval_accuracy" in output
    assert "Next: python -m serving.export --checkpoint_dir %s" % (trained / "out") in output
    after = (trained / "out" / "eval_results.json").read_text()
    assert json.loads(after) == pytest.approx(json.loads(before), abs=1e-6)


@pytest.mark.parametrize("flags, message", [
    (["--task_name", "lcqmc"], "out holds a model whose task is sentence_pair, not lcqmc: give another folder"),
    (["--max_seq_length", 12], "out holds a model whose max_seq_length is 8, not 12"),
    (["--init_checkpoint", "none", "--albert_config_file", "{config}", "--vocab_file", "{vocabulary}",
      "--do_lower_case", "false"],
     r"out holds another run: initial values was model.ckpt-9.index \([0-9a-f]{12}\), is now none"),
    (["--optimizer", "lamb"], "out holds a model whose optimizer is adamw, not lamb"),
])
def test_a_folder_of_another_training_is_refused(trained, capsys, flags, message):
    config = tiny_training.write_config(trained / "config.json")
    flags = [str(flag).format(config=config, vocabulary=trained / "vocab.txt") for flag in flags]
    status, _, errors = run(capsys, *flags_of(trained), *flags)
    assert status == 1 and errors.count("\n") == 1
    assert re.search(message, errors), errors


@pytest.mark.parametrize("flags, message", [
    (["--init_checkpoint", "nowhere"], "--init_checkpoint: nowhere: no such file or folder: run python -m estimator"),
    (["--data_dir", "nowhere"], "task sentence_pair: no such file: nowhere/train.tsv"),
    (["--task_name", "chnsenticorp"], "train.tsv: line 1: wanted label and text_a separated by a tab, got 3 fields"),
    (["--max_seq_length", 17], r"--max_seq_length must be in \[3, 16\], .*; got 17"),
    (["--max_seq_length", 2], r"--max_seq_length must be in \[3, 16\], .*; got 2"),
    (["--train_batch_size", 41], "--train_batch_size is 41, but there are only 40 training examples"),
    (["--albert_config_file", "tiny"], "vocab_size is 21128 in the config, but the vocabulary .* has 20 entries"),
    (["--do_train", "false"], "unused: no model here"),
    (["--backend", "npu"], "--backend npu: the Python package npu_bridge is not installed"),
])
def test_a_mistake_is_one_line_and_nothing_is_written(inputs, capsys, flags, message):
    status, _, errors = run(capsys, *flags_of(inputs, "unused"), *flags)
    assert status == 1 and errors.count("\n") == 1
    assert re.search("^estimator.finetune: error: .*" + message, errors), errors
    assert not (inputs / "unused").exists()


def config_of(inputs, **changes):
    config = finetune.FinetuneConfig(data_dir=str(inputs / "task"), init_checkpoint=str(inputs / "pretrained"),
                                     max_seq_length=8)
    return dataclasses.replace(config, **changes)


def test_a_released_checkpoint_needs_config_and_vocabulary(inputs, tmp_path):
    for name in os.listdir(str(inputs / "pretrained")):
        if name.startswith(("model.ckpt", "checkpoint")):
            (tmp_path / name).write_bytes((inputs / "pretrained" / name).read_bytes())
    config = config_of(inputs, init_checkpoint=str(tmp_path))
    prefix, task = finetune.find_init_checkpoint(config), finetune.TASKS["sentence_pair"]
    with pytest.raises(UserError, match="there is no model.json to say what it is: give --albert_config_file and --"):
        finetune.describe_model(config, task, prefix)
    config = dataclasses.replace(config, vocab_file=str(inputs / "vocab.txt"),
                                 albert_config_file=tiny_training.write_config(tmp_path / "config.json"))
    found = finetune.describe_model(config, task, prefix)
    assert (found.config, found.tokenizer) == (tiny_training.CONFIG, TokenizerConfig(str(inputs / "vocab.txt"), True))


def test_another_vocabulary_than_the_models_is_refused(inputs, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(tiny_training.TOKENS[:-1] + ("雪",)) + "\n", encoding="utf-8")
    config = config_of(inputs, vocab_file=str(tmp_path / "vocab.txt"))
    with pytest.raises(UserError, match="is not the vocabulary that the model was trained with, .*leave the flag out"):
        finetune.describe_model(config, finetune.TASKS["sentence_pair"], finetune.find_init_checkpoint(config))


def test_steps_are_whole_batches_of_all_epochs(inputs):
    assert finetune.count_steps(config_of(inputs, num_train_epochs=3.0), npu.Device(), 396) == 37
    assert finetune.count_steps(config_of(inputs, num_train_epochs=0.01), npu.Device(), 396) == 1
    assert finetune.count_steps(config_of(inputs, iterations_per_loop=10), npu.Device("npu"), 396) == 30


@pytest.mark.parametrize("flags, message", [
    (["--warmup_proportion", "1.5"], "warmup_proportion must be in [0, 1], got 1.5"),
    (["--num_train_epochs", "0"], "num_train_epochs must be above 0, got 0.0"),
    (["--do_train=false", "--do_eval=false"], "nothing to do"),
    (["--task_name", "tnews2"], "invalid choice: 'tnews2'"),
    (["--epochs", "3"], "unrecognized arguments: --epochs"),
])
def test_a_flag_out_of_range_ends_before_anything_is_read(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        finetune.main(flags)
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and message in errors and errors.count("\n") == 1
