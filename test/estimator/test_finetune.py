import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pytest

import pretrained
import tiny_training
from estimator import finetune
from estimator.finetuning import preparation, scores
from estimator.finetuning.classes import CLASS_KIND
from estimator.training import curves
from estimator.weights import model_folder
from etl.common.command_line import UserError
from etl.text.tokenization import TokenizerConfig

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


def json_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def flags_of(folder, output_dir="out"):
    return ["--data_dir", str(folder / "task"), "--init_checkpoint", str(folder / "pretrained"),
            "--output_dir", str(folder / output_dir), "--max_seq_length", "8", "--train_batch_size", "8",
            "--eval_batch_size", "4", "--predict_batch_size", "4", "--learning_rate", "0.01",
            "--num_train_epochs", "1", "--backend", "cpu"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a task and a pretrained model."""
    folder = tmp_path_factory.mktemp("inputs")
    write_task(folder / "task")
    (folder / "pretrained").mkdir()
    pretrained.write_pretrained(folder / "pretrained")
    return folder


@pytest.fixture(scope="module")
def trained(inputs):
    """The same folder after one run that trains, evaluates and predicts."""
    assert finetune.main(flags_of(inputs) + ["--do_train", "--do_eval", "--do_predict", "--eval_every",
                                             "3"]) == 0
    return inputs


def test_every_dev_example_is_evaluated(trained):
    results = json.loads((trained / "out" / "eval_results.json").read_text())
    assert set(results) == {"eval_" + name for name in scores.metrics_of(2)} | {
        "global_step", "majority_accuracy", "num_examples"}
    assert (results["num_examples"] == 7
            and "num_examples = 7\n" in (trained / "out" / "eval_results.txt").read_text())
    assert results["eval_accuracy"] * 7 == pytest.approx(round(results["eval_accuracy"] * 7))
    assert results["majority_accuracy"] == pytest.approx(4 / 7)


def test_every_example_is_predicted_in_order(trained):
    rows = [[float(value) for value in line.split("\t")]
            for line in (trained / "out" / "test_results.tsv").read_text().splitlines()]
    assert np.array(rows).shape == (5, 2) and np.sum(rows, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert json_lines(trained / "out" / "sentence_pair_predict.json") == [
        {"id": number, "label": str(int(np.argmax(row)))} for number, row in enumerate(rows)]
    for name, count in (("test_predictions.jsonl", 5), ("predictions.jsonl", 7)):
        found = json_lines(trained / "out" / name)
        assert [(row["text_a"], row["gold"]) for row in found] == [
            (WORDS[number], str(1 - number % 2)) for number in range(count)]
        assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5) for row in found)


def test_the_best_checkpoint_is_what_is_reported(trained):
    best = json.loads((trained / "out" / "best" / "eval_results.json").read_text())
    assert json.loads((trained / "out" / "eval_results.json").read_text()) == pytest.approx(best, abs=1e-6)
    page = (trained / "out" / "training_report.html").read_text(encoding="utf-8")
    assert all(heading in page
               for heading in ("Evaluation of the best checkpoint", "Curves", "Classes", "Hardest examples"))
    assert [step for step, _ in curves.read_curves(str(trained / "out" / "eval"))["eval_roc_auc"]] == [3, 5]


def test_the_model_folder_says_all_that_serving_needs(trained):
    found = model_folder.read(str(trained / "out"))
    assert (found.task, found.labels, found.max_seq_length) == ("sentence_pair", ("0", "1"), 8)
    assert found.config == tiny_training.CONFIG
    assert found.tokenizer == TokenizerConfig(str(trained / "out" / "vocab.txt"), do_lower_case=False)
    assert found.data_manifest_sha256 == "ab" * 32


def test_without_training_the_folder_is_enough(trained, capsys):
    flags = ["--data_dir", trained / "task", "--output_dir", trained / "out", "--do_eval", "--optimizer",
             "lamb"]
    before = json.loads((trained / "out" / "eval_results.json").read_text())
    status, output, errors = run(capsys, *flags)           # the optimizer is of no account here
    assert (status, errors) == (0, "")
    assert "Best checkpoint, step %d, 7 dev examples: eval_accuracy" % before["global_step"] in output
    assert "Next: python -m serving.export --checkpoint_dir %s" % (trained / "out") in output
    assert json.loads((trained / "out" / "eval_results.json").read_text()) == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("flags, message", [
    (["--task_name", "lcqmc"], "out holds a model whose task is sentence_pair, not lcqmc"),
    (["--labels", "0", "1", "2"], r"out holds a model whose labels is \('0', '1'\), not \('0', '1', '2'\)"),
    (["--vocab_file", "{other}"], "is not the vocabulary that the model was trained with"),
])
def test_another_head_or_vocabulary_is_refused_without_training(trained, tmp_path, capsys, flags, message):
    (tmp_path / "other.txt").write_text("\n".join(tiny_training.TOKENS[:-1] + ("雪",)) + "\n",
                                        encoding="utf-8")
    flags = [flag.format(other=tmp_path / "other.txt") for flag in flags]
    status, _, errors = run(capsys, "--data_dir", trained / "task", "--output_dir", trained / "out",
                            "--do_eval", *flags)
    assert status == 1 and errors.count("\n") == 1 and re.search(message, errors), errors


def test_prediction_alone_says_where_the_model_is_looked_for(trained, tmp_path, capsys):
    def said(*flags):
        status, _, errors = run(capsys, "--data_dir", trained / "task", "--do_predict", *flags)
        assert status == 1 and errors.count("\n") == 1
        return errors
    assert "read: give --output_dir %s\n" % (trained / "out") in said(
        "--init_checkpoint", trained / "out", "--output_dir", tmp_path / "new")
    assert "pretrained is pretrained and has no classifier: give --do_train, this folder as " in said(
        "--output_dir", trained / "pretrained")


def test_a_classifier_without_a_task_is_evaluated_by_its_labels(trained, tmp_path, capsys):
    taken = shutil.copytree(str(trained / "out"), str(tmp_path / "taken"))
    model_folder.write(taken, dataclasses.replace(model_folder.read(taken), task=None))
    shutil.rmtree(os.path.join(taken, "best"))
    flags = ["--data_dir", trained / "task", "--output_dir", taken, "--do_eval"]
    assert "holds a model of the task None: name it by --task_name" in run(capsys, *flags)[2]
    status, output, errors = run(capsys, *flags, "--task_name", "lcqmc")
    assert (status, errors) == (0, "") and "7 dev examples: eval_accuracy" in output


def test_a_model_of_one_segment_type_takes_no_pairs(inputs, tmp_path, capsys):
    config = tiny_training.write_config(tmp_path / "config.json", dataclasses.replace(
        tiny_training.CONFIG, type_vocab_size=1))
    flags = flags_of(inputs, "unused") + ["--init_checkpoint", "none", "--albert_config_file", config,
                                          "--vocab_file", str(inputs / "vocab.txt")]
    assert "type_vocab_size is 1 in the model's config: it takes single texts" in run(capsys, *flags)[2]


def test_an_unlabelled_test_part_with_a_header(trained, tmp_path, capsys):
    shutil.copytree(str(trained / "task"), str(tmp_path / "task"))
    text = "sentence1\tsentence2\tlabel\n天\t地\t\n人\t人\t-1\n\n"
    (tmp_path / "task" / "test.tsv").write_text(text, encoding="utf-8")
    out = shutil.copytree(str(trained / "out"), str(tmp_path / "out"))
    status, output, errors = run(capsys, "--data_dir", tmp_path / "task", "--output_dir", out, "--do_predict")
    assert (status, errors) == (0, "") and "Test: " not in output
    assert "test.tsv: line 1 is a header, no example: sentence1, sentence2, label\n" in output
    assert [row["id"] for row in json_lines(tmp_path / "out" / "sentence_pair_predict.json")] == [0, 1]


def test_several_seeds(inputs, capsys):
    flags = flags_of(inputs, "seeds") + ["--seeds", "1,2", "--do_train", "--do_eval"]
    status, output, errors = run(capsys, *flags)
    assert (status, errors) == (0, "")
    found = [
        json.loads((inputs / "seeds" / ("seed-%d" % seed) / "eval_results.json").read_text())["eval_loss"]
        for seed in (1, 2)]
    text = (inputs / "seeds" / "seeds_results.txt").read_text(encoding="utf-8")
    assert "eval_loss = %.4f ± %.4f\n" % (np.mean(found), np.std(found, ddof=1)) in text and text in output
    assert found[0] != found[1] and len(list((inputs / "seeds" / "encoded").glob("*.npz"))) == 2
    assert "Nothing to train" in run(capsys, *flags)[1]


def test_early_stopping_goes_by_the_best_evaluation(inputs, capsys):
    flags = flags_of(inputs, "early") + ["--early_stopping", "2", "--eval_every", "1", "--learning_rate",
                                         "1e-9", "--best_metric", "macro_f1", "--num_train_epochs", "3"]
    status, output, errors = run(capsys, *flags, "--do_train", "--do_eval")
    assert (status, errors) == (0, "")
    evaluated = re.findall(r"^Step (\d+),", output, re.M)
    best = json.loads((inputs / "early" / "best" / "eval_results.json").read_text())["global_step"]
    assert ("Stopped early after step %d of 15: eval_macro_f1 has not improved in 2 evaluations" % (best + 2)
            in output)
    assert int(evaluated[-1]) == best + 2


def test_windows_weights_and_padding_to_one_length(inputs, capsys):
    folder = inputs / "single"
    folder.mkdir()
    for part, count in (("train", 16), ("dev", 5), ("test", 3)):
        texts = ["".join(WORDS)[number % 9:][:3 * (number % 5) + 1] for number in range(count)]
        (folder / (part + ".tsv")).write_text(
            "".join("%d\t%s\n" % (number % 2, text) for number, text in enumerate(texts)), encoding="utf-8")
    status, output, errors = run(
        capsys, *flags_of(inputs, "windows"), "--data_dir", folder, "--task_name", "single_sentence",
        "--doc_stride", 4, "--class_weights", "balanced", "--pad_to_max_length", "--layer_decay", 0.5,
        "--do_train", "--do_eval", "--do_predict", "--columns", "text_a=2", "label=1")
    assert (status, errors) == (0, "")
    assert len(json_lines(inputs / "windows" / "predictions.jsonl")) == 5
    assert len((inputs / "windows" / "test_results.tsv").read_text().splitlines()) == 3
    def predicted():
        return [pytest.approx(row["probabilities"], abs=1e-6)
                for row in json_lines(inputs / "windows" / "predictions.jsonl")]
    before = json_lines(inputs / "windows" / "predictions.jsonl")
    later = ["--data_dir", folder, "--output_dir", inputs / "windows", "--task_name", "single_sentence",
             "--columns", "text_a=2", "label=1", "--do_eval"]
    assert run(capsys, *later)[0] == 0         # with the windows it was trained with
    assert [row["probabilities"] for row in before] == predicted()
    assert run(capsys, *later, "--doc_stride", 6)[0] == 0
    assert [row["probabilities"] for row in before] != predicted()


def test_a_regression(inputs, capsys):
    folder = inputs / "numbers"
    folder.mkdir()
    for part, count in (("train", 16), ("dev", 5), ("test", 3)):
        (folder / (part + ".tsv")).write_text("sentence1\tsentence2\tscore\n" + "".join(
            "%s\t%s\t%.1f\n" % (WORDS[number % 15], WORDS[number % 4], number / 4) for number in range(count))
            if part != "test" else "index\tsentence1\tsentence2\n7\t天\t地\n", encoding="utf-8")
    status, output, errors = run(capsys, *flags_of(inputs, "regression"), "--data_dir", folder, "--task_name",
                                 "sts-b", "--do_train", "--do_eval", "--do_predict")
    assert ((status, errors) == (0, "") and "5 dev examples: eval_pearson" in output
            and "Next: python -m serving.export --checkpoint_dir %s\n" % (inputs / "regression") in output)
    row, = json_lines(inputs / "regression" / "sts_b_predict.json")
    assert row["id"] == 7 and isinstance(row["label"], float)
    assert model_folder.read(str(inputs / "regression")).labels == ()


@pytest.mark.parametrize("flags, message", [
    (["--task_name", "lcqmc"],
     "out holds a model whose task is sentence_pair, not lcqmc: give another folder"),
    (["--labels", "1", "0"], "out holds a model whose labels is .*'0', '1'.*, not .*'1', '0'"),
    (["--learning_rate", "0.02"], "out holds a different run: learning_rate was 0.01, is now 0.02"),
    (["--max_seq_length", 12], "out holds a model whose max_seq_length is 8, not 12"),
    (["--init_checkpoint", "none", "--albert_config_file", "{config}", "--vocab_file", "{vocabulary}",
      "--do_lower_case", "false"],
     r"out holds a different run: initial values was model.ckpt-9.index \([0-9a-f]{12}\), is now none"),
    (["--optimizer", "lamb"], "out holds a model whose optimizer is adamw, not lamb"),
])
def test_a_folder_of_another_training_is_refused(trained, capsys, flags, message):
    config = tiny_training.write_config(trained / "config.json")
    flags = [str(flag).format(config=config, vocabulary=trained / "vocab.txt") for flag in flags]
    status, _, errors = run(capsys, *flags_of(trained), *flags)
    assert status == 1 and errors.count("\n") == 1
    assert re.search(message, errors), errors


@pytest.mark.parametrize("flags, message", [
    (["--init_checkpoint", "nowhere"],
     "--init_checkpoint: nowhere: no such file or folder: run python -m estimator"),
    (["--data_dir", "nowhere"], "--data_dir: nowhere: no such folder"),
    (["--task_name", "chnsenticorp"], r"train.tsv: line 1: wanted 2 field\(s\): label, text_a; got 3"),
    (["--doc_stride", 4], "--doc_stride is for tasks with one text; sentence_pair has pairs"),
    (["--class_weights", "1", "2", "3"], "--class_weights: task sentence_pair has 2 labels, got 3 weights"),
    (["--class_weights", "1", "-2"],
     "--class_weights must be balanced, or numbers of at least 0, .*; got 1 -2"),
    (["--class_weights", "0", "0"], "--class_weights must be .* not all of them 0; got 0 0"),
    (["--best_metric", "pearson"], "--best_metric: task sentence_pair has no pearson"),
    (["--spm_model_file", "{config}"],
     "config.json: not a SentencePiece model"),
    (["--max_seq_length", 17], r"--max_seq_length must be in \[3, 16\], .*; got 17"),
    (["--max_seq_length", 2], r"--max_seq_length must be in \[3, 16\], .*; got 2"),
    (["--train_batch_size", 41], "--train_batch_size is 41, but there are only 40 training examples"),
    (["--albert_config_file", "tiny"],
     "vocab_size is 21128 in the config, but the vocabulary .* has 20 entries"),
    (["--do_train", "false", "--init_checkpoint", "none"],
     "unused: no such folder: run python -m estimator.finetune first"),
    (["--do_predict"], "unused: no model here, and without --do_train --init_checkpoint is not read: give "
     "--do_train, since .*pretrained is pretrained and has no classifier"),
    (["--backend", "npu"], "--backend npu: the Python package npu_bridge is not installed"),
])
def test_a_mistake_is_one_line_and_nothing_is_written(inputs, capsys, flags, message):
    config = tiny_training.write_config(inputs / "config.json")
    status, _, errors = run(capsys, *flags_of(inputs, "unused"),
                            *[str(flag).format(config=config) for flag in flags])
    assert status == 1 and errors.count("\n") == 1
    assert re.search("^estimator.finetune: error: .*" + message, errors), errors
    assert not (inputs / "unused").exists()


def config_of(inputs, **changes):
    config = finetune.FinetuneConfig(data_dir=str(inputs / "task"),
                                     init_checkpoint=str(inputs / "pretrained"), max_seq_length=8)
    return dataclasses.replace(config, **changes)


def test_a_released_checkpoint_needs_config_and_vocabulary(inputs, tmp_path):
    for name in os.listdir(str(inputs / "pretrained")):
        if name.startswith(("model.ckpt", "checkpoint")):
            (tmp_path / name).write_bytes((inputs / "pretrained" / name).read_bytes())
    config = config_of(inputs, init_checkpoint=str(tmp_path))
    prefix, task = preparation.find_init_checkpoint(config), preparation.TASKS["sentence_pair"]
    with pytest.raises(UserError,
                       match="there is no model.json to describe it: give --albert_config_file and --"):
        preparation.describe_model(config, task, prefix, CLASS_KIND)
    config = dataclasses.replace(config, vocab_file=str(inputs / "vocab.txt"),
                                 albert_config_file=tiny_training.write_config(tmp_path / "config.json"))
    found = preparation.describe_model(config, task, prefix, CLASS_KIND)
    assert (found.config, found.tokenizer) == (tiny_training.CONFIG,
                                               TokenizerConfig(str(inputs / "vocab.txt"), True))


def test_another_vocabulary_than_the_models_is_refused(inputs, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(tiny_training.TOKENS[:-1] + ("雪",)) + "\n",
                                        encoding="utf-8")
    config = config_of(inputs, vocab_file=str(tmp_path / "vocab.txt"))
    message = "is not the vocabulary that the model was trained with, .*: 1 of 20 entries differ"
    with pytest.raises(UserError, match=message):
        preparation.describe_model(config, preparation.TASKS["sentence_pair"],
                                   preparation.find_init_checkpoint(config), CLASS_KIND)


def test_the_tasks_are_listed(capsys):
    status, output, errors = run(capsys, "--list_tasks")
    assert (status, errors) == (0, "") and output.startswith("sentence_pair ") and "iflytek " in output
