import asyncio
import os
import shutil

import grpc
import pytest
from served import run
from tensorflow_serving.apis import model_pb2

from etl.command_line import UserError
from serving.errors import RequestError
from serving.monitoring import Monitor
from serving.versions import Versions, versions_in


class Model:
    """Says what it was loaded from. A folder with a file named `bad` cannot be loaded."""

    def __init__(self, folder):
        if os.path.exists(os.path.join(folder, "bad")):
            raise UserError("%s: not a whole model" % os.path.basename(folder))
        self.number, self.closed = int(os.path.basename(folder)), False

    def close(self):
        self.closed = True


@pytest.fixture
def base_path(tmp_path):
    add(tmp_path, 7)
    return tmp_path


@pytest.fixture
def monitor():
    return Monitor()


@pytest.fixture
def versions(base_path, monitor):
    return Versions(str(base_path), "albert", Model, monitor)


def add(base_path, number, name="saved_model.pb"):
    (base_path / str(number)).mkdir(exist_ok=True)
    (base_path / str(number) / name).write_bytes(b"")


def spec(name="albert", version=None, **fields):
    made = model_pb2.ModelSpec(name=name, **fields)
    if version is not None:
        made.version.value = version
    return made


def states(versions):
    found = versions.status(spec()).model_version_status
    return [(status.version, type(status).State.Name(status.state)) for status in found]


def test_versions_are_folders_with_a_number(base_path):
    add(base_path, "10")
    add(base_path, ".11.tmp-1")
    add(base_path, "notes")
    (base_path / "12").write_bytes(b"")
    assert {number: folder for number, (folder, _) in versions_in(str(base_path)).items()} == {
        7: str(base_path / "7"), 10: str(base_path / "10")}
    assert versions_in(str(base_path / "missing")) == {}


def test_the_newest_serves(base_path, versions):
    add(base_path, 10)
    run(versions.load_first())
    assert versions.find(spec()).number == versions.find(spec(version=10)).number == 10
    assert states(versions) == [(10, "AVAILABLE")]


@pytest.mark.parametrize("asked, code, message", [
    (spec("other"), "NOT_FOUND", r"Servable not found for request: Latest\(other\)"),
    (spec(version=8), "NOT_FOUND", r"Servable not found for request: Specific\(albert, 8\)"),
    (spec(version_label="stable"), "INVALID_ARGUMENT", "Unrecognized servable version label: stable"),
])
def test_what_is_not_there(versions, asked, code, message):
    run(versions.load_first())
    with pytest.raises(RequestError, match=message) as refused:
        versions.find(asked)
    assert refused.value.code == grpc.StatusCode[code]


@pytest.mark.parametrize("asked, message", [
    (spec("other"), "Could not find any versions of model other"),
    (spec(version=8), "Could not find version 8 of model albert")])
def test_no_state(versions, asked, message):
    run(versions.load_first())
    with pytest.raises(RequestError, match=message):
        versions.status(asked)


def test_a_new_version_takes_over_and_the_old_one_answers_what_it_was_asked(base_path, versions, monitor):
    async def switch():
        await versions.load_first()
        old = versions.find(spec())
        with old.in_use():
            add(base_path, 8)
            looking = asyncio.ensure_future(versions.look())
            while versions.find(spec()).number == 7:
                await asyncio.sleep(0.001)
            assert states(versions) == [(8, "AVAILABLE"), (7, "UNLOADING")]
            assert not old.model.closed
        await looking
        assert old.model.closed
        assert states(versions) == [(8, "AVAILABLE"), (7, "END")]
        assert b'serving_model_versions{state="AVAILABLE",version="8"} 1.0' in monitor.expose()
        assert b'serving_model_versions{state="AVAILABLE",version="7"} 0.0' in monitor.expose()
    run(switch())


def test_a_broken_version_changes_nothing_until_its_files_change(base_path, versions, monitor, caplog):
    async def look():
        await versions.load_first()
        add(base_path, 8, "bad")
        assert await versions.look()
        assert not await versions.look()           # the same files need no second try
        assert versions.find(spec()).number == 7
        (status,) = versions.status(spec(version=8)).model_version_status
        assert (status.status.error_code, status.status.error_message) == (2, "8: not a whole model")
        assert b"serving_load_failures_total 1.0" in monitor.expose()
        os.remove(str(base_path / "8" / "bad"))
        assert await versions.look()
        assert versions.find(spec()).number == 8
    run(look())
    assert "version 8 cannot be served: 8: not a whole model" in caplog.text


def test_a_version_that_is_removed_gives_way_to_the_one_before(base_path, versions):
    async def look():
        add(base_path, 8)
        await versions.load_first()
        shutil.rmtree(str(base_path / "8"))
        await versions.look()
        assert versions.find(spec()).number == 7
        shutil.rmtree(str(base_path))
        assert not await versions.look()
        assert versions.find(spec()).number == 7
    run(look())


def test_looking_goes_on_after_an_error(base_path, versions, monkeypatch, caplog):
    async def look():
        await versions.load_first()
        with monkeypatch.context() as broken:
            broken.setattr("serving.versions.versions_in", lambda path: os.listdir("missing"))
            looking = asyncio.ensure_future(versions.look_every(0.01))
            await asyncio.sleep(0.1)
        add(base_path, 8)
        while versions.find(spec()).number == 7:
            await asyncio.sleep(0.01)
        looking.cancel()
    run(look())
    assert "No such file or directory: missing" in caplog.text


def test_the_first_is_the_newest_that_can_be_loaded(base_path, versions):
    add(base_path, 8, "bad")
    run(versions.load_first())
    assert versions.find(spec()).number == 7


def test_nothing_to_serve_is_a_user_error(base_path, versions):
    add(base_path, 7, "bad")
    add(base_path, 6, "bad")
    with pytest.raises(UserError, match="--model_base_path: .*: version 6: 6: not a whole model; version 7: 7: not"):
        run(versions.load_first())
    with pytest.raises(UserError, match="missing: no exported model here: run python -m serving.export first"):
        run(Versions(str(base_path / "missing"), "albert", Model, Monitor()).load_first())
