import json

import numpy as np
import pytest

import pretrained
import tiny_training
from estimator import finetune
from estimator.data.candidates import ChoiceExample
from estimator.finetuning import choices, preparation
from estimator.finetuning.flags import FinetuneConfig
from estimator.weights import model_folder
from etl.text.tokenization import TokenizerConfig
from serving import export
from serving.saved_model import SavedModel

WORDS = tiny_training.WORDS


def questions(count, **more):
    """Which of two or three words is the question's?"""
    lines = []
    for number in range(count):
        candidates = [WORDS[(number + shift) % 15] for shift in range(2 + number % 2)]
        lines.append(json.dumps(dict(more, question=WORDS[number % 15], passage=WORDS[number % 7],
                                     candidates=candidates, label=0)))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choices")
    (folder / "task").mkdir()
    for part, count in (("train", 24), ("dev", 7), ("test", 5)):
        (folder / "task" / (part + ".json")).write_text(questions(count), encoding="utf-8")
    (folder / "pretrained").mkdir()
    pretrained.write_pretrained(folder / "pretrained")
    assert finetune.main([
        "--task_name", "choices", "--data_dir",
        str(folder / "task"), "--init_checkpoint",
        str(folder / "pretrained"), "--output_dir",
        str(folder / "out"), "--max_seq_length", "8", "--train_batch_size", "8", "--eval_batch_size", "4",
        "--learning_rate", "0.01", "--num_train_epochs", "1", "--backend", "cpu", "--do_train", "--do_eval",
        "--do_predict"
    ]) == 0
    return folder


def json_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_question_is_evaluated_and_answered(trained):
    results = json.loads((trained / "out" / "eval_results.json").read_text())
    assert results["num_examples"] == 7 and results["chance_accuracy"] == pytest.approx((4 / 2 + 3 / 3) / 7)
    assert results["majority_accuracy"] == results["longest_candidate_accuracy"] == 1    # all equally long
    found = json_lines(trained / "out" / "predictions.jsonl")
    assert [len(row["probabilities"]) for row in found] == [2, 3, 2, 3, 2, 3, 2]
    for row in found:
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["probabilities"][row["predicted"]] == pytest.approx(max(row["probabilities"]), abs=1e-4)
    assert [row["id"] for row in json_lines(trained / "out" / "choices_predict.json")] == list(range(5))


def test_the_folder_says_what_it_is(trained):
    model = model_folder.read(str(trained / "out"))
    assert (model.kind, model.labels, model.reading) == ("choices", (), None)


def test_the_exported_model_chooses_the_same(trained):
    assert export.main(["--checkpoint_dir", str(trained / "out"), "--output_dir", str(trained / "export"),
                        "--version", "1"]) == 0
    rows = json_lines(trained / "out" / "predictions.jsonl")
    found = SavedModel(str(trained / "export" / "1")).run({
        "question": [row["question"] for row in rows], "passage": [row["passage"] for row in rows],
        "candidates": [(row["candidates"] + [""])[:3] for row in rows]}, "choose")
    assert found["choice"].tolist() == [row["predicted"] for row in rows]
    for row, probabilities, count in zip(rows, found["probabilities"], found["count"]):
        assert probabilities[:count] == pytest.approx(row["probabilities"], abs=1e-4)
        assert count == len(row["candidates"]) and not probabilities[count:].any()


def test_copa_s_models_of_earlier_versions_stay_what_they_are(tmp_path):
    tokenizer = TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "vocab.txt"))
    model_folder.write(str(tmp_path / "old"), model_folder.ModelFolder(
        tiny_training.CONFIG, tokenizer, 8, task="copa", labels=("0", "1")))
    config = FinetuneConfig(data_dir="copa", output_dir=str(tmp_path / "old"), do_train=False, do_eval=True)
    model = preparation.find_trained(config)
    task = preparation.find_task(preparation.as_trained(config, model), model)
    assert (task.kind, task.pairs_per_question) == ("classes", 2)
    assert "kind" not in json.loads((tmp_path / "old" / "model.json").read_text())


def test_candidates_stand_together(tmp_path):
    config = choices.RowsConfig(TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "vocab.txt")), 7,
                                kind="choices")
    rows = choices.make_rows([ChoiceExample("天_", "地人", ("山", "水"), 1, None, None),
                              ChoiceExample("天", "地", ("山", "水", "火"), None, None, None)], config)
    assert rows.lengths.tolist() == [7, 7, 6, 6, 6] and rows.label_ids.tolist() == [1, 0]
    assert rows.unit_lengths.tolist() == [7, 6] and rows.features(2, None)["input_ids"][1] == [2, None, None]
    batch = rows.batch(np.array([0, 1]))
    assert batch["input_ids"].tolist() == [
        [[2, 6, 7, 3, 5, 8, 3], [2, 6, 7, 3, 5, 9, 3], [0] * 7],
        [[2, 6, 3, 5, 8, 3, 0], [2, 6, 3, 5, 9, 3, 0], [2, 6, 3, 5, 10, 3, 0]]]
    assert batch["input_mask"].sum(axis=2).tolist() == [[7, 7, 0], [6, 6, 6]]
    assert rows.batch(np.array([0]), 7)["input_ids"].shape == (1, 3, 7)


def test_what_does_not_fit_is_cut_but_not_the_candidate(tmp_path):
    config = choices.RowsConfig(TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "vocab.txt")), 7,
                                kind="choices")
    rows = choices.make_rows([ChoiceExample("天地人山", "水火木", ("金", "土"), 0, None, None)], config)
    assert rows.input_ids[:7].tolist() == [2, 9, 10, 3, 8, 12, 3]


def test_of_scores_that_differ_by_rounding_the_first_is_best():
    assert choices.best_of(np.array([[1, 1.00005, 0], [1, 1.001, -np.inf], [2, 3, 3]])).tolist() == [0, 1, 1]


@pytest.mark.parametrize("groups, scores, wanted", [
    ([1, 1], [[6, 4], [9, 1]], [1, 0]), ([None, None], [[6, 4], [9, 1]], [0, 0]),
    ([1, 2], [[6, 4], [9, 1]], [0, 0]),
    ([1, 1, 1], [[5, 3, 2], [4, 3.5, 2.5], [1, 2, 7]], [0, 1, 2]),
    ([1, 1], [[5, 4], [3, 0]], [0, 1]),        # of probabilities the second question's would be the highest
    ([1, 1], [[2, 2], [2, 2]], [0, 1]),
    ([1, 1, 1], [[5, 4], [3, 0], [2, 6]], [0, 0, 1])])
def test_candidates_that_exclude_each_other(groups, scores, wanted):
    assert choices.exclusive(groups, [np.array(row) for row in scores]).tolist() == wanted
