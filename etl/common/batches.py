"""A stream of items → lists of them."""
from typing import Iterable, Iterator, List, TypeVar

Item = TypeVar("Item")


def in_batches(items: Iterable[Item], size: int) -> Iterator[List[Item]]:
    """`size` items at a time, in order; the last list may be shorter, and none is empty."""
    batch: List[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
