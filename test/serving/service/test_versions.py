import asyncio
import contextlib
import os
import shutil
import threading

import grpc
import pytest
from served import make_versions, run
from tensorflow_serving.apis import model_pb2

from etl.common.command_line import UserError
from serving.service import versions as versions_module
from serving.service.errors import RequestError
from serving.service.model_configs import ModelConfig, VersionPolicy
from serving.service.model_memory import ModelMemory
from serving.service.monitoring import Monitor
from serving.service.versions import (KEPT_STATUSES, MAX_HANGING, MAX_HANGING_LOADS, Versions, fingerprint,
                                      folders_in)


LONG = 60.0                                    # more than anything takes


class Model:
    """Says what it was loaded from. A folder with a file named `bad` cannot be loaded; `hangs` takes
    until `release`."""

    release = threading.Event()
    made = []

    def __init__(self, folder):
        self.made.append(self)
        if os.path.exists(os.path.join(folder, "hangs")):
            self.release.wait()
        if os.path.exists(os.path.join(folder, "bad")):
            raise UserError("%s: not a complete model" % os.path.basename(folder))
        self.number, self.closed = int(os.path.basename(folder)), False

    def close(self):
        self.closed = True


@pytest.fixture
def base_path(tmp_path):
    add(tmp_path, 7)
    return tmp_path


@pytest.fixture(autouse=True)
def release(monkeypatch):
    """Lets those go that hang, at the test's end at last."""
    event = threading.Event()
    monkeypatch.setattr(Model, "release", event)
    monkeypatch.setattr(Model, "made", [])
    yield event
    event.set()


@pytest.fixture
def monitor():
    return Monitor()


@pytest.fixture
def versions(base_path, monitor):
    return make_versions(base_path, Model, monitor, LONG)


@pytest.fixture
def hasty(base_path, monitor):
    """Gives up at once what does not end by itself."""
    return make_versions(base_path, Model, monitor, 0.5)


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


def test_versions_are_named_by_numbers(base_path):
    for name in ("10", ".11.tmp-1", "notes", "١٢", "9" * 19, "0010", "-3", "1_0"):
        add(base_path, name)
    assert folders_in(str(base_path)) == {7: str(base_path / "7"), 10: str(base_path / "10")}
    assert folders_in(str(base_path / "missing")) == {}


def test_versions_are_folders(base_path, versions):
    (base_path / "12").write_bytes(b"")
    os.symlink("nowhere", str(base_path / "13"))
    os.symlink("14", str(base_path / "14"))
    run(versions.load_first())
    assert states(versions) == [(7, "AVAILABLE")]


def test_a_link_to_a_folder_is_a_version(base_path, versions):
    os.symlink("7", str(base_path / "8"))
    run(versions.load_first())
    assert versions.find(spec()).number == 8


def test_the_newest_serves(base_path, versions):
    add(base_path, 10)
    run(versions.load_first())
    assert versions.find(spec()).number == versions.find(spec(version=10)).number == 10
    assert states(versions) == [(10, "AVAILABLE")]


@pytest.mark.parametrize("asked, code, message", [
    (spec(version=8), "NOT_FOUND", r"Servable not found for request: Specific\(albert, 8\)"),
    (spec(version_label="stable"), "INVALID_ARGUMENT", "Unrecognized servable version label: stable"),
])
def test_what_is_not_there(versions, asked, code, message):
    run(versions.load_first())
    with pytest.raises(RequestError, match=message) as refused:
        versions.find(asked)
    assert refused.value.code == grpc.StatusCode[code]


@pytest.mark.parametrize("asked, message", [
    (spec(version=8), "Could not find version 8 of model albert"),
    (spec(version_label="stable"), "Unrecognized servable version label: stable")])
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
        for number, is_available in ((8, 1), (7, 0)):
            assert (b'serving_model_versions{model="albert",state="AVAILABLE",version="%d"} %d.0'
                    % (number, is_available)) in monitor.expose()
    run(switch())


def test_a_broken_version_changes_nothing_until_its_files_change(base_path, versions, monitor, caplog):
    async def look():
        await versions.load_first()
        add(base_path, 8, "bad")
        assert await versions.look()
        assert not await versions.look()           # the same files need no second try
        assert versions.find(spec()).number == 7
        (status,) = versions.status(spec(version=8)).model_version_status
        assert (status.status.error_code, status.status.error_message) == (2, "8: not a complete model")
        assert b"serving_load_failures_total 1.0" in monitor.expose()
        os.remove(str(base_path / "8" / "bad"))
        assert await versions.look()
        assert versions.find(spec()).number == 8
    run(look())
    assert "model albert: version 8 cannot be served: 8: not a complete model" in caplog.text


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


