"""The flags of a launch."""
import re
from dataclasses import dataclass
from typing import Optional, Tuple

from estimator.launching import core_binding
from estimator.npu import ranks
from etl.common.command_line import flag

HCCN_CONF = "/etc/hccn.conf"
STOP_SECONDS = 120.0


@dataclass(frozen=True)
class LaunchConfig:
    """The flags of this command."""
    devices: Optional[str] = flag(
        None, "numbers of this server's devices, as 0-7 or 0,1 (default: those of the table, else of "
        "hccn_conf)")
    rank_table: Optional[str] = flag(
        None, "a rank table that is there already (default: RANK_TABLE_FILE, if it is set; else one is made)")
    hccn_conf: Tuple[str, ...] = flag(
        (), "where the addresses of the devices are read; of several servers a copy of each one's, in the "
        "order of servers (default: %s)" % HCCN_CONF)
    servers: Tuple[str, ...] = flag(
        (), "addresses of all servers, in the order of the ranks (default: this one's)")
    server_index: Optional[int] = flag(
        None, "which of the servers this is, from 0 on (default: the one with this host's address)")
    chief_port: Optional[int] = flag(
        None, "no rank table: the devices find each other through the first server at this port (CM_CHIEF_IP "
        "and so on); wants servers and devices")
    save_rank_table: Optional[str] = flag(
        None, "where the table that is made is written (default: rank_table.json in log_dir); without a "
        "command behind -- that is all that is done")
    bind_cores: bool = flag(True, "keep each process to the cores beside its device")
    log_dir: str = flag("output/launch", "device N's process writes <log_dir>/N/train_N.log")
    stop_seconds: float = flag(
        STOP_SECONDS, "that a process which is asked to end may take before it is killed")

    def __post_init__(self) -> None:
        if self.devices is not None:
            try:
                core_binding.parse(self.devices)
            except ValueError as error:
                raise ValueError("devices: %s" % error)
        index = self.server_index or 0
        if index < 0:
            raise ValueError("server_index must be at least 0, got %d" % index)
        if self.servers and index >= len(self.servers):
            raise ValueError("server_index must be in [0, %d), the number of --servers; got %d"
                             % (len(self.servers), index))
        if self.stop_seconds < 0:
            raise ValueError("stop_seconds must be at least 0, got %g" % self.stop_seconds)
        for server in self.servers:
            if not re.fullmatch(r"[\w.:-]+", server):
                raise ValueError("servers: wanted addresses, got %r" % server)
        if len(set(self.servers)) < len(self.servers):
            raise ValueError("servers: an address stands twice: %s" % " ".join(self.servers))
        if self.chief_port is not None:
            if not 0 <= self.chief_port <= ranks.MAX_PORT:
                raise ValueError("chief_port must be in [0, %d], got %d" % (ranks.MAX_PORT, self.chief_port))
            for name in ("rank_table", "hccn_conf", "save_rank_table"):
                if getattr(self, name):
                    raise ValueError("chief_port makes do without a rank table: leave %s out" % name)
            for name in ("servers", "devices"):
                if not getattr(self, name):
                    raise ValueError("chief_port wants %s" % name)
        if self.rank_table:
            for name in ("servers", "hccn_conf", "save_rank_table"):
                if getattr(self, name):
                    raise ValueError("rank_table is a table that is there: leave %s out" % name)
        elif len(self.servers) > 1 and self.chief_port is None and len(self.hccn_conf) != len(self.servers):
            raise ValueError("hccn_conf: wanted one file for each of the %d --servers, in their order, got "
                             "%d; or give chief_port, and no file is needed"
                             % (len(self.servers), len(self.hccn_conf)))
        elif len(self.servers) < 2 and len(self.hccn_conf) > 1:
            raise ValueError("hccn_conf: %d files, but %d --servers"
                             % (len(self.hccn_conf), len(self.servers)))
