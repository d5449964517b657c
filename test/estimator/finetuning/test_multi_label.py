import csv
import json
import os

import httpx
import numpy as np
import pytest

import pretrained
import tiny_training
from estimator import finetune
from estimator.data.tasks import TASKS, Example
from estimator.finetuning import multi_label
from estimator.finetuning.flags import FinetuneConfig
from estimator.weights import model_folder
from etl.common.command_line import UserError
from etl.text.tokenization import TokenizerConfig
from served import make_inference, run
from serving import export, predict
from serving.saved_model import SavedModel
from serving.service.http_app import HttpApp, HttpLimits
from serving.service.monitoring import Monitor

WORDS = tiny_training.WORDS
LABELS = {"山": "地/山", "水": "地/水", "火": "火"}


def texts(count, begin=0):
    """Rows whose labels are those of the words that stand in their text."""
    rng = np.random.RandomState(7 + begin)
    found = []
    for _ in range(count):
        words = [WORDS[place] for place in rng.randint(0, len(WORDS), 5)]
        found.append(("".join(words), [label for word, label in LABELS.items() if word in words]))
    return found


def table(rows):
    return "label,content\n" + "".join("%s,%s\n" % ("|".join(labels), text) for text, labels in rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder after one run that trains, evaluates and predicts, with thresholds found on dev."""
    folder = tmp_path_factory.mktemp("multi_label")
    (folder / "task").mkdir()
    for part, rows in (("train", texts(80)), ("dev", texts(12, 100)), ("test", texts(4, 200))):
        (folder / "task" / (part + ".csv")).write_text(table(rows), encoding="utf-8")
    (folder / "pretrained").mkdir()
    pretrained.write_pretrained(folder / "pretrained")
    more = ["--do_train", "--do_eval", "--do_predict", "--num_train_epochs", "20", "--eval_every", "100"]
    assert finetune.main(flags_of(folder) + more + ["--label_threshold", "dev"]) == 0
    return folder


def flags_of(folder, output_dir="out"):
    return ["--task_name", "multi_label", "--data_dir", str(folder / "task"), "--init_checkpoint",
            str(folder / "pretrained"), "--output_dir", str(folder / output_dir), "--max_seq_length", "8",
            "--train_batch_size", "16", "--learning_rate", "0.01", "--backend", "cpu"]


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_results_predictions_and_report(trained):
    results = json.loads((trained / "out" / "eval_results.json").read_text(encoding="utf-8"))
    dev = texts(12, 100)
    assert results["num_examples"] == 12
    assert results["num_labels"] == sum(len(labels) for _, labels in dev)
    assert results["eval_micro_f1"] > results["micro_f1_of_frequent"] > 0
    predictions = read(trained / "out" / "predictions.jsonl")
    assert [(row["text_a"], sorted(row["gold"])) for row in predictions] == [
        (text, sorted(labels)) for text, labels in dev]
    given = thresholds(trained)
    assert all(row["predicted"] == [label for label, value in row["probabilities"].items()
                                    if value >= given[label]] for row in predictions)
    assert [row["id"] for row in read(trained / "out" / "multi_label_predict.json")] == [0, 1, 2, 3]
    text = (trained / "out" / "training_report.html").read_text(encoding="utf-8")
    assert "labels of the data below their threshold" in text


def thresholds(folder):
    (path,) = folder.glob("out/**/label_thresholds.json")
    return json.loads(path.read_text(encoding="utf-8"))["thresholds"]


def test_the_folder_says_how_it_labels(trained):
    model = model_folder.read(str(trained / "out"))
    assert (model.kind, sorted(model.labels)) == ("multi_label", ["地/山", "地/水", "火"])
    assert model.labelling == model_folder.Labelling("dev")


def test_evaluation_without_training_uses_the_thresholds_of_the_model(trained, capsys):
    before = (trained / "out" / "predictions.jsonl").read_bytes()
    flags = ["--data_dir", str(trained / "task"), "--output_dir", str(trained / "out"), "--do_eval",
             "--backend", "cpu"]
    assert finetune.main(flags) == 0
    assert "12 dev texts with" in capsys.readouterr().out
    assert (trained / "out" / "predictions.jsonl").read_bytes() == before


def test_the_exported_model_gives_the_same_labels(trained, capsys):
    assert export.main(["--checkpoint_dir", str(trained / "out"), "--output_dir", str(trained / "export"),
                        "--version", "1"]) == 0
    wanted = read(trained / "out" / "predictions.jsonl")
    saved = SavedModel(str(trained / "export" / "1"))
    assert dict(zip(saved.labels, saved.card["thresholds"])) == pytest.approx(thresholds(trained))
    batch = [predict.Question(row["text_a"], None) for row in wanted]
    for row, answer in zip(wanted, predict.answers(saved, "labels", batch)):
        given = {label: row["probabilities"][label] for label in row["predicted"]}
        assert answer["labels"] == pytest.approx(given, abs=1e-4)
        assert list(answer["labels"].values()) == sorted(answer["labels"].values(), reverse=True)
    assert "regress" not in saved.signatures and "classify" in saved.signatures
    capsys.readouterr()
    assert predict.main(["--model_dir", str(trained / "export"), "--text_a", "山"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"text_a", "text_b", "labels"}


def test_the_server_gives_the_same_labels(trained):
    """Of the version that the test before exported, as TensorFlow Serving gives them."""
    wanted = read(trained / "out" / "predictions.jsonl")

    async def ask():
        inference = await make_inference(
            SavedModel(str(trained / "export" / "1")), str(trained / "export"), max_batch_size=len(wanted))
        app = HttpApp(inference, Monitor(), HttpLimits(max_body_bytes=10000, timeout_seconds=30))
        async with httpx.AsyncClient(app=app, base_url="http://server") as client:
            pairs = [{"text_a": line["text_a"], "text_b": ""} for line in wanted]
            answer = await client.post("/v1/models/albert:predict", json={
                "signature_name": "labels", "instances": pairs})
            for row, line in zip(answer.json()["predictions"], wanted):
                assert (row["count"], len(row["label"])) == (len(line["predicted"]), 3)
                assert sorted(row["label"][:row["count"]]) == sorted(line["predicted"])
    run(ask())


def test_thresholds_of_another_checkpoint_are_not_exported(trained, capsys):
    (path,) = trained.glob("out/**/label_thresholds.json")
    text = path.read_text(encoding="utf-8")
    path.unlink()
    assert export.main(["--checkpoint_dir", str(trained / "out"), "--output_dir",
                        str(trained / "other_export")]) == 1
    assert "label_thresholds.json: no such file" in capsys.readouterr().err
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("flags, message", [
    (["--crf"], "--crf is for tasks such as"),
    (["--best_metric", "accuracy"], "--best_metric: task multi_label has no accuracy"),
    (["--doc_stride", "7"], "--doc_stride must be at most"),
    (["--class_weights", "1", "2"], "--class_weights: task multi_label has 3 labels, got 2 weights"),
    (["--label_threshold", "dev"], "--label_threshold dev needs --do_eval")])
def test_flags_that_do_not_fit(trained, capsys, flags, message):
    assert finetune.main(flags_of(trained, "other") + flags + ["--do_train"]) != 0
    assert message in capsys.readouterr().err and not os.path.exists(str(trained / "other"))


def test_rows_have_a_value_for_each_label(tmp_path):
    tokenizer = TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "vocab.txt"))
    config = multi_label.RowsConfig(tokenizer, 6, 3, ("x", "y"), kind="multi_label")
    examples = [Example("天地人山水", None, ("y",)), Example("日", None, ("y", "x"))]
    rows = multi_label.make_rows(examples, config)
    assert rows.example_numbers.tolist() == [0, 0, 1]
    assert rows.label_ids.tolist() == [[0, 1], [0, 1], [1, 1]] and rows.label_ids.dtype == np.float32


def test_a_column_of_texts_is_no_column_of_labels():
    task = TASKS["multi_label"]
    examples = [Example("天", None, ("text %d" % number,)) for number in range(5)]
    with pytest.raises(UserError, match="task multi_label: 5 labels in 5 examples"):
        multi_label.narrowed(task, {"train": examples})
    assert multi_label.narrowed(task, {"train": examples[:2] * 2, "dev": []}).labels == ("text 0", "text 1")


def test_weights_of_labels():
    labels = np.array([[1, 0], [0, 0], [0, 1], [0, 1]], np.float32)
    assert multi_label.positive_weights(FinetuneConfig(do_train=True, class_weights=("balanced",)),
                                        labels) == [3.0, 1.0]
    assert multi_label.positive_weights(FinetuneConfig(do_train=True, class_weights=("2", "0.5")),
                                        labels) == [2.0, 0.5]
    assert multi_label.positive_weights(FinetuneConfig(do_train=True), labels) == []


def random_rows():
    return texts(100)


def rows_of_events():
    path = os.path.join(os.environ.get("DATA", ""), "train.csv")
    if not os.path.exists(path):
        pytest.skip("make check-learning DATA=path/to/multi_label_events")
    with open(path, encoding="utf-8-sig", newline="") as stream:
        rows = [(row["content"], row["label"].split("|")) for row in csv.DictReader(stream)]
    return [row for row in rows if not set(',"\n').intersection(row[0])][::100][:100]


@pytest.mark.learning
@pytest.mark.parametrize("rows", [random_rows, rows_of_events])
def test_100_texts_are_learned_by_heart(tmp_path, rows):
    for part in ("train", "dev"):
        (tmp_path / (part + ".csv")).write_text(table(rows()), encoding="utf-8")
    assert finetune.main(["--task_name", "multi_label", "--data_dir", str(tmp_path),
                          "--init_checkpoint", "none", "--albert_config_file", "mini",
                          "--output_dir", str(tmp_path / "out"), "--train_batch_size", "20",
                          "--num_train_epochs", "120", "--learning_rate", "0.0005", "--max_seq_length", "64",
                          "--eval_every", "200", "--label_threshold", "dev",
                          "--do_train", "--do_eval", "--backend", "cpu"]) == 0
    results = json.loads((tmp_path / "out" / "eval_results.json").read_text(encoding="utf-8"))
    assert results["num_examples"] == 100 and results["eval_micro_f1"] >= 0.98
