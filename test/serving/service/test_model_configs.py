import sys

import pytest
from google.protobuf import text_format
from mistakes import message_of
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.service.flags import ServerConfig
from serving.service.model_configs import ModelConfig, VersionPolicy, from_flags, from_message

TWO = """
model_config_list {
  config { name: "albert" base_path: "/models/albert" model_platform: "tensorflow" }
  config {
    name: "lcqmc"
    base_path: "/models/lcqmc"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 3 versions: 5 } }
    version_labels { key: "stable" value: 3 }
    version_labels { key: "canary" value: 5 }
  }
}
"""


def of(text):
    return from_message(text_format.Parse(text, ModelServerConfig()), "f: ")


def one(fields):
    """A config of one model with these fields."""
    return of("model_config_list { config { %s } }" % fields)


def test_flags_ask_for_one_model():
    assert from_flags(ServerConfig(model_name="lcqmc", model_base_path="x")) == [ModelConfig("lcqmc", "x")]


def test_a_file_asks_for_several(tmp_path):
    path = tmp_path / "models.config"
    path.write_text(TWO)
    where = "--model_config_file: %s: model " % path
    assert from_flags(ServerConfig(model_config_file=str(path))) == [
        ModelConfig("albert", "/models/albert", origin=where + "albert"),
        ModelConfig("lcqmc", "/models/lcqmc", VersionPolicy(2, frozenset([3, 5])), {"stable": 3, "canary": 5},
                    where + "lcqmc")]


@pytest.mark.parametrize("text, policy", [
    ("", VersionPolicy(1)), ("latest {}", VersionPolicy(1)), ("latest { num_versions: 3 }", VersionPolicy(3)),
    ("all {}", VersionPolicy(sys.maxsize)), ("specific { versions: 7 }", VersionPolicy(1, frozenset([7]))),
])
def test_policies(text, policy):
    (found,) = one('name: "a" base_path: "/a" model_platform: "tensorflow" model_version_policy {%s}' % text)
    assert found.policy == policy


def test_which_versions_may_serve():
    assert VersionPolicy(1).candidates({5, 7, 6}) == [7, 6, 5]
    assert VersionPolicy(2, frozenset([5, 7, 8])).candidates({5, 7, 6}) == [7, 5]


def test_the_older_name_of_the_platform():
    assert one('name: "a" base_path: "/a" model_type: TENSORFLOW')[0].base_path == "/a"


@pytest.mark.parametrize("text, message", [
    ("", "f: wanted a model_config_list, got none"),
    ("custom_model_config {}", "f: wanted a model_config_list, got custom_model_config"),
    ('model_config_list { config { name: "a/b" } }',
     "f: config 1: name must be a name without / and :, got 'a/b'"),
    ('model_config_list { config { name: "a\\nERROR b" } }',
     "f: config 1: name must be a name without / and :, got 'a\\nERROR b'"),
    ("model_config_list { config {} }", "f: config 1: name must be a name without / and :, got ''"),
    (TWO.replace("lcqmc", "albert"), "f: model albert is listed twice"),
    (TWO.replace('"/models/albert"', '"models"'),
     "f: model albert: base_path must be an absolute path on this machine, got 'models'"),
    (TWO.replace('"/models/albert"', '"gs://models"'),
     "f: model albert: base_path must be an absolute path on this machine, got 'gs://models'"),
    (TWO.replace("tensorflow", "other"), 'f: model albert: model_platform must be "tensorflow", got "other"'),
    (TWO.replace('model_platform: "tensorflow"', ""),
     'f: model albert: model_platform must be "tensorflow", got ""'),
    (TWO.replace("versions: 3 versions: 5", ""),
     "f: model lcqmc: model_version_policy: specific names no versions"),
    (TWO.replace('"tensorflow" }', '"tensorflow" logging_config {} }'),
     "f: model albert: logging_config is not supported: requests are not recorded"),
])
def test_what_cannot_be_served(text, message):
    assert message_of(of, text) == message


def test_no_models_are_a_config_too():
    assert of("model_config_list {}") == []
