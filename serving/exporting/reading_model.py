"""A trained model that reads, one that finds answers in passages or chooses among candidates, as a
SavedModel that takes raw text, or ids; checked as it is written, against what the trained model says of ids
from the Python tokenizer."""
from typing import Any, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data import candidates
from estimator.finetuning import span_decoding
from estimator.model import heads, modeling
from estimator.model.kinds import SPANS
from estimator.weights import checkpoint_files
from estimator.weights.model_folder import ModelFolder
from etl.common.command_line import UserError
from etl.text.pairs import PackedPair, pack_pair
from etl.text.windows import Window, pack_windows, pieces_of
from serving.exporting.parity import TRICKY_TEXTS, as_str
from serving.exporting.reading_graph import CHOOSE, IDS, READ
from serving.exporting.reference import TOLERANCE, padded

_PASSAGE = "手机没信号怎么办？先看网络，再重启手机。"
_TEXTS = tuple(map(as_str, TRICKY_TEXTS))
# question, passage, candidates; candidates that repeat the first one would count as absent
SAMPLES: Tuple[Tuple[str, str, Tuple[str, ...]], ...] = (
    ("先看什么？", _PASSAGE, ("网络", "手机")), ("再_？", _PASSAGE * 40, ("重启手机", "看", "等")),
    ("什么？" * 60, "", ("x" * 201, "Ω")), *((text, other + " " + text, (text or "空", other + "?"))
                                            for text, other in zip(_TEXTS, reversed(_TEXTS))))


SCORE_TOLERANCE = 1e-3                         # between sums of two logits
MOST_PLACES = 200  # of answers that are looked at; a model without a clue has more


class Answer(NamedTuple):
    """A part of a passage, and how good it is.

    Attributes:
      places: begin and end of what is about as good.
      is_close: whether no answer at all is about as good, or as bad.
    """
    text: str
    start: int
    end: int
    score: float
    places: FrozenSet[Tuple[int, int]] = frozenset()
    is_close: bool = False

    def agrees(self, other: "Answer", passage: str) -> bool:
        """Whether `other`, of the same logits but for rounding, may be the answer."""
        if abs(self.score - other.score) > SCORE_TOLERANCE or other.text != passage[other.start:other.end]:
            return False
        own, place = (self.start, self.end), (other.start, other.end)
        if own == place:
            return True
        if (0, 0) in (own, place):
            return self.is_close
        return place in self.places or len(self.places) >= MOST_PLACES


def signature_of(model: ModelFolder) -> str:
    return READ if model.kind == SPANS else CHOOSE


def sample_inputs(signature: str) -> Dict[str, np.ndarray]:
    """SAMPLES as inputs of a signature."""
    inputs = {"question": [question for question, _, _ in SAMPLES],
              "passage": [passage for _, passage, _ in SAMPLES]}
    found = {
        name: np.array([text.encode("utf-8") for text in texts], object)
        for name, texts in inputs.items()
    }
    if signature == CHOOSE:
        most = max(len(texts) for _, _, texts in SAMPLES)
        found["candidates"] = np.array([[text.encode("utf-8") for text in texts + ("",) * (most - len(texts))]
                                        for _, _, texts in SAMPLES], object)
    return found


def require_same(model: ModelFolder, checkpoint: str, tokenizer: Any, outputs: Dict[str, np.ndarray]) -> None:
    """Raises UserError, naming the sample, where the exported model's outputs for SAMPLES are not the trained
    model's."""
    if model.kind == SPANS:
        wanted: List[Any] = answers(model, checkpoint, tokenizer, [sample[:2] for sample in SAMPLES])
        found: List[Any] = [Answer(text.decode("utf-8"), int(start), int(end), float(score))
                            for text, start, end, score in zip(*(outputs[name] for name in (
                                "answer", "start", "end", "score")))]
        same = [other.agrees(one, sample[1]) for one, other, sample in zip(found, wanted, SAMPLES)]
    else:
        wanted = choice_probabilities(model, checkpoint, tokenizer, SAMPLES)
        found = [row[:len(sample[2])] for row, sample in zip(outputs["probabilities"], SAMPLES)]
        same = [np.allclose(one, other, rtol=0, atol=TOLERANCE) for one, other in zip(found, wanted)]
    for sample, one, other, is_same in zip(SAMPLES, found, wanted, same):
        if not is_same:
            raise UserError(
                "the exported model gives %s for the question %.80r on %.80r, the trained model %s; nothing "
                "was written" % (list(one)[:4], sample[0], sample[1], list(other)[:4]))


def require_same_logits(model: ModelFolder, checkpoint: str, inputs: Dict[str, np.ndarray],
                        outputs: Dict[str, np.ndarray]) -> None:
    """Raises UserError where what the exported model says of ids is not what the trained model says; at
    padding both are low."""
    for name, wanted in logits_of(model, checkpoint, inputs).items():
        differences = np.abs(outputs[name] - wanted)
        if differences.shape == inputs["input_mask"].shape:
            differences = differences * inputs["input_mask"]
        if not differences.max() <= SCORE_TOLERANCE:
            raise UserError("the exported model's %s for ids differ from the trained model's by up to %g; "
                            "nothing was written" % (name, differences.max()))


