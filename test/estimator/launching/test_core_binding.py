import pytest

from estimator.launching import core_binding

# As npu-smi prints it for a host with two processors of two nodes each; shortened to what is read.
TOPOLOGY = """\
           NPU0       NPU1       NPU2       NPU3       CPU Affinity
NPU0       X          HCCS       HCCS       HCCS       144-167
NPU1       HCCS       X          HCCS       HCCS       0-23
NPU2       HCCS       HCCS       X          HCCS       144-167
NPU3       HCCS       HCCS       HCCS       X          NA

Legend:
  X    = Self
"""


def test_numbers_and_ranges():
    assert core_binding.parse("0-2,8,1") == [0, 1, 2, 8]
    for text in ("", "a", "1-", "3-1", "1,,2", "-1", "0-99999999999", "٣"):
        with pytest.raises(ValueError):
            core_binding.parse(text)


def test_the_drivers_table():
    assert core_binding.parse_topology(TOPOLOGY) == {
        0: list(range(144, 168)), 1: list(range(24)), 2: list(range(144, 168))}
    assert core_binding.parse_topology("npu-smi: unknown command\nNPU0 1-2\n") == {}


def test_devices_divide_the_cores_of_their_node_in_the_nodes_order():
    nodes = [list(range(begin, begin + 48)) for begin in (0, 48, 96, 144)]
    found = core_binding.share(range(8), 8, nodes, {}, range(192))
    assert {device: (found[device][0], found[device][-1]) for device in found} == {
        device: (24 * device, 24 * device + 23) for device in range(8)}
    assert core_binding.share([0, 4], 8, nodes, {}, range(192)) == {0: nodes[0], 4: nodes[2]}


def test_what_the_driver_says_wins_and_what_is_forbidden_is_left_out():
    nodes = [[0, 1, 2, 3], [4, 5, 6, 7]]
    named = {0: [4, 5, 6, 7], 1: [4, 5, 6, 7]}
    assert core_binding.share([0, 1], 2, nodes, named, range(8)) == {0: [4, 5], 1: [6, 7]}
    assert core_binding.share([0, 1], 2, nodes, {}, [0, 1, 2, 3]) == {0: [0, 1], 1: [2, 3]}
    assert core_binding.share([0, 9], 8, nodes, {}, range(8)) == {0: nodes[0], 9: nodes[1]}


def test_too_few_cores_bind_nothing():
    assert core_binding.share(range(8), 8, [[0, 1]], {}, [0, 1]) == {}
    assert core_binding.share([0], 8, [], {}, [0]) == {}


def test_what_the_system_tells(tmp_path):
    for number, text in ((0, "0-1\n"), (1, "\n"), (10, "4\n"), (2, "2-3\n")):
        (tmp_path / ("node%d" % number)).mkdir()
        (tmp_path / ("node%d" % number) / "cpulist").write_text(text)
    assert core_binding.nodes_of_host(str(tmp_path)) == [[0, 1], [2, 3], [4]]
    for name in ("davinci0", "davinci11", "davinci_manager"):
        (tmp_path / name).touch()
    assert core_binding.devices_of_host(str(tmp_path)) == {0, 11}


def test_a_host_without_the_drivers_tool(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert core_binding.affinity_of_host() == {}
    tool = tmp_path / "npu-smi"
    tool.write_text("#!/bin/sh\necho '  NPU0  CPU Affinity'\necho \"NPU0  X  2-$#\"\n")
    tool.chmod(0o755)
    assert core_binding.affinity_of_host() == {0: [2, 3]}
