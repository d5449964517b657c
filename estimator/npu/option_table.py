"""What each argument of npu_bridge's NPURunConfig may be; follows the adapter's public source and reference.

Its Python takes most values as they are, and its native side ends the process for a wrong one.
"""
import json
import os
import re
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Tuple

OLD_PRECISION_MODES = ("force_fp32", "allow_fp32_to_fp16", "force_fp16", "must_keep_origin_dtype",
                       "allow_mix_precision")
PRECISION_MODES = OLD_PRECISION_MODES + ("cube_fp16in_fp32out", "allow_mix_precision_fp16",
                                         "allow_mix_precision_bf16", "allow_fp32_to_bf16")
LOOP_FLAG, ACCUMULATION_FLAG = "--iterations_per_loop", "--gradient_accumulation_steps"
PRECISION_FLAG = "--precision_mode"
RUN_CONFIG = "NPURunConfig"

EARLY = "2021-02"                              # in the oldest source that was read
BY_2023 = "by 2023-12"                         # not in that one, but in the one of that month
LATER = "after 2023-12"
# A release without this argument knows the oldest one's values alone.
SIGN_OF_NEWER_VALUES = "modify_mixlist"

ANY_INT = range(-1, 2 ** 31)


class Form(NamedTuple):
    """What a text must look like, or how large a number may be."""
    text: str                                  # behind "must be"
    fits: Callable[[Any], bool]


class Config(NamedTuple):
    """An object of npu_bridge's, whose arguments are options of their own."""
    class_name: str
    options: Dict[str, "Option"]


class Rule(NamedTuple):
    """What an option wants of another one.

    Attributes:
      when: the values that want it; (): any.
      other: name of an option beside it, or a flag.
      wanted: the values it must have then; (): it must be given. None stands for not given.
    """
    when: Tuple[Any, ...]
    other: str
    wanted: Tuple[Any, ...]


class Option(NamedTuple):
    """What one argument may be.

    Attributes:
      kind: bool, int, str, float (an integer, too), SIZE, ANY, or a Config.
      values: a tuple of values, a range of integers, or a Form; (): any of the kind.
      since: the first release that has it, where one is known.
      rules: see Rule.
      newer_values: further ones, which the oldest release lacks.
      later: an argument that marks later releases, and the values there, where they are others.
      flag: the flag that sets it instead of the options file.
      refused: why it cannot be set.
    """
    kind: Any = str
    values: Any = ()
    since: str = EARLY
    rules: Tuple[Rule, ...] = ()
    newer_values: Tuple[Any, ...] = ()
    later: Tuple[str, Tuple[Any, ...]] = ("", ())
    flag: str = ""
    refused: str = ""


def _steps_fit(text: str) -> bool:
    """At most 100 steps or ranges, each of which ascends."""
    if not re.fullmatch(r"\d+(-\d+)?(\|\d+(-\d+)?)*", text, re.ASCII):
        return False
    parts = [[int(number) for number in part.split("-")] for part in text.split("|")]
    return len(parts) <= 100 and all(part[0] < part[1] for part in parts if len(part) == 2)


def _like(example: str, pattern: str) -> Form:
    return Form('like "%s"' % example, lambda text: bool(re.fullmatch(pattern, text, re.ASCII)))


def _size_fits(text: str) -> bool:
    """A number or a product, within what the native side can count."""
    if not re.fullmatch(r"\d{1,19}( *\* *\d{1,19})*", text, re.ASCII):
        return False
    product = 1
    for number in text.split("*"):
        product *= int(number)
    return 0 < product < 2 ** 63


def _is(test: Callable[[str], bool]) -> Callable[[str], bool]:
    """The same test of a path; a text that can be none, with a NUL or half a character, fails it."""
    def tested(path: str) -> bool:
        try:
            return test(path)
        except ValueError:
            return False
    return tested


FILE = Form("an existing file", _is(os.path.isfile))
FOLDER = Form("an existing directory that can be read and written",
              _is(lambda path: os.path.isdir(path) and os.access(path, os.R_OK | os.W_OK)))
NAMES = Form("names separated by commas", lambda text: bool(re.fullmatch(r"\w+(, *\w+)*", text, re.ASCII)))
SIZE = "size"                                  # bytes: an integer, or a text of one or of a product
ANY = "any"                                    # no object and no list
HOURS = Form("above 0 and at most 1000000", lambda hours: 0 < hours <= 1e6)

