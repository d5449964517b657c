import os

import pytest

from estimator.weights import seals
from mistakes import message_of

FILES = {"model.ckpt-7.data-00000-of-00001": "data", "model.ckpt-7.index": "index", "model.json": "{}"}


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    seals.write(str(tmp_path), "model.ckpt-7", {name: str(tmp_path / name) for name in FILES}, {"loss": 4.0})
    return tmp_path


def test_what_is_whole_passes_and_tells_its_results(folder):
    seals.require_whole(str(folder / "model.ckpt-7"))
    assert seals.read_results(str(folder), "model.ckpt-7") == {"loss": 4.0}
    assert seals.sealed_in(str(folder)) == ["model.ckpt-7"]


def test_without_a_seal_nothing_is_known(folder):
    seals.remove(str(folder), "model.ckpt-7")
    seals.remove(str(folder), "model.ckpt-7")
    seals.require_whole(str(folder / "model.ckpt-7"))
    assert seals.read_results(str(folder), "model.ckpt-7") is None


@pytest.mark.parametrize("name, content, said", [
    ("model.ckpt-7.data-00000-of-00001", "dat", "not the file that was kept with it"),
    ("model.ckpt-7.index", "other", "not the file"),
    ("model.ckpt-7.index", None, "missing"), ("model.json", "{ }", "not the file that was kept with it")])
def test_a_part_that_is_missing_or_another_is_named(folder, name, content, said):
    os.remove(str(folder / name))
    if content is not None:
        (folder / name).write_text(content)
    message = message_of(seals.require_whole, str(folder / "model.ckpt-7"))
    assert message.startswith("%s: incomplete: %s is %s" % (folder / "model.ckpt-7", name, said))


@pytest.mark.parametrize("content", [
    "[]", "{}", '{"files": {"../x": {}}, "results": {}}', '{"files": 1, "results": {}}', "{", "[" * 100000,
    r'{"files": {"a\u0000b": {}}, "results": {}}', r'{"files": {"\ud800": {}}, "results": {}}',
    '{"files": {"": {}}, "results": {}}'])
def test_a_damaged_seal_is_one_line(folder, content):
    (folder / "model.ckpt-7.seal.json").write_text(content)
    message = message_of(seals.require_whole, str(folder / "model.ckpt-7"))
    assert message.startswith(str(folder / "model.ckpt-7.seal.json")) and "\n" not in message
