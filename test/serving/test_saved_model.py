import os
import shutil

import examples_model
import numpy as np
import pytest
from exported import LABELS, TOKENS

from etl.common.command_line import UserError
from serving.saved_model import MAX_JOINED, SavedModel


def test_runs_a_signature_by_names(version):
    saved = SavedModel(version)
    assert saved.labels == saved.card["labels"] == list(LABELS)
    assert saved.vocabulary == TOKENS
    assert saved.example_tensors == {saved.signatures["examples"].inputs["examples"].name}
    found = saved.run({"input_ids": [[2, 3]], "input_mask": [[1, 1]], "segment_ids": [[0, 0]]}, "predict_ids")
    assert sorted(found) == ["label", "logits", "probabilities"]
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), [1], rtol=1e-6)


def test_signatures_of_one_input_are_run_at_once(examples_version):
    saved = SavedModel(examples_version)
    inputs = {"inputs": [examples_model.example(3), examples_model.example(5)]}
    found = saved.run_joined(inputs, "regress", "classify")
    assert {name: values.tolist() for name, values in found.items()} == {
        "regress/outputs": [1.5, 2.5], "classify/scores": [[3, 6], [5, 10]],
        "classify/classes": [[b"less", b"more"]] * 2}
    for number in range(1, 2 * MAX_JOINED):    # whoever asks in ever other ways takes no more memory
        saved.run_joined(inputs, *["regress"] * number)
    assert saved._call_joined.cache_info().currsize == MAX_JOINED


def test_unknown_signature_names_those_there_are(version):
    with pytest.raises(UserError, match="no signature serving, only classify, embed, encode, examples, "
                       "predict_ids, serv"):
        SavedModel(version).run({}, "serving")


@pytest.mark.parametrize("path, message", [
    ("assets.extra/model_card.json", "model_card.json: no such file"),
    ("variables/variables.data-00000-of-00001", "not a complete model"),
])
def test_missing_file_is_a_user_error(version, tmp_path, path, message):
    folder = shutil.copytree(version, str(tmp_path / "1"))
    os.remove(os.path.join(folder, path))
    with pytest.raises(UserError, match=message):
        SavedModel(folder)


@pytest.mark.parametrize("name, content, message", [
    ("model_card.json", b"[" * 150000,
     "model_card.json: not JSON in UTF-8: lists and objects are nested more than 64 deep"),
    ("model_card.json", b"[]", "model_card.json: labels must be a list of texts"),
    ("model_card.json", b'{"labels": [1]}', "model_card.json: labels must be a list of texts"),
    ("model_card.json", b'{"labels": ["a"], "config": []}',
     r"model_card.json: config must be an object, got \[\]"),
    *(("model_card.json", b'{"labels": ["a"], "config": {"max_position_embeddings": %s}}' % value,
       "must be a whole number from 1, got") for value in (b'"512"', b"null", b"true", b"0", b"1.5", b"[1]")),
    ("model_card.json", b'{"labels": ["\\ud800"]}', "model_card.json: .ud800 is half a character"),
    ("vocab.txt", b"\xff", "vocab.txt: not UTF-8: invalid start byte"),
])
def test_what_stands_beside_the_graph_is_damaged(tmp_path, name, content, message):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "model_card.json").write_bytes(b'{"labels": ["a"]}')
    (tmp_path / "assets.extra" / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        SavedModel(str(tmp_path))


def test_damaged_graph_is_a_user_error(version, tmp_path):
    folder = shutil.copytree(version, str(tmp_path / "1"))
    with open(os.path.join(folder, "saved_model.pb"), "wb"):
        pass
    with pytest.raises(UserError, match="not a complete model"):
        SavedModel(folder)
