import dataclasses
import json
import os

import pytest

from albert_config import AlbertConfig, ConfigError
from estimator.weights import model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common.command_line import UserError
from etl.text.tokenization import SPECIAL_TOKENS, TokenizerConfig

CONFIG = AlbertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                      intermediate_size=16, max_position_embeddings=32, embedding_size=4)


@pytest.fixture
def description(tmp_path):
    vocab_file = tmp_path / "source_vocab.txt"
    vocab_file.write_bytes(("\n".join(SPECIAL_TOKENS + ("北", "\u2028x", "京")) + "\n").encode("utf-8"))
    return ModelFolder(CONFIG, TokenizerConfig(str(vocab_file), do_lower_case=False), max_seq_length=16,
                       task="afqmc", labels=("0", "相同"), data_manifest_sha256="ab" * 32)


@pytest.fixture
def folder(tmp_path, description):
    path = str(tmp_path / "model")
    model_folder.write(path, description)
    return path


def edit(folder, **changes):
    """Changes fields of model.json; None stays null, ... removes the field."""
    path = os.path.join(folder, "model.json")
    with open(path, encoding="utf-8") as stream:
        fields = dict(json.load(stream), **changes)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({name: value for name, value in fields.items() if value is not ...}, stream)


def test_reads_what_was_written(folder, description):
    found = model_folder.read(folder)
    own_vocab = os.path.join(folder, "vocab.txt")
    assert found == dataclasses.replace(description,
                                        tokenizer=TokenizerConfig(own_vocab, do_lower_case=False))
    with open(own_vocab, "rb") as copy, open(description.tokenizer.vocab_file, "rb") as source:
        assert copy.read() == source.read()
    assert sorted(os.listdir(folder)) == ["albert_config.json", "model.json", "vocab.txt"]


def test_writing_again_onto_itself_keeps_the_vocabulary(folder):
    found = model_folder.read(folder)
    model_folder.write(folder, dataclasses.replace(found, task=None, labels=()))
    assert model_folder.read(folder) == dataclasses.replace(found, task=None, labels=())


def test_sentencepiece_model_takes_the_place_of_the_vocabulary(tmp_path):
    source = tmp_path / "30k.model"
    source.write_bytes(b"model bytes")
    folder = str(tmp_path / "model")
    model_folder.write(folder, ModelFolder(CONFIG, TokenizerConfig(spm_model_file=str(source)),
                                           max_seq_length=16))
    assert model_folder.read(folder).tokenizer == TokenizerConfig(
        spm_model_file=os.path.join(folder, "spm.model"))


def test_empty_folder_names_the_command_to_run(tmp_path):
    with pytest.raises(UserError, match=r"no model here .*: run python -m estimator\.finetune first"):
        model_folder.read(str(tmp_path))
    with pytest.raises(UserError, match=r"run python -m estimator\.pretrain first"):
        model_folder.read(str(tmp_path), made_by="estimator.pretrain")


@pytest.mark.parametrize("changes, message", [
    ({"format_version": 2}, "format_version must be 1, got 2"),
    ({"task": ...}, "missing field task"),
    ({"max_seq_length": "16"}, "max_seq_length has a wrong type: '16'"),
    ({"max_seq_length": True}, "max_seq_length has a wrong type: True"),
    ({"max_seq_length": 33}, r"max_seq_length must be in \[3, 32\].*got 33"),
    ({"vocab_file": "../vocab.txt"}, "vocab_file must be vocab.txt or spm.model"),
    ({"labels": [0, 1]}, "labels must be strings"),
    ({"labels": ["a", "\ud800"]}, r"labels: \\ud800 is half a character"),
    ({"labels": ["a", "a"]}, "labels must differ"),
])
def test_wrong_field_is_named(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(UserError, match="model.json: " + message):
        model_folder.read(folder)


def test_description_that_is_no_object(folder):
    with open(os.path.join(folder, "model.json"), "w") as stream:
        stream.write("[]")
    with pytest.raises(UserError, match="must be a JSON object, got list"):
        model_folder.read(folder)


def test_changed_vocabulary_is_refused(folder):
    with open(os.path.join(folder, "vocab.txt"), "ab") as stream:
        stream.write("东\n".encode("utf-8"))
    with pytest.raises(UserError, match="vocab_sha256 is not that of .*vocab.txt"):
        model_folder.read(folder)


def test_config_errors_name_the_config_file(folder):
    with open(os.path.join(folder, "albert_config.json"), "w") as stream:
        stream.write('{"hidden_size": 8}')
    with pytest.raises(ConfigError, match="albert_config.json: missing field"):
        model_folder.read(folder)


def test_missing_vocabulary_leaves_no_description(tmp_path, description):
    folder = str(tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        model_folder.write(folder,
                           dataclasses.replace(description, tokenizer=TokenizerConfig("/no/such/vocab.txt")))
    assert os.listdir(folder) == []