@pytest.mark.parametrize("error, message", [
    (FileNotFoundError(2, "No such file or directory", "missing"), "No such file or directory: missing"),
    (RuntimeError("can't start new thread"), "can't start new thread")])
def test_looking_goes_on_after_an_error(base_path, versions, monkeypatch, caplog, error, message):
    def fail(path):
        raise error

    async def look():
        await versions.load_first()
        with monkeypatch.context() as broken:
            broken.setattr(versions_module, "folders_in", fail)
            looking = asyncio.ensure_future(versions.look_every(0.01))
            while not caplog.text:
                await asyncio.sleep(0.01)
        add(base_path, 8)
        while versions.find(spec()).number == 7:
            await asyncio.sleep(0.01)
        looking.cancel()
    run(look())


def test_the_first_is_the_newest_that_can_be_loaded(base_path, versions):
    add(base_path, 8, "bad")
    run(versions.load_first())
    assert versions.find(spec()).number == 7


def test_nothing_to_serve_is_a_user_error(base_path, versions):
    add(base_path, 7, "bad")
    add(base_path, 6, "bad")
    with pytest.raises(UserError,
                       match="--model_base_path: .*: version 6: 6: not a complete model; version 7: 7: not"):
        run(versions.load_first())
    with pytest.raises(UserError,
                       match="missing: no exported model here: run python -m serving.export first"):
        run(make_versions(base_path / "missing", Model).load_first())
    (base_path / "saved_model.pb").write_bytes(b"")
    for number in (6, 7):
        shutil.rmtree(str(base_path / str(number)))
    with pytest.raises(UserError, match="this is one version: name the folder that it lies in"):
        run(make_versions(base_path, Model).load_first())


@pytest.mark.parametrize("policy, served", [
    (VersionPolicy(), [9]), (VersionPolicy(2), [9, 7]), (VersionPolicy(9), [9, 7, 6]),
    (VersionPolicy(2, frozenset([6, 7])), [7, 6]), (VersionPolicy(2, frozenset([6, 5])), [6]),
    (VersionPolicy(1, frozenset([8])), None),
])
def test_a_policy_says_which_versions_serve(base_path, policy, served, caplog):
    for number, name in ((6, "x"), (8, "bad"), (9, "x")):
        add(base_path, number, name)
    versions = make_versions(ModelConfig("albert", str(base_path), policy), Model)
    if served is None:
        with pytest.raises(UserError, match="--model_base_path: .*: version 8: 8: not a complete model"):
            run(versions.load_first())
        return
    run(versions.load_first())
    assert [number for number, state in states(versions) if state == "AVAILABLE"] == served
    assert versions.find(spec()).number == served[0]
    for number in range(5, 10):
        if number in served:
            assert versions.find(spec(version=number)).number == number
        else:
            with pytest.raises(RequestError):
                versions.find(spec(version=number))
    assert ("there is no version 5" in caplog.text) == (policy.numbers == {6, 5})


def test_versions_that_are_wanted_and_not_there(base_path):
    config = ModelConfig("albert", str(base_path), VersionPolicy(2, frozenset([3, 1])), origin="model albert")
    with pytest.raises(UserError, match="^model albert: .*: holds none of the versions 1, 3$"):
        run(make_versions(config, Model).load_first())


def test_of_several_versions_the_oldest_goes_when_a_newer_one_serves(base_path):
    async def look():
        for number in (6, 8):
            add(base_path, number)
        versions = make_versions(ModelConfig("albert", str(base_path), VersionPolicy(2)), Model)
        await versions.load_first()
        assert states(versions) == [(8, "AVAILABLE"), (7, "AVAILABLE")]
        add(base_path, 9, "bad")
        assert await versions.look() and not await versions.look()
        assert states(versions) == [(9, "END"), (8, "AVAILABLE"), (7, "AVAILABLE")]
        add(base_path, 10)
        assert await versions.look()
        assert states(versions) == [(10, "AVAILABLE"), (9, "END"), (8, "AVAILABLE"), (7, "END")]
    run(look())


def test_all_versions_serve_as_long_as_they_are_there(base_path):
    async def look():
        add(base_path, 8)
        versions = make_versions(ModelConfig("albert", str(base_path), VersionPolicy(1000)), Model)
        await versions.load_first()
        shutil.rmtree(str(base_path / "7"))
        assert not await versions.look()
        assert states(versions) == [(8, "AVAILABLE"), (7, "END")]
    run(look())


