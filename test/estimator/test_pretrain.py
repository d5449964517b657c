import dataclasses
import json
import math
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_training
from estimator import pretrain
from estimator.model import heads, modeling
from estimator.pretraining import job
from estimator.pretraining.flags import PretrainConfig
from etl.common.command_line import UserError
from tiny_training import record_values, write_records


def run(capsys, *flags):
    """Runs the command; returns its exit status, its output and its errors."""
    status = pretrain.main(list(map(str, flags)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data, a config, and a model trained for 6 steps and evaluated."""
    folder = tmp_path_factory.mktemp("made")
    tiny_training.write_build(folder / "data", num_train=30, num_eval=5, counters={"cut_samples": 2})
    tiny_training.write_config(folder / "config.json")
    assert pretrain.main(flags_of(folder, "out") + ["--num_train_steps", "6"]) == 0
    return folder


def flags_of(folder, output_dir):
    return ["--input_file", str(folder / "data"), "--albert_config_file", str(folder / "config.json"),
            "--output_dir", str(folder / output_dir), "--train_batch_size", "8", "--eval_batch_size", "4",
            "--num_warmup_steps", "2", "--learning_rate", "0.05", "--optimizer", "adamw",
            "--save_checkpoints_steps", "3", "--log_steps", "2", "--backend", "cpu"]


@pytest.fixture
def folder(made, tmp_path):
    """The same data and config, and no model."""
    shutil.copytree(str(made / "data"), str(tmp_path / "data"))
    shutil.copy(str(made / "config.json"), str(tmp_path / "config.json"))
    return tmp_path


def test_a_run_leaves_a_model_folder_and_results_of_every_record(made):
    out = made / "out"
    assert {"albert_config.json", "vocab.txt", "model.json", "run_config.json", "checkpoint",
            "model.ckpt-6.index", "eval_results.txt", "eval_results.json"} <= set(os.listdir(str(out)))
    assert [path.name for path in out.glob("model.ckpt-*")
            if path.suffix not in (".index", ".data-00000-of-00001")] == []
    assert not (out / "graph.pbtxt").exists()
    graphs = [event for path in out.glob("events*") for event in tf.train.summary_iterator(str(path))
              if event.graph_def]
    assert graphs                              # which TensorBoard shows
    results = json.loads((out / "eval_results.json").read_text())
    assert sorted(results) == [
        "global_step", "masked_lm_accuracy", "masked_lm_loss", "num_examples", "num_uncut_examples",
        "perplexity", "sentence_order_accuracy", "sentence_order_accuracy_uncut", "sentence_order_loss",
        "uniform_cross_entropy", "unigram_accuracy", "unigram_cross_entropy"]
    assert [results[name] for name in ("global_step", "num_examples", "num_uncut_examples")] == [6, 5, 3]
    assert results["uniform_cross_entropy"] == pytest.approx(math.log(20))
    assert (results["unigram_cross_entropy"]
            == pytest.approx(-math.log(3 / 50)))    # each word twice in 30, add one
    lines = (out / "eval_results.txt").read_text().splitlines()
    assert lines == sorted(lines) and lines[0] == "global_step = 6"


def test_a_longer_run_goes_on_and_a_finished_one_is_evaluated_again(made, capsys):
    status, output, errors = run(capsys, *flags_of(made, "out"), "--num_train_steps", 8)
    assert status == 1 and "out holds a different run: num_train_steps was 6, is now 8. Use" in errors
    status, output, errors = run(capsys, *flags_of(made, "out"), "--num_train_steps", 8, "--do_eval", "false",
                                 "--allow_changes")
    assert (status, errors) == (0, "")
    assert "Changed since the previous run: num_train_steps was 6, is now 8" in output
    assert "Resuming from step 6 of 8" in output and "step 7/8" in output and "step 8/8" in output
    status, output, errors = run(capsys, *flags_of(made, "out"), "--num_train_steps", 8)
    assert (status, errors) == (0, "")
    assert "Nothing to train: %s is at step 8 of 8" % (made / "out") in output
    assert "Step 8, 5 records held out:" in output
    assert "Next: python -m estimator.finetune --init_checkpoint %s" % (made / "out") in output


def test_records_of_older_tools(folder):
    for name, numbers in (("a", range(9)), ("b", range(9, 16)), ("held_out", range(3))):
        write_records(folder / ("%s.tfrecord" % name), [record_values(number) for number in numbers])
    config = PretrainConfig(
        input_file=(str(folder / "[ab].tfrecord"),), eval_input_file=(str(folder / "held_out.tfrecord"),),
        vocab_file=str(folder / "data" / "vocab.txt"), max_seq_length=8, max_predictions_per_seq=2)
    data = job.find_data(config)
    assert (data.num_train_records, data.num_eval_records, data.vocab_size) == (16, 3, 20)
    alone = dataclasses.replace(config, eval_input_file=())
    with pytest.raises(UserError,
                       match="has no records to evaluate on: .*--eval_input_file, or give --do_eval"):
        job.find_data(alone)
    assert job.find_data(dataclasses.replace(alone, do_train=False)).num_eval_records == 16
    assert job.find_data(dataclasses.replace(alone, do_eval=False)).num_eval_records == 0


@pytest.mark.parametrize("flags, message", [
    (["--train_batch_size", 31], "--train_batch_size is 31, but .*data holds only 30 training records"),
    (["--input_file", "nowhere"],
     "--input_file: nowhere: no such file or folder: run python -m etl.build_pretrain"),
    (["--max_seq_length", 128], "--max_seq_length is 128, but the records have 8"),
    (["--albert_config_file", "tiny"],
     "vocab_size is 21128 in tiny, but the vocabulary .*vocab.txt, has 20 entries"),
    (["--init_checkpoint", "nowhere"], "--init_checkpoint: nowhere: no checkpoint there"),
    (["--iterations_per_loop", 2], "on-device loops exist only on the NPU"),
    (["--backend", "npu"], "--backend npu: the Python package npu_bridge is not installed"),
    (["--vocab_file", "vocab.txt"], "--vocab_file is for records without a manifest"),
    (["--do_train", "false"], "out has no checkpoint: train first"),
])
def test_a_mistake_is_one_line_and_nothing_is_written(folder, capsys, flags, message):
    given = flags_of(folder,
                     "out")[2:] if "--input_file" in flags else flags_of(folder, "out")   # several add up
    status, _, errors = run(capsys, *given, "--num_train_steps", 2, *flags)
    assert status == 1 and errors.count("\n") == 1
    assert re.search("^estimator.pretrain: error: .*" + message, errors), errors
    assert not (folder / "out").exists()


@pytest.mark.parametrize("flags, message", [
    (["--num_train_steps", "100", "--num_warmup_steps", "101"],
     "num_warmup_steps must be in [0, 100], since num_train_steps is 100; got 101"),
    (["--train_batch_size", "0"], "train_batch_size must be at least 1, got 0"),
    (["--learning_rate", "0"], "learning_rate must be above 0, got 0.0"),
    (["--do_train", "false", "--do_eval", "false"], "nothing to do"),
    (["--num_train_step", "5"], "unrecognized arguments: --num_train_step"),
    (["--optimizer", "sgd"], "invalid choice: 'sgd'"),
])
def test_a_flag_out_of_range_ends_before_anything_is_read(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        pretrain.main(flags)
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and message in errors and errors.count("\n") == 1


def test_a_damaged_record_is_named(folder, capsys):
    path = folder / "data" / "tf_examples-00000-of-00002.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    status, _, errors = run(capsys, *flags_of(folder, "out"), "--num_train_steps", 8)
    assert status == 1 and errors.count("\n") == 1
    assert "00000-of-00002.tfrecord: record 7 does not match its checksum: the file is damaged" in errors


@pytest.mark.parametrize("given, num_records, wanted", [
    ({}, 409600, (4096, 125000, 3125)),
    ({}, 409599, (32, 38399, 959)),
    ({}, 20, (20, 3, 0)),
    ({"train_batch_size": 64, "num_train_steps": 1000}, 5000, (64, 1000, 25)),
    ({"num_train_steps": 1000, "num_warmup_steps": 0}, 5000, (32, 1000, 0)),
])
def test_sizes_that_were_not_given_are_the_published_ones_or_a_few_epochs(given, num_records, wanted):
    config = job.with_sizes(PretrainConfig(**given), num_records)
    assert (config.train_batch_size, config.num_train_steps, config.num_warmup_steps) == wanted


def test_a_warm_up_longer_than_the_run_that_small_data_gives_is_refused():
    with pytest.raises(UserError,
                       match="num_warmup_steps is 50, longer than the run of 9 steps that 100 records give"):
        job.with_sizes(PretrainConfig(num_warmup_steps=50), 100)


GOOGLE_NAMES = ["bert/embeddings/" + name for name in (
    "word_embeddings", "token_type_embeddings", "position_embeddings", "LayerNorm/beta",
    "LayerNorm/gamma")] + [
    "bert/encoder/embedding_hidden_mapping_in/" + name for name in ("kernel", "bias")] + [
    "bert/encoder/transformer/group_0/inner_group_0/" + name for name in (
        "attention_1/self/query/kernel", "attention_1/self/query/bias", "attention_1/self/key/kernel",
        "attention_1/self/key/bias", "attention_1/self/value/kernel", "attention_1/self/value/bias",
        "attention_1/output/dense/kernel", "attention_1/output/dense/bias", "LayerNorm/beta",
        "LayerNorm/gamma", "ffn_1/intermediate/dense/kernel", "ffn_1/intermediate/dense/bias",
        "ffn_1/intermediate/output/dense/kernel",
        "ffn_1/intermediate/output/dense/bias", "LayerNorm_1/beta", "LayerNorm_1/gamma")] + [
    "bert/pooler/dense/kernel", "bert/pooler/dense/bias", "cls/predictions/transform/dense/kernel",
    "cls/predictions/transform/dense/bias", "cls/predictions/transform/LayerNorm/beta",
    "cls/predictions/transform/LayerNorm/gamma", "cls/predictions/output_bias",
    "cls/seq_relationship/output_weights", "cls/seq_relationship/output_bias"]
ALBERT_ZH_NAMES = [
    name.replace("transformer/group_0/inner_group_0", "layer_shared").replace("attention_1", "attention")
    .replace("ffn_1/intermediate/output", "output").replace("ffn_1/", "")
    .replace("layer_shared/LayerNorm_1", "layer_shared/output/LayerNorm")
    .replace("layer_shared/LayerNorm", "layer_shared/attention/output/LayerNorm")
    for name in GOOGLE_NAMES if "mapping_in" not in name] + ["bert/embeddings/word_embeddings_2"]


@pytest.mark.parametrize("config, names, slots, said", [
    (dataclasses.replace(tiny_training.CONFIG, num_hidden_groups=1, inner_group_num=1), GOOGLE_NAMES, "adam",
     "64 of 64 optimizer slots are in the file"),
    (tiny_training.CONFIG, ALBERT_ZH_NAMES, None,
     "0 of 62 optimizer slots are in the file; the others start at 0"),
])
def test_pretraining_goes_on_from_a_released_checkpoint_with_its_heads(folder, capsys, config, names, slots,
                                                                       said):
    tiny_training.write_config(folder / "config.json", config)
    values = write_released(folder / "released" / "albert_model.ckpt", config, names, slots)
    status, output, errors = run(capsys, *flags_of(folder, "out"), "--init_checkpoint", folder / "released",
                                 "--num_train_steps", 2, "--optimizer", "lamb" if slots else "adamw")
    assert (status, errors) == (0, "")
    weights = [name for name in values if not name.endswith(("/adam_m", "/adam_v"))]
    assert "loaded %d variables from" % len(weights) in output and said in output and " new:" not in output
    start = tf.train.load_checkpoint(str(folder / "out" / "model.ckpt-0"))
    for name, value in values.items():
        np.testing.assert_array_equal(start.get_tensor(name), value, err_msg=name)


def test_a_released_checkpoint_that_lacks_a_variable_is_refused(folder, capsys):
    write_released(folder / "released" / "albert_model.ckpt", tiny_training.CONFIG,
                   [name for name in ALBERT_ZH_NAMES if name != "cls/seq_relationship/output_bias"], None)
    status, _, errors = run(capsys, *flags_of(folder, "out"), "--init_checkpoint", folder / "released",
                            "--num_train_steps", 2)
    assert status == 1 and not (folder / "out").exists()
    assert ("does not fit the model: 1 missing: cls/seq_relationship/output_bias. It is of the "
            "albert_zh family" in errors)          # half a head is none that could be started anew


def test_new_heads_start_anew_and_are_named(folder, capsys):
    values = write_released(folder / "released" / "albert_model.ckpt", tiny_training.CONFIG,
                            [name for name in ALBERT_ZH_NAMES if name.startswith("bert/")], None)
    status, output, errors = run(capsys, *flags_of(folder, "out"), "--init_checkpoint", folder / "released",
                                 "--new_heads", "--num_train_steps", 2)
    assert (status, errors) == (0, "")
    assert "loaded 24 variables from" in output and "; 7 new: cls/predictions/output_bias, cls/" in output
    start = tf.train.load_checkpoint(str(folder / "out" / "model.ckpt-0"))
    for name, value in values.items():
        np.testing.assert_array_equal(start.get_tensor(name), value, err_msg=name)


def test_a_checkpoint_of_another_vocabulary_is_refused(folder, capsys):
    write_released(folder / "released" / "albert_model.ckpt", tiny_training.CONFIG, ALBERT_ZH_NAMES, None)
    words = tiny_training.TOKENS[:5] + tiny_training.TOKENS[:4:-1]
    (folder / "released" / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    status, _, errors = run(capsys, *flags_of(folder, "out"), "--init_checkpoint", folder / "released",
                            "--num_train_steps", 2)
    assert status == 1 and not (folder / "out").exists()
    assert "is not the vocabulary that the model was trained with, " in errors
    assert errors.endswith("vocab.txt: 14 of 20 entries differ, the first in line 6: 天, there 雨\n")


def write_released(prefix, config, names, slots):
    """A checkpoint with the names of a released one, random values, and moments where `slots` names
    the rule."""
    prefix.parent.mkdir()
    rng = np.random.RandomState(0)
    values = {}
    with tf.Graph().as_default(), tf.Session() as session:
        pretrain_graph(config)
        shapes = {variable.op.name: variable.shape.as_list() for variable in tf.trainable_variables()}
    for name in names:
        values[name] = rng.standard_normal(shapes[name]).astype(np.float32)
        for moment in "mv" if slots else "":
            values["%s/%s_%s" % (name, slots, moment)] = rng.random_sample(shapes[name]).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, initializer=value) for name, value in values.items()]
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables).save(session, str(prefix), write_state=False)
    return values


def pretrain_graph(config):
    encoded = modeling.build_encoder(config, tf.zeros([1, 1], tf.int32))
    heads.masked_lm_logits(config, encoded, tf.zeros([1, 1], tf.int32))
    heads.sentence_order(config, encoded)
