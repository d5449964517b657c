"""Which folders a client may name for models: a SavedModel is a program, so not those that strangers on this
machine can write to."""
import os
import stat
from typing import Iterable

from etl.common.command_line import UserError


def require(path: str, roots: Iterable[str]) -> None:
    """Raises UserError unless `path` is one of `roots` or lies below one, or only root and the user of this
    process can change what lies there: they own it and all folders above it, and it is not open to everybody,
    nor are these, unless nobody can remove there what others own, as in /tmp.

    Raises OSError where there is no such folder.
    """
    folder = os.path.realpath(path)
    if any(os.path.commonpath([folder, root]) == root for root in [os.path.realpath(root) for root in roots]):
        return
    inner = folder
    while True:
        found = os.stat(inner)
        is_open = found.st_mode & stat.S_IWOTH and (inner == folder or not found.st_mode & stat.S_ISVTX)
        if is_open or found.st_uid not in (0, os.geteuid()):
            raise UserError("%s: other users can write to %s, so that only the start may name it"
                            % (path, inner))
        if inner == os.path.dirname(inner):
            return
        inner = os.path.dirname(inner)
