"""What the Estimator puts into the session's NpuOptimizer entry, and what the native side does not survive.

The real package assigns each value to the field of its type as it comes, so that a wrong type is protobuf's
TypeError, or as_bytes's; its native side ends the process for some of the wrong values.
"""
import os
import re

import tensorflow.compat.v1 as tf

from npu_bridge import stand_in

_FLAGS = ("enable_data_pre_proc", "mix_compile_mode", "is_tailing_optimization", "hcom_parallel",
          "enable_compress_weight", "hcom_multi_mode", "dynamic_input", "external_weight", "frozen_variable",
          "enable_reduce_precision", "variable_format_optimize", "profiling_mode", "enable_dump",
          "enable_dump_debug", "enable_graph_parallel")
_NUMBERS = ("iterations_per_loop", "graph_run_mode", "op_debug_level", "enable_exception_dump",
            "enable_small_channel", "deterministic", "local_rank_id", "hccl_timeout", "op_wait_timeout",
            "op_execute_timeout", "topo_sorting_mode", "stream_sync_timeout", "event_sync_timeout",
            "session_device_id", "atomic_clean_policy", "static_memory_policy")
_NOT_IN_IT = ("profiling_config", "dump_config", "memory_config", "experimental_config", "session_config",
              "model_dir", "tf_random_seed", "save_summary_steps", "save_checkpoints_steps",
              "save_checkpoints_secs", "keep_checkpoint_max", "keep_checkpoint_every_n_hours",
              "log_step_count_steps", "distribute", "train_distribute", "eval_distribute", "horovod_mode",
              "dynamic_input_config")
# What a field that is there must be.
_ALLOWED = {
    "op_select_implmode": {"H": ("high_precision", "high_performance")},
    "buffer_optimize": ("l2_optimize", "off_optimize"), "dump_mode": ("input", "output", "all"),
    "dump_debug_mode": ("aicore_overflow", "atomic_overflow", "all"), "dump_data": ("tensor", "stats"),
    "aoe_mode": ("1", "2", "3", "4"), "jit_compile": ("auto", "true", "false"),
    "variable_placement": ("Device", "Host"), "enable_exception_dump": (0, 1, 2), "graph_run_mode": (0, 1),
    "precision_mode": {"H": ("force_fp32", "allow_fp32_to_fp16", "force_fp16", "must_keep_origin_dtype",
                             "allow_mix_precision")},
    "precision_mode_v2": ("fp16", "origin", "cube_fp16in_fp32out", "mixed_float16", "mixed_bfloat16")}
_ALLOWED["op_select_implmode"]["M"] = _ALLOWED["op_select_implmode"]["H"] + (
    "high_precision_for_all", "high_performance_for_all")
_ALLOWED["precision_mode"]["M"] = _ALLOWED["precision_mode"]["H"] + (
    "cube_fp16in_fp32out", "allow_mix_precision_fp16", "allow_mix_precision_bf16", "allow_fp32_to_bf16")


def fill(entry, arguments):
    """Sets all fields of the entry from NPURunConfig's arguments. TypeError for a wrong type, SystemError
    where the native side would abort."""
    values = {name: value for name, value in arguments.items() if name not in _NOT_IN_IT}
    for name in _NOT_IN_IT[:4]:
        if arguments.get(name) is not None:
            values.update(arguments[name].entry)
    found = {}
    for name, value in values.items():
        if value is None and name not in ("deterministic", "stream_sync_timeout"):
            continue
        field = entry.parameter_map[name]
        if name in _FLAGS:
            field.b = value
        elif name in _NUMBERS:
            field.i = value
        elif name == "insert_op_file":         # as it is, unlike the others
            field.s = value
        else:
            field.s = tf.compat.as_bytes(str(value) if name.endswith("memory_max_size") else value)
        found[name] = value
    _survive(found)


def _survive(found):
    for name, allowed in _ALLOWED.items():
        allowed = allowed[stand_in.generation()] if isinstance(allowed, dict) else allowed
        _require(name not in found or found[name] in allowed, "%s is %s" % (name, found.get(name)))
    _require("optypelist_for_implmode" not in found or "op_select_implmode" in found,
             "op_select_implmode must be set")
    _require("compress_weight_conf" not in found, "enable_compress_weight excludes compress_weight_conf")
    _require(found.get("session_device_id", 0) >= 0, "session_device_id must not be negative")
    _require(found.get("local_rank_id", 0) in range(8), "local_rank_id")
    _require(re.fullmatch(r"(\d+,)*\d+", found.get("local_device_list", "0")), "local_device_list")
    _require("aoe_mode" not in found or os.path.isdir(found.get("work_path", ".")), "work_path")
    dumps = found.get("enable_dump") or found.get("enable_dump_debug")
    _require(not dumps or os.path.isdir(found.get("dump_path", "")), "dump_path")
    steps = found.get("dump_step", "0")
    _require(re.fullmatch(r"\d+(-\d+)?(\|\d+(-\d+)?)*", steps) and all(
        int(first) < int(last) for first, last in re.findall(r"(\d+)-(\d+)", steps)), "dump_step")
    _require(not ("precision_mode" in found and "precision_mode_v2" in found), "both precision modes")
    _require(found["enable_data_pre_proc"] or found["iterations_per_loop"] == 1,
             "a loop needs GetNext on the device")
    _require(not found.get("profiling_mode") or found.get("profiling_options"), "profiling_options")
    _require(found.get("variable_placement") != "Host" or found["mix_compile_mode"], "variable_placement")


def _require(is_good, what):
    if not is_good:
        raise SystemError("the native side would abort: %s" % what)
