import dataclasses
import json
import os

import pytest

import albert_config
from albert_config import AlbertConfig, ConfigError, from_dict, load, shipped_names, vocab_path

SIZES = dict(vocab_size=37, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=32,
             max_position_embeddings=12)
ZH = AlbertConfig(embedding_size=8, **SIZES)
GOOGLE = AlbertConfig(embedding_size=8, num_hidden_groups=1, inner_group_num=1, **SIZES)

# name: hidden_size, intermediate_size, heads, layers, dropout, family, ln_type, hidden groups,
# feed-forward groups
RELEASED = {
    "tiny": (312, 1248, 12, 4, 0.0, "albert_zh", "postln", None, 1),
    "base": (768, 3072, 12, 12, 0.0, "albert_zh", "postln", None, 1),
    "large": (1024, 4096, 16, 24, 0.0, "albert_zh", "postln", None, 1),
    "xlarge": (2048, 8192, 32, 24, 0.0, "albert_zh", "postln", None, 1),
    "xxlarge": (4096, 16384, 64, 12, 0.0, "albert_zh", "preln", None, 1),
    "tiny_google": (312, 1248, 12, 4, 0.0, "google", None, 1, 1),
    "small_google": (384, 1536, 12, 6, 0.0, "google", None, 1, 1),
    "tiny_google_fast": (336, 1344, 12, 4, 0.1, "google", None, 12, 16),
    "base_google_fast": (768, 3072, 12, 12, 0.1, "google", None, 12, 16),
    "bert_config": (768, 3072, 12, 12, 0.0, "bert", None, None, 1),
}


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_released_configs(name):
    hidden, intermediate, heads, layers, dropout, family, ln_type, groups, ffn_groups = RELEASED[name]
    config = load(name)
    assert (config.hidden_size, config.intermediate_size, config.num_attention_heads,
            config.num_hidden_layers) == (
                hidden, intermediate, heads, layers)
    assert (config.family, config.ln_type or "postln", config.num_hidden_groups, config.num_ffn_groups) == (
        family, ln_type or "postln", groups, ffn_groups)
    assert (config.vocab_size, config.max_position_embeddings, config.type_vocab_size) == (21128, 512, 2)
    assert config.embedding_size == (None if family == "bert" else 128)
    if family != "bert":
        assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (dropout, dropout)


def test_every_shipped_config_loads():
    assert set(shipped_names()) >= set(RELEASED)
    for name in shipped_names():
        assert (load(name).vocab_size, load(name).hidden_act) == (21128, "gelu")


@pytest.mark.parametrize("layers, groups", [(4, 16), (12, 1)])
def test_what_the_published_files_of_the_fast_variants_leave_out(tmp_path, layers, groups):
    path = tmp_path / "albert_config_tiny_g.json"
    path.write_text(json.dumps({
        "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "embedding_size": 128, "hidden_size": 336, "initializer_range": 0.02, "intermediate_size": 1344,
        "max_position_embeddings": 512, "num_attention_heads": 12, "num_hidden_layers": layers,
        "num_hidden_groups": 12, "net_structure_type": 0, "gap_size": 0, "num_memory_blocks": 0,
        "inner_group_num": 1, "down_scale_factor": 1, "type_vocab_size": 2, "vocab_size": 21128}))
    assert load(str(path)).num_ffn_groups == groups        # of the others the checkpoint's shapes tell
    assert (load(str(path)) == load("tiny_google_fast")) == (layers == 4)
    own = dataclasses.replace(load(str(path)), num_ffn_groups=1)
    assert from_dict(own.to_dict()) == own


def test_family_follows_from_the_fields():
    assert AlbertConfig(**SIZES).family == "bert"
    assert ZH.family == "albert_zh"
    assert GOOGLE.family == "google"
    assert ZH.head_size == 4


def test_a_file_round_trip(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dict(GOOGLE.to_dict(), net_structure_type=0, down_scale_factor=1)))
    assert load(str(path)) == GOOGLE
    assert "ln_type" not in GOOGLE.to_dict()
    assert from_dict(ZH.to_dict()) == ZH


