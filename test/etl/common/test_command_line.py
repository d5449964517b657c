import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from typing import Optional, Tuple

import pytest

from albert_config import ConfigError
from etl.common.command_line import UserError, describe, flag, flags_of, from_flags, nested, parse, run


@dataclass(frozen=True)
class ShowConfig:
    input_file: Tuple[str, ...] = flag((), "files to show")
    ids: Tuple[int, ...] = flag((1,), "ids to show")
    limit: int = flag(5, "samples to print, 100% of them")
    rate: float = flag(0.5, "a share")
    title: Optional[str] = flag(None, "a heading")
    width: Optional[int] = flag(None, "columns")
    verbose: bool = flag(False, "say more")
    order: str = flag("up", "direction", ("up", "down"))

    def __post_init__(self):
        if self.limit < 1:
            raise ValueError("limit must be at least 1, got %d" % self.limit)


def parsed(*argv):
    return parse("etl.show", "Shows.", ShowConfig, argv)


def failure(capsys, *argv):
    with pytest.raises(SystemExit) as exit_info:
        parsed(*argv)
    assert exit_info.value.code == 2
    captured = capsys.readouterr()
    assert not captured.out
    return captured.err


def run_with(command, argv=()):
    return run("etl.show", "Shows.", ShowConfig, command, argv)


def failing(error):
    def command(config):
        raise error
    return command


def test_defaults_are_the_dataclass():
    assert parsed() == ShowConfig()


def test_every_kind_of_flag():
    assert parsed("--input_file", "a", "b", "--input_file=c", "--ids", "3", "--limit", "7", "--rate", "1e-3",
                  "--title", "你好", "--width", "80", "--verbose", "true", "--order", "down") == ShowConfig(
                      ("a", "b", "c"), (3,), 7, 0.001, "你好", 80, True, "down")


@pytest.mark.parametrize("argv, value", [
    (["--verbose"], True), (["--verbose=True"], True), (["--verbose", "YES"], True), (["--verbose=1"], True),
    (["--verbose=false"], False), (["--verbose", "No"], False), (["--verbose=0"], False)])
def test_boolean(argv, value):
    assert parsed(*argv).verbose is value


@pytest.mark.parametrize("argv, message", [
    (["--limits", "3"], "unrecognized arguments: --limits 3, did you mean --limit?"),
    (["--lim", "3"], "unrecognized arguments: --lim 3, did you mean --limit?"),
    (["--input-file=a", "--tilte", "b"],
     "unrecognized arguments: --input-file=a --tilte b, did you mean --input_file or --title?"),
    (["--colour", "red"], "unrecognized arguments: --colour red"),
    (["--limit", "3.5"], "argument --limit: wants an integer, got '3.5'"),
    (["--ids", "1", "x"], "argument --ids: wants an integer, got 'x'"),
    (["--rate", "half"], "argument --rate: wants a number, got 'half'"),
    (["--rate", "nan"], "argument --rate: wants a number, got 'nan'"),
    (["--rate", "-inf"], "argument --rate: expected one argument"),
    (["--rate=-inf"], "argument --rate: wants a number, got '-inf'"),
    (["--rate", "1e999"], "argument --rate: wants a number, got '1e999'"),
    (["--title", ""], "--title is empty"),
    (["--input_file", "a", ""], "--input_file is empty"),
    (["--title", "a\0b"], "--title holds a NUL character, which no name can have: 'a\\x00b'"),
    (["--input_file", "a", "\0"], "--input_file holds a NUL character, which no name can have: '\\x00'"),
    (["--input_file", "语\ud800"],
     "--input_file holds half a surrogate pair, which is no character: '\\u8bed\\ud800'"),
    (["--title", "\udd00"], "--title holds half a surrogate pair, which is no character: '\\udd00'"),
    (["--verbose", "maybe"], "argument --verbose: wants true or false, got 'maybe'"),
    (["--order", "left"], "argument --order: invalid choice: 'left' (choose from 'up', 'down')"),
    (["--limit", "0"], "limit must be at least 1, got 0"),
])
def test_bad_flag_is_one_line_and_status_2(capsys, argv, message):
    assert failure(capsys, *argv) == "etl.show: error: %s (see --help)\n" % message


def test_a_file_name_that_is_no_utf8_is_a_name():
    name = os.fsdecode(b"\x80\xff.txt")
    assert parse("etl.show", "Shows.", ShowConfig, ["--title", name]).title == name == "\udc80\udcff.txt"


def test_positional_flag(capsys):
    @dataclass(frozen=True)
    class Files:
        files: Tuple[str, ...] = flag(("default.txt",), "files", positional=True)

    assert parse("etl.show", "Shows.", Files, []).files == ("default.txt",)
    assert parse("etl.show", "Shows.", Files, ["a", "b"]).files == ("a", "b")
    with pytest.raises(SystemExit):
        parse("etl.show", "Shows.", Files, ["a", ""])
    assert capsys.readouterr().err == "etl.show: error: files is empty (see --help)\n"


def test_a_flag_may_be_empty_on_demand():
    @dataclass(frozen=True)
    class Texts:
        text: str = flag("x", "a text", empty_ok=True)

    assert parse("etl.show", "Shows.", Texts, ["--text", ""]).text == ""