_STATIC = "all shapes are static"
_BY_TABLE = "devices find each other by RANK_TABLE_FILE or CM_CHIEF_IP"

_PROFILING = Config("ProfilingConfig", {
    "enable_profiling": Option(bool, rules=(Rule((True,), "profiling_options", ()),)),
    "profiling_options": Option()})
_DUMP = Config("DumpConfig", {
    "enable_dump": Option(bool, rules=(Rule((True,), "dump_path", ()),
                                       Rule((True,), "enable_dump_debug", (None, False)))),
    "dump_path": Option(values=FOLDER),
    "dump_step": Option(values=Form('like "0|5|10-20", at most 100 of them, ranges ascending', _steps_fit)),
    "dump_mode": Option(values=("input", "output", "all")),
    "enable_dump_debug": Option(bool, rules=(Rule((True,), "dump_path", ()),)),
    "dump_debug_mode": Option(values=("aicore_overflow", "atomic_overflow", "all")),
    "dump_data": Option(values=("tensor", "stats"), since=BY_2023),
    "dump_layer": Option(since=BY_2023)})
_MEMORY = Config("MemoryConfig", {
    "atomic_clean_policy": Option(int, range(2), BY_2023),
    "static_memory_policy": Option(int, range(5), BY_2023),
    "memory_optimization_policy": Option(since=BY_2023),
    "variable_use_1g_huge_page": Option(int, range(3), LATER)})
_GRAPH_MEMORY = Config("GraphMemoryOptimizeConfig", {
    "recompute": Option(values=("auto", "manual"), since=BY_2023),
    "graph_slice": Option(values=("auto", "manual"), since=LATER)})
_EXPERIMENTAL = Config("ExperimentalConfig", {
    "logical_device_cluster_deploy_mode": Option(since=BY_2023),
    "logical_device_id": Option(since=BY_2023),
    "model_deploy_mode": Option(since=BY_2023),
    "model_deploy_devicelist": Option(since=BY_2023),
    "graph_memory_optimize_config": Option(_GRAPH_MEMORY, since=BY_2023),
    "enable_graph_parallel": Option(bool, since=BY_2023),
    "graph_parallel_option_path": Option(values=FILE, since=BY_2023),
    "graph_compiler_cache_dir": Option(values=FOLDER, since=LATER),
    "resource_config_path": Option(values=FILE, since=BY_2023),
    "accelerate_train_mode": Option(refused="the trainer tells the device no steps and no losses")})

