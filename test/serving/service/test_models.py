import asyncio
import os

import pytest
from served import make_models, run
from tensorflow_serving.apis import model_pb2

from etl.common.command_line import UserError
from serving.service.errors import RequestError
from serving.service.model_configs import ModelConfig, VersionPolicy
from serving.service.monitoring import Monitor


class Model:
    """Says what it was loaded from."""

    def __init__(self, folder):
        if os.path.exists(os.path.join(folder, "bad")):
            raise UserError("not a complete model")
        self.folder, self.is_closed = folder, False

    def close(self):
        self.is_closed = True


@pytest.fixture
def folders(tmp_path):
    """Versions 1 and 2 of the models a and b, and a broken one of c."""
    for path in ("a/1", "a/2", "b/1", "b/2", "c/1"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "saved_model.pb").write_bytes(b"")
    (tmp_path / "c" / "1" / "bad").write_bytes(b"")
    return tmp_path


def configs(folders, **policies):
    return [ModelConfig(name, str(folders / name), policy, origin="model " + name)
            for name, policy in policies.items()]


def spec(name, version=None, **fields):
    made = model_pb2.ModelSpec(name=name, **fields)
    if version:
        made.version.value = version
    return made


def folder_of(models, folders, *of):
    found = models.find(spec(*of)).versions.find(spec(*of)).model.folder
    return os.path.relpath(found, str(folders))


ONE, BOTH, FIRST = VersionPolicy(), VersionPolicy(2), VersionPolicy(1, frozenset([1]))


def test_each_model_has_its_versions_and_its_queue(folders):
    async def ask():
        models = make_models(Model)
        assert models.is_ready and models.names == []
        await models.load(configs(folders, b=BOTH, a=ONE))
        assert models.names == ["b", "a"] and models.is_ready
        assert folder_of(models, folders, "a") == "a/2" and folder_of(models, folders, "b", 1) == "b/1"
        assert models.queue_of("a") not in (None, models.queue_of("b")) and models.queue_of("c") is None
        assert [status.version for status in models.status(spec("b")).model_version_status] == [2, 1]
    run(ask())


@pytest.mark.parametrize("asked, message", [
    (spec("c"), r"Servable not found for request: Latest\(c\)"),
    (spec("c", 3), r"Servable not found for request: Specific\(c, 3\)"),
    (spec("a", 3), r"Servable not found for request: Specific\(a, 3\)"),
    (spec(""), "Missing ModelSpec, or it has no name"),
])
def test_what_is_not_there(folders, asked, message):
    async def ask():
        models = make_models(Model)
        await models.load(configs(folders, a=ONE))
        with pytest.raises(RequestError, match=message):
            models.find(asked).versions.find(asked)
    run(ask())


@pytest.mark.parametrize("asked, message", [
    (spec("c"), "Could not find any versions of model c"),
    (spec("c", 3), "Could not find version 3 of model c"),
    (spec("a", 3), "Could not find version 3 of model a"), (spec(""), "Missing ModelSpec"),
])
def test_no_state(folders, asked, message):
    async def ask():
        models = make_models(Model)
        await models.load(configs(folders, a=ONE))
        with pytest.raises(RequestError, match=message):
            models.status(asked)
    run(ask())


def test_models_come_and_go(folders):
    async def ask():
        monitor = Monitor()
        models = make_models(Model, monitor)
        await models.load(configs(folders, a=ONE, b=ONE))
        gone = models.find(spec("a")).versions.find(spec("a")).model
        kept, queue = models.find(spec("b")).versions.find(spec("b")).model, models.queue_of("b")
        with_policy = configs(folders, b=BOTH)
        await models.load(with_policy)
        assert models.names == ["b"] and models.queue_of("b") is queue
        assert models.find(spec("b")).versions.find(spec("b")).model is kept
        assert folder_of(models, folders, "b", 1) == "b/1"
        while not gone.is_closed:
            await asyncio.sleep(0.001)
        assert b'serving_queue_rows{model="b"}' in monitor.expose()
        assert b'serving_queue_rows{model="a"}' not in monitor.expose()
        await models.load([])
        assert models.names == []
        while not kept.is_closed:
            await asyncio.sleep(0.001)
    run(ask())


