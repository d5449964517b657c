"""Which version of a model is in service: the newest in its folder that can be loaded.

    LOADING ──► AVAILABLE ──a newer one is AVAILABLE──► UNLOADING ──its last request is answered──► END
       │
       └──cannot be loaded──► END, until its files change

A new version is loaded and warmed up beside the one in service; then new requests go to it, and the old one
is closed when its last request has been answered. A version that cannot be loaded changes nothing. When the
newest is removed, the previous one serves again; when all are removed, the last one stays in service.

Each access to the folder may hang for ever, for example on a dead mount. So all of them are errands, which
are abandoned when they are overdue.
"""
import asyncio
import contextlib
import functools
import gc
import hashlib
import logging
import os
import stat
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple, TypeVar

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from etl.common.command_line import UserError, one_line
from serving.service.errands import Errand, Overdue
from serving.service.errors import RequestError, invalid
from serving.service.monitoring import Monitor
from serving.version_files import MODEL_FILE, folders_in, require_size

Result = TypeVar("Result")
LOG = logging.getLogger("serving")
LOG.setLevel(logging.INFO)
State = get_model_status_pb2.ModelVersionStatus.State
STATES = State.keys()
LOOK_SECONDS = 10.0                     # to read the names in a folder, sizes and times
MAX_FILES = 10000                       # of a version, folders included; an exported one has eight
MAX_HANGING = 32                        # abandoned threads; beyond them no folder is accessed
MAX_HANGING_LOADS = 3                   # of one version, whose files may change again and again
KEPT_STATUSES = 32                      # of versions that have ended
UNSEEN = ""                             # the fingerprint of files that could not be read
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
         stat.S_IFBLK: "a device"}


class ServedVersion:
    """A loaded model, its number, and the count of its pending requests."""

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

    async def idle(self) -> None:
        """Returns when no request is pending."""
        await self._idle.wait()