OPTIONS: Dict[str, Option] = {
    # set by flags
    "model_dir": Option(flag="--output_dir"),
    "tf_random_seed": Option(int, flag="--random_seed"),
    "save_summary_steps": Option(int, flag="--log_steps"),
    "log_step_count_steps": Option(int, flag="--log_steps"),
    "save_checkpoints_steps": Option(int, flag="--save_checkpoints_steps"),
    "save_checkpoints_secs": Option(int, flag="--save_checkpoints_steps"),
    "keep_checkpoint_max": Option(int, flag="--keep_checkpoint_max"),
    "iterations_per_loop": Option(int, flag=LOOP_FLAG),
    "precision_mode": Option(values=OLD_PRECISION_MODES, newer_values=PRECISION_MODES[5:],
                             flag=PRECISION_FLAG),
    "modify_mixlist": Option(values=FILE, since="r1.5.0", flag="--modify_mixlist"),
    # precision
    "precision_mode_v2": Option(
        values=("fp16", "origin", "cube_fp16in_fp32out", "mixed_float16", "mixed_bfloat16"), since="r1.13.0",
        rules=(Rule((), PRECISION_FLAG, (None,)),)),
    "op_select_implmode": Option(values=("high_precision", "high_performance"),
                                 newer_values=("high_precision_for_all", "high_performance_for_all")),
    "optypelist_for_implmode": Option(values=NAMES, rules=(Rule((), "op_select_implmode", ()),)),
    "op_precision_mode": Option(values=FILE, since=BY_2023, rules=(Rule((), "op_select_implmode", (None,)),)),
    "customize_dtypes": Option(values=FILE, since=BY_2023),
    "enable_reduce_precision": Option(bool),
    "deterministic": Option(int, range(2), BY_2023),
    # what runs where
    "mix_compile_mode": Option(bool, rules=(Rule((True,), LOOP_FLAG, (1,)),)),
    "enable_data_pre_proc": Option(bool, rules=(Rule((False,), LOOP_FLAG, (1,)),)),
    "variable_placement": Option(values=("Device", "Host"), since=BY_2023,
                                 rules=(Rule(("Host",), "mix_compile_mode", (True,)),)),
    "graph_run_mode": Option(int, (1,)),
    "session_device_id": Option(int, range(2 ** 31)),
    "local_rank_id": Option(int, range(8)),
    "local_device_list": Option(values=_like("0,1", r"\d+(,\d+)*")),
    "device_type": Option(since=BY_2023),
    "soc_config": Option(since=BY_2023),
    # compiling
    "jit_compile": Option(values=("auto", "true", "false"), since=BY_2023),
    "buffer_optimize": Option(values=("l2_optimize", "off_optimize")),
    "fusion_switch_file": Option(values=FILE),
    "enable_scope_fusion_passes": Option(values=NAMES),
    "variable_format_optimize": Option(bool),
    "enable_small_channel": Option(int, range(2)),
    "enable_compress_weight": Option(bool),
    "compress_weight_conf": Option(refused="NPUEstimator sets enable_compress_weight, which excludes it"),
    "op_compiler_cache_mode": Option(values=("disable", "enable", "force")),
    "op_compiler_cache_dir": Option(),
    "frozen_variable": Option(bool, since=BY_2023),
    "external_weight": Option(bool, since=BY_2023),
    "topo_sorting_mode": Option(int, range(4), BY_2023),
    "insert_op_file": Option(values=FILE, since=BY_2023),
    "oo_constant_folding": Option(bool, since=LATER),
    "oo_level": Option(since=LATER),
    "optimization_switch": Option(since=LATER),
    "aicore_num": Option(values=_like("2|4", r"[1-9]\d*\|[1-9]\d*"), since=LATER),
    "auto_multistream_parallel_mode": Option(
        values=_like("cv", r"cv|LoadBalance|(LoadBalance|MainStream):([1-9]|[1-5]\d|6[0-4])"),
        since=LATER),
    "export_compile_stat": Option(int, range(3), LATER),
    # memory
    "graph_memory_max_size": Option(SIZE),
    "variable_memory_max_size": Option(SIZE),
    "memory_config": Option(_MEMORY, since=BY_2023),
    "input_fusion_size": Option(int, range(32 * 2 ** 20 + 1), LATER),
    "input_batch_cpy": Option(bool, since=LATER),
    "all_tensor_not_empty": Option(bool, since=LATER),
    # running, also on several devices
    "stream_max_parallel_num": Option(values=_like("DNN_VM_AICPU:10,AIcoreEngine:1", r"\w+:\d+(,\w+:\d+)*")),
    "graph_max_parallel_model_num": Option(int, range(1, 2 ** 31), LATER),
    "ac_parallel_enable": Option(values=("0", "1"), since=LATER),
    "is_tailing_optimization": Option(bool, rules=(Rule((True,), ACCUMULATION_FLAG, (1,)),)),
    "hcom_parallel": Option(bool),
    "hcom_multi_mode": Option(bool),
    "HCCL_algorithm": Option(since=BY_2023),
    "hccl_timeout": Option(int, range(2 ** 31), BY_2023),
    "op_wait_timeout": Option(int, range(2 ** 31), BY_2023),
    "op_execute_timeout": Option(int, range(2 ** 31), BY_2023),
    "stream_sync_timeout": Option(int, ANY_INT, BY_2023),
    "event_sync_timeout": Option(int, ANY_INT, BY_2023),
    "distribute_config": Option(values=FILE, since=BY_2023),
    "es_cluster_config": Option(since=BY_2023),
    "keep_checkpoint_every_n_hours": Option(float, HOURS),
    # tuning
    "auto_tune_mode": Option(values=("GA", "RL", "GA|RL")),
    "mstune_mode": Option(values=("1", "2", "3", "4"), rules=(Rule((), "work_path", ()),)),
    "aoe_mode": Option(values=("1", "2", "3", "4"), since=BY_2023,
                       later=("aoe_config_file", ("1", "2", "4", "mdat"))),
    "aoe_config_file": Option(values=FILE, since=BY_2023),
    "work_path": Option(values=FOLDER),
    "experimental_config": Option(_EXPERIMENTAL, since=BY_2023),
    # finding faults
    "profiling_config": Option(_PROFILING),
    "dump_config": Option(_DUMP),
    "enable_exception_dump": Option(int, range(3)),
    "op_debug_level": Option(int, range(5)),
    "op_debug_config": Option(values=FILE, since=BY_2023),
    "debug_dir": Option(),
    "quant_dumpable": Option(values=("0", "1"), since=LATER),
    # what makes no sense here
    "session_config": Option(refused="the trainer makes it"),
    "distribute": Option(refused=_BY_TABLE),
    "train_distribute": Option(refused=_BY_TABLE),
    "eval_distribute": Option(refused="evaluation runs on one device"),
    "horovod_mode": Option(refused=_BY_TABLE),
    "dynamic_input": Option(refused=_STATIC),
    "dynamic_input_config": Option(refused=_STATIC),
    "dynamic_inputs_shape_range": Option(refused=_STATIC),
    "dynamic_graph_execute_mode": Option(refused=_STATIC),
    "compile_dynamic_mode": Option(since=LATER, refused=_STATIC),
    "shape_generalization_mode": Option(since=LATER, refused=_STATIC),
}