def test_another_folder_takes_over_without_a_gap(folders):
    async def ask():
        monitor = Monitor()
        models = make_models(Model, monitor)
        await models.load(configs(folders, a=ONE))
        old = models.find(spec("a")).versions.find(spec("a"))
        with old.in_use():
            await models.load([ModelConfig("a", str(folders / "b"))])
            assert folder_of(models, folders, "a", 2) == "b/2" and not old.model.is_closed
            assert b'serving_queue_rows{model="a"}' in monitor.expose()
        while not old.model.is_closed:
            await asyncio.sleep(0.001)
    run(ask())


@pytest.mark.parametrize("wrong, message", [
    ({"policies": {"a": FIRST, "c": ONE}}, "model c: .*: version 1: not a complete model"),
    ({"policies": {"a": FIRST, "d": ONE}}, "model d: .*d: no exported model here"),
    ({"policies": {"b": ONE, "a": VersionPolicy(1, frozenset([9]))}},
     "model a: .*holds none of the versions 9"),
    ({"policies": {"b": ONE, "a": ONE}, "labels": {"stable": 1}}, "label stable: version 1 does not serve"),
])
def test_when_one_of_them_cannot_serve_all_is_as_before(folders, wrong, message):
    async def ask():
        models = make_models(Model)
        await models.load([config._replace(labels={"old": 1}) for config in configs(folders, a=FIRST)])
        with pytest.raises(UserError, match=message):
            await models.load([config._replace(labels=wrong.get("labels", {}))
                               for config in configs(folders, **wrong["policies"])])
        assert models.names == ["a"]
        assert folder_of(models, folders, "a") in ("a/1", "a/2")       # what was tried is let go soon
        while folder_of(models, folders, "a") != "a/1":
            await asyncio.sleep(0.001)
        assert models.find(spec("a")).versions.find(spec("a", version_label="old")).number == 1
    run(ask())


def test_the_first_models_must_be_there(folders):
    async def ask():
        models = make_models(Model)
        with pytest.raises(UserError, match="model c: "):
            await models.load(configs(folders, a=ONE, c=ONE))
        assert models.names == []
    run(ask())


def test_a_client_names_only_folders_that_strangers_cannot_write_to(folders):
    async def ask():
        models = make_models(Model)
        os.chmod(str(folders / "a"), 0o777)
        os.chmod(str(folders / "b"), 0o777)
        await models.load(configs(folders, a=ONE))
        await models.reload(configs(folders, a=BOTH))      # as at the start
        with pytest.raises(UserError, match="^model b: .*b: other users can write to .*b, so it can only be"):
            await models.reload(configs(folders, a=ONE, b=ONE))
        with pytest.raises(UserError, match="^model d: No such file or directory: "):
            await models.reload(configs(folders, d=ONE))
        os.chmod(str(folders / "b"), 0o755)
        await models.reload(configs(folders, b=ONE))
        assert models.names == ["b"]
    run(ask())


@pytest.mark.parametrize("poll_seconds", [0.001, 0])
def test_how_often_other_versions_are_looked_for(folders, poll_seconds):
    async def ask():
        models = make_models(Model, poll_seconds=poll_seconds)
        await models.load(configs(folders, a=ONE))
        (folders / "a" / "3").mkdir()
        (folders / "a" / "3" / "saved_model.pb").write_bytes(b"")
        if poll_seconds:
            while folder_of(models, folders, "a") != "a/3":
                await asyncio.sleep(0.001)
            models.stop_looking()
        else:
            await asyncio.sleep(0.05)
            assert folder_of(models, folders, "a") == "a/2"
    run(ask())


def test_what_a_changed_file_asks_for(folders, caplog):
    async def ask():
        models, wanted, count = make_models(Model), [configs(folders, a=ONE)], [0]

        def read():
            count[0] += 1
            if isinstance(wanted[0], UserError):
                raise wanted[0]
            return wanted[0]

        async def read_twice_more():
            end = count[0] + 2                 # the first may have begun before
            while count[0] < end:
                await asyncio.sleep(0.001)

        await models.load(wanted[0])
        models.follow(read, wanted[0], 0.001)
        for refused in (UserError("f: 1:1 : no"), configs(folders, d=ONE)):
            wanted[0] = refused
            await read_twice_more()
            assert models.names == ["a"]
        wanted[0] = configs(folders, b=ONE)
        while models.names != ["b"]:
            await asyncio.sleep(0.001)
        await models.reload(configs(folders, a=ONE))
        await read_twice_more()
        assert models.names == ["a"]           # a client may change them until the file changes
        models.stop_looking()
    run(ask())
    assert "models stay as they are: f: 1:1 : no" in caplog.text
    assert "no exported model here" in caplog.text
