"""The expected outputs of an exported model: those of the trained classifier, regression or labels, for
ids from the Python tokenizer."""
from typing import Any, Dict, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.data.tasks import Example
from estimator.model import heads, modeling
from estimator.weights import checkpoint_files
from estimator.weights.model_folder import ModelFolder
from etl.common.command_line import UserError
from etl.text.pairs import pack_pair
from serving.exporting.signatures import IDS

TOLERANCE = 1e-4                               # between outputs that were summed in another order
SAMPLES = tuple(Example(text_a, text_b, None) for text_a, text_b in (
    ("手机没信号怎么办", "手机搜不到网络？"), ("普通话ABC，Ω", ""), ("", "x" * 201),
    ("字" * 600, "句" * 600)))


def inputs(samples: Sequence[Example], tokenizer: Any, length: int) -> Dict[str, np.ndarray]:
    """input_ids, input_mask, segment_ids, int32 [samples, length], padded with 0."""
    found = {name: np.zeros((len(samples), length), np.int32) for name in IDS}
    for row, sample in enumerate(samples):
        packed = pack_pair(tokenizer, sample.text_a, sample.text_b, length)
        tokens = len(packed.input_ids)
        for name, values in zip(IDS, (packed.input_ids, 1, packed.segment_ids)):
            found[name][row, :tokens] = values
    return found


def outputs(model: ModelFolder, checkpoint: str, ids: Dict[str, np.ndarray]) -> np.ndarray:
    """Probabilities, float32 [batch, num_labels], or a regression's values, float32 [batch]. Raises UserError
    for a checkpoint that does not fit the model."""
    with tf.Graph().as_default(), tf.Session() as session:
        encoded = modeling.build_encoder(model.config, **{name: tf.constant(array)
                                                          for name, array in ids.items()})
        found = heads.fine_tuned(model.kind, len(model.labels))(model.config, encoded)
        found = found.probabilities if model.labels else found.predictions
        checkpoint_files.restore(session, checkpoint, model.config)
        return session.run(found)


def require_same(found: np.ndarray, wanted: np.ndarray, samples: Sequence[Example]) -> None:
    """Raises UserError, naming the sample, when probabilities [batch, num_labels] differ by more than
    TOLERANCE, or values [batch] by more than that part of them."""
    relative = 0 if wanted.ndim > 1 else TOLERANCE
    for sample, row, wanted_row in zip(samples, found, wanted):
        if not np.allclose(row, wanted_row, rtol=relative, atol=TOLERANCE):
            raise UserError(
                "the exported model gives %s for the text %r, the trained model %s; nothing was written"
                % (row.tolist(), sample.text_a + (sample.text_b or ""), wanted_row.tolist()))


def padded(rows: Sequence[Any]) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """input_ids, input_mask and segment_ids, int32 [rows, longest], of rows that are ids and segments."""
    longest = max(len(ids) for ids, _ in rows)
    found = np.zeros((3, len(rows), longest), np.int32)
    for number, (ids, segments) in enumerate(rows):
        found[0, number, :len(ids)], found[1, number, :len(ids)], found[2,
                                                                        number, :len(ids)] = ids, 1, segments
    return found[0], found[1], found[2]
