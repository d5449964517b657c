import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from estimator import npu
from estimator.npu import RunOptions, choose_backend
from etl.command_line import UserError

OPTIONS = RunOptions(save_checkpoints_steps=20, keep_checkpoint_max=3, random_seed=7, iterations_per_loop=5)

pytestmark = pytest.mark.skipif(npu.importlib.util.find_spec("npu_bridge") is not None,
                                reason="tells what happens where npu_bridge is not installed")


def test_without_the_package_auto_is_the_cpu_and_says_why():
    assert choose_backend("auto", {}) == ("cpu", "npu_bridge is not installed")
    assert choose_backend("auto", {"ASCEND_DEVICE_ID": "0"}) == ("cpu", "npu_bridge is not installed")
    assert choose_backend("cpu", {"ASCEND_DEVICE_ID": "0"}) == ("cpu", "asked for")


def test_npu_without_the_package_is_refused():
    with pytest.raises(UserError, match="--backend npu: the Python package npu_bridge is not installed"):
        choose_backend("npu", {"ASCEND_DEVICE_ID": "0"})


def test_the_module_imports_neither_tensorflow_nor_npu_bridge():
    code = ("import sys, estimator.npu; "
            "print([name for name in ('tensorflow', 'npu_bridge') if name in sys.modules])")
    assert subprocess.check_output([sys.executable, "-c", code]).decode().strip() == "[]"


def test_steps_must_fill_loops():
    npu.check_steps("npu", OPTIONS, {"num_train_steps": 20, "max_eval_steps": None})
    with pytest.raises(UserError, match="--num_train_steps must be a multiple of --iterations_per_loop, .* 5; got 23"):
        npu.check_steps("npu", OPTIONS, {"num_train_steps": 23})
    with pytest.raises(UserError, match="--iterations_per_loop is 5, but only the NPU runs loops of its own"):
        npu.check_steps("cpu", OPTIONS, {"num_train_steps": 20})


def test_npu_run_arguments():
    assert npu.npu_run_arguments("output/pretrain", OPTIONS) == {
        "model_dir": "output/pretrain", "tf_random_seed": 7, "save_summary_steps": 0, "save_checkpoints_steps": 20,
        "keep_checkpoint_max": 3, "iterations_per_loop": 5, "precision_mode": "allow_mix_precision"}


def test_each_npu_session_config_is_new_and_has_the_contradicting_rewrites_off():
    config = npu.npu_session_config()
    assert config.graph_options.rewrite_options.remapping == RewriterConfig.OFF
    assert config.graph_options.rewrite_options.memory_optimization == RewriterConfig.OFF
    assert npu.npu_session_config() is not config


def test_the_cpu_gets_a_plain_estimator(tmp_path):
    estimator = npu.make_estimator("cpu", lambda features, mode: None, str(tmp_path), OPTIONS)
    assert type(estimator) is tf.estimator.Estimator
    config = estimator.config
    assert (config.save_checkpoints_steps, config.keep_checkpoint_max, config.tf_random_seed) == (20, 3, 7)
