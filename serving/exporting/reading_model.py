"""A trained model that reads, one that finds answers in passages or chooses among candidates, as a
SavedModel that takes raw text; checked as it is written, against what the trained model says of ids from the
Python
tokenizer."""
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data import candidates
from estimator.finetuning import span_decoding
from estimator.model import heads, modeling
from estimator.weights import checkpoint_files
from estimator.weights.model_folder import SPANS, ModelFolder
from etl.common.command_line import UserError
from etl.text.pairs import pack_pair
from etl.text.windows import pack_windows, pieces_of
from serving.exporting.parity import TRICKY_TEXTS
from serving.exporting.reading_graph import CHOOSE, READ
from serving.exporting.reference import TOLERANCE

_PASSAGE = "手机没信号怎么办？先看网络，再重启手机。"
_TEXTS = tuple(text if isinstance(text, str) else text.decode("utf-8", "ignore") for text in TRICKY_TEXTS)
# question, passage, candidates; candidates that repeat the first one would count as absent
SAMPLES: Tuple[Tuple[str, str, Tuple[str, ...]], ...] = (
    ("先看什么？", _PASSAGE, ("网络", "手机")), ("再_？", _PASSAGE * 40, ("重启手机", "看", "等")),
    ("什么？" * 60, "", ("x" * 201, "Ω")), *((text, other + " " + text, (text or "空", other + "?"))
                                            for text, other in zip(_TEXTS, reversed(_TEXTS))))


class Answer(NamedTuple):
    """A part of a passage, and how good it is."""
    text: str
    start: int
    end: int
    score: float


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
        same = [abs(one.score - other.score) < TOLERANCE and one[:3] == other[:3]
                for one, other in zip(found, wanted)]
    else:
        wanted = choice_probabilities(model, checkpoint, tokenizer, SAMPLES)
        found = [row[:len(sample[2])] for row, sample in zip(outputs["probabilities"], SAMPLES)]
        same = [np.allclose(one, other, rtol=0, atol=TOLERANCE) for one, other in zip(found, wanted)]
    for sample, one, other, is_same in zip(SAMPLES, found, wanted, same):
        if not is_same:
            raise UserError(
                "the exported model gives %s for the question %.80r on %.80r, the trained model %s; nothing "
                "was written" % (one, sample[0], sample[1], other))


def answers(model: ModelFolder, checkpoint: str, tokenizer: Any,
            questions: Sequence[Tuple[str, str]]) -> List[Answer]:
    """What the trained model answers to (question, passage), as its training's evaluation does. Raises
    UserError for
    a checkpoint that does not fit the model."""
    settings = model.reading
    assert settings is not None
    windows = [(number, window) for number, (question, passage) in enumerate(questions)
               for window in pack_windows(tokenizer, question, pieces_of(
                   tokenizer, passage), model.max_seq_length, settings.doc_stride, settings.max_query_length)
               ]
    ids, mask, segments = _padded([window[:2] for _, window in windows])
    with tf.Graph().as_default(), tf.Session() as session:
        found = heads.spans(model.config, modeling.build_encoder(model.config, *map(tf.constant, (
            ids, mask, segments))), tf.constant(mask))
        checkpoint_files.restore(session, checkpoint, model.config)
        logits = session.run([found.start_logits, found.end_logits])
    best: List[List[List[span_decoding.Candidate]]] = [[] for _ in questions]
    null_scores = [np.float32(np.inf)] * len(questions)
    for (number, window), start_logits, end_logits in zip(windows, *logits):
        length = len(window.input_ids)
        best[number].append(
            span_decoding.best_of_window(start_logits[:length], end_logits[:length], window.spans,
                                         settings.max_answer_length, 1))
        null_scores[number] = min(null_scores[number], start_logits[0] + end_logits[0])
    return [_answer(passage, span_decoding.best_of_windows(of_windows, 1), null_score,
                    settings.null_score_diff_threshold)
            for (_, passage), of_windows, null_score in zip(questions, best, null_scores)]


def choice_probabilities(model: ModelFolder, checkpoint: str, tokenizer: Any,
                         questions: Sequence[Tuple[str, str, Sequence[str]]]) -> List[np.ndarray]:
    """The trained model's probabilities of each question's candidates. Raises UserError as above."""
    rows = [pack_pair(tokenizer, passage, candidates.filled(question, text), model.max_seq_length,
                      keeps_end_of_b=True) for question, passage, texts in questions for text in texts]
    ids, mask, segments = _padded(rows)
    with tf.Graph().as_default(), tf.Session() as session:
        logits = heads.choices(model.config, modeling.build_encoder(model.config, *map(tf.constant, (
            ids, mask, segments)))).logits
        checkpoint_files.restore(session, checkpoint, model.config)
        scores = session.run(logits)[:, 0].astype(np.float64)
    by_question = np.split(scores, np.cumsum([len(texts) for _, _, texts in questions])[:-1])
    weights = [np.exp(values - values.max()) for values in by_question]
    return [values / values.sum() for values in weights]


def _answer(passage: str, best: Sequence[span_decoding.Candidate], null_score: np.float32,
            threshold: Any) -> Answer:
    if not best:
        return Answer("", 0, 0, float(null_score))
    if not span_decoding.has_answer(best[0], null_score, threshold):
        return Answer("", 0, 0, float(best[0].score))
    return Answer(passage[best[0].begin:best[0].end], best[0].begin, best[0].end, float(best[0].score))


def _padded(rows: Sequence[Any]) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """input_ids, input_mask and segment_ids, int32 [rows, longest], of rows that are ids and segments."""
    longest = max(len(ids) for ids, _ in rows)
    found = np.zeros((3, len(rows), longest), np.int32)
    for number, (ids, segments) in enumerate(rows):
        found[0, number, :len(ids)], found[1, number, :len(ids)], found[2,
                                                                        number, :len(ids)] = ids, 1, segments
    return found[0], found[1], found[2]
