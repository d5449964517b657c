"""Configurations. Every argument must go by name: the order differs between the generations."""
import inspect
import os
import re

import tensorflow.compat.v1 as tf

from npu_bridge import stand_in

_COMMON = dict(
    iterations_per_loop=1, profiling_config=None, model_dir=None, tf_random_seed=None, save_summary_steps=0,
    save_checkpoints_steps=None, save_checkpoints_secs=None, session_config=None, keep_checkpoint_max=5,
    keep_checkpoint_every_n_hours=10000, log_step_count_steps=100, distribute=None, enable_data_pre_proc=True,
    precision_mode=None, enable_reduce_precision=False, variable_format_optimize=True, mix_compile_mode=False,
    hcom_parallel=False, graph_memory_max_size=None, variable_memory_max_size=None, dump_config=None,
    stream_max_parallel_num=None, is_tailing_optimization=False, horovod_mode=False, graph_run_mode=1,
    op_debug_level=0, enable_scope_fusion_passes=None, enable_exception_dump=0, op_select_implmode=None,
    optypelist_for_implmode=None, dynamic_input_config=None, work_path=None,
    buffer_optimize="l2_optimize", enable_small_channel=0, fusion_switch_file=None,
    enable_compress_weight=False, compress_weight_conf=None, op_compiler_cache_mode=None,
    op_compiler_cache_dir=None, debug_dir=None, hcom_multi_mode=False, dynamic_input=False,
    dynamic_graph_execute_mode="dynamic_execute", dynamic_inputs_shape_range=None, train_distribute=None,
    eval_distribute=None, local_rank_id=None, local_device_list=None, session_device_id=None)
ARGUMENTS = {
    "H": dict(_COMMON, auto_tune_mode=None, mstune_mode=None),
    "M": dict(_COMMON, aoe_mode=None, hcom_parallel=True, modify_mixlist=None, op_precision_mode=None,
              deterministic=0,
              jit_compile="auto", precision_mode_v2=None, HCCL_algorithm=None, hccl_timeout=None)}

PRECISION_MODES = {"H": ("force_fp32", "allow_fp32_to_fp16", "force_fp16", "must_keep_origin_dtype",
                         "allow_mix_precision")}
PRECISION_MODES["M"] = PRECISION_MODES["H"] + (
    "cube_fp16in_fp32out", "allow_mix_precision_fp16", "allow_mix_precision_bf16", "allow_fp32_to_bf16")


class NPURunConfig(tf.estimator.RunConfig):
    """A RunConfig with the device's options."""

    __signature__ = inspect.Signature([
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in ARGUMENTS[stand_in.generation()].items()])

    def __init__(self, **given):
        bound = self.__signature__.bind(**given)           # TypeError for an argument this generation lacks
        bound.apply_defaults()
        arguments = bound.arguments
        loop = arguments["iterations_per_loop"]
        if not isinstance(loop, int):
            raise TypeError("iterations_per_loop must be an integer, got %r" % loop)
        if loop <= 0:
            raise ValueError("iterations_per_loop must be positive, got %d" % loop)
        if arguments["mix_compile_mode"] and loop != 1:
            raise ValueError("mix_compile_mode needs iterations_per_loop 1")
        steps, seconds = arguments["save_checkpoints_steps"], arguments["save_checkpoints_secs"]
        if steps is not None and seconds is not None:
            raise ValueError("save_checkpoints_steps and save_checkpoints_secs exclude each other")
        if steps is None and seconds is None:
            steps = 100
        if arguments["precision_mode"] not in (None,) + PRECISION_MODES[stand_in.generation()]:
            raise SystemError("the native side would abort: precision_mode %s" % arguments["precision_mode"])
        if arguments["precision_mode"] and arguments.get("precision_mode_v2"):
            raise ValueError("precision_mode and precision_mode_v2 exclude each other")
        super().__init__(
            model_dir=arguments["model_dir"], tf_random_seed=arguments["tf_random_seed"],
            save_summary_steps=arguments["save_summary_steps"], save_checkpoints_steps=steps,
            save_checkpoints_secs=seconds, session_config=arguments["session_config"],
            keep_checkpoint_max=arguments["keep_checkpoint_max"] if stand_in.generation() == "M" else 5,
            log_step_count_steps=arguments["log_step_count_steps"])
        self.arguments = dict(arguments)
        self.iterations_per_loop = loop
        stand_in.record("run_config", {name: value if isinstance(value, (str, int, float, type(None)))
                                       else type(value).__name__ for name, value in given.items()})


class ProfilingConfig:
    def __init__(self, enable_profiling=False, profiling_options=None):
        if enable_profiling and not isinstance(profiling_options, str):
            raise ValueError("profiling_options must be a string")
        stand_in.record("profiling_config", [enable_profiling, profiling_options])


class DumpConfig:
    def __init__(self, enable_dump=False, dump_path=None, dump_step=None, dump_mode="output",
                 enable_dump_debug=False, dump_debug_mode="all"):
        if (enable_dump or enable_dump_debug) and not os.path.isdir(dump_path or ""):
            raise ValueError("dump_path must be an existing directory")
        if dump_step is not None and not re.fullmatch(r"\d+(-\d+)?(\|\d+(-\d+)?)*", dump_step):
            raise ValueError("dump_step is %r" % dump_step)
        if dump_mode not in ("input", "output",
                             "all") or dump_debug_mode not in ("aicore_overflow", "atomic_overflow", "all"):
            raise ValueError("dump_mode or dump_debug_mode")
        stand_in.record("dump_config",
                        [enable_dump, dump_path, dump_step, dump_mode, enable_dump_debug, dump_debug_mode])


class DynamicInputConfig:
    pass