class Versions:
    """The versions in `base_path`; belongs to one event loop.

    Args:
      load: loads the model in a version's folder.
      load_seconds: how long loading a version, its warm-up included, and closing one may take.
    """

    def __init__(self, base_path: str, name: str, load: Callable[[str], Any], monitor: Monitor,
                 load_seconds: float) -> None:
        self.name = name
        self._base_path, self._load, self._monitor, self._load_seconds = (base_path, load, monitor,
                                                                          load_seconds)
        self._serving: Optional[ServedVersion] = None
        self._statuses: Dict[int,
                             get_model_status_pb2.ModelVersionStatus] = {}    # ordered by their last change
        self._broken: Dict[int, str] = {}      # the files' fingerprint when loading failed
        self._hanging: List[Tuple[Tuple[str, int], Errand[Any]]] = []
        self._draining: Set["asyncio.Future[None]"] = set()

    async def load_first(self) -> None:
        """Raises UserError when no version in the folder can be loaded."""
        while self._serving is None:
            if not await self.look():
                reasons = ["version %d: %s" % (number, status.status.error_message)
                           for number, status in sorted(self._statuses.items())]
                if not reasons:
                    reasons = ["this is one version: name the folder that it lies in"
                               if await self._is_one_version() else
                               "no exported model here: run python -m serving.export first"]
                raise UserError("--model_base_path: %s: %s" % (self._base_path, "; ".join(reasons)))

    async def look_every(self, seconds: float) -> None:
        """Looks for other versions until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.look()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # e.g. the folder was removed while it was read: it may come back
                LOG.error("%s: %s", self._base_path, one_line(error))

    async def look(self) -> bool:
        """Loads the version that should serve, unless it does already; returns whether it tried to.

        Raises UserError, or OSError, when the folder itself cannot be read.
        """
        if self._num_hanging("list") or self._num_hanging() >= MAX_HANGING:
            return False
        try:
            folders = await self._run(("list", 0), LOOK_SECONDS,
                                      functools.partial(folders_in, self._base_path))
        except Overdue as error:
            raise UserError("--model_base_path: %s: looking into it %s" % (self._base_path, error))
        self._broken = {number: files for number, files in self._broken.items() if number in folders}
        for number in sorted(folders, reverse=True):
            if self._serving and number == self._serving.number:
                return False
            files = await self._look_at(number, folders[number])
            has_failed_before = files == self._broken.get(number)
            hangs_too_often = self._num_hanging("load", number) >= MAX_HANGING_LOADS
            if files is not None and not has_failed_before and not hangs_too_often:
                await self._load_version(number, folders[number], files)
                return True
        return False

    def find(self, spec: model_pb2.ModelSpec) -> ServedVersion:
        """The version that a request asks for. Raises RequestError when it does not serve."""
        if spec.version_label:
            raise invalid("Unrecognized servable version label: %s" % spec.version_label)
        names_version = spec.HasField("version")
        serving = self._serving if spec.name == self.name else None
        if serving and (not names_version or spec.version.value == serving.number):
            return serving
        wanted = "Specific(%s, %d)" % (spec.name,
                                       spec.version.value) if names_version else "Latest(%s)" % spec.name
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
            raise RequestError(grpc.StatusCode.NOT_FOUND,
                               "Could not find %s of model %s" % (missing, spec.name))
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=chosen)

    async def _look_at(self, number: int, folder: str) -> Optional[str]:
        """The fingerprint of a version's files; None when there are none or they cannot be read."""
        if self._num_hanging("look", number):
            return None
        try:
            return await self._run(("look", number), LOOK_SECONDS, functools.partial(fingerprint, folder))
        except Overdue as error:
            self._fail(number, UNSEEN, "looking at its files %s" % error)
        except (OSError, UserError) as error:
            message = one_line(error)
            if self._broken.get(number) != message:    # else it has been reported
                self._fail(number, message, message)
        return None

    async def _load_version(self, number: int, folder: str, files: str) -> None:
        self._set_state(number, State.LOADING)
        try:
            model = await self._run(("load", number), self._load_seconds,
                                    functools.partial(self._load, folder),
                                    functools.partial(_close_late, number))
        except asyncio.CancelledError:         # the server is shutting down
            raise
        except Overdue as error:
            self._fail(number, files, "loading %s" % error)
            return
        except Exception as error:             # whatever is wrong: the old version must stay in service
            self._fail(number, files, one_line(error))
            return
        self._broken.pop(number, None)
        old, self._serving = self._serving, ServedVersion(number, model)
        self._set_state(number, State.AVAILABLE)
        LOG.info("version %d serves%s", number, ", version %d drains" % old.number if old else "")
        if old:
            self._set_state(old.number, State.UNLOADING)
            await self._drain(old)

    async def _drain(self, old: ServedVersion) -> None:
        """Closes a version after its last answer. If that takes too long, it continues in the background."""
        closing = asyncio.ensure_future(self._close(old))
        self._draining.add(closing)            # a task without a reference may be collected
        closing.add_done_callback(self._draining.discard)
        await asyncio.wait({closing}, timeout=self._load_seconds)
        if not closing.done():
            LOG.warning("version %d still has pending requests after %g s", old.number, self._load_seconds)

    async def _close(self, old: ServedVersion) -> None:
        await old.idle()
        reason = ""
        try:
            await self._run(("close", old.number), self._load_seconds, old.model.close)
        except asyncio.CancelledError:
            raise
        except Exception as error:      # its memory is lost, but nothing else
            reason = "closing it: %s" % one_line(error)
            LOG.error("version %d: %s", old.number, reason)
        gc.collect()                    # graphs are full of cycles: otherwise memory grows with each version
        if not self._serving or self._serving.number != old.number:    # it may serve again
            self._set_state(old.number, State.END, reason)

    async def _is_one_version(self) -> bool:
        with contextlib.suppress(Overdue):
            return await self._run(("list", 0), LOOK_SECONDS, functools.partial(
                os.path.exists, os.path.join(self._base_path, MODEL_FILE)))
        return False

    async def _run(self, what: Tuple[str, int], seconds: float, call: Callable[[], Result],
                   discard: Optional[Callable[[Result], None]] = None) -> Result:
        """The result of an errand; one that is overdue is remembered as hanging."""
        errand = Errand(call, discard)
        try:
            return await errand.result(seconds)
        except Overdue:
            self._hanging.append((what, errand))
            if self._num_hanging() >= MAX_HANGING:
                LOG.error("%d threads hang: no version is loaded until one of them ends", MAX_HANGING)
            raise

    def _num_hanging(self, kind: str = "", number: int = 0) -> int:
        """How many errands of this kind hang for this version; without a kind, how many hang in total."""
        self._hanging = [(what, errand) for what, errand in self._hanging if errand.is_alive()]
        return sum(what == (kind, number) for what, _ in self._hanging) if kind else len(self._hanging)

    def _fail(self, number: int, files: str, reason: str) -> None:
        self._broken[number] = files
        self._monitor.load_failures.inc()
        self._set_state(number, State.END, reason)
        LOG.error("version %d cannot be served: %s", number, reason)

    def _set_state(self, number: int, state: int, error: str = "") -> None:
        status = get_model_status_pb2.ModelVersionStatus(version=number, state=state)
        status.status.error_code = grpc.StatusCode.UNKNOWN.value[0] if error else 0
        status.status.error_message = error
        self._statuses.pop(number, None)
        self._statuses[number] = status
        for name in STATES:
            self._monitor.versions.labels(number, name).set(name == State.Name(state))
        ended = [other for other, status in self._statuses.items() if status.state == State.END]
        for other in ended[:-KEPT_STATUSES]:
            self._forget(other)

    def _forget(self, number: int) -> None:
        del self._statuses[number]
        for name in STATES:
            self._monitor.versions.remove(number, name)


