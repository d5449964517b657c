"""Flags and environment → what is started: which devices of which servers train, the variables of each
process, its cores and its log. Nothing is started or written here."""
import os
import socket
import sys
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from estimator.launching import core_binding, rank_table
from estimator.launching.flags import HCCN_CONF, LaunchConfig
from estimator.launching.processes import Start
from estimator.launching.rank_table import Server
from estimator.npu import ranks
from etl.common.command_line import UserError

DEFAULT_JOB_ID = "10087"                       # npu_bridge demands one; any number will do
_VISIBLE = ("ASCEND_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES")
# of the environment that we were started in; they would tell a process another place than its own
_PLACES = ("RANK_TABLE_FILE", "RANK_SIZE", "RANK_ID", "ASCEND_DEVICE_ID", "DEVICE_ID", "CM_CHIEF_IP",
           "CM_CHIEF_PORT", "CM_CHIEF_DEVICE", "CM_WORKER_IP", "CM_WORKER_SIZE", "CM_RANK", "CM_LOCAL_WORKER")


class Place(NamedTuple):
    """Where one process runs, and what its environment must say of it."""
    rank: int
    device: int                                # as this host counts them
    log_number: int                            # the device's, counted on through all servers
    variables: Dict[str, str]


class Plan(NamedTuple):
    """A launch.

    Attributes:
      places: of this server's processes; the first is rank 0 where this server has it.
      size: devices on all servers.
      servers: of the table; () without one.
      table: path of the table's file; None without one.
      is_new: whether that file is to be written.
    """
    places: List[Place]
    size: int
    servers: Sequence[Server] = ()
    table: Optional[str] = None
    is_new: bool = False


def make(config: LaunchConfig, environment: Mapping[str, str]) -> Plan:
    """What a launch by these flags is. Raises UserError for what does not fit together, before anything is
    written."""
    if config.chief_port is not None:
        return _by_chief(config)
    given = config.rank_table or (None if config.servers or config.hccn_conf else
                                  environment.get("RANK_TABLE_FILE"))
    visible = visible_devices(environment)
    if given:
        servers = rank_table.read(given)
        return by_table(config, servers, os.path.abspath(given), False, visible)
    asked = core_binding.parse(config.devices) if config.devices else None
    if asked and len(asked) == 1 and len(config.servers) < 2 and not config.save_rank_table:
        return Plan([_alone(asked[0])], 1)
    names = [visible[device] if visible and device < len(visible) else device for device in asked or ()]
    servers = _tabulate(config, names)
    path = config.save_rank_table or os.path.join(config.log_dir, "rank_table.json")
    return by_table(config, servers, os.path.abspath(path), True, visible)


def by_table(config: LaunchConfig, servers: Sequence[Server], table: str, is_new: bool,
             visible: Sequence[int] = (), index: Optional[int] = None) -> Plan:
    """A launch by a table.

    Args:
      visible: numbers that the host has for the devices that a container sees as 0, 1 and so on; (): all are
        seen, under their own numbers.
      index: which of the servers this is, where the caller knows.
    """
    size, origin = rank_table.size(servers), table if not is_new else "--devices"
    ranks.require_size(origin, size)
    if index is None:
        index = _index(config, servers)
    counts = [len(server.devices) for server in servers]
    if len(set(counts)) > 1:
        raise UserError("%s: each server must have as many devices as the others, got %s"
                        % (origin, ", ".join(map(str, counts))))
    for server in servers:
        ranks.require_group(origin, [device.number for device in server.devices])
    own = sorted(servers[index].devices, key=lambda device: device.rank)
    numbers = {device.number: visible.index(device.number) if device.number in visible else device.number
               for device in own}
    asked = core_binding.parse(config.devices) if config.devices else None
    if asked is not None and sorted(asked) != sorted(numbers.values()):
        raise UserError("--devices: %s, but %s names %s on this server"
                        % (config.devices, table, ", ".join(map(str, sorted(numbers.values())))))
    if size == 1:
        return Plan([_alone(numbers[own[0].number])], 1, servers, table, is_new)
    places = [Place(device.rank, numbers[device.number], index * ranks.SERVER + numbers[device.number],
                    {"RANK_TABLE_FILE": table, "RANK_SIZE": str(size), "RANK_ID": str(device.rank),
                     "ASCEND_DEVICE_ID": str(numbers[device.number]),
                     "DEVICE_ID": str(numbers[device.number])}) for device in own]
    return Plan(places, size, servers, table, is_new)


def starts(plan: Plan, config: LaunchConfig, command: Sequence[str],
           environment: Mapping[str, str]) -> List[Start]:
    """The processes of a plan.

    Args:
      command: a module's name and its arguments.
      environment: that each gets, but for its own place in it.
    """
    shared = {name: value for name, value in environment.items() if name not in _PLACES}
    shared.setdefault("JOB_ID", DEFAULT_JOB_ID)
    bound = _cores_of(plan) if config.bind_cores else {}
    arguments = [sys.executable, "-u", "-m"] + list(command)
    if plan.size > 1:
        arguments += _backend(command)
    return [Start("rank %d on device %d" % (place.rank, place.device), arguments,
                  dict(shared, **place.variables), log_of(config.log_dir, place.log_number),
                  bound.get(place.device, ())) for place in plan.places]