def test_missing_required_flag(capsys):
    @dataclass(frozen=True)
    class Needy:
        name: str = flag("", "needed", required=True)

    with pytest.raises(SystemExit):
        parse("etl.show", "Shows.", Needy, [])
    assert "the following arguments are required: --name" in capsys.readouterr().err


def test_help_shows_each_default_once(capsys):
    with pytest.raises(SystemExit) as exit_info:
        parsed("--help")
    text = capsys.readouterr().out
    assert exit_info.value.code == 0
    assert "samples to print, 100% of them (default: 5)" in text
    assert "say more (default: false)" in text
    assert text.count("default:") == 4         # limit, rate, verbose, order: the rest has none worth a word


@pytest.mark.parametrize("returned, status", [(None, 0), (0, 0), (3, 3)])
def test_status_of_the_command(returned, status):
    assert run_with(lambda config: returned) == status


@pytest.mark.parametrize("error, line", [
    (UserError("a.txt: line 3: bad\nvery bad"), "a.txt: line 3: bad very bad"),
    (ConfigError("hidden_size must be at least 1, got 0"), "hidden_size must be at least 1, got 0"),
    (OSError(28, "No space left on device", "out/x"), "No space left on device: out/x"),
    (OSError(21, "Is a directory", "out.tmp-1", None, "out"), "Is a directory: out"),
    (OSError(28, "No space left on device"), "No space left on device"),
    (OSError("run file cut off"), "run file cut off")])
def test_mistakes_and_full_disks_are_one_line_and_status_1(capsys, error, line):
    assert run_with(failing(error)) == 1
    assert capsys.readouterr().err == "etl.show: error: %s\n" % line


def test_no_folder_for_short_lived_files(capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/self"])
    assert run_with(lambda config: tempfile.mkdtemp()) == 1
    assert capsys.readouterr().err == (
        "etl.show: error: TMPDIR: no folder for short-lived files can be written: set TMPDIR to one that "
        "can\n")


@pytest.fixture
def sigterm():
    """Sends it to this process; its handler is as before in the end."""
    before, process = signal.getsignal(signal.SIGTERM), os.getpid()
    yield lambda config: os.kill(process, signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_a_containers_first_process(monkeypatch, sigterm):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(SystemExit) as ended:
        run_with(sigterm)
    assert ended.value.code == 143


def test_a_handler_for_sigterm_stays(monkeypatch, sigterm):
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert run_with(sigterm) == 0 and seen == [1]


def test_interrupt(capsys):
    assert run_with(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "etl.show: interrupted\n"


def test_our_own_mistakes_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_with(failing(ZeroDivisionError()))


def test_describe_can_be_pasted_back():
    config = ShowConfig(("my file", "b"), (1, 2), 7, 0.25, "你 好", None, True)
    words = ("--input_file 'my file' b --ids 1 2 --limit 7 --rate 0.25 --title '你 好' --verbose true "
             "--order up")
    assert describe(config) == words
    import shlex
    assert parsed(*shlex.split(words)) == config


def test_a_folder_that_the_c_locale_hides(monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", ["/a", "/新"])
    assert run("etl.show", "Shows.", ShowConfig, lambda config: None, []) == 0
    monkeypatch.setattr(sys, "path", ["/a", "/\udce6\udc96\udcb0"])
    assert run("etl.show", "Shows.", ShowConfig, lambda config: None, []) == 1
    assert capsys.readouterr().err == ("etl.show: error: LC_ALL: /新 is not ASCII, and in the C locale "
                                       "Python 3.7 and TensorFlow cannot handle it: set LC_ALL=C.UTF-8\n")


@dataclass(frozen=True)
class Box:
    size: int = flag(3, "edge")
    colour: str = flag("red", "paint")

    def __post_init__(self):
        if self.size < 1:
            raise ValueError("size must be at least 1, got %d" % self.size)


@dataclass(frozen=True)
class Shelf:
    name: str = flag("a", "label")
    box: Box = nested(Box)
    height: int = flag(1, "floor")


def test_the_flags_of_a_nested_config_stand_at_its_place(capsys):
    assert parse("shelf", "", Shelf, ["--colour", "blue", "--height", "2"]) == Shelf("a", Box(3, "blue"), 2)
    with pytest.raises(SystemExit):
        parse("shelf", "", Shelf, ["--help"])
    printed = capsys.readouterr().out
    places = [printed.index("--" + name) for name in ("name", "size", "colour", "height")]
    assert places == sorted(places) and "--box" not in printed


def test_mistakes_in_a_nested_config(capsys):
    with pytest.raises(SystemExit):
        parse("shelf", "", Shelf, ["--size", "0"])
    assert capsys.readouterr().err == "shelf: error: size must be at least 1, got 0 (see --help)\n"


def test_a_nested_config_to_flags_and_back():
    shelf = Shelf("b", Box(5, "green"), 2)
    assert flags_of(shelf) == {"name": "b", "size": 5, "colour": "green", "height": 2}
    assert from_flags(Shelf, flags_of(shelf)) == shelf and from_flags(Shelf, {"size": 5}) == Shelf(box=Box(5))
    assert describe(shelf) == "--name b --size 5 --colour green --height 2"
    with pytest.raises(TypeError, match="Shelf has no flag box, depth"):
        from_flags(Shelf, {"box": 1, "depth": 2})
