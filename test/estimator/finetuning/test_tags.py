import dataclasses
import json
import os
import random
import types

import httpx
import numpy as np
import pytest

import pretrained
import tiny_training
from estimator import finetune
from estimator.data.entities import Entity, TaggedText
from estimator.data import input_fn
from estimator.data.tasks import TASKS
from estimator.finetuning import tags
from estimator.finetuning.kind import Setting
from estimator.finetuning.predictions import Part
from estimator.finetuning.tag_decoding import Tagged
from estimator.weights import model_folder
from estimator.weights.model_folder import ModelFolder, Tagging
from etl.text.tokenization import TokenizerConfig
from served import make_inference, run
from serving import export, predict
from serving.saved_model import SavedModel
from serving.service.http_app import HttpApp, HttpLimits
from serving.service.monitoring import Monitor

WORDS = tiny_training.WORDS


def texts(count, begin=0, length=14):
    """JSON lines whose entities are 山 (mountain) with the word behind it, and 水 alone."""
    rng = np.random.RandomState(7 + begin)
    rows = []
    for number in range(begin, begin + count):
        words = [WORDS[place] for place in rng.randint(0, len(WORDS), length)]
        entities, place = [], 0
        while place < length:
            size = {"山": 2, "水": 1}.get(words[place], 0)
            if size and place + size <= length:
                entities.append({"start": place, "end": place + size, "label": "山岭" if size == 2 else "水"})
            place += size or 1
        rows.append({"id": "t%d" % number, "text": "".join(words), "entities": entities})
    return rows


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture(
    scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["softmax", "crf"]
)
def trained(request, tmp_path_factory):
    """A folder after one run that trains, evaluates and predicts, and whether with a CRF."""
    folder = tmp_path_factory.mktemp("tagging")
    (folder / "task").mkdir()
    for part, rows in (("train", texts(60)), ("dev", texts(9, 100)), ("test", texts(4, 200))):
        (folder / "task" / (part + ".json")).write_text(lines(rows), encoding="utf-8")
    (folder / "pretrained").mkdir()
    pretrained.write_pretrained(folder / "pretrained")
    more = ["--do_train", "--do_eval", "--do_predict", "--num_train_epochs", "12", "--eval_every", "100"]
    assert finetune.main(flags_of(folder) + more + (["--crf"] if request.param else [])) == 0
    return folder, request.param


def flags_of(folder, output_dir="out"):
    return [
        "--task_name",
        "tagging",
        "--data_dir",
        str(folder / "task"),
        "--init_checkpoint",
        str(folder / "pretrained"),
        "--output_dir",
        str(folder / output_dir),
        "--max_seq_length",
        "8",
        "--doc_stride",
        "3",
        "--train_batch_size",
        "16",
        "--eval_batch_size",
        "4",
        "--learning_rate",
        "0.01",
        "--backend",
        "cpu",
    ]


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_entity_counts_once_however_many_windows_there_are(trained):
    folder, _ = trained
    results = json.loads((folder / "out" / "eval_results.json").read_text(encoding="utf-8"))
    dev = texts(9, 100)
    assert results["num_examples"] == 9
    assert results["num_entities"] == sum(len(row["entities"]) for row in dev)
    assert {
        "eval_precision",
        "eval_recall",
        "eval_macro_f1",
        "eval_loss",
        "eval_f1_of_山岭",
        "f1_of_dictionary",
    } < set(results) and results["eval_f1"] > 0.5
    predictions = read(folder / "out" / "predictions.jsonl")
    assert [row["id"] for row in predictions] == [row["id"] for row in dev]
    for row, given in zip(predictions, dev):
        assert [
            {name: entity[name] for name in ("start", "end", "label")} for entity in row["gold"]
        ] == given["entities"]
        assert all(
            row["text"][entity["start"] : entity["end"]] == entity["text"] and 0 < entity["score"] <= 1
            for entity in row["predicted"]
        )
    assert len(read(folder / "out" / "test_predictions.jsonl")) == 4


def test_the_folder_says_how_it_labels(trained):
    folder, crf = trained
    model = model_folder.read(str(folder / "out"))
    assert (model.kind, sorted(model.labels)) == ("tags", ["山岭", "水"])
    assert model.tagging == model_folder.Tagging(3, crf)


def test_the_report_shows_labels_and_errors(trained):
    text = (trained[0] / "out" / "training_report.html").read_text(encoding="utf-8")
    assert "Labels of entities (rows)" in text and "the right label, but another begin or end" in text