def log_of(log_dir: str, number: int) -> str:
    """The log of a device, where the model zoo's tooling looks for it."""
    return os.path.join(log_dir, str(number), "train_%d.log" % number)


def value_of(flags: Sequence[str], name: str) -> str:
    """The last value of a flag, which is the one that a command takes: `true` for a flag alone, "" without
    one."""
    value = ""
    for flag, following in zip(flags, list(flags[1:]) + ["--"]):
        if flag.startswith("--%s=" % name):
            value = flag.partition("=")[2]
        elif flag == "--" + name:
            value = "true" if following.startswith("--") else following
    return value


def visible_devices(environment: Mapping[str, str]) -> List[int]:
    """The host's numbers of the devices that this container sees, in the order in which it counts them from 0
    on; [] where nothing is said, and all are seen."""
    for name in _VISIBLE:
        text = environment.get(name, "").replace("Ascend910-", "").replace(" ", "")
        if text and text != "void":
            try:
                return core_binding.parse(text)
            except ValueError as error:
                raise UserError("%s: %s" % (name, error))
    return []


def own_addresses() -> List[str]:
    """By which other hosts may know this one: its name, and its address if the name has one."""
    name = socket.gethostname()
    try:
        return [socket.gethostbyname(name), name]
    except OSError:
        return [name]


def _alone(device: int) -> Place:
    """One device: a table would have npu_bridge wait for others."""
    return Place(0, device, device,
                 {"RANK_SIZE": "1", "ASCEND_DEVICE_ID": str(device), "DEVICE_ID": str(device)})


def _by_chief(config: LaunchConfig) -> Plan:
    """Devices that find each other through the first server: as many on each server, under the same
    numbers."""
    devices = core_binding.parse(config.devices or "")
    if devices != list(range(devices[0], devices[0] + len(devices))):
        raise UserError("--devices: without a rank table they must follow on one another, got %s"
                        % config.devices)
    size = len(config.servers) * len(devices)
    ranks.require_size("--devices on --servers", size)
    ranks.require_group("--devices", devices)
    index = _index(config, [Server(address, ()) for address in config.servers])
    shared = {"CM_CHIEF_IP": config.servers[0], "CM_CHIEF_PORT": str(config.chief_port),
              "CM_CHIEF_DEVICE": str(devices[0]), "CM_WORKER_IP": config.servers[index],
              "CM_WORKER_SIZE": str(size), "CM_RANK": str(index), "CM_LOCAL_WORKER": str(len(devices))}
    if size == 1:
        return Plan([_alone(devices[0])], 1)
    return Plan([Place(index * len(devices) + position, device, index * ranks.SERVER + device,
                       dict(shared, ASCEND_DEVICE_ID=str(device), DEVICE_ID=str(device)))
                 for position, device in enumerate(devices)], size)


def _tabulate(config: LaunchConfig, asked: Sequence[int]) -> List[Server]:
    """The servers of a table that is made: of each one the devices that were asked for, else all of its
    hccn.conf."""
    addresses = config.servers or (own_addresses()[0],)
    rows: List[Tuple[str, List[Tuple[int, str]]]] = []
    for address, path in zip(addresses, config.hccn_conf or (HCCN_CONF,)):
        found = rank_table.read_hccn_conf(path)
        for device in asked:
            if device not in found:
                raise UserError("--devices: %d: %s has no address_%d; it has %s"
                                % (device, path, device, ", ".join(map(str, sorted(found)))))
        rows.append((address, [(device, found[device]) for device in asked or sorted(found)]))
    return rank_table.make("--hccn_conf", rows)


def _index(config: LaunchConfig, servers: Sequence[Server]) -> int:
    if config.server_index is not None:
        if config.server_index >= len(servers):
            raise UserError("--server_index must be in [0, %d), the servers of the table; got %d"
                            % (len(servers), config.server_index))
        return config.server_index
    index = rank_table.index_of(servers, own_addresses())
    if index is None:
        raise UserError("--server_index must be given: this host is %s, the servers are %s" % (
            " or ".join(own_addresses()), ", ".join(server.address for server in servers)))
    return index


def _cores_of(plan: Plan) -> Dict[int, List[int]]:
    devices = [place.device for place in plan.places]
    host = core_binding.devices_of_host()
    return core_binding.share(devices, max(len(host), ranks.SERVER), core_binding.nodes_of_host(),
                              core_binding.affinity_of_host(), os.sched_getaffinity(0))


def _backend(command: Sequence[str]) -> List[str]:
    """The flag by which no process of several falls back to the CPU. Raises UserError when they were told
    to."""
    given = value_of(command, "backend")
    if given == "cpu":
        raise UserError("--backend cpu: several devices exchange gradients through HCCL, which the CPU has "
                        "not: launch one")
    return [] if given else ["--backend=npu"]
