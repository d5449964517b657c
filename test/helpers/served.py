"""The server's parts around a model, in the caller's event loop."""
import asyncio

from serving.service.batching import Batcher
from serving.service.inference import Inference
from serving.service.limits import Limits
from serving.service.monitoring import Monitor
from serving.service.versions import Versions


LIMITS = Limits(max_batch_size=8, max_text_bytes=1000, max_ids_length=512, max_fields=1000)


def run(coroutine):
    """What a coroutine gives, in an event loop of its own."""
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def make_inference(model, base_path, monitor=None, **limits):
    """Serves `model`, whatever version's folder is in `base_path`."""
    monitor = monitor or Monitor()
    versions = Versions(base_path, "albert", lambda folder: model, monitor, 60)
    await versions.load_first()
    return Inference(versions, Batcher(8, 16, 1, monitor), Limits(**{**LIMITS._asdict(), **limits}))
