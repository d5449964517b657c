import random
import warnings

import pytest

from estimator.data.entities import Entity
from estimator.finetuning.entity_scores import Score, by_label, macro, micro, results_of

LABELS = ("x", "y", "z")
GOLD = [[Entity(0, 2, "x"), Entity(3, 4, "y")], [], [Entity(0, 1, "x")]]
FOUND = [[Entity(0, 2, "x"), Entity(3, 5, "y")], [Entity(1, 2, "x")], []]


def test_scores_by_label():
    scores = by_label(GOLD, FOUND, LABELS)
    assert scores == {"x": Score(1, 2, 2), "y": Score(0, 1, 1), "z": Score(0, 0, 0)}
    assert micro(scores) == Score(1, 3, 3) and macro(scores) == (0.25, 0.25, 0.25)


def test_results():
    assert results_of(GOLD, FOUND, LABELS) == {
        "eval_precision": pytest.approx(1 / 3),
        "eval_recall": pytest.approx(1 / 3),
        "eval_f1": pytest.approx(1 / 3),
        "eval_macro_f1": 0.25,
        "num_entities": 3,
        "eval_f1_of_x": 0.5,
        "eval_f1_of_y": 0.0,
        "eval_f1_of_z": 0.0,
    }
    assert results_of([[]], [[]], LABELS)["eval_f1"] == 0


def random_entities(rng, length):
    found, place = [], 0
    while place < length:
        place += rng.randint(0, 3)
        end = place + rng.randint(1, 3)
        if end <= length:
            found.append(Entity(place, end, rng.choice(LABELS)))
        place = end
    return found


def changed(rng, entities, length):
    """Some of them, some with another label or end, and others."""
    kept = [entity for entity in entities if rng.random() < 0.6]
    kept = [entity._replace(label=rng.choice(LABELS)) if rng.random() < 0.2 else entity for entity in kept]
    for entity in random_entities(rng, length):
        if all(entity.end <= other.start or entity.start >= other.end for other in kept):
            kept.append(entity)
    return sorted(kept)


def written(entities, length, scheme):
    labels = ["O"] * length
    for start, end, label in entities:
        labels[start:end] = ["B-" + label] + ["I-" + label] * (end - start - 1)
        if scheme == "IOBES":
            labels[end - 1] = ("E-" if end - start > 1 else "S-") + label
    return labels


def differing_from_seqeval(count, seed):
    """How many of `count` random sets seqeval scores otherwise."""
    from seqeval import scheme
    from seqeval.metrics import f1_score, precision_score, recall_score

    rng, differing = random.Random(seed), 0
    for _ in range(count):
        lengths = [rng.randint(1, 12) for _ in range(rng.randint(1, 4))]
        gold = [random_entities(rng, length) for length in lengths]
        found = [changed(rng, entities, length) for entities, length in zip(gold, lengths)]
        name = rng.choice(("IOB2", "IOBES"))
        given = [
            [written(entities, length, name) for entities, length in zip(side, lengths)]
            for side in (gold, found)
        ]
        scores = by_label(gold, found, LABELS)
        occurring = [label for label in LABELS if scores[label].all or scores[label].found]
        settings = {"mode": "strict", "scheme": getattr(scheme, name), "zero_division": 0}
        for measure, part in ((precision_score, 0), (recall_score, 1), (f1_score, 2)):
            total = micro(scores)
            wanted = (
                (total.precision, total.recall, total.f1)[part],
                macro(scores)[part] if occurring else 0.0,
            )
            theirs = [
                measure(*given, average=average, **settings) if occurring else 0.0
                for average in ("micro", "macro")
            ]
            single = measure(*given, average=None, **settings) if occurring else []
            ours = [
                (scores[label].precision, scores[label].recall, scores[label].f1)[part] for label in occurring
            ]
            if [*theirs, *single] != pytest.approx([*wanted, *ours], abs=1e-12):
                differing += 1
                break
    return differing


def test_scores_are_those_of_seqeval():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert differing_from_seqeval(100, 1) == 0


@pytest.mark.slow
def test_scores_of_10000_random_sets_are_those_of_seqeval():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert differing_from_seqeval(10000, 2) == 0
