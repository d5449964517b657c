"""A row of the signature `tag`, which has a place for each entity up to the most → a list of those that there
are."""
from typing import Any, Dict, List, Mapping

from serving.version_files import MAX_ENTITIES

TAG = "tag"
FIELDS = ("text", "label", "start", "end", "score")


def entities_of(row: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """The entities of a text, each with FIELDS, in their order. row: the signature's outputs for it."""
    return [
        dict(zip(FIELDS, values))
        for values in zip(*(row[name][: min(row["count"], MAX_ENTITIES)] for name in FIELDS))
    ]


def left_out(row: Mapping[str, Any]) -> int:
    """How many entities of a text are beyond the most that the signature gives."""
    return max(0, int(row["count"]) - MAX_ENTITIES)
