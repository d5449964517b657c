"""The order of files in docs/design.md, checked against the imports."""
import ast
import functools
import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = ("albert_config", "etl", "estimator", "serving")


def sections_of_the_table():
    """The headings of the design's table, from top to bottom, each with its files: ("etl/text",
    ["etl/text/words.py", …])."""
    with open(os.path.join(ROOT, "docs", "design.md"), encoding="utf-8") as stream:
        rows = [line.split("|")[1] for line in stream if line.startswith("|")]
    found = []
    for row in rows:
        heading = re.match(r" \*\*([\w/]+)/\*\* ", row)
        if heading:
            found.append((heading.group(1), []))
        elif found:
            folder, files = found[-1]
            files += ["%s/%s" % (folder, name) for name in re.findall(r"`([\w.]+\.py)`", row)]
    return found


def files_on_disk():
    return sorted(os.path.relpath(os.path.join(parent, name), ROOT) for package in PACKAGES
                  for parent, _, names in os.walk(os.path.join(ROOT, package))
                  for name in names if name.endswith(".py"))


@functools.lru_cache(maxsize=None)
def imports_of(path):
    """Dotted names that a file imports, wherever the statement stands: `etl.text.words`, `numpy`,
    `etl.common.files.expand`."""
    return list(_imports_of(path))


def _imports_of(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as stream:
        tree = ast.parse(stream.read(), path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "%s: relative import" % path
            yield from ("%s.%s" % (node.module, alias.name) for alias in node.names)


def own_files_imported_by(path):
    """The files behind the names: `etl/common/files.py` of `etl.common.files.expand`; of a package alone,
    its __init__."""
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] in PACKAGES:
            modules = ["/".join(parts[:end]) + ".py" for end in range(len(parts), 0, -1)]
            folders = ["/".join(parts[:end]) + "/__init__.py" for end in range(len(parts), 0, -1)]
            yield next(module for module in modules + folders if os.path.exists(os.path.join(ROOT, module)))


def importers_of(library):
    return {path for path in files_on_disk() for name in imports_of(path) if name.split(".")[0] == library}


SECTIONS = sections_of_the_table()
TABLE = [path for _, files in SECTIONS for path in files]
EMPTY = {path for path in files_on_disk() if path.endswith("/__init__.py")} - {"albert_config/__init__.py"}
SUBPACKAGES = {os.path.dirname(path) for path in EMPTY if path.count("/") == 2}


def test_the_table_names_every_file_once():
    assert len(TABLE) == len(set(TABLE)) > 30
    missing = set(files_on_disk()) - set(TABLE) - EMPTY
    assert not missing, "docs/design.md lacks a row for %s" % ", ".join(sorted(missing))


def test_the_table_names_no_other_file():
    gone = [path for path in TABLE
            if path.split("/")[0] in PACKAGES and not os.path.exists(os.path.join(ROOT, path))]
    assert not gone, "docs/design.md names %s, which is not there" % ", ".join(gone)


def test_each_subpackage_is_listed_once_with_the_files_of_its_folder():
    """So a file that imports only files listed above it imports only packages above its own."""
    headings = [folder for folder, _ in SECTIONS if "/" in folder]
    assert len(headings) == len(set(headings)) and set(headings) == SUBPACKAGES
    assert not {os.path.dirname(path) for path in files_on_disk()} - SUBPACKAGES - set(PACKAGES)


@pytest.mark.parametrize("subpackage", sorted(SUBPACKAGES))
def test_a_subpackage_has_a_docstring(subpackage):
    with open(os.path.join(ROOT, subpackage, "__init__.py"), encoding="utf-8") as stream:
        said = ast.get_docstring(ast.parse(stream.read()))
    assert said and len(said.split("\n")) <= 3


def test_the_record_contract_knows_no_builder():
    code = ("import sys, estimator.data.records; print(sorted(name for name in sys.modules if "
            "name.startswith('etl.')))")
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    loaded = set(ast.literal_eval(run.stdout.decode()))
    assert "etl.records.examples" in loaded and "etl.text.words" not in loaded
    assert {name.split(".")[1] for name in loaded} <= {"common", "records", "text"}


@pytest.mark.parametrize("path", sorted(EMPTY))
def test_packages_and_subpackages_import_nothing(path):
    assert list(imports_of(path)) == []


@pytest.mark.parametrize("path", files_on_disk())
def test_a_file_imports_only_files_listed_above_it(path):
    own = TABLE.index(path) if path in TABLE else len(TABLE)
    upward = {other for other in own_files_imported_by(path) if other in TABLE and TABLE.index(other) >= own}
    assert not upward, "%s imports %s, listed below it" % (path, ", ".join(sorted(upward)))


@pytest.mark.parametrize("library, files", [
    ("jieba", {"etl/text/words.py"}), ("rjieba", {"etl/text/words.py"}),
    ("apache_beam", {"etl/beam/runner.py", "etl/beam/worker_pool.py", "etl/beam/worker_process.py",
                     "etl/beam/worker_sockets.py"}), ("npu_bridge", {"estimator/npu/devices.py"})])
def test_libraries_with_one_door(library, files):
    assert importers_of(library) == files


def test_the_builder_knows_no_tensorflow():
    assert not [path for path in importers_of("tensorflow") if path.startswith(("etl/", "albert_config/"))]
    assert importers_of("tensorflow")


def test_albert_config_needs_the_standard_library_only():
    own = {name.split(".")[0] for name in imports_of("albert_config/__init__.py")}
    assert own <= {"dataclasses", "json", "os", "typing"}


def test_the_trainer_imports_neither_beam_nor_jieba():
    modules = [path[:-3].replace("/", ".") for path in files_on_disk() if path.startswith("estimator/")]
    code = "import sys, %s; print(sorted({'apache_beam', 'jieba'} & set(sys.modules)))" % ", ".join(modules)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout.decode().strip() == "[]"


def test_helpers_and_tests_mirror_the_source():
    for package in PACKAGES:
        for parent, _, names in os.walk(os.path.join(ROOT, "test", package)):
            folder = os.path.relpath(parent, os.path.join(ROOT, "test"))
            for name in names:
                if name.startswith("test_") and name.endswith(".py"):
                    source = "__init__.py" if name == "test_albert_config.py" else name[len("test_"):]
                    assert os.path.exists(
                        os.path.join(ROOT, folder, source)), "test/%s/%s mirrors no file" % (folder, name)
    assert not [parent for parent, _, names in os.walk(os.path.join(ROOT, "test")) if "__init__.py" in names]
