"""Options of an NPU: precision, loss scale, the platform's own options; checked before the device sees them.

An invalid value is often not caught by the device's Python: its native code kills the process.
"""
import json
import os
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

from etl.common import files
from etl.common.command_line import UserError

LOSS_SCALES = ("none", "fixed", "dynamic")
# products in float16, the rest in float32; known to every release
DEFAULT_PRECISION_MODE = "allow_mix_precision"
FIXED_LOSS_SCALE, DYNAMIC_LOSS_SCALE = 1024.0, 65536.0
OLD_PRECISION_MODES = ("force_fp32", "allow_fp32_to_fp16", "force_fp16", "must_keep_origin_dtype",
                       "allow_mix_precision")
PRECISION_MODES = OLD_PRECISION_MODES + ("cube_fp16in_fp32out", "allow_mix_precision_fp16",
                                         "allow_mix_precision_bf16", "allow_fp32_to_bf16")
MIXED_PRECISION_MODES = ("allow_mix_precision", "allow_mix_precision_fp16", "allow_mix_precision_bf16",
                         "mixed_float16", "mixed_bfloat16")
# in which most tensors take two bytes per value
HALF_PRECISION_MODES = MIXED_PRECISION_MODES + ("force_fp16", "fp16")

FIRST_RELEASE = {"modify_mixlist": "r1.5.0", "precision_mode_v2": "r1.13.0"}
OPTIONS_FLAG = "--npu_options"

# Arguments of NPURunConfig that this program sets, by the flag to use instead.
_SET_BY_US = {"model_dir": "--output_dir", "tf_random_seed": "--random_seed",
              "save_summary_steps": "--log_steps",
              "log_step_count_steps": "--log_steps", "save_checkpoints_steps": "--save_checkpoints_steps",
              "save_checkpoints_secs": "--save_checkpoints_steps",
              "keep_checkpoint_max": "--keep_checkpoint_max",
              "iterations_per_loop": "--iterations_per_loop", "precision_mode": "--precision_mode",
              "modify_mixlist": "--modify_mixlist"}
# Arguments that make no sense here.
_REFUSED = {"session_config": "the trainer makes it",
            "distribute": "devices find each other by RANK_TABLE_FILE",
            "train_distribute": "devices find each other by RANK_TABLE_FILE",
            "eval_distribute": "evaluation runs on one device",
            "horovod_mode": "devices find each other by RANK_TABLE_FILE",
            "dynamic_input": "all shapes are static", "dynamic_input_config": "all shapes are static",
            "dynamic_inputs_shape_range": "all shapes are static",
            "dynamic_graph_execute_mode": "all shapes are static"}
_ALLOWED: Dict[str, Sequence[Any]] = {
    "precision_mode_v2": ("fp16", "origin", "cube_fp16in_fp32out", "mixed_float16", "mixed_bfloat16"),
    "graph_run_mode": (1,), "local_rank_id": tuple(range(8)), "dump_mode": ("input", "output", "all"),
    "dump_debug_mode": ("aicore_overflow", "atomic_overflow", "all")}
# Values that the package's Python does not check, and that crash its native code.
_KINDS: Dict[str, type] = dict(
    dict.fromkeys(("enable_data_pre_proc", "enable_reduce_precision", "variable_format_optimize",
                   "mix_compile_mode",
                   "hcom_parallel", "is_tailing_optimization", "enable_compress_weight", "hcom_multi_mode",
                   "enable_profiling", "enable_dump", "enable_dump_debug"), bool),
    **dict.fromkeys(("op_debug_level", "enable_exception_dump", "enable_small_channel", "deterministic",
                     "hccl_timeout", "session_device_id"), int),
    **dict.fromkeys(
        ("jit_compile", "op_compiler_cache_mode", "op_compiler_cache_dir", "debug_dir", "work_path",
         "auto_tune_mode", "mstune_mode", "aoe_mode", "fusion_switch_file", "optypelist_for_implmode",
         "buffer_optimize", "HCCL_algorithm", "op_precision_mode", "profiling_options", "dump_path"), str))
_KIND_NAMES = {bool: "true or false", int: "an integer", str: "a string"}
_IMPLEMENTATIONS = ("high_precision", "high_performance")
_NEWER_IMPLEMENTATIONS = ("high_precision_for_all", "high_performance_for_all")
_NESTED = ("profiling_config", "dump_config")


