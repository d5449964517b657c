"""Which cores of the host belong to which device, by the NUMA node that the device is connected to.

A process that keeps to the memory and the cores beside its device crosses no link between processors for
each batch. Bound are processes, not threads.
"""
import glob
import os
import re
import subprocess
from typing import Collection, Dict, List, Mapping, Sequence, Set

NODES = "/sys/devices/system/node"
_TOPOLOGY = ("npu-smi", "info", "-t", "topo")
_TOPOLOGY_SECONDS = 30

_NUMBER = "[0-9]{1,5}"
_CORES = re.compile("{0}(-{0})?(,{0}(-{0})?)*".format(_NUMBER))


def is_number(text: str) -> bool:
    """Whether a text is one number, as `parse` takes them."""
    return bool(re.fullmatch(_NUMBER, text))


def parse(text: str) -> List[int]:
    """`0-2,8` → `[0, 1, 2, 8]`, in order, each once. Raises ValueError for anything else."""
    if not _CORES.fullmatch(text):
        raise ValueError("wanted numbers and ranges such as 0-3,8, got %r" % text)
    found: List[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise ValueError("%s: the last is below the first" % part)
        found += range(int(first), int(last or first) + 1)
    return sorted(set(found))


def share(devices: Sequence[int], host_devices: int, nodes: Sequence[Sequence[int]],
          affinity: Mapping[int, Sequence[int]], allowed: Collection[int]) -> Dict[int, List[int]]:
    """The cores of each device: those of its node, divided among the devices of the node.

    Args:
      devices: that are used.
      host_devices: how many the host has; where `affinity` is silent, they lie in the nodes' order, as many
        in each, which is how the servers' makers count them.
      nodes: cores of each NUMA node, in order.
      affinity: cores that the driver names for a device.
      allowed: cores that this process may use.

    Returns:
      {device: cores}; {} where the cores do not suffice for one each, and there is nothing to gain.
    """
    usable = [[core for core in node if core in allowed] for node in nodes]
    usable = [node for node in usable if node]
    if not usable:
        return {}
    homes: Dict[int, List[int]] = {}
    for device in devices:
        named = [core for core in affinity.get(device, ()) if core in allowed]
        homes[device] = named or usable[min(device * len(usable) // max(host_devices, device + 1),
                                            len(usable) - 1)]
    found = {}
    for device, home in homes.items():
        neighbours = [other for other in devices if homes[other] == home]
        begin, end = (len(home) * place // len(neighbours)
                      for place in (neighbours.index(device), neighbours.index(device) + 1))
        found[device] = home[begin:end]
    return found if all(found.values()) else {}


def nodes_of_host(folder: str = NODES) -> List[List[int]]:
    """The cores of each NUMA node, in the nodes' order; [] where the system does not tell."""
    found = {}
    for path in glob.glob(os.path.join(folder, "node[0-9]*", "cpulist")):
        try:
            with open(path, encoding="ascii") as stream:
                found[int(os.path.basename(os.path.dirname(path))[4:])] = parse(stream.read().strip())
        except (OSError, ValueError):          # a node of memory alone, for one
            continue
    return [found[number] for number in sorted(found)]


def parse_topology(text: str) -> Dict[int, List[int]]:
    """The last column of the driver's table of links, CPU Affinity, by device; {} without one.

    `NPU3  HCCS … 72-95` → `{3: [72, …, 95]}`.
    """
    found: Dict[int, List[int]] = {}
    if "CPU Affinity" not in text:
        return found
    for line in text.split("\n"):
        words = line.split()
        if len(words) > 1 and re.fullmatch(r"NPU\d+", words[0]) and _CORES.fullmatch(words[-1]):
            found[int(words[0][3:])] = parse(words[-1])
    return found


def affinity_of_host() -> Dict[int, List[int]]:
    """What the driver's tool says of each device; {} where there is none, or one too old to tell."""
    try:
        said = subprocess.run(_TOPOLOGY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              stdin=subprocess.DEVNULL, timeout=_TOPOLOGY_SECONDS).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parse_topology(said.decode("utf-8", "replace"))


def devices_of_host(folder: str = "/dev") -> Set[int]:
    """The devices that the driver shows here."""
    names = [os.path.basename(path) for path in glob.glob(os.path.join(folder, "davinci*"))]
    return {int(name[len("davinci"):]) for name in names if re.fullmatch(r"davinci\d+", name)}
