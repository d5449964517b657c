import dataclasses
import json

import pytest
import tensorflow.compat.v1 as tf

import tiny_models
from albert_config import AlbertConfig
from estimator.model import heads
from estimator.weights import descriptions, model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.command_line import UserError
from etl.text.tokenization import SPECIAL_TOKENS, TokenizerConfig
from mistakes import message_of
from saved import save

CONFIG = AlbertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                      intermediate_size=16, max_position_embeddings=32, embedding_size=4)
WORDS = SPECIAL_TOKENS + ("[unused1]", "\u2028x", "京")


def write_vocabulary(path, words=WORDS, end="\n"):
    files.write_text(str(path), end.join(words) + end)
    return TokenizerConfig(str(path), do_lower_case=False)


@pytest.fixture
def description(tmp_path):
    return ModelFolder(CONFIG, write_vocabulary(tmp_path / "source.txt"), max_seq_length=16, task="afqmc",
                       labels=("0", "相同"), data_manifest_sha256="ab" * 32)


def test_what_flags_give_is_named_when_it_does_not_fit(description):
    tokenizer = description.tokenizer
    assert descriptions.from_flags(CONFIG, tokenizer, 16, task="afqmc", labels=("0", "相同"),
                                   data_manifest_sha256="ab" * 32) == description
    larger = dataclasses.replace(CONFIG, vocab_size=9)
    for args, fields, message in (
            ((larger, tokenizer, 16), {},
             "vocab_size is 9 in the config, but the vocabulary %s has 8 entries" % tokenizer.vocab_file),
            ((CONFIG, tokenizer, 33), {},
             "--max_seq_length must be in [3, 32], the config's max_position_embeddings; got 33"),
            ((CONFIG, tokenizer, 16), {"labels": ("0", "0")},
             "--labels must differ from each other, got 0, 0")):
        with pytest.raises(UserError) as error:
            descriptions.from_flags(*args, **fields)
        assert str(error.value) == message


class TestVocabulary:
    """What is given to a checkpoint beside which model.json lies, or the vocabulary of a released one."""

    @pytest.fixture(params=["described", "vocab.txt", "vocab_chinese.txt"])
    def checkpoint(self, tmp_path, description, request):
        folder = tmp_path / "model"
        if request.param == "described":
            model_folder.write(str(folder), description)
        else:
            write_vocabulary(folder / request.param)
        return str(folder / "model.ckpt-5")

    @pytest.mark.parametrize("words, end", [
        (WORDS, "\n"), (WORDS, "\r\n"), (SPECIAL_TOKENS + ("自己", "\u2028x", "京"), "\n"),
        (WORDS[:-1] + ("[unused2]",), "\n")])
    def test_the_same_but_for_line_ends_and_what_was_never_used(self, tmp_path, checkpoint, words, end):
        descriptions.require_vocabulary(write_vocabulary(tmp_path / "v.txt", words, end), "x", checkpoint)

    @pytest.mark.parametrize("words, how", [
        (SPECIAL_TOKENS + ("[unused1]", "京", "\u2028x"),
         "2 of 8 entries differ, the first in line 7: 京, there \u2028x"),
        (WORDS + ("南",), "it has 9 entries, that one 8")])
    def test_another(self, tmp_path, checkpoint, words, how):
        given = write_vocabulary(tmp_path / "v.txt", words)
        message = message_of(descriptions.require_vocabulary, given, "--init_checkpoint", checkpoint)
        assert message.startswith("--init_checkpoint: %s is not the vocabulary that the model was trained "
                                  "with, " % given.vocab_file) and message.endswith(": " + how)

    def test_nothing_is_known(self, tmp_path):
        descriptions.require_vocabulary(write_vocabulary(tmp_path / "v.txt"), "x", str(tmp_path / "m.ckpt"))


def test_a_published_config_gets_its_feed_forward_groups_from_the_checkpoint(tmp_path, capsys):
    config = dataclasses.replace(tiny_models.CONFIGS["google_fast"], hidden_act="gelu")
    prefix, _ = save(tmp_path / "model.ckpt", lambda: heads.declare_variables(config))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({name: value for name, value in config.to_dict().items()
                                if name != "num_ffn_groups"}))
    with tf.Graph().as_default():
        assert descriptions.load_config(str(path), prefix) == config
    assert "num_ffn_groups is not in %s: it is 4 in %s\n" % (path, prefix) == capsys.readouterr().out
    for other in (None, str(tmp_path / "checkpoint")):
        assert descriptions.load_config(str(path), other).num_ffn_groups == 1
