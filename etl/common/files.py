"""Atomic writes, and the file names that users give; error messages for invalid UTF-8."""
import codecs
import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import time
import uuid
from typing import IO, Any, Dict, Iterable, Iterator, List, Sequence, Tuple

from etl.common import json_text
from etl.common.command_line import UserError

# in the temporary names of our files; no other program uses it
TEMPORARY_MARK = ".chinese-albert-tmp-"

_TEMPORARY_NAME = re.compile(".*%s[0-9a-f]{32}" % re.escape(TEMPORARY_MARK), re.DOTALL)
_SHARD = re.compile(r"(.*-)(\d{2,5})-of-(\d{2,5})(.*)", re.DOTALL)
# UTF-32's first: UTF-16's begins the same way
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
                     (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))
_NAME_CHARS = 40  # of the final name in a temporary one; a name has at most 255 bytes


def temporary_path(path: str) -> str:
    """A new name in the same folder for what will be `path`; on a cluster two hosts may write the same file,
    with the same process id.

    `out/vocab.txt` → `out/vocab.txt.chinese-albert-tmp-0f5c…`
    """
    folder, name = os.path.split(path.rstrip(os.sep))     # no normpath: after a link, .. is elsewhere
    return os.path.join(folder, name[:_NAME_CHARS] + TEMPORARY_MARK + uuid.uuid4().hex)


def is_temporary(name: str) -> bool:
    """Whether this name of a file or folder, without its path, is one of `temporary_path`'s."""
    return bool(_TEMPORARY_NAME.fullmatch(name))


def remove_temporary(folder: str) -> None:
    """Removes what killed writers have left in a folder; only for the holder of the folder's lock.

    Only files and folders with our own names: never a link's target, never the content of folders with
    other names.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in [entry for entry in os.scandir(folder) if is_temporary(entry.name)]:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.is_file(follow_symlinks=False):
                os.remove(entry.path)


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` for bytes; it gets the final name only when the block succeeds.

    On any error, a full disk included, the temporary file is removed and an existing `path` is kept.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = temporary_path(path)
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = path              # "No space left on device" does not say where
        raise


def copy(source: str, path: str) -> None:
    """Copies a file's content to `path`, as `atomic_write` does."""
    with open(source, "rb") as original, atomic_write(path) as stream:
        shutil.copyfileobj(original, stream)  # type: ignore[misc]


@contextlib.contextmanager
def atomic_folder(path: str, flag_name: str) -> Iterator[str]:
    """Makes a temporary folder beside `path`; it gets the final name only when the block succeeds.

    Raises UserError naming the flag if `path` already exists. On any error the temporary
    folder is removed.
    """
    if os.path.lexists(path):
        raise UserError("--%s: %s already exists: give a new folder" % (flag_name, path))
    require_folder(path, flag_name)
    temporary = temporary_path(path)
    os.makedirs(temporary)
    try:
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def lock(path: str, refusal: str) -> Iterator[None]:
    """Holds the lock file `path` while the block runs; the system releases it when the process ends for any
    reason.

    Raises UserError(refusal) when another process holds it.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    while True:
        with open_regular(path, os.O_RDWR | os.O_CREAT) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(refusal)
            # otherwise its holder has removed it, and another process may hold a new one
            if _is_at(stream, path):
                yield
                return


def _is_at(stream: IO[bytes], path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def open_regular(path: str, flags: int = os.O_RDONLY, buffering: int = 1 << 16) -> IO[bytes]:
    """Opens an untrusted file for bytes.

    Raises OSError for a link and for anything but a file: a FIFO would never open, a device never end.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OSError("%s: must be a regular file, not a link"
                      % path) if error.errno in (errno.ELOOP, errno.ENXIO) else error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("%s: must be a regular file, not a link" % path)
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    return os.fdopen(descriptor, "r+b" if writes else "rb", 0 if writes else buffering)


def free_range(path: str, offset: int, length: int) -> None:
    """Frees the disk blocks of a part of a file; its size stays, and that part reads as zeros.

    Does nothing to a file with a second hard link, which may have another user, or if the system or the file
    system does not support it (Linux with ext4, xfs, btrfs, tmpfs, NFS 4.2 does).
    """
    keep_size, punch_hole = 1, 2
    fallocate = getattr(ctypes.CDLL(None), "fallocate", None)
    if fallocate:
        with open_regular(path, os.O_RDWR) as stream:
            if os.fstat(stream.fileno()).st_nlink == 1:
                fallocate(stream.fileno(), keep_size | punch_hole, ctypes.c_int64(offset),
                          ctypes.c_int64(length))


def sync_folder(path: str) -> None:
    """Returns when the names in a folder are on disk: data destroyed after that is not needed after a power
    loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):     # not every file system can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def await_files(paths: Iterable[str], seconds: float = 120.0) -> None:
    """Returns when all files are visible. Raises OSError for one that does not appear.

    A shared file system (NFS) may show another host's files only when its cache of names expires after a
    minute.
    """
    deadline = time.time() + seconds
    for path in paths:
        while not os.path.exists(path):
            if time.time() > deadline:
                raise OSError("%s: a worker has written it, but it is not visible here: it must be on a file "
                              "system that all hosts share" % path)
            with contextlib.suppress(OSError):
                os.listdir(os.path.dirname(path))    # makes the client look the folder up again
            time.sleep(0.5)


def write_text(path: str, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_write(path) as stream:
        # a byte of a file name that is not UTF-8: \udcff, as JSON has it
        stream.write(text.encode("utf-8", "backslashreplace"))


def write_json(path: str, value: Any) -> None:
    """Writes readable JSON in UTF-8 atomically; the same value gives the same bytes."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n")


