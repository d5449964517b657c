import io
import json
import os
import subprocess
import sys

import pytest
from exported import LABELS

from etl.common.command_line import UserError
from serving.predict import (Question, answer_of, find_version, inputs_of, main, read_json_questions,
                             read_questions)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def model_dir(version):
    return os.path.dirname(version)


@pytest.fixture
def ask(model_dir, capsys, monkeypatch):
    """Runs the command and returns its exit status, its answers and its errors."""
    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        status = main(["--model_dir", model_dir] + list(arguments))
        out, err = capsys.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], err
    return run


def test_one_pair(ask):
    status, (answer,), _ = ask("--text_a", "北京你好", "--text_b", "你好吗")
    assert status == 0
    assert list(answer) == ["text_a", "text_b", "label", "probabilities"]
    assert (answer["text_a"], answer["text_b"]) == ("北京你好", "你好吗")
    assert list(answer["probabilities"]) == list(LABELS)
    assert answer["label"] == max(LABELS, key=answer["probabilities"].get)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_lines_are_answered_in_order_whatever_the_batch(ask):
    lines = ["北京\t你好", "你好", "京\t", "x" * 300 + "\t吗"] * 5
    stdin = ("\ufeff" + "\r\n".join(lines)).encode("utf-8")
    status, answers, _ = ask("--batch_size", "3", stdin=stdin)
    assert status == 0
    assert [(answer["text_a"], answer["text_b"]) for answer in answers[:3]] == [
        ("北京", "你好"), ("你好", None), ("京", "")]
    assert len(answers) == 20
    for answer, other in zip(answers, ask(stdin=stdin)[1]):
        assert answer["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


def test_a_number_for_each_line(regression_version, ask, capsys):
    status, answers, _ = ask("--model_dir", regression_version, stdin="北京\t你好\n你好\n".encode("utf-8"))
    assert status == 0
    assert [list(answer) for answer in answers] == [["text_a", "text_b", "value"]] * 2
    assert answers[1]["text_b"] is None and isinstance(answers[1]["value"], float)
    assert ask("--model_dir", regression_version, "--text_a", "北京", "--signature", "classify")[2].endswith(
        "error: --signature: the model has regress, not classify\n")
    assert ask("--text_a", "北京", "--signature", "regress")[2].endswith(
        "error: --signature: the model has classify, not regress\n")


def test_no_line_no_answer(ask):
    assert ask() == (0, [], "")


@pytest.mark.parametrize("line, message", [
    (b"a\tb\tc", "line 2: wanted text_a, or text_a and text_b separated by a tab, got 3 fields"),
    (b"\xe5\x8c", "line 2: not UTF-8"),
    (b"", "line 2: text_a is empty"),
    (b"\tb", "line 2: text_a is empty"),
])
def test_bad_line_is_named_after_the_answers_before_it(ask, line, message):
    status, answers, err = ask("--batch_size", "1", stdin="北京\n".encode("utf-8") + line + b"\n")
    assert status == 1
    assert [answer["text_a"] for answer in answers] == ["北京"]
    assert err.startswith("serving.predict: error: standard input: ") and message in err


def test_only_a_newline_ends_a_line():
    assert list(read_questions(io.BytesIO("a\u2028b\u0085c\n".encode("utf-8")))) == [
        Question("a\u2028b\u0085c", None)]


def test_newest_version_answers(tmp_path):
    for name in ("9", "10", ".11.tmp-1", "12", "notes"):
        (tmp_path / name).mkdir()
        if name != "12":
            (tmp_path / name / "saved_model.pb").write_bytes(b"")
    assert find_version(str(tmp_path)) == str(tmp_path / "10")
    assert find_version(str(tmp_path / "9")) == str(tmp_path / "9")


@pytest.mark.parametrize("name", ["", "missing"])
def test_no_version_names_the_command_to_run(tmp_path, name):
    with pytest.raises(UserError, match="no exported model here: run python -m serving.export first"):
        find_version(str(tmp_path / name))


@pytest.mark.parametrize("arguments, message", [
    (["--batch_size", "0"], "batch_size must be at least 1, got 0"),
    (["--server", "localhost:8501"], "server must be as http://127.0.0.1:8501, got localhost:8501"),
    (["--model_name", "x"], "model_name is given without server"),
    (["--text_b", "好"], "text_b is given without text_a"),
    (["--text_a", "\udce5"], "text_a is not UTF-8"),
])
def test_bad_flags(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def run_command(arguments, stdin=b"", **environment):
    done = subprocess.run([sys.executable, "-m", "serving.predict"] + arguments, cwd=ROOT, input=stdin,
                          check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=dict(os.environ, **environment))
    assert b"Traceback" not in done.stderr     # also when Python ends
    return done.stdout


@pytest.mark.skipif(not sys.executable.isascii(),
                    reason="protobuf is not imported from such a path in the C locale")
@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_output_is_utf8_whatever_the_locale(model_dir, environment):
    out = run_command(["--model_dir", model_dir], stdin="北京\t你好\n".encode("utf-8"), **environment)
    assert out.startswith('{"text_a": "北京", "text_b": "你好", "label": "'.encode("utf-8"))


def test_answers_without_the_training_code(model_dir):
    code = ("import sys; from serving.predict import main; main(['--model_dir', %r, '--text_a', 'x']); "
            "print(sorted(name for name in sys.modules if name.split('.')[0] == 'estimator'))" % model_dir)
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    assert out.endswith(b"\n[]\n")


def test_help_does_not_wait_for_tensorflow():
    code = ("import sys, contextlib; from serving import export, predict\n"
            "for command in (export, predict):\n"
            "    with contextlib.suppress(SystemExit): command.main(['--help'])\n"
            "print('tensorflow' in sys.modules)")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    assert out.endswith(b"False\n") and b"--checkpoint_dir" in out and b"--model_dir" in out


def test_questions_are_json_lines():
    lines = b'\xef\xbb\xbf{"question": "\xe8\xb0\x81", "passage": "x", "id": 3}\n{"question": "y"}'
    assert list(read_json_questions(io.BytesIO(lines), "read")) == [
        {"question": "谁", "passage": "x", "id": 3}, {"question": "y"}]


@pytest.mark.parametrize(
    "signature, line, message",
    [("read", b"[]", "line 1: wanted an object with question, passage"), ("read", b"{", "line 1: not JSON"),
     ("read", b"\xff", "line 1: not UTF-8"),
     ("read", b'{"passage": "x"}', "question must be a text, got None"),
     ("read", b'{"question": "\\ud800"}', "half a character"),
     ("choose", b'{"question": "x", "candidates": [' + b'"y",' * 64 + b'"y"]}', "must be at most 64, got 65"),
    ("choose", b'{"question": "x"}', "candidates must be a list of texts, got None"),
     ("choose", b'{"question": "x", "candidates": [1]}', "candidates must be a list of texts")])
def test_a_question_that_is_none(signature, line, message):
    with pytest.raises(UserError, match="standard input: line 1: .*" + message.replace("line 1: ", "")):
        list(read_json_questions(io.BytesIO(line), signature))


def test_candidates_are_filled_up_and_cut_again():
    line = {"question": "x", "candidates": ["a", "b"]}
    assert inputs_of(line, "choose") == {"question": "x", "passage": "", "candidates": ["a", "b"] + [""] * 62}
    assert answer_of(line, {"choice": 1, "count": 2, "probabilities": [.25, .75, 0.0]}) == {
        "choice": 1, "probabilities": [.25, .75]}
