import json
import os
import pathlib
import random

import numpy as np
import pytest

import pretrained
import tiny_training
from estimator import finetune
from estimator.data.reading import Answer, ReadingExample
from estimator.finetuning import spans
from estimator.weights import model_folder
from etl.text.tokenization import TokenizerConfig
from serving import export, predict
from serving.saved_model import SavedModel

WORDS = tiny_training.WORDS
ROW = {"--max_seq_length": 12, "--doc_stride": 3, "--max_query_length": 1}
PASSAGE = "天地人山水火木金土日"
COMMON = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发"


def squad(count, begin=0, impossible=()):
    """Questions of one word, whose answer is the word behind it in the passage."""
    found = []
    for number in range(begin, begin + count):
        at = number % (len(PASSAGE) - 1)
        answers = [] if number in impossible else [{"text": PASSAGE[at + 1], "answer_start": at + 1}]
        found.append({
            "paragraphs": [{
                "context":
                PASSAGE,
                "qas": [{
                    "id": "q%d" % number,
                    "question": PASSAGE[at],
                    "answers": answers,
                    "is_impossible": not answers
                }]
            }]
        })
    return json.dumps({"data": found})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder after one run that trains, evaluates and predicts."""
    folder = tmp_path_factory.mktemp("reading")
    (folder / "task").mkdir()
    for part, text in (("train", squad(36, impossible=(3,))), ("dev", squad(9, impossible=(0,))),
                       ("test", squad(4, begin=100))):
        (folder / "task" / (part + ".json")).write_text(text, encoding="utf-8")
    (folder / "pretrained").mkdir()
    pretrained.write_pretrained(folder / "pretrained")
    assert finetune.main(flags_of(folder) + ["--do_train", "--do_eval", "--do_predict"]) == 0
    return folder


def flags_of(folder, output_dir="out"):
    return [
        "--task_name", "reading", "--data_dir",
        str(folder / "task"), "--init_checkpoint",
        str(folder / "pretrained"), "--output_dir",
        str(folder / output_dir), "--train_batch_size", "6", "--eval_batch_size", "4", "--learning_rate",
        "0.01", "--num_train_epochs", "2", "--backend", "cpu",
        *(str(item) for pair in ROW.items() for item in pair)
    ]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_question_is_evaluated_and_answered(trained):
    results = read(trained / "out" / "eval_results.json")
    assert results["num_examples"] == 9 and 0 <= results["eval_f1"] <= 1
    assert {"eval_exact_match", "eval_loss", "best_null_threshold", "eval_f1_where_no_answer",
            "f1_of_first_sentence", "f1_of_sentence_like_the_question", "f1_of_passage"} < set(results)
    assert results["f1_of_passage"] == pytest.approx(8 / 9 * 2 /
                                                     11)  # 1 of 10 characters, which are all held
    predictions = read(trained / "out" / "predictions.json")
    assert list(predictions) == ["q%d" % number for number in range(9)]
    assert all(text in PASSAGE for text in predictions.values())
    assert list(read(trained / "out" / "reading_predict.json")) == ["q100", "q101", "q102", "q103"]


def test_the_best_answers_of_each_question(trained):
    nbest, odds = (read(trained / "out" / name) for name in ("nbest_predictions.json", "null_odds.json"))
    for identity, entries in nbest.items():
        assert sum(entry["probability"] for entry in entries) == pytest.approx(1)
        assert all(PASSAGE[entry["start"]:entry["end"]] == entry["text"] for entry in entries)
        by_text = {entry["text"]: entry["score"] for entry in entries}
        assert odds[identity] == pytest.approx(by_text.pop("") - max(by_text.values()), abs=1e-4)


def test_the_report_shows_errors_and_passages(trained):
    text = (trained / "out" / "training_report.html").read_text(encoding="utf-8")
    assert "Errors by length" in text and "Hardest questions" in text


def test_the_folder_says_how_it_reads(trained):
    model = model_folder.read(str(trained / "out"))
    assert (model.kind, model.labels) == ("spans",
                                          ()) and model.reading == model_folder.Reading(3, 1, 30, 0.0)


def test_evaluation_without_training_reads_as_the_model_was_trained(trained, capsys):
    assert finetune.main([
        "--data_dir",
        str(trained / "task"), "--output_dir",
        str(trained / "out"), "--do_eval", "--backend", "cpu", "--null_score_diff_threshold", "-1000"
    ]) == 0
    assert "9 dev questions" in capsys.readouterr().out
    assert set(read(trained / "out" / "predictions.json").values()) == {""}


def test_the_exported_model_gives_the_same_answers(trained, capsys):
    assert finetune.main([
        "--data_dir",
        str(trained / "task"), "--output_dir",
        str(trained / "out"), "--do_eval", "--backend", "cpu"
    ]) == 0
    assert export.main(["--checkpoint_dir", str(trained / "out"), "--output_dir", str(trained / "export"),
                        "--version", "1"]) == 0
    saved = SavedModel(str(trained / "export" / "1"))
    asked = [paragraph["qas"][0]["question"] for article in json.loads(squad(9))["data"]
             for paragraph in article["paragraphs"]]
    found = saved.run({"question": asked, "passage": [PASSAGE] * 9}, "read")
    assert [text.decode("utf-8") for text in found["answer"]] == list(
        read(trained / "out" / "predictions.json").values())
    for text, start, end in zip(found["answer"], found["start"], found["end"]):
        assert PASSAGE[start:end] == text.decode("utf-8")
    capsys.readouterr()
    assert predict.main(
        ["--model_dir", str(trained / "export"), "--question", asked[4], "--passage", PASSAGE]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["question"], line["passage"], line["answer"]) == (asked[4], PASSAGE,
                                                                   found["answer"][4].decode("utf-8"))
    assert predict.main(["--model_dir", str(trained / "export"), "--text_a", "天"]) == 1
    assert all(operation.type != "PyFunc" for operation in saved._session.graph.get_operations())


@pytest.fixture
def tokenizer(tmp_path):
    return TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "vocab.txt"))


def test_a_label_is_where_the_window_holds_all_of_the_answer(tokenizer):
    example = ReadingExample("天", PASSAGE, (Answer("山水", 3),), "q")
    rows = spans.make_rows([example, example._replace(label=()), example._replace(label=None)],
                           spans.RowsConfig(tokenizer, 8, 1, kind="spans", max_query_length=1))
    assert rows.lengths.tolist() == [8, 8, 8] * 3        # 天地人山 山水火木 木金土日 behind [CLS] 天 [SEP]
    assert rows.label_ids.tolist() == [[0, 0], [3, 4], [0, 0]] + [[0, 0]] * 6
    assert rows.batch(np.array([1]))["label_ids"].tolist() == [[3, 4]]
    assert rows.spans[8 + 3:8 + 7].tolist() == [[3, 4], [4, 5], [5, 6], [6, 7]]


@pytest.mark.parametrize("flags, message", [
    ({"--max_seq_length": 8, "--doc_stride": 4}, "--doc_stride must be below 4"),
    ({"--class_weights": "balanced"}, "--class_weights is for tasks such as"),
    ({"--best_metric": "accuracy"}, "--best_metric: task reading has no accuracy"),
    ({"--exclusive_candidates": "true"}, "--exclusive_candidates is for tasks such as copa")])
def test_flags_that_do_not_fit(trained, capsys, flags, message):
    more = [str(item) for pair in flags.items() for item in pair]
    assert finetune.main(flags_of(trained, "other") + more + ["--do_train"]) == 1
    assert message in capsys.readouterr().err and not os.path.exists(str(trained / "other"))


def exact_match_after_training(folder, paragraphs, *flags):
    """Of the questions that mini was trained on, from random values."""
    text = json.dumps({"data": [{"paragraphs": paragraphs}]})
    for part in ("train", "dev"):
        (folder / (part + ".json")).write_text(text, encoding="utf-8")
    assert finetune.main(["--task_name", "cmrc2018", "--data_dir", str(folder), "--init_checkpoint", "none",
                          "--albert_config_file", "mini", "--output_dir", str(folder / "out"),
                          "--train_batch_size", "16", "--learning_rate", "0.001", "--do_train", "--do_eval",
                          "--backend", "cpu", *flags]) == 0
    results = read(folder / "out" / "eval_results.json")
    assert results["num_examples"] == sum(len(paragraph["qas"]) for paragraph in paragraphs)
    return results["eval_exact_match"]


@pytest.mark.learning
def test_questions_on_passages_of_random_characters_are_learned_by_heart(tmp_path):
    """The question is what stands before the answer, which is found in the last of three windows, too."""
    rng, paragraphs = random.Random(1), []
    for number in range(16):
        passage = "".join(rng.choice(COMMON) for _ in range(120))
        begins = [10 + 28 * place for place in range(4)]
        paragraphs.append({"context": passage, "qas": [
            {"id": "%d-%d" % (number, begin), "question": passage[begin - 6:begin],
             "answers": [{"text": passage[begin:begin + 2 + begin % 5], "answer_start": begin}]}
            for begin in begins]})
    assert exact_match_after_training(
        tmp_path, paragraphs, "--max_seq_length", "72", "--doc_stride", "20", "--max_query_length", "8",
        "--num_train_epochs", "60", "--eval_every", "10000") >= 0.95


@pytest.mark.learning
@pytest.mark.skipif(not os.path.exists(os.path.join(os.environ.get("DATA", ""), "cmrc2018_trial.json")),
                    reason="make check-learning DATA=path/to/cmrc2018")
def test_64_questions_of_cmrc_are_learned_by_heart(tmp_path):
    content = read(pathlib.Path(os.environ["DATA"]) / "cmrc2018_trial.json")
    paragraphs, left = [], 64
    for paragraph in (paragraph for article in content["data"] for paragraph in article["paragraphs"]):
        good = [question for question in paragraph["qas"] for answer in question["answers"][:1]
                if question["question"] and paragraph["context"].startswith(
                    answer["text"], answer["answer_start"])][:left]
        left -= len(good)
        if good:
            paragraphs.append(dict(paragraph, qas=good))
    assert exact_match_after_training(tmp_path, paragraphs, "--max_answer_length", "200",
                                      "--num_train_epochs", "60", "--eval_every", "10000") >= 0.95
