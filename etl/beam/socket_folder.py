"""The folder for the Unix sockets of a build's runner and its workers on this host (see `worker_sockets`)."""
import contextlib
import os
import shutil
import socket
import tempfile
from typing import Iterator

from etl.common.command_line import UserError, one_line


@contextlib.contextmanager
def socket_folder() -> Iterator[str]:
    """A new folder, usable for sockets and inaccessible to other users, while the block runs.

    Raises UserError if neither TMPDIR nor /tmp can be used for sockets, whose paths are limited to about a
    hundred bytes.
    """
    folder, reason = "", ""
    for parent in (tempfile.gettempdir(), "/tmp"):
        try:
            folder = tempfile.mkdtemp(prefix="etl-", dir=parent)   # with mode 0700 for any umask
        except OSError as error:               # /tmp is not writable
            reason = reason or one_line(error)
            continue
        reason = _why_no_socket(os.path.join(folder, "probe"))
        if not reason:
            break
        shutil.rmtree(folder)
    if reason:
        raise UserError("TMPDIR: no Unix socket can be made in %s: %s; name another folder"
                        % (tempfile.gettempdir(), reason))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _why_no_socket(path: str) -> str:
    """Why a socket cannot be created there; empty if it can."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(path)
        os.remove(path)
        return ""
    except OSError as error:
        return one_line(error)
