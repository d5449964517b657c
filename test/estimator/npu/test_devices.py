import subprocess
import sys
import types

import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from estimator.model import kernels
from estimator.npu import devices, sessions
from estimator.npu import options as npu_options
from estimator.npu.devices import Device, RunOptions, choose_backend
from estimator.npu.options import NpuOptions
from estimator.npu.ranks import World
from etl.common.command_line import UserError

OPTIONS = RunOptions(save_checkpoints_steps=20, keep_checkpoint_max=3, random_seed=7, iterations_per_loop=5)

pytestmark = pytest.mark.skipif(devices.importlib.util.find_spec("npu_bridge") is not None,
                                reason="tells what happens where npu_bridge is not installed")


def test_without_the_package_auto_is_the_cpu_and_says_why():
    assert choose_backend("auto", {}) == ("cpu", "npu_bridge is not installed")
    assert choose_backend("auto", {"ASCEND_DEVICE_ID": "0"}) == ("cpu", "npu_bridge is not installed")
    assert choose_backend("cpu", {"ASCEND_DEVICE_ID": "0"}) == ("cpu", "requested")


def test_npu_without_the_package_is_refused():
    with pytest.raises(UserError, match="--backend npu: the Python package npu_bridge is not installed"):
        choose_backend("npu", {"ASCEND_DEVICE_ID": "0"})


def test_the_module_imports_neither_tensorflow_nor_npu_bridge():
    code = ("import sys, estimator.npu.devices; "
            "print([name for name in ('tensorflow', 'npu_bridge') if name in sys.modules])")
    assert subprocess.check_output([sys.executable, "-c", code]).decode().strip() == "[]"


def test_steps_must_fill_loops():
    device = Device(devices.NPU)
    devices.check_steps(device, OPTIONS, {"num_train_steps": 20, "max_eval_steps": None})
    with pytest.raises(UserError, match="--num_train_steps must be a multiple of --iterations_per_loop, "
                       "which is 5; got 23, try 20 or 25"):
        devices.check_steps(device, OPTIONS, {"num_train_steps": 23})
    with pytest.raises(UserError, match="--save_checkpoints_steps must .* got 3, try 5"):
        devices.check_steps(device, OPTIONS, {"save_checkpoints_steps": 3})
    with pytest.raises(UserError,
                       match="--iterations_per_loop is 5, but on-device loops exist only on the NPU"):
        devices.check_steps(Device(), OPTIONS, {"num_train_steps": 20})


def test_with_accumulation_a_loop_counts_batches():
    loops_of_6 = RunOptions(20, 3, 7, iterations_per_loop=6)
    devices.check_steps(Device(devices.NPU), loops_of_6, {"num_train_steps": 9}, accumulation_steps=2)
    with pytest.raises(UserError, match="must be a multiple of --iterations_per_loop / "
                       "--gradient_accumulation_steps, which is 3; got 10, try 9 or 12"):
        devices.check_steps(Device(devices.NPU), loops_of_6, {"num_train_steps": 10}, accumulation_steps=2)
    with pytest.raises(UserError, match="must be a multiple of --gradient_accumulation_steps, which is 4; "
                       "got 6, try 4 or 8"):
        devices.check_steps(Device(devices.NPU), loops_of_6, {}, accumulation_steps=4)


def test_a_loop_that_is_not_given_is_of_100_batches_in_whole_updates():
    assert [Device(devices.NPU).loop(None, steps) for steps in (1, 3, 128)] == [100, 99, 128]
    assert (Device(devices.NPU).loop(7), Device().loop(None, 3)) == (7, 1)


def test_each_npu_session_config_is_new_and_has_the_contradicting_rewrites_off():
    config = sessions.npu_session_config()
    assert config.graph_options.rewrite_options.remapping == RewriterConfig.OFF
    assert config.graph_options.rewrite_options.memory_optimization == RewriterConfig.OFF
    assert sessions.npu_session_config() is not config


def test_the_cpu_gets_a_plain_estimator(tmp_path):
    estimator = Device().make_estimator(lambda features, mode: None, str(tmp_path), OPTIONS)
    assert type(estimator) is tf.estimator.Estimator
    config = estimator.config
    assert (config.save_checkpoints_steps, config.keep_checkpoint_max,
            config.tf_random_seed) == (20, devices.ALL_CHECKPOINTS, 7)
    assert Device().training_kernels(1) is None and Device().wrap("rule") == "rule"


def test_a_planned_device_has_an_npus_loops_and_plain_tensorflows_parts():
    device = devices.plan_device(NpuOptions(loss_scale="dynamic"), None, {})
    assert str(device) == "npu (planned: npu_bridge is not installed)"
    assert (device.loop(None), device.on_host) == (100, False)
    assert device.loss_scale_manager() is None and device.wrap("rule") == "rule"


def test_a_planned_devices_kernels_are_plain_tensorflows_under_the_names_of_the_devices():
    with tf.Graph().as_default(), tf.Session() as session:
        gelu, dropout = devices.plan_device(NpuOptions(), None, {}).training_kernels(1)
        x = tf.constant([[-1.0, 0.5, 2.0]])
        assert (gelu(x).op.name, dropout(x, 0.5, "place").op.name) == ("npu_gelu", "npu_dropout")
        assert session.run(gelu(x) - kernels.gelu(x)).tolist() == [[0, 0, 0]]
    assert devices.plan_device(NpuOptions(kernels=False), None, {}).training_kernels(1) is None


