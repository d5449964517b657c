"""Which version of a model answers: the newest in its folder that can be loaded.

A new one is loaded and warmed up beside the one that serves; then new requests go to it, and the old one is closed when
its last request has been answered. A version that cannot be loaded changes nothing; it is tried again when its files
change. When the newest is removed, the one before it serves again; when all are, the last one goes on.
"""
import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import os
import re
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from etl.command_line import UserError, one_line
from serving.errors import RequestError, invalid
from serving.monitoring import Monitor
from serving.saved_model import MODEL_FILE

LOG = logging.getLogger("serving")
LOG.setLevel(logging.INFO)
State = get_model_status_pb2.ModelVersionStatus.State
STATES = State.keys()
Files = Tuple[Tuple[str, int, int], ...]


class ServedVersion:
    """A loaded model, its number and how many requests it answers now."""

    def __init__(self, number: int, model: Any) -> None:
        self.number, self.model = number, model
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the version open."""
        self._requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def close_when_idle(self) -> None:
        await self._idle.wait()
        self.model.close()
        gc.collect()                           # graphs are full of cycles: else memory grows for some versions more


class Versions:
    """The versions in `base_path`, as `load` makes a model of a version's folder; belongs to one event loop."""

    def __init__(self, base_path: str, name: str, load: Callable[[str], Any], monitor: Monitor) -> None:
        self.name = name
        self._base_path, self._load, self._monitor = base_path, load, monitor
        self._serving: Optional[ServedVersion] = None
        self._statuses: Dict[int, get_model_status_pb2.ModelVersionStatus] = {}
        self._broken: Dict[int, Files] = {}        # what the files were when loading failed
        self._thread = concurrent.futures.ThreadPoolExecutor(1)

    async def load_first(self) -> None:
        """Raises UserError when no version in the folder can be loaded."""
        while self._serving is None:
            if not await self.look():
                reasons = ["version %d: %s" % (number, status.status.error_message)
                           for number, status in sorted(self._statuses.items())]
                if os.path.exists(os.path.join(self._base_path, MODEL_FILE)):
                    reasons = ["this is one version: name the folder that it lies in"]
                raise UserError("--model_base_path: %s: %s" % (self._base_path, "; ".join(
                    reasons or ["no exported model here: run python -m serving.export first"])))

    async def look_every(self, seconds: float) -> None:
        """Goes on until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.look()
            except OSError as error:           # the folder went while it was read, say
                LOG.error("%s: %s", self._base_path, one_line(error))

    async def look(self) -> bool:
        """Loads the version that should serve, if it is another one than does; returns whether it tried to."""
        found = await asyncio.get_event_loop().run_in_executor(self._thread, versions_in, self._base_path)
        for number in [*self._broken]:
            if found.get(number, ("", None))[1] != self._broken[number]:
                del self._broken[number]
        wanted = max(set(found) - set(self._broken), default=None)
        if wanted is None or self._serving and wanted == self._serving.number:
            return False
        await self._load_version(wanted, *found[wanted])
        return True

    def find(self, spec: model_pb2.ModelSpec) -> ServedVersion:
        """The version that a request asks for. Raises RequestError when it is not there."""
        if spec.version_label:
            raise invalid("Unrecognized servable version label: %s" % spec.version_label)
        if self._serving and spec.name == self.name and (
                not spec.HasField("version") or spec.version.value == self._serving.number):
            return self._serving
        wanted = ("Specific(%s, %d)" % (spec.name, spec.version.value) if spec.HasField("version")
                  else "Latest(%s)" % spec.name)
        raise RequestError(grpc.StatusCode.NOT_FOUND, "Servable not found for request: " + wanted)

    def status(self, spec: model_pb2.ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of all versions, or of the one asked for. Raises RequestError when there is none."""
        statuses = self._statuses if spec.name == self.name else {}
        if not spec.HasField("version"):
            chosen = [statuses[number] for number in sorted(statuses, reverse=True)]
            missing = "any versions"
        else:
            chosen = [statuses[spec.version.value]] if spec.version.value in statuses else []
            missing = "version %d" % spec.version.value
        if not chosen:
            raise RequestError(grpc.StatusCode.NOT_FOUND, "Could not find %s of model %s" % (missing, spec.name))
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=chosen)

    async def _load_version(self, number: int, folder: str, files: Files) -> None:
        self._set_state(number, State.LOADING)
        try:
            model = await asyncio.get_event_loop().run_in_executor(self._thread, self._load, folder)
        except asyncio.CancelledError:         # the server is ending
            raise
        except Exception as error:             # whatever is wrong with its files: the old version must go on
            self._broken[number] = files
            self._monitor.load_failures.inc()
            self._set_state(number, State.END, one_line(error))
            LOG.error("version %d cannot be served: %s", number, one_line(error))
            return
        old, self._serving = self._serving, ServedVersion(number, model)
        self._set_state(number, State.AVAILABLE)
        LOG.info("version %d serves%s", number, ", version %d drains" % old.number if old else "")
        if old:
            self._set_state(old.number, State.UNLOADING)
            await old.close_when_idle()
            self._set_state(old.number, State.END)

    def _set_state(self, number: int, state: int, error: str = "") -> None:
        status = get_model_status_pb2.ModelVersionStatus(version=number, state=state)
        status.status.error_code = grpc.StatusCode.UNKNOWN.value[0] if error else 0
        status.status.error_message = error
        self._statuses[number] = status
        for name in STATES:
            self._monitor.versions.labels(number, name).set(name == State.Name(state))


def versions_in(base_path: str) -> Dict[int, Tuple[str, Files]]:
    """Folder and files (path, size, time of change) of each version, by number."""
    names = os.listdir(base_path) if os.path.isdir(base_path) else []
    folders = {int(name): os.path.join(base_path, name) for name in names if re.fullmatch("[0-9]{1,18}", name)}
    return {number: (folder, _files_in(folder)) for number, folder in folders.items() if os.path.isdir(folder)}


def _files_in(folder: str) -> Files:
    found: List[Tuple[str, int, int]] = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):     # removed meanwhile
                found.append((path, os.stat(path).st_size, os.stat(path).st_mtime_ns))
    return tuple(sorted(found))