@dataclass(frozen=True)
class NpuOptions:
    """The options, from flags; None: not given.

    Attributes:
      precision_mode: one of PRECISION_MODES.
      modify_mixlist: path of a JSON file, see `check_mixlist`.
      loss_scale: one of LOSS_SCALES.
      loss_scale_value: the fixed factor, or the dynamic one's initial value.
      kernels: whether gelu and dropout are the device's own while training.
      platform: NPURunConfig's arguments by name, from the options file.
    """
    precision_mode: Optional[str] = None
    modify_mixlist: Optional[str] = None
    loss_scale: str = "none"
    loss_scale_value: Optional[float] = None
    kernels: bool = True
    platform: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first_loss_scale(self) -> float:
        if self.loss_scale_value is not None:
            return self.loss_scale_value
        return FIXED_LOSS_SCALE if self.loss_scale == "fixed" else DYNAMIC_LOSS_SCALE

    def run_arguments(self) -> Dict[str, Any]:
        """NPURunConfig's arguments that follow from these options; nested configs are still plain objects."""
        arguments = dict(self.platform)
        if "precision_mode_v2" not in arguments:
            arguments["precision_mode"] = self.precision_mode or DEFAULT_PRECISION_MODE
        if self.modify_mixlist:
            arguments["modify_mixlist"] = self.modify_mixlist
        return arguments

    @property
    def is_half_precision(self) -> bool:
        """Whether most tensors take two bytes per value."""
        arguments = self.run_arguments()
        return (arguments.get("precision_mode_v2") or arguments.get("precision_mode")) in HALF_PRECISION_MODES


def read_platform_options(path: Optional[str]) -> Dict[str, Any]:
    """The object in an options file; {} without one. Raises UserError when it is not a JSON object."""
    if path is None:
        return {}
    found = _read_json(path, OPTIONS_FLAG)
    if not isinstance(found, dict):
        raise UserError("%s: %s: wanted a JSON object, got %s" % (OPTIONS_FLAG, path, type(found).__name__))
    return found


def check_options(options: NpuOptions, is_known: Callable[[str], bool],
                  nested_arguments: Mapping[str, Sequence[str]], iterations_per_loop: int) -> None:
    """Raises UserError for options that the device would refuse, or that would crash it.

    Args:
      options: all of them.
      is_known: whether the installed NPURunConfig has an argument of that name.
      nested_arguments: names of the arguments of profiling_config and dump_config.
      iterations_per_loop: steps of a loop.
    """
    for name, value in options.platform.items():
        if name in _SET_BY_US:
            raise UserError("%s: %s: give the flag %s instead" % (OPTIONS_FLAG, name, _SET_BY_US[name]))
        if name in _REFUSED:
            raise UserError("%s: %s cannot be set: %s" % (OPTIONS_FLAG, name, _REFUSED[name]))
        require_known(name, is_known, "%s: %s" % (OPTIONS_FLAG, name))
        if name in _NESTED:
            _check_nested(name, value, nested_arguments[name])
        elif isinstance(value, (dict, list)) and name != "local_device_list":
            raise UserError("%s: %s must be a string, a number, true, false or null, got %s"
                            % (OPTIONS_FLAG, name, json.dumps(value)))
        _check_value(name, value, is_known)
    if options.platform.get("mix_compile_mode") and iterations_per_loop != 1:
        raise UserError("%s: mix_compile_mode needs --iterations_per_loop 1, got %d"
                        % (OPTIONS_FLAG, iterations_per_loop))
    _check_precision(options, is_known)


def require_known(name: str, is_known: Callable[[str], bool], what: str) -> None:
    """Raises UserError, naming the first release that has it, when the installed package lacks the
    argument `name`."""
    if not is_known(name):
        first = FIRST_RELEASE.get(name)
        raise UserError("%s: the installed npu_bridge has no such option%s"
                        % (what, "; the first release that has it is %s" % first if first else ""))


