"""Flags from a dataclass, and one-line errors instead of tracebacks for user mistakes.

A command is a frozen dataclass whose fields are made with `flag`, and a function that takes it:

    @dataclass(frozen=True)
    class ShowConfig:
        input_file: Tuple[str, ...] = flag((), "files to show")
        limit: int = flag(5, "samples to print")

    def main(argv=None) -> int:
        return run("etl.show", __doc__, ShowConfig, show, argv)

Several related flags can form a nested config, which is passed on as a whole. In the command's help its flags
are listed in place of the field:

    input_file: Tuple[str, ...] = flag((), "text")                      # --input_file
    instances: InstanceConfig = nested(InstanceConfig)                  # --max_seq_length, --masking, ...
"""
import argparse
import dataclasses
import difflib
import logging
import math
import os
import shlex
import signal
import sys
import warnings
from typing import (Any, Callable, Dict, Iterator, List, Mapping, NoReturn, Optional, Sequence, Tuple, Type,
                    TypeVar)

from albert_config import ConfigError
from etl.common import cores

Config = TypeVar("Config")

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")

# A flag's rule when an interrupted run is resumed: it must be the same, unless the user allows the change; it
# may change; it names something whose content is compared instead; it must be the same, whatever the user
# allows.
SAME, FREE, SAME_CONTENT, FIXED = "same", "free", "same content", "fixed"
ANY_DEVICE, NPU_ALONE = "any device", "NPU alone"                # where a flag has an effect


class UserError(ValueError):
    """An error in the user's input. The message names the place, the value got and the value wanted."""


def flag(default: Any, help_text: str, choices: Optional[Sequence[Any]] = None, required: bool = False,
         positional: bool = False, empty_ok: bool = False, on_resume: str = SAME,
         works_on: str = ANY_DEVICE) -> Any:
    """A dataclass field that becomes a command-line flag of the same name and default, or the positional
    arguments.

    An empty string is an error (usually an unset shell variable) unless `empty_ok`.

    Args:
      on_resume: one of SAME, FREE, SAME_CONTENT, FIXED; ignored in a command that cannot be resumed.
      works_on: ANY_DEVICE or NPU_ALONE.
    """
    return dataclasses.field(default=default, metadata={
        "help": help_text, "choices": choices, "required": required, "positional": positional,
        "empty_ok": empty_ok, "on_resume": on_resume, "works_on": works_on})


def nested(config_class: Type[Config]) -> Config:
    """A dataclass field that holds a nested config; each of its fields is also a flag of the command."""
    return dataclasses.field(default_factory=config_class, metadata={"nested": config_class})


def from_flags(config_class: Type[Config], flags: Mapping[str, Any]) -> Config:
    """Builds a config, and the configs nested in it, from values by flag name; a flag that is left out has
    its default.

    Raises ValueError as the configs do, and TypeError for an unknown name.
    """
    unknown = sorted(set(flags) - {field.name for field in _flag_fields(config_class)})
    if unknown:
        raise TypeError("%s has no flag %s" % (config_class.__name__, ", ".join(unknown)))
    return _built(config_class, flags)


def flags_of(config: Any) -> Dict[str, Any]:
    """All flags of a config, those of nested configs included, as {name: value}."""
    found: Dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        found.update(flags_of(value) if "nested" in field.metadata else {field.name: value})
    return found


def names_of(config: Any, **declared: str) -> List[str]:
    """Names of a config's flags that were declared with these values: `names_of(config, on_resume=FREE)`."""
    return [field.name for field in _flag_fields(config)
            if all(field.metadata[key] == value for key, value in declared.items())]


