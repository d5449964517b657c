"""The models of a server, each with its versions and its own queue.

    configs ──load──► each has a version in service ──► only these are served
                              │
                              └──one has none──► nothing changes
"""
import asyncio
import contextlib
import functools
from typing import Awaitable, Callable, Dict, List, NamedTuple, Optional, Sequence, Set

from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from etl.common.command_line import UserError, one_line
from serving.service import trusted_folders
from serving.service.batching import Batcher
from serving.service.errands import Errand, Overdue
from serving.service.errors import invalid
from serving.service.model_configs import ModelConfig
from serving.service.versions import LOG, LOOK_SECONDS, Versions, no_status, not_found


class Model(NamedTuple):
    """A served model; `looking`, for other versions, runs until it is cancelled."""
    versions: Versions
    queue: Batcher
    looking: Optional["asyncio.Future[None]"]


class Models:
    """All models by name; belongs to one event loop.

    Args:
      make_versions: creates the versions of a model, without loading any.
      make_queue: creates the queue for a model's name.
      poll_seconds: between two scans for other versions; 0 for only one.
    """

    def __init__(self, make_versions: Callable[[ModelConfig], Versions], make_queue: Callable[[str], Batcher],
                 poll_seconds: float) -> None:
        self._make_versions, self._make_queue, self._poll_seconds = make_versions, make_queue, poll_seconds
        self._models: Dict[str, Model] = {}
        self._first_folders: List[str] = []
        self._loading = asyncio.Lock()
        self._following: Optional["asyncio.Future[None]"] = None
        # a task without a reference may be collected
        self._in_background: Set["asyncio.Future[None]"] = set()

    @property
    def names(self) -> List[str]:
        """In the order of their configs."""
        return list(self._models)

    @property
    def is_ready(self) -> bool:
        """Whether each of them has a version in service."""
        return all(model.versions.is_ready for model in self._models.values())

    async def load(self, configs: Sequence[ModelConfig]) -> None:
        """Serves only these models, as soon as each has loaded what its config requires.

        Raises UserError if a model has no loadable version, or a label refers to an unloaded one: then
        nothing changes.
        """
        self._first_folders = self._first_folders or [config.base_path for config in configs]
        await self._load(configs)

    async def reload(self, configs: Sequence[ModelConfig]) -> None:
        """The same, requested by a client; it continues when cancelled. Also raises UserError for a folder
        that a client may not name."""
        for config in configs:
            check = Errand(functools.partial(trusted_folders.require, config.base_path, self._first_folders))
            try:
                await check.result(LOOK_SECONDS)
            except (OSError, Overdue, UserError) as error:
                raise UserError("%s: %s" % (config.origin, one_line(error)))
        await asyncio.shield(self._start(self._load_and_log(configs)))

    def follow(self, read: Callable[[], List[ModelConfig]], served: List[ModelConfig],
               seconds: float) -> None:
        """From now on serves what `read`, called every so many seconds, gives instead of `served`.

        It may raise UserError; then, and when its models cannot be loaded, nothing changes until it is called
        again.
        """
        self._following = asyncio.ensure_future(self._follow(read, served, seconds))

    def stop_looking(self) -> None:
        """For other versions and configs."""
        if self._following:
            self._following.cancel()
        for model in self._models.values():
            if model.looking:
                model.looking.cancel()

    def find(self, spec: model_pb2.ModelSpec) -> Model:
        """The requested model. Raises RequestError if there is none."""
        found = self._models.get(_required_name(spec))
        if found is None:
            raise not_found(spec.name, spec.version.value if spec.HasField("version") else None)
        return found

    def status(self, spec: model_pb2.ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of a model's versions, or of the requested one. Raises RequestError if there is none."""
        found = self._models.get(_required_name(spec))
        if found is None:
            raise no_status(spec.name, spec.version.value if spec.HasField("version") else None)
        return found.versions.status(spec)

    def queue_of(self, name: str) -> Optional[Batcher]:
        return self._models[name].queue if name in self._models else None

    def is_any_queue_full(self) -> bool:
        return any(not model.queue.has_room(1) for model in self._models.values())

    async def _follow(self, read: Callable[[], List[ModelConfig]], served: List[ModelConfig],
                      seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            reading = Errand(read)
            try:
                wanted = await reading.result(LOOK_SECONDS)
            except (Overdue, UserError) as error:
                LOG.error("models stay as they are: %s", one_line(error))
                while reading.is_alive():      # no thread more hangs
                    await asyncio.sleep(seconds)
                continue
            if wanted != served:
                with contextlib.suppress(UserError):           # it was logged
                    await self._load_and_log(wanted)
                    served = wanted

    async def _load_and_log(self, configs: Sequence[ModelConfig]) -> None:
        try:
            await self._load(configs)
            LOG.info("models: %s", ", ".join(self.names) or "none")
        except UserError as error:
            LOG.error("models stay as they are: %s", one_line(error))
            raise

    async def _load(self, configs: Sequence[ModelConfig]) -> None:
        async with self._loading:
            chosen = [self._known(config) or self._make_versions(config) for config in configs]
            known = {model.versions for model in self._models.values()}
            results = await asyncio.gather(*[
                versions.try_config(config) if versions in known else versions.load_first()
                for versions, config in zip(chosen, configs)], return_exceptions=True)
            faults = [result for result in results if isinstance(result, BaseException)]
            for versions in known.intersection(chosen):
                versions.settle(not faults)
                self._start(versions.look_and_log())
            if faults:
                for versions in set(chosen) - known:
                    self._start(versions.retire())
                raise faults[0]
            self._replace({versions.name: versions for versions in chosen})

    def _known(self, config: ModelConfig) -> Optional[Versions]:
        """The versions of an already served model with the same folder."""
        model = self._models.get(config.name)
        return model.versions if model and model.versions.base_path == config.base_path else None

    def _replace(self, wanted: Dict[str, Versions]) -> None:
        before = self._models
        gone = [model for name, model in before.items() if wanted.get(name) is not model.versions]
        for model in gone:                     # first: a new one may have the same name
            model.queue.retire()
            if model.looking:
                model.looking.cancel()
            self._start(model.versions.retire())
        self._models = {
            name: before[name] if name in before and before[name] not in gone else self._model(versions)
            for name, versions in wanted.items()}

    def _model(self, versions: Versions) -> Model:
        looking: Optional["asyncio.Future[None]"] = None
        if self._poll_seconds:
            looking = asyncio.ensure_future(versions.look_every(self._poll_seconds))
        return Model(versions, self._make_queue(versions.name), looking)

    def _start(self, coroutine: Awaitable[None]) -> "asyncio.Future[None]":
        task = asyncio.ensure_future(coroutine)
        self._in_background.add(task)
        task.add_done_callback(self._in_background.discard)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())   # else asyncio logs it
        return task


def _required_name(spec: model_pb2.ModelSpec) -> str:
    if not spec.name:
        raise invalid("Missing ModelSpec, or it has no name")
    return str(spec.name)
