"""How right found entities are: precision, recall and F1 of those that are right in place and label, as
seqeval counts them in its strict mode."""
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from estimator.data.entities import Entity

Entities = Sequence[Sequence[Entity]]  # of each text


class Score(NamedTuple):
    """Of entities, or the means over labels. Numbers of entities: found, right among them, and in all."""
    right: int
    found: int
    all: int

    @property
    def precision(self) -> float:
        """0 where nothing was found."""
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.all if self.all else 0.0

    @property
    def f1(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def by_label(gold: Entities, found: Entities, labels: Sequence[str]) -> Dict[str, Score]:
    """The score of each label. gold, found: of the same texts, each entity once."""
    counts: Dict[str, List[int]] = {label: [0, 0, 0] for label in labels}
    for wanted, given in zip(gold, found):
        for place, entities in enumerate((set(wanted) & set(given), given, wanted)):
            for entity in entities:
                counts[entity.label][place] += 1
    return {label: Score(*numbers) for label, numbers in counts.items()}


def micro(scores: Dict[str, Score]) -> Score:
    """Of all entities, whatever their labels."""
    return Score(*(sum(numbers) for numbers in zip(*scores.values())))


def macro(scores: Dict[str, Score]) -> Tuple[float, float, float]:
    """Means of precision, recall and F1 over the labels that occur, in the data or among what was found."""
    counted = [score for score in scores.values() if score.all or score.found]
    if not counted:
        return 0.0, 0.0, 0.0
    return (
        sum(score.precision for score in counted) / len(counted),
        sum(score.recall for score in counted) / len(counted),
        sum(score.f1 for score in counted) / len(counted),
    )


def results_of(gold: Entities, found: Entities, labels: Sequence[str]) -> Dict[str, Any]:
    """All of these by name: eval_precision, eval_recall and eval_f1 are micro, eval_f1_of_<label> of one."""
    scores = by_label(gold, found, labels)
    total = micro(scores)
    return {
        "eval_precision": total.precision,
        "eval_recall": total.recall,
        "eval_f1": total.f1,
        "eval_macro_f1": macro(scores)[2],
        "num_entities": total.all,
        **{"eval_f1_of_" + label: score.f1 for label, score in scores.items()},
    }
