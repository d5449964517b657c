"""What the wheel and the source archive carry."""
import fnmatch
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
    left_out = []
    for package in arguments["packages"]:
        for folder, folders, names in os.walk(os.path.join(ROOT, package)):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), os.path.join(ROOT, package))
                patterns = arguments["package_data"][package] + ["*.py"]
                if not any(fnmatch.fnmatch(path, pattern) and path.count("/") == pattern.count("/") for pattern in patterns):
                    left_out.append(os.path.join(package, path))
    assert left_out == []


def test_the_archive_names_files_that_are_there():
    with open(os.path.join(ROOT, "MANIFEST.in"), encoding="utf-8") as stream:
        lines = [line.split() for line in stream]
    named = [name for words in lines if words[0] == "include" for name in words[1:]]
    named += [words[1] for words in lines if words[0] == "recursive-include"]
    assert "LICENSE" in named and [name for name in named if not os.path.exists(os.path.join(ROOT, name))] == []


def test_each_requirement_has_its_pin(arguments):
    with open(os.path.join(ROOT, "constraints.txt"), encoding="utf-8") as stream:
        pinned = {re.sub("[-_.]+", "-", line.split("==")[0]).lower() for line in stream if "==" in line}
    wanted = arguments["install_requires"] + arguments["extras_require"]["all"]
    names = {re.sub("[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower() for requirement in wanted}
    assert len(names) > 15 and sorted(names - pinned) == []
