import pytest

from estimator.launching import plan as plans
from estimator.launching import rank_table
from estimator.launching.flags import LaunchConfig
from etl.common import files
from etl.common.command_line import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two hosts' files, and the first host as this one, an Ascend 910's server with 8 cores."""
    for server in (1, 2):
        (tmp_path / ("%d.conf" % server)).write_text(
            "".join("address_%d=192.168.%d.%d\n" % (number, server, number) for number in range(8)))
    monkeypatch.setattr(plans, "own_addresses", lambda: ["10.0.0.1", "one"])
    monkeypatch.setattr(plans.ranks, "is_bound_to_groups", lambda: True)
    monkeypatch.setattr(plans.core_binding, "nodes_of_host", lambda: [[0, 1, 2, 3], [4, 5, 6, 7]])
    monkeypatch.setattr(plans.core_binding, "affinity_of_host", dict)
    monkeypatch.setattr(plans.os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**flags):
    return LaunchConfig(**dict(dict(hccn_conf=("1.conf",), log_dir="logs"), **flags))


def test_eight_devices_get_a_table_and_places_of_their_own(folder):
    plan = plans.make(config(devices="0-7"), {})
    assert (plan.size, plan.is_new, plan.table) == (8, True, str(folder / "logs" / "rank_table.json"))
    assert rank_table.size(plan.servers) == 8 and plan.servers[0].address == "10.0.0.1"
    starts = plans.starts(plan, config(), ["estimator.pretrain", "--seed", "1"],
                          {"PATH": "/bin", "RANK_ID": "5", "CM_CHIEF_IP": "x", "JOB_ID": "7"})
    for number, start in enumerate(starts):
        assert start.environment == {
            "PATH": "/bin", "JOB_ID": "7", "RANK_TABLE_FILE": plan.table, "RANK_SIZE": "8",
            "RANK_ID": str(number), "ASCEND_DEVICE_ID": str(number), "DEVICE_ID": str(number)}
        assert start.arguments[1:] == ["-u", "-m", "estimator.pretrain", "--seed", "1", "--backend=npu"]
        assert (start.log, start.cores) == ("logs/%d/train_%d.log" % (number, number), [number])
        assert start.name == "rank %d on device %d" % (number, number)


def test_some_devices_count_their_ranks_from_0(folder):
    plan = plans.make(config(devices="4-7"), {})
    assert [(place.rank, place.device, place.variables["ASCEND_DEVICE_ID"]) for place in plan.places] == [
        (0, 4, "4"), (1, 5, "5"), (2, 6, "6"), (3, 7, "7")]
    starts = plans.starts(plan, config(bind_cores=False), ["estimator.pretrain", "--backend", "npu"], {})
    assert starts[0].environment["JOB_ID"] == "10087" and starts[0].cores == ()
    assert starts[0].arguments[-2:] == ["--backend", "npu"]


def test_a_container_counts_its_devices_from_0_and_the_table_as_the_host(folder):
    plan = plans.make(config(devices="0-3"), {"ASCEND_VISIBLE_DEVICES": "4-7"})
    assert [device.number for device in plan.servers[0].devices] == [4, 5, 6, 7]
    assert [place.device for place in plan.places] == [0, 1, 2, 3]
    assert plans.visible_devices({"ASCEND_VISIBLE_DEVICES": "Ascend910-1,Ascend910-3"}) == [1, 3]
    with pytest.raises(UserError, match="ASCEND_VISIBLE_DEVICES: wanted numbers and ranges"):
        plans.visible_devices({"ASCEND_VISIBLE_DEVICES": "all"})


def test_one_device_waits_for_no_other(folder):
    plan = plans.make(config(devices="3", hccn_conf=()), {})
    start, = plans.starts(plan, config(), ["estimator.finetune", "--backend=cpu"], {"RANK_TABLE_FILE": "t"})
    assert start.environment == {"RANK_SIZE": "1", "ASCEND_DEVICE_ID": "3", "DEVICE_ID": "3",
                                 "JOB_ID": "10087"}
    assert start.arguments[-1] == "--backend=cpu" and plan.table is None and not plan.is_new


def test_the_second_of_two_servers_begins_with_rank_8(folder):
    flags = dict(servers=("10.0.0.2", "10.0.0.1"), hccn_conf=("2.conf", "1.conf"), devices="0-7")
    plan = plans.make(config(**flags), {})
    assert plan.size == 16 and [place.rank for place in plan.places] == list(range(8, 16))
    assert [place.log_number for place in plan.places] == list(range(8, 16))
    assert plan.places[0].device == 0 and plan.servers[0].address == "10.0.0.2"
    assert plans.make(config(server_index=0, **flags), {}).places[0].rank == 0


def test_a_table_that_is_there_is_taken(folder):
    table = plans.make(config(devices="0-3"), {})
    files.write_json("table.json", rank_table.to_json(table.servers))
    taken = plans.make(config(rank_table="table.json", hccn_conf=()), {})
    assert (taken.places[3].variables["RANK_TABLE_FILE"], taken.is_new) == (str(folder / "table.json"), False)
    assert len(plans.make(config(hccn_conf=()), {"RANK_TABLE_FILE": "table.json"}).places) == 4
    with pytest.raises(UserError, match="--devices: 0-1, but .*table.json names 0, 1, 2, 3 on this server"):
        plans.make(config(rank_table="table.json", hccn_conf=(), devices="0-1"), {})


def test_without_a_table_the_first_server_tells(folder):
    flags = dict(hccn_conf=(), chief_port=60001, servers=("10.0.0.9", "10.0.0.1"), devices="0-7")
    plan = plans.make(config(**flags), {})
    assert (plan.size, plan.table, plan.places[7].rank, plan.places[7].log_number) == (16, None, 15, 15)
    assert plan.places[7].variables == {
        "CM_CHIEF_IP": "10.0.0.9", "CM_CHIEF_PORT": "60001", "CM_CHIEF_DEVICE": "0",
        "CM_WORKER_IP": "10.0.0.1", "CM_WORKER_SIZE": "16", "CM_RANK": "1", "CM_LOCAL_WORKER": "8",
        "ASCEND_DEVICE_ID": "7", "DEVICE_ID": "7"}
    from estimator.npu.ranks import World, read_world
    for place in plan.places:
        assert read_world(dict(place.variables, JOB_ID="1")) == World(place.rank, 16)
    with pytest.raises(UserError, match="--devices: without a rank table they must follow on one another"):
        plans.make(config(**dict(flags, devices="0,2")), {})


@pytest.mark.parametrize("flags, message", [
    (dict(devices="0-2"), "--devices must be 1, 2, 4, 8 or a multiple of 8, .* got 3"),
    (dict(devices="3,4"), "--devices: 2 devices of an Ascend 910's server must all be of 0-3, or all of 4-7"),
    (dict(devices="7,8"), "--devices: 8: 1.conf has no address_8; it has 0, 1, 2, 3, 4, 5, 6, 7"),
    (dict(hccn_conf=("gone.conf",)), "gone.conf: no such file"),
    (dict(servers=("a", "b"), hccn_conf=("1.conf", "1.conf"), server_index=0, devices="0-7"),
     "device 0 of a and device 0 of b have the same address, 192.168.1.0"),
    (dict(servers=("a", "b"), hccn_conf=("1.conf", "2.conf")),
     "--server_index must be given: this host is 10.0.0.1 or one, the servers are a, b"),
])
def test_what_does_not_fit_is_named(folder, flags, message):
    with pytest.raises(UserError, match=message):
        plans.make(config(**flags), {})


def test_servers_have_as_many_devices_as_one_another(folder):
    servers = rank_table.make("t", [("10.0.0.1", [(0, "1.1.1.1"), (1, "1.1.1.2"), (2, "1.1.1.3")]),
                               ("10.0.0.2", [(0, "1.1.2.1")])])
    with pytest.raises(UserError, match="table.json: each server must have as many devices .* got 3, 1"):
        plans.by_table(config(), servers, "table.json", False)


def test_the_last_value_of_a_flag():
    assert plans.value_of(["--a=1", "--b", "2", "--a", "3", "--c"], "a") == "3"
    assert plans.value_of(["--c", "--a"], "c") == plans.value_of(["--c"], "c") == "true"
    assert plans.value_of(["--cc=1"], "c") == ""


def test_several_devices_do_not_fall_back_to_the_cpu(folder):
    plan = plans.make(config(devices="0-1"), {})
    for words in (["--backend", "cpu"], ["--backend=cpu"]):
        with pytest.raises(UserError, match="--backend cpu: several devices exchange gradients"):
            plans.starts(plan, config(), ["estimator.pretrain", *words], {})
