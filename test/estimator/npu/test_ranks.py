import pytest

from estimator.npu import ranks
from estimator.npu.ranks import ALONE, World, read_world
from etl.common.command_line import UserError


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "table.json").write_text("{}")
    return {"RANK_TABLE_FILE": str(tmp_path / "table.json"), "RANK_SIZE": "8", "RANK_ID": "3",
            "ASCEND_DEVICE_ID": "3", "JOB_ID": "1"}


def test_without_a_table_a_process_is_alone(environment):
    assert read_world({"RANK_SIZE": "1", "ASCEND_DEVICE_ID": "5"}) == read_world({}) == ALONE == World(0, 1)
    with pytest.raises(UserError, match="RANK_SIZE is 8, but neither RANK_TABLE_FILE nor CM_CHIEF_IP is set"):
        read_world({"RANK_SIZE": "8"})


def test_the_place_among_the_devices(environment):
    assert read_world(environment) == World(3, 8)
    assert not World(3, 8).is_first and World(0, 8).is_first


@pytest.mark.parametrize("changes, message", [
    ({"RANK_ID": "", "JOB_ID": ""},
     "RANK_TABLE_FILE is set, which means several devices, but RANK_ID, JOB_ID are not set"),
    ({"ASCEND_DEVICE_ID": ""}, "but ASCEND_DEVICE_ID is not set"),
    ({"RANK_ID": "8"}, r"RANK_ID must be in \[0, 8\), since RANK_SIZE is 8; got 8"),
    ({"RANK_SIZE": "0"}, "RANK_SIZE must be at least 1, got 0"),
    ({"RANK_SIZE": "12"}, "RANK_SIZE must be 1, 2, 4, 8 or a multiple of 8, .*; got 12"),
    ({"CM_CHIEF_IP": "10.0.0.1"},
     "RANK_TABLE_FILE is set, and so is CM_CHIEF_IP or CM_WORKER_SIZE: .* unset"),
    ({"RANK_SIZE": "two"}, "RANK_SIZE must be an integer, got 'two'"),
    ({"ASCEND_DEVICE_ID": "x"}, "ASCEND_DEVICE_ID must be an integer, got 'x'"),
    ({"RANK_TABLE_FILE": "", "DEVICE_ID": "-3"}, "DEVICE_ID must be a device's number, from 0 on, got -3"),
    ({"RANK_TABLE_FILE": "gone.json"}, "RANK_TABLE_FILE: gone.json: no such file"),
])
def test_what_is_missing_or_wrong_is_named(environment, changes, message):
    with pytest.raises(UserError, match=message):
        read_world(dict(environment, **changes))


CHIEF = {"CM_CHIEF_IP": "10.0.0.1", "CM_CHIEF_PORT": "60001", "CM_CHIEF_DEVICE": "0", "CM_WORKER_SIZE": "8",
         "CM_WORKER_IP": "10.0.0.1", "ASCEND_DEVICE_ID": "3", "JOB_ID": "1"}


@pytest.mark.parametrize("changes, wanted", [
    ({}, World(3, 8)),
    ({"CM_WORKER_SIZE": "4", "CM_CHIEF_DEVICE": "4", "ASCEND_DEVICE_ID": "6"}, World(2, 4)),
    ({"CM_WORKER_SIZE": "4", "CM_CHIEF_DEVICE": "5", "ASCEND_DEVICE_ID": "4"}, World(3, 4)),
    ({"CM_WORKER_SIZE": "16"}, World(3, 16)),
    ({"CM_WORKER_SIZE": "16", "CM_WORKER_IP": "10.0.0.2"}, World(11, 16)),
    ({"CM_WORKER_SIZE": "24", "CM_WORKER_IP": "10.0.0.2", "CM_RANK": "2"}, World(19, 24)),
    ({"CM_WORKER_SIZE": "4", "CM_LOCAL_WORKER": "2", "CM_RANK": "1", "ASCEND_DEVICE_ID": "1"}, World(3, 4)),
    ({"RANK_ID": "5"}, World(5, 8)), ({"CM_WORKER_IP": ""}, World(3, 8)),
    ({"CM_WORKER_SIZE": "1", "ASCEND_DEVICE_ID": "0"}, World(0, 1)),
])
def test_the_place_where_the_first_server_tells(changes, wanted):
    assert read_world(dict(CHIEF, **changes)) == wanted


