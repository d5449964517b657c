"""The server's parts around a model, in the caller's event loop."""
import asyncio

from serving.service.batching import Batcher, BatchThreads
from serving.service.inference import Inference
from serving.service.limits import Limits
from serving.service.model_configs import ModelConfig
from serving.service.model_memory import ModelMemory
from serving.service.models import Models
from serving.service.monitoring import Monitor
from serving.service.versions import Versions


LIMITS = Limits(max_batch_size=8, max_text_bytes=1000, max_ids_length=512, max_fields=1000)


def run(coroutine):
    """What a coroutine gives, in an event loop of its own."""
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def make_versions(config, load, monitor=None, seconds=60):
    """Versions of a ModelConfig, or of the model albert in a folder."""
    config = config if isinstance(config, ModelConfig) else ModelConfig("albert", str(config))
    return Versions(config, load, monitor or Monitor(), seconds, ModelMemory())


def make_models(load, monitor=None, poll_seconds=0):
    monitor, threads = monitor or Monitor(), BatchThreads(1)
    return Models(lambda config: make_versions(config, load, monitor),
                  lambda name: Batcher(8, 16, threads, monitor, name), poll_seconds)


class Shared:
    """Stands for a model that others go on using: it is not closed."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def close(self):
        pass


async def make_inference(model, base_path, monitor=None, **limits):
    """Serves `model` as albert, whatever version's folder is in `base_path`."""
    models = make_models(lambda folder: Shared(model), monitor)
    await models.load([ModelConfig("albert", base_path)])
    return Inference(models, Limits(**{**LIMITS._asdict(), **limits}))
