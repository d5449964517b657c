"""What `make doctor` says of this environment, of none, and of a broken one."""
import os
import shutil
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def doctor(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "test", "checks"))
    import doctor
    return doctor


def test_of_this_environment(doctor, capsys):
    status = doctor.main(["--python", sys.executable])
    said = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line)
    for name, beginning in (("python", "3.7."), ("words", "by rjieba"), ("records", "checksums in c"),
                            ("tensorflow", "1.15"), ("training", "on the CPU: npu_bridge is not installed"),
                            ("npu_bridge", "not installed"), ("packages", "all ")):
        assert said[name].startswith(beginning), said
    assert status == ("←" in "".join(said.values()))          # memory or disk may be short where this runs


def test_without_an_environment_the_command_that_makes_it_is_named(doctor, capsys):
    assert doctor.main(["--python", "/nowhere/python"]) == 1
    said = capsys.readouterr().out
    assert "/nowhere/python is not there  ← make venv" in said and "Missing: environment" in said


def test_without_a_python_the_advice_where_to_get_one_is_named(doctor, monkeypatch, tmp_path):
    for name in ("make", "bash", "env"):
        (tmp_path / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    found, _ = doctor.look_at_environment("/nowhere/python")
    assert found.text.startswith("Python 3.7 is needed") and found.missing.startswith("Get it by one of: ")


def test_an_environment_of_another_python(doctor, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho '\"3.9.1\"'\n")
    python.chmod(0o755)
    (found,) = doctor.look_at_environment(str(python))
    assert found.text.endswith("python: 3.9.1") and "Python 3.7 is needed" in found.missing


def test_a_crash_on_import_is_a_line(doctor):
    assert doctor.ask(sys.executable, "raise ImportError('libascend.so: cannot open')") == (
        None, "ImportError: libascend.so: cannot open")
    assert doctor.ask(sys.executable, "import os; os.abort()") == (None, "ended with status -6")


def test_pins_are_compared_in_one_spelling(doctor, tmp_path):
    (tmp_path / "pins.txt").write_text("Keras-Applications==1.0.8\ntyping_extensions==4.7.1\n# a comment\n")
    assert doctor.read_pins(str(tmp_path / "pins.txt")) == {"keras-applications": "1.0.8",
                                                            "typing-extensions": "4.7.1"}


def test_differing_packages_are_named(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "ask", lambda python, program: ({"numpy": "1.16.0"}, ""))
    monkeypatch.setattr(doctor, "read_pins", lambda path: {"numpy": "1.18.5", "jieba": "0.42.1"})
    assert doctor.pins("python").text == "numpy 1.16.0 instead of 1.18.5; jieba is not installed"
