"""A row of the signature `labels`, which has a place for each of the model's labels → those that a text was
given."""
from typing import Any, Dict, Mapping

LABELS = "labels"


def labels_of(row: Mapping[str, Any]) -> Dict[str, float]:
    """The probabilities of the labels that a text was given, the likeliest first. row: the signature's
    outputs for it."""
    return dict(zip(row["label"][:row["count"]], row["score"]))
