import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from exported import CONFIG, LABELS, make_classifier, write_model

import serving.exporting.graph_tokenization
from estimator.weights import model_folder
from estimator.weights.model_folder import ModelFolder, Reading
from etl.common.command_line import UserError
from etl.text.tokenization import TokenizerConfig
from serving.export import main
from serving.saved_model import SavedModel

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def checkpoint_dir(finetuned, tmp_path):
    """A copy of the model's folder to spoil."""
    return shutil.copytree(finetuned, str(tmp_path / "finetune"))


def test_holds_all_that_serving_needs(version):
    assert os.listdir(os.path.dirname(version)) == ["7"]
    assert sorted(os.listdir(version)) == ["assets.extra", "saved_model.pb", "variables"]
    assert sorted(os.listdir(os.path.join(version, "assets.extra"))) == [
        "labels.txt", "model_card.json", "tf_serving_warmup_requests", "vocab.txt"]


def test_the_same_export_gives_the_same_bytes(finetuned, version, tmp_path, capsys):
    (tmp_path / "8").mkdir()
    assert main(["--checkpoint_dir", finetuned, "--output_dir", str(tmp_path), "--version", "1"]) == 0
    assert "a server of this folder goes on with version 8, the highest number\n" in capsys.readouterr().out
    for folder, _, names in os.walk(version):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as one, open(path.replace(version, str(tmp_path / "1")), "rb") as other:
                assert one.read() == other.read(), name


def test_values_are_those_of_the_checkpoint(finetuned, version):
    ours = tf.train.load_checkpoint(os.path.join(version, "variables", "variables"))
    trained = tf.train.load_checkpoint(tf.train.latest_checkpoint(finetuned))
    names = set(ours.get_variable_to_shape_map())
    assert names == set(trained.get_variable_to_shape_map()) - {"global_step"}
    for name in names:
        np.testing.assert_array_equal(ours.get_tensor(name), trained.get_tensor(name))


def test_graph_holds_no_path_of_this_machine(finetuned, version):
    with open(os.path.join(version, "saved_model.pb"), "rb") as stream:
        assert os.path.dirname(finetuned).encode() not in stream.read()


def saved_model_cli(*arguments, **environment):
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"] + list(arguments)
    return subprocess.run(command, cwd="/", env=dict(os.environ, PYTHONPATH="", **environment),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True).stdout.decode("utf-8")


def test_stock_tool_shows_every_signature(version):
    shown = saved_model_cli("show", "--dir", version, "--all")
    for name in ("serving_default", "predict_ids", "classify", "examples", "encode", "embed", "text_a",
                 "input_mask", "probabilities", "logits", "label", "classes", "scores", "pooled", "mean"):
        assert "['%s']" % name in shown


@pytest.mark.skipif(not sys.executable.isascii(),
                    reason="protobuf is not imported from such a path in the C locale")
def test_stock_tool_runs_it_in_the_c_locale(version):
    text = str("北京".encode("utf-8"))
    shown = saved_model_cli("run", "--dir", version, "--tag_set", "serve", "--signature_def",
                            "serving_default", "--input_exprs", "text_a=[%s];text_b=[b'']" % text, LC_ALL="C")
    wanted = SavedModel(version).run({"text_a": ["北京"], "text_b": [""]})
    assert "%.4f" % wanted["probabilities"][0, 0] in shown and str(wanted["label"][0]) in shown


def failure(capsys, *arguments):
    assert main(list(arguments)) == 1
    return capsys.readouterr().err


def test_best_checkpoint_default_version_and_next_command(checkpoint_dir, tmp_path, capsys):
    best, output_dir = os.path.join(checkpoint_dir, "best"), str(tmp_path / "export")
    os.mkdir(best)
    for name in os.listdir(checkpoint_dir):
        if name.startswith("model.ckpt") or name == "checkpoint":
            shutil.move(os.path.join(checkpoint_dir, name), best)
    assert main(["--checkpoint_dir", checkpoint_dir, "--output_dir", output_dir]) == 0
    said, (version,) = capsys.readouterr().out, os.listdir(output_dir)
    assert int(version) > 1500000000 and "goes on with" not in said
    assert "Exported %s" % best in said
    assert "Next: python -m serving.predict --model_dir %s --text_a" % output_dir in said


def test_version_that_exists_is_refused(finetuned, version, capsys):
    output_dir = os.path.dirname(version)
    message = failure(capsys, "--checkpoint_dir", finetuned, "--output_dir", output_dir, "--version", "7")
    assert "--version: %s exists" % version in message


def test_folder_without_a_model(tmp_path, capsys):
    assert "run python -m estimator.finetune first" in failure(capsys, "--checkpoint_dir", str(tmp_path))


@pytest.mark.parametrize("changed, message", [
    ({"task": None, "labels": None}, "task: wanted that of a fine-tuned model, got none: run python -m"),
    ({"labels": ["a"]}, "labels: a classifier has at least 2, this model has 1"),
    ({"labels": None}, "output_weights")])             # a regression's has one row