def read_json(path: str) -> Any:
    """Reads JSON in UTF-8. Raises UserError, naming the file, when it is missing or not JSON."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json_text.loads(stream.read())
    except FileNotFoundError:
        raise UserError("%s: no such file" % path)
    except ValueError as error:
        raise UserError("%s: not JSON in UTF-8: %s" % (path, error))


def not_utf8(error: UnicodeDecodeError) -> str:
    """What is wrong with bytes that are not UTF-8, and which encoding they may be.

    If everything up to a character in the middle is valid, a byte is damaged, and no encoding is suggested.
    """
    data: bytes = error.object
    said = "not UTF-8: %s at byte 0x%02x" % (error.reason, data[error.start])
    guess = encoding_by_mark(data)
    if not guess and b"\0" in data:     # which is not known: a line may begin within a character
        return said + "; it has zero bytes, as UTF-16 and UTF-32 have"
    if not guess and data[:error.start].isascii() and _is_gb18030(data):
        guess = "GB18030"
    if not guess:
        return said
    return "%s; is it %s? iconv -f %s -t UTF-8 converts it" % (said, guess, guess)


def encoding_by_mark(data: bytes) -> str:
    """UTF-16 or UTF-32 where a byte order mark says so; else ""."""
    return next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "")


def _is_gb18030(data: bytes) -> bool:
    try:
        return bool(data.decode("gb18030"))
    except UnicodeDecodeError:
        return False


def sha256_of_file(path: str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(path: str) -> Dict[str, Any]:
    """Size and SHA-256 of the first and last MiB: cheap for any size; an edit in between that keeps the size
    is not detected."""
    size = os.path.getsize(path)
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        digest.update(stream.read(1 << 20))
        stream.seek(max(0, size - (1 << 20)))
        digest.update(stream.read(1 << 20))
    return {"path": path, "bytes": size, "sha256_of_ends": digest.hexdigest()}


def require_folder(path: str, flag_name: str) -> None:
    """Raises UserError naming the flag when `path` cannot be a folder: it, or what it lies in, is a file."""
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        raise UserError("--%s: %s is a file, not a folder" % (flag_name, path))


def require_file(path: str, flag_name: str) -> None:
    """Raises UserError naming the flag when `path` cannot be a file: it is a folder, or what it lies in is
    a file."""
    if os.path.isdir(path):
        raise UserError("--%s: %s is a folder, not a file" % (flag_name, path))
    require_folder(os.path.dirname(os.path.abspath(path)), flag_name)


def expand(patterns: Sequence[str], flag_name: str) -> List[str]:
    """Paths that the names or globs (several, or separated by commas) match, sorted.

    A name that exists is taken literally, commas and brackets included. A file that is named twice, for
    example through a link, counts once, under the first of its names.

    Raises UserError naming the pattern that matches no file, or a scheme such as gs:// (only local and shared
    file systems are read).
    """
    names: Dict[str, str] = {}                 # by the file itself
    for given in patterns:
        for pattern in [given] if os.path.isfile(given) else filter(None, given.split(",")):
            for path in _matches(pattern, flag_name):
                names.setdefault(os.path.realpath(path), os.path.normpath(path))
    if not names:
        raise UserError("--%s: no file given" % flag_name)
    return sorted(names.values())


def expand_sets(patterns: Sequence[str], flag_name: str) -> List[str]:
    """As `expand`; prints a note if of a set of shards not all are there: `a-00000-of-00002` alone."""
    found = expand(patterns, flag_name)
    missing = missing_shards(found)
    if missing:
        print("Note: --%s: %d of a set of shards %s not among the files: %s%s"
              % (flag_name, len(missing), "is" if len(missing) == 1 else "are", missing[0],
                 ", ..." if missing[1:] else ""))
    return found


def missing_shards(paths: Sequence[str]) -> List[str]:
    """Shards that are missing from their sets, sorted: `a-00000-of-00002` without `a-00001-of-00002`.

    Shards are numbered from 0, or from 1 if one of them has the last number.
    """
    numbers: Dict[Tuple[str, str, str], List[int]] = {}
    for shard in filter(None, map(_SHARD.fullmatch, paths)):
        before, number, total, after = shard.groups()
        numbers.setdefault((before, total, after), []).append(int(number))
    missing = []
    for (before, total, after), there in numbers.items():
        first = int(int(total) in there)
        missing += ["%s%0*d-of-%s%s" % (before, len(total), number, total, after)
                    for number in sorted(set(range(first, first + int(total))) - set(there))]
    return sorted(missing)


def _matches(pattern: str, flag_name: str) -> List[str]:
    if os.path.isfile(pattern):
        return [pattern]
    if "://" in pattern:
        raise UserError("--%s: %s: only paths of a local or shared file system are read; mount or copy it"
                        % (flag_name, pattern))
    matches = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if not matches:
        reason = "is a folder, not a file" if os.path.isdir(pattern) else "matches no file"
        raise UserError("--%s: %s %s" % (flag_name, pattern, reason))
    return matches
