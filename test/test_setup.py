"""What the wheel and the source archive carry."""
import glob
import os
import re
import runpy

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
