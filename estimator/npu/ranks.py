"""Which of several devices this process uses, from the environment; each device has its own process.

Devices find each other by a table, RANK_TABLE_FILE with RANK_SIZE and RANK_ID, or without one through the
first of their servers: CM_CHIEF_IP and the other variables that begin with CM_.
"""
import glob
import ipaddress
import os
from typing import List, Mapping, NamedTuple, Optional, Sequence

from etl.common.command_line import UserError

MAX_PORT = 65520                               # that HCCL takes
GROUP, SERVER = 4, 8                           # devices of an Ascend 910's ring, and of its server

_HUAWEI = "0x19e5"
_FREE_OF_GROUPS = {"0xd802", "0xd803"}         # PCI devices of the generations after the Ascend 910


class World(NamedTuple):
    """This process's rank among those that train one model together."""
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that writes checkpoints, results and reports, and evaluates."""
        return self.rank == 0


ALONE = World()

_NEEDED = ("RANK_SIZE", "RANK_ID", "ASCEND_DEVICE_ID", "JOB_ID")
_CHIEF_NEEDED = ("CM_CHIEF_IP", "CM_CHIEF_PORT", "CM_CHIEF_DEVICE", "CM_WORKER_SIZE", "ASCEND_DEVICE_ID",
                 "JOB_ID")


def has_chief(environment: Mapping[str, str]) -> bool:
    """Whether devices find each other through the first server, without a table."""
    return any(environment.get(name) for name in ("CM_CHIEF_IP", "CM_WORKER_SIZE"))


def read_world(environment: Mapping[str, str]) -> World:
    """The place that the environment gives this process; without a table and without a chief it is alone.

    Raises UserError that names all missing variables, or the invalid one.
    """
    for name in ("ASCEND_DEVICE_ID", "DEVICE_ID"):
        if environment.get(name) and _integer(environment, name) < 0:
            raise UserError("%s must be a device's number, from 0 on, got %s" % (name, environment[name]))
    if has_chief(environment):
        return _world_of_chief(environment)
    table = environment.get("RANK_TABLE_FILE")
    if not table:
        if environment.get("RANK_SIZE", "1") not in ("", "1"):
            raise UserError("RANK_SIZE is %s, but neither RANK_TABLE_FILE nor CM_CHIEF_IP is set: devices "
                            "find each other by one of them" % environment["RANK_SIZE"])
        return ALONE
    _require(environment, _NEEDED, "RANK_TABLE_FILE is set, which means several devices")
    if not os.path.isfile(table):
        raise UserError("RANK_TABLE_FILE: %s: no such file" % table)
    size, rank = _integer(environment, "RANK_SIZE"), _integer(environment, "RANK_ID")
    if size < 1:
        raise UserError("RANK_SIZE must be at least 1, got %d" % size)
    require_size("RANK_SIZE", size)
    if not 0 <= rank < size:
        raise UserError("RANK_ID must be in [0, %d), since RANK_SIZE is %d; got %d" % (size, size, rank))
    return World(rank, size)


def require_size(name: str, size: int, bound: Optional[bool] = None) -> None:
    """Raises UserError for a number of devices that no cluster of Ascend 910 has: their servers are used by
    1, 2, 4 or 8 devices, and several servers whole.

    Args:
      name: what gave the number.
      bound: whether that holds here; None: as `is_bound_to_groups` finds it.
    """
    if size in (1, 2, GROUP) or size % SERVER == 0:
        return
    if is_bound_to_groups() if bound is None else bound:
        raise UserError("%s must be 1, 2, 4, 8 or a multiple of 8, as the groups of an Ascend 910 demand; "
                        "got %d" % (name, size))


def require_group(name: str, devices: Sequence[int], bound: Optional[bool] = None) -> None:
    """Raises UserError for devices of a server that cannot train together: 2 or 4 must be of one group, 0 to
    3 or 4 to 7. `bound`: as for `require_size`."""
    if len(devices) not in (2, GROUP) or len({device // GROUP for device in devices}) == 1:
        return
    if is_bound_to_groups() if bound is None else bound:
        raise UserError("%s: %d devices of an Ascend 910's server must all be of 0-3, or all of 4-7; got %s"
                        % (name, len(devices), ", ".join(map(str, devices))))


def is_bound_to_groups(folder: str = "/sys/bus/pci/devices") -> bool:
    """Whether this host's devices form groups of four: False where the PCI bus shows later ones alone, which
    train together in any number; True without a sight of any."""
    kinds = {_read(os.path.join(device, "device")) for device in glob.glob(os.path.join(folder, "*"))
             if _read(os.path.join(device, "vendor")) == _HUAWEI}
    return not kinds & _FREE_OF_GROUPS or "0xd801" in kinds


def _world_of_chief(environment: Mapping[str, str]) -> World:
    """The place among devices that find each other through the first server's first device.

    The variables name no rank. A server's devices are counted from CM_CHIEF_DEVICE on; servers by CM_RANK,
    and where it is missing the chief's is the first of at most two. RANK_ID, if given, wins.
    """
    for name in ("RANK_TABLE_FILE", "RANK_SIZE"):
        if environment.get(name):
            raise UserError("%s is set, and so is CM_CHIEF_IP or CM_WORKER_SIZE: the platform takes one of "
                            "both ways; unset %s" % (name, name))
    _require(environment, _CHIEF_NEEDED, "CM_CHIEF_IP or CM_WORKER_SIZE is set, which means several devices")
    for name in ("CM_CHIEF_IP", "CM_WORKER_IP"):
        if environment.get(name) and not is_address(environment[name]):
            raise UserError("%s must be an IP address, got %r" % (name, environment[name]))
    size, port = _integer(environment, "CM_WORKER_SIZE"), _integer(environment, "CM_CHIEF_PORT")
    chief, device = _integer(environment, "CM_CHIEF_DEVICE"), _integer(environment, "ASCEND_DEVICE_ID")
    if not 0 <= port <= MAX_PORT:
        raise UserError("CM_CHIEF_PORT must be in [0, %d], got %d" % (MAX_PORT, port))
    if chief < 0:
        raise UserError("CM_CHIEF_DEVICE must be a device's number, from 0 on, got %d" % chief)
    if size < 1:
        raise UserError("CM_WORKER_SIZE must be at least 1, got %d" % size)
    require_size("CM_WORKER_SIZE", size)
    if environment.get("RANK_ID"):
        rank = _integer(environment, "RANK_ID")
        if not 0 <= rank < size:
            raise UserError("RANK_ID must be in [0, %d), since CM_WORKER_SIZE is %d; got %d"
                            % (size, size, rank))
        return World(rank, size)
    of_server = (_integer(environment, "CM_LOCAL_WORKER") if environment.get("CM_LOCAL_WORKER")
                 else min(size, SERVER))
    if of_server < 1 or size % of_server:
        raise UserError("CM_LOCAL_WORKER must divide CM_WORKER_SIZE, which is %d; got %d" % (size, of_server))
    if abs(device - chief) >= of_server:       # its rank would be another device's, too
        raise UserError("ASCEND_DEVICE_ID is %d and CM_CHIEF_DEVICE %d, but the %d device(s) of a server "
                        "must follow on one another; where it has more, set CM_LOCAL_WORKER"
                        % (device, chief, of_server))
    server = _server(environment, size // of_server)
    return World(server * of_server + (device - chief) % of_server, size)


def _server(environment: Mapping[str, str], servers: int) -> int:
    """This server among all, from 0 on."""
    if environment.get("CM_RANK"):
        server = _integer(environment, "CM_RANK")
        if not 0 <= server < servers:
            raise UserError("CM_RANK must be in [0, %d), the servers of CM_WORKER_SIZE devices; got %d"
                            % (servers, server))
        return server
    own = environment.get("CM_WORKER_IP")
    if own == environment["CM_CHIEF_IP"] or servers == 1 and not own:
        return 0
    if not own:
        raise UserError("CM_WORKER_IP must be set, this server's address, or CM_RANK, its number from 0 on: "
                        "CM_WORKER_SIZE, %s, means several servers" % environment["CM_WORKER_SIZE"])
    if servers == 1:
        raise UserError("CM_WORKER_IP is %s, but all %s devices of CM_WORKER_SIZE are on the server "
                        "CM_CHIEF_IP, %s"
                        % (own, environment["CM_WORKER_SIZE"], environment["CM_CHIEF_IP"]))
    if servers == 2:
        return 1
    raise UserError("CM_RANK must be set: this server's number among %d, from 0 on; the other variables do "
                    "not tell it" % servers)


def _require(environment: Mapping[str, str], names: Sequence[str], reason: str) -> None:
    missing: List[str] = [name for name in names if not environment.get(name)]
    if missing:
        raise UserError("%s, but %s %s not set" % (reason, ", ".join(missing),
                                                   "is" if len(missing) == 1 else "are"))


def _integer(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise UserError("%s must be an integer, got %r" % (name, environment[name]))


def is_address(text: str) -> bool:
    """Whether a text is an IP address, of either version."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""