def check_mixlist(path: str) -> None:
    """Raises UserError unless the file holds `{"black-list": {"to-add": ["Op", …]}}`, or other lists and
    verbs alike."""
    found = _read_json(path, "--modify_mixlist")
    wanted = ('wanted {"black-list": {"to-add": ["Op"]}}, with black-list, white-list or gray-list, to-add '
              'or to-remove')
    is_good = isinstance(found, dict) and bool(found) and all(
        name in ("black-list", "white-list", "gray-list") and isinstance(verbs, dict) and all(
            verb in ("to-add", "to-remove") and isinstance(ops, list)
            and all(isinstance(op, str) for op in ops)
            for verb, ops in verbs.items()) for name, verbs in found.items())
    if not is_good:
        raise UserError("--modify_mixlist: %s: %s" % (path, wanted))


def _check_precision(options: NpuOptions, is_known: Callable[[str], bool]) -> None:
    newer = options.platform.get("precision_mode_v2")
    if options.precision_mode is not None:
        if newer is not None:
            raise UserError("--precision_mode is %s and precision_mode_v2 in %s is %s: give one of them"
                            % (options.precision_mode, OPTIONS_FLAG, newer))
        if options.precision_mode not in PRECISION_MODES:
            raise UserError("--precision_mode must be one of %s, got %s"
                            % (", ".join(PRECISION_MODES), options.precision_mode))
        if options.precision_mode not in OLD_PRECISION_MODES and not is_known("precision_mode_v2"):
            raise UserError("--precision_mode %s: the installed npu_bridge knows only %s; %s has it"
                            % (options.precision_mode, ", ".join(OLD_PRECISION_MODES),
                               FIRST_RELEASE["precision_mode_v2"]))
    if options.modify_mixlist:
        require_known("modify_mixlist", is_known, "--modify_mixlist")
        check_mixlist(options.modify_mixlist)
        mode = newer or options.precision_mode or DEFAULT_PRECISION_MODE
        if mode not in MIXED_PRECISION_MODES:
            raise UserError("--modify_mixlist needs a mixed precision mode, one of %s; got %s"
                            % (", ".join(MIXED_PRECISION_MODES), mode))


def _check_nested(name: str, value: Any, known: Sequence[str]) -> None:
    if not isinstance(value, dict):
        raise UserError("%s: %s must be a JSON object, got %s" % (OPTIONS_FLAG, name, json.dumps(value)))
    for inner, inner_value in value.items():
        if inner not in known:
            raise UserError("%s: %s: unknown %s; it has %s" % (OPTIONS_FLAG, name, inner, ", ".join(known)))
        _check_value(inner, inner_value, lambda _: True)
    if name == "dump_config":
        _check_dump(value)
    elif value.get("enable_profiling") and not isinstance(value.get("profiling_options"), str):
        raise UserError("%s: profiling_config: profiling_options must be a string, got %s"
                        % (OPTIONS_FLAG, json.dumps(value.get("profiling_options"))))


def _check_dump(value: Mapping[str, Any]) -> None:
    path, steps = value.get("dump_path"), value.get("dump_step")
    if (value.get("enable_dump") or value.get("enable_dump_debug")
        or path is not None) and not os.path.isdir(str(path)):
        raise UserError("%s: dump_config: dump_path must be an existing directory, got %s"
                        % (OPTIONS_FLAG, json.dumps(path)))
    if steps is not None and not (isinstance(steps, str)
                                  and re.fullmatch(r"\d+(-\d+)?(\|\d+(-\d+)?)*", steps)):
        raise UserError('%s: dump_config: dump_step must be like "0|5|10-20", got %s'
                        % (OPTIONS_FLAG, json.dumps(steps)))


def _check_value(name: str, value: Any, is_known: Callable[[str], bool]) -> None:
    kind = _KINDS.get(name)
    if kind is not None and value is not None and type(value) is not kind:     # True is an int to isinstance
        raise UserError("%s: %s must be %s, got %s" % (OPTIONS_FLAG, name, _KIND_NAMES[kind],
                                                       json.dumps(value)))
    allowed = _ALLOWED.get(name)
    if name == "op_select_implmode":
        allowed = _IMPLEMENTATIONS + (_NEWER_IMPLEMENTATIONS if is_known("precision_mode_v2") else ())
    if allowed is not None and value is not None and (value not in allowed or isinstance(value, bool)):
        raise UserError("%s: %s must be one of %s, got %s"
                        % (OPTIONS_FLAG, name, ", ".join(map(str, allowed)), json.dumps(value)))


def _read_json(path: str, flag: str) -> Any:
    if not os.path.isfile(path):
        raise UserError("%s: %s: no such file" % (flag, path))
    return files.read_json(path)