def parse(prog: str, description: str, config_class: Type[Config],
          argv: Optional[Sequence[str]] = None) -> Config:
    """Builds `config_class` from the command line. An unknown flag or an invalid value exits with status 2
    and one line."""
    parser = _Parser(prog="python -m " + prog, description=description, allow_abbrev=False,
                     formatter_class=_HelpFormatter)
    fields = list(_flag_fields(config_class))
    for field in fields:
        _add_flag(parser, field)
    given = parser.parse_flags(argv)
    values = {field.name: _flatten(given[field.name])
              for field in fields if given[field.name] not in (None, [])}
    for field in fields:
        value = values.get(field.name)
        for item in value if isinstance(value, tuple) else (value,):
            fault = _fault(item, field.metadata["empty_ok"])
            if fault:
                parser.error("%s%s %s" % ("" if field.metadata["positional"] else "--", field.name, fault))
    try:
        return _built(config_class, values)
    except ValueError as error:                # raised by the config's own __post_init__
        parser.error(str(error))


def run(prog: str, description: str, config_class: Type[Config], command: Callable[[Config], Optional[int]],
        argv: Optional[Sequence[str]] = None) -> int:
    """Parses, runs `command` and returns the exit status: 0, 1 for a user error or a full disk, 130 for
    Ctrl-C."""
    quiet_libraries()
    cores.tell_libraries()
    heed_sigterm()
    # a terminal that cannot show Chinese gets escapes, not a traceback
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        config = parse(prog, description, config_class, argv)
        require_paths_that_can_be_read()
        status = command(config) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:                    # the reader of our output, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, ConfigError, OSError) as error:
        print("%s: error: %s" % (prog, one_line(error)), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("%s: interrupted" % prog, file=sys.stderr)
        return 130


def heed_sigterm() -> None:
    """Makes SIGTERM end a container's first process, as it does any other: the system ignores signals for
    process 1 unless they have handlers."""
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def quiet_libraries() -> None:
    """Silences TensorFlow and jieba on the console; must be called before either is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # of a gather among rows of any number; they fit
    warnings.filterwarnings("ignore", "Converting sparse IndexedSlices")
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)


def require_paths_that_can_be_read() -> None:
    """Raises UserError if Python treats the name of its own folder as ASCII, but it is not: TensorFlow would
    not load."""
    for path in sys.path:
        if path != os.fsencode(path).decode("utf-8", "replace"):
            raise UserError("LC_ALL: %s is not ASCII, and in the C locale Python 3.7 and TensorFlow cannot "
                            "handle it: set LC_ALL=C.UTF-8" % os.fsencode(path).decode("utf-8", "replace"))


def describe(config: Any) -> str:
    """The flags of a config as one line that can be pasted after the command."""
    parts = []
    for name, value in flags_of(config).items():
        if value is None or value == () or value == "":
            continue
        if isinstance(value, tuple):
            value = " ".join(_shell_word(item) for item in value)
        else:
            value = _shell_word(str(value).lower() if isinstance(value, bool) else value)
        parts.append("--%s %s" % (name, value))
    return " ".join(parts)


def _flag_fields(config: Any) -> "Iterator[dataclasses.Field[Any]]":
    """The fields of a config (or of its class) that are flags, those of nested configs at their place."""
    for field in dataclasses.fields(config):
        if "nested" in field.metadata:
            yield from _flag_fields(field.metadata["nested"])
        else:
            yield field


def _built(config_class: Type[Config], flags: Mapping[str, Any]) -> Config:
    values = {}
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        if "nested" in field.metadata:
            values[field.name] = _built(field.metadata["nested"], flags)
        elif field.name in flags:
            values[field.name] = flags[field.name]
    return config_class(**values)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows each default once, after the help text, and keeps the description's own line breaks."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        default = action.metavar_default if isinstance(action, _Flag) else None
        return text if default in (None, "",
                                   ()) else "%s (default: %s)" % (text, str(default).replace("%", "%%"))


class _Flag(argparse._StoreAction):
    metavar_default: Any = None


class _ListFlag(argparse._AppendAction):
    pass


class _Parser(argparse.ArgumentParser):
    """One-line errors with a pointer to --help."""

    def parse_flags(self, argv: Optional[Sequence[str]]) -> Dict[str, Any]:
        """The values by flag name; an unknown flag is an error that names the flags most like it."""
        found, unknown = self.parse_known_args(argv)
        if unknown:
            names = [name[2:] for name in self._option_string_actions if name.startswith("--")]
            close = {"--" + name: None for given in unknown if given.startswith("-")    # in order, each once
                     for name in difflib.get_close_matches(given.lstrip("-").partition("=")[0], names, 2)}
            self.error("unrecognized arguments: %s%s"
                       % (" ".join(unknown), ", did you mean %s?" % " or ".join(close) if close else ""))
        return vars(found)

    def exit(self, status: int = 0, message: Optional[str] = None) -> NoReturn:
        sys.stdout.flush()  # of --help: a full disk or a closed pipe is reported like any other
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        self.exit(2, "%s: error: %s (see --help)\n" % (self.prog.replace("python -m ", ""), message))


def _add_flag(parser: argparse.ArgumentParser, field: "dataclasses.Field[Any]") -> None:
    help_text, choices = field.metadata["help"], field.metadata["choices"]
    common: Dict[str, Any] = {"help": help_text.replace("%", "%%"), "default": None}
    if field.metadata["positional"]:
        parser.add_argument(field.name, nargs="*", **common)
        return
    common.update(dest=field.name, required=field.metadata["required"])
    if field.type in (Tuple[str, ...], Tuple[int, ...]):
        items: Dict[Any, Callable[[str], Any]] = {Tuple[str, ...]: str, Tuple[int, ...]: _integer}
        parser.add_argument("--" + field.name, action=_ListFlag, nargs="+", type=items[field.type],
                            metavar="VALUE", **common)
        return
    kinds: Dict[Any, Callable[[str], Any]] = {
        str: str, int: _integer, float: _number, bool: _boolean,
        Optional[str]: str, Optional[int]: _integer, Optional[float]: _number, Optional[bool]: _boolean}
    kind = kinds[field.type]
    if kind is _boolean:
        common.update(nargs="?", const=True, metavar="true|false")
    elif choices:
        common["choices"] = list(choices)
    else:
        common["metavar"] = {_integer: "N", _number: "X", str: "VALUE"}[kind]
    action = parser.add_argument("--" + field.name, action=_Flag, type=kind, **common)
    default = field.default
    action.metavar_default = str(default).lower() if isinstance(default, bool) else default  # type: ignore


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("wants an integer, got %r" % text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError("wants a number, got %r" % text)
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise argparse.ArgumentTypeError("wants true or false, got %r" % text)
    return text.lower() in TRUE


def _fault(value: Any, empty_ok: bool) -> Optional[str]:
    """Why a text is not a valid flag value; most are file names, for which the system would raise various
    errors."""
    if not isinstance(value, str):
        return None
    if not value and not empty_ok:
        return "is empty"
    return fault_of_name(value)


def fault_of_name(value: str) -> Optional[str]:
    """Why a text cannot be a file name; None if it can."""
    if "\0" in value:
        return "holds a NUL character, which no name can have: %r" % value
    # U+DC80 to U+DCFF stand for bytes of a name that are not UTF-8.
    if any("\ud800" <= char <= "\udfff" and not "\udc80" <= char <= "\udcff" for char in value):
        return "holds half a surrogate pair, which is no character: %s" % ascii(value)
    return None


def _flatten(value: object) -> object:
    if isinstance(value, list):                # of lists, if a flag is given several times
        return tuple(item for group in value for item in (group if isinstance(group, list) else [group]))
    return value


def one_line(error: BaseException) -> str:
    """An error's message without line breaks; an OSError's begins with what went wrong and names the file."""
    if isinstance(error, OSError) and error.strerror:
        if error.strerror.startswith("No usable temporary directory"):     # for any caller
            return "TMPDIR: no folder for short-lived files can be written: set TMPDIR to one that can"
        name = error.filename2 or error.filename           # of a rename, what the file was to become
        place = ": %s" % name if name else ""
        return error.strerror + place
    return " ".join(str(error).split("\n"))


def _shell_word(value: Any) -> str:
    return shlex.quote(str(value))