def test_labels(base_path):
    add(base_path, 8)
    config = ModelConfig("albert", str(base_path), VersionPolicy(2), {"stable": 7, "canary": 8},
                         "model albert")
    versions = make_versions(config, Model)
    run(versions.load_first())
    assert versions.find(spec(version_label="stable")).number == 7
    assert [status.version for status in
            versions.status(spec(version_label="canary")).model_version_status] == [8]
    with pytest.raises(UserError, match="^model albert: label old: version 6 does not serve$"):
        run(make_versions(config._replace(labels={"old": 6}), Model).load_first())


@pytest.mark.parametrize("is_accepted", [True, False])
def test_another_config_is_tried_beside_what_serves(base_path, is_accepted):
    async def look():
        add(base_path, 8)
        first = ModelConfig("albert", str(base_path), labels={"stable": 8})
        versions = make_versions(first, Model)
        await versions.load_first()
        await versions.try_config(first._replace(policy=VersionPolicy(1, frozenset([7])),
                                                 labels={"stable": 7}))
        assert states(versions) == [(8, "AVAILABLE"), (7, "AVAILABLE")]
        assert versions.find(spec(version_label="stable")).number == 8     # as before
        versions.settle(is_accepted)
        await versions.look()
        stays, goes = (7, 8) if is_accepted else (8, 7)
        assert versions.find(spec()).number == versions.find(spec(version_label="stable")).number == stays
        assert dict(states(versions)) == {stays: "AVAILABLE", goes: "END"}
    run(look())


def test_a_label_of_a_version_that_the_config_unloads(base_path):
    """It serves still while the config is tried, but would not afterwards."""
    async def look():
        add(base_path, 8)
        first = ModelConfig("albert", str(base_path), VersionPolicy(2), origin="model albert")
        versions = make_versions(first, Model)
        await versions.load_first()
        with pytest.raises(UserError, match="^model albert: label stable: version 8 does not serve$"):
            await versions.try_config(first._replace(policy=VersionPolicy(1, frozenset([7])),
                                                     labels={"stable": 8}))
    run(look())


def test_a_version_on_trial_answers_nobody(base_path):
    async def look():
        add(base_path, 8)
        first = ModelConfig("albert", str(base_path), VersionPolicy(1, frozenset([7])))
        versions = make_versions(first, Model)
        await versions.load_first()
        await versions.try_config(first._replace(policy=VersionPolicy(2)))
        assert dict(states(versions)) == {7: "AVAILABLE", 8: "AVAILABLE"}
        assert versions.find(spec()).number == 7
        with pytest.raises(RequestError):
            versions.find(spec(version=8))
        versions.settle(True)
        assert versions.find(spec()).number == 8
    run(look())


def test_a_model_that_retires(base_path, versions, monitor):
    async def look():
        await versions.load_first()
        old = versions.find(spec())
        await versions.retire()
        assert old.model.closed and not versions.is_ready and not await versions.look()
        assert b"serving_model_versions{" not in monitor.expose()
    run(look())


def test_what_memory_does_not_hold_is_loaded_when_there_is_some(base_path, monitor, caplog):
    async def look():
        (base_path / "7" / "saved_model.pb").write_bytes(bytes(35000))     # a megabyte for both, not quite
        (base_path / "8").mkdir()
        (base_path / "8" / "saved_model.pb").write_bytes(bytes(35000))
        memory = ModelMemory(1)
        config = ModelConfig("albert", str(base_path), VersionPolicy(2))
        versions = Versions(config, Model, monitor, LONG, memory)
        await versions.load_first()
        assert not await versions.look()
        assert states(versions) == [(8, "AVAILABLE"), (7, "END")]
        shutil.rmtree(str(base_path / "8"))
        add(base_path, 7, "x")
        memory.release(memory.num_bytes)
        await versions.look()
        assert versions.find(spec()).number == 7
    run(look())
    assert caplog.text.count("version 7 cannot be served: takes about 1 MB, and loaded versions take 1 MB of "
                             "--max_models_memory_mb 1") == 1


def test_a_load_that_hangs_stops_no_other_version(base_path, hasty, monitor, caplog):
    async def look():
        await hasty.load_first()
        add(base_path, 8, "hangs")
        assert await hasty.look() and not await hasty.look()
        (status,) = hasty.status(spec(version=8)).model_version_status
        assert status.status.error_message == "loading took longer than 0.5 s"
        assert b"serving_load_failures_total 1.0" in monitor.expose()
        add(base_path, 9)
        assert await hasty.look()
        assert hasty.find(spec()).number == 9
    run(look())
    assert "version 8 cannot be served: loading took longer than 0.5 s" in caplog.text


