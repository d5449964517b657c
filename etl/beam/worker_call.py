"""What a worker does with one element, and how its errors are returned.

Only text is returned from a worker, inside the exception that its runner makes of it. So an error for the
user is marked in the worker and found again by its mark.
"""
import json
import os
import re
import socket
from typing import Any, Callable, Optional

from etl.common.command_line import UserError, one_line

_MARK = re.compile("<etl (UserError|OSError)>(.*?)</etl>", re.DOTALL)
_KINDS = {"UserError": UserError, "OSError": OSError}


def element_as_json(element: Any) -> bytes:
    """An element as it is sent: JSON executes nothing when parsed. ASCII, for file names that are not
    UTF-8."""
    return json.dumps(element).encode("ascii")


def call(function: Callable[[Any], None], shared_folder: Optional[str], element: bytes) -> None:
    """Calls the function for its effect on files. A UserError or an OSError is marked.

    Args:
      shared_folder: a folder that must exist here, for a worker on another host; None on this host.
    """
    try:
        # otherwise a worker would create one on its own disk
        if shared_folder and not os.path.isdir(shared_folder):
            raise UserError("--output_dir: %s is not there for the worker on host %s; it must be on a file "
                            "system that all hosts share, under the same path"
                            % (shared_folder, socket.gethostname()))
        function(json.loads(element.decode("ascii")))
    except (UserError, OSError) as error:
        raise _marked(error, socket.gethostname() if shared_folder else None) from None


def error_of_worker(error: Exception) -> Optional[Exception]:
    """The UserError or OSError that a worker raised, found in the runner's exception; None for any other
    error."""
    found = _MARK.search(str(error))
    return _KINDS[found.group(1)](found.group(2)) if found else None


def _marked(error: Exception, host: Optional[str]) -> RuntimeError:
    kind = "UserError" if isinstance(error, UserError) else "OSError"
    message = one_line(error).encode(
        "utf-8", "backslashreplace").decode("utf-8")    # a file name in it may not be UTF-8
    if host and kind == "OSError":
        message += " (on host %s)" % host
    return RuntimeError("<etl %s>%s</etl>" % (kind, message))
