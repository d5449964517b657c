"""Options of an NPU: precision, loss scale, the platform's own options; checked before the device sees them.

A wrong value is often not caught by the device's Python: its native side ends the process. What each of the
platform's own options may be stands in `option_table`.
"""
import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from estimator.npu import option_table
from estimator.npu.option_table import (ACCUMULATION_FLAG, ANY, EARLY, LOOP_FLAG, OLD_PRECISION_MODES,
                                        OPTIONS, PRECISION_FLAG, PRECISION_MODES, RUN_CONFIG,
                                        SIGN_OF_NEWER_VALUES, Config, Form, Option)
from etl.common import files
from etl.common.command_line import UserError

LOSS_SCALES = ("none", "fixed", "dynamic")
# products in float16, the rest in float32; known to every release
DEFAULT_PRECISION_MODE = "allow_mix_precision"
FIXED_LOSS_SCALE, DYNAMIC_LOSS_SCALE = 1024.0, 65536.0
MIXED_PRECISION_MODES = ("allow_mix_precision", "allow_mix_precision_fp16", "allow_mix_precision_bf16",
                         "mixed_float16", "mixed_bfloat16")
# of whose tensors most take two bytes a value
HALF_PRECISION_MODES = MIXED_PRECISION_MODES + ("force_fp16", "fp16")
# in bfloat16, whose range is float32's
WIDE_MODES = ("allow_mix_precision_bf16", "mixed_bfloat16")
# Ops of our graphs whose results, or whose constants, lie beyond float16's range. The newest mixed modes take
# a list in every release that has them, of the older ones only the first.
OWN_MIXLIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mixlist.json")
MODES_WITH_OWN_MIXLIST = (DEFAULT_PRECISION_MODE, "mixed_float16")
OPTIONS_FLAG, MIXLIST_FLAG = "--npu_options", "--modify_mixlist"
SHOWN = 120                                    # characters of a wrong value in a message


@dataclass(frozen=True)
class NpuOptions:
    """As the flags give them; None: not given.

    Attributes:
      precision_mode: one of PRECISION_MODES.
      modify_mixlist: path of a JSON file, see `check_mixlist`.
      loss_scale: one of LOSS_SCALES.
      loss_scale_value: the fixed factor, or where the dynamic one begins.
      kernels: whether gelu and dropout are the device's own while training.
      platform: NPURunConfig's arguments by name, from the options file; null keeps the release's default.
      accumulation_steps: batches behind an update.
      loss_scale_decrease: factor on a dynamic loss scale where updates overflow.
      overflow_check: whether an update that overflows is skipped; always with a dynamic loss scale.
    """
    precision_mode: Optional[str] = None
    modify_mixlist: Optional[str] = None
    loss_scale: str = "none"
    loss_scale_value: Optional[float] = None
    kernels: bool = True
    platform: Mapping[str, Any] = field(default_factory=dict)
    accumulation_steps: int = 1
    loss_scale_decrease: float = 0.5
    overflow_check: bool = True

    @property
    def first_loss_scale(self) -> float:
        if self.loss_scale_value is not None:
            return self.loss_scale_value
        return FIXED_LOSS_SCALE if self.loss_scale == "fixed" else DYNAMIC_LOSS_SCALE

    def run_arguments(self) -> Dict[str, Any]:
        """NPURunConfig's arguments that follow from these options; nested configs are still plain objects."""
        arguments = _given(self.platform)
        if "precision_mode_v2" not in arguments:
            arguments["precision_mode"] = self.precision_mode or DEFAULT_PRECISION_MODE
        if self.modify_mixlist:
            arguments["modify_mixlist"] = self.modify_mixlist
        return arguments

    @property
    def is_half_precision(self) -> bool:
        """Whether most tensors take two bytes a value."""
        return self._precision in HALF_PRECISION_MODES

    @property
    def computes_in_float16(self) -> bool:
        """Whether most ops compute in float16, whose range is narrow."""
        return self.is_half_precision and self._precision not in WIDE_MODES

    @property
    def is_mixed_precision(self) -> bool:
        """Whether a list of ops says what is computed in two bytes."""
        return self._precision in MIXED_PRECISION_MODES

    def with_own_mixlist(self, known: Mapping[str, Any]) -> "NpuOptions":
        """The same, with our list of ops where none is given and the release, which takes the arguments
        `known`, takes one."""
        if (self.modify_mixlist is None and "modify_mixlist" in known
                and self._precision in MODES_WITH_OWN_MIXLIST):
            return dataclasses.replace(self, modify_mixlist=OWN_MIXLIST)
        return self

    @property
    def _precision(self) -> str:
        arguments = self.run_arguments()
        return arguments.get("precision_mode_v2") or arguments["precision_mode"]