def test_the_first_passes_over_a_load_that_hangs(base_path, hasty):
    add(base_path, 8, "hangs")
    run(hasty.load_first())
    assert states(hasty) == [(8, "END"), (7, "AVAILABLE")]


def test_a_model_that_comes_too_late_is_closed(base_path, hasty, release):
    async def look():
        add(base_path, 8, "hangs")
        await hasty.load_first()
        (late,) = [model for model in Model.made if not hasattr(model, "closed")]
        release.set()
        while not getattr(late, "closed", False):
            await asyncio.sleep(0.01)
        assert not await hasty.look()              # nor is it tried again: its files are what they were
        assert hasty.find(spec()).number == 7
    run(look())


def test_a_version_that_hung_is_tried_again_when_its_files_change_but_not_for_ever(base_path, hasty):
    async def look():
        add(base_path, 8, "hangs")
        await hasty.load_first()
        for attempt in range(1, MAX_HANGING_LOADS + 2):
            add(base_path, 8, "changed%d" % attempt)
            assert await hasty.look() == (attempt < MAX_HANGING_LOADS)
        assert len(Model.made) == MAX_HANGING_LOADS + 1
    run(look())


def test_the_threads_that_may_hang_are_bounded(base_path, hasty, release, monkeypatch, caplog):
    monkeypatch.setattr(versions_module, "MAX_HANGING", 2)

    async def look():
        await hasty.load_first()
        for number in (8, 9):
            add(base_path, number, "hangs")
            assert await hasty.look()
        add(base_path, 10)
        assert not await hasty.look()
        release.set()
        while not await hasty.look():
            await asyncio.sleep(0.01)
        assert hasty.find(spec()).number == 10
    run(look())
    assert caplog.text.count("threads hang: no version is loaded until one of them ends") == 1
    assert MAX_HANGING > 2


def test_files_that_cannot_be_looked_at_stop_no_other_version(base_path, versions, release, monkeypatch):
    looked = []

    def look_at(folder):
        looked.append(os.path.basename(folder))
        if looked[-1] == "9" and not release.is_set():
            release.wait()
        return fingerprint(folder)

    async def look():
        add(base_path, 9)
        monkeypatch.setattr(versions_module, "LOOK_SECONDS", 0.5)
        monkeypatch.setattr(versions_module, "fingerprint", look_at)
        await versions.load_first()
        assert states(versions) == [(9, "END"), (7, "AVAILABLE")]
        assert not await versions.look()
        assert looked == ["9", "7"]                # one thread is enough to wait for it
        monkeypatch.setattr(versions_module, "LOOK_SECONDS", LONG)
        release.set()
        while not await versions.look():
            await asyncio.sleep(0.01)
        assert versions.find(spec()).number == 9   # now that it can be read
    run(look())


def test_a_folder_that_cannot_be_looked_at(base_path, versions, release, monkeypatch):
    calls = []

    def hang(path):
        calls.append(path)
        release.wait()
        return {}

    async def look():
        monkeypatch.setattr(versions_module, "LOOK_SECONDS", 0.5)
        monkeypatch.setattr(versions_module, "folders_in", hang)
        with pytest.raises(UserError, match="--model_base_path: .*: looking into it took longer than 0.5 s"):
            await versions.load_first()
        assert not await versions.look() and len(calls) == 1
    run(look())


def test_a_version_that_does_not_close_or_drain_stops_no_other_version(base_path, hasty, release, monkeypatch,
                                                                       caplog):
    async def look():
        await hasty.load_first()
        monkeypatch.setattr(hasty.find(spec()).model, "close", release.wait, raising=False)
        for number in (8, 9, 10):
            add(base_path, number)
            with hasty.find(spec()).in_use() if number == 9 else contextlib.nullcontext():
                assert await hasty.look()
            assert hasty.find(spec()).number == number
        while ("END" in [state for _, state in states(hasty)]) and (8, "END") not in states(hasty):
            await asyncio.sleep(0.01)
        assert states(hasty) == [(10, "AVAILABLE"), (9, "END"), (8, "END"), (7, "END")]
    run(look())
    assert "model albert: version 7: closing it: took longer than 0.5 s" in caplog.text
    assert "version 8 still has pending requests after 0.5 s" in caplog.text


