import os
import re
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

from serving import export
from serving.exporting import ascend_kit

# Runs a kit's graph on its inputs without any of our code, and prints the shapes and the largest difference.
PLAIN = """
import numpy as np, sys, tensorflow.compat.v1 as tf
graph = tf.GraphDef.FromString(open("model.pb", "rb").read())
tf.import_graph_def(graph, name="")
feed = {name + ":0": np.fromfile(name + ".bin", "<i4").reshape(3, 16) for name in ("input_ids", "input_mask", "segment_ids")}
found = tf.Session().run("probabilities:0", feed)
print(found.shape, abs(found - np.fromfile("probabilities.bin", "<f4").reshape(3, 3)).max() < 1e-6)
"""


@pytest.fixture(scope="module")
def kit(finetuned, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("ascend")
    assert export.main(
        ["--checkpoint_dir", finetuned, "--output_dir", str(output_dir), "--version", "2", "--format",
         "ascend", "--batch_sizes", "1", "3", "--lengths", "16", "--soc_version", "Ascend310",
         "--profile_batch_sizes", "1", "4", "--profile_lengths", "16", "48"]) == 0
    return str(output_dir / "2")


def test_holds_a_folder_for_each_shape(kit):
    assert sorted(os.listdir(kit)) == ["assets.extra", "b1_l16", "b3_l16", "compare_om.py", "convert.sh", "open"]
    assert sorted(os.listdir(os.path.join(kit, "open"))) == [
        "b1_l16", "b1_l48", "b4_l16", "b4_l48", "model.pb"]
    assert "model.pb" not in os.listdir(os.path.join(kit, "open", "b4_l48"))
    assert sorted(os.listdir(os.path.join(kit, "b3_l16"))) == [
        "input_ids.bin", "input_mask.bin", "logits.bin", "model.pb", "probabilities.bin", "segment_ids.bin"]


def test_plain_tensorflow_runs_it_on_its_own_samples(kit):
    out = subprocess.run([sys.executable, "-c", PLAIN], cwd=os.path.join(kit, "b3_l16"), check=True,
                         stdout=subprocess.PIPE).stdout
    assert out == b"(3, 3) True\n"


def test_every_shape_is_static(kit):
    with open(os.path.join(kit, "b3_l16", "model.pb"), "rb") as stream:
        definition = tf.GraphDef.FromString(stream.read())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    tensors = [tensor for operation in graph.get_operations() for tensor in operation.outputs]
    assert [tensor.name for tensor in tensors if not tensor.shape.is_fully_defined()] == []
    assert not {node.op for node in definition.node} & {"VariableV2", "Assert", "Where", "Shape"}


def test_one_graph_is_open_to_any_batch_and_length_and_to_nothing_else(kit):
    """No shape in between hangs on what the ids are, only on how many there are: a profile fixes them all."""
    with open(os.path.join(kit, "open", "model.pb"), "rb") as stream:
        definition = tf.GraphDef.FromString(stream.read())
    placeholders = {node.name: [dim.size for dim in node.attr["shape"].shape.dim]
                    for node in definition.node if node.op == "Placeholder"}
    assert placeholders == {name: [-1, -1] for name in ("input_ids", "input_mask", "segment_ids")}
    assert not {node.op for node in definition.node} & {
        "VariableV2", "Assert", "Where", "Unique", "DynamicPartition", "While", "Switch", "Merge"}
    assert not [node.name for node in definition.node for name in node.input if name.startswith("^")]


def test_same_bytes_again(kit, finetuned, tmp_path):
    assert export.main(["--checkpoint_dir", finetuned, "--output_dir", str(tmp_path), "--format", "ascend",
                        "--lengths", "16", "--version", "1"]) == 0
    with open(str(tmp_path / "1" / "b1_l16" / "model.pb"), "rb") as ours:
        with open(os.path.join(kit, "b1_l16", "model.pb"), "rb") as theirs:
            assert ours.read() == theirs.read()


def test_commands(kit):
    command, open_command = ascend_kit.atc_commands([(3, 16)], [(1, 32), (8, 32), (1, 64)], "Ascend310")
    assert open_command == (
        'atc --framework=3 --model=open/model.pb --output=open/model --input_format=ND '
        '--input_shape="input_ids:-1,-1;input_mask:-1,-1;segment_ids:-1,-1" '
        '--out_nodes="probabilities:0;logits:0" --soc_version=Ascend310 '
        '--dynamic_dims="1,32,1,32,1,32;8,32,8,32,8,32;1,64,1,64,1,64"')
    assert command == ('atc --framework=3 --model=b3_l16/model.pb --output=b3_l16/model --input_format=ND '
                       '--input_shape="input_ids:3,16;input_mask:3,16;segment_ids:3,16" '
                       '--out_nodes="probabilities:0;logits:0" --soc_version=Ascend310')
    with open(os.path.join(kit, "convert.sh")) as stream:
        assert command + "\n" in stream.read()


def test_script_runs_the_commands_in_its_own_folder(kit, tmp_path):
    atc = tmp_path / "atc"
    atc.write_text('#!/bin/sh\ntest -f b1_l16/model.pb && echo "$1 $4"\n')
    atc.chmod(0o755)
    out = subprocess.run(["sh", os.path.join(kit, "convert.sh")], check=True, stdout=subprocess.PIPE,
                         env=dict(os.environ, PATH="%s:%s" % (tmp_path, os.environ["PATH"]))).stdout.decode()
    assert re.findall("--framework=3 --input_format=ND", out) == ["--framework=3 --input_format=ND"] * 3


def test_a_full_disk_names_the_folder_and_nothing_stays(finetuned, tmp_path, capsys, monkeypatch):
    def no_space(*arguments):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
    monkeypatch.setattr(ascend_kit, "freeze", no_space)
    assert export.main(["--checkpoint_dir", finetuned, "--output_dir", str(tmp_path), "--format",
                        "ascend"]) == 1
    assert "--output_dir: %s: No space left on device" % tmp_path in capsys.readouterr().err
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("flags, message", [
    (["--lengths", "16", "49"], "--lengths: must be at most 48, the model's max_position_embeddings, got 49"),
    (["--profile_lengths", "49"], "--profile_lengths: must be at most 48, "),
    (["--profile_lengths", "16", "--profile_batch_sizes", "1"],
     "--profile_batch_sizes and --profile_lengths: atc wants 2 to 100 profiles, they make 1"),
])
def test_what_model_or_compiler_has_not(finetuned, tmp_path, capsys, flags, message):
    assert export.main(["--checkpoint_dir", finetuned, "--output_dir", str(tmp_path), "--format", "ascend",
                        *flags]) == 1
    assert message in capsys.readouterr().err
    assert os.listdir(str(tmp_path)) == []