def _close_late(number: int, model: Any) -> None:
    """Frees a model whose loading was abandoned; runs in the errand's thread."""
    try:
        model.close()
        LOG.info("version %d was loaded after it had been given up, and was closed", number)
    except Exception as error:
        LOG.error("version %d was loaded after it had been given up; closing it: %s", number, one_line(error))


def fingerprint(folder: str) -> Optional[str]:
    """Changes with the path, size or time of any file of a version; None when `folder` is no folder.

    Raises UserError for a FIFO, socket or device, since opening it may hang, for files that are too large to
    be read at once, and for more than MAX_FILES.
    """
    if not os.path.isdir(folder):
        return None
    found: List[Tuple[str, int, int]] = []
    unread, num_seen = [folder], 0
    while unread:
        with contextlib.suppress(OSError), os.scandir(
                unread.pop()) as entries:        # removed meanwhile, or not readable
            for entry in entries:
                num_seen += 1
                if num_seen > MAX_FILES:       # links to folders may form a loop
                    raise UserError("%s: holds more than %d files, so it is no exported model"
                                    % (folder, MAX_FILES))
                with contextlib.suppress(OSError):
                    is_folder, size, time = _about(entry.path)
                    found.append((entry.path, size, time))
                    if is_folder:
                        unread.append(entry.path)
    return hashlib.sha256(repr(sorted(found)).encode("utf-8", "surrogateescape")).hexdigest()


def _about(path: str) -> Tuple[bool, int, int]:
    """Whether `path`, or what it links to, is a folder; a file's size and time of change, 0 for a folder."""
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        return True, 0, 0
    if not stat.S_ISREG(found.st_mode):
        raise UserError("%s: must be a file, got %s"
                        % (path, KINDS.get(stat.S_IFMT(found.st_mode), "something else")))
    require_size(path, found.st_size)
    return False, found.st_size, found.st_mtime_ns
