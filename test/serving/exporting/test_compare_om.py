"""A kit's comparison, run as a user would, with stand-ins for atc and for ais_bench: an offline model is the
frozen graph, and plain TensorFlow the device."""
import os
import shutil
import subprocess
import sys

import pytest

from serving import export
from serving.exporting import compare_om

ATC = """#!/usr/bin/env python3
import re, shutil, sys
found = dict(word[2:].split("=", 1) for word in sys.argv[1:])
shutil.copy(found["model"], found["output"] + ("_linux_aarch64.om" if "dynamic_dims" in found else ".om"))
"""
INTERFACE = """
import collections, os
import numpy as np
import tensorflow.compat.v1 as tf
Description = collections.namedtuple("Description", "name")
class InferSession:
    def __init__(self, device_id, model_path):
        assert device_id == 3
        self.is_open = os.sep + "open" + os.sep in model_path
        with open(model_path, "rb") as stream, tf.Graph().as_default() as graph:
            tf.import_graph_def(tf.GraphDef.FromString(stream.read()), name="")
            self.session = tf.Session(graph=graph)
    def get_inputs(self):                      # in an order of its own
        return [Description(name) for name in ("segment_ids", "input_ids", "input_mask")]
    def infer(self, feeds, mode="static", custom_sizes=100000):
        assert mode == ("dymdims" if self.is_open else "static")
        names = [description.name + ":0" for description in self.get_inputs()]
        assert all(feed.dtype == np.int32 for feed in feeds)
        outputs = self.session.run(["probabilities:0", "logits:0"], dict(zip(names, feeds)))
        off = float(os.environ.get("OFF", 0))
        return [np.concatenate([output.ravel() + off, [7, 7]]) for output in outputs]
    def free_resource(self):
        self.session.close()
"""


@pytest.fixture(scope="module")
def kit(finetuned, tmp_path_factory):
    """A kit whose models have been converted, and the folder of the stand-ins."""
    folder = tmp_path_factory.mktemp("compare")
    assert export.main(
        ["--checkpoint_dir", finetuned, "--output_dir", str(folder), "--version", "2", "--format", "ascend",
         "--batch_sizes", "3", "--lengths", "16", "--profile_batch_sizes", "1", "4",
         "--profile_lengths", "16"]) == 0
    (folder / "bin" / "ais_bench" / "infer").mkdir(parents=True)
    (folder / "bin" / "ais_bench" / "infer" / "interface.py").write_text(INTERFACE)
    (folder / "bin" / "atc").write_text(ATC)
    (folder / "bin" / "atc").chmod(0o755)
    subprocess.run(["sh", str(folder / "2" / "convert.sh")], check=True,
                   env=dict(os.environ, PATH="%s:%s" % (folder / "bin", os.environ["PATH"])))
    return folder


def compare(kit, *flags, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(kit / "2" / "compare_om.py"), "--device", "3", *flags],
        env=dict(os.environ, PYTHONPATH=str(kit / "bin"), TF_CPP_MIN_LOG_LEVEL="3", **environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    return done.returncode, done.stdout, done.stderr


def test_each_shape_and_each_profile_is_compared(kit):
    status, output, errors = compare(kit)
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["b3_l16", "open/b1_l16", "open/b4_l16"]
    assert "difference 0.000000  other labels 0 of 3  " in lines[0]
    assert lines[-1] == "All 3 shapes agree within 0.01"


def test_what_differs_too_much_is_an_error(kit):
    status, _, errors = compare(kit, "--tolerance", "0.2", OFF="0.25")
    assert status == 1 and errors == (
        "compare_om: error: the largest difference is 0.25, above the tolerance, 0.2\n")
    assert compare(kit, OFF="nan")[0] == 1


def test_what_is_missing_is_named(kit, tmp_path):
    shutil.copytree(str(kit / "2"), str(tmp_path / "2"))
    os.remove(str(tmp_path / "2" / "b3_l16" / "model.om"))
    assert compare(tmp_path)[2] == "compare_om: error: b3_l16/model.om: no such file: run convert.sh first\n"
    assert compare_om.find_cases(str(tmp_path)) == []
