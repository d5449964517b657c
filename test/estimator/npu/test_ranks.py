import pytest

from estimator.npu.ranks import ALONE, World, read_world
from etl.common.command_line import UserError


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "table.json").write_text("{}")
    return {"RANK_TABLE_FILE": str(tmp_path / "table.json"), "RANK_SIZE": "8", "RANK_ID": "3",
            "ASCEND_DEVICE_ID": "3", "JOB_ID": "1"}


def test_without_a_table_a_process_is_alone(environment):
    assert read_world({"RANK_SIZE": "1", "ASCEND_DEVICE_ID": "5"}) == read_world({}) == ALONE == World(0, 1)
    with pytest.raises(UserError, match="RANK_SIZE is 8, but RANK_TABLE_FILE is not set"):
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
    ({"RANK_SIZE": "two"}, "RANK_SIZE must be an integer, got 'two'"),
    ({"ASCEND_DEVICE_ID": "x"}, "ASCEND_DEVICE_ID must be an integer, got 'x'"),
    ({"RANK_TABLE_FILE": "", "DEVICE_ID": "-3"}, "DEVICE_ID must be a device's number, from 0 on, got -3"),
    ({"RANK_TABLE_FILE": "gone.json"}, "RANK_TABLE_FILE: gone.json: no such file"),
])
def test_what_is_missing_or_wrong_is_named(environment, changes, message):
    with pytest.raises(UserError, match=message):
        read_world(dict(environment, **changes))