@pytest.mark.parametrize("changes, message", [
    ({"CM_CHIEF_IP": "", "CM_CHIEF_PORT": ""}, "but CM_CHIEF_IP, CM_CHIEF_PORT are not set"),
    ({"RANK_SIZE": "8"}, "RANK_SIZE is set, and so is CM_CHIEF_IP or CM_WORKER_SIZE"),
    ({"CM_CHIEF_PORT": "65521"}, r"CM_CHIEF_PORT must be in \[0, 65520\], got 65521"),
    ({"CM_CHIEF_DEVICE": "-1"}, "CM_CHIEF_DEVICE must be a device's number, from 0 on, got -1"),
    ({"CM_WORKER_SIZE": "0"}, "CM_WORKER_SIZE must be at least 1, got 0"),
    ({"CM_WORKER_SIZE": "6"}, "CM_WORKER_SIZE must be 1, 2, 4, 8 or a multiple of 8"),
    ({"CM_LOCAL_WORKER": "3"}, "CM_LOCAL_WORKER must divide CM_WORKER_SIZE, which is 8; got 3"),
    ({"CM_WORKER_SIZE": "2"}, "ASCEND_DEVICE_ID is 3 and CM_CHIEF_DEVICE 0, but the 2 device.s. of a server"),
    ({"CM_CHIEF_DEVICE": "3", "CM_LOCAL_WORKER": "2", "ASCEND_DEVICE_ID": "1"}, "must follow on one another"),
    ({"CM_WORKER_IP": "10.0.0.2"}, "CM_WORKER_IP is 10.0.0.2, but all 8 devices .* are on .* 10.0.0.1"),
    ({"CM_WORKER_SIZE": "24", "CM_WORKER_IP": "10.0.0.2"},
     "CM_RANK must be set: .* number among 3, from 0 on"),
    ({"CM_WORKER_SIZE": "16", "CM_WORKER_IP": ""}, "CM_WORKER_IP must be set, this server's address, or"),
    ({"CM_WORKER_IP": "here"}, "CM_WORKER_IP must be an IP address, got 'here'"),
    ({"CM_RANK": "1"}, r"CM_RANK must be in \[0, 1\), .*; got 1"),
    ({"RANK_ID": "8"}, r"RANK_ID must be in \[0, 8\), since CM_WORKER_SIZE is 8; got 8"),
])
def test_what_the_first_server_cannot_tell(changes, message):
    with pytest.raises(UserError, match=message):
        read_world(dict(CHIEF, **changes))


def test_groups_of_devices():
    for size in (1, 2, 4, 8, 16, 24):
        ranks.require_size("x", size, bound=True)
    ranks.require_size("x", 6, bound=False)
    for devices in ([5], [4, 6], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]):
        ranks.require_group("x", devices, bound=True)
    ranks.require_group("x", [3, 4], bound=False)
    with pytest.raises(UserError, match="x: 2 devices of an Ascend 910's server must all be .* got 3, 4"):
        ranks.require_group("x", [3, 4], bound=True)


@pytest.mark.parametrize("found, bound", [
    ([], True), ([("0x19e5", "0xd801")], True), ([("0x19e5", "0xd802")], False),
    ([("0x8086", "0xd802")], True),
    ([("0x19e5", "0xd802"), ("0x19e5", "0x0200")], False)])
def test_later_devices_know_no_groups(tmp_path, found, bound):
    for number, (vendor, device) in enumerate(found):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(vendor + "\n")
        (tmp_path / str(number) / "device").write_text(device + "\n")
    assert ranks.is_bound_to_groups(str(tmp_path)) == bound
