"""Sections of the report on entities: scores by label, confused labels, examples of each kind of error."""
from typing import Dict, List, NamedTuple, Optional, Sequence

from estimator.data.entities import Entity, TaggedText
from estimator.finetuning import entity_scores
from estimator.training.curves import Chart, pace_charts
from etl.reports.charts import bar_chart, confusion_matrix
from etl.reports.page import Section, table

EXAMPLES = 20  # of each kind of error
AROUND = 20  # characters shown on either side
NOTHING = "none"
BORDER, TYPE, BOTH, MISSED, INVENTED = KINDS = ("border", "type", "border and type", "missed", "invented")
_MEANINGS = {
    BORDER: "the right label, but another begin or end",
    TYPE: "the right place, but another label",
    BOTH: "overlaps an entity with another label and place",
    MISSED: "nothing was found there",
    INVENTED: "there is no entity",
}

CHARTS = (
    Chart("Loss; cross-entropy of a token's tag, in nats", ("loss",), "loss"),
    Chart("F1, strict: place and label", ("eval_f1", "eval_macro_f1"), "F1", "f1_of_dictionary"),
    Chart("Precision and recall", ("eval_precision", "eval_recall"), "share"),
    *pace_charts("windows"),
)


class Pair(NamedTuple):
    """An entity of the data and the one found for it; None: there is none."""
    gold: Optional[Entity]
    found: Optional[Entity]

    @property
    def error(self) -> Optional[str]:
        """Its kind, of KINDS; None where both are the same."""
        if self.gold is None or self.found is None:
            return INVENTED if self.gold is None else MISSED
        if self.gold[:2] == self.found[:2]:
            return None if self.gold == self.found else TYPE
        return BORDER if self.gold.label == self.found.label else BOTH


def pairs_of(gold: Sequence[Entity], found: Sequence[Entity]) -> List[Pair]:
    """Each entity once, with the one of the other side that shares most characters with it: pairs that share
    more are made first."""
    shared = sorted((max(one.start, other.start) - min(one.end, other.end), one, other)
                    for one in gold for other in found
                    if one.start < other.end and other.start < one.end)
    pairs: List[Pair] = []
    open_gold, open_found = list(gold), list(found)
    for _, one, other in shared:
        if one in open_gold and other in open_found:
            open_gold.remove(one)
            open_found.remove(other)
            pairs.append(Pair(one, other))
    return pairs + [Pair(one, None) for one in open_gold] + [Pair(None, other) for other in open_found]


def sections(examples: Sequence[TaggedText], found: Sequence[Sequence[Entity]],
             labels: Sequence[str]) -> List[Section]:
    """Of texts with their right entities and those that were found. A text without an id has its number."""
    scores = entity_scores.by_label([example.label or () for example in examples], found, labels)
    rows = [(label, score.precision, score.recall, score.f1, score.all, score.found)
            for label, score in scores.items()]
    pairs = [(example._replace(id=number if example.id is None else example.id), pair)
             for number, (example, of_text) in enumerate(zip(examples, found))
             for pair in pairs_of(example.label or (), of_text)]
    errors = {kind: [(example, pair) for example, pair in pairs if pair.error == kind] for kind in KINDS}
    shown = [table(["id", "right", "found", "text"],
                   [_row(example, pair) for example, pair in errors[kind][:EXAMPLES]],
                   caption="%s: %s." % (kind.capitalize(), _MEANINGS[kind]))
             for kind in KINDS if errors[kind]]
    return [
        Section("Labels", [
            bar_chart(list(labels), {"F1": [score.f1 for score in scores.values()]}, "F1"),
            table(["label", "precision", "recall", "F1", "entities", "found"], rows),
            confusion_matrix([*labels, NOTHING], confusion([pair for _, pair in pairs], labels),
                             caption="Labels of entities (rows) and of what was found there (columns).")
        ]),
        Section("Errors", [table(["kind", "errors", "what it is"],
                                 [(kind, len(errors[kind]), _MEANINGS[kind]) for kind in KINDS]), *shown])]


def confusion(pairs: Sequence[Pair], labels: Sequence[str]) -> List[List[int]]:
    """Counts by label (row) and found label (column); the last is of none."""
    numbers: Dict[Optional[str], int] = {label: number for number, label in enumerate(labels)}
    counts = [[0] * (len(labels) + 1) for _ in range(len(labels) + 1)]
    for pair in pairs:
        row, column = (len(labels) if entity is None else numbers[entity.label] for entity in pair)
        counts[row][column] += 1
    return counts


def excerpt(text: str, pair: Pair) -> str:
    """The text around an error; the entity of the data stands in 【】, what was found in ［］."""
    marks = [
        (place, order, mark)
        for entity, begin, end in ((pair.gold, "【", "】"), (pair.found, "［", "］"))
        if entity
        for place, order, mark in ((entity.start, 1, begin), (entity.end, 0, end))
    ]
    first, last = max(0, min(marks)[0] - AROUND), max(marks)[0] + AROUND
    shown, done = "…" if first else "", first
    for place, _, mark in sorted(marks):
        shown, done = shown + text[done:place] + mark, place
    return shown + text[done:last] + ("…" if last < len(text) else "")


def _row(example: TaggedText, pair: Pair) -> List[str]:
    shown = ["" if entity is None else "%s (%s)" % (example.text[entity.start:entity.end], entity.label)
             for entity in pair]
    return [str(example.id), *shown, excerpt(example.text, pair)]
