"""Configurations. Every argument must go by name: the order differs between the generations."""
import inspect
import os

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
    "M": dict(
        _COMMON, hcom_parallel=True, variable_format_optimize=None, op_debug_level=None, dynamic_input=None,
        aoe_mode=None, distribute_config=None, modify_mixlist=None, op_precision_mode=None,
        device_type="default_device_type", soc_config=None, hccl_timeout=None, op_wait_timeout=None,
        op_execute_timeout=None, HCCL_algorithm=None, customize_dtypes=None, op_debug_config=None,
        memory_config=None, experimental_config=None, topo_sorting_mode=None, aoe_config_file=None,
        insert_op_file=None, stream_sync_timeout=-1, event_sync_timeout=-1, external_weight=False,
        es_cluster_config=None, deterministic=0, frozen_variable=False, variable_placement="Device",
        jit_compile="auto", precision_mode_v2=None)}


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
        if not isinstance(arguments["mix_compile_mode"], bool):
            raise TypeError("mix_compile_mode must be a bool")
        if not isinstance(arguments.get("jit_compile", ""), str):
            raise TypeError("jit_compile must be a str")
        for name in ("graph_run_mode", "enable_exception_dump"):
            if not isinstance(arguments[name], int):
                raise TypeError("%s must be an int" % name)
        for name, kind in (("dump_config", DumpConfig), ("experimental_config", ExperimentalConfig)):
            if not isinstance(arguments.get(name), (type(None), kind)):
                raise ValueError("%s must be of type %s" % (name, kind.__name__))
        super().__init__(
            model_dir=arguments["model_dir"], tf_random_seed=arguments["tf_random_seed"],
            save_summary_steps=arguments["save_summary_steps"], save_checkpoints_steps=steps,
            save_checkpoints_secs=seconds, session_config=arguments["session_config"],
            keep_checkpoint_max=arguments["keep_checkpoint_max"] if stand_in.generation() == "M" else 5,
            log_step_count_steps=arguments["log_step_count_steps"])
        self.arguments = dict(arguments)
        # AOE tunes step by step; so it was in 2022
        self.iterations_per_loop = 1 if arguments.get("aoe_mode") or os.environ.get("AOE_MODE") else loop
        stand_in.record("run_config", {name: value if isinstance(value, (str, int, float, type(None)))
                                       else type(value).__name__ for name, value in given.items()})


class ProfilingConfig:
    def __init__(self, enable_profiling=False, profiling_options=None):
        self.entry = {"profiling_mode": enable_profiling, "profiling_options": profiling_options}
        stand_in.record("profiling_config", [enable_profiling, profiling_options])


class DumpConfig:
    def __init__(self, enable_dump=False, dump_path=None, dump_step=None, dump_mode="output",
                 enable_dump_debug=False, dump_debug_mode="all"):
        self.entry = {"enable_dump": enable_dump, "dump_path": dump_path, "dump_step": dump_step,
                      "dump_mode": dump_mode, "enable_dump_debug": enable_dump_debug,
                      "dump_debug_mode": dump_debug_mode}
        stand_in.record("dump_config", list(self.entry.values()))


class MemoryConfig:
    def __init__(self, atomic_clean_policy=0, static_memory_policy=0, memory_optimization_policy=None):
        self.entry = {"atomic_clean_policy": atomic_clean_policy,
                      "static_memory_policy": static_memory_policy,
                      "memory_optimization_policy": memory_optimization_policy}


class GraphMemoryOptimizeConfig:
    def __init__(self, recompute=None):
        if recompute not in (None, "auto", "manual"):
            raise ValueError("recompute should be in ['auto', 'manual']")
        self.recompute = recompute


class ExperimentalConfig:
    def __init__(self, logical_device_cluster_deploy_mode="LB", logical_device_id=None,
                 model_deploy_mode=None, model_deploy_devicelist=None, graph_memory_optimize_config=None,
                 enable_graph_parallel=None, graph_parallel_option_path=None, resource_config_path=None):
        if not isinstance(graph_memory_optimize_config, (type(None), GraphMemoryOptimizeConfig)):
            raise ValueError("graph_memory_optimize_config must be of type GraphMemoryOptimizeConfig")
        self.entry = {"experimental_logical_device_id": logical_device_id,
                      "experimental_model_deploy_mode": model_deploy_mode,
                      "experimental_model_deploy_devicelist": model_deploy_devicelist,
                      "enable_graph_parallel": enable_graph_parallel,
                      "graph_parallel_option_path": graph_parallel_option_path,
                      "resource_config_path": resource_config_path}


class DynamicInputConfig:
    pass


if stand_in.generation() == "M":
    class DumpConfig(DumpConfig):              # noqa: F811
        def __init__(self, enable_dump=False, dump_path=None, dump_step=None, dump_mode="output",
                     enable_dump_debug=False, dump_debug_mode="all", dump_data="tensor", dump_layer=None):
            super().__init__(enable_dump, dump_path, dump_step, dump_mode, enable_dump_debug, dump_debug_mode)
            self.entry.update(dump_data=dump_data, dump_layer=dump_layer)