def read_platform_options(path: Optional[str]) -> Dict[str, Any]:
    """The object in an options file; {} without one. Raises UserError when it is not a JSON object."""
    if path is None:
        return {}
    found = _read_json(path, OPTIONS_FLAG)
    if not isinstance(found, dict):
        raise UserError("%s: %s: wanted a JSON object, got %s" % (OPTIONS_FLAG, path, type(found).__name__))
    return found


def check_options(options: NpuOptions, arguments_of: Callable[[str], Mapping[str, Any]],
                  iterations_per_loop: int) -> None:
    """Raises UserError for what the device would refuse, or not survive.

    Args:
      options: all of them.
      arguments_of: what the installed release's NPURunConfig, or another config by the name of its class,
        takes: defaults by name.
      iterations_per_loop: steps of a loop.
    """
    beside = {LOOP_FLAG: iterations_per_loop, PRECISION_FLAG: options.precision_mode,
              ACCUMULATION_FLAG: options.accumulation_steps}
    _check_object("", options.platform, OPTIONS, arguments_of, RUN_CONFIG, beside)
    _check_precision(options, arguments_of(RUN_CONFIG))


def build(platform: Mapping[str, Any], make: Callable[[str, Dict[str, Any]], Any],
          options: Mapping[str, Option] = OPTIONS) -> Dict[str, Any]:
    """Checked options as npu_bridge takes them: without nulls, and objects made by `make(class name,
    arguments)`."""
    made = _given(platform)
    for name, value in made.items():
        kind = options.get(name, Option()).kind
        if isinstance(kind, Config):
            made[name] = make(kind.class_name, build(value, make, kind.options))
    return made


def check_mixlist(path: str) -> None:
    """Raises UserError unless the file holds `{"black-list": {"to-add": ["Op", …]}}`, or other lists and
    verbs alike."""
    found = _read_json(path, MIXLIST_FLAG)
    wanted = ('wanted {"black-list": {"to-add": ["Op"]}}, with black-list, white-list or gray-list, to-add '
              'or to-remove')
    is_good = isinstance(found, dict) and bool(found) and all(
        name in ("black-list", "white-list", "gray-list") and isinstance(verbs, dict) and all(
            verb in ("to-add", "to-remove") and isinstance(ops, list)
            and all(isinstance(op, str) for op in ops)
            for verb, ops in verbs.items()) for name, verbs in found.items())
    if not is_good:
        raise UserError("%s: %s: %s" % (MIXLIST_FLAG, path, wanted))


def kept_in_float32(path: Optional[str]) -> Tuple[str, ...]:
    """Types of op that a list of ops, of `check_mixlist`'s form, keeps out of float16."""
    if path is None:
        return ()
    return tuple(_read_json(path, MIXLIST_FLAG).get("black-list", {}).get("to-add", ()))


def _given(values: Mapping[str, Any]) -> Dict[str, Any]:
    """Those that are not null, which keeps a default."""
    return {name: value for name, value in values.items() if value is not None}


