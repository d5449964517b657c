import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from exported import CONFIG, LABELS, make_classifier

import serving.graph_tokenization
from estimator import model_folder
from etl import pairs
from etl.tokenization import load_tokenizer
from serving.export import main
from serving.saved_model import SavedModel


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A fine-tuned model's folder, and the folder of the version exported from it."""
    root = tmp_path_factory.mktemp("export")
    checkpoint_dir, output_dir = str(root / "finetune"), str(root / "export")
    make_classifier(checkpoint_dir)
    assert main(["--checkpoint_dir", checkpoint_dir, "--output_dir", output_dir, "--version", "7"]) == 0
    return checkpoint_dir, os.path.join(output_dir, "7")


@pytest.fixture
def checkpoint_dir(folders, tmp_path):
    """A copy of the model's folder to spoil."""
    return shutil.copytree(folders[0], str(tmp_path / "finetune"))


def test_holds_all_that_serving_needs(folders):
    version = folders[1]
    assert os.listdir(os.path.dirname(version)) == ["7"]
    assert sorted(os.listdir(version)) == ["assets", "saved_model.pb", "variables"]
    assert sorted(os.listdir(os.path.join(version, "assets"))) == ["albert_config.json", "model.json", "vocab.txt"]
    with open(os.path.join(version, "assets", "model.json"), encoding="utf-8") as stream:
        assert json.load(stream)["labels"] == list(LABELS)


def test_text_gives_what_its_ids_give(folders):
    checkpoint_dir, version = folders
    model, saved = model_folder.read(checkpoint_dir), SavedModel(version)
    questions = [("北京ABC", "北京"), ("你好", ""), ("", ""), ("京" * 40, "好" * 40)]
    found = saved.run({"text_a": [a for a, _ in questions], "text_b": [b for _, b in questions]})
    assert found["probabilities"].shape == found["logits"].shape == (4, 3)
    assert [label.decode("utf-8") for label in found["label"]] == [LABELS[i] for i in found["logits"].argmax(axis=1)]
    for row, (text_a, text_b) in enumerate(questions):
        packed = pairs.pack_pair(load_tokenizer(model.tokenizer), text_a, text_b, model.max_seq_length)
        ids = {"input_ids": [packed.input_ids], "input_mask": [[1] * len(packed.input_ids)],
               "segment_ids": [packed.segment_ids]}
        np.testing.assert_allclose(saved.run(ids, "predict_ids")["logits"][0], found["logits"][row], rtol=0, atol=1e-5)


def test_values_are_those_of_the_checkpoint(folders):
    checkpoint_dir, version = folders
    ours = tf.train.load_checkpoint(os.path.join(version, "variables", "variables"))
    trained = tf.train.load_checkpoint(tf.train.latest_checkpoint(checkpoint_dir))
    names = set(ours.get_variable_to_shape_map())
    assert names == set(trained.get_variable_to_shape_map()) - {"global_step"}
    for name in names:
        np.testing.assert_array_equal(ours.get_tensor(name), trained.get_tensor(name))


def test_empty_batch(folders):
    found = SavedModel(folders[1]).run({"text_a": [], "text_b": []})
    assert found["probabilities"].shape == (0, 3) and found["label"].shape == (0,)


def test_graph_holds_no_path_of_this_machine(folders):
    with open(os.path.join(folders[1], "saved_model.pb"), "rb") as stream:
        assert folders[0].encode() not in stream.read()


def saved_model_cli(*arguments, **environment):
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"] + list(arguments)
    return subprocess.run(command, cwd="/", env=dict(os.environ, PYTHONPATH="", **environment), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=True).stdout.decode("utf-8")


def test_stock_tool_shows_both_signatures(folders):
    shown = saved_model_cli("show", "--dir", folders[1], "--all")
    for name in ("serving_default", "predict_ids", "text_a", "input_mask", "probabilities", "logits", "label"):
        assert "['%s']" % name in shown


def test_stock_tool_runs_it_in_the_c_locale(folders):
    text = str("北京".encode("utf-8"))
    shown = saved_model_cli("run", "--dir", folders[1], "--tag_set", "serve", "--signature_def", "serving_default",
                            "--input_exprs", "text_a=[%s];text_b=[b'']" % text, LC_ALL="C")
    wanted = SavedModel(folders[1]).run({"text_a": ["北京"], "text_b": [""]})
    assert "%.4f" % wanted["probabilities"][0, 0] in shown and str(wanted["label"][0]) in shown


def failure(capsys, *arguments):
    assert main(list(arguments)) == 1
    return capsys.readouterr().err


def test_next_command_and_default_version(folders, tmp_path, capsys):
    assert main(["--checkpoint_dir", folders[0], "--output_dir", str(tmp_path)]) == 0
    version, = os.listdir(str(tmp_path))
    assert int(version) > 1500000000
    assert "Next: python -m serving.predict --model_dir %s --text_a" % tmp_path in capsys.readouterr().out


def test_best_checkpoint_goes_first(checkpoint_dir, tmp_path, capsys):
    best = os.path.join(checkpoint_dir, "best")
    os.mkdir(best)
    for name in os.listdir(checkpoint_dir):
        if name.startswith("model.ckpt") or name == "checkpoint":
            shutil.move(os.path.join(checkpoint_dir, name), best)
    assert main(["--checkpoint_dir", checkpoint_dir, "--output_dir", str(tmp_path / "export")]) == 0
    assert "Exported %s" % best in capsys.readouterr().out


def test_version_that_exists_is_refused(folders, capsys):
    output_dir = os.path.dirname(folders[1])
    message = failure(capsys, "--checkpoint_dir", folders[0], "--output_dir", output_dir, "--version", "7")
    assert "--version: %s exists" % folders[1] in message


def test_folder_without_a_model(tmp_path, capsys):
    assert "run python -m estimator.finetune first" in failure(capsys, "--checkpoint_dir", str(tmp_path))


def test_pretrained_model_is_no_classifier(checkpoint_dir, capsys):
    path = os.path.join(checkpoint_dir, "model.json")
    with open(path, encoding="utf-8") as stream:
        fields = dict(json.load(stream), labels=None)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(fields, stream)
    assert "model.json: labels: a classifier has at least 2, this model has 0" in failure(
        capsys, "--checkpoint_dir", checkpoint_dir)


def test_missing_variable_is_named_and_nothing_stays(checkpoint_dir, tmp_path, capsys):
    make_classifier(checkpoint_dir, leave_out="output_bias")
    output_dir = str(tmp_path / "export")
    assert "output_bias" in failure(capsys, "--checkpoint_dir", checkpoint_dir, "--output_dir", output_dir)
    assert not os.path.exists(output_dir) or os.listdir(output_dir) == []


def test_model_whose_texts_differ_is_not_written(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(serving.graph_tokenization, "MAX_CHARS_PER_WORD", 100)
    output_dir = str(tmp_path / "export")
    message = failure(capsys, "--checkpoint_dir", folders[0], "--output_dir", output_dir)
    assert "tokenizes 1 texts otherwise than Python, 'x" in message
    assert not os.path.exists(output_dir)


def test_config_reaches_the_graph(folders):
    assert model_folder.read(os.path.join(folders[1], "assets")).config == CONFIG
