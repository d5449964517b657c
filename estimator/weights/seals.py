"""A seal lists the files that belong to a copied checkpoint, so that an incomplete copy, or a mixture of two,
is detected.

It is written before these files; a copy counts once it is in the list of checkpoints, which is written last.
"""
import os
from typing import Any, Dict, Mapping, Optional, Sequence

from etl.common import files
from etl.common.command_line import UserError, fault_of_name

ENDING = ".seal.json"


def write(folder: str, name: str, parts: Mapping[str, str], results: Mapping[str, Any]) -> None:
    """Writes the seal of the checkpoint `name` in `folder`.

    Args:
      folder: the folder of the copy.
      name: of the checkpoint.
      parts: its files: by the file's name in `folder`, the path of its original.
      results: its evaluation.
    """
    files.write_json(os.path.join(folder, name + ENDING), {
        "files": {part: _measure(path) for part, path in parts.items()}, "results": dict(results)})


def read_results(folder: str, name: str) -> Optional[Dict[str, Any]]:
    """The evaluation of the checkpoint `name` in `folder`; None if it has no seal."""
    seal = _read(os.path.join(folder, name))
    return seal and seal["results"]


def require_whole(prefix: str) -> None:
    """Raises UserError if a checkpoint has a seal and one of its files is missing or different.

    For a file of values, only the size is checked here: its checksums are in the checkpoint's index.
    """
    seal = _read(prefix)
    for part, wanted in (seal["files"] if seal else {}).items():
        path = os.path.join(os.path.dirname(prefix), part)
        found = _measure(path) if os.path.isfile(path) else None
        if found != wanted:
            raise UserError(
                "%s: incomplete: %s is %s: copy the folder again, or remove it and use another checkpoint" % (
                    prefix, part, "missing" if found is None else "not the file that was kept with it"))


def sealed_in(folder: str) -> Sequence[str]:
    """Names of the checkpoints in `folder` that have a seal, complete or not."""
    return [name[:-len(ENDING)] for name in sorted(os.listdir(folder)) if name.endswith(ENDING)]


def remove(folder: str, name: str) -> None:
    """Removes the seal of the checkpoint `name`, if it has one."""
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
