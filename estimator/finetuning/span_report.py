"""Sections of the report on a reader of passages: errors by length, and the hardest questions."""
from typing import Any, List, Sequence, Tuple

import numpy as np

from estimator.data.reading import ReadingExample
from estimator.finetuning.answer_scores import Measure
from estimator.finetuning.span_decoding import Candidate
from estimator.training.curves import Chart, pace_charts
from etl.reports.page import Section, table

HARDEST = 30
AROUND = 40                                    # characters of a passage shown on either side of an answer
LENGTHS = (5, 10, 15, 20, 30, 50, 100)         # upper ends of groups, in characters

CHARTS = (Chart("Loss; cross-entropy of an answer's first and last token, in nats", ("loss",), "loss"),
          Chart("F1", ("eval_f1", "eval_f1_where_has_answer", "eval_f1_where_no_answer"), "F1",
                "f1_of_sentence_like_the_question"),
          Chart("Exact match", ("eval_exact_match",), "share", "exact_match_of_sentence_like_the_question"),
          *pace_charts("windows"))


def sections(measure: Measure, examples: Sequence[ReadingExample], answers: Sequence[str],
             candidates: Sequence[Sequence[Candidate]]) -> List[Section]:
    """Of questions with their right answers and the given ones; candidates: the best first."""
    right = [[answer.text for answer in example.label or ()] for example in examples]
    scores = [measure(texts, answer) for texts, answer in zip(right, answers)]
    exact, f1 = np.array([score.exact for score in scores]), np.array([score.f1 for score in scores])
    by_question = by_length([len(example.question) for example in examples], exact, f1)
    by_answer = by_length([len(texts[0]) if texts else 0 for texts in right], exact, f1)
    columns = ["characters", "questions", "errors", "exact match", "F1"]
    return [
        Section("Errors by length", [
            table(columns, by_question, caption="By the length of the question."),
            table(columns, by_answer, caption="By the length of the first right answer; 0: there is none.")
        ]),
        Section("Hardest questions", [
            "Those whose answers are furthest from the right ones, the surest of them first.",
            table(["id", "question", "right", "given", "F1", "passage around the right answer"],
                  _hardest(examples, right, answers, f1, candidates))
        ])
    ]


def by_length(lengths: Sequence[int], exact: np.ndarray, f1: np.ndarray) -> List[Tuple[Any, ...]]:
    """A row for each group of LENGTHS that is not empty: its name, questions, errors, means of both
    scores."""
    rows: List[Tuple[Any, ...]] = []
    groups = np.searchsorted(LENGTHS, lengths)
    for group in sorted(set(groups)):
        chosen = groups == group
        begin = LENGTHS[group - 1] + 1 if group else 0
        name = "%d–%d" % (begin, LENGTHS[group]) if group < len(LENGTHS) else "from %d" % begin
        rows.append((name, int(chosen.sum()), int((exact[chosen] < 1).sum()), float(exact[chosen].mean()),
                     float(f1[chosen].mean())))
    return rows


def excerpt(example: ReadingExample) -> str:
    """The passage around the first right answer, which stands in brackets: `…是【鱼】。它…`."""
    answer = next((answer for answer in example.label or () if answer.start >= 0), None)
    if answer is None:
        return example.passage[:2 * AROUND] + ("…" if len(example.passage) > 2 * AROUND else "")
    begin, end = max(0, answer.start - AROUND), answer.end + AROUND
    return "%s%s【%s】%s%s" % ("…" if begin else "", example.passage[begin:answer.start], answer.text,
                             example.passage[answer.end:end], "…" if end < len(example.passage) else "")


def _hardest(examples: Sequence[ReadingExample], right: Sequence[Sequence[str]], answers: Sequence[str],
             f1: np.ndarray, candidates: Sequence[Sequence[Candidate]]) -> List[Sequence[Any]]:
    sureness = np.array([float(found[0].score) if found else 0.0 for found in candidates])
    order = np.lexsort((-sureness, f1))[:HARDEST]
    return [[
        examples[number].id, examples[number].question, " | ".join(dict.fromkeys(right[number])),
        answers[number],
        float(f1[number]),
        excerpt(examples[number])
    ] for number in order if f1[number] < 1]
