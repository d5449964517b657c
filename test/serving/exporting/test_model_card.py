import json
import os
import re

from exported import CONFIG, LABELS

from estimator.training import result_files
from estimator.weights import model_folder
from etl.common import files
from serving.exporting import model_card


def test_says_what_the_model_is(finetuned):
    card = model_card.describe(model_folder.read(finetuned), os.path.join(finetuned, "model.ckpt-0"))
    assert card["labels"] == list(LABELS) and card["task"] == "sentence_pair"
    assert card["config"] == CONFIG.to_dict()
    assert (card["max_seq_length"], card["do_lower_case"], card["checkpoint"]) == (32, True, "model.ckpt-0")
    assert card["vocab_sha256"] == files.sha256_of_file(os.path.join(finetuned, "vocab.txt"))
    assert card["data_manifest_sha256"] is None and card["metrics"] is None
    assert card["versions"]["tensorflow"].startswith("1.15")
    assert finetuned not in json.dumps(card)


def test_metrics_are_those_of_the_checkpoint_or_none(finetuned, tmp_path):
    model = model_folder.read(finetuned)
    result_files.write_results(str(tmp_path), {"global_step": 7, "eval_accuracy": 0.5})
    assert model_card.describe(model, str(tmp_path / "model.ckpt-7"))["metrics"] == {"global_step": 7,
                                                                                     "eval_accuracy": 0.5}
    assert model_card.describe(model, str(tmp_path / "model.ckpt-8"))["metrics"] is None


def test_git_revision_is_of_this_code_or_none(finetuned, monkeypatch):
    def said():
        return model_card.describe(model_folder.read(finetuned), "model.ckpt-0")["git_revision"]
    assert said() is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", said())
    monkeypatch.setenv("PATH", "")
    assert said() is None


def test_writes_the_files(finetuned, tmp_path):
    model_card.write(str(tmp_path), model_folder.read(finetuned), os.path.join(finetuned, "model.ckpt-0"))
    extra = tmp_path / "assets.extra"
    assert sorted(os.listdir(str(extra))) == ["labels.txt", "model_card.json", "vocab.txt"]
    assert (extra / "labels.txt").read_text(encoding="utf-8") == "相同\n不同\n其他\n"
