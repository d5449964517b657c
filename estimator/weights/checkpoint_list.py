"""The list of a folder's checkpoints, TensorFlow's file `checkpoint`: the meaning and removal of its entries.

A list may come from another machine, from before the folder was moved, or from anyone; and TensorFlow reads
and removes what it names, in any folder. So one rule holds for all commands: **an entry refers to the
checkpoint of its name beside the list**, whatever its path says. A training run rewrites the list accordingly
before TensorFlow sees it (`take_over`), and only the checkpoints of that list are ever removed.
"""
import os
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from google.protobuf import text_format
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from estimator.weights import model_folder
from estimator.weights.model_folder import STATE_FILE
from etl.common.command_line import UserError

MOST_BYTES = 1 << 22                           # some ten thousand entries

_ENDING = r"\.(data-\d{5}-of-\d{5}|meta|index)"
_DRIVE = re.compile(r'"[A-Za-z]:\\(?!\\)')
_NO_ESCAPE = re.compile(r"\\[^0-7x]")           # escapes of digits stand for bytes that are not ASCII
_PATTERN_CHARS = "*?[\\"                       # TensorFlow treats a path with one of these as a pattern
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffd/\"'*?\[\\]+")


class Entry(NamedTuple):
    """One line of a list."""
    path: str                                  # as written
    name: str                                  # of the checkpoint beside the list that it refers to


def read(folder: str) -> List[Entry]:
    """The entries of the list in `folder`, the newest last; none without a list. Their checkpoints need not
    exist.

    Raises UserError if the list cannot be read, or an entry cannot refer to a checkpoint: it ends in no name,
    or in a pattern.
    """
    path = os.path.join(folder, STATE_FILE)
    if not os.path.lexists(path):
        return []
    newest, listed = _parse(path)
    entries: Dict[str, Entry] = {}             # by name, since several paths may mean one; the last counts
    for written in listed + [newest]:
        name = re.split(r"[/\\]|^[A-Za-z]:", written)[-1]         # also a Windows path
        if not _NAME.fullmatch(name) or name in (".", "..") or "\0" in written:
            raise UserError("%s: %s cannot be the name of a checkpoint: remove that line"
                            % (path, _shown(written)))
        entries.pop(name, None)
        entries[name] = Entry(written, name)
    return list(entries.values())


def names(folder: str) -> List[str]:
    """The names in the list in `folder`, the newest last. Raises UserError as `read` does."""
    return [entry.name for entry in read(folder)]


def state(folder: str) -> Optional[Tuple[int, int]]:
    """A value that differs once the list has been written again; None without a list."""
    try:
        found = os.stat(os.path.join(folder, STATE_FILE))
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def is_there(folder: str, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name + ".index"))


def check(folder: str) -> None:
    """Raises UserError for an entry without a checkpoint beside the list, but whose path exists elsewhere.

    A training run must not guess which of the two is meant. An older entry whose path does not exist was
    removed by hand.
    """
    for entry in read(folder):
        elsewhere = os.path.join(folder, entry.path)
        if not is_there(folder, entry.name) and not _leads_here(folder, entry) and (
                os.path.lexists(elsewhere) or os.path.lexists(elsewhere + ".index")):
            raise UserError("%s: names %s, which is not in this folder: copy it here, or remove that line"
                            % (os.path.join(folder, STATE_FILE), _shown(entry.path)))


def is_own(folder: str) -> bool:
    """Whether the list, if there is one, names only checkpoints beside it, without paths."""
    return all(entry.path == entry.name and is_there(folder, entry.name) for entry in read(folder))


def stays_here(folder: str) -> bool:
    """Whether no entry's path leads out of the folder, so that TensorFlow may read the list unchanged.
    NPUEstimator's saver writes full paths."""
    return all(_leads_here(folder, entry) for entry in read(folder))


