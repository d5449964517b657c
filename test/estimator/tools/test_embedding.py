import io
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import exported
from estimator import embed
from estimator.model.modeling import EncoderOutput
from estimator.tools import embedding
from estimator.tools.flags import EmbedConfig

TEXTS = ["北京你好", "手机没信号怎么办，网络？", "字", "普通话abc"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    exported.make_classifier(str(folder))
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return folder


def run(model, *flags):
    return embed.main(
        ["--checkpoint_dir", str(model), "--input_file", str(model / "texts.txt"), "--max_seq_length", "16"]
        + list(map(str, flags)))


@pytest.mark.parametrize("pooling, wanted", [
    ("pooled", [[7.0], [8.0]]), ("cls", [[1.0], [5.0]]), ("mean", [[3.0], [7.0]])])
def test_pooling(pooling, wanted):
    """Rows of [CLS] a b [SEP] and of [CLS] a [SEP] with padding."""
    layer = np.float32([[[1], [2], [3], [6]], [[5], [6], [10], [99]]])
    with tf.Session() as session:
        texts = EncoderOutput(None, tf.constant([[7.0], [8.0]]), (tf.zeros_like(layer), tf.constant(layer)),
                              (), None, None)
        found = session.run(embedding.pool(texts, tf.constant([[1, 1, 1, 1], [1, 1, 1, 0]]), pooling, -1))
    assert found.tolist() == wanted


def test_vectors_come_in_order_whatever_the_batch(model, capsys):
    for batch_size in (1, 3):
        assert run(model, "--output_file", model / ("%d.npy" % batch_size), "--batch_size", batch_size,
                   "--layer", 0) == 0
    assert "Wrote 4 vectors of 16 numbers to %s" % (model / "3.npy") in capsys.readouterr().out
    one, three = (np.load(str(model / ("%d.npy" % number))) for number in (1, 3))
    assert one.shape == (4, 16) and one.dtype == np.float32
    np.testing.assert_allclose(one, three, atol=1e-6)
    assert run(model, "--output_file", model / "v.jsonl", "--layer", 0) == 0
    lines = [json.loads(line) for line in (model / "v.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == TEXTS
    np.testing.assert_allclose([line["vector"] for line in lines], one, atol=1e-5)


def test_standard_input_and_output(model, capsysbinary, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("北京\r\n你好".encode("utf-8"))))
    assert embed.main(["--checkpoint_dir", str(model), "--max_seq_length", "16", "--pooling", "pooled"]) == 0
    lines = [json.loads(line) for line in capsysbinary.readouterr().out.decode("utf-8").splitlines()]
    assert [(line["text"], len(line["vector"])) for line in lines] == [("北京", 16), ("你好", 16)]


@pytest.mark.parametrize("content, flags, message", [
    (b"\xe5\xad\x97\n\n", [], "bad.txt: line 2: the text is empty"),
    (b"\xcc\xec\n", [], "bad.txt: line 1: not UTF-8: "),
    (b"a\n", ["--layer", "2"], "--layer must be in [-2, 2), the model's layers; got 2"),
    (b"a\n", ["--max_seq_length", "49"], "--max_seq_length must be in [3, 48]"),
    (b"a\n", ["--checkpoint_dir", "nowhere"], "--checkpoint_dir: nowhere"),
    (b"a\n", ["--vocab_file", "x"], "--vocab_file is for checkpoints without a description, but"),
])
def test_a_mistake_is_one_line_and_nothing_is_written(model, capsys, content, flags, message):
    (model / "bad.txt").write_bytes(content)
    assert run(model, "--input_file", model / "bad.txt", "--output_file", model / "none.npy", *flags) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("estimator.embed: error: ") and message in errors and errors.count("\n") == 1
    assert not list(model.glob("none.npy*"))


def test_another_kind_of_file_is_refused():
    with pytest.raises(ValueError, match="output_file must end in .npy or .jsonl, got a.txt"):
        EmbedConfig(output_file="a.txt")
