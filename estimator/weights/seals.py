"""A seal says which files belong to a checkpoint that was copied, so that half a copy, or a mixture of two,
is seen.

It is written before the files it tells of; the list of checkpoints, written last, is what makes a copy count.
"""
import os
from typing import Any, Dict, Mapping, Optional, Sequence

from etl.common import files
from etl.common.command_line import UserError, fault_of_name

ENDING = ".seal.json"


def write(folder: str, name: str, parts: Mapping[str, str], results: Mapping[str, Any]) -> None:
    """Writes the seal of the checkpoint `name` in `folder`.

    Args:
      folder: where the copy lies, or will lie.
      name: of the checkpoint.
      parts: what belongs to it: by the file's name in `folder` the path of what is, or will be, copied there.
      results: its evaluation.
    """
    files.write_json(os.path.join(folder, name + ENDING), {
        "files": {part: _measure(path) for part, path in parts.items()}, "results": dict(results)})


def read_results(folder: str, name: str) -> Optional[Dict[str, Any]]:
    """The evaluation of the checkpoint `name` in `folder`; None where it bears no seal."""
    seal = _read(os.path.join(folder, name))
    return seal and seal["results"]


def require_whole(prefix: str) -> None:
    """Raises UserError when a checkpoint bears a seal and one of the files that belong to it is missing or
    another one.

    A file of values is only known by its size here: its checksums are in the checkpoint's index.
    """
    seal = _read(prefix)
    for part, wanted in (seal["files"] if seal else {}).items():
        path = os.path.join(os.path.dirname(prefix), part)
        found = _measure(path) if os.path.isfile(path) else None
        if found != wanted:
            raise UserError(
                "%s: not whole: %s is %s: copy the folder again, or remove it and take another checkpoint" % (
                    prefix, part, "missing" if found is None else "not the file that was kept with it"))


def sealed_in(folder: str) -> Sequence[str]:
    """Names of the checkpoints in `folder` that bear a seal, whether they are whole or not."""
    return [name[:-len(ENDING)] for name in sorted(os.listdir(folder)) if name.endswith(ENDING)]


def remove(folder: str, name: str) -> None:
    """Removes the seal of the checkpoint `name`, if it bears one."""
    if os.path.lexists(os.path.join(folder, name + ENDING)):
        os.remove(os.path.join(folder, name + ENDING))


def _measure(path: str) -> Dict[str, Any]:
    found: Dict[str, Any] = {"bytes": os.path.getsize(path)}
    if ".data-" not in os.path.basename(path):
        found["sha256"] = files.sha256_of_file(path)
    return found


def _read(prefix: str) -> Optional[Dict[str, Any]]:
    path = prefix + ENDING
    if not os.path.lexists(path):
        return None
    seal = files.read_json(path)
    if (not isinstance(seal, dict)
        or not all(isinstance(seal.get(name), dict) for name in ("files", "results")) or any(
                os.path.basename(part) != part or not part or fault_of_name(part) for part in seal["files"])):
        raise UserError("%s: wanted an object with files, by their names alone, and results" % path)
    return seal
