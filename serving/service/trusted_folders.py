"""Which folders a client may name for models: a SavedModel is a program, so not those that other users of
this machine can write to, now or by way of a link, nor those with versions that others can write to."""
import contextlib
import errno
import functools
import grp
import os
import pwd
import stat
from typing import Callable, Iterable, Iterator, List, NamedTuple, Set

from etl.common.command_line import UserError
from serving.version_files import MAX_FILES, version_of

MAX_LINKS = 40                                 # in one path; the system's own limit
ACCESS_LIST = "system.posix_acl_access"        # of named users and groups; in a mode the group stands for all


class _Passed(NamedTuple):
    """A folder, a file or a link on the way to a file or folder."""
    path: str                                  # without links before its last name
    is_last: bool                              # it is what was to be opened


def require(path: str, roots: Iterable[str]) -> None:
    """Raises UserError unless `path` is in one of `roots`, or only root and the user of this process can
    change what is in it: they own it, all folders and links on the way to it, and all that its versions
    consist of, and nobody else can write to these. On the way, others may write to folders with the sticky
    bit, such as /tmp.

    A group counts as others unless its only known members are root and that user, as those of a user's own
    group; so does an access list. Raises OSError if there is no such folder.
    """
    _has_others.cache_clear()                  # groups change
    roots = list(roots)
    real_roots = [os.path.realpath(root) for root in roots]

    def check(passed: Iterable[_Passed]) -> str:
        """The real path at the end of the way."""
        last = "/"
        for last, is_last in passed:
            if not _is_in_one(last, real_roots) and _is_open_to_others(last, is_last):
                raise UserError("%s: other users can write to %s, so it can only be given at startup"
                                % (path, last))
        return last

    # a root was given together with the folders above it
    names = [*(os.path.abspath(root) for root in roots), *real_roots]
    known = [root for root in names if _is_in(path, root)]
    folder = check(_way(os.path.realpath(known[0]), os.path.relpath(path, known[0])) if known else
                   _way("/", path))
    if not _is_in_one(folder, real_roots):
        inside = [name for name in os.listdir(folder) if version_of(name) is not None]
        _check_files(path, [os.path.join(folder, name) for name in inside], check)


def _check_files(path: str, unread: List[str], check: Callable[[Iterable[_Passed]], str]) -> None:
    """Checks these files and folders, and what is in them, each once."""
    seen: Set[str] = set()
    while unread:
        inner = unread.pop()
        with contextlib.suppress(FileNotFoundError):           # it was removed, or a link leads nowhere
            real = check(_way(os.path.dirname(inner), os.path.basename(inner)))
            if real not in seen and os.path.isdir(real):
                unread.extend(os.path.join(real, name) for name in os.listdir(real))
            seen.add(real)
        if len(seen) > MAX_FILES:
            raise UserError("%s: its versions hold more than %d files, so it can only be given at startup"
                            % (path, MAX_FILES))


def _is_in_one(path: str, roots: Iterable[str]) -> bool:
    return any(_is_in(path, root) for root in roots)


def _is_in(path: str, root: str) -> bool:
    return ".." not in path.split("/") and os.path.commonpath([os.path.abspath(path), root]) == root


def _way(folder: str, rest: str) -> Iterator[_Passed]:
    """What the system passes when it opens `rest` from the real path `folder` on."""
    names, num_links = _names_in(rest), 0
    while names:
        yield _Passed(folder, False)
        name = names.pop()
        inner = os.path.dirname(folder) if name == ".." else os.path.join(folder, name)
        if not os.path.islink(inner):
            folder = inner
            continue
        yield _Passed(inner, False)
        num_links += 1
        if num_links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), inner)
        target = os.readlink(inner)
        names.extend(_names_in(target))
        if target.startswith("/"):
            folder = "/"
    yield _Passed(folder, True)


def _names_in(path: str) -> List[str]:
    """The names in a path, the last one first."""
    return [name for name in path.split("/")[::-1] if name not in ("", ".")]


def _is_open_to_others(path: str, is_last: bool) -> bool:
    """Whether somebody else may change what is at `path`, or replace what is in it."""
    found = os.lstat(path)
    if found.st_uid not in (0, os.geteuid()):
        return True
    if stat.S_ISLNK(found.st_mode):
        return False                           # nobody can write to a link; its mode says nothing
    is_open = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and (
        ACCESS_LIST in _attributes(path) or _has_others(found.st_gid, os.geteuid())))
    return bool(is_open and (is_last or not found.st_mode & stat.S_ISVTX))


def _attributes(path: str) -> List[str]:
    try:
        return os.listxattr(path)
    except OSError:                            # the file system has none
        return []


@functools.lru_cache(maxsize=64)
def _has_others(group: int, user: int) -> bool:
    """Whether a group, by its number, has members besides root and the user with that number, or none that
    this machine knows."""
    try:
        names = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return True
    accounts = pwd.getpwall()
    names.update(account.pw_name for account in accounts if account.pw_gid == group)
    own = {account.pw_name for account in accounts if account.pw_uid in (0, user)}
    return not names or not names <= own
