import pytest
from mistakes import message_of
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.service import text_messages


def test_text_becomes_a_message(tmp_path):
    path = tmp_path / "x"
    path.write_bytes('\ufeff# 说明\nmodel_config_list { config { name: "文本" } }'.encode())
    config = ModelServerConfig()
    text_messages.read(str(path), config, "--f")
    assert [model.name for model in config.model_config_list.config] == ["文本"]


@pytest.mark.parametrize("text, message", [
    (b"model_config_list {\n  confg {} }",
     '2:3 : Message type "tensorflow.serving.ModelConfigList" has no field named "confg".'),
    (b"model_config_list {", "1:19 : Expected \"}\"."),
    (b"\xff", " not UTF-8: invalid start byte at byte 0xff"),
])
def test_what_is_no_such_text(tmp_path, text, message):
    (tmp_path / "x").write_bytes(text)
    said = message_of(text_messages.read, str(tmp_path / "x"), ModelServerConfig(), "--f")
    assert said == "--f: %s:%s" % (tmp_path / "x", message)


def test_no_file(tmp_path):
    said = message_of(text_messages.read, str(tmp_path / "x"), ModelServerConfig(), "--f")
    assert said == "--f: %s: No such file or directory" % (tmp_path / "x")
