"""Which of several devices this process uses, from the environment; each device has its own process."""
import os
from typing import Mapping, NamedTuple

from etl.common.command_line import UserError


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


def read_world(environment: Mapping[str, str]) -> World:
    """This process's rank from the environment; without RANK_TABLE_FILE it is the only one.

    Raises UserError that names all missing variables, or the invalid one.
    """
    for name in ("ASCEND_DEVICE_ID", "DEVICE_ID"):
        if environment.get(name) and _integer(environment, name) < 0:
            raise UserError("%s must be a device's number, from 0 on, got %s" % (name, environment[name]))
    table = environment.get("RANK_TABLE_FILE")
    if not table:
        if environment.get("RANK_SIZE", "1") not in ("", "1"):
            raise UserError("RANK_SIZE is %s, but RANK_TABLE_FILE is not set: devices find each "
                            "other by that file" % environment["RANK_SIZE"])
        return ALONE
    missing = [name for name in _NEEDED if not environment.get(name)]
    if missing:
        raise UserError("RANK_TABLE_FILE is set, which means several devices, but %s %s not set"
                        % (", ".join(missing), "is" if len(missing) == 1 else "are"))
    if not os.path.isfile(table):
        raise UserError("RANK_TABLE_FILE: %s: no such file" % table)
    size, rank = _integer(environment, "RANK_SIZE"), _integer(environment, "RANK_ID")
    if size < 1:
        raise UserError("RANK_SIZE must be at least 1, got %d" % size)
    if not 0 <= rank < size:
        raise UserError("RANK_ID must be in [0, %d), since RANK_SIZE is %d; got %d" % (size, size, rank))
    return World(rank, size)


def _integer(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise UserError("%s must be an integer, got %r" % (name, environment[name]))
