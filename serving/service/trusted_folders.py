"""Which folders a client may name for models: a SavedModel is a program, so not those that other users of
this machine can write to."""
import os
import stat
from typing import Iterable

from etl.common.command_line import UserError


def require(path: str, roots: Iterable[str]) -> None:
    """Raises UserError unless `path` is in one of `roots`, or only root and the user of this process can
    change it: they own it and all folders above it; it is not writable by others, and neither are these,
    unless they have the sticky bit, such as /tmp.

    Raises OSError if there is no such folder.
    """
    folder = os.path.realpath(path)
    if any(os.path.commonpath([folder, root]) == root for root in [os.path.realpath(root) for root in roots]):
        return
    inner = folder
    while True:
        found = os.stat(inner)
        is_open = found.st_mode & stat.S_IWOTH and (inner == folder or not found.st_mode & stat.S_ISVTX)
        if is_open or found.st_uid not in (0, os.geteuid()):
            raise UserError("%s: other users can write to %s, so it can only be given at startup"
                            % (path, inner))
        if inner == os.path.dirname(inner):
            return
        inner = os.path.dirname(inner)