def test_evaluation_without_training_reads_as_the_model_was_trained(trained, capsys):
    folder, _ = trained
    before = (folder / "out" / "predictions.jsonl").read_bytes()
    flags = [
        "--data_dir",
        str(folder / "task"),
        "--output_dir",
        str(folder / "out"),
        "--do_eval",
        "--backend",
        "cpu",
    ]
    assert finetune.main(flags + ["--eval_batch_size", "4"]) == 0
    assert "9 dev texts with" in capsys.readouterr().out
    assert (folder / "out" / "predictions.jsonl").read_bytes() == before


def test_the_exported_model_finds_the_same_entities(trained, capsys):
    folder, _ = trained
    assert (
        export.main(
            [
                "--checkpoint_dir",
                str(folder / "out"),
                "--output_dir",
                str(folder / "export"),
                "--version",
                "1",
            ]
        )
        == 0
    )
    wanted = read(folder / "out" / "predictions.jsonl")
    saved = SavedModel(str(folder / "export" / "1"))
    for row, answer in zip(wanted, saved.rows("tag", [{"text": row["text"]} for row in wanted])):
        found = predict.tagged(row["text"], answer)
        assert [
            dict(entity, score=pytest.approx(entity["score"], abs=1e-4)) for entity in row["predicted"]
        ] == (found["entities"])
    assert all(operation.type != "PyFunc" for operation in saved._session.graph.get_operations())
    capsys.readouterr()
    assert predict.main(["--model_dir", str(folder / "export"), "--text", wanted[0]["text"]]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == wanted[0]["text"]
    assert predict.main(["--model_dir", str(folder / "export"), "--text_a", "天"]) == 1
    assert "--text_a: the model labels entities: give --text" in capsys.readouterr().err


def test_the_server_gives_lists(trained):
    """Of the version that the test before exported."""
    folder, _ = trained
    wanted = read(folder / "out" / "predictions.jsonl")

    async def ask():
        inference = await make_inference(
            SavedModel(str(folder / "export" / "1")), str(folder / "export"), max_batch_size=len(wanted))
        app = HttpApp(inference, Monitor(), HttpLimits(max_body_bytes=10000, timeout_seconds=30))
        async with httpx.AsyncClient(app=app, base_url="http://server") as client:
            for rows in ([line["text"] for line in wanted], [{"text": line["text"]} for line in wanted]):
                answer = await client.post("/v1/models/albert:tag", json={"instances": rows})
                assert answer.json() == {"results": [[
                    dict(entity, score=pytest.approx(entity["score"], abs=1e-4))
                    for entity in line["predicted"]] for line in wanted]}
            answer = await client.post("/v1/models/albert:predict", json={
                "signature_name": "tag", "instances": [wanted[0]["text"]]})
            (row,) = answer.json()["predictions"]
            assert row["count"] == len(wanted[0]["predicted"]) and len(row["label"]) == 128
    run(ask())


@pytest.fixture
def tokenizer(tmp_path):
    return TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "vocab.txt"))


def test_rows_have_the_tags_of_their_windows(tokenizer):
    example = TaggedText("天地人山水火", (Entity(1, 4, "y"), Entity(5, 6, "x")), "q")
    config = tags.RowsConfig(tokenizer, 6, 1, ("x", "y"), kind="tags")
    rows = tags.make_rows([example, TaggedText("日", None, None)], config)
    assert rows.lengths.tolist() == [6, 5, 3] and rows.example_numbers.tolist() == [0, 0, 1]
    assert rows.label_ids.tolist() == [0, 1, 4, 5, 5, 0, 0, 5, 1, 2, 0, 0, 1, 0]
    assert rows.batch(np.array([2, 1]))["label_ids"].tolist() == [[0, 1, 0, 0, 0], [0, 5, 1, 2, 0]]


