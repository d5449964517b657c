"""Entities found without a model: what a model that reads must be better than."""
import collections
from typing import Dict, List, Sequence

from estimator.data.entities import Entity, TaggedText

Dictionary = Dict[str, str]  # label by what is written


def dictionary_of(examples: Sequence[TaggedText]) -> Dictionary:
    """All entities of labelled texts, each with its most frequent label, the first of several."""
    counts: Dict[str, Dict[str, int]] = collections.defaultdict(collections.Counter)
    for example in examples:
        for entity in example.label or ():
            counts[example.text[entity.start:entity.end]][entity.label] += 1
    return {mention: max(of_label, key=of_label.__getitem__) for mention, of_label in counts.items()}


def look_up(dictionary: Dictionary, text: str) -> List[Entity]:
    """Of each place the longest entry that stands there, from left to right, none overlapping another."""
    longest = max(map(len, dictionary), default=0)
    found: List[Entity] = []
    place = 0
    while place < len(text):
        size = next(
            (
                size
                for size in range(min(longest, len(text) - place), 0, -1)
                if text[place:place + size] in dictionary
            ),
            0,
        )
        if size:
            found.append(Entity(place, place + size, dictionary[text[place:place + size]]))
        place += size or 1
    return found
