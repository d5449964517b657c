import numpy as np
import pytest

from estimator.data.tasks import Example
from etl.common.command_line import UserError
from etl.text.tokenization import SPECIAL_TOKENS, Vocabulary, WordPieceTokenizer
from serving.exporting import reference

SAMPLES = [Example("你好", "好", None), Example("吗", None, None)]


def test_inputs():
    tokenizer = WordPieceTokenizer(Vocabulary(list(SPECIAL_TOKENS) + list("你好吗"), "test"), True)
    found = reference.inputs(SAMPLES, tokenizer, 7)
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "input_ids": [[2, 5, 6, 3, 6, 3, 0], [2, 7, 3, 0, 0, 0, 0]],
        "input_mask": [[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0, 0]],
        "segment_ids": [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]]}


def test_require_same():
    wanted = np.array([[0.25, 0.75], [0.5, 0.5]])
    reference.require_same(wanted + 5e-5, wanted, SAMPLES)
    with pytest.raises(UserError,
                       match=r"gives \[0.5, 0.5001\d*\] for the text '吗', the trained model \[0.5, 0.5\]"):
        reference.require_same(wanted + [[0, 0], [0, 1.5e-4]], wanted, SAMPLES)
    values = np.array([1e6, 0.5])
    reference.require_same(values * 1.00005, values, SAMPLES)
    with pytest.raises(UserError, match=r"gives 0.5003 for the text '吗', the trained model 0.5"):
        reference.require_same(values + [0, 3e-4], values, SAMPLES)
