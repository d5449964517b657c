"""The table by which devices find each other, version 1.0 of Ascend's rank tables: made from the hosts'
hccn.conf, read, or made of the layout that ModelArts writes."""
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from estimator.npu import ranks
from etl.common import files
from etl.common.command_line import UserError

VERSION, COMPLETED = "1.0", "completed"

_ADDRESS = re.compile(r"\s*address_(\d+)\s*=\s*(\S*)\s*")


class Device(NamedTuple):
    """A device of a server: its number there, its own network address, its rank among all."""
    number: int
    address: str
    rank: int


class Server(NamedTuple):
    """A host, by the address that names it, and those of its devices that train."""
    address: str
    devices: Tuple[Device, ...]


def read_hccn_conf(path: str) -> Dict[int, str]:
    """The addresses of a host's devices by number, from lines of the driver's: `address_0=192.168.100.101`.

    Raises UserError that names file and line.
    """
    found: Dict[int, str] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            lines = stream.read().split("\n")
    except FileNotFoundError:
        raise UserError("%s: no such file: it is written when the devices' network is configured with "
                        "hccn_tool; a container must be given the host's" % path)
    for number, line in enumerate(lines, 1):
        match = _ADDRESS.fullmatch(line)
        if match is None:
            continue                           # masks, gateways, and what newer drivers add
        device, address = int(match.group(1)), match.group(2)
        place = "%s: line %d: address_%d" % (path, number, device)
        if not ranks.is_address(address):
            raise UserError("%s: wanted an IP address, got %r" % (place, address))
        if device in found:
            raise UserError("%s: stands twice" % place)
        if address in found.values():
            raise UserError("%s: %s is another device's address, too" % (place, address))
        found[device] = address
    if not found:
        raise UserError("%s: no line address_0=… in it: configure the devices' network with hccn_tool, or "
                        "copy the host's file there" % path)
    return found


def make(origin: str, servers: Sequence[Tuple[str, Sequence[Tuple[int, str]]]]) -> List[Server]:
    """Servers, each an address and (number, address) of its devices; ranks are counted through in this order.

    Raises UserError, which names the origin, when a device stands twice or two have one address.
    """
    found: List[Server] = []
    rank = 0
    for server, devices in servers:
        members = [Device(number, address, rank + place) for place, (number, address) in enumerate(devices)]
        found.append(Server(server, tuple(members)))
        rank += len(members)
    _require_distinct(origin, found)
    return found


def to_json(servers: Sequence[Server]) -> Dict[str, Any]:
    """A table as its file holds it: numbers are texts."""
    return {
        "version": VERSION, "server_count": str(len(servers)),
        "server_list": [{
            "server_id": server.address,
            "device": [{"device_id": str(device.number), "device_ip": device.address,
                        "rank_id": str(device.rank)} for device in server.devices],
            "host_nic_ip": "reserve"} for server in servers],
        "status": COMPLETED}


def read(path: str) -> List[Server]:
    """The servers of a table's file. Raises UserError that names file, field, value got and wanted."""
    return from_json(path, files.read_json(path))


def is_complete(table: Any) -> bool:
    """Whether a scheduler has filled a table; until then it may hold anything."""
    return isinstance(table, dict) and table.get("status", COMPLETED) == COMPLETED


def from_json(path: str, table: Any) -> List[Server]:
    """The servers of a table, of version 1.0 or in ModelArts' layout of groups and instances."""
    if not isinstance(table, dict):
        raise UserError("%s: wanted a JSON object, got %s" % (path, type(table).__name__))
    if not is_complete(table):
        raise UserError("%s: status is %r, wanted %r" % (path, table["status"], COMPLETED))
    if "group_list" in table:
        return _of_groups(path, table)
    if str(table.get("version", VERSION)) != VERSION:
        raise UserError("%s: version is %r, wanted %r" % (path, table["version"], VERSION))
    found = []
    for place, entry in _entries(path, "server_list", table):
        devices = [Device(_number(where, "device_id", device), _address(where, device),
                          _number(where, "rank_id", device))
                   for where, device in _entries(place, "device", entry)]
        found.append(Server(_text(place, "server_id", entry), tuple(devices)))
    count = table.get("server_count", len(found))
    if str(count) != str(len(found)):
        raise UserError("%s: server_count is %s, but server_list has %d" % (path, count, len(found)))
    found_ranks = sorted(device.rank for server in found for device in server.devices)
    if found_ranks != list(range(len(found_ranks))):
        raise UserError("%s: rank_id: wanted each of 0 to %d once, got %s"
                        % (path, len(found_ranks) - 1, ", ".join(map(str, found_ranks))))
    _require_distinct(path, found)
    return found


def size(servers: Sequence[Server]) -> int:
    """How many devices train."""
    return sum(len(server.devices) for server in servers)


def index_of(servers: Sequence[Server], addresses: Sequence[str]) -> Optional[int]:
    """Which of the servers has one of these addresses; the only one whatever its address; None: none has."""
    if len(servers) == 1:
        return 0
    return next((index for index, server in enumerate(servers) if server.address in addresses), None)


def _of_groups(path: str, table: Dict[str, Any]) -> List[Server]:
    """ModelArts' layout names no ranks: they are in the order of its instances and their devices."""
    servers = [(_text(instance, "server_id", entry),
                [(_number(where, "device_id", device), _address(where, device))
                 for where, device in _entries(instance, "devices", entry)])
               for place, group in _entries(path, "group_list", table)
               for instance, entry in _entries(place, "instance_list", group)]
    return make(path, servers)


def _require_distinct(origin: str, servers: Sequence[Server]) -> None:
    """Raises UserError when a device stands twice, or two devices have one address. (A scheduler may name a
    server once for each of its containers.)"""
    places: Dict[str, str] = {}                # by address
    for server in servers:
        for device in server.devices:
            place = "device %d of %s" % (device.number, server.address)
            if place in places.values():
                raise UserError("%s: %s stands twice" % (origin, place))
            other = places.setdefault(device.address or place, place)
            if other != place:
                raise UserError("%s: %s and %s have the same address, %s"
                                % (origin, other, place, device.address))


def _entries(place: str, name: str, holder: Dict[str, Any]) -> List[Tuple[str, Dict[str, Any]]]:
    """The objects of a list that must not be empty, each with its place."""
    entries = holder.get(name)
    if not (isinstance(entries, list) and entries and all(isinstance(entry, dict) for entry in entries)):
        raise UserError("%s: %s: wanted a list of objects, got %r" % (place, name, entries))
    return [("%s: %s[%d]" % (place, name, index), entry) for index, entry in enumerate(entries)]


def _text(place: str, name: str, holder: Dict[str, Any]) -> str:
    value = holder.get(name)
    if not (isinstance(value, str) and value):
        raise UserError("%s: %s: wanted a text, got %r" % (place, name, value))
    return value


def _number(place: str, name: str, holder: Dict[str, Any]) -> int:
    value = str(holder.get(name))
    if not re.fullmatch("[0-9]{1,6}", value):
        raise UserError("%s: %s: wanted a number from 0 on, got %r" % (place, name, holder.get(name)))
    return int(value)


def _address(place: str, device: Dict[str, Any]) -> str:
    """A single device needs none: some schedulers leave it out."""
    value = device.get("device_ip", "")
    if value and not (isinstance(value, str) and ranks.is_address(value)):
        raise UserError("%s: device_ip: wanted an IP address, got %r" % (place, value))
    return str(value)
