import pytest

from estimator.launching import rank_table
from estimator.launching.rank_table import Device, Server
from etl.common import files
from etl.common.command_line import UserError

HCCN = "".join("address_%d=192.168.%d.10%d\nnetmask_0=255.255.255.0\n" % (number, number // 4, number)
               for number in range(8))


def device(number, rank, address=None):
    return {"device_id": str(number), "device_ip": address or "192.168.%d.10%d" % (number // 4, number),
            "rank_id": str(rank)}


# What hccl_tools writes for these devices of a host with HCCN, and merge_hccl for two such hosts.
GENERATED = {
    (0,): [device(0, 0)],
    (2, 3): [device(2, 0), device(3, 1)],
    (4, 5, 6, 7): [device(4, 0), device(5, 1), device(6, 2), device(7, 3)],
    tuple(range(8)): [device(number, number) for number in range(8)]}


def conf(folder, text=HCCN):
    path = folder / "hccn.conf"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("numbers", sorted(GENERATED))
def test_a_table_is_the_one_that_the_known_generator_makes(tmp_path, numbers):
    found = rank_table.read_hccn_conf(conf(tmp_path))
    servers = rank_table.make("t", [("10.0.0.1", [(number, found[number]) for number in numbers])])
    assert rank_table.to_json(servers) == {
        "version": "1.0", "server_count": "1", "server_list": [
            {"server_id": "10.0.0.1", "device": GENERATED[numbers], "host_nic_ip": "reserve"}],
        "status": "completed"}


def test_ranks_are_counted_through_two_servers(tmp_path):
    first = sorted(rank_table.read_hccn_conf(conf(tmp_path)).items())
    second = [(number, address.replace("192", "193")) for number, address in first]
    table = rank_table.to_json(rank_table.make("t", [("10.0.0.1", first), ("10.0.0.2", second)]))
    assert table == {
        "version": "1.0", "server_count": "2", "server_list": [
            {"server_id": "10.0.0.1", "device": GENERATED[tuple(range(8))], "host_nic_ip": "reserve"},
            {"server_id": "10.0.0.2", "device": [
                device(number, 8 + number, "193.168.%d.10%d" % (number // 4, number)) for number in range(8)],
             "host_nic_ip": "reserve"}],
        "status": "completed"}


def test_a_table_is_read_as_it_was_written(tmp_path):
    servers = rank_table.make("t", [("a", [(0, "10.1.0.1"), (1, "10.1.0.2")]), ("b", [(0, "10.2.0.1")])])
    assert servers == [Server("a", (Device(0, "10.1.0.1", 0), Device(1, "10.1.0.2", 1))),
                       Server("b", (Device(0, "10.2.0.1", 2),))]
    files.write_json(str(tmp_path / "table.json"), rank_table.to_json(servers))
    assert rank_table.read(str(tmp_path / "table.json")) == servers and rank_table.size(servers) == 3


def test_modelarts_own_layout_becomes_a_table():
    groups = {"group_count": "1", "status": "completed", "group_list": [{
        "device_count": "2", "group_name": "job-trainjob", "instance_count": "2", "instance_list": [
            {"devices": [{"device_id": "4", "device_ip": "192.1.10.254"}], "pod_name": "job-0",
             "server_id": "192.168.0.25"},
            {"devices": [{"device_id": "0", "device_ip": "192.1.10.253"}], "pod_name": "job-1",
             "server_id": "192.168.0.26"}]}]}
    assert rank_table.from_json("table", groups) == [
        Server("192.168.0.25", (Device(4, "192.1.10.254", 0),)),
        Server("192.168.0.26", (Device(0, "192.1.10.253", 1),))]


@pytest.mark.parametrize("text, message", [
    ("", "hccn.conf: no line address_0=… in it"),
    ("address_0=1.2.3\n", "hccn.conf: line 1: address_0: wanted an IP address, got '1.2.3'"),
    ("\naddress_1=\n", "hccn.conf: line 2: address_1: wanted an IP address, got ''"),
    ("address_0=1.2.3.4\naddress_0=1.2.3.5\n", "hccn.conf: line 2: address_0: stands twice"),
    ("address_0=1.2.3.4\naddress_1=1.2.3.4\n", "1.2.3.4 is another device's address, too"),
])
def test_what_is_wrong_with_a_hosts_file_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        rank_table.read_hccn_conf(conf(tmp_path, text))


def test_a_missing_host_file_says_where_it_comes_from(tmp_path):
    with pytest.raises(UserError, match="gone: no such file: it is written when .*a container must be given"):
        rank_table.read_hccn_conf(str(tmp_path / "gone"))


def test_servers_and_devices_have_addresses_of_their_own():
    with pytest.raises(UserError, match="t: device 0 of a stands twice"):
        rank_table.make("t", [("a", [(0, "1.2.3.4")]), ("a", [(0, "1.2.3.5")])])
    with pytest.raises(UserError, match="t: device 0 of a and device 0 of b have the same address, 1.2.3.4"):
        rank_table.make("t", [("a", [(0, "1.2.3.4")]), ("b", [(0, "1.2.3.4")])])


def table(**changes):
    servers = rank_table.make("t", [("a", [(0, "1.1.1.1"), (1, "1.1.1.2")])])
    return dict(rank_table.to_json(servers), **changes)


@pytest.mark.parametrize("given, message", [
    ([], "t: wanted a JSON object, got list"),
    (table(status="initializing"), "t: status is 'initializing', wanted 'completed'"),
    (table(version="2.0"), "t: version is '2.0', wanted '1.0'"),
    (table(server_count="2"), "t: server_count is 2, but server_list has 1"),
    (table(server_list=[]), r"t: server_list: wanted a list of objects, got \[\]"),
    (table(server_list=[{"server_id": "a"}]), r"t: server_list\[0\]: device: wanted a list of objects"),
    (table(server_list=[{"device": [device(0, 0)]}]),
     r"server_list\[0\]: server_id: wanted a text, got None"),
    (table(server_list=[{"server_id": "a", "device": [device(0, 0), dict(device(1, 1), device_id="x")]}]),
     r"t: server_list\[0\]: device\[1\]: device_id: wanted a number from 0 on, got 'x'"),
    (table(server_list=[{"server_id": "a", "device": [device(0, 0, "here")]}]),
     r"device\[0\]: device_ip: wanted an IP address, got 'here'"),
    (table(server_list=[{"server_id": "a", "device": [device(0, 0), device(1, 2)]}]),
     "t: rank_id: wanted each of 0 to 1 once, got 0, 2"),
    (table(server_list=[{"server_id": "a", "device": [device(3, 0), device(3, 1)]}]),
     "t: device 3 of a stands twice"),
    (table(server_list=[{"server_id": "a", "device": [device(0, 0, "1.1.1.1"), device(1, 1, "1.1.1.1")]}]),
     "t: device 0 of a and device 1 of a have the same address, 1.1.1.1"),
])
def test_what_is_wrong_with_a_table_is_named(given, message):
    with pytest.raises(UserError, match=message):
        rank_table.from_json("t", given)


def test_a_host_knows_its_server():
    servers = rank_table.make("t", [("10.0.0.1", [(0, "1.1.1.1")]), ("10.0.0.2", [(0, "1.1.1.2")])])
    assert rank_table.index_of(servers, ["10.0.0.2", "name"]) == 1
    assert rank_table.index_of(servers, ["10.0.0.3"]) is None and rank_table.index_of(servers[:1], []) == 0