def test_what_is_no_file_is_refused_before_it_is_opened(base_path, versions):
    for number in (8, 9, 10):
        (base_path / str(number) / "assets.extra").mkdir(parents=True)
    os.mkfifo(str(base_path / "8" / "saved_model.pb"))
    os.symlink("/dev/zero", str(base_path / "9" / "assets.extra" / "model_card.json"))
    os.mkdir(str(base_path / "elsewhere"))
    os.mkfifo(str(base_path / "elsewhere" / "variables.index"))
    os.symlink("../elsewhere", str(base_path / "10" / "variables"))
    run(versions.load_first())
    assert versions.find(spec()).number == 7
    said = [status.status.error_message for status in versions.status(spec()).model_version_status]
    assert said == ["%s: must be a file, got a FIFO" % (base_path / "10" / "variables" / "variables.index"),
                    "%s: must be a file, got a device"
                    % (base_path / "9" / "assets.extra" / "model_card.json"),
                    "%s: must be a file, got a FIFO" % (base_path / "8" / "saved_model.pb"), ""]
    assert len(Model.made) == 1


def test_too_many_files(base_path, monkeypatch):
    monkeypatch.setattr(versions_module, "MAX_FILES", 3)
    add(base_path, 7, "second")
    assert fingerprint(str(base_path / "7"))
    os.symlink(".", str(base_path / "7" / "a"))    # links that go round are many files
    os.symlink(".", str(base_path / "7" / "b"))
    with pytest.raises(UserError, match="7: holds more than 3 files, so it is no exported model"):
        fingerprint(str(base_path / "7"))


@pytest.mark.parametrize("path, most", [
    ("assets.extra/vocab.txt", 64 << 20), ("assets.extra/model_card.json", 64 << 20), ("assets/x", 64 << 20),
    ("variables/variables.index", 64 << 20), ("assets.extra/tf_serving_warmup_requests", 64 << 20),
    ("saved_model.pb", 1 << 30), ("saved_model.pbtxt", 1 << 30)])
def test_files_that_are_too_large_to_read(base_path, path, most):
    whole = base_path / "7" / path
    whole.parent.mkdir(exist_ok=True, parents=True)
    for size in (most, most + 1):
        with whole.open("wb") as stream:
            stream.truncate(size)              # with a hole, so that it takes no room
        if size == most:
            assert fingerprint(str(base_path / "7"))
    with pytest.raises(UserError, match="%s: must have at most %d bytes, got %d" % (path, most, most + 1)):
        fingerprint(str(base_path / "7"))


def test_weights_may_have_any_size(base_path):
    (base_path / "7" / "variables").mkdir(exist_ok=True, parents=True)
    with (base_path / "7" / "variables" / "variables.data-00000-of-00001").open("wb") as stream:
        stream.truncate(3 << 30)
    assert fingerprint(str(base_path / "7"))


def test_what_changes_a_fingerprint(base_path):
    folder = str(base_path / "7")
    found = [fingerprint(folder)]
    (base_path / "7" / "saved_model.pb").write_bytes(b"x")
    found.append(fingerprint(folder))
    os.utime(os.path.join(folder, "saved_model.pb"), (1, 1))
    found.append(fingerprint(folder))
    os.mkdir(os.path.join(folder, "variables"))
    found.append(fingerprint(folder))
    (base_path / "7" / "variables" / os.fsdecode(b"\xff")).write_bytes(b"")
    found.append(fingerprint(folder))
    assert len(set(found)) == 5
    assert fingerprint(folder) == found[-1]
    assert fingerprint(folder + "x") is None


def test_versions_that_have_ended_are_forgotten(base_path, versions, monitor, monkeypatch):
    monkeypatch.setattr(versions_module, "KEPT_STATUSES", 2)
    last = 12

    async def look():
        await versions.load_first()
        for number in range(8, last + 1):
            add(base_path, number)
            shutil.rmtree(str(base_path / str(number - 1)))
            assert await versions.look()
    run(look())
    assert [number for number, _ in states(versions)] == [12, 11, 10]
    text = monitor.expose().decode()
    assert text.count("serving_model_versions{") == 3 * len(versions_module.STATES)
    assert 'version="7"' not in text and 'version="%d"' % last in text


def test_many_broken_versions_are_tried_once_each(base_path, versions):
    for number in range(8, 8 + 2 * KEPT_STATUSES):
        add(base_path, number, "bad")
    run(versions.load_first())
    assert versions.find(spec()).number == 7
    assert len(Model.made) == 2 * KEPT_STATUSES + 1
    assert len(states(versions)) == KEPT_STATUSES + 1