class Right:
    """An estimator that says what the rows say."""

    def __init__(self, rows, batch_size):
        self._rows, self._batch_size = rows, batch_size

    def predict(self, _, checkpoint_path, yield_single_examples):
        order = input_fn.evaluation_order(self._rows, None)
        for begin in range(0, len(order), self._batch_size):
            labels = self._rows.batch(order[begin:begin + self._batch_size])["label_ids"]
            yield {"logits": 9 * np.eye(5, dtype=np.float32)[np.maximum(labels - 1, 0)],
                   "loss": np.ones(len(labels)), "is_real_example": np.ones(len(labels), int)}


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
def test_entities_across_the_edges_of_windows_are_found_whole(tokenizer, overlap):
    text = "".join(WORDS)
    labels = ((Entity(1, 9, "y"), Entity(9, 12, "x")), (), (Entity(0, 15, "x"),),
              (Entity(3, 4, "x"), Entity(4, 5, "x")))
    examples = [TaggedText(text, label, None) for label in labels]
    folder = ModelFolder(tiny_training.CONFIG, tokenizer, 6, "tagging", ("x", "y"), kind="tags",
                         tagging=Tagging(overlap, False))
    config = types.SimpleNamespace(doc_stride=overlap, crf=False)
    rows = tags.make_rows(examples, tags.rows_config_of(config, folder))
    assert len(rows.lengths) > 12              # windows of four
    task = dataclasses.replace(TASKS["tagging"], labels=("x", "y"))
    setting = Setting(config, task, None, folder, {}, None)
    found = tags.run_model(setting, Right(rows, 5), Part("dev", examples, rows), 5, "")
    assert [tuple(entity) for entity in tags.entities_found(found)] == list(labels)
    assert found.loss == pytest.approx(len(rows.lengths) / (rows.lengths - 2).sum())


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"--doc_stride": 6}, "--doc_stride must be below 6"),
        ({"--class_weights": "balanced"}, "--class_weights is for tasks such as"),
        ({"--best_metric": "accuracy"}, "--best_metric: task tagging has no accuracy"),
        ({"--n_best_size": "3"}, "--n_best_size is for tasks such as"),
    ],
)
def test_flags_that_do_not_fit(trained, capsys, flags, message):
    folder, _ = trained
    more = [str(item) for pair in flags.items() for item in pair]
    assert finetune.main(flags_of(folder, "other") + more + ["--do_train"]) == 1
    assert message in capsys.readouterr().err and not os.path.exists(str(folder / "other"))


def test_a_submission_has_the_form_of_cluener(tmp_path):
    examples = [TaggedText("叶老桂和叶老桂", None, 7), TaggedText("天", None, None)]
    found = [[Tagged(Entity(0, 3, "name"), .5), Tagged(Entity(4, 7, "name"), 1.0)], []]
    setting = Setting(None, TASKS["cluener"], None, None, {}, None)
    part = Part("test", examples, None)
    paths = tags.write_predictions(str(tmp_path), setting, part, tags.Outputs(found, 0.0))
    assert [os.path.basename(path) for path in paths] == ["test_predictions.jsonl", "cluener_predict.json"]
    assert read(tmp_path / "cluener_predict.json") == [
        {"id": 7, "label": {"name": {"叶老桂": [[0, 2], [4, 6]]}}}, {"id": 1, "label": {}}]
    first, second = read(tmp_path / "test_predictions.jsonl")
    assert (first["gold"], second["predicted"]) == (None, [])
    assert first["predicted"][0] == {"start": 0, "end": 3, "label": "name", "text": "叶老桂", "score": .5}


def random_rows():
    """100 sentences of any characters, in which any parts are entities: nothing but memory tells them."""
    rng = random.Random(3)
    for _ in range(100):
        entities, place = [], rng.randint(0, 6)
        while place < 25:
            end = place + rng.randint(1, 5)
            entities.append({"start": place, "end": end, "label": rng.choice("甲乙丙丁")})
            place = end + rng.randint(0, 8)
        text = "".join(rng.choice("天地人山水火木金土日月星风云雨A1，") for _ in range(30))
        yield {"text": text, "entities": entities}


def rows_of_cluener():
    path = os.path.join(os.environ.get("DATA", ""), "train.json")
    if not os.path.exists(path):
        pytest.skip("make check-learning DATA=path/to/cluener")
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream][:100]


@pytest.mark.learning
@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("rows", [random_rows, rows_of_cluener])
def test_100_sentences_are_learned_by_heart(tmp_path, rows, crf):
    text = lines(rows())
    for part in ("train", "dev"):
        (tmp_path / (part + ".json")).write_text(text, encoding="utf-8")
    assert finetune.main(["--task_name", "tagging", "--data_dir", str(tmp_path), "--init_checkpoint", "none",
                          "--albert_config_file", "mini", "--output_dir", str(tmp_path / "out"),
                          "--train_batch_size", "20", "--num_train_epochs", "80", "--learning_rate", "0.002",
                          "--max_seq_length", "64", "--eval_every", "200", "--crf", str(crf).lower(),
                          "--do_train", "--do_eval", "--backend", "cpu"]) == 0
    results = json.loads((tmp_path / "out" / "eval_results.json").read_text(encoding="utf-8"))
    assert results["num_examples"] == 100 and results["eval_f1"] >= 0.98
