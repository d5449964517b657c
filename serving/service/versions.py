"""Which versions of a model are in service: of the loadable ones in its folder, the newest that its policy
selects. By default that is one.

    LOADING ──► AVAILABLE ──newer ones are AVAILABLE──► UNLOADING ──its last request is answered──► END
       │
       └──cannot be loaded──► END, until its files change

A new version is loaded and warmed up beside those in service; then new requests go to it, and the old one
is closed when its last request has been answered. A version that cannot be loaded changes nothing. When the
newest is removed, the previous one serves again; when all are removed, the last ones stay in service.

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
from typing import Any, Callable, Dict, FrozenSet, Iterable, Iterator, List, Optional, Set, Tuple, TypeVar

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from etl.common.command_line import UserError, one_line
from serving.service.errands import Errand, Overdue
from serving.service import model_memory
from serving.service.errors import RequestError, invalid
from serving.service.model_configs import ModelConfig
from serving.service.model_memory import ModelMemory
from serving.service.monitoring import Monitor
from serving.version_files import MAX_FILES, MODEL_FILE, folders_in, require_size

Result = TypeVar("Result")
LOG = logging.getLogger("serving")
LOG.setLevel(logging.INFO)
State = get_model_status_pb2.ModelVersionStatus.State
STATES = State.keys()
LOOK_SECONDS = 10.0                     # to read the names in a folder, sizes and times
MAX_HANGING = 32                        # abandoned threads; beyond them no folder is accessed
MAX_HANGING_LOADS = 3                   # of one version, whose files may change again and again
KEPT_STATUSES = 32                      # of versions that have ended
UNSEEN = ""                             # the fingerprint of files that could not be read
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
         stat.S_IFBLK: "a device"}


class ServedVersion:
    """A loaded model, its number, the bytes it takes, and the count of its pending requests."""

    def __init__(self, number: int, model: Any, num_bytes: int) -> None:
        self.number, self.model, self.num_bytes = number, model, num_bytes
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
    """The versions of one model; belongs to one event loop.

    Args:
      load: loads the model in a version's folder.
      load_seconds: how long loading a version, its warm-up included, and closing one may take.
    """

    def __init__(self, config: ModelConfig, load: Callable[[str], Any], monitor: Monitor,
                 load_seconds: float, memory: ModelMemory) -> None:
        self.name, self.base_path = config.name, config.base_path
        self._config = config
        # while `_config` is not settled: the one before, and the versions that were in service under it
        self._former: Optional[ModelConfig] = None
        self._answering: Optional[FrozenSet[int]] = None
        self._load, self._monitor, self._load_seconds, self._memory = load, monitor, load_seconds, memory
        self._serving: Dict[int, ServedVersion] = {}
        self._has_retired = False
        self._lock: Optional[asyncio.Lock] = None
        self._statuses: Dict[int,
                             get_model_status_pb2.ModelVersionStatus] = {}    # ordered by their last change
        self._broken: Dict[int, str] = {}      # the files' fingerprint when loading failed
        self._hanging: List[Tuple[Tuple[str, int], Errand[Any]]] = []
        self._draining: Set["asyncio.Future[None]"] = set()

    async def load_first(self) -> None:
        """Loads all versions that should serve. Raises UserError if none of them can be loaded, and for a
        label of an unloaded one."""
        while await self.look():
            pass
        config = self._config
        if not config.policy.candidates(self._serving):
            raise UserError("%s: %s: %s" % (config.origin, self.base_path,
                                            "; ".join(self._failures() or [await self._what_is_missing()])))
        for number in sorted((config.policy.numbers or frozenset()).difference(self._statuses)):
            LOG.warning("model %s: there is no version %d", self.name, number)
        for label, number in sorted(config.labels.items()):
            if number not in config.policy.candidates(self._serving)[:config.policy.most]:
                raise UserError("%s: label %s: version %d does not serve" % (config.origin, label, number))

    async def try_config(self, config: ModelConfig) -> None:
        """Loads the versions for another config of the same folder, beside those in service. Raises as
        `load_first`.

        Requests are answered as before until `settle` is called, which is required.
        """
        self._former, self._config = self._config, config
        self._answering = frozenset(self._serving)
        await self.load_first()

    def settle(self, is_accepted: bool) -> None:
        """Keeps the config that was tried, or returns to the former. The next scan closes versions that it
        does not select."""
        if self._former and not is_accepted:
            self._config = self._former
        self._former = self._answering = None

    async def retire(self) -> None:
        """Closes all versions: the model is no longer served."""
        self._has_retired = True
        for number in list(self._statuses):
            self._forget(number)
        async with self._one_at_a_time():      # what is being loaded is closed, too
            for number in sorted(self._serving):
                await self._drain(self._serving.pop(number))

    async def look_every(self, seconds: float) -> None:
        """Scans for other versions until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.look_and_log()

    async def look_and_log(self) -> None:
        """Scans; errors are only logged."""
        try:
            await self.look()
        except asyncio.CancelledError:
            raise
        except Exception as error:      # e.g. the folder was removed while it was read: it may come back
            LOG.error("%s: %s", self.base_path, one_line(error))

    async def look(self) -> bool:
        """Loads a version that should serve but does not; returns whether it tried to. Closes those that
        should not serve.

        Raises UserError, or OSError, if the folder itself cannot be read.
        """
        async with self._one_at_a_time():
            return await self._look()

    def _one_at_a_time(self) -> asyncio.Lock:
        if self._lock is None:                 # Python 3.7 binds it to an event loop
            self._lock = asyncio.Lock()
        return self._lock

    async def _look(self) -> bool:
        if self._has_retired or self._num_hanging("list") or self._num_hanging() >= MAX_HANGING:
            return False
        try:
            folders = await self._run(("list", 0), LOOK_SECONDS,
                                      functools.partial(folders_in, self.base_path))
        except Overdue as error:
            raise UserError("%s: %s: looking into it %s" % (self._config.origin, self.base_path, error))
        self._broken = {number: files for number, files in self._broken.items() if number in folders}
        has_tried = await self._load_one(folders)
        if not self._former:
            await self._let_go(folders)
        return has_tried

    async def _load_one(self, folders: Dict[int, str]) -> bool:
        """Loads the newest version that should serve but does not; returns whether there was one to try."""
        num_serving, policy = 0, self._config.policy
        for number in policy.candidates(folders):
            if num_serving == policy.most:
                return False
            if number in self._serving:
                num_serving += 1
                continue
            files = await self._look_at(number, folders[number])
            has_failed_before = files == self._broken.get(number)
            hangs_too_often = self._num_hanging("load", number) >= MAX_HANGING_LOADS
            if files is None or has_failed_before or hangs_too_often:
                continue
            if await self._load_version(number, folders[number], files):
                return True
        return False

    async def _let_go(self, folders: Iterable[int]) -> None:
        """Closes the versions that should no longer serve, unless none would be left."""
        policy = self._config.policy
        kept = [number for number in policy.candidates(folders) if number in self._serving][:policy.most]
        gone = sorted(set(self._serving).difference(kept)) if kept else []
        versions = [self._serving.pop(number) for number in gone]
        for version in versions:
            self._set_state(version.number, State.UNLOADING)
            LOG.info("model %s: version %d drains", self.name, version.number)
        for version in versions:
            await self._drain(version)

    def find(self, spec: model_pb2.ModelSpec) -> ServedVersion:
        """The requested version. Raises RequestError if it is not in service."""
        wanted = self._number_in(spec)
        serving = self._serving if self._answering is None else self._answering.intersection(self._serving)
        number = max(serving, default=0) if wanted is None else wanted
        found = self._serving[number] if number in serving else None
        if found is None:
            raise not_found(spec.name, wanted)
        return found

    def status(self, spec: model_pb2.ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of all versions, or of the requested one. Raises RequestError if there is none."""
        wanted = self._number_in(spec)
        chosen = [self._statuses[number] for number in sorted(self._statuses, reverse=True)
                  if wanted in (None, number)]
        if not chosen:
            raise no_status(spec.name, wanted)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=chosen)

    @property
    def is_ready(self) -> bool:
        """Whether a version is in service."""
        return bool(self._serving)

    def _number_in(self, spec: model_pb2.ModelSpec) -> Optional[int]:
        """The version that a request names, by number or label. Raises RequestError for an unknown label."""
        if not spec.version_label:
            return int(spec.version.value) if spec.HasField("version") else None
        labels = (self._former or self._config).labels
        if spec.version_label not in labels:
            raise invalid("Unrecognized servable version label: %s" % spec.version_label)
        return labels[spec.version_label]

    def _failures(self) -> List[str]:
        return ["version %d: %s" % (number, status.status.error_message)
                for number, status in sorted(self._statuses.items()) if status.status.error_message]

    async def _what_is_missing(self) -> str:
        numbers = self._config.policy.numbers
        if numbers is not None:
            return "holds none of the versions %s" % ", ".join(map(str, sorted(numbers)))
        return ("this is one version: name the folder that it lies in" if await self._is_one_version() else
                "no exported model here: run python -m serving.export first")

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

    async def _load_version(self, number: int, folder: str, files: str) -> bool:
        """Whether it was tried: not if there is no memory for it, which may change at any time."""
        try:
            num_bytes = await self._run(("look", number), LOOK_SECONDS,
                                        functools.partial(model_memory.estimate, folder))
            self._memory.reserve(num_bytes)
        except (OSError, Overdue, UserError) as error:
            if one_line(error) != self._error_of(number):      # else it has been reported
                self._fail(number, UNSEEN, one_line(error))
            return False
        try:
            version = await self._loaded(number, folder, files, num_bytes)
        except BaseException:                  # the server is shutting down
            self._memory.release(num_bytes)
            raise
        if version is None:
            self._memory.release(num_bytes)
            return True
        self._broken.pop(number, None)
        self._serving[number] = version
        self._set_state(number, State.AVAILABLE)
        LOG.info("model %s: version %d serves, and takes about %s", self.name, number,
                 model_memory.in_megabytes(num_bytes))
        return True

    async def _loaded(self, number: int, folder: str, files: str, num_bytes: int) -> Optional[ServedVersion]:
        """The version; None, with a report, if it cannot be loaded."""
        self._set_state(number, State.LOADING)
        try:
            model = await self._run(("load", number), self._load_seconds,
                                    functools.partial(self._load, folder),
                                    functools.partial(_close_late, number))
        except asyncio.CancelledError:
            raise
        except Overdue as error:
            self._fail(number, files, "loading %s" % error)
        except Exception as error:             # whatever is wrong: the old version must stay in service
            self._fail(number, files, one_line(error))
        else:
            return ServedVersion(number, model, num_bytes)
        return None

    async def _drain(self, old: ServedVersion) -> None:
        """Closes a version after its last answer. If that takes too long, it continues in the background."""
        closing = asyncio.ensure_future(self._close(old))
        self._draining.add(closing)            # a task without a reference may be collected
        closing.add_done_callback(self._draining.discard)
        await asyncio.wait({closing}, timeout=self._load_seconds)
        if not closing.done():
            LOG.warning("model %s: version %d still has pending requests after %g s", self.name, old.number,
                        self._load_seconds)

    async def _close(self, old: ServedVersion) -> None:
        await old.idle()
        reason = ""
        try:
            await self._run(("close", old.number), self._load_seconds, old.model.close)
        except asyncio.CancelledError:
            raise
        except Exception as error:      # its memory is lost, but nothing else
            reason = "closing it: %s" % one_line(error)
            LOG.error("model %s: version %d: %s", self.name, old.number, reason)
        else:
            self._memory.release(old.num_bytes)
        gc.collect()                    # graphs are full of cycles: otherwise memory grows with each version
        if old.number not in self._serving:    # it may serve again
            self._set_state(old.number, State.END, reason)

    async def _is_one_version(self) -> bool:
        with contextlib.suppress(Overdue):
            return await self._run(("list", 0), LOOK_SECONDS, functools.partial(
                os.path.exists, os.path.join(self.base_path, MODEL_FILE)))
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
        LOG.error("model %s: version %d cannot be served: %s", self.name, number, reason)

    def _error_of(self, number: int) -> str:
        """The error of a version that cannot be served."""
        return str(self._statuses[number].status.error_message) if number in self._statuses else ""

    def _set_state(self, number: int, state: int, error: str = "") -> None:
        status = get_model_status_pb2.ModelVersionStatus(version=number, state=state)
        status.status.error_code = grpc.StatusCode.UNKNOWN.value[0] if error else 0
        status.status.error_message = error
        self._statuses.pop(number, None)
        if self._has_retired:                  # another may have the model's name now
            return
        self._statuses[number] = status
        for name in STATES:
            self._monitor.versions.labels(self.name, number, name).set(name == State.Name(state))
        ended = [other for other, status in self._statuses.items() if status.state == State.END]
        for other in ended[:-KEPT_STATUSES]:
            self._forget(other)

    def _forget(self, number: int) -> None:
        del self._statuses[number]
        for name in STATES:
            self._monitor.versions.remove(self.name, number, name)


def not_found(name: str, number: Optional[int]) -> RequestError:
    """No version in service matches a request."""
    wanted = "Latest(%s)" % name if number is None else "Specific(%s, %d)" % (name, number)
    return RequestError(grpc.StatusCode.NOT_FOUND, "Servable not found for request: " + wanted)


def no_status(name: str, number: Optional[int]) -> RequestError:
    """No version matches a status request."""
    missing = "any versions" if number is None else "version %d" % number
    return RequestError(grpc.StatusCode.NOT_FOUND, "Could not find %s of model %s" % (missing, name))


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