def all_arguments(class_name: str) -> Dict[str, Any]:
    """What every release together knows of one of npu_bridge's configs: names, without defaults."""
    return dict.fromkeys(dict(configs(OPTIONS), **{RUN_CONFIG: OPTIONS})[class_name])


def describe() -> List[Tuple[str, str, str, str, str]]:
    """The table of all options: name, where it is set, what it may be, since when, and what it wants of
    others; in the order of OPTIONS, those of an object behind it."""
    return list(_describe("", OPTIONS))


def _describe(prefix: str, options: Mapping[str, Option]) -> Iterator[Tuple[str, str, str, str, str]]:
    for name, option in options.items():
        where = option.flag or ("never: %s" % option.refused if option.refused else "options file")
        values = all_values(option)
        wanted = kind_text(option.kind) + (", " + values_text(values) if values != () else "")
        if option.later[0]:
            wanted += "; where there is %s, %s" % (option.later[0], values_text(option.later[1]))
        yield (prefix + name, where, wanted, option.since,
               "; ".join(rule_text(rule).strip() for rule in option.rules))
        if isinstance(option.kind, Config):
            yield from _describe(prefix + name + ".", option.kind.options)


def is_of_kind(value: Any, kind: Any) -> bool:
    if kind == SIZE:
        return type(value) in (int, str) and _size_fits(str(value))
    if isinstance(kind, Config):
        return isinstance(value, dict)
    if kind is ANY:
        return not isinstance(value, (dict, list))
    return type(value) in ((int, float) if kind is float else (kind,))      # True is an int to isinstance


def kind_text(kind: Any) -> str:
    return "a JSON object" if isinstance(kind, Config) else {
        bool: "true or false", int: "an integer", float: "a number", str: "a string",
        SIZE: 'a number of bytes, or a string like "31 * 1024"',
        ANY: "a string, a number, true, false or null"}[kind]


def values_text(values: Any) -> str:
    if isinstance(values, Form):
        return values.text
    if len(values) > 10:                       # a range
        return "from %d to %s" % (values[0], "2^31 - 1" if values[-1] == 2 ** 31 - 1 else values[-1])
    return "one of %s" % ", ".join(map(str, values))


def rule_text(rule: Rule) -> str:
    """What a rule wants, behind an option's name: ` false needs --iterations_per_loop 1`."""
    when = "" if not rule.when or rule.when == (True,) else " " + shown(rule.when[0])
    if None in rule.wanted:
        return "%s excludes %s" % (when, rule.other)
    return "%s needs %s" % (when, " ".join([rule.other] + [shown(value) for value in rule.wanted]))


def shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def all_values(option: Option) -> Any:
    """In every release."""
    return option.values + option.newer_values if option.newer_values else option.values


def configs(options: Mapping[str, Option]) -> Iterator[Tuple[str, Dict[str, Option]]]:
    """The classes of the objects among these options, and in them: names and what they take."""
    for option in options.values():
        if isinstance(option.kind, Config):
            yield option.kind.class_name, option.kind.options
            yield from configs(option.kind.options)
