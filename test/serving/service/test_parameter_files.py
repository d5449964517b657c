import pytest
from mistakes import message_of

from serving.service.flags import ServerConfig
from serving.service.parameter_files import METRICS_PATH, metrics_path, with_batching_parameters

BATCHING = """max_batch_size { value: 64 }
max_enqueued_batches { value: 3 }
num_batch_threads { value: 5 }
%s
"""


def with_parameters(tmp_path, text):
    (tmp_path / "x").write_text(text)
    return with_batching_parameters(ServerConfig(max_batch_size=16,
                                                 batching_parameters_file=str(tmp_path / "x")))


def test_a_file_of_parameters_wins_over_flags(tmp_path, caplog):
    found = with_parameters(tmp_path, BATCHING % "")
    assert (found.max_batch_size, found.max_enqueued_batches, found.num_batch_threads) == (64, 3, 5)
    assert with_parameters(tmp_path, "").max_batch_size == 16
    assert with_batching_parameters(ServerConfig()) == ServerConfig()
    assert caplog.text == ""


@pytest.mark.parametrize("text, said", [
    ("batch_timeout_micros { value: 1000 }", "batch_timeout_micros has no effect: no batch waits to fill up"),
    ("allowed_batch_sizes: 8 allowed_batch_sizes: 16", "allowed_batch_sizes has no effect: batches are not"),
    ("pad_variable_length_inputs: true", "pad_variable_length_inputs has no effect: rows of other lengths"),
    ('thread_pool_name { value: "x" }', "thread_pool_name has no effect: there is one pool"),
])
def test_what_has_no_effect_is_said(tmp_path, caplog, text, said):
    assert with_parameters(tmp_path, BATCHING % text).max_batch_size == 64
    assert said in caplog.text and caplog.text.count("no effect") == 1


def test_parameters_that_cannot_be(tmp_path):
    assert message_of(with_parameters, tmp_path, "max_batch_size { value: 0 }") == (
        "--batching_parameters_file: %s: max_batch_size must be at least 1, got 0" % (tmp_path / "x"))
    assert "1:1 : " in message_of(with_parameters, tmp_path, "batch_size: 1")


@pytest.mark.parametrize("text, found", [
    ("prometheus_config { enable: true path: \"/metrics\" }", "/metrics"),
    ("prometheus_config { enable: true }", METRICS_PATH), ("prometheus_config { path: \"/metrics\" }", None),
    ("", None),
])
def test_where_metrics_are(tmp_path, text, found):
    (tmp_path / "x").write_text(text)
    assert metrics_path(str(tmp_path / "x")) == found
    assert metrics_path(None) == METRICS_PATH


@pytest.mark.parametrize("path", ["metrics", "/v1/models", "/{x}", "/a?b"])
def test_paths_that_cannot_be(tmp_path, path):
    (tmp_path / "x").write_text('prometheus_config { enable: true path: "%s" }' % path)
    assert message_of(metrics_path, str(tmp_path / "x")).endswith("and blanks, got '%s'" % path)


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/model.json", "/openapi.json"])
def test_paths_of_the_server_stay_its_own(tmp_path, path):
    (tmp_path / "x").write_text('prometheus_config { enable: true path: "%s" }' % path)
    assert message_of(metrics_path, str(tmp_path / "x")).endswith("path %s is the server's own" % path)