@pytest.mark.parametrize("config, changes, message", [
    (ZH, {"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
    (ZH, {"embedding_size": 0}, "embedding_size must be at least 1, got 0"),
    (ZH, {"hidden_size": 18}, "hidden_size must be a multiple of num_attention_heads, which is 4, got 18"),
    (ZH, {"hidden_dropout_prob": 1.0}, "hidden_dropout_prob must be in [0, 1), got 1.0"),
    (ZH, {"attention_probs_dropout_prob": float("nan")},
     "attention_probs_dropout_prob must be in [0, 1), got nan"),
    (ZH, {"initializer_range": 0}, "initializer_range must be above 0 and finite, got 0"),
    (ZH, {"initializer_range": float("inf")}, "initializer_range must be above 0 and finite, got inf"),
    (ZH, {"hidden_act": "gelo"}, "hidden_act must be one of gelu, relu, swish, tanh, linear, got gelo"),
    (ZH, {"ln_type": "pre"}, "ln_type must be postln or preln, got pre"),
    (ZH, {"num_hidden_layers": 2.0}, "num_hidden_layers must be an integer, got 2.0"),
    (ZH, {"num_hidden_layers": True}, "num_hidden_layers must be an integer, got True"),
    (ZH, {"num_hidden_layers": None}, "num_hidden_layers must be an integer, got None"),
    (ZH, {"initializer_range": "0.02"}, "initializer_range must be a number, got '0.02'"),
    (ZH, {"hidden_act": 3}, "hidden_act must be a string, got 3"),
    (ZH, {"inner_group_num": 1}, "inner_group_num must be absent, since num_hidden_groups is absent, got 1"),
    (ZH, {"num_ffn_groups": 4}, "num_ffn_groups must be 1, since num_hidden_groups is absent, got 4"),
    (ZH, {"embedding_size": None, "ln_type": "preln"},
     "ln_type must be absent, since embedding_size is absent, got preln"),
    (GOOGLE, {"embedding_size": None},
     "embedding_size must be present, since num_hidden_groups is, got None"),
    (GOOGLE, {"ln_type": "preln"}, "ln_type must be absent, since num_hidden_groups is present, got preln"),
    (GOOGLE, {"num_ffn_groups": 5}, "hidden_size must be a multiple of num_ffn_groups, which is 5, got 16"),
    (GOOGLE, {"num_ffn_groups": 16, "intermediate_size": 24},
     "intermediate_size must be a multiple of num_ffn_groups, which is 16, got 24"),])
def test_bad_values(config, changes, message):
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(config, **changes)
    assert str(error.value) == message


@pytest.mark.parametrize("content, message", [
    (b"{", "not a JSON file in UTF-8: Expecting property name enclosed in double quotes"),
    (b"\xff", "not a JSON file in UTF-8: 'utf-8' codec can't decode byte 0xff"),
    (b"[" * 100000, "not a JSON file in UTF-8: maximum recursion depth exceeded"),
    (b"[1]", "must be a JSON object, got list"),
    (b'{"hidden_sizes": 3}',
     "unknown field hidden_sizes; known are attention_probs_dropout_prob, embedding_size, "),
    (b'{"vocab_size": 3}', "missing field hidden_size, num_hidden_layers, num_attention_heads, "
     "intermediate_size, max_position_embeddings"),
    (json.dumps(dict(ZH.to_dict(), hidden_size=18)).encode(),
     "hidden_size must be a multiple of num_attention_heads, which is 4, got 18"),])
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load(str(path))
    assert str(error.value).startswith("%s: %s" % (path, message))


def test_neither_name_nor_file():
    with pytest.raises(ConfigError) as error:
        load("tinny")
    assert str(error.value) == ("albert_config_file: tinny is neither a file nor one of the shipped configs: "
                                + ", ".join(shipped_names()))


def test_configs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ZH.vocab_size = 1


def test_shipped_vocabulary_is_there():
    assert os.path.dirname(vocab_path()) == os.path.dirname(albert_config.__file__)
    with open(vocab_path(), "rb") as stream:
        assert stream.read().count(b"\n") == 21128
