"""The files of a build's work folder: their names, and reading them as untrusted input.

A work folder can be moved, copied, edited. So none of its files refers to another by path: paths are derived
from numbers, and anything with one of our names must be a regular file in the folder itself, not a link.
Files with other names are not ours and are kept.

A fault is an OSError that names the file: the work is kept, and the user decides.
"""
import contextlib
import os
import re
from typing import Any, Dict, Iterator, List, Tuple

from etl.common.command_line import UserError
from etl.common.files import is_temporary, open_regular, read_json
from etl.records.manifest import checked

_SHARD = r"tf_examples-\d{5,}-of-\d{5,}\.tfrecord(\.json|\.extents)?"
# The names of our files in each folder, in the order of removal, so that after an interruption the rest is
# still known.
_NAMES = {name: re.compile(pattern) for name, pattern in {
    "chunks": r"\d{6,}\.json",
    "histograms": r"\d{6,}\.json",
    "dead_letters": r"\d{6,}\.jsonl",
    "candidates": r"\d{6,}\.json",
    "runs": r"\d{6,}-\d{4,}\.run",
    os.path.join("shards", "eval"): _SHARD,
    "shards": _SHARD,
    "": r"workers\.log|random_documents-(train|eval)\.json",
}.items()}
_WORK_FOLDER = re.compile("[0-9a-f]{16}")


def work_folders(parent: str) -> Iterator[str]:
    """Names of all that may be work folders of builds in `parent`."""
    for entry in os.scandir(parent):
        if _WORK_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            yield entry.name


def require_own(work_dir: str) -> None:
    """Raises OSError if something with one of our names in the work folder is a link, or neither file nor
    folder."""
    for name, pattern in _NAMES.items():
        folder = os.path.join(work_dir, name) if name else work_dir
        if not os.path.lexists(folder):
            continue
        require_own_folder(work_dir, name)
        for entry in os.scandir(folder):
            if pattern.fullmatch(entry.name) and not entry.is_file(follow_symlinks=False):
                raise OSError("%s: must be a regular file, not a link: remove it" % entry.path)


def require_own_folder(work_dir: str, name: str) -> None:
    """Raises OSError if `name`, below the work folder, exists but is not a folder, or is reached through a
    link."""
    folder = os.path.join(work_dir, name)
    if os.path.lexists(folder) and not (os.path.isdir(folder) and _is_inside(work_dir, name)):
        raise OSError("%s: must be a folder, not a link: remove it" % folder)


def remove_work(work_dir: str) -> None:
    """Removes our files from a work folder, and the folders that are then empty. Follows no link; other files
    are kept."""
    if os.path.islink(work_dir):
        return
    for name, pattern in _NAMES.items():
        folder = os.path.join(work_dir, name) if name else work_dir
        if not os.path.isdir(folder) or not _is_inside(work_dir, name):
            continue
        for entry in list(os.scandir(folder)):
            if (pattern.fullmatch(entry.name)
                or is_temporary(entry.name)) and not entry.is_dir(follow_symlinks=False):
                os.remove(entry.path)
        # someone else's file is in it; a network file system keeps one that is open
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def read_own(path: str, shape: Dict[str, Any]) -> Dict[str, Any]:
    """A JSON object in one of our files, with lists as tuples.

    Raises OSError naming file and field if it has another structure (see `manifest.checked`).
    """
    with _own(path):
        fields: Dict[str, Any] = checked(read_json(path), shape, "")
    return fields


def read_own_list(path: str, shape: List[Any]) -> Tuple[Any, ...]:
    """A JSON list in one of our files, read as `read_own` reads an object."""
    with _own(path):
        items: Tuple[Any, ...] = checked(read_json(path), shape, "")
    return items


@contextlib.contextmanager
def _own(path: str) -> Iterator[None]:
    """Refuses anything but a regular file; a fault in its content that the block finds is damage."""
    with open_regular(path):
        pass
    try:
        yield
    except ValueError as error:
        raise damaged(path, str(error)[len(path) + 2:] if isinstance(error, UserError) else str(error))


def damaged(path: str, fault: str) -> OSError:
    """The error for one of our files that has been altered."""
    return OSError("%s: %s: damaged, or not written by a build; remove it, and the same command "
                   "creates it again" % (path, fault))


def _is_inside(work_dir: str, name: str) -> bool:
    """Whether no part of the path from the work folder to a folder in it is a link."""
    return os.path.realpath(os.path.join(work_dir, name)) == os.path.normpath(
        os.path.join(os.path.realpath(work_dir), name))