def test_what_is_no_classifier_and_no_regression(checkpoint_dir, tmp_path, capsys, changed, message):
    path = os.path.join(checkpoint_dir, "model.json")
    with open(path, encoding="utf-8") as stream:
        fields = dict(json.load(stream), **changed)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(fields, stream)
    assert message in failure(capsys, "--checkpoint_dir", checkpoint_dir, "--output_dir", str(tmp_path))


def test_a_regression_has_no_ascend_kit(regression_version, tmp_path, capsys):
    folder = os.path.join(os.path.dirname(os.path.dirname(regression_version)), "finetune")
    assert "--format ascend is for classifiers; the model in --checkpoint_dir is a regression\n" in failure(
        capsys, "--checkpoint_dir", folder, "--output_dir", str(tmp_path), "--format", "ascend")


def test_missing_variable_is_named_and_nothing_stays(checkpoint_dir, tmp_path, capsys):
    make_classifier(checkpoint_dir, leave_out="output_bias")
    output_dir = str(tmp_path / "export")
    assert "output_bias" in failure(capsys, "--checkpoint_dir", checkpoint_dir, "--output_dir", output_dir)
    assert not os.path.exists(output_dir)


def test_model_whose_texts_differ_is_not_written(finetuned, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(serving.exporting.graph_tokenization, "MAX_CHARS_PER_WORD", 100)
    output_dir = str(tmp_path / "export")
    message = failure(capsys, "--checkpoint_dir", finetuned, "--output_dir", output_dir)
    assert "tokenizes 1 of the checked texts differently from Python, e.g. 'x" in message
    assert not os.path.exists(output_dir)


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    """A fine-tuned model's folder with a SentencePiece vocabulary."""
    root = tmp_path_factory.mktemp("spm")
    spm_model_file, folder = str(root / "spm.model"), str(root / "finetune")
    subprocess.run(
        [sys.executable, "-m", "etl.build_vocab", "--vocab_size", "2500", "--model", "sentencepiece",
         "--input_file", os.path.join(ROOT, "etl", "sample", "*.txt"), "--output_file", spm_model_file],
        # not in this process: the library's trainer and TensorFlow crash each other
        cwd=ROOT, check=True)
    tokenizer = TokenizerConfig(spm_model_file=spm_model_file)
    config = dataclasses.replace(CONFIG, vocab_size=2500)
    write_model(folder, ModelFolder(config, tokenizer, 32, "sentence_pair", LABELS))
    return folder


def test_sentencepiece_models_take_only_ids(sentencepiece_model, tmp_path, capsys):
    assert main(["--checkpoint_dir", sentencepiece_model, "--output_dir", str(tmp_path), "--version",
                 "1"]) == 0
    said = capsys.readouterr().out
    assert "SentencePiece tokenization cannot run inside the graph: the model takes only ids" in said
    assert "Next: saved_model_cli show --all --dir %s/1\n" % tmp_path in said
    assert "spm.model" in os.listdir(str(tmp_path / "1" / "assets.extra"))
    with pytest.raises(UserError, match="no signature serving_default, only predict_ids"):
        SavedModel(str(tmp_path / "1")).run({"text_a": ["x"], "text_b": [""]})


@pytest.mark.parametrize("kind, reading, shapes", [
    ("spans", Reading(5, 6, 7, None), {"start_logits": (2, 4), "end_logits": (2, 4)}),
    ("choices", None, {"scores": (2,)})])
def test_sentencepiece_models_that_read_take_only_ids(sentencepiece_model, tmp_path, capsys, kind, reading,
                                                      shapes):
    model = dataclasses.replace(model_folder.read(sentencepiece_model), kind=kind, labels=(), reading=reading)
    write_model(str(tmp_path / "finetune"), model)
    assert main(["--checkpoint_dir", str(tmp_path / "finetune"), "--output_dir", str(tmp_path), "--version",
                 "1"]) == 0
    assert "the model takes only ids, with the signature predict_ids" in capsys.readouterr().out
    ids = np.array([[2, 5, 6, 3], [0, 0, 0, 0]])
    found = SavedModel(str(tmp_path / "1")).run(
        {"input_ids": ids, "input_mask": ids > 0, "segment_ids": np.zeros_like(ids)}, "predict_ids")
    assert {name: values.shape for name, values in found.items()} == shapes
    assert all(np.isfinite(values).all() for values in found.values())


def test_sentencepiece_models_have_an_ascend_kit(sentencepiece_model, tmp_path):
    assert main(["--checkpoint_dir", sentencepiece_model, "--output_dir", str(tmp_path), "--format",
                 "ascend"]) == 0


@pytest.mark.parametrize("arguments, message", [
    (["--version", "-1"], "version must be at least 0, got -1"),
    (["--version", "9223372036854775808"],
     "version must be at most 9223372036854775807, got 9223372036854775808"),
    (["--lengths", "64"], "lengths is only for --format ascend"),
    (["--format", "ascend", "--batch_sizes", "0"], "batch_sizes must be at least 1, got 0"),
    (["--format", "ascend", "--lengths", "2"], "lengths must be at least 3, got 2"),
])
def test_bad_flags(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
