"""The memory of a loaded version, and the limit for all of them.

It is estimated from the files before they are loaded: the measured growth of the process would include
requests that it answers meanwhile.
"""
import glob
import os
import sys
from typing import Optional, Tuple

from etl.common.command_line import UserError
from serving.version_files import MODEL_FILE

MEGABYTE = 1 << 20
GRAPH_FACTOR, WEIGHTS_FACTOR = 20, 2           # bytes in memory per byte in a file: make bench-model-memory


class ModelMemory:
    """The memory of loaded versions, at most `max_megabytes` (None: no limit)."""

    def __init__(self, max_megabytes: Optional[int] = None) -> None:
        self._most = sys.maxsize if max_megabytes is None else max_megabytes * MEGABYTE
        self.num_bytes = 0

    def reserve(self, num_bytes: int) -> None:
        """Raises UserError if there are not so many bytes left."""
        if self.num_bytes + num_bytes > self._most:
            raise UserError("takes about %s, and loaded versions take %s of --max_models_memory_mb %d"
                            % (in_megabytes(num_bytes), in_megabytes(self.num_bytes), self._most // MEGABYTE))
        self.num_bytes += num_bytes

    def release(self, num_bytes: int) -> None:
        self.num_bytes -= num_bytes


def estimate(folder: str) -> int:
    """Estimated bytes of the version in `folder`. Raises OSError."""
    graph, weights = file_sizes(folder)
    return GRAPH_FACTOR * graph + WEIGHTS_FACTOR * weights


def file_sizes(folder: str) -> Tuple[int, int]:
    """Bytes of the graph and of the weights of the version in `folder`. Raises OSError."""
    graph = glob.glob(glob.escape(os.path.join(folder, MODEL_FILE)) + "*")
    weights = glob.glob(os.path.join(glob.escape(folder), "variables", "*"))
    return sum(map(os.path.getsize, graph)), sum(map(os.path.getsize, weights))


def in_megabytes(num_bytes: int) -> str:
    return "%d MB" % -(-num_bytes // MEGABYTE)
