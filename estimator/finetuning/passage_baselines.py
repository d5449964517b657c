"""Answers that need no model: what a reader of passages must be better than."""
import re
from typing import Callable, Dict, List, Sequence

from estimator.data.reading import ReadingExample
from estimator.finetuning.answer_scores import (Measure, longest_common_string, mixed_segmentation,
                                                scores_of as scores_of_answers)

_SENTENCE = re.compile("[^。！？!?\n]*[。！？!?\n]*")

# by the end of their numbers' names
NAMES = {
    "first_sentence": "the first sentence",
    "sentence_like_the_question": "the sentence most like the question",
    "passage": "the whole passage"
}


def sentences_of(passage: str) -> List[str]:
    """`"甲。乙？ 丙"` → 甲。, 乙？, 丙."""
    return [sentence.strip() for sentence in _SENTENCE.findall(passage) if sentence.strip()] or [""]


def first_sentence(example: ReadingExample) -> str:
    return sentences_of(example.passage)[0]


def sentence_like_the_question(example: ReadingExample) -> str:
    """The first of those that have the longest string of words in common with the question."""
    question = mixed_segmentation(example.question)
    return max(sentences_of(example.passage),
               key=lambda sentence: longest_common_string(question, mixed_segmentation(sentence)))


def whole_passage(example: ReadingExample) -> str:
    return example.passage


_BASELINES: Dict[str, Callable[[ReadingExample], str]] = dict(
    zip(NAMES, (first_sentence, sentence_like_the_question, whole_passage)))


def scores_of(measure: Measure, examples: Sequence[ReadingExample], right: Sequence[Sequence[str]]
              ) -> Dict[str, float]:
    """Means over all examples: exact_match_of_… and f1_of_… of each baseline."""
    found = {}
    for name, answer in _BASELINES.items():
        exact, f1 = scores_of_answers(measure, right, [answer(example) for example in examples])
        found["exact_match_of_" + name] = sum(exact) / len(exact)
        found["f1_of_" + name] = sum(f1) / len(f1)
    return found
