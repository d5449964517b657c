"""A trained model that labels entities, as a SavedModel that takes raw text; checked as it is written,
against what the trained model says of ids from the Python tokenizer."""
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data.entities import Entity
from estimator.finetuning import tag_decoding
from estimator.finetuning.tag_decoding import Moves, Tagged
from estimator.finetuning.tags import moves_of
from estimator.model import heads, modeling
from estimator.weights import checkpoint_files
from estimator.weights.model_folder import ModelFolder
from etl.common.command_line import UserError
from etl.text.windows import join_windows, pack_windows, pieces_of
from serving.entity_lists import TAG, entities_of
from serving.exporting.parity import TRICKY_TEXTS, as_str
from serving.exporting.reference import TOLERANCE, padded
from serving.saved_model import rows_of
from serving.version_files import MAX_ENTITIES

_TEXT = "浙商银行叶老桂：手机没信号，iPhone4在北京。"
SAMPLES = (_TEXT, _TEXT * 40, *map(as_str, TRICKY_TEXTS))

SCORE_TOLERANCE = 1e-3  # between sums of logits that a text's tokens have


class Reading(NamedTuple):
    """What the trained model says of a text.

    Attributes:
      scores: float32 [tokens, tags].
      spans: int32 [tokens, 2].
      found: its entities.
    """
    scores: np.ndarray
    spans: np.ndarray
    found: List[Tagged]

    def agrees(self, row: Mapping[str, Any], text: str, moves: Moves, labels: Sequence[str]) -> bool:
        """Whether `row`, the signature's outputs of the same scores but for rounding, may be right: its
        entities are `found` or, where another sequence of tags is about as good, spelt by that."""
        given, wanted = entities_of(row), self.found[:MAX_ENTITIES]
        entities = [Entity(entity["start"], entity["end"], entity["label"]) for entity in given]
        if any(text[entity.start:entity.end] != one["text"] for entity, one in zip(entities, given)):
            return False
        if entities == [tagged.entity for tagged in wanted]:
            return row["count"] == len(self.found) and np.allclose(
                [one["score"] for one in given], [tagged.score for tagged in wanted], rtol=0, atol=TOLERANCE)
        best = tag_decoding.best_tags(self.scores[np.newaxis], np.array([len(self.scores)]), moves)[0]
        other = tag_decoding.tags_of(entities, self.spans, labels)
        return abs(_value(self.scores, best, moves) - _value(self.scores, other, moves)) <= SCORE_TOLERANCE


class Reader:
    """The trained model behind Python's tokenizer, as its evaluation has it. Raises UserError for a
    checkpoint that does not fit the model."""

    def __init__(self, model: ModelFolder, checkpoint: str, tokenizer: Any) -> None:
        self.moves, self._model, self._tokenizer = moves_of(model, checkpoint), model, tokenizer
        self._session = tf.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            self._ids = [tf.placeholder(tf.int32, [None, None]) for _ in range(3)]
            encoder_output = modeling.build_encoder(model.config, *self._ids)
            self._logits = heads.tags(model.config, encoder_output, len(model.labels)).logits
            checkpoint_files.restore(self._session, checkpoint, model.config)

    def read(self, texts: Sequence[str]) -> List[Reading]:
        model = self._model
        assert model.tagging is not None
        size, overlap = model.max_seq_length - 2, model.tagging.doc_stride
        pieces = [pieces_of(self._tokenizer, text) for text in texts]
        windows = [pack_windows(self._tokenizer, None, of_text, model.max_seq_length, overlap, 0)
                   for of_text in pieces]
        rows = padded([window[:2] for of_text in windows for window in of_text])
        logits = iter(self._session.run(self._logits, dict(zip(self._ids, rows))))
        scores = [join_windows([next(logits)[1:len(window.input_ids) - 1] for window in of_text], size,
                               overlap) for of_text in windows]
        given = [(of_text, one.spans) for of_text, one in zip(scores, pieces)]
        return [Reading(*one, found)
                for one, found in zip(given, tag_decoding.decoded(given, self.moves, model.labels))]


def signature_of(model: ModelFolder) -> str:
    return TAG


def sample_inputs(signature: str) -> Dict[str, np.ndarray]:
    """SAMPLES as inputs of the signature."""
    return {"text": np.array([text.encode("utf-8") for text in SAMPLES], object)}


def require_same(model: ModelFolder, checkpoint: str, tokenizer: Any, outputs: Dict[str, np.ndarray]) -> None:
    """Raises UserError, naming the sample, where the exported model's outputs for SAMPLES are not the trained
    model's."""
    reader = Reader(model, checkpoint, tokenizer)
    for text, row, reading in zip(SAMPLES, rows_of(outputs), reader.read(SAMPLES)):
        if not reading.agrees(row, text, reader.moves, model.labels):
            raise UserError(
                "the exported model gives %d entities for %.80r, %s, the trained model %d, %s; nothing was "
                "written" % (row["count"], text, entities_of(row)[:4], len(reading.found), reading.found[:4]))


def _value(scores: np.ndarray, tags: np.ndarray, moves: Moves) -> float:
    """The score of a sequence of tags, in float64."""
    if not len(tags):
        return 0.0
    of_tokens = np.take_along_axis(scores, tags[:, np.newaxis].astype(np.int64), axis=1).sum(dtype=np.float64)
    of_moves = moves.transitions[tags[:-1], tags[1:]].sum(dtype=np.float64)
    return float(moves.starts[tags[0]] + of_tokens + of_moves)