def sample_ids(model: ModelFolder, tokenizer: Any) -> Dict[str, np.ndarray]:
    """SAMPLES as inputs of the signature that takes ids."""
    if model.kind == SPANS:
        return _inputs([window[:2] for _, window in _windows(model, tokenizer,
                                                             [sample[:2] for sample in SAMPLES])])
    return _inputs(_rows_of_candidates(model, tokenizer, SAMPLES))


def answers(model: ModelFolder, checkpoint: str, tokenizer: Any,
            questions: Sequence[Tuple[str, str]]) -> List[Answer]:
    """What the trained model answers to (question, passage), as its evaluation does. Raises UserError for a
    checkpoint that does not fit the model."""
    settings = model.reading
    assert settings is not None
    windows = _windows(model, tokenizer, questions)
    logits = logits_of(model, checkpoint, _inputs([window[:2] for _, window in windows]))
    best: List[List[List[span_decoding.Candidate]]] = [[] for _ in questions]
    null_scores = [np.float32(np.inf)] * len(questions)
    for (number, window), start_logits, end_logits in zip(windows, logits["start_logits"],
                                                          logits["end_logits"]):
        length = len(window.input_ids)
        best[number].append(
            span_decoding.best_of_window(start_logits[:length], end_logits[:length], window.spans,
                                         settings.max_answer_length, MOST_PLACES))
        null_scores[number] = min(null_scores[number], start_logits[0] + end_logits[0])
    return [_answer(passage, span_decoding.best_of_windows(of_windows, MOST_PLACES), null_score,
                    settings.null_score_diff_threshold)
            for (_, passage), of_windows, null_score in zip(questions, best, null_scores)]


def choice_probabilities(model: ModelFolder, checkpoint: str, tokenizer: Any,
                         questions: Sequence[Tuple[str, str, Sequence[str]]]) -> List[np.ndarray]:
    """The trained model's probabilities of each question's candidates. Raises UserError as above."""
    rows = _rows_of_candidates(model, tokenizer, questions)
    scores = logits_of(model, checkpoint, _inputs(rows))["scores"].astype(np.float64)
    by_question = np.split(scores, np.cumsum([len(texts) for _, _, texts in questions])[:-1])
    weights = [np.exp(values - values.max()) for values in by_question]
    return [values / values.sum() for values in weights]


def logits_of(model: ModelFolder, checkpoint: str, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """What the trained model says of ids, by the names of `reading_graph.of_ids`. Raises UserError for a
    checkpoint that does not fit the model."""
    with tf.Graph().as_default(), tf.Session() as session:
        ids, mask, segments = (tf.constant(inputs[name]) for name in IDS)
        encoded = modeling.build_encoder(model.config, ids, mask, segments)
        if model.kind == SPANS:
            found = heads.spans(model.config, encoded, mask)
            outputs = {"start_logits": found.start_logits, "end_logits": found.end_logits}
        else:
            outputs = {"scores": heads.choices(model.config, encoded).logits[:, 0]}
        checkpoint_files.restore(session, checkpoint, model.config)
        return dict(session.run(outputs))


def _windows(model: ModelFolder, tokenizer: Any,
             questions: Sequence[Tuple[str, str]]) -> List[Tuple[int, Window]]:
    """The windows of all passages, each with its question's number."""
    settings = model.reading
    assert settings is not None
    return [(number, window) for number, (question, passage) in enumerate(questions)
            for window in pack_windows(tokenizer, question, pieces_of(tokenizer, passage),
                                       model.max_seq_length, settings.doc_stride, settings.max_query_length)]


def _rows_of_candidates(model: ModelFolder, tokenizer: Any,
                        questions: Sequence[Tuple[str, str, Sequence[str]]]) -> List[PackedPair]:
    return [pack_pair(tokenizer, passage, candidates.filled(question, text), model.max_seq_length,
                      keeps_end_of_b=True) for question, passage, texts in questions for text in texts]


def _answer(passage: str, best: Sequence[span_decoding.Candidate], null_score: np.float32,
            threshold: Optional[float]) -> Answer:
    if not best:
        return Answer("", 0, 0, float(null_score))
    first = best[0]
    places = frozenset((candidate.begin, candidate.end) for candidate in best
                       if first.score - candidate.score <= SCORE_TOLERANCE)
    is_close = threshold is not None and abs(null_score - first.score - threshold) <= SCORE_TOLERANCE
    begin, end = (first.begin, first.end) if span_decoding.has_answer(first, null_score, threshold) else (0,
                                                                                                          0)
    return Answer(passage[begin:end], begin, end, float(first.score), places, is_close)


def _inputs(rows: Sequence[Any]) -> Dict[str, np.ndarray]:
    """Rows that are ids and segments, as inputs by name: int32 [rows, longest]."""
    return dict(zip(IDS, padded(rows)))