@pytest.mark.parametrize("options, carried", [
    (NpuOptions(precision_mode="force_fp16"), {"precision_mode": "force_fp16"}),
    (NpuOptions(platform={"precision_mode_v2": "mixed_float16", "deterministic": 1}),
     {"precision_mode_v2": "mixed_float16", "modify_mixlist": npu_options.OWN_MIXLIST}),
    (NpuOptions(platform={"precision_mode_v2": "mixed_bfloat16"}),
     {"precision_mode_v2": "mixed_bfloat16"})])
def test_a_planned_devices_session_holds_one_entry(tmp_path, options, carried):
    estimator = devices.plan_device(options, None, {}).make_estimator(lambda features, mode: None,
                                                                      str(tmp_path), OPTIONS)
    assert sessions.session_complaints(estimator.config.session_config) == []
    assert sessions.optimizer_entries(estimator.config.session_config) == [dict(carried, use_off_line=True)]


def test_a_release_that_adds_no_entry_to_the_session_is_refused(monkeypatch):
    made = types.SimpleNamespace(config=types.SimpleNamespace(session_config=sessions.npu_session_config()))
    bridge = types.SimpleNamespace(NPURunConfig=lambda **arguments: None,
                                   NPUEstimator=lambda **arguments: made,
                                   ProfilingConfig=None, DumpConfig=None)
    monkeypatch.setattr(devices, "_bridge", lambda: bridge)
    monkeypatch.setenv("RANK_SIZE", "1")
    with pytest.raises(UserError,
                       match="the installed npu_bridge creates an invalid session: .* but it has 0"):
        Device("npu").make_estimator(None, "folder", OPTIONS)


def test_the_loss_scale_and_what_wraps_the_rule(monkeypatch):
    """As npu_bridge's classes are called; where communication's tail is hidden one of them does it all."""
    def named(name):
        return lambda **arguments: (name, arguments)

    class Fixed:
        def __init__(self, loss_scale, enable_overflow_check=True):
            self.given = loss_scale, enable_overflow_check
    monkeypatch.setattr(devices, "_bridge", lambda: types.SimpleNamespace(
        ExponentialUpdateLossScaleManager=named("dynamic"), FixedLossScaleManager=Fixed,
        NPUOptimizer=named("all"), NPULossScaleOptimizer=named("scale")))
    dynamic = Device("npu", options=NpuOptions(loss_scale="dynamic", loss_scale_decrease=0.25))
    assert dynamic.loss_scale_manager() == ("dynamic", {"init_loss_scale": 65536, "incr_every_n_steps": 1000,
                                                        "decr_ratio": 0.25})
    for checks in (True, False):
        fixed = Device("npu", options=NpuOptions(loss_scale="fixed", overflow_check=checks))
        assert fixed.loss_scale_manager().given == (1024, checks)
    assert dynamic.wrap("rule", "manager") == ("scale", {"opt": "rule", "loss_scale_manager": "manager",
                                                         "is_distributed": False})
    tailing = Device("npu", world=World(1, 2), options=NpuOptions(platform={"is_tailing_optimization": True}))
    assert tailing.wrap("rule", "manager") == ("all", {
        "opt": "rule", "loss_scale_manager": "manager", "is_distributed": True, "is_loss_scale": True,
        "is_tailing_optimization": True})


@pytest.mark.parametrize("platform, message", [
    ({"iterations_per_loop": 3}, "give the flag --iterations_per_loop instead"),
    ({"graph_run_mode": 7}, "graph_run_mode must be one of .*, got 7"),
    ({"dump_config": {"dump_path": "/no/such/folder"}}, "dump_path must be an existing directory")])
def test_a_planned_device_is_told_no_nonsense_either(platform, message):
    with pytest.raises(UserError, match=message):
        devices.plan_device(NpuOptions(platform=platform), None, {})


def plain(config):
    pass


def add_entry(config, on_the_device=True):
    entry = config.graph_options.rewrite_options.custom_optimizers.add(name="NpuOptimizer")
    entry.parameter_map["use_off_line"].b = on_the_device
    entry.parameter_map["precision_mode"].s = b"allow_mix_precision"


def add_two(config):
    add_entry(config)
    add_entry(config)


def allow_remapping(config):
    add_entry(config)
    config.graph_options.rewrite_options.remapping = RewriterConfig.DEFAULT


@pytest.mark.parametrize("change, complaints", [
    (add_entry, []),
    (plain, ["the session must have one NpuOptimizer, but it has 0"]),
    (add_two, ["the session must have one NpuOptimizer, but it has 2"]),
    (lambda config: add_entry(config, False), ["use_off_line must be true in NpuOptimizer"]),
    (allow_remapping, ["remapping must be off in the session's rewrites"])])
def test_a_session_config_is_looked_at(change, complaints):
    config = sessions.npu_session_config()
    change(config)
    assert sessions.session_complaints(config) == complaints


def test_what_the_entry_carries():
    config = sessions.npu_session_config()
    add_entry(config)
    assert sessions.optimizer_entries(config) == [{"use_off_line": True,
                                                   "precision_mode": "allow_mix_precision"}]