def _check_object(place: str, values: Mapping[str, Any], options: Mapping[str, Option],
                  arguments_of: Callable[[str], Mapping[str, Any]], class_name: str,
                  beside: Mapping[str, Any]) -> None:
    """Checks an object of options; `place` is "" or the name of the one it is in, with a colon."""
    known, around = arguments_of(class_name), dict(_given(values), **beside)
    has_newer_values = SIGN_OF_NEWER_VALUES in arguments_of(RUN_CONFIG)
    for name, value in values.items():
        option, what = options.get(name, Option(ANY)), "%s: %s%s" % (OPTIONS_FLAG, place, name)
        if option.flag:
            raise UserError("%s: give the flag %s instead" % (what, option.flag))
        if option.refused:
            raise UserError("%s cannot be set: %s" % (what, option.refused))
        if place and name not in known:
            raise UserError("%s: %sunknown %s; it has %s" % (OPTIONS_FLAG, place, name, ", ".join(known)))
        _require_known(name, option, known, what)
        if value is None:
            continue
        if isinstance(known[name], bool):      # the installed release says what it is
            option = option._replace(kind=bool, values=())
        elif option.later[0] in known:
            option = option._replace(values=option.later[1])
        elif has_newer_values:
            option = option._replace(values=option_table.all_values(option))
        _check_value(what, value, option)
        if isinstance(option.kind, Config):
            _check_object("%s%s: " % (place, name), value, option.kind.options, arguments_of,
                          option.kind.class_name, beside)
        for rule in option.rules:
            found = around.get(rule.other)
            if (not rule.when or value in rule.when) and (
                    found is None if not rule.wanted else found not in rule.wanted):
                raise UserError("%s%s, got %s%s"
                                % (what, option_table.rule_text(rule), option_table.shown(found),
                                   ": give one of them" if None in rule.wanted else ""))


def _check_value(what: str, value: Any, option: Option) -> None:
    """Raises UserError unless a value is of the option's kind and one of its values, and a text one that the
    native side can take."""
    is_kind, values = option_table.is_of_kind(value, option.kind), option.values
    if is_kind and (values == () or (values.fits(value) if isinstance(values, Form) else value in values)):
        fault = _fault_of_text(value) if isinstance(value, str) else None
        if fault:
            raise UserError("%s %s" % (what, fault))
        return
    names_values = values != () and (is_kind or isinstance(values, Form))
    wanted = option_table.values_text(values) if names_values else option_table.kind_text(option.kind)
    got = json.dumps(value)
    raise UserError("%s must be %s, got %s"
                    % (what, wanted, got if len(got) <= SHOWN else got[:SHOWN] + "…"))


def _fault_of_text(value: str) -> Optional[str]:
    """Why the native side, to which all text goes in UTF-8, cannot take a value; None if it can."""
    if not value.strip():
        return "is empty"
    if "\0" in value:
        return "holds a NUL character, at which the native side would end it"
    if any("\ud800" <= char <= "\udfff" for char in value):
        return "holds half a surrogate pair, which is no character"
    return None


def _require_known(name: str, option: Option, known: Mapping[str, Any], what: str) -> None:
    """Raises UserError, naming the first release that has it where that is known, when the installed package
    lacks an argument."""
    if name in known:
        return
    since = ""
    if name in OPTIONS and option.since != EARLY:
        since = ("; the first release that has it is %s" if option.since.startswith("r")
                 else "; it came %s") % option.since
    raise UserError("%s: the installed npu_bridge has no such option%s" % (what, since))


def _check_precision(options: NpuOptions, known: Mapping[str, Any]) -> None:
    mode = options.precision_mode
    if mode is not None:
        if mode not in PRECISION_MODES:
            raise UserError("%s must be one of %s, got %s"
                            % (PRECISION_FLAG, ", ".join(PRECISION_MODES), mode))
        if mode not in OLD_PRECISION_MODES and SIGN_OF_NEWER_VALUES not in known:
            raise UserError("%s %s: the installed npu_bridge knows only %s; %s has it"
                            % (PRECISION_FLAG, mode, ", ".join(OLD_PRECISION_MODES),
                               OPTIONS["precision_mode_v2"].since))
    if options.modify_mixlist:
        _require_known("modify_mixlist", OPTIONS["modify_mixlist"], known, MIXLIST_FLAG)
        check_mixlist(options.modify_mixlist)
        if not options.is_mixed_precision:
            raise UserError("%s needs a mixed precision mode, one of %s; got %s"
                            % (MIXLIST_FLAG, ", ".join(MIXED_PRECISION_MODES), options._precision))
        if "precision_mode_v2" not in known and options._precision != DEFAULT_PRECISION_MODE:
            raise UserError("%s: the installed npu_bridge takes it with %s %s alone; got %s"
                            % (MIXLIST_FLAG, PRECISION_FLAG, DEFAULT_PRECISION_MODE, options._precision))


def _read_json(path: str, flag: str) -> Any:
    if not os.path.isfile(path):
        raise UserError("%s: %s: no such file" % (flag, path))
    return files.read_json(path)
