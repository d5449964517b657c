"""What the wheel and the source archive carry."""
import glob
import os
import re
import runpy
import subprocess

import pytest
import setuptools

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def arguments(monkeypatch):
    """What setup.py tells setuptools."""
    found = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: found.update(given))
    runpy.run_path(os.path.join(ROOT, "setup.py"))
    return found


def test_the_wheel_carries_every_file_of_the_packages(arguments):
    carried = {os.path.relpath(path, ROOT) for package in arguments["packages"]
               for pattern in arguments["package_data"].get(package, []) + ["*.py"]
               for path in glob.glob(os.path.join(ROOT, package.replace(".", os.sep), pattern))}
    left_out = []
    for package in arguments["packages"]:
        for folder, folders, names in os.walk(os.path.join(ROOT, package.replace(".", os.sep))):
            folders[:] = [name for name in folders if name != "__pycache__"]
            left_out += [
                path for path in (os.path.relpath(os.path.join(folder, name), ROOT) for name in names)
                if path not in carried]
    assert len(carried) > 100 and left_out == []


def test_the_archive_names_files_that_are_there():
    with open(os.path.join(ROOT, "MANIFEST.in"), encoding="utf-8") as stream:
        lines = [line.split() for line in stream]
    named = [name for words in lines if words[0] == "include" for name in words[1:]]
    named += [words[1] for words in lines if words[0] == "recursive-include"]
    assert "LICENSE" in named and [
        name for name in named if not os.path.exists(os.path.join(ROOT, name))] == []


def test_each_requirement_has_its_pin(arguments):
    with open(os.path.join(ROOT, "constraints.txt"), encoding="utf-8") as stream:
        pinned = {re.sub("[-_.]+", "-", line.split("==")[0]).lower() for line in stream if "==" in line}
    wanted = arguments["install_requires"] + arguments["extras_require"]["all"]
    names = {re.sub("[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()
             for requirement in wanted}
    assert len(names) > 15 and sorted(names - pinned) == []


def test_the_pins_of_aarch64_are_the_others_but_for_those_without_a_wheel():
    with open(os.path.join(ROOT, "constraints.txt"), encoding="utf-8") as stream:
        pins = stream.read().split()
    said = subprocess.run([os.path.join(ROOT, "requirements", "environment.sh"), "aarch64"], cwd=ROOT,
                          check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout.split()
    assert set(pins) - set(said) == {"h5py==2.10.0", "numpy==1.18.5", "tensorflow==1.15.5"}
    assert set(said) - set(pins) == {"h5py==3.8.0", "numpy==1.19.5"} and len(said) == len(set(said))


HOST = """#!/bin/bash
# The host's Python, pip included, and its uname.
case "$0 $*" in
    *uname*) echo aarch64 ;;
    *"-m venv"*) mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python" ;;
    *"pip install"*) echo "pip $*" >> calls ;;
    *"pip check"*) printf '%s\\n' "tensorflow 1.15.0 has requirement numpy<1.19, but you have 1.19.5." \\
        "tensorflow 1.15.0 has requirement h5py<=2.10.0, but you have h5py 3.8.0." \\
        "tensorflow-serving-api 1.15.0 requires tensorflow, which is not installed." \\
        "some-tool-of-the-host 1.0 requires torch, which is not installed." "$COMPLAINT"; exit 1 ;;
    *version_info*) echo 3.7 ;;
    *npu_bridge*) exit 1 ;;
esac
"""


@pytest.mark.parametrize("complaint", ["", "jieba 0.42.1 requires words, which is not installed."])
def test_an_aarch64_host_is_told_what_it_must_bring(tmp_path, complaint):
    """pip's complaints of NumPy and h5py alone are tolerated, and those of packages that are not ours."""
    for name in ("constraints.txt", "setup.py", "requirements.txt", "requirements"):
        (tmp_path / name).symlink_to(os.path.join(ROOT, name))
    (tmp_path / "bin").mkdir()
    for name in ("uname", "python3.7"):
        (tmp_path / "bin" / name).write_text(HOST)
        (tmp_path / "bin" / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", "requirements/environment.sh .venv"], cwd=str(tmp_path), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True,
        env=dict(os.environ, PATH="%s:%s" % (tmp_path / "bin", os.environ["PATH"]),
                 COMPLAINT=complaint))
    if complaint:
        assert done.returncode and done.stderr == complaint + "\n", done
        return
    assert done.returncode == 0 and done.stderr == "", done
    assert "  tensorflow: found\n  npu_bridge: NOT FOUND: install it into " in done.stdout
    assert (tmp_path / ".venv" / "complete").exists()
    assert "--no-deps -r .venv/pins.txt" in (tmp_path / "calls").read_text()
