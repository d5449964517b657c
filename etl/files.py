"""Files that appear whole or not at all, and the names the user gives for them."""
import contextlib
import fcntl
import glob
import hashlib
import json
import os
from typing import IO, Any, Dict, Iterator, List, Sequence

from etl.command_line import UserError


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[IO[bytes]]:
    """Opens a temporary neighbour of `path` for bytes; it takes the final name only when the block ends well.

    On any error, a full disk included, the temporary file is removed and what stood at `path` before stays.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = "%s.tmp-%d" % (path, os.getpid())
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


@contextlib.contextmanager
def lock(path: str, refusal: str) -> Iterator[None]:
    """Holds the lock file `path` while the block runs; the system frees it when the process ends, however it ends.

    Raises UserError(refusal) when another process holds it.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(refusal)
        yield


def write_text(path: str, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_write(path) as stream:
        stream.write(text.encode("utf-8", "surrogateescape"))    # file names may hold any byte


def write_json(path: str, value: Any) -> None:
    """Writes readable JSON in UTF-8 atomically; the same value gives the same bytes."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n")


def read_json(path: str) -> Any:
    """Reads JSON in UTF-8. Raises UserError, naming the file, when it is missing or no JSON."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        raise UserError("%s: no such file" % path)
    except ValueError as error:
        raise UserError("%s: not JSON in UTF-8: %s" % (path, error))


def sha256_of_file(path: str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(path: str) -> Dict[str, Any]:
    """Size and SHA-256 of the first and last MiB: cheap for any size; an edit in between that keeps the size does not show."""
    size = os.path.getsize(path)
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        digest.update(stream.read(1 << 20))
        stream.seek(max(0, size - (1 << 20)))
        digest.update(stream.read(1 << 20))
    return {"path": path, "bytes": size, "sha256_of_ends": digest.hexdigest()}


def expand(patterns: Sequence[str], flag_name: str) -> List[str]:
    """Paths that the globs (several, or separated by commas) match, sorted, each once.

    Raises UserError naming the pattern that matches no file, or a scheme such as gs:// (only local and shared file
    systems are read).
    """
    paths = set()
    for pattern in (part for given in patterns for part in given.split(",") if part):
        if "://" in pattern:
            raise UserError("--%s: %s: only paths of a local or shared file system are read; mount or copy it"
                            % (flag_name, pattern))
        matches = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
        if not matches and os.path.isfile(pattern):
            matches = [pattern]                # a name that itself holds glob characters
        if not matches:
            reason = "is a folder, not a file" if os.path.isdir(pattern) else "matches no file"
            raise UserError("--%s: %s %s" % (flag_name, pattern, reason))
        paths.update(matches)
    if not paths:
        raise UserError("--%s: names no file" % flag_name)
    return sorted(set(map(os.path.normpath, paths)))