def take_over(folder: str) -> List[str]:
    """Rewrites the list with the names of the checkpoints beside it; only for the holder of the folder lock.

    Returns:
      Notes for the user: which entries' paths were replaced, which were dropped.

    Raises UserError as `read` and `check` do, and if the newest is missing.
    """
    check(folder)
    entries = read(folder)
    notes: List[str] = []
    if is_own(folder):
        return notes
    there = [entry for entry in entries if is_there(folder, entry.name)]
    if entries[-1] not in there:
        raise UserError("%s: names %s as the newest, which is not there"
                        % (os.path.join(folder, STATE_FILE), entries[-1].name))
    for what, odd in (("led elsewhere, and now mean what is beside the list",
                       [entry for entry in there if not _leads_here(folder, entry)]),
                      ("are not there, and were taken off the list",
                       [entry for entry in entries if entry not in there])):
        if odd:
            notes.append("%s: %d of %d entries %s: %s"
                         % (os.path.join(folder, STATE_FILE), len(odd), len(entries), what, ", ".join(
                             _shown(entry.path) for entry in odd[:3]) + (", ..." if odd[3:] else "")))
    model_folder.write_state(folder, [entry.name for entry in there])
    return notes


def keep(folder: str, known: List[str], most: int) -> List[str]:
    """Appends the newest of the list in `folder` to `known`, keeps `most` of them and removes the others'
    files.

    Args:
      folder: whose list TensorFlow has just written; its saver may know only some of the checkpoints.
      known: earlier names, the newest last: a list that `take_over` wrote, or this function's result.
      most: 0: all.

    Returns:
      The names that are kept, as now in the list.
    """
    listed = names(folder)
    ordered = [name for name in known if name not in listed] + listed
    kept = [name for name in ordered if name in listed[-1:] or is_there(folder, name)][-most:]
    for name in ordered:
        if name not in kept:
            remove(folder, name)
    if kept and [entry.path for entry in read(folder)] != kept:
        model_folder.write_state(folder, kept)
    return kept


def files_of(folder: str, name: str) -> List[str]:
    """Names of a checkpoint's files in `folder`, the index last; without other files whose names begin
    alike."""
    found = [file for file in os.listdir(folder) if re.fullmatch(re.escape(name) + _ENDING, file)
             and (os.path.islink(os.path.join(folder, file)) or os.path.isfile(os.path.join(folder, file)))]
    return sorted(found, key=lambda file: (file.endswith(".index"), file))


def remove(folder: str, name: str) -> None:
    """Removes a checkpoint's files from `folder`; of a link, only the link. The index goes last, so that an
    interrupted removal can be repeated."""
    for file in files_of(folder, name):
        os.remove(os.path.join(folder, file))


def require_no_pattern(path: str, flag_name: str) -> None:
    """Raises UserError for a path that TensorFlow would treat as a pattern: it would find, and remove, what
    the pattern matches."""
    if any(char in path for char in _PATTERN_CHARS):
        raise UserError("--%s: %s: TensorFlow takes each of * ? [ \\ in a path for a pattern: "
                        "rename the folder" % (flag_name, path))


def _parse(path: str) -> Tuple[str, List[str]]:
    """The newest path and all others."""
    if not os.path.isfile(path):
        raise UserError("%s: must be a file, TensorFlow's list of the checkpoints beside it: remove it, or "
                        "name a checkpoint" % path)
    with open(path, "rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError("%s: must be a list of checkpoints of at most %d bytes: remove it, or name a "
                        "checkpoint" % (path, MOST_BYTES))
    # only the last part of a path counts: folders may be in another machine's encoding
    text = content.decode("utf-8-sig", "replace")
    state = CheckpointState()
    if _DRIVE.search(text) or not _merged(text, state) and _NO_ESCAPE.search(text):
        # backslashes of Windows, written by hand or by a script, that nobody doubled
        _merged(text.replace("\\", "\\\\"), state)
    if not state.model_checkpoint_path:
        raise UserError("%s: names no checkpoint: it is empty or damaged; remove it, or name a checkpoint"
                        % path)
    return state.model_checkpoint_path, list(state.all_model_checkpoint_paths)


def _merged(text: str, state: CheckpointState) -> bool:
    """Whether `text` could be read into `state`, which else is empty."""
    try:
        text_format.Merge(text, state)
        return True
    except (text_format.ParseError, ValueError, RecursionError):
        state.Clear()
        return False


def _leads_here(folder: str, entry: Entry) -> bool:
    """Whether the entry's path is that of the checkpoint beside the list."""
    there = os.path.dirname(os.path.join(folder, entry.path))
    return (entry.path.endswith("/" + entry.name) and os.path.realpath(there) == os.path.realpath(folder)
            or entry.path == entry.name)


def _shown(path: str) -> str:
    """A path for a message: at most one line."""
    return (repr(path if len(path) <= 200 else path[:100] + "..." + path[-100:])
            if not path.isprintable() or len(path) > 200 else (path or "''"))
